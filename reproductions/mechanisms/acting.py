"""The stages of a real run, without the run: a policy that acts, is judged and learns."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from quatrain.assembly import plan
from quatrain.config import load, merge
from quatrain.diagnostics.progress import Progress
from quatrain.diagnostics.records import RunFolder
from quatrain.run import Run
from quatrain.types import Batch, collate

SETTINGS: dict[str, Any] = {
    "model": "tunnel",
    "prompts_per_step": 16,
    "group_size": 8,
    "threads": 1,
    "engine": {"max_sequences": 128},
    "update": {"lr": 1e-4, "tokens_per_pass": 320},
    "evaluate": {"problems": 0},
    "checkpoint": {"every": 0},
}
"""Of every claim, unless it says otherwise."""


@contextmanager
def stages(**settings: Any) -> Iterator[Run]:
    """Those of a run with the `settings`."""
    with tempfile.TemporaryDirectory() as folder, Progress(0, "", console=Console(quiet=True)) as progress:
        planned = plan(load(merge(SETTINGS, settings)))
        with Run.open(planned, RunFolder(Path(folder)), progress) as run:
            yield run


def acted(run: Run, prompts: int) -> Batch:
    """Answers to the next `prompts`, judged."""
    groups = run.rollout(run.source.take(prompts), version=run.learner.updates)
    return collate(run.judging.judge(groups))
