"""From prompts to groups of trajectories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from quatrain.rollouts.engine import Completion, Engine, Request
from quatrain.rollouts.sampling import Sampling
from quatrain.types import Group, Origin, Prompt, Trajectory

Encode = Callable[[str], list[int]]


@dataclass
class Draft:
    """One of the policy's own answers while it is written, which may take several versions of the policy."""

    prompt: Tensor
    """[P] int64."""
    seed: tuple[int, ...]
    prompt_id: int
    origin: Origin
    tokens: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """[A] int64, what is written."""
    logp: Tensor = field(default_factory=lambda: torch.zeros(0))
    """[A] float32, under the distributions that the tokens were drawn from."""
    version: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """[A] int64, how many updates the policy had seen."""
    experts: Tensor | None = None
    """[P + A, L, K] int16, those of the pass that first read each token: what a later version chooses where it reads what is
    written anew is not kept. None where the engine does not tell."""
    text: str = ""
    ended: str = ""
    """Why it ended; empty while it goes on."""
    error: str | None = None
    """Why it cannot be written."""

    @property
    def is_open(self) -> bool:
        return not self.ended and self.error is None

    def add(self, completion: Completion, version: int) -> None:
        """What the policy of this version has written."""
        self.tokens = torch.cat([self.tokens, completion.tokens])
        self.logp = torch.cat([self.logp, completion.logp])
        self.version = torch.cat([self.version, torch.full_like(completion.tokens, version)])
        if self.experts is None or completion.experts is None:
            self.experts = completion.experts
        else:  # nothing had come after the last token yet
            self.experts = torch.cat([self.experts[:-1], completion.experts[len(self.experts) - 1 :]])
        self.text = completion.text
        self.ended = "" if completion.finish == "pause" else completion.finish

    def trajectory(self) -> Trajectory:
        info = {"finish": self.ended} if self.ended else {}
        laid = (self.prompt_id, self.prompt, self.tokens, self.logp, self.version)
        made = _trajectory(*laid, text=self.text, origin=self.origin, error=self.error, info=info)
        return made.replace(experts=self.experts)


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
        drafts = self.begin(prompts)
        self.write(drafts, version)
        return self.finish(prompts, drafts)

    def begin(self, prompts: Sequence[Prompt]) -> list[Draft]:
        """The policy's own answers to each prompt, of which nothing is written."""
        sampled = [Origin.POLICY] * self.group_size + [Origin.VOTER] * self.voters if Origin.POLICY in self.origins else []
        members = sampled + ([Origin.GREEDY] if Origin.GREEDY in self.origins else [])
        drafts = []
        for prompt in prompts:
            tokens = self._tokens(prompt)
            room = f"{len(tokens)} prompt tokens and {self.sampling.max_tokens} for the answer"
            fits = 0 < len(tokens) <= self.context - self.sampling.max_tokens
            error = None if fits else f"{room} do not fit into a context of {self.context}"
            for number, origin in enumerate(members):
                seed = (self.seed, 1, prompt.id, 0 if origin is Origin.GREEDY else number)
                drafts.append(Draft(tokens, seed, prompt.id, origin, error=error))
        return drafts

    def write(self, drafts: Sequence[Draft], version: int, most: int | None = None) -> None:
        """Go on with each draft that is not at its end, for at most so many tokens. `version` is how many updates the policy
        has seen."""
        for greedy in (False, True):
            sampling = replace(self.sampling, temperature=0.0) if greedy else self.sampling
            open_ones = [d for d in drafts if d.is_open and (d.origin is Origin.GREEDY) == greedy]
            requests = [Request(torch.cat([d.prompt, d.tokens]), d.seed, len(d.tokens), most) for d in open_ones]
            for draft, completion in zip(open_ones, self.engine.generate(requests, sampling), strict=True):
                draft.add(completion, version)

    def finish(self, prompts: Sequence[Prompt], drafts: Sequence[Draft]) -> list[Group]:
        """The drafts at their ends as groups, with what the task has of answers beside them."""
        own: dict[int, list[Trajectory]] = {}
        for draft in drafts:
            own.setdefault(draft.prompt_id, []).append(draft.trajectory())
        following = [*prompts[1:], *prompts[:1]] if len(prompts) > 1 else []
        groups = []
        for i, prompt in enumerate(prompts):
            tokens, members = self._tokens(prompt), own.get(prompt.id, [])
            if Origin.DEMONSTRATION in self.origins:
                shown = () if prompt.demonstration is None else ((prompt.demonstration, None),)
                members += self._given(prompt, tokens, shown, Origin.DEMONSTRATION)
            if Origin.RATED in self.origins:
                members += self._given(prompt, tokens, prompt.rated, Origin.RATED)
            if Origin.MISMATCHED in self.origins and following:
                other = tuple((text, None) for text, _ in following[i].rated)
                members += self._given(prompt, tokens, other, Origin.MISMATCHED)
            groups.append(Group(prompt, tuple(members)))
        return groups

    def _tokens(self, prompt: Prompt) -> Tensor:
        return torch.tensor(self.encode(prompt.text), dtype=torch.int64)

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
        unwritten = torch.full_like(answer, -1)
        laid = _trajectory(prompt.id, tokens, answer, torch.zeros(len(answer)), unwritten, text=read, origin=origin)
        return laid.replace(reward=reward)


_CALLED = {Origin.DEMONSTRATION: "demonstration", Origin.RATED: "rated answer", Origin.MISMATCHED: "mismatched answer"}


def _trajectory(
    prompt_id: int,
    prompt: Tensor,
    answer: Tensor,
    logp: Tensor,
    version: Tensor,
    *,
    text: str,
    origin: Origin,
    error: str | None = None,
    info: dict[str, str] | None = None,
) -> Trajectory:
    start, size = len(prompt), len(prompt) + len(answer)
    return Trajectory(
        tokens=torch.cat([prompt, answer]),
        action=torch.arange(size) >= start,
        logp_rollout=torch.cat([torch.zeros(start), logp]),
        version=torch.cat([torch.full((start,), -1), version]),
        turn=torch.zeros(size, dtype=torch.int64),
        prompt_id=prompt_id,
        episode_id=prompt_id,
        text=text,
        origin=origin,
        error=error,
        info=info or {},
    )


def _failed(prompt: Prompt, tokens: Tensor, error: str, origin: Origin) -> Trajectory:
    nothing = torch.zeros(0, dtype=torch.int64)
    return _trajectory(prompt.id, tokens, nothing, torch.zeros(0), nothing, text="", origin=origin, error=error)
