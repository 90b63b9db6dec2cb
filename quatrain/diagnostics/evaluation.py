"""What a matrix of scores says: pass@k, maj@k, distinct@k and accuracy, each with an interval that holds.

Problems, not answers, are what an evaluation samples: answers to one problem are alike, so every interval here is over problems.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from quatrain.config import ConfigError

Scores = NDArray[Any] | Sequence[Any]
"""An array, or sequences of numbers, of the shape that is said where it is used."""
Z = NormalDist().inv_cdf(0.975)
"""Standard deviations that a two-sided 95 % interval reaches."""
RESAMPLES = 10_000
"""Bootstrap resamples; the seed is fixed, so an interval never depends on when it was computed."""


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and the number of problems behind it.

    Formatting applies to all three numbers: ``f"{estimate:+.2f}"`` is ``+0.12 [+0.05, +0.19]``.
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        value, low, high = (format(number, spec or ".2f") for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"

    def __str__(self) -> str:
        return format(self)


def wilson(successes: int | float, n: int) -> tuple[float, float]:
    """95 % interval of a share: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n).

    Wilson 1927; unlike p ± z·√(p(1−p)/n) it has width at 0 and at n.
    """
    p = successes / n
    centre = p + Z**2 / (2 * n)
    reach = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = (centre - reach) / (1 + Z**2 / n), (centre + reach) / (1 + Z**2 / n)
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def estimate(values: Scores) -> Estimate:
    """The mean of one number in [0, 1] per problem.

    Wilson's interval where each problem is one 0/1 trial, else the percentile bootstrap over problems.
    """
    values = _per_problem(values, low=0.0, high=1.0)
    n, mean = len(values), float(values.mean())
    if np.isin(values, (0.0, 1.0)).all():
        low, high = wilson(float(values.sum()), n)
    else:
        low, high = _bootstrap(values, floor=0.0, ceiling=1.0)
    return Estimate(mean, low, high, n)


def difference(before: Scores, after: Scores) -> Estimate:
    """Mean of after − before, paired over problems, with the percentile bootstrap's interval.

    Both are [P], or [P, n] scores of n answers each, of the same problems in the same order.
    """
    before, after = (np.asarray(x, dtype=float) for x in (before, after))
    if len(before) != len(after):
        raise ValueError(f"a paired difference needs the same problems twice, got {len(before)} before and {len(after)} after")
    before, after = (_per_problem(x.mean(axis=1) if x.ndim == 2 else x, low=0.0, high=1.0) for x in (before, after))
    low, high = _bootstrap(after - before, floor=-1.0, ceiling=1.0)
    return Estimate(float((after - before).mean()), low, high, len(before))


def pass_at_k(correct: Scores, k: int) -> NDArray[np.float64]:
    """Chance that at least one of k answers is right, without bias: 1 − C(n−c, k) / C(n, k).

    Chen et al. 2021, arXiv:2107.03374, equation 1. `correct` is [P, n]; the result is [P].
    """
    correct = np.asarray(correct, dtype=bool)
    n = _samples(correct, k, "pass")
    wrong = n - correct.sum(axis=1, keepdims=True)
    drawn = np.arange(k)
    return 1.0 - np.prod(np.maximum(wrong - drawn, 0) / (n - drawn), axis=1)


def distinct_at_k(answers: Sequence[Sequence[str | None]], correct: Scores, k: int) -> NDArray[np.float64]:
    """Different right answers among k answers, divided by k: the exact mean over all C(n, k) choices of k of the n answers.

        Σ over right answers a:  (1 − C(n − count(a), k) / C(n, k)) / k

    It is pass@1 where no two right answers are the same, and pass@k / k where a problem has a single right answer. `answers` and
    `correct` are [P, n]; the result is [P].
    """
    correct = np.asarray(correct, dtype=bool)
    n = _samples(correct, k, "distinct")
    _check_shape(answers, correct)
    counts = [
        Counter(answer for answer, is_right in zip(row, right, strict=True) if is_right)
        for row, right in zip(answers, correct, strict=True)
    ]
    every = math.comb(n, k)
    return np.array([sum(every - math.comb(n - count, k) for count in row.values()) / (every * k) for row in counts])


def majority_at_k(answers: Sequence[Sequence[str | None]], correct: Scores, k: int) -> NDArray[np.float64]:
    """Chance that the most frequent of k answers is right: the exact mean over all C(n, k) choices of k of the n answers.

    A tie is split evenly among the answers that share the first place. None is an answer that could not be read: it has no vote,
    and where nobody votes the problem is wrong. `answers` and `correct` are [P, n]; the result is [P].
    """
    correct = np.asarray(correct, dtype=bool)
    _samples(correct, k, "maj")
    _check_shape(answers, correct)
    return np.array([_majority(row, right, k) for row, right in zip(answers, correct, strict=True)])


def _majority(answers: Sequence[str | None], correct: NDArray[np.bool_], k: int) -> float:
    """maj@k of one problem.

    Counts, for each height of the winners' pile, the choices of k answers by how many right and wrong answers reach it.
    """
    size = Counter(answers)
    silent = size.pop(None, 0)
    right = {answer for answer, is_right in zip(answers, correct, strict=True) if is_right}
    favourable = 0.0
    for height in range(1, min(k, max(size.values(), default=0)) + 1):
        ways: dict[tuple[int, int, int], int] = {(drawn, 0, 0): math.comb(silent, drawn) for drawn in range(min(silent, k) + 1)}
        for answer, count in size.items():
            grown: defaultdict[tuple[int, int, int], int] = defaultdict(int)
            for (drawn, rights, wrongs), number in ways.items():
                for votes in range(min(count, height, k - drawn) + 1):
                    wins = votes == height
                    key = (drawn + votes, rights + (wins and answer in right), wrongs + (wins and answer not in right))
                    grown[key] += number * math.comb(count, votes)
            ways = grown
        favourable += sum(
            number * rights / (rights + wrongs) / math.comb(len(answers), k)
            for (drawn, rights, wrongs), number in ways.items()
            if drawn == k and rights
        )
    return min(favourable, 1.0)  # the sum of rounded shares may be above by a rounding


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a set of problems; `problems` × `samples` answers."""

    task: str
    problems: int
    samples: int
    scores: tuple[float, ...]
    """Share of right answers per problem, in the problems' order: what :func:`difference` pairs."""
    estimates: Mapping[str, Estimate]
    """``pass@k``, ``maj@k`` and ``distinct@k`` by name, and ``score`` where answers can be partly right."""
    seconds: float

    @classmethod
    def of(
        cls,
        task: str,
        scores: Scores,
        *,
        answers: Sequence[Sequence[str | None]] | None = None,
        k: Sequence[int] = (1,),
        seconds: float = 0.0,
    ) -> Self:
        """The evaluation of `scores` [P, n] in [0, 1], where 1 is a right answer and anything less is not.

        `answers` [P, n] as read from the texts add maj@k and distinct@k; `k` are those of all three, and pass@1 is always there.
        """
        scores = np.asarray(scores, dtype=float)
        if scores.ndim != 2 or not scores.size:
            raise ValueError(f"scores must be [P, n] with at least one problem and answer, got shape {list(scores.shape)}")
        correct = scores == 1.0
        estimates = {f"pass@{size}": estimate(pass_at_k(correct, size)) for size in sorted({1, *k})}
        if answers is not None:
            for name, compute in (("maj", majority_at_k), ("distinct", distinct_at_k)):
                estimates |= {f"{name}@{size}": estimate(compute(answers, correct, size)) for size in sorted({*k} - {1})}
        mean_score = estimate(scores.mean(axis=1))  # also refuses what is no score
        if not np.isin(scores, (0.0, 1.0)).all():
            estimates["score"] = mean_score
        problems, samples = scores.shape
        return cls(task, problems, samples, tuple(correct.mean(axis=1).tolist()), estimates, seconds)

    @classmethod
    def of_records(cls, records: Iterable[Mapping[str, Any]]) -> dict[int, Evaluation]:
        """By step, those of a run's records; where nothing judges answers, a record tells of pairs alone, and is left out."""
        return {record["step"]: cls.from_json(record) for record in records if "scores" in record}

    @property
    def accuracy(self) -> Estimate:
        """Share of right answers: pass@1."""
        return self.estimates["pass@1"]

    def lines(self) -> list[str]:
        """What a person wants to read, one line per estimate."""
        each = f", {self.samples} answers each" if self.samples > 1 else ""
        first = f"accuracy {self.accuracy} on {self.problems} problems{each}"
        return [first, *(f"{name} {value}" for name, value in self.estimates.items() if name != "pass@1")]

    def to_json(self) -> dict[str, Any]:
        estimates = {name: {"value": e.value, "low": e.low, "high": e.high, "n": e.n} for name, e in self.estimates.items()}
        return {**vars(self), "scores": list(self.scores), "estimates": estimates}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The evaluation that :meth:`to_json` wrote; other keys of the record, such as ``step``, are left alone."""
        return cls(
            task=record["task"],
            problems=record["problems"],
            samples=record["samples"],
            scores=tuple(record["scores"]),
            estimates={name: Estimate(**fields) for name, fields in record["estimates"].items()},
            seconds=record["seconds"],
        )


def _bootstrap(values: NDArray[np.float64], floor: float, ceiling: float) -> tuple[float, float]:
    """Percentile bootstrap of the mean; values that all agree say nothing of how they spread, and get :func:`_unseen`."""
    if np.ptp(values) < 1e-12:
        return _unseen(float(values[0]), len(values), floor, ceiling)
    rng = np.random.default_rng(0)
    blocks = 10  # bounds the memory: [RESAMPLES / blocks, P] at a time
    means = [values[rng.integers(len(values), size=(RESAMPLES // blocks, len(values)))].mean(axis=1) for _ in range(blocks)]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)


def _unseen(value: float, n: int, floor: float, ceiling: float) -> tuple[float, float]:
    """Interval where all n problems gave `value`: a share of up to u = z²/(n + z²) others may lie anywhere in the range.

    u is Wilson's upper limit for 0 of n, so that at `floor` and `ceiling` this is Wilson's interval.
    """
    u = Z**2 / (n + Z**2)
    return (1 - u) * value + u * floor, (1 - u) * value + u * ceiling


def _per_problem(values: Scores, low: float, high: float) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"one number per problem is needed, got shape {list(values.shape)}")
    if not ((values >= low) & (values <= high)).all():
        strange = values[~((values >= low) & (values <= high))][0]
        raise ValueError(f"scores must lie in [{low:g}, {high:g}], got {strange}: count a failed answer as {low:g}")
    return values


def _check_shape(answers: Sequence[Sequence[str | None]], correct: NDArray[np.bool_]) -> None:
    if [len(row) for row in answers] != [correct.shape[1]] * len(correct):
        raise ValueError(f"answers must be {list(correct.shape)} like correct")


def _samples(correct: NDArray[np.bool_], k: int, name: str) -> int:
    """n of `correct` [P, n], which must be at least `k`."""
    if correct.ndim != 2:
        raise ValueError(f"correct must be [P, n], got shape {list(correct.shape)}")
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ConfigError(f"{name}@{k} needs {k} answers per problem and there are {n}: set evaluate.samples to {k} or more")
    return n
