"""Metrics as TensorBoard event files in the run folder: ``tensorboard --logdir runs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def open_tensorboard(folder: Path, config: Mapping[str, Any], first_step: int) -> TensorBoard:
    """Event files under ``tensorboard/``; readers drop earlier events from `first_step` on."""
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoard(SummaryWriter(str(folder / "tensorboard"), purge_step=first_step if first_step > 1 else None))
