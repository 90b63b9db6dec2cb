"""Asking the policy, at the end of each step of an answer of its own, what the answer would be: how near it has come."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from quatrain.rollouts.engine import Engine, Request
from quatrain.rollouts.rollout import Encode
from quatrain.rollouts.sampling import Sampling
from quatrain.types import Batch, Group, Origin, Prompt, Trajectory


@runtime_checkable
class _Acting(Protocol):
    def __call__(self, prompts: Sequence[Prompt], *, version: int) -> list[Group]: ...


@dataclass(frozen=True)
class _Probe:
    """A place in an answer, and what is asked there."""

    prompt: int
    number: int
    """That of the answer in its group."""
    end: int
    """How many of the answer's tokens are before it."""
    tokens: Tensor
    """[T] int64, the prompt, the answer so far and the opener."""
    right: Tensor
    """[A] int64, the right answer."""


@dataclass(frozen=True)
class Probed:
    """A rollout whose answers of the policy's own say at each step how near to the right answer the policy was at the step's end.

        Φ = 1.5·Acc·Conf + 0.5·Acc − Conf
        Acc = mean π(yₘ) over the tokens of the right answer y;  Conf = mean over samples of exp(−mean H of the sample's tokens)

    Source: arXiv:2601.03823, its probing mechanism. Both are asked of the policy after the opener.

    A step goes up to the token that completes its end. What comes after the last probe is a step that has the potential of the
    one before it, 0 where there is none. Places without room for a probe in the context have none.
    """

    acting: _Acting
    """The rollout."""
    engine: Engine
    sampling: Sampling
    """How samples are written."""
    samples: int
    """How many are written at the end of each step."""
    step: str
    """The text that ends a step."""
    opener: str
    """The text that asks for the answer."""
    encode: Encode
    """A text that goes on, as tokens."""
    decode: Callable[[Tensor], str]
    score: Callable[[Batch], tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]]
    """The policy's log-probabilities and entropies of a batch's actions."""
    context: int
    """Most tokens that the policy can read and write in one sequence."""
    seed: int = 0

    def __call__(self, prompts: Sequence[Prompt], *, version: int) -> list[Group]:
        """The groups of the rollout. `version` is how many updates the policy has seen.

        A probe depends on the seed, the prompt's id, the answer's number and the place, and on nothing that is asked beside it.
        """
        groups = self.acting(prompts, version=version)
        probes = [probe for group in groups for probe in self._probes(group)]
        found: dict[tuple[int, int], list[tuple[int, float]]] = {}
        for probe, potential in zip(probes, self._potentials(probes).tolist(), strict=True):
            found.setdefault((probe.prompt, probe.number), []).append((probe.end, potential))
        return [
            replace(g, trajectories=tuple(_told(t, found.get((g.prompt.id, n), [])) for n, t in enumerate(g.trajectories)))
            for g in groups
        ]

    def _probes(self, group: Group) -> Iterator[_Probe]:
        opener = torch.tensor(self.encode(self.opener), dtype=torch.int64)
        right = torch.tensor(self.encode(group.prompt.answer or ""), dtype=torch.int64)
        longest = max(self.sampling.max_tokens, len(right))
        for number, trajectory in enumerate(group.trajectories):
            if trajectory.origin is not Origin.POLICY or not trajectory.length or not len(right):
                continue
            start = len(trajectory.tokens) - trajectory.length
            for end in self._ends(trajectory.tokens[start:]):
                tokens = torch.cat([trajectory.tokens[: start + end], opener])
                if len(tokens) + longest <= self.context:
                    yield _Probe(group.prompt.id, number, end, tokens, right)

    def _ends(self, answer: Tensor) -> list[int]:
        """After how many tokens the steps of an answer end."""
        sizes = range(1, len(answer) + 1)

        def steps(size: int) -> int:
            return self.decode(answer[:size]).count(self.step)

        return sorted({sizes[bisect_left(sizes, n, key=steps)] for n in range(1, steps(len(answer)) + 1)})

    def _potentials(self, probes: Sequence[_Probe]) -> Float[Tensor, "N"]:
        if not probes:
            return torch.zeros(0)
        seeds = [(self.seed, 5, p.prompt, p.number, p.end) for p in probes]
        requests = [Request(p.tokens, (*seed, n)) for p, seed in zip(probes, seeds, strict=True) for n in range(self.samples)]
        samples = [completion.tokens for completion in self.engine.generate(requests, self.sampling)]
        rows = [(request.tokens, sample) for request, sample in zip(requests, samples, strict=True)]
        rows += [(probe.tokens, probe.right) for probe in probes]
        tokens = pad_sequence([torch.cat(row) for row in rows], batch_first=True)
        place = torch.arange(tokens.shape[1])
        action = torch.stack([(len(asked) <= place) & (place < len(asked) + len(said)) for asked, said in rows])
        logp, entropy = (x.cpu().double() for x in self.score(Batch(tokens=tokens, action=action)))
        size, written = action.sum(1), len(requests)
        confidence = (-entropy.where(action, 0).sum(1) / size).exp()[:written].view(-1, self.samples).mean(1)
        accuracy = (logp.exp().where(action, 0).sum(1) / size)[written:]
        return 1.5 * accuracy * confidence + 0.5 * accuracy - confidence


def _told(trajectory: Trajectory, found: Sequence[tuple[int, float]]) -> Trajectory:
    """A trajectory with its steps, of which `found` says after how many tokens each ends and with which potential."""
    potentials = [potential for _, potential in found]
    ends = torch.tensor([end for end, _ in found], dtype=torch.int64)
    written = trajectory.action.cumsum(0) - trajectory.action.long()  # of the answer, before each token
    step = torch.bucketize(written, ends, right=True)
    of_steps = torch.tensor([*potentials, potentials[-1] if potentials else 0.0])
    return trajectory.replace(step=step, potential=of_steps[step])
