"""A run's own good answers, kept for some steps to be learned from once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from quatrain.types import Group, Origin, Prompt, Trajectory

PARTS = ("tokens", "action", "logp_rollout", "version", "turn")
"""The tensors of a trajectory that are kept."""


class Kept:
    """A judge that keeps the policy's answers that are better than their group's mean, and brings them back as replayed ones.

    When there are `size` of them, the next step gets all of them beside its own groups, and none is kept any more. An answer
    that is older than `steps` steps is dropped.

    Source: arXiv:2509.22601, its code.
    """

    def __init__(
        self, judge: Callable[[Sequence[Group]], list[Group]], size: int, steps: int, *, again: Callable[[int], Prompt]
    ) -> None:
        """`judge` gives groups their rewards, and `again` is the prompt of an id."""
        self._judge, self.size, self.steps, self._again = judge, size, steps, again
        self._number = 0
        """How many steps were judged."""
        self._kept: list[tuple[int, Trajectory]] = []
        """The number of the step and the answer, oldest first."""

    def judge(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with their rewards, and after them those of the answers that are replayed."""
        judged = self._judge(groups)
        self._number += 1
        self._kept = [(step, t) for step, t in self._kept if self._number - step <= self.steps]
        replayed: dict[int, list[Trajectory]] = {}
        if len(self._kept) >= self.size:
            for _, trajectory in self._kept:
                replayed.setdefault(trajectory.prompt_id, []).append(trajectory)
            self._kept = []
        self._kept += [(self._number, t.replace(origin=Origin.REPLAY)) for group in judged for t in _good(group)]
        return judged + [Group(self._again(number), tuple(some)) for number, some in replayed.items()]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors of all that is kept, one after the other, and how the rest stands."""
        kept = [t for _, t in self._kept]
        tensors = {f"kept/{name}": torch.cat([getattr(t, name) for t in kept]) for name in PARTS} if kept else {}
        stand = [[step, t.prompt_id, len(t.tokens), t.reward, t.text, dict(t.info)] for step, t in self._kept]
        return tensors, {"number": self._number, "kept": stand}

    def load_state(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self._number, self._kept, start = state["number"], [], 0
        for step, prompt, size, reward, text, info in state["kept"]:
            parts = {name: tensors[f"kept/{name}"][start : start + size].clone() for name in PARTS}
            about = {"prompt_id": prompt, "episode_id": prompt, "reward": reward, "text": text, "info": info}
            self._kept.append((step, Trajectory(**parts, **about, origin=Origin.REPLAY)))
            start += size


def _good(group: Group) -> list[Trajectory]:
    """The policy's own answers to a prompt that are better than their mean."""
    judged = [(t, t.reward) for t in group.trainable if t.origin is Origin.POLICY and t.reward is not None]
    return [t for t, reward in judged if reward * len(judged) > sum(other for _, other in judged)]
