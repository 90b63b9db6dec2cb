"""What generation keeps: keys and values of prompts in slots, and of answers in rows, which is where these are written.

Where an answer stands is known on the device, so that many tokens are drawn in a row before anybody asks which; and a step is the
same work on the same memory until the rows are others, so that it can be captured once and launched whole.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache, DynamicLayer

from quatrain.policies import CausalLM, Forest
from quatrain.policies.attention import Branches, Descent, View, Views
from quatrain.rollouts.sampling import Sampling, draw

Step = Callable[[], object]
Capture = Callable[[Step], Step]
"""What makes of a step one that does the same to the same memory, without carrying it out."""


def captured(step: Step) -> Step:
    """A step as a graph of CUDA kernels, which are launched at once."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


class Kept(Cache):
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


class Prompts(Kept):
    """What the nodes of a forest leave behind, each in a slot, as long as somebody needs it."""

    GROWTH = 512

    def __init__(self, forest: Forest, device: torch.device) -> None:
        super().__init__()
        self.forest, self.device = forest, device
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
        seen = nodes, forest.position[nodes], first, end, forest.position[first]
        return lambda window: Descent(*seen, window).view(self.device)

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

    def trunks(self, paths: Mapping[int, Sequence[int]]) -> Trunks:
        """What the prompts with these leaves and paths have, side by side."""
        slots = pad_sequence([torch.tensor([self.slot_of[node] for node in path]) for path in paths.values()], batch_first=True)
        length = torch.tensor([len(path) for path in paths.values()])

        def laid(store: Tensor) -> Tensor:
            return store[0, :, slots.to(store.device)].transpose(0, 1).contiguous()

        return Trunks(list(paths), length, {layer: (laid(k), laid(v)) for layer, (k, v) in self.stored.items()})


@dataclass(frozen=True)
class Trunks:
    """Prompts that answers are being written to."""

    leaves: Sequence[int]
    length: Int[Tensor, "P"]
    stored: Mapping[int, tuple[Float[Tensor, "P K W d"], Float[Tensor, "P K W v"]]]


class Rows(Kept):
    """The answers that are being written, each in a row: what it leaves behind, what is drawn, and with what."""

    GROWTH = 64

    def __init__(
        self,
        count: int,
        policy: CausalLM,
        sampling: Sampling,
        *,
        spare: int = 1,
        capture: Capture | None = None,
        tells_experts: bool = False,
    ) -> None:
        """Start empty.

        Args:
            count: how many there can be.
            spare: how many tokens can be drawn beyond the end of an answer, before anybody looks.
            capture: what makes a step repeatable; None takes each step anew.
            tells_experts: whether the experts of each step are kept in `chosen`.
        """
        super().__init__()
        self.count, self.policy, self.sampling, self.capture = count, policy, sampling, capture
        self.device, self.latent = policy.device, policy.keeps_latents
        self.tells_experts = tells_experts
        self.used = 0
        """Rows from the first on in which something is written."""
        self.longest = 0
        """Most tokens drawn in one of them."""
        width = sampling.max_tokens + spare
        self.start, self.drawn = (torch.zeros(count, dtype=torch.int64, device=self.device) for _ in range(2))
        """Where the first token that is drawn stands in its sequence, and how many are."""
        self.uniform = torch.zeros(count, width, dtype=torch.float64, device=self.device)
        self.tokens = torch.zeros(count, width, dtype=torch.int64, device=self.device)
        self.logp = torch.zeros(count, width, dtype=torch.float64, device=self.device)
        self.chosen: list[Int[Tensor, "R L K"]] = []
        self.trunk_of: dict[int, int] = {}
        """Which of the trunks has this leaf."""
        self.last = 0
        """How many keys of each row the next step sees, or those that none has yet beside them, where it is repeated."""
        self.repeat: Step | None = None

    def add(self, start: Sequence[int], uniform: Sequence[Tensor], hidden: Float[Tensor, "S D"]) -> None:
        """Take S rows more, and draw the first token of each from its prompt's last hidden state."""
        new = slice(self.used, self.used + len(start))
        self.used += len(start)
        self.start[new] = torch.tensor(start, device=self.device)
        self.drawn[new] = 0
        drawing = pad_sequence(list(uniform), batch_first=True)
        self.uniform[new, : drawing.shape[1]] = drawing.to(self.device)
        self._draw(new, hidden)

    def drop(self, rows: Collection[int]) -> list[int]:
        """Give rows up, and fill them with the last ones; returns which row each one now is."""
        now = list(range(self.used - len(rows)))
        moved = [row for row in range(len(now), self.used) if row not in rows]
        holes = [row for row in now if row in rows]
        self.used = len(now)
        if holes:
            stored = (store for stores in self.stored.values() for store in stores)
            source, target = (torch.tensor(some, device=self.device) for some in (moved, holes))
            for x in (self.start, self.drawn, self.uniform, self.tokens, self.logp, *stored):
                x[target] = x[source]
            for hole, row in zip(holes, moved, strict=True):
                now[hole] = row
        return now

    def stand_on(self, trunks: Trunks) -> None:
        """What comes before the rows."""
        self.trunks = trunks
        self.trunk_of = {leaf: number for number, leaf in enumerate(trunks.leaves)}

    def arrange(self, leaves: Sequence[int], drawn: Sequence[int]) -> None:
        """Say to which prompt each row's answer is, and how much of it there is: after any of `add`, `drop` and `stand_on`."""
        groups: list[list[int]] = [[] for _ in self.trunk_of]
        trunk = [self.trunk_of[leaf] for leaf in leaves]
        for row, number in enumerate(trunk):
            groups[number].append(row)
        size = max(map(len, groups))
        members = torch.tensor([group + [0] * (size - len(group)) for group in groups])
        place = torch.empty(len(leaves), dtype=torch.int64)
        for number, group in enumerate(groups):
            place[group] = number * size + torch.arange(len(group))
        length = self.trunks.length[trunk]
        self.width = int(self.trunks.length.max())
        below = torch.arange(self.width) < length[:, None]
        self.members, self.place, self.trunk = (x.to(self.device) for x in (members, place, torch.tensor(trunk)))
        self.above = None if below.all() and not self.latent else below.to(self.device)
        self.row = torch.arange(self.used, device=self.device)
        self.longest, self.even = max(drawn), len(set(drawn)) == 1 and not self.latent and self.capture is None
        self.repeat = None

    def write(self, steps: int) -> None:
        """Draw `steps` tokens more in each row, whatever they are."""
        for _ in range(steps):
            last = self.longest if self.capture is None else self._grown(self.longest)
            if self.repeat is None or last != self.last:
                self.last = last
                self._step()
                self.repeat = None if self.capture is None else self.capture(self._step)
            else:
                self.repeat()
            self.longest += 1

    def read(self, count: int, steps: int) -> tuple[list[list[int]], list[list[float]], Sequence[Int[Tensor, "R L K"]]]:
        """The tokens that the last `count` rows drew in the last `steps`, their log-probabilities, and each step's experts."""
        rows = slice(self.used - count, self.used)
        index = self.drawn[rows, None] - steps + self._to(steps)
        chosen, self.chosen = [each.to("cpu", torch.int16) for each in self.chosen], []
        return self.tokens[rows].gather(1, index).tolist(), self.logp[rows].gather(1, index).tolist(), chosen

    def _step(self) -> None:
        """Compute the last token of each row, and draw the next one."""
        rows = slice(self.used)
        self.at = self.drawn[rows] - 1
        token = self.tokens[rows].gather(1, self.at[:, None])[:, 0]
        position = (self.start[rows] + self.at).clamp(max=self.policy.context - 1)  # it is beyond it only where nobody will look
        with self.policy.routed() if self.tells_experts else contextlib.nullcontext() as routing:
            hidden = self.policy.hidden(token, position, lambda window: self._view(window, position), self)
        if routing is not None:
            self.chosen.append(routing.chosen)
        self._draw(rows, hidden)

    def _draw(self, rows: slice, hidden: Float[Tensor, "R D"]) -> None:
        place = self.drawn[rows, None]
        token, logp = draw(self.policy.logits(hidden), self.uniform[rows].gather(1, place)[:, 0], self.sampling)
        self.tokens[rows].scatter_(1, place, token[:, None])
        self.logp[rows].scatter_(1, place, logp[:, None].double())
        self.drawn[rows] += 1

    def _view(self, window: int | None, position: Int[Tensor, "R"]) -> View:
        above, own = self.above, None if self.even else self._to(self.last) <= self.at[:, None]
        if window is not None:
            near = position[:, None] - self._to(self.width) < window
            above = near if above is None else above & near
            near = self.at[:, None] - self._to(self.last) < window
            own = near if own is None else own & near
        seen = None
        if above is not None or own is not None:
            every = torch.ones(self.used, self.width + self.last, dtype=torch.bool, device=self.device)
            above, own = every[:, : self.width] if above is None else above, every[:, self.width :] if own is None else own
            seen = torch.cat([above, own], 1)
        return Branches({} if self.latent else self.trunks.stored, self.members, self.place, seen)

    def _grown(self, length: int) -> int:
        """Keys that there is room for in a row that has so many."""
        return -(-length // self.GROWTH) * self.GROWTH

    def _to(self, end: int) -> Int[Tensor, "n"]:
        return torch.arange(end, device=self.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        stores = self._room(layer_idx, (key_states, value_states), self.count, self._grown(self.last))
        place = (slice(self.used), slice(None), self.last - 1) if self.even else (self.row, slice(None), self.at)
        for store, new in zip(stores, (key_states, value_states), strict=True):
            store[place] = new[0].transpose(0, 1)
        keys, values = (store[: self.used, :, : self.last] for store in stores)
        if self.latent:
            above = (store[self.trunk] for store in self.trunks.stored[layer_idx])
            keys, values = (torch.cat(pair, 2) for pair in zip(above, (keys, values), strict=True))
        return keys, values
