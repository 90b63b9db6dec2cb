"""Parts that only a peer has, to say where it differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from quatrain.objective import Relative, View
from quatrain.objective.part import Scope


@dataclass(frozen=True)
class AloneItsReward:
    """Another advantage, but a prompt's only answer has its reward.

        Â = R in a group of one, of elsewhere

    Source: verl, core_algos.py: a group of one has mean 0 and deviation 1.
    """

    of: Any = Relative(scale="group")  # noqa: RUF009
    """The advantage of the others."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "prompt_id"})
    scope: ClassVar[Scope] = "group"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        index, _ = view.group()
        alone = torch.bincount(index[view.included], minlength=len(index))[index] == 1
        return torch.where(alone[:, None], view.batch.reward.double()[:, None], self.of(view))


@dataclass(frozen=True)
class OverRewarded:
    """Another reduction, as much more as there are answers with a reward of 0.

        c = of · B / |{i: Rᵢ ≠ 0}|

    Source: verl, core_algos.py: alpha of its estimator gpg.
    """

    of: Any
    """The reduction."""
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        assert view.batch.reward is not None
        rewarded = view.included & (view.batch.reward != 0)
        return self.of(view, actions) * view.included.sum() / rewarded.sum().clamp(min=1)


@dataclass(frozen=True)
class CountingPrompts:
    """Every token of the answers that have an advantage counts the same, those of their prompts included.

        c = 1 / Σ_{i: Âᵢ ≠ 0}(|yᵢ| + prompt)

    Source: TRL, orpo_trainer.py: the labels of its likelihood are the whole sequence.
    """

    prompt: int = 1
    """Predicted tokens of a prompt."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        assert view.advantage is not None
        credited = (view.action & (view.advantage != 0)).any(1, keepdim=True)
        return torch.ones_like(actions) / ((actions + self.prompt) * credited).sum().clamp(min=1)
