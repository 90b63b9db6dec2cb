"""Where metrics go besides the run folder: TensorBoard, Weights & Biases, Trackio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from quatrain.config import ConfigError, nearest
from quatrain.diagnostics.records import plain
from quatrain.diagnostics.tensorboard import open_tensorboard
from quatrain.diagnostics.trackio import open_trackio
from quatrain.diagnostics.wandb import open_wandb


@runtime_checkable
class Tracker(Protocol):
    """One place to send metrics to."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


Opener = Callable[[Path, Mapping[str, Any]], Tracker]

TRACKERS: dict[str, Opener] = {"tensorboard": open_tensorboard, "wandb": open_wandb, "trackio": open_trackio}


class Trackers:
    """Several trackers as one. Closed at the end of a ``with`` block."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = tuple(trackers)

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Send the finite numbers among `metrics`."""
        numbers = {
            name: float(value) for name, value in plain(metrics).items() if isinstance(value, int | float) and name != "step"
        }
        for tracker in self.trackers:
            tracker.log(step, numbers)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> Trackers:
    """The trackers called `names` for the run in `folder`, with its `config` as a plain tree.

    A resumed run goes on in the same place, and the steps it repeats appear once.

    Raises:
        ConfigError: an unknown name, or a tracker that is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"there is no tracker {name!r}: {nearest(name, TRACKERS)}")
    return Trackers([TRACKERS[name](folder, config) for name in names])
