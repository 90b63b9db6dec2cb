"""A forest against the plain definition: the set of all distinct prefixes."""

from itertools import pairwise

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from quatrain.policies import Forest, partition, plant

FEW_TOKENS = st.lists(st.lists(st.integers(0, 2), max_size=7), max_size=9)
"""Three tokens and short sequences: most of them share something, repeat, or are prefixes of one another, and some are empty."""


def tensors(sequences: list[list[int]]) -> list[torch.Tensor]:
    return [torch.tensor(s, dtype=torch.int64) for s in sequences]


def prefix_of(forest: Forest, node: int) -> tuple[int, ...]:
    """The tokens from a root down to `node`, by following parents."""
    out: list[int] = []
    while node >= 0:
        out.insert(0, int(forest.tokens[node]))
        node = int(forest.parent[node])
    return tuple(out)


def prefixes(sequences: list[list[int]]) -> set[tuple[int, ...]]:
    """The nodes of a trie."""
    return {tuple(s[: n + 1]) for s in sequences for n in range(len(s))}


@given(sequences=FEW_TOKENS)
@example(sequences=[])
@example(sequences=[[]])
@example(sequences=[[], [1], []])
@example(sequences=[[1]])
@example(sequences=[[1, 2], [1, 2], [1], [1, 2, 0]])
def test_nodes_are_the_distinct_prefixes(sequences: list[list[int]]):
    forest = plant(tensors(sequences))
    nodes = [prefix_of(forest, i) for i in range(len(forest))]
    assert set(nodes) == prefixes(sequences)
    assert len(nodes) == len(set(nodes))
    assert forest.position.tolist() == [len(prefix) - 1 for prefix in nodes]


@given(sequences=FEW_TOKENS)
@example(sequences=[[1, 2], [1, 2], [1], [1, 2, 0]])
def test_sees_is_the_ancestor_relation(sequences: list[list[int]]):
    forest = plant(tensors(sequences))
    nodes = [prefix_of(forest, i) for i in range(len(forest))]
    expected = [[row[: len(column)] == column for column in nodes] for row in nodes]
    assert forest.sees().tolist() == expected


@given(sequences=FEW_TOKENS)
@example(sequences=[])
@example(sequences=[[], [1], []])
def test_paths_spell_the_sequences(sequences: list[list[int]]):
    forest = plant(tensors(sequences))
    assert forest.path.shape == (len(sequences), max(map(len, sequences), default=0))
    for sequence, path in zip(sequences, forest.path.tolist(), strict=True):
        nodes = path[: len(sequence)]
        assert [int(forest.tokens[node]) for node in nodes] == sequence
        assert [int(forest.parent[node]) for node in nodes] == [-1, *nodes[:-1]][: len(sequence)]
        assert set(path[len(sequence) :]) <= {-1}


@given(sequences=FEW_TOKENS)
def test_parents_come_first(sequences: list[list[int]]):
    """The engine computes nodes in their order."""
    forest = plant(tensors(sequences))
    assert (forest.parent < torch.arange(len(forest))).all()


@given(sequences=FEW_TOKENS, budget=st.integers(1, 12))
@example(sequences=[], budget=1)
@example(sequences=[[]], budget=1)
@example(sequences=[[1, 1, 1], [1, 1, 1]], budget=2)
def test_parts_hold_every_row_once_within_the_budget(sequences: list[list[int]], budget: int):
    parts = partition(tensors(sequences), budget)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(len(sequences)))
    for part in parts:
        assert len(part)
        assert len(prefixes([sequences[row] for row in part])) <= budget or len(part) == 1


@given(sequences=FEW_TOKENS, budget=st.integers(1, 12))
def test_no_part_ends_before_it_must(sequences: list[list[int]], budget: int):
    parts = partition(tensors(sequences), budget)
    for part, following in pairwise(parts):
        together = [sequences[row] for row in [*part.tolist(), int(following[0])]]
        assert len(prefixes(together)) > budget


def test_long_shared_beginnings_count_once():
    prompt = list(range(1000))
    sequences = tensors([[*prompt, i] for i in range(50)])
    assert len(plant(sequences)) == 1050
    assert len(partition(sequences, 1050)) == 1
    assert len(partition(sequences, 1049)) == 2
