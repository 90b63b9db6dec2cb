"""From prompts to groups of trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quatrain.rollouts.engine import Engine, Request
from quatrain.rollouts.sampling import Sampling
from quatrain.types import Group, Origin, Prompt, Trajectory

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Rollout:
    """The acting stage of single-turn tasks: ``group_size`` answers to each prompt, and beside them those that the task has."""

    engine: Engine
    sampling: Sampling
    group_size: int
    encode: Encode
    """A prompt's text as tokens."""
    encode_answer: Encode
    """The text of a demonstration or a rated answer as tokens."""
    context: int
    """Most tokens that the policy can read and write in one sequence."""
    seed: int = 0
    voters: int = 0
    """How many more answers to each prompt are sampled that only vote."""
    origins: frozenset[Origin] = frozenset({Origin.POLICY})
    """Whose trajectories are wanted, of the policy's, demonstrations, rated, greedy and mismatched ones."""

    def __call__(self, prompts: Sequence[Prompt], *, version: int) -> list[Group]:
        """One group for each prompt. `version` is how many updates the policy has seen.

        A sample depends on the seed, the prompt's id and its number in the group, and on nothing that is sampled beside it. The
        mismatched answers of a prompt are the rated ones of the next; where there is only one prompt, it has none.
        """
        tokens = [torch.tensor(self.encode(prompt.text), dtype=torch.int64) for prompt in prompts]
        acted = {origin: self._act(origin, prompts, tokens, version) for origin in (Origin.POLICY, Origin.GREEDY)}
        following = [*prompts[1:], *prompts[:1]] if len(prompts) > 1 else []
        groups = []
        for i, (prompt, t) in enumerate(zip(prompts, tokens, strict=True)):
            members = [*acted[Origin.POLICY][i], *acted[Origin.GREEDY][i]]
            if Origin.DEMONSTRATION in self.origins:
                shown = () if prompt.demonstration is None else ((prompt.demonstration, None),)
                members += self._given(prompt, t, shown, Origin.DEMONSTRATION)
            if Origin.RATED in self.origins:
                members += self._given(prompt, t, prompt.rated, Origin.RATED)
            if Origin.MISMATCHED in self.origins and following:
                other = tuple((text, None) for text, _ in following[i].rated)
                members += self._given(prompt, t, other, Origin.MISMATCHED)
            groups.append(Group(prompt, tuple(members)))
        return groups

    def _act(self, origin: Origin, prompts: Sequence[Prompt], tokens: Sequence[Tensor], version: int) -> list[list[Trajectory]]:
        """The policy's own answers to each prompt: samples, of which the last ones only vote, or the most probable one."""
        sampling = replace(self.sampling, temperature=0.0) if origin is Origin.GREEDY else self.sampling
        sampled = [Origin.POLICY] * self.group_size + [Origin.VOTER] * self.voters
        members = ([origin] if origin is Origin.GREEDY else sampled) if origin in self.origins else []
        fits = [0 < len(t) <= self.context - sampling.max_tokens for t in tokens]
        requests = [
            Request(t, (self.seed, 1, prompt.id, member))
            for prompt, t, ok in zip(prompts, tokens, fits, strict=True)
            for member in range(len(members) if ok else 0)
        ]
        written = iter(self.engine.generate(requests, sampling))

        def answer(prompt: Prompt, t: Tensor, ok: bool, origin: Origin) -> Trajectory:
            if not ok:
                room = f"{len(t)} prompt tokens and {sampling.max_tokens} for the answer"
                return _failed(prompt, t, f"{room} do not fit into a context of {self.context}", origin)
            c = next(written)
            info = {"finish": c.finish}
            made = _trajectory(prompt, t, c.tokens, c.logp, version, text=c.text, origin=origin, info=info)
            return made.replace(experts=c.experts)

        return [[answer(*of, member) for member in members] for of in zip(prompts, tokens, fits, strict=True)]

    def _given(
        self, prompt: Prompt, tokens: Tensor, answers: Sequence[tuple[str, float | None]], origin: Origin
    ) -> list[Trajectory]:
        """What the task has of answers to a prompt, each with its reward; a failure where it has none."""
        return [self._laid(prompt, tokens, text, reward, origin) for text, reward in answers] or [
            _failed(prompt, tokens, f"the task has no {_CALLED[origin]} for this prompt", origin)
        ]

    def _laid(self, prompt: Prompt, tokens: Tensor, text: str, reward: float | None, origin: Origin) -> Trajectory:
        answer = torch.tensor(self.encode_answer(text), dtype=torch.int64)
        if not 0 < len(tokens) <= self.context - len(answer):
            return _failed(prompt, tokens, f"the prompt and its {_CALLED[origin]} do not fit into the context", origin)
        read = next((text.removesuffix(stop) for stop in self.sampling.stop if text.endswith(stop)), text)
        laid = _trajectory(prompt, tokens, answer, torch.zeros(len(answer)), -1, text=read, origin=origin)
        return laid.replace(reward=reward)


_CALLED = {Origin.DEMONSTRATION: "demonstration", Origin.RATED: "rated answer", Origin.MISMATCHED: "mismatched answer"}


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
