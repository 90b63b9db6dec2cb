"""Sequences as a forest: what several of them share at their beginning is one path, and is computed once.

Token sequences are sorted, so that a sequence shares its longest prefix with its neighbour, and their distinct prefixes become
nodes, numbered in depth-first order. The descendants of a node are then a range of numbers, [node, end), and "sees" is one
comparison: node i attends to node j when j ≤ i < end[j].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from quatrain.policies.attention import Descent, View


@dataclass(frozen=True)
class Forest:
    """N nodes for the distinct prefixes of B sequences. All arrays are on the CPU."""

    tokens: Int[Tensor, "N"]
    parent: Int[Tensor, "N"]
    """The node before; -1 for the first token of a sequence."""
    position: Int[Tensor, "N"]
    """How many tokens come before."""
    end: Int[Tensor, "N"]
    """One past the last descendant."""
    path: Int[Tensor, "B T"]
    """The node of each token of each sequence, in the order given; -1 for padding."""

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, value: Shaped[Tensor, "B T *rest"]) -> Shaped[Tensor, "N *rest"]:
        """What `value` says of each node; of a token that several sequences share, what it says in the first of them."""
        rows = torch.arange(len(self.path))[:, None].expand(self.path.shape)
        there = self.path >= 0
        first = torch.full((len(self),), len(self.path)).scatter_reduce(0, self.path[there], rows[there], "amin")
        return value[first.to(value.device), self.position.to(value.device)]

    def of(self, sequences: Int[Tensor, "K"]) -> Forest:
        """With the paths of some of the sequences alone; the nodes stay."""
        return replace(self, path=self.path[sequences])

    def view(self, device: torch.device, window: int | None = None) -> View:
        """How the nodes attend to each other: each to itself and its ancestors, at most `window` positions back."""
        every = torch.arange(len(self))
        return Descent(every, self.position, every, self.end, self.position, window).view(device)

    def sees(self, nodes: Int[Tensor, "Q"] | None = None) -> Bool[Tensor, "Q N"]:
        """True where the node of the row, each or one of `nodes`, attends to that of the column: itself and its ancestors."""
        every = torch.arange(len(self))
        row = every if nodes is None else nodes
        return (every[None, :] <= row[:, None]) & (row[:, None] < self.end[None, :])


def plant(sequences: Sequence[Int[Tensor, "_"]]) -> Forest:
    """The forest of `sequences`."""
    rows = [np.asarray(s, dtype=np.int64) for s in sequences]
    width = max(map(len, rows), default=0)
    path = np.full((len(rows), width), -1, dtype=np.int64)
    size = sum(map(len, rows))
    tokens, parent, position, end = (np.empty(size, dtype=np.int64) for _ in range(4))
    count, open_path = 0, np.empty(0, dtype=np.int64)
    for row, shared in _with_shared_prefix(rows):
        new = len(rows[row]) - shared
        end[open_path[shared:]] = count
        fresh = np.arange(count, count + new)
        open_path = np.concatenate([open_path[:shared], fresh])
        tokens[fresh] = rows[row][shared:]
        position[fresh] = np.arange(shared, shared + new)
        parent[fresh] = np.concatenate([open_path[shared - 1 : shared] if shared else [-1], fresh[:-1]])[:new]
        path[row, : len(open_path)] = open_path
        count += new
    end[open_path] = count
    nodes = [torch.from_numpy(x[:count].copy()) for x in (tokens, parent, position, end)]
    return Forest(*nodes, path=torch.from_numpy(path))


def partition(sequences: Sequence[Int[Tensor, "_"]], budget: int, groups: Sequence[int] | None = None) -> list[Int[Tensor, "_"]]:
    """The indices of `sequences` in parts whose forests have at most `budget` nodes; a longer single sequence is a part alone.

    With `groups` (one number for each sequence) those of one group stay together, and a larger group is a part alone.
    """
    rows = [np.asarray(s, dtype=np.int64) for s in sequences]
    if groups is not None:
        return _partition_groups(rows, budget, groups)
    parts: list[list[int]] = []
    used = budget + 1
    for row, shared in _with_shared_prefix(rows):
        if used + len(rows[row]) - shared > budget:
            parts.append([])
            used = shared = 0
        parts[-1].append(row)
        used += len(rows[row]) - shared
    return [torch.tensor(part) for part in parts]


def _partition_groups(rows: Sequence[np.ndarray], budget: int, groups: Sequence[int]) -> list[Int[Tensor, "_"]]:
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    parts: list[list[int]] = []
    used = budget + 1
    for some in members.values():
        of_group = [rows[row] for row in some]
        size = sum(len(of_group[row]) - shared for row, shared in _with_shared_prefix(of_group))
        if used + size > budget:
            parts.append([])
            used = 0
        parts[-1].extend(some)
        used += size
    return [torch.tensor(part) for part in parts]


def _with_shared_prefix(rows: Sequence[np.ndarray]) -> Iterator[tuple[int, int]]:
    """The rows in sorted order, each with the number of tokens that it shares with the one before."""
    order = sorted(range(len(rows)), key=lambda row: rows[row].tolist())
    before = np.empty(0, dtype=np.int64)
    for row in order:
        width = min(len(before), len(rows[row]))
        different = np.flatnonzero(before[:width] != rows[row][:width])
        yield row, int(different[0]) if len(different) else width
        before = rows[row]
