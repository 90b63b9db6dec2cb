"""The terms of a method: w = coefficient · share · mask · Â · π_θ/π_ref, and what else a loss may be about."""

# ruff: noqa: RUF009 -- parts are frozen, and one may be the default of many terms

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeFloat

from quatrain.objective.advantages import GAE, FlowBalance, One
from quatrain.objective.denominators import Old
from quatrain.objective.likelihoods import Sequence, Token
from quatrain.objective.masks import Everywhere
from quatrain.objective.part import MAX_LOG_RATIO, Part, View
from quatrain.objective.reductions import PerSequence, PerToken
from quatrain.tensors import Float, Tensor
from quatrain.types import Origin

Target = Literal["logp", "entropy", "value", "log_z"]


@dataclass(frozen=True)
class Factors:
    """What a weight is the product of; all [B, T]."""

    share: Float[Tensor, "B T"]
    mask: Float[Tensor, "B T"]
    advantage: Float[Tensor, "B T"]
    ratio: Float[Tensor, "B T"]

    @property
    def weight(self) -> Float[Tensor, "B T"]:
        return self.share * self.mask * self.advantage * self.ratio


@dataclass(frozen=True, kw_only=True)
class Term:
    """One policy-gradient term of a method: four lines and a reduction.

        w = coefficient · share · mask · Â · π_θ/π_ref

    Source: arXiv:2509.04419, eq. 6.
    """

    name: str = "policy"
    """What settings and tables call it."""
    coefficient: NonNegativeFloat = 1.0
    """Its factor in the sum of terms; 0 switches it off."""
    mask: Any = Everywhere()
    denominator: Any = Old()
    advantage: Any = One()
    likelihood: Any = Token()
    reduce: Any = PerToken()
    on: tuple[Origin, ...] = (Origin.POLICY,)
    """Whose trajectories it is about."""
    target: ClassVar[Target] = "logp"

    @property
    def parts(self) -> dict[str, Part]:
        """The lines by name, in the order in which they are read."""
        return {line: getattr(self, line) for line in ("mask", "denominator", "advantage", "likelihood", "reduce")}

    @property
    def live_parts(self) -> list[Part]:
        """Those that are evaluated anew at each forward pass."""
        return [self.mask, self.denominator, self.likelihood, *([self.advantage] if self.advantage.live else [])]

    def prepare(self, view: View) -> Float[Tensor, "B T"] | None:
        """The advantage, once for a whole minibatch, unless it reads log π_θ."""
        return None if self.advantage.live else self.advantage(view)

    def factors(self, view: View, prepared: Tensor | None, share: Tensor) -> Factors:
        """What each action's weight is the product of."""
        logp = view.current()
        advantage = self.advantage(view) if prepared is None else prepared
        pooled = self.likelihood(view, logp) - self.likelihood(view, self.denominator(view))
        ratio = pooled.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().to(logp)
        advantage, share = advantage.to(logp), share.to(logp).expand(logp.shape)
        none = logp.new_zeros(())
        return Factors(*(x.where(view.action, none) for x in (share, self.mask(view, ratio, advantage), advantage, ratio)))

    def weights(self, view: View, prepared: Tensor | None, share: Tensor, values: Tensor | None) -> Float[Tensor, "B T"]:
        return self.factors(view, prepared, share).weight


@dataclass(frozen=True, kw_only=True)
class EntropyBonus:
    """Rewards an undecided policy, or a decided one; needs the whole distribution, which the fused operation has at hand.

        L = −coefficient · share · H(π_θ(·|sₜ))

    Source: arXiv:1707.06347, eq. 9; alone and below 0, on samples of the policy's own: arXiv:2505.15134 (EM-FT).
    """

    name: str = "entropy"
    coefficient: float = 0.01
    """Its factor in the sum of terms; 0 switches it off, and below 0 it is for less entropy."""
    reduce: Any = PerToken()
    on: tuple[Origin, ...] = (Origin.POLICY,)
    target: ClassVar[Target] = "entropy"
    likelihood: ClassVar[Token] = Token()

    @property
    def parts(self) -> dict[str, Part]:
        return {"reduce": self.reduce}

    @property
    def live_parts(self) -> list[Part]:
        return []

    def prepare(self, view: View) -> None:
        return None

    def weights(self, view: View, prepared: Tensor | None, share: Tensor, values: Tensor | None) -> Float[Tensor, "B T"]:
        return (share * view.action).to(view.current())


@dataclass(frozen=True, kw_only=True)
class ValueLoss:
    """The critic's squared error against the return, clipped around the value at the start of the update.

        L = coefficient · share · ½·max((V − R)², (V_old + clip(V − V_old, ±clip) − R)²),  R = Â + V_old

    Source: arXiv:1707.06347, eq. 9; the clipped form: arXiv:2005.12729, section 3, and the maximum of its code.
    """

    name: str = "value"
    coefficient: NonNegativeFloat = 0.5
    """Its factor in the sum of terms; 0 switches it off."""
    clip: NonNegativeFloat = 0.2
    """How far the value may move in one update."""
    advantage: Any = GAE()
    """The estimator whose sum with V_old is the return."""
    reduce: Any = PerToken()
    on: tuple[Origin, ...] = (Origin.POLICY,)
    target: ClassVar[Target] = "value"
    likelihood: ClassVar[Token] = Token()

    @property
    def parts(self) -> dict[str, Part]:
        return {"advantage": self.advantage, "reduce": self.reduce}

    @property
    def live_parts(self) -> list[Part]:
        return []

    def prepare(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.values is not None
        return self.advantage(view) + view.batch.values

    def weights(self, view: View, prepared: Tensor | None, share: Tensor, values: Tensor | None) -> Float[Tensor, "B T"]:
        assert prepared is not None
        assert values is not None
        assert view.batch.values is not None
        old, returns = view.batch.values, prepared.to(values)
        moved = values - old
        clipped = old + moved.clamp(-self.clip, self.clip)
        flat = (moved.abs() > self.clip) & (
            (clipped - returns) ** 2 > (values - returns) ** 2
        )  # the clipped branch is the larger
        slope = (values - returns).where(~flat, 0)
        return (-share.to(values) * slope).where(view.action, 0)


@dataclass(frozen=True, kw_only=True)
class PartitionLoss:
    """The squared residual of a flow balance by log Z of the prompt; weighed as answers are, to learn with the policy.

        L = coefficient · share · sg[M · π_θ(y)/π_ref(y)] · δ(log Z)²

    Source: arXiv:2509.15207 (FlowRL), eq. 6. Its other half, by log π_θ, is a Term with the same lines.
    """

    name: str = "partition"
    coefficient: NonNegativeFloat = 1.0
    """Its factor in the sum of terms; 0 switches it off."""
    mask: Any = Everywhere()
    """M, the mask of the policy's term."""
    denominator: Any = Old()
    """π_ref of the ratio, the denominator of the policy's term."""
    advantage: Any = FlowBalance()
    """The balance, that of the policy's term."""
    reduce: Any = PerSequence()
    on: tuple[Origin, ...] = (Origin.POLICY,)
    target: ClassVar[Target] = "log_z"
    likelihood: ClassVar[Sequence] = Sequence()

    @property
    def parts(self) -> dict[str, Part]:
        return {line: getattr(self, line) for line in ("mask", "denominator", "advantage", "reduce")}

    @property
    def live_parts(self) -> list[Part]:
        return [self.mask, self.denominator, self.advantage]

    def prepare(self, view: View) -> None:
        return None

    def weights(self, view: View, prepared: Tensor | None, share: Tensor, values: Tensor | None) -> Float[Tensor, "B"]:
        lines = Term(mask=self.mask, denominator=self.denominator, advantage=self.advantage, likelihood=self.likelihood)
        weight = view.mean(lines.factors(view, None, share).weight)  # of each action, whose slope is 1/n of that at log Z
        return (weight * self.advantage.divisor(view).to(weight))[:, 0].where(view.included, 0)


AnyTerm = Term | EntropyBonus | ValueLoss | PartitionLoss
