"""Advantages that compare whole answers: pairs of a preferred and another one, and desirable and undesirable ones.

A group is all answers to one prompt; each two of it with different rewards are a pair, and the one with the larger reward is
preferred. The term's likelihood is the whole sequence. As the loss depends on log π_θ of several answers at once, so does Â.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from quatrain.objective.part import Scope, View
from quatrain.tensors import Float, Tensor, torch
from quatrain.types import Origin

MAX_LOGP = -1e-6
"""A mean log-probability is bounded here where its odds are taken."""


@dataclass(frozen=True)
class Logistic:
    """The negative log-likelihood that the preferred answer wins.

        ℓ(m) = −log sigmoid(beta·m − gap)

    Source: arXiv:2305.18290 (DPO), eq. 7; with a gap: arXiv:2405.14734 (SimPO), eq. 6.
    """

    beta: PositiveFloat = 0.1
    """Factor of the margin."""
    gap: NonNegativeFloat = 0.0
    """How far the preferred answer should be ahead."""

    def slope(self, margin: Tensor) -> Tensor:
        return -self.beta * torch.sigmoid(self.gap - self.beta * margin)


@dataclass(frozen=True)
class Squared:
    """The squared distance of the margin from a target.

        ℓ(m) = (m − 1/(2·tau))²

    Source: arXiv:2310.12036 (IPO), eq. 17.
    """

    tau: PositiveFloat = 0.1
    """Weight of the KL in the objective that this solves; the paper gives no value for language models."""

    def slope(self, margin: Tensor) -> Tensor:
        return 2 * (margin - 1 / (2 * self.tau))


@dataclass(frozen=True)
class Hinge:
    """No loss once the preferred answer is far enough ahead.

        ℓ(m) = max(0, gap − m)

    Source: arXiv:2305.10425 (SLiC-HF), eq. 4.
    """

    gap: PositiveFloat = 1.0
    """How far the preferred answer should be ahead."""

    def slope(self, margin: Tensor) -> Tensor:
        return -(margin < self.gap).to(margin)


@dataclass(frozen=True)
class Preferred:
    """A loss of the margin by which a preferred answer scores above another one; the mean over a group's pairs.

        Â(y) = −∂/∂log π_θ(y) mean over pairs of ℓ(s(y⁺) − s(y⁻));  s = log π/π_to, log π, mean log π, or the log-odds of that

    Source: arXiv:2305.18290 (DPO), eq. 7; mean: arXiv:2405.14734 (SimPO), eq. 4; odds: arXiv:2403.07691 (ORPO), eq. 4 and 7; to
    the policy that acted: arXiv:2509.19199 (iStar).
    """

    score: Literal["log_ratio", "mean_log_ratio", "logp", "mean_logp", "log_odds"] = "log_ratio"
    """What is compared: of sums or of means over the sequence; ``log_odds`` is log(P / (1 − P)), P = exp(mean log π)."""
    loss: Any = Logistic()
    """What the margin costs."""
    to: Literal["ref", "old", "rollout"] = "ref"
    """What a log-ratio is to: the reference policy, the policy at the start of the update, or the one that acted."""
    live: ClassVar[bool] = True
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"reward", "prompt_id"} | ({f"logp_{self.to}"} if "ratio" in self.score else set()))

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        score, slope = self._score(view)
        index, _ = view.group()
        pair = (index[:, None] == index[None]) & (view.batch.reward[:, None] > view.batch.reward[None])
        pair &= view.included[:, None] & view.included[None]  # [preferred, other]
        pairs = torch.zeros(int(index.max()) + 1 if len(index) else 0, dtype=score.dtype, device=score.device)
        pairs = pairs.index_add(0, index, pair.sum(1).to(score))[index].clamp(min=1)
        push = -self.loss.slope(score[:, None] - score[None]).where(pair, 0)
        return ((push.sum(1) - push.sum(0)) / pairs * slope)[:, None].expand(view.action.shape)

    def _score(self, view: View) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
        """s(y), and its derivative by the log-probability of each token."""
        logp = view.current().double()
        if "ratio" in self.score:
            other = getattr(view.batch, f"logp_{self.to}")
            assert other is not None
            logp = logp - other
        length = view.length[:, 0].to(logp)
        mean = view.mean(logp)[:, 0]
        if self.score in ("log_ratio", "logp"):
            return mean * length, torch.ones_like(mean)
        if self.score == "log_odds":
            mean = mean.clamp(max=MAX_LOGP)
            rest = -torch.expm1(mean)  # 1 − P
            return mean - rest.log(), 1 / (length * rest)
        return mean, 1 / length


@dataclass(frozen=True)
class Desirable:
    """Answers that are good enough should gain on the reference policy, the others should lose, against what others have gained.

        Â = λ·beta·σ(beta·(z − s))·σ(beta·(s − z)), λ < 0 for a bad answer;  s = log π_θ(y)/π_ref(y),  z = max(0, mean s(y′))

    Source: arXiv:2402.01306 (KTO), eq. 7 and 8. y′ are mismatched answers, each under another answer's prompt.
    """

    beta: PositiveFloat = 0.1
    """How sharply gains and losses are felt."""
    desirable: NonNegativeFloat = 1.0
    """Weight λ of good answers."""
    undesirable: NonNegativeFloat = 1.0
    """Weight λ′ of the others."""
    threshold: float = 1.0
    """Smallest reward of a good answer."""
    live: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "logp_ref"})
    reads: ClassVar[frozenset[Origin]] = frozenset({Origin.MISMATCHED})
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        gain = self._gain(view)
        other = self._gain(view.over(Origin.MISMATCHED))[view.rows_of(Origin.MISMATCHED)]
        level = other.mean().clamp(min=0) if len(other) else gain.new_zeros(())
        good = view.batch.reward >= self.threshold
        felt = self.beta * torch.sigmoid(self.beta * (gain - level)) * torch.sigmoid(self.beta * (level - gain))
        return torch.where(good, self.desirable * felt, -self.undesirable * felt)[:, None].expand(view.action.shape)

    @staticmethod
    def _gain(view: View) -> Float[Tensor, "B"]:
        assert view.batch.logp_ref is not None
        return (view.current().double() - view.batch.logp_ref).where(view.action, 0).sum(1)
