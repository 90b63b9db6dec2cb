"""Acting that runs ahead of learning, so that what is learned from was written by weights that are some steps old."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quatrain.rollouts.rollout import Draft, Rollout
from quatrain.types import Group, Prompt

PARTS = ("tokens", "logp", "version")
"""The tensors of a draft that take writing."""


class Ahead:
    """A rollout `steps` ahead: each call begins answers to its prompts, and returns those that were begun so many calls before.

    The first call takes the prompts of the steps to come from `take`, and all that it begins is written by its version. So the
    version that acted is `steps` behind the one that learns, or less where a run begins. With `partial`, all answers that are
    under way are gone on with in each call, an equal share of the most tokens at a time, so that one answer is by several
    versions, and keys and values of what is written are computed anew by each.
    """

    def __init__(
        self,
        rollout: Rollout,
        steps: int,
        *,
        partial: bool,
        take: Callable[[int], Sequence[Prompt]],
        again: Callable[[int], Prompt],
    ) -> None:
        """`take` is more prompts to train on, and `again` the one of an id, for what was under way at a checkpoint."""
        self.rollout, self.steps = rollout, steps
        self._share = math.ceil(rollout.sampling.max_tokens / (steps + 1)) if partial else None
        self._take, self._again = take, again
        self._under_way: list[tuple[Sequence[Prompt], list[Draft]]] = []

    def __call__(self, prompts: Sequence[Prompt], *, version: int) -> list[Group]:
        """The groups of the prompts that came `steps` calls ago. `version` is how many updates the policy has seen."""
        if not self._under_way:
            for number in range(self.steps):
                self._begin(prompts if number == 0 else self._take(len(prompts)))
                self.rollout.write(self._under_way[-1][1], version, self._share and self._share * (self.steps - number))
            prompts = self._take(len(prompts))
        self._begin(prompts)
        self.rollout.write([draft for _, drafts in self._under_way for draft in drafts], version, self._share)
        return self.rollout.finish(*self._under_way.pop(0))

    def _begin(self, prompts: Sequence[Prompt]) -> None:
        self._under_way.append((prompts, self.rollout.begin(prompts)))

    def state(self) -> tuple[dict[str, Tensor], list[list[Any]]]:
        """What is under way: tensors of all drafts, one after the other, and by step the ids of prompts and how drafts stand."""
        drafts = [draft for _, some in self._under_way for draft in some]
        tensors = {name: torch.cat([getattr(draft, name) for draft in drafts]) for name in PARTS} if drafts else {}
        experts = [draft.experts for draft in drafts if draft.experts is not None]
        tensors |= {"experts": torch.cat(experts)} if experts else {}
        stand = [
            [[prompt.id for prompt in prompts], [[len(d.tokens), d.text, d.ended] for d in some]]
            for prompts, some in self._under_way
        ]
        return tensors, stand

    def load_state(self, tensors: dict[str, Tensor], stand: list[list[Any]]) -> None:
        """Take up what `state` gave."""
        self._under_way, start, told = [], 0, 0
        for ids, drafts in stand:
            self._begin([self._again(number) for number in ids])
            for draft, (size, draft.text, draft.ended) in zip(self._under_way[-1][1], drafts, strict=True):
                for name in PARTS:
                    setattr(draft, name, tensors[name][start : start + size].clone())
                start += size
                if "experts" in tensors and size:
                    draft.experts = tensors["experts"][told : told + len(draft.prompt) + size].clone()
                    told += len(draft.experts)
