"""Line 4, the likelihood: what the action is.

A likelihood pools token log-probabilities [B, T] into those of the actions, laid out over the tokens again, and says
how many actions a sequence has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import PositiveFloat

from quatrain.objective.part import Scope, View
from quatrain.tensors import Float, Tensor


@dataclass(frozen=True)
class Token:
    """Each token is an action.

        ∇log π(yₜ)

    Source: arXiv:1707.06347.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, logp: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return logp

    def actions(self, view: View) -> Float[Tensor, "B 1"]:
        return view.length * view.included[:, None]


@dataclass(frozen=True)
class Sequence:
    """The whole answer is one action; its log-probability is the sum over its tokens.

        ∇log π(y) = Σₜ ∇log π(yₜ)

    Source: arXiv:2402.14740 (RLOO), section 3.2.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View, logp: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return logp.where(view.action, 0).sum(1, keepdim=True).expand(logp.shape)

    def actions(self, view: View) -> Float[Tensor, "B 1"]:
        return view.included[:, None].double()


@dataclass(frozen=True)
class Perturbed:
    """Another likelihood, of a network with noise in it: the policy that learns has some, the one that acts has none.

        ∇log π_θ^σ;  hₗ ← hₗ + σₗ·ξ,  ξ ~ N(0, I), the input of each layer l;  σₗ is learned with θ

    Source: arXiv:2603.19470 (ALP).

    It is of a whole forward pass of the update: what other terms read of log π_θ has the noise, too. π_old and π_ref have none.
    """

    of: Any = Token()
    """The likelihood."""
    sigma: PositiveFloat = 1e-6
    """The deviation σ of the noise at the start, in all layers."""
    lr: PositiveFloat = 5e-4
    """The learning rate of log σ at its height; its course is that of update.lr."""

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs

    @property
    def scope(self) -> Scope:
        return self.of.scope

    def __call__(self, view: View, logp: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return self.of(view, logp)

    def actions(self, view: View) -> Float[Tensor, "B 1"]:
        return self.of.actions(view)
