"""A price on the ratio's variance, as the paper's updates have it in sequence, and whether it keeps to its bound."""

from dataclasses import replace

import torch

from quatrain.diagnostics.enumeration import TINY
from quatrain.methods import METHODS
from quatrain.objective.part import Memory, signature
from quatrain.types import Batch
from tests.reference import Shape, draw
from tests.reference.trust_region import r2vpo, r2vpo_price

BOUND = 0.01


def test_weights_and_price_are_the_published_ones_update_after_update():
    row = METHODS["r2vpo"]
    (name,) = (signature(term.advantage) for term in row.terms[1:])
    memory: Memory = {}
    lam, seen = 2.5, set()
    for seed, spread in enumerate([0.003, 0.5, 0.003, 0.5, 0.5]):
        case = draw(Shape(seed=seed, groups=(4, 3), spread=spread))
        logp = case.logp.clone().requires_grad_()
        loss = r2vpo(replace(case, logp=logp).answers(entropy=torch.ones_like(logp)), lam=lam)
        (gradient,) = torch.autograd.grad(loss, logp)
        bound = row.bind(case.batch, memory)
        torch.testing.assert_close(bound.weights(case.logp).logp, -gradient, rtol=1e-8, atol=1e-12)
        memory = bound.remembered(case.logp)
        lam = r2vpo_price(case.answers(entropy=torch.ones_like(logp)), lam, rate=10.0, delta=BOUND)
        torch.testing.assert_close(memory[name][0], lam, rtol=1e-12, atol=0)
        seen.add(lam > 2.5)
    assert seen == {True, False}, "it rises and falls"


def train(first: float, rate: float) -> tuple[float, float]:
    """E[(r − 1)²] over the last ten batches, and the price at the end.

    A softmax policy learns eight times from each batch of 64 answers to each prompt, and then starts over.
    """
    row = METHODS["r2vpo"].with_settings({"variance.advantage.first": first, "variance.advantage.rate": rate})
    memory: Memory = {}
    variances: list[float] = []
    generator = torch.Generator().manual_seed(0)
    prompt, known = torch.arange(len(TINY.reward)).repeat_interleave(64), TINY.fields(TINY)
    for _ in range(30):
        answer = torch.multinomial(TINY.probability, 64, replacement=True, generator=generator).flatten()
        batch = Batch(**{field: known[field][prompt, answer] for field in row.needs | {"action"}})
        here = TINY
        for _ in range(8):
            bound, logp = row.bind(batch, memory), here.logp[prompt, answer]
            weights = bound.weights(logp).logp
            assert weights is not None
            variances.append(bound.metrics(logp)["price/cost"])
            memory = bound.remembered(logp)
            slopes = torch.einsum("bt,btsv->bsv", weights, here.scores[prompt, answer])
            here = here.at(here.logits + 0.3 * torch.zeros_like(here.logits).index_add(0, prompt, slopes))
    ((price,),) = memory.values()
    return sum(variances[-80:]) / 80, price


def test_the_variance_comes_to_its_bound_whatever_the_price_was_at_first():
    free, price = train(first=0.0, rate=0.0)
    assert free > 2 * BOUND and price == 0
    found = [train(first, rate=10.0) for first in (0.0, 5.0)]
    for variance, price in found:
        assert abs(variance - BOUND) < 0.05 * BOUND
        assert 1 < price < 3
    assert abs(found[0][1] - found[1][1]) < 0.01
