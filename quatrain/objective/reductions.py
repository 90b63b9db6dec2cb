"""How the actions of a batch are added up: each reduction gives every action its share.

A reduction is called with the view and the number of actions that each sequence has under the term's likelihood ([B, 1], 0
where a sequence has none) and returns a coefficient, [B, 1] or [B, T]. It counts what the whole minibatch holds, so no split into
micro-batches changes a gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pydantic import PositiveFloat

from quatrain.objective.part import Scope, View
from quatrain.tensors import Float, Tensor, torch


@dataclass(frozen=True)
class PerToken:
    """Every action of the minibatch counts the same.

        c = 1 / Σᵢ|yᵢ|

    Source: arXiv:2503.14476 (DAPO), eq. 8, whose sum runs over a group; implementations take it over the minibatch, as here.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        return torch.ones_like(actions) / actions.sum().clamp(min=1)


@dataclass(frozen=True)
class PerCreditedToken:
    """Every action of the sequences that have an advantage counts the same; the others count as never sampled.

        c = 1 / Σ_{i: Âᵢ ≠ 0}|yᵢ|

    Source: arXiv:2308.01825 (RFT), section 3.3: the mean is over the accepted answers, however many were rejected.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        assert view.advantage is not None, "an advantage that reads log π_θ is not known when the actions are counted"
        credited = (view.action & (view.advantage != 0)).any(1, keepdim=True)
        return torch.ones_like(actions) / (actions * credited).sum().clamp(min=1)


@dataclass(frozen=True)
class PerSequence:
    """Every sequence counts the same: the mean over its actions, then over sequences.

        c = 1 / (B·|yᵢ|)

    Source: arXiv:2402.03300 (GRPO), eq. 3.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        return 1 / (actions.clamp(min=1) * view.included.sum().clamp(min=1))


@dataclass(frozen=True)
class PerTurn:
    """Every turn of a sequence counts the same: the mean over its actions, then over turns, then over sequences.

        c = 1 / (B·Kᵢ·|yₖ|),  Kᵢ = number of turns

    Source: arXiv:2510.20150 (Rank-GRPO), where a turn is a rank.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"turn"})
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B T"]:
        length = view.over_turn(torch.ones_like(view.action, dtype=actions.dtype)).clamp(min=1)
        turns = (1 / length).where(view.action, 0).sum(1, keepdim=True).round().clamp(min=1)
        return 1 / (length * turns * view.included.sum().clamp(min=1))


@dataclass(frozen=True)
class PerGroup:
    """Every group counts the same: the mean over all actions of the group, then over groups.

        c = 1 / (P·Σ_{i in group}|yᵢ|)

    Source: arXiv:2503.14476 (DAPO), eq. 8 as printed.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompt_id"})
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        index, groups = view.group()
        totals = torch.zeros_like(actions[:, 0]).index_add(0, index, actions[:, 0])
        return 1 / (totals[index].clamp(min=1) * max(groups, 1))[:, None]


@dataclass(frozen=True)
class Budget:
    """Sequences in the order of the batch until their tokens come to a budget: their actions count the same, all others not.

        c = 1[Σ_{j<i}|yⱼ| < tokens] / tokens

    Source: arXiv:2506.14731 (C3PO); that the order is the batch's is ours, as the paper does not tell its own.

    The advantages are those of all sequences, the budget's or not, and the divisor is the same in every update.
    """

    tokens: PositiveFloat = 409_600.0
    """The budget, which the last sequence may exceed; also the divisor."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        lengths = view.action.sum(1, keepdim=True)
        return (lengths.cumsum(0) - lengths < self.tokens).to(actions) / self.tokens


@dataclass(frozen=True)
class Undiluted:
    """Another reduction, as much more as groups without any advantage dilute it.

        c = of · P / P′,  P′ = number of groups with some Âᵢ ≠ 0

    Source: arXiv:2504.02546 (GPG), eq. 7.
    """

    of: Any = PerGroup()
    """The reduction."""
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"prompt_id"}

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        assert view.advantage is not None, "an advantage that reads log π_θ is not known when the actions are counted"
        index, groups = view.group()
        credited = index[(view.action & (view.advantage != 0)).any(1)].unique()
        return self.of(view, actions) * (max(groups, 1) / max(len(credited), 1))


@dataclass(frozen=True)
class AmongAccepted:
    """Another reduction over the answers that are good enough alone; the others count as never sampled.

        c = 1[R ≥ threshold]·of, over {R ≥ threshold}

    Source: arXiv:2602.00400 (KEPO), its gate of distillation by quality.
    """

    of: Any = PerToken()
    """The reduction."""
    threshold: float = 1.0
    """Smallest reward of an accepted answer."""
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward"}

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B T"] | Float[Tensor, "B 1"]:
        assert view.batch.reward is not None
        accepted = (view.batch.reward >= self.threshold)[:, None]
        share = self.of(replace(view, action=view.action & accepted), actions * accepted)
        return share * accepted


@dataclass(frozen=True)
class Ramped:
    """Another reduction, next to none of it at first and all of it from some update on: a curriculum.

        c = of·(1 − cos(π·min(n/updates, 1)))/2,  n = 1, 2, … the number of the update

    Source: arXiv:2509.22601 (SPEAR), the schedule of its replay loss, which counts steps.
    """

    of: Any = PerToken()
    """The reduction."""
    updates: PositiveFloat = 200.0
    """The update from which on it is whole."""
    scope: ClassVar[Scope] = "batch"

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0,)

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B T"] | Float[Tensor, "B 1"]:
        (number,) = self.remember(view)
        return self.of(view, actions) * ((1 - math.cos(math.pi * min(number / self.updates, 1))) / 2)

    def remember(self, view: View) -> tuple[float, ...]:
        return (view.recall(self)[0] + 1,)


@dataclass(frozen=True)
class SumPerGroup:
    """The sum over the actions of a group, then the mean over groups: what a group's comparisons add up to counts once.

        c = 1 / P

    Source: arXiv:2305.18290 (DPO), eq. 7: the expectation is over pairs.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompt_id"})
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        _, groups = view.group()
        return torch.ones_like(actions) / max(groups, 1)


@dataclass(frozen=True)
class Constant:
    """The sum over a sequence's actions divided by a constant, then the mean over sequences: no bias by length.

        c = 1 / (B·tokens)

    Source: arXiv:2503.20783 (Dr. GRPO), section 3.2; with tokens = 1 its equation, with the generation budget its code.
    """

    tokens: PositiveFloat = 1.0
    """The divisor in the place of each answer's length."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View, actions: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        return torch.ones_like(actions) / (view.included.sum().clamp(min=1) * self.tokens)
