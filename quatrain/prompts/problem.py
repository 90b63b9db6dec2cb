"""What a task is: a stream of problems."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

VERIFIED = frozenset({"reasoning_gym", "written"})
"""Keys of ``info`` under which a generated problem tells its verifier what is right."""


@dataclass(frozen=True)
class Problem:
    """One problem as the task states it, before any template."""

    question: str
    answer: str | None = None
    """The reference answer, or None where only a verifier knows."""
    demonstration: str | None = None
    """A full worked answer, or None."""
    rated: tuple[tuple[str, float], ...] = ()
    """Answers, each with its reward; a preferred one has 1, the one it is preferred to 0."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the task's verifier needs, in another process too; JSON values only."""

    @property
    def worked(self) -> str | None:
        """The text to imitate: the demonstration, else a rated answer with a reward above 0, else the reference answer."""
        good = next((text for text, reward in self.rated if reward > 0), self.answer)
        return good if self.demonstration is None else self.demonstration

    @property
    def verifiable(self) -> bool:
        """Whether a verifier can tell a right answer: by the reference answer, or by what generated the problem."""
        return self.answer is not None or not VERIFIED.isdisjoint(self.info)


@runtime_checkable
class Task(Protocol):
    """A source of problems without an end."""

    @property
    def name(self) -> str: ...

    @property
    def size(self) -> int | None:
        """Number of rows; None where problems are generated."""
        ...

    def problems(self, seed: int, start: int = 0) -> Iterator[Problem]:
        """The endless stream of `seed`, from its `start`-th problem on. Going there costs nothing."""
        ...


@dataclass(frozen=True)
class Unlabelled:
    """The questions of another task, and nothing that is known of their answers."""

    of: Task

    @property
    def name(self) -> str:
        return self.of.name

    @property
    def size(self) -> int | None:
        return self.of.size

    def problems(self, seed: int, start: int = 0) -> Iterator[Problem]:
        return (Problem(problem.question) for problem in self.of.problems(seed, start))


def stream_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose of a run, unrelated to those of other purposes and of neighbouring seeds."""
    return random.Random(f"{purpose}/{seed}").getrandbits(62)
