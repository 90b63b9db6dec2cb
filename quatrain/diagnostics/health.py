"""How a run is, by the metrics that every run has."""

from __future__ import annotations

from collections import deque
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
    return Collapse(since + WINDOW, "reward", f"the reward fell from {best[since]:.3g} to {reward[-1]:.3g} and did not come back")


def _entropy(records: Sequence[Mapping[str, Any]]) -> Collapse | None:
    reward, entropy, alike = (smooth(records, name) for name in ("reward/mean", "entropy", "advantage/zero_groups"))
    if not len(reward) or len(entropy) != len(reward) or len(alike) != len(reward):
        return None
    since = _to_the_end((entropy < DECIDED * entropy[0]) & (alike > ALIKE) & (reward < SOLVED))
    if since is None:
        return None
    told = f"the entropy fell from {entropy[0]:.3g} to {entropy[-1]:.3g} at a reward of {reward[-1]:.3g}"
    return Collapse(since + WINDOW, "entropy", f"{told}, and {alike[-1]:.0%} of the groups have nothing to learn from")


@dataclass(frozen=True)
class Sign:
    """One way in which a run can be seen to go wrong, by one of its metrics: a mean over ten steps that leaves its bounds."""

    metric: str
    limit: float
    """The bound."""
    against: Literal["nothing", "first", "before", "best", "median"]
    """What the bound is a multiple of: 1, or a mean over ten steps: the first, that of ten steps ago, the best or the median."""
    above: bool
    """Whether it is wrong to be above the bound, or below it."""
    says: str
    """What that means, in words."""
    remedy: str
    """What to try."""
    unsolved: bool = False
    """Whether it counts only while the reward is below 0.9."""

    def unit(self, means: Sequence[float]) -> float:
        """What the bound is a multiple of, after these means over ten steps."""
        match self.against:
            case "nothing":
                return 1.0
            case "first":
                return means[0]
            case "before":
                return means[max(0, len(means) - 1 - WINDOW)]
            case "best":
                return max(means)
            case "median":
                return float(np.median(means))


SIGNS = (
    Sign(
        "kl/rollout", 0.05, "nothing", True,
        "the policy that acts is not the one that learns",
        "take a method that corrects for the engine, or act with fresher and more exact weights",
    ),
    Sign(
        "ratio/p99", 2.0, "nothing", True,
        "one action in a hundred is far likelier than when it was sampled",
        "lower update.lr, make fewer updates of a batch, or take a mask with a narrower bound",
    ),
    Sign(
        "update/grad_norm", 10.0, "median", True,
        "gradients are far larger than they were",
        "lower update.lr or update.max_grad_norm, and look at the answers of that step",
    ),
    Sign(
        "entropy", 0.3, "first", False,
        "the policy explores far less than it did",
        "raise the mask's upper bound, add an entropy bonus, or raise sampling.temperature",
        unsolved=True,
    ),
    Sign(
        "entropy", 2.0, "first", True,
        "the policy is far less decided than it was",
        "lower update.lr, or push bad answers away less",
    ),
    Sign(
        "entropy", 0.5, "before", False,
        "within ten steps the policy has come to explore far less",
        "lower update.lr, add an entropy bonus, or take a mask with a narrower bound",
        unsolved=True,
    ),
    Sign(
        "entropy", 2.0, "before", True,
        "within ten steps the policy has become far less decided",
        "lower update.lr, and look at the answers of these steps",
    ),
    Sign(
        "advantage/zero_groups", 0.8, "nothing", True,
        "too many groups have nothing to learn from",
        "take easier or harder problems, or raise group_size",
        unsolved=True,
    ),
    Sign(
        "rollout/truncated", 0.5, "nothing", True,
        "too many answers are cut",
        "raise max_answer_tokens, or reward short answers",
    ),
    Sign(
        "rollout/length", 2.0, "first", True,
        "answers are far longer than they were",
        "look at them: length may be what is rewarded",
    ),
    Sign(
        "rollout/length", 0.5, "first", False,
        "answers are far shorter than they were",
        "look at them: what led to the answer may be left out",
    ),
    Sign(
        "reward/mean", 0.7, "best", False,
        "the reward is far below its best",
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


class Watch:
    """Sees signs as they come, each once, and a collapse when it has lasted for ten steps. None is seen before ten steps."""

    def __init__(self, records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Begin after `records`."""
        self.seen: list[Seen] = []
        self._records: list[Mapping[str, Any]] = []
        self._courses = {metric: _Course() for metric in ("reward/mean", *(sign.metric for sign in SIGNS))}
        for record in records:
            self.see(record)

    def see(self, record: Mapping[str, Any]) -> list[Seen]:
        """What is seen for the first time with the metrics of one more step."""
        self._records.append(record)
        for metric, course in self._courses.items():
            course.add(record.get(metric))
        known = {id(one.sign) for one in self.seen}
        new = [one for sign in SIGNS if id(sign) not in known and (one := self._look(sign))]
        self.seen += new
        return new

    @property
    def collapse(self) -> Collapse | None:
        """That the run has collapsed ten steps ago or earlier; looked at every ten steps."""
        if len(self._records) % WINDOW:
            return None
        found = collapse(self._records)
        return found if found and found.step <= len(self._records) - WINDOW else None

    @property
    def began(self) -> int | None:
        """The number, from 1 on, of the record with the first sign; None where there is none."""
        return min((one.step for one in self.seen), default=None)

    def _look(self, sign: Sign) -> Seen | None:
        means = self._courses[sign.metric].means
        if len(means) < 2:
            return None
        value, bound = means[-1], sign.limit * sign.unit(means)
        reward = self._courses["reward/mean"].means
        solved = sign.unsolved and bool(reward) and reward[-1] >= SOLVED
        wrong = value > bound if sign.above else value < bound
        return Seen(len(self._records), sign, value, bound) if wrong and not solved else None


class _Course:
    """A metric's means over the last ten steps, at each step from the tenth on; none if the first step lacks it."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        self._is_there = True

    def add(self, value: float | None) -> None:
        """The value of one more step; a step without any answer to learn from lacks some, and the one before holds on."""
        self._is_there &= value is not None or bool(self._last)
        if self._is_there:
            self._last.append(self._last[-1] if value is None else float(value))
        if len(self._last) == WINDOW:
            self.means.append(sum(self._last) / WINDOW)


def smooth(records: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    """The mean of a metric over the last ten steps at each step from the tenth on; empty where the first step lacks it."""
    course = _Course()
    for record in records:
        course.add(record.get(name))
    return np.array(course.means)


def _to_the_end(holds: NDArray[np.bool_]) -> int | None:
    """The first place from which on it holds to the end; None where it does not hold at the end."""
    if not len(holds) or not holds[-1]:
        return None
    broken = np.flatnonzero(~holds)
    return int(broken[-1]) + 1 if len(broken) else 0
