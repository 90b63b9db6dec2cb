"""What several runs of several arms say of the next run: rliable's statistics, and paired differences.

The runs of one arm differ by their seed, and a seed decides everything that is drawn, held-out problems included: runs are
resampled. Scores are [runs] of one task, which rliable takes as [runs, 1]. Few runs say little of their own spread. The bootstrap
never leaves their range, and the range of three holds the median of all runs in 1 − 2·(1/2)³ = 75 % of cases only: its intervals
are too narrow for few seeds, those of :func:`paired` are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rliable.library import create_performance_profile, get_interval_estimates
from rliable.metrics import aggregate_iqm
from scipy.stats import t as student
from scipy.stats import trim_mean

from quatrain.diagnostics.evaluation import Estimate, Scores, difference

RESAMPLES = 2_000
"""rliable's own number for profiles; each is a call of Python's."""


@dataclass(frozen=True)
class Band:
    """A line with its pointwise 95 % intervals."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def interquartile_mean(values: Scores) -> Estimate:
    """The mean of the middle half of the runs' `values`; of fewer than four runs that is all of them.

    Source: arXiv:2108.13264 (rliable), section 4.3; stratified bootstrap.
    """
    values = _runs(values)
    band = _interval({"": values[:, None]}, lambda scores: np.array([aggregate_iqm(scores)]), RESAMPLES)
    return _one(band, len(values))


def probability_above(first: Scores, second: Scores) -> Estimate:
    """P(a run of `first` > a run of `second`), ties counting half: the Mann-Whitney U over the number of pairs.

    Source: arXiv:2108.13264 (rliable), section 4.3; both sides resampled by themselves. Equal to rliable's, and faster.
    """
    first, second = _runs(first), _runs(second)
    pair = [first[:, None], second[:, None]]
    band = _interval({"": pair}, lambda x, y: np.array([0.5 + np.sign(x - y.T).mean() / 2]), RESAMPLES)
    return _one(band, min(len(first), len(second)))


def profile(values: Scores, thresholds: Scores) -> Band:
    """The share of runs whose value is above each of `thresholds`.

    Source: arXiv:2108.13264 (rliable), section 4.2.
    """
    scores, above = {"": _runs(values)[:, None]}, lambda drawn, threshold: (drawn > threshold).mean(axis=0)
    with _seeded():
        found, intervals = create_performance_profile(scores, np.asarray(thresholds), custom_profile_func=above, reps=RESAMPLES)
    return Band(found[""], *intervals[""])


def curve(values: Scores) -> Band:
    """The interquartile mean of `values` [runs, points] at each point."""
    scores = np.asarray(values, dtype=float)[:, None, :]
    return _interval({"": scores}, lambda drawn: trim_mean(drawn[:, 0], 0.25, axis=0), RESAMPLES)


def paired(first: Scores, second: Scores, problems: tuple[Scores, Scores] | None = None) -> Estimate:
    """Mean of first − second over seeds, both [seeds], with an interval that few seeds do not make narrow.

        d̄ ± t(0.975, n − 1) · s/√n

    s is the standard deviation of the seeds' differences, which holds the chance of training and that of the held-out problems.
    Where the scores of all seeds' `problems` are given, in the same order for both, the interval also covers the bootstrap's over
    those: seeds that agree by chance, or at a score's limit, do not make it a point. One seed has no interval.
    """
    d = _runs(first) - _runs(second)
    n, mean = len(d), float(d.mean())
    reach = float(student.ppf(0.975, n - 1) * d.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
    low, high = mean - reach, mean + reach
    if problems is not None:
        resampled = difference(problems[1], problems[0])
        low, high = min(low, resampled.low), max(high, resampled.high)
    return Estimate(mean, low, high, n)


def _interval(scores: dict[str, NDArray] | dict[str, list[NDArray]], statistic: Callable[..., NDArray], resamples: int) -> Band:
    with _seeded():
        found, intervals = get_interval_estimates(scores, statistic, reps=resamples)
    return Band(found[""], *intervals[""])


def _one(band: Band, runs: int) -> Estimate:
    """A band of one point; a single run says nothing of the next."""
    low, high = (float(band.low[0]), float(band.high[0])) if runs > 1 else (-math.inf, math.inf)
    return Estimate(float(band.value[0]), low, high, runs)


@contextmanager
def _seeded() -> Iterator[None]:
    """rliable draws from NumPy's global generator, whatever `random_state` it is given: it is set, and put back as it was."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def _runs(values: Sequence[float] | NDArray) -> NDArray[np.float64]:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"one finite number per run is needed, got {values.tolist()}")
    return values
