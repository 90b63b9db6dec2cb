"""What the runs of several arms came to, side by side: the figures, and one page about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import numpy as np

from quatrain.config import ConfigError, nearest
from quatrain.diagnostics.evaluation import Estimate
from quatrain.diagnostics.records import RunFolder, describe_environment
from quatrain.diagnostics.report import Panel, Run, differing, drawn_panel, rounded, write_page
from quatrain.diagnostics.statistics import Band, curve, interquartile_mean, paired, probability_above, profile

ACCURACY = "accuracy"
KINDS = ("last", "start", "mean", "slope")
POINTS = 60
"""Most points of a curve; what a run recorded between two of them is averaged."""
THRESHOLDS = 81
"""Points of a performance profile."""
CURVES = (
    Panel("Reward", "In training.", {"reward/mean": "reward"}),
    Panel("Entropy", "Of the next token. Near 0 the policy no longer explores.", {"entropy": "entropy"}),
    Panel("Answer length", "Mean tokens of an answer.", {"rollout/length": "tokens"}),
)
"""Drawn where every arm recorded them."""


@dataclass(frozen=True)
class Metric:
    """A number that a run comes to: ``accuracy``, another estimate of its evaluations, or a value of its metrics.

    ``last`` is the value at the end, ``start`` the first one, ``mean`` that over the whole run, and ``slope`` the least-squares
    change in a step.
    """

    name: str = ACCURACY
    kind: str = "last"

    @classmethod
    def parse(cls, text: str) -> Self:
        """``reward/mean:slope`` as a metric.

        Raises:
            ConfigError: there is no such kind.
        """
        name, _, kind = text.partition(":")
        if not name or (kind or "last") not in KINDS:
            raise ConfigError(f"the metric {text!r} is not NAME or NAME:KIND: {nearest(kind, KINDS)}")
        return cls(name, kind or "last")

    def __str__(self) -> str:
        return self.name if self.kind == "last" else f"{self.name}:{self.kind}"

    def series(self, run: Run) -> list[tuple[int, float]]:
        """(step, value) wherever `run` recorded it."""
        name = "pass@1" if self.name == ACCURACY else self.name
        evaluated = [(step, e.estimates[name].value) for step, e in run.evaluations if name in e.estimates]
        return evaluated or [(r["step"], float(r[name])) for r in run.metrics if r.get(name) is not None]

    def value(self, run: Run) -> float:
        """What a finished `run` came to."""
        series = self.series(run)
        if not series:
            known = {ACCURACY, *(name for record in run.metrics for name in record)}
            raise ConfigError(f"{run.folder.path} has no metric {self.name!r}: {nearest(self.name, known)}")
        steps, values = np.array(series).T
        match self.kind:
            case "start":
                return float(values[0])
            case "mean":
                return float(values.mean())
            case "slope" if len(steps) > 1:
                return float(np.polyfit(steps, values, 1)[0])
            case "slope":
                raise ConfigError(f"{run.folder.path} recorded {self.name} once, and a slope needs two points: raise steps")
        return float(values[-1])

    def scores(self, run: Run) -> tuple[float, ...] | None:
        """By problem, where the metric is a mean of those."""
        which = {"start": 0, "last": -1}.get(self.kind)
        return None if self.name != ACCURACY or which is None else run.evaluations[which][1].scores


@dataclass(frozen=True)
class Outcome:
    """One run of an arm, and why it has no result if it has none."""

    arm: str
    seed: int
    run: Run
    failure: str = ""

    @classmethod
    def of(cls, arm: str, seed: int, path: Path, failure: str = "", first: Path | None = None) -> Self:
        """That of the run in the folder `path`, which went on from the run in `first`, if that is given."""
        label = f"{arm}, seed {seed}"
        return cls(arm, seed, Run(RunFolder(path), label, Run(RunFolder(first), label) if first else None), failure)


@dataclass(frozen=True)
class Arm:
    """All runs of one arm. The figures are those of the runs that finished."""

    name: str
    outcomes: tuple[Outcome, ...]
    metric: Metric

    def by(self, metric: Metric) -> Arm:
        """The same runs, measured by another `metric`."""
        return Arm(self.name, self.outcomes, metric)

    @property
    def finished(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.failure]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure]

    @cached_property
    def values(self) -> dict[int, float]:
        """By seed."""
        return {outcome.seed: self.metric.value(outcome.run) for outcome in self.finished}

    @cached_property
    def iqm(self) -> Estimate | None:
        return interquartile_mean(list(self.values.values())) if self.values else None

    @property
    def mean(self) -> float | None:
        return self._over_runs(self.values.values())

    @property
    def seconds(self) -> float | None:
        """Of a run's steps, in the mean."""
        return self._over_runs(o.run.seconds for o in self.finished)

    @property
    def tokens(self) -> float | None:
        """That a run's policy wrote in training, in the mean."""
        return self._over_runs(sum(r.get("rollout/tokens") or 0 for r in o.run.metrics) for o in self.finished)

    def curve(self, metric: Metric) -> tuple[list[int], Band] | None:
        """(steps, band over runs) of another metric; None where a run lacks it."""
        series = [metric.series(outcome.run) for outcome in self.finished]
        steps = [[step for step, _ in points] for points in series]
        if not series or not steps[0] or steps != [steps[0]] * len(steps):
            return None
        parts = np.array_split(np.arange(len(steps[0])), min(POINTS, len(steps[0])))
        values = np.array([[np.mean([points[i][1] for i in part]) for part in parts] for points in series])
        return [steps[0][part[-1]] for part in parts], curve(values)

    @staticmethod
    def _over_runs(values: Any) -> float | None:
        found = list(values)
        return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Pair:
    """Two arms against each other, on the seeds that finished in both."""

    first: Arm
    second: Arm

    @property
    def seeds(self) -> list[int]:
        return [seed for seed in self.first.values if seed in self.second.values]

    @cached_property
    def difference(self) -> Estimate | None:
        """first − second, paired by seed; see :func:`~quatrain.diagnostics.statistics.paired`."""
        if not self.seeds:
            return None
        values = [[arm.values[seed] for seed in self.seeds] for arm in (self.first, self.second)]
        problems = [
            [arm.metric.scores(outcome.run) for outcome in arm.finished if outcome.seed in self.seeds]
            for arm in (self.first, self.second)
        ]
        one, two = ([score for scores in found if scores for score in scores] for found in problems)
        return paired(values[0], values[1], (one, two) if one and two else None)  # not every metric has scores

    @cached_property
    def above(self) -> Estimate | None:
        """Probability that a run of the first arm comes out above one of the second."""
        if not self.first.values or not self.second.values:
            return None
        return probability_above(list(self.first.values.values()), list(self.second.values.values()))


class Comparison:
    """Arms that were measured by `metric`, from the outcomes of their runs."""

    def __init__(self, outcomes: Sequence[Outcome], metric: Metric) -> None:
        self.metric = metric
        names = dict.fromkeys(outcome.arm for outcome in outcomes)
        self.arms = {name: Arm(name, tuple(o for o in outcomes if o.arm == name), metric) for name in names}
        self.seeds = list(dict.fromkeys(outcome.seed for outcome in outcomes))

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for arm in self.arms.values() for outcome in arm.failed]

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every two arms, in the order they were named."""
        return [Pair(*two) for two in combinations(self.arms.values(), 2)]

    def to_json(self) -> dict[str, Any]:
        """Every figure, with the versions that made it and the seconds that it took."""
        runs = [outcome for arm in self.arms.values() for outcome in arm.outcomes]
        return {
            "metric": str(self.metric),
            "steps": runs[0].run.planned_steps,
            "seconds": sum(outcome.run.seconds for outcome in runs),
            "made_with": describe_environment("rliable", "arch", "scipy"),
            "arms": {
                name: {
                    "iqm": _json(arm.iqm),
                    "mean": arm.mean,
                    "seconds": arm.seconds,
                    "tokens": arm.tokens,
                    "runs": [
                        {"seed": o.seed, "value": arm.values.get(o.seed), "seconds": o.run.seconds, "failure": o.failure}
                        for o in arm.outcomes
                    ],
                }
                for name, arm in self.arms.items()
            },
            "pairs": [
                {"first": p.first.name, "second": p.second.name, "difference": _json(p.difference), "above": _json(p.above)}
                for p in self.pairs
            ],
        }

    def write(self, out: Path, title: str, verdicts: Sequence[Mapping[str, str]] = ()) -> None:
        """One page, called `title`, with the `verdicts` on what was claimed."""
        arms = list(self.arms.values())
        first = next((arm.finished[0].run for arm in arms if arm.finished), None)
        sections = [
            {"title": "Does it learn?", "panels": list(self._curves())},
            {"title": "How many runs get how far?", "panels": list(self._profiles())},
        ]
        write_page(
            "comparison.html.j2",
            out,
            list(self.arms),
            [section for section in sections if section["panels"]],
            comparison=self,
            title=title,
            verdicts=verdicts,
            arms=arms,
            differing=differing([arm.outcomes[0].run.config if arm.outcomes[0].run.folder.is_run else {} for arm in arms]),
            first=first,
        )

    def _curves(self) -> Iterator[dict[str, Any]]:
        name, about = self.metric.name, "On problems never trained on; on fewer of them between the first and the last step."
        if name == ACCURACY:
            own = Panel("Held-out accuracy", about, {ACCURACY: "accuracy"}, unit="share")
        else:
            own = Panel(name, "", {name: name})
        for panel in (own, *(panel for panel in CURVES if name not in panel.metrics)):
            (shown,) = panel.metrics
            found = [(number, arm.curve(Metric(shown)), len(arm.values)) for number, arm in enumerate(self.arms.values())]
            lines = [_line(number, *drawn, f"in the middle of {n} runs") for number, drawn, n in found if drawn]
            if lines:
                yield drawn_panel(panel, lines, [] if shown == ACCURACY else [shown])

    def _profiles(self) -> Iterator[dict[str, Any]]:
        values = [value for arm in self.arms.values() for value in arm.values.values()]
        if values:
            room = (max(values) - min(values)) / 20 or 0.05
            thresholds = np.linspace(min(values) - room, max(values) + room, THRESHOLDS)
            panel = Panel("Performance profile", f"Share of runs with {self.metric} above what is to the right.", unit="share")
            lines = [
                _line(number, thresholds.tolist(), profile(list(arm.values.values()), thresholds), f"of {len(arm.values)} runs")
                for number, arm in enumerate(self.arms.values())
                if arm.values
            ]
            yield drawn_panel(panel, lines, []) | {"axis": str(self.metric)}


def _line(number: int, x: Sequence[float], band: Band, note: str) -> dict[str, Any]:
    bounds = {
        key: [rounded(float(v)) for v in getattr(band, of)] for key, of in (("y", "value"), ("low", "low"), ("high", "high"))
    }
    return {"run": number, "name": "", "x": [rounded(value) for value in x], **bounds, "smooth": None, "notes": [note] * len(x)}


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else vars(estimate)
