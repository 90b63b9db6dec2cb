"""The embedded engine: continuous batching over a forest of prompts, on the policy's own weights.

Prompts are read as a forest: what they share is computed and stored once, in slots, each of which is seen by everything below its
node. An answer has a row of keys and values of its own behind the prompt that it shares with others. Each pass computes the last
token of all answers that are being written; a row whose answer has ended is at once the next one's.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicLayer

from quatrain.policies import CausalLM, Forest, plant
from quatrain.policies.attention import Blocks, Branches, View, Views
from quatrain.policies.linear import packed
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
        with packed(self.policy.base):
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
    written: list[int]
    """All its tokens."""
    before: int
    """How many of them were drawn before."""
    most: int
    """How many are drawn now at most."""
    logp: list[float] = field(default_factory=list)
    experts: list[Int[Tensor, "L K"]] = field(default_factory=list)
    """Those of its tokens, if they are asked for."""

    @property
    def drawn(self) -> int:
        """How many of its tokens are drawn now."""
        return len(self.logp)


class _Generation:
    """One call of `generate`: the forest of its prompts, and who is writing."""

    def __init__(self, engine: TorchEngine, requests: Sequence[Request], sampling: Sampling) -> None:
        self.engine, self.policy, self.requests, self.sampling = engine, engine.policy, requests, sampling
        self.forest: Forest = plant([request.tokens for request in requests])
        self.leaf = [int(self.forest.path[i, len(r.tokens) - 1]) for i, r in enumerate(requests)]
        self.waiting = sorted(range(len(requests)), key=lambda i: self.leaf[i], reverse=True)
        self.users = torch.zeros(len(self.forest), dtype=torch.int64)  # unfinished requests below each node
        for path in self.forest.path:
            self.users[path[path >= 0]] += 1
        self.hidden: dict[int, Tensor] = {}  # last hidden state of the leaves that are in use
        self.experts: dict[int, Int[Tensor, "L K"]] = {}  # of the forest's nodes, if they are asked for
        self.prompts = _Prompts(self.forest)
        self.rows = _Rows(min(engine.max_sequences, len(requests)), self.policy)
        self.ending = Ending(self.policy, sampling)
        self.writing: list[_Answer] = []
        """In the order of their rows."""
        self.done: dict[int, Completion] = {}

    def run(self) -> list[Completion]:
        while self.waiting or self.writing:
            hidden = [self._go_on()] if self.writing else []
            started = self._admit()
            self._read(started)
            self.writing += started
            self._extend(torch.cat(hidden + [self.hidden[answer.leaf][None] for answer in started]))
            self._retire()
        return [self.done[i] for i in range(len(self.requests))]

    def _admit(self) -> list[_Answer]:
        """Give the free places to waiting requests, neighbours in the forest first."""
        started = []
        while self.waiting and len(self.writing) + len(started) < self.engine.max_sequences:
            index = self.waiting.pop()
            request = self.requests[index]
            uniform = np.random.Generator(np.random.Philox(np.random.SeedSequence(request.seed))).random(self.sampling.max_tokens)
            before = request.tokens[len(request.tokens) - request.written :].tolist()
            most = self.sampling.max_tokens if request.most is None else request.most
            drawn = torch.from_numpy(uniform[request.written :])
            started.append(_Answer(index, self.leaf[index], len(request.tokens), drawn, before, request.written, most))
        return started

    def _read(self, started: Sequence[_Answer]) -> None:
        """Compute the nodes, parents first, that the prompts of `started` need and that are not computed."""
        need: set[int] = set()
        for answer in started:
            need.update(self._path(answer))
        nodes = torch.tensor(sorted(need - self.prompts.slot_of.keys()), dtype=torch.int64)
        leaves = {answer.leaf for answer in started}
        for some in nodes.split(self.engine.tokens_per_pass) if len(nodes) else ():
            view = self.prompts.take(some)
            hidden, chosen = self._pass(self.forest.tokens[some], self.forest.position[some], view, self.prompts)
            self.experts.update(zip(some.tolist(), chosen, strict=False))
            self.hidden.update((node, hidden[i]) for i, node in enumerate(some.tolist()) if node in leaves)

    def _go_on(self) -> Float[Tensor, "Q D"]:
        """Compute the last token of each answer; returns the last hidden states."""
        tokens = torch.tensor([answer.written[-1] for answer in self.writing])
        drawn = torch.tensor([answer.drawn for answer in self.writing])
        position = torch.tensor([answer.start for answer in self.writing]) + drawn - 1
        leaves = [answer.leaf for answer in self.writing]
        if any(leaf not in self.rows.trunk_of for leaf in leaves):
            self.rows.stand_on(self.prompts.trunks({answer.leaf: self._path(answer) for answer in self.writing}))
        view = self.rows.view(leaves, drawn, position)
        hidden, chosen = self._pass(tokens, position, view, self.rows)
        for answer, own in zip(self.writing, chosen, strict=False):
            answer.experts.append(own)
        return hidden

    def _pass(
        self, tokens: Tensor, position: Tensor, view: Views, cache: Cache
    ) -> tuple[Float[Tensor, "Q D"], Sequence[Int[Tensor, "L K"]]]:
        """The last hidden states of tokens, and the experts that were chosen for each, if these are asked for."""
        with self.policy.routed() if self.engine.tells_experts else contextlib.nullcontext() as routing:
            hidden = self.policy.hidden(tokens, position, view, cache)
        return hidden, () if routing is None else list(routing.chosen.to("cpu", torch.int16))

    def _extend(self, hidden: Float[Tensor, "R D"]) -> None:
        """Draw the next token of each answer."""
        uniform = torch.stack([answer.uniform[answer.drawn] for answer in self.writing])
        token, logp = draw(self.policy.logits(hidden), uniform.to(hidden.device), self.sampling)
        for answer, t, p in zip(self.writing, token.tolist(), logp.tolist(), strict=True):
            answer.written.append(t)
            answer.logp.append(p)

    def _retire(self) -> None:
        """Finish the answers that ended, and free what nobody needs any more."""
        for row in reversed(range(len(self.writing))):
            answer = self.writing[row]
            finish = self.ending.of(answer.written, pauses=answer.drawn >= answer.most)
            if finish is None:
                continue
            path = self._path(answer)
            self.done[answer.request] = Completion(
                torch.tensor(answer.written[answer.before :]),
                torch.tensor(answer.logp),
                self.ending.text(answer.written, finish),
                finish,
                self._experts(answer, path),
            )
            last = self.writing.pop()
            if last is not answer:  # its row is filled with the last one
                self.writing[row] = last
                self.rows.move(len(self.writing), row)
            self.users[path] -= 1
            unused = [node for node, users in zip(path, self.users[path].tolist(), strict=True) if not users]
            self.prompts.free(unused)
            if answer.leaf in unused:
                del self.hidden[answer.leaf]

    def _path(self, answer: _Answer) -> list[int]:
        """The nodes of its prompt."""
        return self.forest.path[answer.request, : answer.start].tolist()

    def _experts(self, answer: _Answer, prompt: Sequence[int]) -> Tensor | None:
        if not self.engine.tells_experts:
            return None
        known = [*(self.experts[node] for node in prompt), *answer.experts]
        return torch.stack([*known, torch.full_like(known[0], NONE)])


class _Kept(Cache):
    """Keys and values of every layer."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self.stored: dict[int, tuple[Tensor, Tensor]] = {}

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def _room(self, layer: int, new: tuple[Tensor, Tensor], rows: int, capacity: int) -> tuple[Tensor, Tensor]:
        """The stores of a layer, [rows, K, capacity, …], grown if they are too small."""
        old = self.stored.get(layer)
        if old is None or old[0].shape[2] < capacity:
            grown = tuple(x.new_zeros(rows, x.shape[1], capacity, x.shape[3]) for x in new)
            for store, before in zip(grown, old or (), strict=False):
                store[:, :, : before.shape[2]] = before
            self.stored[layer] = (grown[0], grown[1])
        return self.stored[layer]


class _Prompts(_Kept):
    """What the nodes of a forest leave behind, each in a slot, as long as somebody needs it."""

    GROWTH = 512

    def __init__(self, forest: Forest) -> None:
        super().__init__()
        self.forest = forest
        self.slot_of: dict[int, int] = {}
        self.unused: list[int] = []
        self.node = torch.empty(0, dtype=torch.int64)
        """Whose slot it is; -1 for nobody's."""

    def take(self, nodes: Int[Tensor, "Q"]) -> Views:
        """Give each of `nodes` the lowest free slot, where the next pass writes; returns what these nodes see."""
        while len(self.unused) < len(nodes):
            size = len(self.node)
            self.node = torch.cat([self.node, torch.full((self.GROWTH,), -1)])
            for slot in range(size, size + self.GROWTH):
                heapq.heappush(self.unused, slot)
        taken = [heapq.heappop(self.unused) for _ in range(len(nodes))]
        self.slot_of.update(zip(nodes.tolist(), taken, strict=True))
        self.slots = torch.tensor(taken)
        self.node[self.slots] = nodes
        forest, first = self.forest, self.node[: max(self.slot_of.values()) + 1]
        end = torch.where(first < 0, 0, forest.end[first])
        return lambda window: Blocks.of(nodes, forest.position[nodes], first, end, forest.position[first], window)

    def free(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            slot = self.slot_of.pop(node)
            self.node[slot] = -1
            heapq.heappush(self.unused, slot)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        stores = self._room(layer_idx, (key_states, value_states), 1, len(self.node))
        for store, new in zip(stores, (key_states, value_states), strict=True):
            store.index_copy_(2, self.slots.to(new.device), new)
        return stores

    def trunks(self, paths: Mapping[int, Sequence[int]]) -> _Trunks:
        """What the prompts with these leaves and paths have, side by side."""
        slots = pad_sequence([torch.tensor([self.slot_of[node] for node in path]) for path in paths.values()], batch_first=True)
        length = torch.tensor([len(path) for path in paths.values()])

        def laid(store: Tensor) -> Tensor:
            return store[0, :, slots.to(store.device)].transpose(0, 1).contiguous()

        return _Trunks(list(paths), length, {layer: (laid(k), laid(v)) for layer, (k, v) in self.stored.items()})


@dataclass(frozen=True)
class _Trunks:
    """Prompts that answers are being written to."""

    leaves: Sequence[int]
    length: Int[Tensor, "P"]
    stored: Mapping[int, tuple[Float[Tensor, "P K W d"], Float[Tensor, "P K W v"]]]


class _Rows(_Kept):
    """What answers leave behind, each in a row of its own."""

    GROWTH = 64

    def __init__(self, count: int, policy: CausalLM) -> None:
        super().__init__()
        self.count, self.device, self.whole = count, policy.device, policy.keeps_latents
        self.trunk_of: dict[int, int] = {}
        """Which of the trunks has this leaf."""

    def stand_on(self, trunks: _Trunks) -> None:
        """What comes before the rows."""
        self.trunks = trunks
        self.trunk_of = {leaf: number for number, leaf in enumerate(trunks.leaves)}

    def view(self, leaves: Sequence[int], drawn: Int[Tensor, "Q"], position: Int[Tensor, "Q"]) -> Views:
        """What the answers to these prompts see, whose tokens of the next pass are the last of those `drawn`."""
        groups: list[list[int]] = [[] for _ in self.trunk_of]
        trunk = [self.trunk_of[leaf] for leaf in leaves]
        for row, number in enumerate(trunk):
            groups[number].append(row)
        size = max(map(len, groups))
        members = torch.tensor([group + [0] * (size - len(group)) for group in groups])
        place = torch.empty(len(leaves), dtype=torch.int64)
        for number, group in enumerate(groups):
            place[group] = number * size + torch.arange(len(group))
        self.at, self.last, self.trunk = drawn - 1, int(drawn.max()), torch.tensor(trunk, device=self.device)
        width = int(self.trunks.length.max())

        def view(window: int | None) -> View:
            above = torch.arange(width) < self.trunks.length[trunk][:, None]
            own = torch.arange(self.last) < drawn[:, None]
            if window is not None:
                above &= position[:, None] - torch.arange(width) < window
                own &= self.at[:, None] - torch.arange(self.last) < window
            if self.whole:
                above, own = own[:, :0], torch.cat([above, own], 1)
            masks = (None if sees.all() else sees.to(self.device) for sees in (above, own))
            return Branches({} if self.whole else self.trunks.stored, members.to(self.device), place.to(self.device), *masks)

        return view

    def move(self, source: int, target: int) -> None:
        """Fill a row with what another has."""
        for stores in self.stored.values():
            for store in stores:
                store[target] = store[source]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        capacity = -(-self.last // self.GROWTH) * self.GROWTH
        stores = self._room(layer_idx, (key_states, value_states), self.count, capacity)
        rows, at = torch.arange(len(self.at), device=self.device), self.at.to(self.device)
        for store, new in zip(stores, (key_states, value_states), strict=True):
            store[rows, :, at] = new[0].transpose(0, 1)
        keys, values = (store[: len(rows), :, : self.last] for store in stores)
        if self.whole:
            above = (store[self.trunk] for store in self.trunks.stored[layer_idx])
            keys, values = (torch.cat(pair, 2) for pair in zip(above, (keys, values), strict=True))
        return keys, values
