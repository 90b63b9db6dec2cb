"""The share of a gradient that is signal, and the learning rate that follows it."""

import json

import numpy as np
import pytest
import torch

from quatrain.types import Batch, Origin
from quatrain.update.signal import Signal
from tests.update.plain import Plain, batch, error, gradient_of, learner, policy


def answers(seed: int = 0) -> Batch:
    """The policy's own, of three prompts, which three parts divide."""
    whole = batch(seed)
    assert whole.tokens is not None and whole.origin is not None and whole.action is not None
    own = whole.rows(((whole.origin == Origin.POLICY.code) & whole.action.any(1)).nonzero()[:, 0])
    return own.replace(logp_old=torch.zeros(own.tokens.shape))  # the update's own forward pass replaces it


@pytest.mark.parametrize("tokens_per_pass", [30, 1000])
@pytest.mark.parametrize("name", ["dr_grpo", "rloo", "bnpo"])
def test_parts_sum_to_the_gradient(name: str, tokens_per_pass: int):
    """`bnpo` scales by the whole minibatch, so that one part cannot be weighed without the others."""
    ours, batch = policy(), answers()
    learning = learner(ours, name, tokens_per_pass=tokens_per_pass)
    parts = learner(ours, name, tokens_per_pass=tokens_per_pass, snr_parts=3)
    before = gradient_of(learning, batch)
    for _, p in ours.named_parameters():
        p.grad = None
    parts.gradient(parts.method.bind(batch), parts.signal)
    assert error({name: p.grad for name, p in ours.named_parameters() if p.grad is not None}, before) < 1e-6


def test_the_share_is_that_of_the_parts_own_gradients():
    """Each group's part of the mean over answers, from autograd through the published loss."""
    ours, batch = policy(), answers()
    assert batch.prompt_id is not None
    plain = Plain.of(ours)
    gradients = []
    for group in torch.unique(batch.prompt_id):
        own = batch.rows((batch.prompt_id == group).nonzero()[:, 0])
        found = plain.gradient("dr_grpo", own, on_policy=True)
        gradients.append(own.size / batch.size * torch.cat([g.flatten() for g in found.values()]))
    g = torch.stack(gradients)
    variance = 3 * g.var(0, unbiased=True).sum().item()  # of a sum of three
    learning = learner(ours, "dr_grpo", snr_parts=3)
    assert learning.signal is not None
    learning.gradient(learning.method.bind(batch), learning.signal)
    assert learning.signal.power == pytest.approx(g.sum(0).square().sum().item(), rel=1e-6)
    assert learning.signal.variance == pytest.approx(variance, rel=1e-6)


def test_the_share_of_known_signal_and_noise():
    """Gradients of which the mean has length 2 and each of four parts' noise a variance of 4: 4 / (4 + 16)."""
    rng = np.random.default_rng(0)
    p = torch.nn.Parameter(torch.zeros(100, dtype=torch.float64))
    signal = Signal([p], 4)
    mean = torch.full((100,), 0.05, dtype=torch.float64)
    shares = []
    for _ in range(2000):
        for _ in signal.through([[torch.zeros(1)]] * 4):
            p.grad = mean + torch.from_numpy(rng.normal(0, 0.2, 100))
        shares.append((signal.power, signal.variance))
    power, variance = (sum(x[k] for x in shares[50:]) for k in (0, 1))
    assert 1 - variance / power == pytest.approx(0.2, abs=0.01)


def test_the_learning_rate_is_multiplied_and_goes_on_where_it_was():
    through, resumed = (learner(policy(), "dr_grpo", lr=0.01, snr_parts=3) for _ in range(2))
    own = answers()
    assert own.prompt_id is not None
    twice = torch.cat([(own.prompt_id == group).nonzero()[:, 0] for group in (20, 30, 30)])
    alike = own.rows(twice)
    alike = alike.replace(prompt_id=torch.arange(alike.size) // 4)  # two of the three groups are one
    first = through.learn(alike, 1)
    assert through.signal is not None and resumed.signal is not None
    assert 0 < through.signal.share < 1
    assert first["update/signal"] == through.signal.share
    assert through.lr() == 0.01 * through.signal.share
    resumed.load_state(through.state()[0], json.loads(json.dumps(through.state()[1])))
    assert resumed.lr() == through.lr()


def test_a_gradient_that_is_not_finite_tells_nothing():
    p = torch.nn.Parameter(torch.zeros(2))
    signal = Signal([p], 2)
    for value in (1.0, float("nan")):
        for _ in signal.through([[torch.zeros(1)]] * 2):
            p.grad = torch.full((2,), value)
    assert signal.share == 1.0 and signal.power == 8.0


def test_parts_in_which_nothing_is_learned_have_a_gradient_of_zero():
    p = torch.nn.Parameter(torch.zeros(2))
    signal = Signal([p], 2)
    for _ in signal.through([[torch.zeros(1)], []]):
        p.grad = torch.ones(2)
    assert p.grad is not None and p.grad.tolist() == [1.0, 1.0]
    assert signal.share == 0.0
