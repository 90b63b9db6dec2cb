"""Are collapses foreseen? The bounds of the signs are fitted on some of the lab's runs and tried on the others."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quatrain.diagnostics.evaluation import estimate
from quatrain.diagnostics.health import SIGNS, SOLVED, WINDOW, Sign, collapse, smooth
from quatrain.diagnostics.records import RunFolder, plain
from quatrain.experiment import Trial
from reproductions.stability.results import WARNING

RATE, RATES = 0.02, (0.01, 0.02, 0.05)
"""Share of the runs without a collapse in which one sign may be seen: for the bounds that are kept, and those that are tried."""
THUMB = (0.05, 2.0, 10.0, 0.3, 2.0, 0.5, 2.0, 0.8, 0.5, 2.0, 0.5, 0.7)
"""Bounds by rule of thumb, what one would say without having measured: of the signs, in their order."""


@dataclass(frozen=True)
class Course:
    """How the signs of one run went."""

    method: str
    cell: str
    collapsed: int | None
    """From which step on; None if it did not."""
    values: Sequence[NDArray[np.float64]]
    """For each sign, from the eleventh step on, the metric as a multiple of the sign's unit; NaN where that does not count."""

    @classmethod
    def of(cls, trial: Trial, method: str, cell: str) -> Course:
        """That of a trial which is over."""
        records = RunFolder(trial.path).metrics.read()
        fell = collapse(records, stopped=trial.stopped)
        return cls(method, cell, fell.step if fell else None, [_values(sign, records) for sign in SIGNS])

    @cached_property
    def worst(self) -> list[float]:
        """For each sign the value that is farthest on its wrong side; NaN where none counts."""
        counted = [values[~np.isnan(values)] for values in self.values]
        ends = zip(SIGNS, counted, strict=True)
        return [float(values.max() if sign.above else values.min()) if len(values) else math.nan for sign, values in ends]

    def first(self, bounds: Sequence[float]) -> int | None:
        """The first step at which a sign leaves its bound."""
        steps = [_first(sign, values, bound) for sign, values, bound in zip(SIGNS, self.values, bounds, strict=True)]
        return min((step for step in steps if step is not None), default=None)


def _values(sign: Sign, records: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    means, reward = (smooth(records, name).tolist() for name in (sign.metric, "reward/mean"))
    units = [sign.unit(means[: n + 1]) for n in range(1, len(means))]
    values = np.array([mean / unit if unit else np.nan for mean, unit in zip(means[1:], units, strict=True)])
    solved = np.array(reward[1 : len(means)]) >= SOLVED
    return np.where(solved, np.nan, values) if sign.unsolved and len(values) else values


def _first(sign: Sign, values: NDArray[np.float64], bound: float) -> int | None:
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(values > bound if sign.above else values < bound)
    return int(wrong[0]) + WINDOW + 1 if len(wrong) else None


def fit(courses: Iterable[Course], rate: float = RATE) -> list[float]:
    """For each sign the bound that it leaves in this share of the healthy runs."""
    worst = np.array([course.worst for course in courses if course.collapsed is None])
    return [float(np.nanquantile(worst[:, n], 1 - rate if sign.above else rate)) for n, sign in enumerate(SIGNS)]


def score(courses: Iterable[tuple[Course, Sequence[float]]]) -> dict[str, Any]:
    """Of runs, each with the bounds that it is held against: collapses foreseen, how far ahead, and false alarms."""
    foreseen, ahead, alarms = [], [], []
    for course, bounds in courses:
        seen = course.first(bounds)
        if course.collapsed is None:
            alarms.append(float(seen is not None))
            continue
        in_time = seen is not None and seen < course.collapsed
        foreseen.append(float(in_time))
        if in_time:
            ahead.append(course.collapsed - seen)
    quartiles = [float(q) for q in np.quantile(ahead, (0.25, 0.5, 0.75))] if ahead else None
    told = {"foreseen": estimate(foreseen) if foreseen else None, "false": estimate(alarms) if alarms else None}
    return {name: found and vars(found) for name, found in told.items()} | {"steps_ahead": quartiles}


SPLITS: dict[str, Callable[[Course], set[str]]] = {
    "other methods": lambda course: {course.method},
    "other stresses": lambda course: {course.cell},
    "other methods under other stresses": lambda course: {course.method, course.cell},
}
"""What a run must have nothing of in common with those that its bounds are fitted on."""


def across(courses: Sequence[Course], split: str, rate: float = RATE) -> Iterator[tuple[Course, Sequence[float]]]:
    """Each run with the bounds that were fitted on runs of the others."""
    of, fitted = SPLITS[split], dict[frozenset[str], Sequence[float]]()
    for course in courses:
        own = frozenset(of(course))
        if own not in fitted:
            fitted[own] = fit((other for other in courses if own.isdisjoint(of(other))), rate)
        yield course, fitted[own]


def write(courses: Sequence[Course]) -> None:
    """Fit, try, and keep what was found."""
    bounds = fit(courses)
    alone = [score((course, _only(n, bound)) for course in courses) for n, bound in enumerate(bounds)]
    found = {
        "runs": len(courses),
        "signs": [
            {"metric": sign.metric, "above": sign.above, "against": sign.against, "bound": bound} | told
            for sign, bound, told in zip(SIGNS, bounds, alone, strict=True)
        ],
        "tried": [{"on": split, "rate": rate} | score(across(courses, split, rate)) for split in SPLITS for rate in RATES],
        "thumb": score((course, THUMB) for course in courses),
    }
    WARNING.write_text(json.dumps(plain(found), indent=1) + "\n")


def _only(number: int, bound: float) -> list[float]:
    """Bounds that no sign leaves but one."""
    return [bound if n == number else math.inf if sign.above else -math.inf for n, sign in enumerate(SIGNS)]
