"""Metrics as TensorBoard event files in the run folder: ``tensorboard --logdir runs``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """Event files in `folder`. What an earlier process logged from the first step on that this one logs is dropped by readers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder), purge_step=step)
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def open_tensorboard(folder: Path, config: Mapping[str, Any]) -> TensorBoard:
    """Event files under ``tensorboard/``."""
    return TensorBoard(folder / "tensorboard")
