"""Engines that have the policy's weights in another precision."""

import pytest
import torch

from quatrain.config import LoraConfig
from quatrain.policies import CausalLM
from quatrain.rollouts import Request, Sampling, TorchEngine
from quatrain.rollouts.precision import rounded
from tests.policies.families import TOKENIZER, family

REQUESTS = [Request(torch.arange(3, 9), (0, member)) for member in range(8)]


def policy(**changes) -> CausalLM:
    return CausalLM(family("llama"), TOKENIZER, **changes)


def test_eight_bits_are_255_steps_of_each_output():
    weight = torch.tensor([[127.0, 0.4, -0.6, 63.5], [0.0, 0.0, 0.0, 0.0], [-1.27, 0.014, 0.016, 1.0]])
    assert rounded(weight, 8)[0].tolist() == [127, 0, -1, 64]
    assert rounded(weight, 8)[1].tolist() == [0] * 4
    torch.testing.assert_close(rounded(weight, 8)[2], torch.tensor([-1.27, 0.01, 0.02, 1.0]))
    assert torch.equal(rounded(rounded(weight, 8), 8), rounded(weight, 8))
    assert rounded(torch.tensor([[7.0, 0.6, -1.4]]), 4).tolist() == [[7, 1, -1]]


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["whole", "lora"])
@pytest.mark.parametrize(("weights", "most"), [("bfloat16", 0.1), ("int8", 0.1), ("int4", 2.0)])
def test_it_acts_otherwise_by_a_little_and_leaves_the_policy_as_it_is(weights, most, lora):
    own = policy(lora=lora)
    before = {name: p.clone() for name, p in own.base.named_parameters()}
    exact, other = (TorchEngine(own, weights=w).generate(REQUESTS, Sampling(12)) for w in ("same", weights))
    same = [(a.logp[0], b.logp[0]) for a, b in zip(exact, other, strict=True) if a.tokens[0] == b.tokens[0]]
    gap = torch.tensor(same).diff().abs().mean()
    assert 1e-6 < gap < most
    assert all(torch.equal(p, before[name]) for name, p in own.base.named_parameters())
    assert all(p.requires_grad for _, p in own.named_parameters())


@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4"])
def test_it_follows_the_policy(weights):
    learned = policy()
    engine = TorchEngine(learned, weights=weights)
    first = engine.generate(REQUESTS, Sampling(12))
    with torch.no_grad():
        for _, p in learned.named_parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    second, fresh = (
        engine.generate(REQUESTS, Sampling(12)),
        TorchEngine(learned, weights=weights).generate(REQUESTS, Sampling(12)),
    )
    assert [c.tokens.tolist() for c in second] == [c.tokens.tolist() for c in fresh]
    assert [c.logp.tolist() for c in second] == [c.logp.tolist() for c in fresh]
    assert [c.logp.tolist() for c in second] != [c.logp.tolist() for c in first]
