"""Line 3, the advantage: how good the action was.

An advantage is called with the view and returns Â [B, T]. One that says ``live`` reads log π_θ and is evaluated at each forward
pass; the others are evaluated once for a whole minibatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from quatrain.objective.part import MAX_LOG_RATIO, Scope, View

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class One:
    """Every action is worth the same: imitation.

        Â = 1

    Source: arXiv:2509.04419, table 1 (SFT).
    """

    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return torch.ones(view.action.shape, dtype=torch.float64, device=view.action.device)


@dataclass(frozen=True)
class Accepted:
    """Imitate the answers that are good enough, ignore the rest: rejection sampling.

        Â = 1[R ≥ threshold]

    Source: arXiv:2308.01825 (RFT), section 3.3.
    """

    threshold: float = 1.0
    """Smallest reward of an accepted answer."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        return (view.batch.reward >= self.threshold).double()[:, None].expand(view.action.shape)


Key = Literal["none", "group", "batch"]


@dataclass(frozen=True)
class Relative:
    """The reward against a baseline, in units of a scale; both are statistics of the rewards that share a key.

        Â = (R − b) / (σ + eps);  b = mean, mean of the others, or 0;  σ = standard deviation (n − 1), or 1 without a scale

    Source: group mean and deviation: arXiv:2402.03300 (GRPO), section 4.1.2; without the deviation: arXiv:2503.20783 (Dr. GRPO);
    mean of the others (leave-one-out): arXiv:2402.14740 (RLOO).

    Where all rewards of a key are equal, and in a group of one, Â is exactly 0 if there is a baseline.
    """

    baseline: Literal["none", "group", "leave_one_out", "batch"] = "group"
    """Whose mean reward is subtracted; ``leave_one_out`` is the group without the sample itself."""
    scale: Key = "none"
    """Whose standard deviation is divided by."""
    eps: NonNegativeFloat = 1e-6
    """Added to the standard deviation; the papers leave it out."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        groups = {"group", "leave_one_out"} & {self.baseline, self.scale}
        return frozenset({"reward", "prompt_id"} if groups else {"reward"})

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        reward = view.batch.reward.double()
        advantage, constant = reward, torch.zeros_like(view.included)
        if self.baseline != "none":
            key = self._key(view, "batch" if self.baseline == "batch" else "group")
            mean, _, count, constant = _statistics(reward, key, view.included)
            advantage = reward - mean
            if self.baseline == "leave_one_out":
                advantage = advantage * count / (count - 1).clamp(min=1)
        if self.scale != "none":
            _, deviation, _, _ = _statistics(reward, self._key(view, self.scale), view.included)
            advantage = advantage / (deviation + self.eps)
        advantage = advantage.where(~constant, 0)  # last, as 0 / (0 + eps) is NaN for eps = 0
        return advantage[:, None].expand(view.action.shape)

    @staticmethod
    def _key(view: View, name: Key) -> Int[Tensor, "B"]:
        return view.group()[0] if name == "group" else torch.zeros_like(view.included, dtype=torch.int64)


def _statistics(
    value: Float[Tensor, "B"], key: Int[Tensor, "B"], included: Tensor
) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"], Float[Tensor, "B"], Tensor]:
    """Of the included values that share a row's key: mean, standard deviation (n − 1), count, and whether they are all equal."""
    groups = int(key.max()) + 1 if key.numel() else 0

    def total(x: Tensor) -> Tensor:
        return torch.zeros(groups, dtype=value.dtype, device=value.device).index_add(0, key, x.where(included, 0))

    count = total(torch.ones_like(value))
    mean = total(value) / count.clamp(min=1)
    deviation = (total((value - mean[key]) ** 2) / (count - 1).clamp(min=1)).sqrt()
    extreme = value.new_full((groups,), torch.inf)
    low = extreme.scatter_reduce(0, key, value.where(included, torch.inf), "amin")
    high = (-extreme).scatter_reduce(0, key, value.where(included, -torch.inf), "amax")
    return mean[key], deviation[key], count[key], (low >= high)[key]


@dataclass(frozen=True)
class GAE:
    """Generalized advantage estimation over the actions of a sequence; the reward arrives with the last one.

        δₜ = rₜ + γ·V(sₜ₊₁) − V(sₜ);  Âₜ = δₜ + γλ·Âₜ₊₁

    Source: arXiv:1506.02438, eq. 16.
    """

    gamma: Share = 1.0
    """Discount γ per action."""
    lam: Share = 0.95
    """λ: 0 is the one-step residual, 1 the return minus the value."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "values"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        assert view.batch.values is not None
        values = view.batch.values.double()
        advantage = torch.zeros_like(values)
        ahead = torch.zeros_like(values[:, 0])  # Âₜ₊₁ and V(sₜ₊₁) of the next action, 0 after the last
        value_ahead = torch.zeros_like(ahead)
        arriving = view.batch.reward.double()
        for t in reversed(range(values.shape[1])):
            acts = view.action[:, t]
            here = arriving + self.gamma * value_ahead - values[:, t] + self.gamma * self.lam * ahead
            advantage[:, t] = here.where(acts, 0)
            ahead = here.where(acts, ahead)
            value_ahead = values[:, t].where(acts, value_ahead)
            arriving = arriving.where(~acts, 0)
        return advantage


@dataclass(frozen=True)
class StayClose:
    """The pull toward a reference policy: minus the derivative of a KL estimate by log π_θ, so that a term of it descends the KL.

        d = log π_θ − log π_ref;  Â = −beta · ∂k/∂log π_θ;  k1 = d,  k2 = d²/2,  k3 = e⁻ᵈ − 1 + d

    Source: http://joschu.net/blog/kl-approx.html; k3 as a loss: arXiv:2402.03300 (GRPO), eq. 4.

    As losses the three differ: the expected gradient of k2 is that of KL(π_θ‖π_ref), that of k3 is that of the forward
    KL(π_ref‖π_θ), and that of k1 is zero. With beta 0 nothing is needed and nothing is computed.
    """

    beta: NonNegativeFloat = 0.04
    """Weight of the penalty."""
    estimator: Literal["k1", "k2", "k3"] = "k3"
    """The KL estimate whose derivative is taken."""
    live: ClassVar[bool] = True
    scope: ClassVar[Scope] = "token"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"logp_ref"} if self.beta else ())

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        logp = view.current()
        if not self.beta:
            return torch.zeros_like(logp)
        assert view.batch.logp_ref is not None
        distance = logp - view.batch.logp_ref
        one_minus_inverse = -torch.expm1((-distance).clamp(max=MAX_LOG_RATIO))  # 1 − e⁻ᵈ, exact for a small d as well
        slope = {"k1": torch.ones_like(distance), "k2": distance, "k3": one_minus_inverse}[self.estimator]
        return -self.beta * slope
