"""One row and one function of a peer: equal, or different by a change of the row that is named and then makes them equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from oracles.case import Case, sampled
from oracles.peer import Peer
from quatrain.methods import METHODS
from quatrain.objective import Method

TOLERANCE = 1e-6
"""Largest difference of any weight, in units of the largest weight."""
SEEDS = range(8)


@dataclass(frozen=True)
class Comparison:
    """What a row is compared with, and what is found."""

    row: str
    theirs: Peer
    data: Callable[[int], Case] = sampled
    at: Mapping[str, Any] = field(default_factory=dict)
    """Numbers of the row that are set for the comparison."""
    difference: str = ""
    """Why the two differ, in a sentence; empty where they are equal."""
    as_theirs: Mapping[str, Any] = field(default_factory=dict)
    """The change of the row that makes them equal: its lines, terms and numbers by their names."""
    target: Literal["logp", "value"] = "logp"

    def __str__(self) -> str:
        return f"{self.row}-{self.theirs.package}-{self.theirs.function}".replace(" ", "")

    @property
    def ours(self) -> Method:
        return METHODS[self.row].with_settings(self.at)

    @property
    def changed(self) -> Method:
        numbers = {name: value for name, value in self.as_theirs.items() if "." in name}
        lines = {name: value for name, value in self.as_theirs.items() if "." not in name}
        return self.ours.replace(**lines).with_settings(numbers)

    def gap(self, method: Method, seed: int) -> float:
        """The largest difference between the weights of `method` and theirs, in units of their largest weight."""
        case = self.data(seed)
        weights = method.bind(case.batch).weights(case.logp, case.values_now if self.target == "value" else None)
        ours, theirs = getattr(weights, self.target), self.theirs(case)
        return float((ours - theirs).abs().max() / theirs.abs().max())

    def holds(self) -> bool:
        """Whether the change makes them equal, and, where a difference is named, whether it is needed."""
        equal = all(self.gap(self.changed, seed) < TOLERANCE for seed in SEEDS)
        apart = any(self.gap(self.ours, seed) > 10 * TOLERANCE for seed in SEEDS)
        return equal and apart == bool(self.difference)
