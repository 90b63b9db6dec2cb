"""Noise in the layers: what it is a function of, and that nothing else of a policy has any."""

import math

import pytest
import torch
from torch import Tensor

from quatrain.policies import CausalLM, plant
from quatrain.policies.noise import nodes_of, normal
from tests.policies.families import FAMILIES, TOKENIZER, family, sequences


def hidden(policy: CausalLM, rows: list[Tensor], seed: int) -> list[Tensor]:
    """The last hidden states of each sequence, all computed together."""
    forest = plant(rows)
    with policy.noisy(forest, (seed,)), torch.no_grad():
        states = policy.hidden_of(forest)
    return [states[path[path >= 0]] for path in forest.path]


def test_normal_numbers_are_normal():
    drawn = normal(torch.arange(1000) * 7 - 99, 100)
    assert drawn.mean().item() == pytest.approx(0, abs=0.01)
    assert drawn.var().item() == pytest.approx(1, abs=0.02)
    assert (drawn.abs() > 1.959964).double().mean().item() == pytest.approx(0.05, abs=0.003)
    for other in (drawn.roll(1, 0), drawn.roll(1, 1)):
        assert (drawn * other).mean().item() == pytest.approx(0, abs=0.01)


def test_a_number_is_of_the_seed_and_the_tokens_so_far():
    """Whatever forest a node is in; another order of the same tokens, another token and another seed have others."""
    rows = [torch.tensor(r) for r in ([5, 6, 7], [5, 6, 8], [6, 5, 7])]
    whole = plant(rows)
    found = nodes_of(whole, (1, 2))
    assert len(set(found.tolist())) == len(whole) == 7
    assert not set(found.tolist()) & set(nodes_of(whole, (1, 3)).tolist())
    for row, path in zip(rows, whole.path, strict=True):
        assert torch.equal(nodes_of(plant([row]), (1, 2)), found[path])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_same_noise_however_it_is_computed(name: str):
    policy = CausalLM(family(name), TOKENIZER, noise=0.3)
    rows = sequences()
    plain = [torch.cat(hidden(CausalLM(family(name), TOKENIZER), rows, 1))]
    together = hidden(policy, rows, 1)
    for row, state in zip(rows, together, strict=True):
        torch.testing.assert_close(hidden(policy, [row], 1)[0], state, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(together, hidden(policy, rows, 1), strict=True))
    moved = torch.cat(together) - plain[0]
    assert moved.norm() > 0.01 * plain[0].norm()
    assert not torch.allclose(torch.cat(hidden(policy, rows, 2)), torch.cat(together), rtol=1e-3)
    forest = plant(rows)
    with torch.no_grad():
        bare = policy.hidden_of(forest)
    torch.testing.assert_close(torch.cat([bare[p[p >= 0]] for p in forest.path]), plain[0], rtol=0, atol=0)


def test_each_layer_has_as_much_as_it_says():
    policy = CausalLM(family("llama", torch.float64), TOKENIZER, noise=0.3)
    assert policy.noise is not None
    assert policy.noise.log_sigma.tolist() == pytest.approx([math.log(0.3)] * 2)
    forest = plant(sequences())
    nodes = nodes_of(forest, (1,))
    zeros = torch.zeros(1, len(forest), policy.width)
    first, second = (policy.noise(zeros, layer, nodes) for layer in (0, 1))
    assert first.std().item() == pytest.approx(0.3, rel=0.05)
    assert (first * second).mean().abs().item() < 0.01
    with torch.no_grad():
        policy.noise.log_sigma[1] -= math.log(3)
    torch.testing.assert_close(policy.noise(zeros, 1, nodes), second / 3)
    assert torch.equal(policy.noise(zeros, 0, nodes), first)
