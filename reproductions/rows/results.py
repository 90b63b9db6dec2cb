"""What the rows' runs came to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import quatrain
from quatrain.diagnostics.evaluation import Estimate, difference, estimate
from quatrain.types import Origin

RESULTS = Path(__file__).with_name("results.json")
SAMPLES = 4
"""Answers to each problem, of which a digit says how many are right."""
WHEN = ("before", "after")


@dataclass(frozen=True)
class Row:
    """All seeds of one row together; the intervals are over their held-out problems."""

    name: str
    before: Estimate
    after: Estimate
    gain: Estimate
    gains: tuple[float, ...]
    """By seed."""
    ranking: tuple[Estimate, Estimate] | None
    """The share of held-out pairs that are ranked right, before and after; of rows that learn from pairs."""

    @property
    def verdict(self) -> str:
        """What its answers came to, and for rows that learn from pairs, whether it ranks them better."""
        answers = "learned" if self.gain.low > 0 else "lost" if self.gain.high < 0 else "undecided"
        if self.ranking is None:
            return answers
        before, after = self.ranking
        ranks = "learned" if after.low > before.high else "lost" if after.high < before.low else "undecided"
        return f"{answers}; ranking {ranks}"


def read() -> dict[str, Any]:
    """The committed results; none before the first run."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}


def summary(runs: Sequence[dict[str, Any]]) -> list[Row]:
    """By row, in the order of `runs`."""
    return [_row(name, [r for r in runs if r["row"] == name]) for name in dict.fromkeys(r["row"] for r in runs)]


def _row(name: str, runs: Sequence[dict[str, Any]]) -> Row:
    before, after = ([shares(r[when], SAMPLES) for r in runs] for when in WHEN)
    gains = tuple(float((b - a).mean()) for a, b in zip(before, after, strict=True))
    whole = [np.concatenate(x) for x in (before, after)]
    ranked = [np.concatenate([shares(r[f"ranked_{when}"], 2) for r in runs if f"ranked_{when}" in r] or [[]]) for when in WHEN]
    compares = Origin.RATED in quatrain.method(name.split()[0]).origins
    ranking = (estimate(ranked[0]), estimate(ranked[1])) if compares and all(map(len, ranked)) else None
    return Row(name, estimate(whole[0]), estimate(whole[1]), difference(*whole), gains, ranking)


def shares(digits: str, of: int) -> np.ndarray:
    """What the digits say, as shares of `of`."""
    return np.array([int(digit) for digit in digits]) / of


def markdown() -> str:
    """The table for the documentation."""
    lines = ["| row | before | after | gain | by seed | pairs ranked right | |", "|---|---|---|---|---|---|---|"]
    for row in summary(read()["runs"]):
        name, *settings = row.name.split()
        label = ", ".join(f"`{word}`" for word in (name, *settings))
        ranking = "" if row.ranking is None else f"{row.ranking[0].value:.2f} → {row.ranking[1]:.2f}"
        cells = (
            label,
            f"{row.before.value:.2f}",
            f"{row.after:.2f}",
            f"{row.gain:+.2f}",
            ", ".join(f"{g:+.2f}" for g in row.gains),
        )
        lines.append(f"| {' | '.join((*cells, ranking, row.verdict))} |")
    return "\n".join(lines)
