"""Drawing against the definition of each truncation, written with lists."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quatrain.rollouts import Sampling
from quatrain.rollouts.sampling import draw

GRID = 20_000
LOGITS = st.lists(st.integers(-64, 64).map(lambda n: n / 32), min_size=1, max_size=7, unique=True)
"""Far enough apart to be in one order also after exp."""


def distribution(logits: list[float], sampling: Sampling) -> list[float]:
    """softmax(logits/τ), renormalized over the top-k, and then over the smallest set of top tokens whose mass reaches top-p."""
    mass = [math.exp(x / sampling.temperature) for x in logits]
    order = sorted(range(len(mass)), key=lambda i: -mass[i])
    order = order[: sampling.top_k or None]
    total, reached, kept = sum(mass[i] for i in order), 0.0, []
    for i in order:
        if kept and reached / total >= sampling.top_p:
            break
        kept.append(i)
        reached += mass[i]
    return [mass[i] / reached if i in kept else 0.0 for i in range(len(mass))]


def draw_many(logits: list[float], uniform: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.tensor([logits], dtype=torch.float64).expand(len(uniform), -1)
    return draw(rows, uniform, sampling)


@given(
    logits=LOGITS,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.integers(0, 8),
    top_p=st.sampled_from([1e-9, 0.31, 0.77, 1.0]),
)
def test_frequencies_and_log_probabilities_are_those_of_the_distribution(logits, temperature, top_k, top_p):
    """Evenly spaced uniforms fall to each token in proportion to its probability, to within one of them."""
    sampling = Sampling(8, temperature=temperature, top_k=top_k, top_p=top_p)
    uniform = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    token, logp = draw_many(logits, uniform, sampling)
    expected = torch.tensor(distribution(logits, sampling), dtype=torch.float64)
    counts = torch.bincount(token, minlength=len(logits))
    assert (counts - GRID * expected).abs().max() <= 1
    assert ((counts > 0) == (expected > 0)).all()  # no probability is so small that the grid would miss it
    torch.testing.assert_close(logp, expected.log()[token], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.39, {2}), (0.41, {2, 0}), (0.69, {2, 0}), (0.71, {2, 0, 3}), (0.91, {0, 1, 2, 3}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_by_hand(top_p: float, kept: set[int]):
    logits = torch.tensor([0.3, 0.1, 0.4, 0.2], dtype=torch.float64).log().tolist()
    token, _ = draw_many(logits, torch.linspace(0, 0.9999, 1000, dtype=torch.float64), Sampling(8, top_p=top_p))
    assert set(token.tolist()) == kept


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_top_k_keeps_exactly_k_of_equal_logits(top_k: int):
    token, logp = draw_many([1.0] * 5, torch.linspace(0, 0.9999, 1000, dtype=torch.float64), Sampling(8, top_k=top_k))
    assert len(token.unique()) == top_k
    torch.testing.assert_close(logp, torch.full_like(logp, -math.log(top_k)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_the_interval_fall_to_tokens_that_may_be_drawn(dtype: torch.dtype):
    """The first and the last tokens of the vocabulary are excluded, so that an index one off would be seen."""
    logits = torch.full((2, 1000), -30.0, dtype=dtype)
    logits[:, 400:500] = torch.linspace(0, 1, 100, dtype=dtype)
    token, logp = draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), Sampling(8, top_k=100))
    assert token.tolist() == [400, 499]
    assert logp.isfinite().all()


def test_temperature_zero_takes_the_most_probable_and_tells_its_probability():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0]])
    token, logp = draw(logits, torch.tensor([0.999, 0.999]), Sampling(8, temperature=0, top_k=2, top_p=0.5))
    assert token.tolist() == [1, 0]
    torch.testing.assert_close(logp, torch.log_softmax(logits, -1)[[0, 1], [1, 0]])


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_large_vocabulary_is_inverted_as_a_whole(size: int, dtype: torch.dtype):
    """The token is the first whose cumulative probability exceeds u, to the rounding of a single one."""
    generator = torch.Generator().manual_seed(size)
    logits = 3 * torch.randn(500, size, generator=generator, dtype=dtype)
    logits[:, torch.randperm(size, generator=generator)[: size // 3]] = -torch.inf
    uniform = torch.rand(500, generator=generator, dtype=torch.float64)
    token, logp = draw(logits, uniform, Sampling(8))
    exact = torch.softmax(logits.double(), -1)
    above = exact.cumsum(-1).gather(1, token[:, None])[:, 0]
    own = exact.gather(1, token[:, None])[:, 0]
    assert (own > 0).all()
    assert (above > uniform - 1e-6).all()
    assert (above - own < uniform + 1e-6).all()
    torch.testing.assert_close(logp, own.log().to(dtype), rtol=1e-5, atol=1e-5)
