"""From prompts to groups of trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from quatrain.rollouts.engine import Completion, Engine, Request
from quatrain.rollouts.sampling import Sampling
from quatrain.types import Group, Origin, Prompt, Trajectory

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Rollout:
    """The acting stage for single-turn tasks: each prompt is answered ``group_size`` times, or its demonstration stands in."""

    engine: Engine
    sampling: Sampling
    group_size: int
    encode: Encode
    """A prompt's text as tokens."""
    encode_answer: Encode
    """A demonstration's text as tokens."""
    context: int
    """Most tokens that the policy can read and write in one sequence."""
    seed: int = 0
    origins: frozenset[Origin] = frozenset({Origin.POLICY})
    """Whose trajectories are wanted: the policy's, demonstrations, or both."""

    def __call__(self, prompts: Sequence[Prompt], *, version: int) -> list[Group]:
        """One group for each prompt. `version` is how many updates the policy has seen.

        A sample depends on the seed, the prompt's id and its number in the group, and on nothing that is sampled beside it.
        """
        tokens = [torch.tensor(self.encode(prompt.text), dtype=torch.int64) for prompt in prompts]
        fits = [0 < len(t) <= self.context - self.sampling.max_tokens for t in tokens]
        samples = self.group_size if Origin.POLICY in self.origins else 0
        requests = [
            Request(t, (self.seed, 1, prompt.id, member))
            for prompt, t, ok in zip(prompts, tokens, fits, strict=True)
            for member in range(samples if ok else 0)
        ]
        written = iter(self.engine.generate(requests, self.sampling))
        groups = []
        for prompt, t, ok in zip(prompts, tokens, fits, strict=True):
            members = [
                self._answer(prompt, t, next(written), version) if ok else self._too_long(prompt, t) for _ in range(samples)
            ]
            if Origin.DEMONSTRATION in self.origins:
                members.append(self._demonstration(prompt, t))
            groups.append(Group(prompt, tuple(members)))
        return groups

    def _answer(self, prompt: Prompt, tokens: Tensor, completion: Completion, version: int) -> Trajectory:
        return _trajectory(
            prompt, tokens, completion.tokens, completion.logp, version, text=completion.text, info={"finish": completion.finish}
        )

    def _demonstration(self, prompt: Prompt, tokens: Tensor) -> Trajectory:
        if prompt.demonstration is None:
            return _failed(prompt, tokens, "the task has no demonstration for this prompt", Origin.DEMONSTRATION)
        answer = torch.tensor(self.encode_answer(prompt.demonstration), dtype=torch.int64)
        if not 0 < len(tokens) <= self.context - len(answer):
            return _failed(prompt, tokens, "the prompt and its demonstration do not fit into the context", Origin.DEMONSTRATION)
        return _trajectory(
            prompt, tokens, answer, torch.zeros(len(answer)), -1, text=prompt.demonstration, origin=Origin.DEMONSTRATION
        )

    def _too_long(self, prompt: Prompt, tokens: Int[Tensor, "T"]) -> Trajectory:
        room = f"{len(tokens)} prompt tokens and {self.sampling.max_tokens} for the answer"
        return _failed(prompt, tokens, f"{room} do not fit into a context of {self.context}", Origin.POLICY)


def _trajectory(
    prompt: Prompt,
    tokens: Tensor,
    answer: Tensor,
    logp: Tensor,
    version: int,
    *,
    text: str,
    origin: Origin = Origin.POLICY,
    error: str | None = None,
    info: dict[str, str] | None = None,
) -> Trajectory:
    start, size = len(tokens), len(tokens) + len(answer)
    action = torch.arange(size) >= start
    return Trajectory(
        tokens=torch.cat([tokens, answer]),
        action=action,
        logp_rollout=torch.cat([torch.zeros(start), logp]),
        version=torch.where(action, version, -1),
        turn=torch.zeros(size, dtype=torch.int64),
        prompt_id=prompt.id,
        episode_id=prompt.id,
        text=text,
        origin=origin,
        error=error,
        info=info or {},
    )


def _failed(prompt: Prompt, tokens: Tensor, error: str, origin: Origin) -> Trajectory:
    nothing = torch.zeros(0)
    return _trajectory(prompt, tokens, nothing.to(torch.int64), nothing, -1, text="", origin=origin, error=error)
