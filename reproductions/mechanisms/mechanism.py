"""What a claim about a mechanism is, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from quatrain.claims import Expectation, Verdict
from quatrain.diagnostics.statistics import paired

Measured = Mapping[str, Mapping[str, float]]
"""By arm, and by what is measured."""


@dataclass(frozen=True)
class Mechanism:
    """One sentence, and the function that measures it."""

    name: str
    rows: tuple[str, ...]
    """The rows or settings that it is about."""
    says: str
    paper: str
    """Whose claim it is."""
    measured: str
    """What the numbers are, in a sentence."""
    metric: str
    """What is measured, where a comparison names nothing else."""
    expected: tuple[Expectation, ...]
    """All of them have to hold."""
    seeds: int
    sample: Callable[[int], Measured]
    """Everything measured with one seed."""
    note: str = ""
    """What else was tried, and what is to be made of the result."""

    def judge(self, samples: Sequence[Measured]) -> list[Verdict]:
        """A verdict on each comparison, from one sample for each seed."""
        out = []
        for one in self.expected:
            above, below = ([float(s[arm][metric or self.metric]) for s in samples] for arm, metric in one.sides)
            out.append(Verdict(one, paired(above, below), self.seeds - len(samples)))
        return out


def mechanism(
    *rows: str, says: str, paper: str, measured: str, metric: str, expected: Iterable[Expectation], seeds: int, note: str = ""
) -> Callable[[Callable[[int], Measured]], Mechanism]:
    """Make a function of a seed a claim of its name."""

    def made(sample: Callable[[int], Measured]) -> Mechanism:
        name: str = sample.__name__  # type: ignore[attr-defined]
        return Mechanism(name, rows, says, paper, measured, metric, tuple(expected), seeds, sample, note)

    return made
