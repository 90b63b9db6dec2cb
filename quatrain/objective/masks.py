"""Line 1, the stabilization mask: how much of an action's gradient may pass.

A mask is called with the view, the ratio π_θ/π_ref of its term's denominator and the advantage, and returns a factor
[B, T]. A factor need not be 0 or 1: a capped weight is not a zero mask.
"""

# ruff: noqa: RUF009 -- parts are frozen, and one may be the default of another

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from quatrain.objective.advantages import Relative, Share
from quatrain.objective.denominators import Old
from quatrain.objective.part import MAX_LOG_RATIO, SCOPES, Scope, View
from quatrain.tensors import Float, Int, Tensor, torch
from quatrain.types import Origin


@dataclass(frozen=True)
class Everywhere:
    """Every action's gradient passes whole.

        M = 1

    Source: arXiv:2509.04419, table 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return torch.ones_like(ratio)


@dataclass(frozen=True)
class Clip:
    """No gradient where the ratio has already left the trust region in the direction that the advantage pushes.

        M = 0 if (Â > 0 and r > 1 + high) or (Â < 0 and r < 1 − low), else 1

    Source: arXiv:1707.06347, eq. 7; low ≠ high (clip-higher): arXiv:2503.14476, eq. 10.
    """

    low: NonNegativeFloat = 0.2
    """How far below 1 the ratio may fall."""
    high: NonNegativeFloat = 0.2
    """How far above 1 the ratio may rise."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        blocked = ((advantage > 0) & (ratio > 1 + self.high)) | ((advantage < 0) & (ratio < 1 - self.low))
        return (~blocked).to(ratio)


@dataclass(frozen=True)
class Cap:
    """The ratio as a weight, bounded on both sides; an action beyond the bounds keeps a gradient.

        M · r = min(max(r, low), high)

    Source: arXiv:2506.13585 (CISPO), eq. 4 and 5.
    """

    low: NonNegativeFloat = 0.0
    """Smallest weight; 0 is no lower bound."""
    high: PositiveFloat = 5.0
    """Largest weight. The paper tunes it and states no value; 5 is a common choice."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return ratio.clamp(self.low, self.high) / ratio.clamp(min=torch.finfo(ratio.dtype).tiny)


@dataclass(frozen=True)
class DualClip:
    """The clip, and no gradient either where a bad action's ratio has grown beyond a bound.

        M = clip's, and 0 if Â < 0 and r > bound

    Source: arXiv:1912.09729, section 3.4 (dual-clip PPO).
    """

    low: NonNegativeFloat = 0.2
    """How far below 1 the ratio may fall."""
    high: NonNegativeFloat = 0.2
    """How far above 1 the ratio may rise."""
    bound: PositiveFloat = 3.0
    """Largest ratio of an action with a negative advantage."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        passed = Clip(self.low, self.high)(view, ratio, advantage)
        return passed.where(~((advantage < 0) & (ratio > self.bound)), 0)


@dataclass(frozen=True)
class PreservingClip:
    """The clip, but what it would block keeps the weight of the bound that it has passed, scaled.

        M · r = below·(1 − low) if Â < 0 and r < 1 − low, above·(1 + high) if Â > 0 and r > 1 + high, else r

    Source: arXiv:2509.20712 (CE-GPPO), eq. 8 and 10; β₁ and β₂ are below and above.
    """

    low: NonNegativeFloat = 0.2
    """How far below 1 the ratio may fall."""
    high: NonNegativeFloat = 0.2
    """How far above 1 the ratio may rise."""
    below: NonNegativeFloat = 0.5
    """The share of the lower bound that bad actions below it weigh; 0 is the clip's."""
    above: NonNegativeFloat = 1.0
    """The share of the upper bound that good actions above it weigh; 0 is the clip's."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        passed = Clip(self.low, self.high)(view, ratio, advantage)
        lower, upper = ratio.new_tensor(self.below * (1 - self.low)), ratio.new_tensor(self.above * (1 + self.high))
        kept = torch.where(advantage > 0, upper, lower) / ratio.clamp(min=torch.finfo(ratio.dtype).tiny)
        return passed.where(passed == 1, kept)


@dataclass(frozen=True)
class SoftGate:
    """A smooth gate in the place of the clip: whole at ratio 1, falling off on both sides, faster for bad actions.

        M = 4·p·(1 − p),  p = sigmoid(τ·(r − 1)),  τ = positive if Â > 0 else negative

    Source: arXiv:2511.20347 (SAPO), eq. 6 and 8.
    """

    positive: PositiveFloat = 1.0
    """Temperature τ of actions with a positive advantage."""
    negative: PositiveFloat = 1.05
    """Temperature τ of the others."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        temperature = torch.where(advantage > 0, ratio.new_tensor(self.positive), ratio.new_tensor(self.negative))
        slope = temperature * (ratio - 1)
        odds = (-slope.abs()).exp()  # not by torch.sigmoid, which rounds otherwise at the end of a tensor
        return (4 * odds / (1 + odds) ** 2).to(ratio)


@dataclass(frozen=True)
class Hazard:
    """A bounded ratio, damped by the hazard of having risen or fallen that far: smooth, and falling off on both sides.

        M · r = e^(ψ − ζ) · sech²(log r / bound),  ψ = bound · tanh(log r / bound),
        ζ = (softplus(ψ) / rise_scale)^rise_shape + (softplus(−ψ) / fall_scale)^fall_shape

    Source: arXiv:2603.16929 (MHPO); ζ has no gradient, and is not 0 where r = 1.
    """

    bound: PositiveFloat = 1.5
    """c: how far the log-ratio may seem to have gone."""
    rise_shape: PositiveFloat = 1.5
    """k₊, the shape of the hazard of a rise."""
    rise_scale: PositiveFloat = 1.0
    """λ₊, its scale: the larger, the less hazardous."""
    fall_shape: PositiveFloat = 2.0
    """k₋, the shape of the hazard of a fall."""
    fall_scale: PositiveFloat = 0.8
    """λ₋, its scale."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        change = ratio.double().log()
        seeming = self.bound * (change / self.bound).tanh()
        hazard = _hazard(seeming, self.rise_scale, self.rise_shape) + _hazard(-seeming, self.fall_scale, self.fall_shape)
        small = (-2 * (change / self.bound).abs()).exp()
        return ((seeming - hazard - change).exp() * 4 * small / (1 + small) ** 2).to(ratio)


def _hazard(seeming: Tensor, scale: float, shape: float) -> Tensor:
    """(softplus(x) / scale)^shape, not by softplus, powers or cosh of torch, which round otherwise at the end of a tensor."""
    risen = seeming.clamp(min=0) + (-seeming.abs()).exp().log1p()
    return (shape * (risen / scale).log()).exp()


@dataclass(frozen=True)
class BalancedClip:
    """The clip, whose bounds move by steps until good actions have their part in the loss of the minibatch, or end.

        M = 0 if (Â > 0 and r > c_high) or (Â < 0 and (r < c_low or r > bound)), else 1
        share: Σ_{Â>0} s ≥ target · |Σ s|,  s = π_rollout · min(r·Â, clip(r, c_low, c_high)·Â)
        odds: Σ_{Â>0} s ≥ target · |Σ_{Â<0} s|,  s = min(r·Â, clip(r, c_low, c_high)·Â)

    Source: arXiv:2510.18927 (BAPO); odds, the order from low to high and the bound are those of its code.
    """

    low: NonNegativeFloat = 0.6
    """The first lower bound of the ratio."""
    low_last: NonNegativeFloat = 0.9
    """The last one."""
    low_step: PositiveFloat = 0.02
    """How far the lower bound rises in a step."""
    high: PositiveFloat = 1.2
    """The first upper bound of the ratio."""
    high_last: PositiveFloat = 3.0
    """The last one."""
    high_step: PositiveFloat = 0.05
    """How far the upper bound rises in a step."""
    target: NonNegativeFloat = 0.4
    """The least part of the good actions."""
    part: Literal["share", "odds"] = "share"
    """What their part is in: the sum of all, by which the bad ones count below 0, or that of the bad ones alone."""
    first: Literal["high", "low"] = "high"
    """The bound that takes all of its steps before the other one takes any."""
    bound: PositiveFloat = math.inf
    """Largest ratio of an action with a negative advantage; infinite for none."""
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"logp_rollout"} if self.part == "share" else ())

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        low, high = self.found(view, ratio, advantage)
        return DualClip(1 - low, high - 1, self.bound)(view, ratio, advantage)

    def found(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> tuple[float, float]:
        """The bounds at which the search ends."""
        size, moved = advantage.double(), ratio.double()
        if self.part == "share":
            assert view.batch.logp_rollout is not None
            size = size * view.batch.logp_rollout.double().exp()
        size, moved = size[view.action], moved[view.action]
        lows = _steps(self.low, self.low_last, self.low_step)
        highs = _steps(self.high, self.high_last, self.high_step)
        if self.first == "high":
            path = [*((lows[0], high) for high in highs), *((low, highs[-1]) for low in lows[1:])]
        else:
            path = [*((low, highs[0]) for low in lows), *((lows[-1], high) for high in highs[1:])]
        good = torch.stack([(size.clamp(min=0) * moved.clamp(max=high)).sum() for _, high in path])
        bad = torch.stack([(size.clamp(max=0) * moved.clamp(min=low)).sum() for low, _ in path])
        reached = good >= self.target * (good + bad if self.part == "share" else bad).abs()
        return path[int(reached.int().argmax())] if reached.any() else path[-1]


def _steps(first: float, last: float, step: float) -> list[float]:
    """From the first to the last; the last step may be shorter."""
    count = max(0, math.ceil((last - first) / step - 1e-9))
    return [min(first + k * step, last) for k in range(count)] + [last if count else first]


@dataclass(frozen=True)
class GeometricClip:
    """The geometric mean of a sequence's clipped ratios as the weight of each token that is not clipped.

        M · r = Πₛ c(rₛ)^(1/|y|) if rₜ is not clipped else 0;  c(r) = min(r, e^high) if Â > 0 else max(r, e^−low)

    Source: arXiv:2507.20673 (GMPO), eq. 4.
    """

    low: NonNegativeFloat = 0.4
    """How far the log-ratio may fall."""
    high: NonNegativeFloat = 0.4
    """How far the log-ratio may rise."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        change = ratio.double().log()
        clipped = torch.where(advantage > 0, change.clamp(max=self.high), change.clamp(min=-self.low))
        weight = view.mean(clipped).exp() / ratio
        return weight.where(clipped == change, 0).to(ratio)


Over = Literal["token", "sequence", "geometric"]
"""Of what an action is part that a ratio is about: of itself, the product over its answer, or its geometric mean there."""


def engine_gap(view: View, over: Over) -> Float[Tensor, "B T"]:
    """log κ, how much likelier the learner found what was done than the engine that did it, before the first update."""
    assert view.batch.logp_old is not None
    assert view.batch.logp_rollout is not None
    change = view.batch.logp_old - view.batch.logp_rollout
    if over == "token":
        return change
    change = change.double()  # so that it is one number for the whole sequence
    return (view.mean(change) if over == "geometric" else change.where(view.action, 0).sum(1, keepdim=True)).expand(change.shape)


@dataclass(frozen=True)
class Corrected:
    """Another mask, times how much likelier the action was to the learner at the start of the update than to the engine.

        M = of · min(κ, high),  κ = π_old(yₜ)/π_rollout(yₜ), or Πₛ π_old(yₛ)/π_rollout(yₛ)

    Source: https://fengyao.notion.site/off-policy-rl (TIS: truncated at high); high = ∞: arXiv:2110.00641, eq. 2 (decoupled PPO);
    over the sequence: https://richardli.xyz/rl-collapse.
    """

    high: PositiveFloat = 2.0
    """Largest factor; infinite for none."""
    over: Literal["token", "sequence"] = "token"
    """Whose ratio it is: the token's own, or the whole answer's."""
    of: Any = Clip()
    """The mask of the ratio π_θ/π_old."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"logp_old", "logp_rollout"}) | self.of.needs

    @property
    def scope(self) -> Scope:
        return max("sequence" if self.over == "sequence" else "token", self.of.scope, key=SCOPES.index)

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        room = MAX_LOG_RATIO - ratio.log().clamp(min=0)  # of both together, as either alone may be as large as may be
        change = engine_gap(view, self.over).clamp(min=-MAX_LOG_RATIO).minimum(room)
        return self.of(view, ratio, advantage) * change.exp().clamp(max=self.high).to(ratio)


@dataclass(frozen=True)
class Agreeing:
    """Another mask where learner and engine agree on how likely the action was, or the whole answer; nothing elsewhere.

        M = of · 1[low ≤ κ ≤ high],  κ = π_old(yₜ)/π_rollout(yₜ), Πₛ π_old(yₛ)/π_rollout(yₛ), or its |y|-th root

    Source: token: arXiv:2510.18855 (IcePop); sequence: https://richardli.xyz/rl-collapse (MIS); geometric: arXiv:2602.09443
    (P1-VL).

    What is left out counts in the reduction all the same: it is the weight that is 0.
    """

    low: NonNegativeFloat = 0.5
    """Smallest ratio that passes; 0 is no lower bound."""
    high: PositiveFloat = 5.0
    """Largest ratio that passes; infinite for no upper bound."""
    over: Over = "token"
    """Whose ratio it is: the token's own, the whole answer's, or its geometric mean over the answer's tokens."""
    of: Any = Corrected(high=math.inf)
    """The mask of what passes."""

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"logp_old", "logp_rollout"}) | self.of.needs

    @property
    def scope(self) -> Scope:
        return max("token" if self.over == "token" else "sequence", self.of.scope, key=SCOPES.index)

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        gap = engine_gap(view, self.over).exp()
        return self.of(view, ratio, advantage).where((gap >= self.low) & (gap <= self.high), 0)


@dataclass(frozen=True)
class Against:
    """Two masks, each of a ratio of its own: what bounds the step need not be measured against what weighs the sample.

        M = of(π_θ/π_ref) · mask(π_θ/π_other),  π_other = denominator

    Source: arXiv:2512.01374 (MiniRL): the weight is against the engine, the clip against the learner at the start of the update.
    """

    mask: Any = Clip()
    """The mask of the other ratio."""
    denominator: Any = Old()
    """What the other ratio is measured against."""
    of: Any = Cap()
    """The mask of the term's own ratio."""

    @property
    def needs(self) -> frozenset[str]:
        return self.mask.needs | self.denominator.needs | self.of.needs

    @property
    def scope(self) -> Scope:
        return max((part.scope for part in (self.mask, self.denominator, self.of)), key=SCOPES.index)

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        change = view.current() - self.denominator(view)
        other = change.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().to(ratio)
        return self.of(view, ratio, advantage) * self.mask(view, other, advantage)


@dataclass(frozen=True)
class Taper:
    """The ratio as a weight, with bounds of its own for good and for bad actions.

        M · r = min(max(r, low⁺), high⁺) if Â ≥ 0 else min(max(r, low⁻), high⁻)

    Source: arXiv:2503.14286 (TOPR), eq. 7 and 8: good answers whole, bad ones by their ratio, at most 1.
    """

    positive_low: NonNegativeFloat = 1.0
    """Smallest weight of an action with an advantage of 0 or more."""
    positive_high: NonNegativeFloat = 1.0
    """Largest weight of such an action."""
    negative_low: NonNegativeFloat = 0.0
    """Smallest weight of an action with a negative advantage."""
    negative_high: NonNegativeFloat = 1.0
    """Largest weight of such an action."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        good = ratio.clamp(self.positive_low, self.positive_high)
        bad = ratio.clamp(self.negative_low, self.negative_high)
        return torch.where(advantage >= 0, good, bad) / ratio.clamp(min=torch.finfo(ratio.dtype).tiny)


@dataclass(frozen=True)
class TotalVariation:
    """No gradient where the action's probability, not its ratio, has already moved far from the acting policy's.

        M = 0 if |π_θ − π_rollout| > bound and (Â > 0 and π_θ > π_rollout or Â < 0 and π_θ < π_rollout), else 1

    Source: arXiv:2602.04879 (DPPO), eq. 12 and 13.
    """

    bound: NonNegativeFloat = 0.15
    """Largest change of the probability: the total variation of acting thus or otherwise."""
    cap: PositiveFloat = math.inf
    """Largest ratio that counts (eq. 23); infinite for none."""
    needs: ClassVar[frozenset[str]] = frozenset({"logp_rollout"})
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        assert view.batch.logp_rollout is not None
        change = view.current().exp() - view.batch.logp_rollout.exp()
        capped = ratio.clamp(max=self.cap) / ratio.clamp(min=torch.finfo(ratio.dtype).tiny)
        return capped.where(change * advantage.sign() <= self.bound, 0)


@dataclass(frozen=True)
class Shaped:
    """The derivative of a concave function of the ratio: rare actions weigh more than their ratio says.

        M = f′(r) = gamma / (r + gamma)²,  f(r) = r / (r + gamma)

    Source: arXiv:2504.14945 (LUFFY), eq. 6 and 7.
    """

    gamma: PositiveFloat = 0.1
    """The ratio at which f is a half."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return self.gamma / (ratio + self.gamma) ** 2


def covariance(view: View, advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Each action's part in the covariance of log π_θ and the advantage over the actions of the minibatch; −∞ elsewhere."""
    logp = view.current().double()
    parts = [x - x[view.action].mean() if view.action.any() else x for x in (logp, advantage.double())]
    return (parts[0] * parts[1]).where(view.action, -torch.inf)


@dataclass(frozen=True)
class CovarianceDrop:
    """A few actions drop out, drawn among those whose log-probability and advantage go together most.

        M = 0 for share·N of the N actions, drawn among those with low ≤ cov ≤ high;  cov = (log π − mean log π)·(Â − mean Â)

    Source: arXiv:2505.22617 (Clip-Cov), eq. 10 to 12; at least one is drawn where there is any, as in its code.

    The draw is a hash of the log π_rollout of the answer so far, so that it is the same in any order and split.
    """

    share: Share = 2e-4
    """How many are drawn, as a share of all actions."""
    low: float = 1.0
    """Smallest covariance of a candidate."""
    high: float = 5.0
    """Largest covariance of a candidate."""
    of: Any = Everywhere()
    """The mask of the other actions; what it stops of an advantage is not a candidate."""
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"logp_rollout"}

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        cov = covariance(view, advantage)
        mask = self.of(view, ratio, advantage)
        candidates = (cov >= self.low) & (cov <= self.high) & ((mask != 0) | (advantage == 0))
        count = min(int(candidates.sum()), max(1, int(self.share * int(view.action.sum()))))
        chosen = candidates.flatten().nonzero()[:, 0]
        order = lottery(view)[chosen].argsort(stable=True)
        drawn = torch.zeros_like(candidates).flatten().index_fill(0, chosen[order[:count]], True)
        return mask.where(~drawn.view_as(mask), 0)


def lottery(view: View) -> Int[Tensor, "BT"]:
    """A number for each action that looks drawn at random and depends on its answer up to there alone."""
    assert view.batch.logp_rollout is not None
    so_far = view.batch.logp_rollout.double().where(view.action, 0).cumsum(1)
    bits = so_far.view(torch.int64).flatten() ^ (view.action.cumsum(1).flatten() * 0x5851F42D4C957F2D)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):  # the finalizer of SplitMix64
        bits = (bits ^ (bits >> shift)) * factor
    return bits ^ (bits >> 31)


@dataclass(frozen=True)
class CovarianceTop:
    """Only the actions whose log-probability and advantage go together most.

        M = 1 if cov > 0 and rank(cov) ≤ share·N else 0;  cov = (log π − mean log π)·(Â − mean Â)

    Source: arXiv:2505.22617 (KL-Cov), eq. 10 and 13; at least one is chosen, as in its code. That the covariance must be above
    0 is ours: without contrast nothing is chosen. Â is that of `advantage`.
    """

    share: Share = 2e-3
    """How many are chosen, as a share of all actions."""
    advantage: Any = Relative()
    """The advantage that the covariance is with; the term's own may be something else."""

    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.advantage.needs

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        cov = covariance(view, self.advantage(view).to(ratio))
        count = max(1, int(self.share * int(view.action.sum())))
        least = cov.flatten().topk(min(count, cov.numel())).values.min() if cov.numel() else cov.new_tensor(0.0)
        return ((cov >= least) & (cov > 0)).to(ratio)


@dataclass(frozen=True)
class ByOrigin:
    """One part for the policy's own actions, another one for demonstrated ones; both masks, or both denominators.

        M = policy's if the policy acted, demonstration's if somebody else did

    Source: arXiv:2504.14945 (LUFFY), eq. 6.
    """

    policy: Any = Clip()
    """What holds where the policy acted."""
    demonstration: Any = Everywhere()
    """What holds for demonstrations."""

    @property
    def needs(self) -> frozenset[str]:
        return self.policy.needs | self.demonstration.needs

    @property
    def scope(self) -> Scope:
        return max(self.policy.scope, self.demonstration.scope, key=SCOPES.index)

    def __call__(self, view: View, *factors: Tensor) -> Float[Tensor, "B T"]:
        shown = view.rows_of(Origin.DEMONSTRATION)[:, None]
        return torch.where(shown, self.demonstration(view, *factors), self.policy(view, *factors))
