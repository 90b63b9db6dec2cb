"""How a run is, by the metrics that every run has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

WINDOW = 10
"""Steps that are averaged before anything is said of them."""
LOST = 0.5
"""Share of the best reward so far, below which a run has lost what it could."""
LEAST = 0.05
"""The least fall of the reward that counts, so that a run which never learned has nothing to lose."""
DECIDED = 0.1
"""Share of the first entropy, below which a policy no longer explores."""
ALIKE = 0.9
"""Share of groups whose answers are all as good as each other, from which on nothing is learned."""
SOLVED = 0.9
"""Reward from which on alike answers are no fault."""


@dataclass(frozen=True)
class Collapse:
    """That a run collapsed, when, and by what it was seen."""

    step: int
    """From this step on."""
    sign: Literal["gradient", "reward", "entropy"]
    says: str
    """What was seen, in words and figures."""


def collapse(records: Sequence[Mapping[str, Any]], *, stopped: str = "") -> Collapse | None:
    """Whether the run of these metrics, one record a step, collapsed; where it did in several ways, the first.

    All is of means over ten steps. A run has collapsed

    * by its *gradient*, where it ended itself, as so many gradients in a row were not finite (`stopped` says so);
    * by its *reward*, from when it fell below half of the best so far, by 0.05 or more, and stayed there to the end;
    * by its *entropy*, from when that fell below a tenth of the first while nine groups in ten were without contrast and the
      reward was below 0.9, and all that stayed so to the end: it repeats itself, and nothing can be learned from that.

    What recovers has not collapsed, nor what never learned. Rewards lie from 0 to 1.
    """
    found = [_gradient(records, stopped), _reward(records), _entropy(records)]
    return min((one for one in found if one), key=lambda one: one.step, default=None)


def _gradient(records: Sequence[Mapping[str, Any]], stopped: str) -> Collapse | None:
    return Collapse(len(records) + 1, "gradient", stopped) if stopped else None


def _reward(records: Sequence[Mapping[str, Any]]) -> Collapse | None:
    reward = smooth(records, "reward/mean")
    if not len(reward):
        return None
    best = np.maximum.accumulate(reward)
    since = _to_the_end((reward < LOST * best) & (reward <= best - LEAST))
    if since is None:
        return None
    return Collapse(since + 1, "reward", f"the reward fell from {best[since]:.3g} to {reward[-1]:.3g} and did not come back")


def _entropy(records: Sequence[Mapping[str, Any]]) -> Collapse | None:
    reward, entropy, alike = (smooth(records, name) for name in ("reward/mean", "entropy", "advantage/zero_groups"))
    if not len(reward) or len(entropy) != len(reward) or len(alike) != len(reward):
        return None
    since = _to_the_end((entropy < DECIDED * entropy[0]) & (alike > ALIKE) & (reward < SOLVED))
    if since is None:
        return None
    told = f"the entropy fell from {entropy[0]:.3g} to {entropy[-1]:.3g} at a reward of {reward[-1]:.3g}"
    return Collapse(since + 1, "entropy", f"{told}, and {alike[-1]:.0%} of the groups have nothing to learn from")


@dataclass(frozen=True)
class Sign:
    """One way in which a run can be seen to go wrong, by one of its metrics: a mean over ten steps that leaves its bounds."""

    metric: str
    limit: float
    """The bound."""
    against: Literal["nothing", "first", "best", "median"]
    """What the bound is a multiple of: of 1, of the first mean over ten steps, the best so far, or the median so far."""
    above: bool
    """Whether it is wrong to be above the bound, or below it."""
    says: str
    """What that means, in words."""
    remedy: str
    """What to try."""
    unsolved: bool = False
    """Whether it counts only while the reward is below 0.9."""


SIGNS = (
    Sign(
        "kl/rollout", 0.05, "nothing", True,
        "the policy that acts is not the one that learns",
        "take a method that corrects for the engine, or act with fresher and more exact weights",
    ),
    Sign(
        "ratio/p99", 2.0, "nothing", True,
        "one action in a hundred is more than twice as likely as when it was sampled",
        "lower update.lr, make fewer updates of a batch, or take a mask with a narrower bound",
    ),
    Sign(
        "update/grad_norm", 10.0, "median", True,
        "gradients are ten times what they were",
        "lower update.lr or update.max_grad_norm, and look at the answers of that step",
    ),
    Sign(
        "entropy", 0.3, "first", False,
        "the policy explores less than a third of what it did",
        "raise the mask's upper bound, add an entropy bonus, or raise sampling.temperature",
        unsolved=True,
    ),
    Sign(
        "entropy", 2.0, "first", True,
        "the policy is twice as undecided as it was",
        "lower update.lr, or push bad answers away less",
    ),
    Sign(
        "advantage/zero_groups", 0.8, "nothing", True,
        "four groups in five have nothing to learn from",
        "take easier or harder problems, or raise group_size",
        unsolved=True,
    ),
    Sign(
        "rollout/truncated", 0.5, "nothing", True,
        "half of the answers are cut",
        "raise max_answer_tokens, or reward short answers",
    ),
    Sign(
        "rollout/length", 2.0, "first", True,
        "answers are twice as long as they were",
        "look at them: length may be what is rewarded",
    ),
    Sign(
        "rollout/length", 0.5, "first", False,
        "answers are half as long as they were",
        "look at them: what led to the answer may be left out",
    ),
    Sign(
        "reward/mean", 0.7, "best", False,
        "the reward is below seven tenths of its best",
        "go back to the checkpoint before that, at a lower update.lr",
    ),
)  # fmt: skip
"""In the order in which they lead to one another."""


@dataclass(frozen=True)
class Seen:
    """A sign that was seen."""

    step: int
    sign: Sign
    value: float
    bound: float

    def __str__(self) -> str:
        side = "above" if self.sign.above else "below"
        figures = f"{self.sign.metric} {self.value:.3g} is {side} {self.bound:.3g}"
        return f"step {self.step}: {self.sign.says} ({figures}); {self.sign.remedy}"


def warnings(records: Sequence[Mapping[str, Any]]) -> list[Seen]:
    """Every sign that was seen in a run, each where it was first seen, in the order of steps. None is seen before ten steps."""
    found = []
    reward = smooth(records, "reward/mean")
    for sign in SIGNS:
        value = smooth(records, sign.metric)
        bound = sign.limit * _against(sign, value)
        wrong = (value > bound) if sign.above else (value < bound)
        if sign.unsolved:
            wrong &= reward < SOLVED if len(reward) == len(value) else False
        seen = np.flatnonzero(wrong[WINDOW:]) + WINDOW
        if len(seen):
            found.append(Seen(int(seen[0]) + 1, sign, float(value[seen[0]]), float(bound[seen[0]])))
    return sorted(found, key=lambda one: one.step)


def _against(sign: Sign, value: NDArray[np.float64]) -> NDArray[np.float64]:
    match sign.against:
        case "nothing":
            return np.ones_like(value)
        case "first":
            return np.full_like(value, value[: WINDOW + 1][-1] if len(value) else 0.0)
        case "best":
            return np.maximum.accumulate(value) if len(value) else value
        case "median":
            return np.array([np.median(value[: end + 1]) for end in range(len(value))])


def smooth(records: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """The mean of a metric over the last ten steps at each step, fewer at the beginning; empty where it is not in all records.

    Steps without any answer to learn from lack some metrics: those before hold on.
    """
    values: list[float] = []
    for record in records:
        value = record.get(name)
        if value is None and not values:
            return np.zeros(0)
        values.append(values[-1] if value is None else float(value))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - WINDOW, 0)
    return (sums[last] - sums[first]) / (last - first)


def _to_the_end(holds: NDArray[np.bool_]) -> int | None:
    """The first place from which on it holds to the end; None where it does not hold at the end."""
    if not len(holds) or not holds[-1]:
        return None
    broken = np.flatnonzero(~holds)
    return int(broken[-1]) + 1 if len(broken) else 0
