"""What a person watching a run sees: a live area in a terminal, plain lines in a log."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

SHOWN = {
    "reward/mean": ("reward", "{:.3f}"),
    "held_out/accuracy": ("held-out", "{:.1%}"),
    "rollout/length": ("length", "{:.1f}"),
    "entropy": ("entropy", "{:.3f}"),
    "tokens_per_second": ("tokens/s", "{:,.0f}"),
    "experiment/runs": ("runs", "{}"),
}
"""Metrics on show: their short name and format. Each keeps its last value until a newer one comes."""


@dataclass
class Stage:
    """Something that takes a while and is being done now."""

    text: str
    began: float
    spinner: Spinner

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Progress:
    """Context manager that shows how a run is getting on, from its first second.

    In a terminal: finished stages as lines, and below them one live area. Elsewhere: plain lines, each step at most every
    `plain_seconds`, flushed. A resumed run begins with `done` steps. The time left is told from the pace of the last steps; where
    these come `in_bursts`, as those of several runs do, from that of all, and of what came before the first.
    """

    def __init__(
        self,
        total_steps: int,
        title: str,
        *,
        done: int = 0,
        console: Console | None = None,
        plain_seconds: float = 5.0,
        in_bursts: bool = False,
    ) -> None:
        self.total_steps = total_steps
        self.title = title
        self.console = console or Console(highlight=False)
        self.plain_seconds = plain_seconds
        if isinstance(self.console.file, io.TextIOWrapper):
            self.console.file.reconfigure(errors="replace")  # a terminal that cannot show a character must not end a run
        self._stages: list[Stage] = []
        self._step = self._done = done
        self._metrics: dict[str, Any] = {}
        self._ended: deque[float] = deque(maxlen=None if in_bursts else 21)
        self._in_bursts = in_bursts
        self._printed = float("-inf")
        self._live = Live(console=self.console, get_renderable=self._render, refresh_per_second=8)
        self._is_live = self.console.is_terminal and not self.console.is_dumb_terminal

    def __enter__(self) -> Self:
        self._ended.append(time.monotonic())
        if self._is_live:
            self._live.start()
        self.note(self.title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_live:
            self._live.stop()

    @contextmanager
    def stage(self, text: str, *, keep: bool = True) -> Iterator[None]:
        """Show that `text` is being done; with `keep` a line with its seconds stays."""
        stage = Stage(text, time.monotonic(), Spinner("dots", style="cyan"))
        self._stages.append(stage)
        if keep and not self._is_live:
            self._line(f"  {text} …")
        mark, style = "✗", "red"
        try:
            yield
            mark, style = "✓", "green"
        finally:
            self._stages.remove(stage)
            # what comes before the first step says nothing of the pace
            if keep and self._step == self._done and not self._in_bursts:
                self._ended[0] = time.monotonic()
            if keep or mark == "✗":
                line = Text.assemble((mark, style), f" {text} ", (_duration(stage.seconds), "dim"))
                self._line(line)

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show that `step` (1 is the first) is done, with its `metrics`."""
        self._step = step
        self._ended.append(time.monotonic())
        self._metrics |= {name: value for name, value in metrics.items() if name in SHOWN and value is not None}
        due = time.monotonic() - self._printed >= self.plain_seconds
        if not self._is_live and (due or step == self.total_steps):
            self._printed = time.monotonic()
            parts = [f"step {step}/{self.total_steps}", *(f"{name} {value}" for name, value in self._shown())]
            self._line("  ".join([*parts, self._left()]).rstrip())

    def note(self, text: str) -> None:
        """Print a line that stays: a warning, an evaluation, a checkpoint."""
        self._line(text)

    def _line(self, line: str | Text) -> None:
        self.console.print(line, markup=False, soft_wrap=True)
        self.console.file.flush()

    def _shown(self) -> Iterator[tuple[str, str]]:
        for name, (label, form) in SHOWN.items():
            if name in self._metrics:
                yield label, form.format(self._metrics[name])

    def _left(self) -> str:
        """Time left at the pace of steps so far."""
        if len(self._ended) < 2:
            return ""
        pace = (self._ended[-1] - self._ended[0]) / (len(self._ended) - 1)
        left = pace * (self.total_steps - self._step)
        return f"{_duration(max(0.0, left))} left" if left else ""

    def _render(self) -> RenderableType:
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True, justify="right")
        count = Text.assemble(("step ", "dim"), f"{self._step}/{self.total_steps}")
        bar.add_row(count, ProgressBar(total=self.total_steps, completed=self._step), Text(self._left(), "dim"))
        rows: list[RenderableType] = [bar]
        values = [Text.assemble((f"{label} ", "dim"), (value, "bold")) for label, value in self._shown()]
        if values:
            rows.append(Text("   ").join(values))
        for stage in self._stages:
            row = Table.grid(padding=(0, 1))
            row.add_row(stage.spinner, Text.assemble(f"{stage.text} … ", (_duration(stage.seconds), "dim")))
            rows.append(row)
        return Group(*rows)


def _duration(seconds: float) -> str:
    """``8.2 s``, ``2 min 05 s`` or ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
