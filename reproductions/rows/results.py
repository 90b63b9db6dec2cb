"""What the rows' runs came to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quatrain.diagnostics.evaluation import Estimate, difference, estimate

RESULTS = Path(__file__).with_name("results.json")
SAMPLES = 4
"""Answers to each problem, of which a digit says how many are right."""


@dataclass(frozen=True)
class Row:
    """All seeds of one row together; the intervals are over their held-out problems."""

    name: str
    before: Estimate
    after: Estimate
    gain: Estimate
    gains: tuple[float, ...]
    """By seed."""

    @property
    def verdict(self) -> str:
        return "learned" if self.gain.low > 0 else "lost" if self.gain.high < 0 else "undecided"


def read() -> dict[str, Any]:
    """The committed results; none before the first run."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": []}


def summary(runs: Sequence[dict[str, Any]]) -> list[Row]:
    """By row, in the order of `runs`."""
    return [_row(name, [r for r in runs if r["row"] == name]) for name in dict.fromkeys(r["row"] for r in runs)]


def _row(name: str, runs: Sequence[dict[str, Any]]) -> Row:
    before, after = ([_shares(r[when]) for r in runs] for when in ("before", "after"))
    gains = tuple(float((b - a).mean()) for a, b in zip(before, after, strict=True))
    whole = [np.concatenate(x) for x in (before, after)]
    return Row(name, estimate(whole[0]), estimate(whole[1]), difference(*whole), gains)


def _shares(digits: str) -> np.ndarray:
    return np.array([int(digit) for digit in digits]) / SAMPLES


def markdown() -> str:
    """The table for the documentation."""
    lines = ["| row | before | after | gain | by seed | |", "|---|---|---|---|---|---|"]
    for row in summary(read()["runs"]):
        seeds = ", ".join(f"{gain:+.2f}" for gain in row.gains)
        lines.append(f"| `{row.name}` | {row.before.value:.2f} | {row.after:.2f} | {row.gain:+.2f} | {seeds} | {row.verdict} |")
    return "\n".join(lines)
