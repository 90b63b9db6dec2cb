"""READ FIRST: the cycle, once, from top to bottom.

    prompts ──▶ rollouts ──▶ rewards ──▶ objective ──▶ update ──▶ new weights
       ▲                                                 │
       └────────── what was learned about each prompt ◀──┘

What each stage does is behind these calls; what a method is, is inside `learn`, as data. Nothing here knows one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from quatrain.types import Batch, Group, Prompt, collate


@runtime_checkable
class Source(Protocol):
    """1. Which tasks."""

    def take(self, count: int) -> list[Prompt]: ...
    def learn(self, groups: Sequence[Group]) -> None: ...


@runtime_checkable
class Acting(Protocol):
    """2. From prompts to trajectories."""

    def __call__(self, prompts: Sequence[Prompt], *, version: int) -> list[Group]: ...


@runtime_checkable
class Judging(Protocol):
    """3. Rewards and their breakdown."""

    def judge(self, groups: Sequence[Group]) -> list[Group]: ...


@runtime_checkable
class Learning(Protocol):
    """4 and 5. Advantages, weights, gradient, new weights."""

    updates: int

    def learn(self, batch: Batch, step: int) -> dict[str, float]: ...


@runtime_checkable
class Keeping(Protocol):
    """What a step leaves behind: metrics, rollouts, evaluations and checkpoints."""

    def rollouts(self, step: int, groups: Sequence[Group], batch: Batch) -> None: ...
    def evaluate(self, step: int) -> dict[str, float]: ...
    def log(self, step: int, groups: Sequence[Group], metrics: dict[str, Any], clock: Clock) -> None: ...
    def checkpoint(self, step: int) -> None: ...


@dataclass
class Clock:
    """Seconds of each stage of a step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - began


def train(
    steps: Sequence[int], prompts_per_step: int, source: Source, rollout: Acting, judge: Judging, learner: Learning, keep: Keeping
) -> None:
    """Do `steps`, one after the other; 1 is the first of a run."""
    for step in steps:
        clock = Clock()
        prompts = source.take(prompts_per_step)
        with clock("rollout"):
            groups = rollout(prompts, version=learner.updates)
        with clock("reward"):
            groups = judge.judge(groups)
        batch = collate(groups)
        keep.rollouts(step, groups, batch)
        with clock("update"):
            metrics = learner.learn(batch, step)
        source.learn(groups)
        with clock("evaluate"):
            metrics |= keep.evaluate(step)
        keep.log(step, groups, metrics, clock)
        keep.checkpoint(step)
