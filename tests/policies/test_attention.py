"""Attention in blocks and behind shared prompts against the whole matrix of scores."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from quatrain.policies import Forest, attention, plant
from quatrain.policies.attention import Blocks, Branches, Descent, Flexed

HEADS, SHARED, WIDTH = 6, 2, 4
CPU = torch.device("cpu")


def plain(query: Tensor, key: Tensor, value: Tensor, sees: Tensor, scaling: float) -> Tensor:
    """softmax(q·k·scaling)·v for each head, [1, Q, H, v]."""
    key, value = (x.repeat_interleave(HEADS // SHARED, 1) for x in (key, value))
    scores = (query @ key.mT * scaling).masked_fill(~sees, -torch.inf)
    return (torch.softmax(scores, -1) @ value).transpose(1, 2)


def random_forest(seed: int, groups: int = 3) -> Forest:
    """Prompts of one root or several, with branches of different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def some(low: int, high: int) -> Tensor:
        return torch.randint(0, 9, (int(torch.randint(low, high, (), generator=generator)),), generator=generator)

    root = some(0, 4)
    prompts = [torch.cat([root, some(1, 12)]) for _ in range(groups)]
    return plant([torch.cat([prompt, some(1, 30)]) for prompt in prompts for _ in range(5)])


def random_states(queries: int, keys: int, seed: int, rows: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((1, HEADS, queries, WIDTH), (rows, SHARED, keys, WIDTH), (rows, SHARED, keys, WIDTH + 1))
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True) for size in sizes)  # type: ignore


@pytest.mark.parametrize("rows", [1, 3, 16, 64, 1000])
@pytest.mark.parametrize("window", [None, 1, 5, 100])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_are_the_whole_matrix(rows: int, window: int | None, seed: int, monkeypatch: pytest.MonkeyPatch):
    """Outputs, and the gradients of queries, keys and values."""
    monkeypatch.setattr(attention, "ROWS", rows)
    forest = random_forest(seed)
    inputs = random_states(len(forest), len(forest), seed)
    sees = forest.sees()
    if window is not None:
        sees = sees & (forest.position[:, None] - forest.position < window)
    expected = plain(*inputs, sees, 0.3)
    found = forest.view(CPU, window).attend(0, *inputs, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    for left, right in zip(*(torch.autograd.grad((out * weight).sum(), inputs) for out in (found, expected)), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("part", [slice(None), slice(7, 90)], ids=["all", "some"])
@torch.no_grad()
def test_the_kernel_of_gpus_is_the_whole_matrix(window: int | None, part: slice):
    """As it is before it is compiled, which has no gradient on a CPU; of some queries, the keys being in another order."""
    forest = random_forest(0)
    node = torch.arange(len(forest))[part]
    order = torch.randperm(len(forest), generator=torch.Generator().manual_seed(1))
    descent = Descent(node, forest.position[node], order, forest.end[order], forest.position[order], window)
    sees = forest.sees(node)
    if window is not None:
        sees = sees & (forest.position[node, None] - forest.position < window)
    query, key, value = (x.float() for x in random_states(len(node), len(forest), 0))
    expected = plain(query, key, value, sees[:, order], 0.3)
    for view in (Flexed.of(descent, CPU), Blocks.of(descent, CPU)):
        torch.testing.assert_close(view.attend(0, query, key, value, 0.3), expected, rtol=1e-5, atol=1e-5)


def test_blocks_read_few_keys(monkeypatch: pytest.MonkeyPatch):
    """A prompt and its own tokens, and not what other prompts have."""
    monkeypatch.setattr(attention, "ROWS", 32)
    forest = plant([torch.cat([torch.arange(50) + 100 * p, torch.full((30,), a)]) for p in range(20) for a in range(8)])
    blocks = forest.view(CPU)
    assert isinstance(blocks, Blocks)
    assert len(forest) == 20 * (50 + 8 * 30)
    assert blocks.keys.shape[1] <= 50 + 2 * 32


@given(
    prompts=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    answers=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 8)), min_size=1, max_size=6),
    window=st.sampled_from([None, 1, 4, 50]),
)
def test_branches_are_the_whole_matrix(prompts: list[int], answers: list[tuple[int, int]], window: int | None):
    """Answers of different lengths to prompts of different lengths."""
    trunk = torch.tensor([prompt % len(prompts) for prompt, _ in answers])
    own, above = torch.tensor([length for _, length in answers]), torch.tensor(prompts)[trunk]
    width, most = max(prompts), int(own.max())
    query, key, value = random_states(len(answers), most, 1, rows=len(answers))
    _, trunk_key, trunk_value = random_states(1, width, 2, rows=len(prompts))
    sees_above = torch.arange(width) < above[:, None]
    sees_own = torch.arange(most) < own[:, None]
    if window is not None:
        sees_above &= (above + own - 1)[:, None] - torch.arange(width) < window
        sees_own &= (own - 1)[:, None] - torch.arange(most) < window
    expected = [
        plain(
            query[:, :, [row]],
            torch.cat([trunk_key[trunk[row]], key[row]], 1)[None],
            torch.cat([trunk_value[trunk[row]], value[row]], 1)[None],
            torch.cat([sees_above[row], sees_own[row]]),
            0.3,
        )
        for row in range(len(answers))
    ]
    groups = [(trunk == prompt).nonzero()[:, 0].tolist() for prompt in range(len(prompts))]
    size = max(map(len, groups))
    members = torch.tensor([group + [0] * (size - len(group)) for group in groups])
    place = torch.tensor([int(trunk[row]) * size + groups[int(trunk[row])].index(row) for row in range(len(answers))])
    stored = {3: (trunk_key.detach(), trunk_value.detach())}
    sees = torch.cat([sees_above, sees_own], 1)
    seen = None if sees.all() else sees
    found = Branches(stored, members, place, seen).attend(3, query, key, value, 0.3)
    torch.testing.assert_close(found, torch.cat(expected, 1), rtol=1e-10, atol=1e-10)
    whole = Branches({}, members, place, seen)
    both = (torch.cat([stored[trunk], mine], 2) for stored, mine in ((trunk_key, key), (trunk_value, value)))
    torch.testing.assert_close(whole.attend(3, query, *both, 0.3), torch.cat(expected, 1), rtol=1e-10, atol=1e-10)
