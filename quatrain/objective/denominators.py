"""Line 2, the reference-policy denominator: what the action's probability is measured against.

A denominator is called with the view and returns log π_ref [B, T]; the term's ratio is exp(log π_θ − log π_ref), without
gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from quatrain.objective.part import Scope, View
from quatrain.tensors import Float, Tensor, torch


@dataclass(frozen=True)
class Current:
    """The current policy itself: the ratio is 1 and the weight is the advantage.

        π_ref = π_θ

    Source: arXiv:2509.04419, table 1 (SFT, REINFORCE).
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return view.current()


@dataclass(frozen=True)
class Old:
    """The policy at the start of the update, token by token.

        r = π_θ(yₜ) / π_old(yₜ)

    Source: arXiv:1707.06347, eq. 6.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp_old"})
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_old is not None
        return view.batch.logp_old


@dataclass(frozen=True)
class PrefixMinimum:
    """The policy at the start of the update; each token's ratio times the least of those before it in its answer.

        r = min_{s<t} ρₛ · ρₜ,  ρₜ = π_θ(yₜ)/π_old(yₜ);  the least of none is 1

    Source: arXiv:2601.22718 (MinPRO): it stands for the product over the prefix, which grows or vanishes with the length.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp_old"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_old is not None
        change = (view.current() - view.batch.logp_old).where(view.action, torch.inf)
        least = torch.cat([torch.full_like(change[:, :1], torch.inf), change[:, :-1]], 1).cummin(1).values
        return view.batch.logp_old - least.where(least.isfinite(), 0)


@dataclass(frozen=True)
class Rollout:
    """The policy that acted, as the engine computed it, token by token.

        r = π_θ(yₜ) / π_rollout(yₜ)

    Source: arXiv:cs/0204043, section 2 (importance sampling of other policies' experience).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp_rollout"})
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_rollout is not None
        return view.batch.logp_rollout


@dataclass(frozen=True)
class Reference:
    """The policy to stay close to, which stands for the one that wrote the data.

        r = π_θ(yₜ) / π_ref(yₜ)

    Source: arXiv:2305.14718 (A-LoL), section 2.2.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"logp_ref"})
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_ref is not None
        return view.batch.logp_ref


@dataclass(frozen=True)
class Unit:
    """One: the ratio is the action's probability, as for data of which nobody knows how likely it was.

        π_ref = 1;  r = π_θ(yₜ)

    Source: arXiv:2509.04419, table 1 (LUFFY, SRFT); arXiv:2508.05629 (DFT), eq. 9.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return torch.zeros_like(view.current())


@dataclass(frozen=True)
class GeometricMean:
    """The policy at the start of the update, by the geometric mean over the sequence or a turn: one ratio for all its tokens.

        r = (π_θ(y) / π_old(y))^(1/|y|)

    Source: arXiv:2507.18071 (GSPO), eq. 7; of a turn, which is a rank there: arXiv:2510.20150 (Rank-GRPO).
    """

    over: Literal["sequence", "turn"] = "sequence"
    """What y is."""
    scope: ClassVar[Scope] = "sequence"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"logp_old"} | ({"turn"} if self.over == "turn" else set()))

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_old is not None
        logp = view.current().double()  # so that the difference gives back one ratio for the whole sequence
        if self.over == "turn":
            count = view.over_turn(torch.ones_like(logp)).clamp(min=1)
            return logp - view.over_turn(logp - view.batch.logp_old) / count
        return logp - view.mean(logp - view.batch.logp_old)
