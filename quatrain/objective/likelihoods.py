"""Line 4, the likelihood: what the action is.

A likelihood pools token log-probabilities [B, T] into those of the actions, laid out over the tokens again, and says
how many actions a sequence has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from quatrain.objective.part import Scope, View


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
