"""The embedded engine: continuous batching over a forest of prompts, on the policy's own weights.

Every pass computes some new tokens: prompt tokens that nobody computed yet, and the last token of each answer that is being
written. Keys and values lie in slots. A slot belongs either to a node of the forest of prompts, and is then seen by
everything below that node, or to one answer. So what prompts share is computed and stored once, answers start from their prompt's
last node, and a freed slot is at once the next token's.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache, DynamicLayer

from quatrain.policies import CausalLM, Forest, plant
from quatrain.policies.routing import NONE
from quatrain.rollouts.ending import Ending, Finish
from quatrain.rollouts.precision import Precision, Served
from quatrain.rollouts.sampling import Sampling, draw


@dataclass(frozen=True)
class Request:
    """One answer to write, or to go on with. What it says depends on `seed`, and not on what else is being written."""

    tokens: Int[Tensor, "T"]
    """The prompt, at least one token, and what is written of the answer."""
    seed: tuple[int, ...]
    written: int = 0
    """How many of the tokens are the answer's."""
    most: int | None = None
    """After so many further tokens it pauses; None is at its end."""


@dataclass(frozen=True)
class Completion:
    """An answer: what was drawn, and its log-probabilities under the distributions it was drawn from."""

    tokens: Int[Tensor, "A"]
    """Those drawn now."""
    logp: Float[Tensor, "A"]
    text: str
    """The whole answer's, cut before the stop string or the end token."""
    finish: Finish
    """An end token, a stop string, the limit of tokens, or that of this request, after which one may go on."""
    experts: Int[Tensor, "T L K"] | None = None
    """Those that were chosen now, if they were asked for, for the request's tokens and those drawn; -1 for the last token, which
    nothing came after."""


@runtime_checkable
class Engine(Protocol):
    """What writes answers. Results come in the order of the requests."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]: ...


class TorchEngine:
    """The engine that needs nothing but the policy, whose weights it shares, or follows in another precision."""

    def __init__(
        self,
        policy: CausalLM,
        *,
        max_sequences: int = 64,
        tokens_per_pass: int = 2048,
        weights: Literal["same"] | Precision = "same",
        tells_experts: bool = False,
    ) -> None:
        self._served = None if weights == "same" else Served(policy, weights)
        self.policy = self._served.policy if self._served else policy
        self.tells_experts = tells_experts
        self.max_sequences = max_sequences
        self.tokens_per_pass = tokens_per_pass

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Write an answer to each request. At most `max_sequences` are written at once; the others wait for a free place."""
        if not requests:
            return []
        if not all(len(request.tokens) for request in requests):
            raise ValueError("a request has no tokens, and nothing to go on from: give a prompt of at least one token")
        if self._served:
            self._served.follow()
        return _Generation(self, requests, sampling).run()


@dataclass
class _Answer:
    """One answer that is being written."""

    request: int
    leaf: int
    """The node of the prompt's last token."""
    start: int
    """Position of its first token that is drawn now."""
    uniform: Float[Tensor, "A"]
    before: list[int]
    """The tokens that were drawn before."""
    most: int
    """How many are drawn now at most."""
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    experts: list[Int[Tensor, "L K"]] = field(default_factory=list)
    """Those of its tokens, if they are asked for."""
    slots: list[int] = field(default_factory=list)
    sees: list[int] = field(default_factory=list)
    """The slots of its prompt and its own; empty until its prompt is computed."""


class _Generation:
    """One call of `generate`: the forest of its prompts, the slots, and who is writing."""

    def __init__(self, engine: TorchEngine, requests: Sequence[Request], sampling: Sampling) -> None:
        self.engine, self.policy, self.requests, self.sampling = engine, engine.policy, requests, sampling
        self.forest: Forest = plant([request.tokens for request in requests])
        self.leaf = [int(self.forest.path[i, len(r.tokens) - 1]) for i, r in enumerate(requests)]
        self.waiting = sorted(range(len(requests)), key=lambda i: self.leaf[i], reverse=True)
        self.users = torch.zeros(len(self.forest), dtype=torch.int64)  # unfinished requests below each node
        for path in self.forest.path:
            self.users[path[path >= 0]] += 1
        self.slot_of: dict[int, int] = {}
        self.hidden: dict[int, Tensor] = {}  # last hidden state of the leaves that are in use
        self.experts: dict[int, Int[Tensor, "L K"]] = {}  # of the forest's nodes, if they are asked for
        self.slots = _Slots(self.policy)
        self.ending = Ending(self.policy, sampling)
        self.writing: list[_Answer] = []
        self.done: dict[int, Completion] = {}

    def run(self) -> list[Completion]:
        while self.waiting or self.writing:
            started = self._admit()
            continuing = [answer for answer in self.writing if answer.tokens]
            last = self._forward(self._missing(started), continuing)
            for answer in started:
                last[answer.request] = self.hidden[answer.leaf]
            self._extend(self.writing, torch.stack([last[answer.request] for answer in self.writing]))
            self._retire()
        return [self.done[i] for i in range(len(self.requests))]

    def _admit(self) -> list[_Answer]:
        """Give the free places to waiting requests, neighbours in the forest first."""
        started = []
        while self.waiting and len(self.writing) < self.engine.max_sequences:
            index = self.waiting.pop()
            request = self.requests[index]
            uniform = np.random.Generator(np.random.Philox(np.random.SeedSequence(request.seed))).random(self.sampling.max_tokens)
            before = request.tokens[len(request.tokens) - request.written :].tolist()
            most = self.sampling.max_tokens if request.most is None else request.most
            drawn = torch.from_numpy(uniform[request.written :])
            started.append(_Answer(index, self.leaf[index], len(request.tokens), drawn, before, most))
            self.writing.append(started[-1])
        return started

    def _missing(self, started: Sequence[_Answer]) -> list[int]:
        """The nodes, parents first, that the prompts of `started` need and that are not computed."""
        need: set[int] = set()
        for answer in started:
            path = self.forest.path[answer.request]
            need.update(path[path >= 0].tolist())
        return sorted(need - self.slot_of.keys())

    def _forward(self, nodes: Sequence[int], answers: Sequence[_Answer]) -> dict[int, Float[Tensor, "D"]]:
        """Compute new nodes and the last token of each answer; returns the last hidden state by request."""
        size = self.engine.tokens_per_pass
        leaves = {answer.leaf for answer in self.writing}
        for first in range(0, len(nodes) - size, size):
            self._pass(nodes[first : first + size], [], leaves)
        rest = len(nodes) % size or min(len(nodes), size)
        return self._pass(nodes[len(nodes) - rest :], answers, leaves)

    def _pass(self, nodes: Sequence[int], answers: Sequence[_Answer], leaves: set[int]) -> dict[int, Float[Tensor, "D"]]:
        if not nodes and not answers:
            return {}
        index = torch.tensor(nodes, dtype=torch.int64)
        tokens = torch.cat([self.forest.tokens[index], torch.tensor([a.tokens[-1] for a in answers], dtype=torch.int64)])
        written = torch.tensor([a.start + len(a.tokens) - 1 for a in answers], dtype=torch.int64)
        position = torch.cat([self.forest.position[index], written])
        node = torch.cat([index, torch.tensor([a.leaf for a in answers], dtype=torch.int64)])
        owner = torch.cat([torch.full_like(index, -1), torch.tensor([a.request for a in answers], dtype=torch.int64)])
        slots = self.slots.take(
            first=torch.where(owner < 0, node, _NOBODY),
            end=torch.cat([self.forest.end[index], torch.zeros(len(answers), dtype=torch.int64)]),
            owner=owner,
            position=position,
        )
        self.slot_of.update(zip(nodes, slots, strict=False))
        for answer, slot in zip(answers, slots[len(nodes) :], strict=True):
            answer.slots.append(slot)
            if not answer.sees:
                path = self.forest.path[answer.request]
                answer.sees.extend(self.slot_of[n] for n in path[path >= 0].tolist())
            answer.sees.append(slot)
        tells = self.engine.tells_experts
        with self.policy.routed() if tells else contextlib.nullcontext() as routing:
            hidden = self.slots.forward(tokens, position, node, owner, None if nodes else [answer.sees for answer in answers])
        if routing is not None:
            chosen = routing.chosen.to("cpu", torch.int16)
            self.experts.update(zip(nodes, chosen, strict=False))
            for answer, own in zip(answers, chosen[len(nodes) :], strict=True):
                answer.experts.append(own)
        self.hidden.update((n, hidden[i]) for i, n in enumerate(nodes) if n in leaves)
        return {answer.request: hidden[len(nodes) + i] for i, answer in enumerate(answers)}

    def _extend(self, answers: Sequence[_Answer], hidden: Float[Tensor, "R D"]) -> None:
        """Draw the next token of each answer."""
        uniform = torch.stack([answer.uniform[len(answer.tokens)] for answer in answers])
        token, logp = draw(self.policy.logits(hidden), uniform.to(hidden.device), self.sampling)
        for answer, t, p in zip(answers, token.tolist(), logp.tolist(), strict=True):
            answer.tokens.append(t)
            answer.logp.append(p)

    def _retire(self) -> None:
        """Finish the answers that ended, and free what nobody needs any more."""
        writing = []
        for answer in self.writing:
            written = [*answer.before, *answer.tokens]
            finish = self.ending.of(written, pauses=len(answer.tokens) >= answer.most)
            if finish is None:
                writing.append(answer)
                continue
            path = self.forest.path[answer.request]
            path = path[path >= 0]
            self.done[answer.request] = Completion(
                torch.tensor(answer.tokens),
                torch.tensor(answer.logp),
                self.ending.text(written, finish),
                finish,
                self._experts(answer, path.tolist()),
            )
            self.slots.free(answer.slots)
            self.users[path] -= 1
            unused = path[self.users[path] == 0].tolist()
            self.slots.free([self.slot_of.pop(node) for node in unused])
            if answer.leaf in unused:
                del self.hidden[answer.leaf]
        self.writing = writing

    def _experts(self, answer: _Answer, prompt: Sequence[int]) -> Tensor | None:
        if not self.engine.tells_experts:
            return None
        known = [*(self.experts[node] for node in prompt), *answer.experts]
        return torch.stack([*known, torch.full_like(known[0], NONE)])


_NOBODY = torch.iinfo(torch.int64).max


class _Slots:
    """Places for keys and values, and who may see them."""

    GROWTH = 512
    FEW = 4
    """Keys that are gathered for each token must be fewer than all by this factor to be worth it."""

    def __init__(self, policy: CausalLM) -> None:
        self.policy = policy
        self.cache = _SlotCache()
        self.unused: list[int] = []
        self.taken: list[int] = []
        self.marks = torch.empty(4, 0, dtype=torch.int64)  # first, end: nodes that see it; owner: answer that sees it; position

    def take(self, *, first: Tensor, end: Tensor, owner: Tensor, position: Tensor) -> list[int]:
        """A slot for each new token; the lowest free ones, so that what is attended to stays short."""
        while len(self.unused) < len(first):
            size = self.marks.shape[1]
            grown = torch.tensor([_NOBODY, 0, -2, 0])[:, None].expand(4, self.GROWTH)
            self.marks = torch.cat([self.marks, grown], 1)
            for slot in range(size, size + self.GROWTH):
                heapq.heappush(self.unused, slot)
        self.taken = [heapq.heappop(self.unused) for _ in range(len(first))]
        self.marks[:, self.taken] = torch.stack([first, end, owner, position])
        return self.taken

    def free(self, slots: Sequence[int]) -> None:
        self.marks[:, slots] = torch.tensor([_NOBODY, 0, -2, 0])[:, None]
        for slot in slots:
            heapq.heappush(self.unused, slot)

    def forward(
        self, tokens: Tensor, position: Tensor, node: Tensor, owner: Tensor, seen: Sequence[Sequence[int]] | None
    ) -> Float[Tensor, "Q D"]:
        """The last hidden states of new tokens, whose keys go into the slots that were just taken.

        Where the slots `seen` by each token are known and few among all, only these are read: each token has its own keys.
        """
        used = int((self.marks[2] != -2).nonzero().max()) + 1
        device = self.policy.device
        taken = torch.tensor(self.taken, device=device)
        if seen is not None and max(map(len, seen)) * self.FEW <= used:
            index, sees = _padded(seen)
            positions = self.marks[3, index]
            self.cache.write_to(taken, index.to(device), self.marks.shape[1])
        else:
            first, end, owners, positions = self.marks[:, :used]
            sees = (first <= node[:, None]) & (node[:, None] < end) | ((owners == owner[:, None]) & (owner >= 0)[:, None])
            self.cache.write_to(taken, slice(used), self.marks.shape[1])
        inputs = (x.to(device) for x in (tokens, position, sees, positions))
        return self.policy.hidden(*inputs, cache=self.cache)


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "Q W"], Bool[Tensor, "Q W"]]:
    """The rows side by side, filled up with 0, and where they are not filled up."""
    sizes = torch.tensor([len(row) for row in rows])
    there = torch.arange(int(sizes.max())) < sizes[:, None]
    index = torch.zeros(there.shape, dtype=torch.int64)
    index[there] = torch.tensor([slot for row in rows for slot in row])
    return index, there


class _SlotCache(Cache):
    """Keys and values of every layer, [1, K, slots, d], written at chosen slots and read as one."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.stored: dict[int, tuple[Tensor, Tensor]] = {}

    def write_to(self, slots: Int[Tensor, "Q"], read: slice | Int[Tensor, "Q W"], capacity: int) -> None:
        """Where the next pass writes, and which slots it reads: the same for all tokens, or for each its own."""
        self.slots, self.read, self.capacity = slots, read, capacity

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        both = self.stored.get(layer_idx)
        if both is None or both[0].shape[2] < self.capacity:
            keys, values = both or (None, None)
            both = self.stored[layer_idx] = (self._grown(keys, key_states), self._grown(values, value_states))
        for store, new in zip(both, (key_states, value_states), strict=True):
            store.index_copy_(2, self.slots, new)
        keys, values = (store[:, :, self.read] for store in both)
        if isinstance(self.read, slice):
            return keys, values
        return keys[0].transpose(0, 1), values[0].transpose(0, 1)

    def _grown(self, old: Tensor | None, new: Tensor) -> Tensor:
        out = new.new_zeros(*new.shape[:2], self.capacity, new.shape[3])
        if old is not None:
            out[:, :, : old.shape[2]] = old
        return out

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0
