import math

import pytest
import torch

from quatrain.objective import (
    Cap,
    EntropyBonus,
    FlowBalance,
    Method,
    PartitionLoss,
    PerSequence,
    PerToken,
    Relative,
    Term,
    ValueLoss,
)
from quatrain.types import Batch, Origin
from tests.objective.views import assert_equal, floats


def value_weights(values: torch.Tensor, old: torch.Tensor, reward: torch.Tensor, **numbers: float) -> torch.Tensor:
    """Of answers of one token each, whose return is the reward."""
    bound = Method(ValueLoss(**numbers)).bind(Batch(action=torch.ones_like(old, dtype=torch.bool), values=old, reward=reward))
    weight = bound.weights(torch.zeros_like(values), values).value
    assert weight is not None
    return weight


def test_value_loss_by_hand():
    """Old value 1, clip 1/2. Return 3: at 1.25 the loss is ½·1.75², at 2 the clipped ½·1.5² is larger and flat; so is, for
    return 0, what has fallen to 0.25, but not what has risen to 2.
    """
    values, reward = floats(1.25, 2, 0.25, 2)[:, None], floats(3, 3, 0, 0)
    weight = value_weights(values, torch.ones_like(values), reward, coefficient=0.8, clip=0.5)
    assert_equal(weight[:, 0], 0.8 / 4 * floats(1.75, 0, 0, -2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("old_scale", "scale"), [(1.0, 1.0), (0.1, 1e-3), (1e-3, 0.1)])
def test_value_loss_against_autograd(dtype: torch.dtype, old_scale: float, scale: float):
    """Many values around 0, where V_old + (V − V_old) is not V in floating point."""
    generator = torch.Generator().manual_seed(0)
    old, values, reward = (torch.randn(20_000, 1, generator=generator, dtype=dtype) for _ in range(3))
    old, values = old * old_scale, (values * scale).requires_grad_()
    moved = old + (values - old).clamp(-0.2, 0.2)
    loss = 0.5 * 0.5 * torch.maximum((values - reward) ** 2, (moved - reward) ** 2).mean()
    (gradient,) = torch.autograd.grad(loss, values)
    ours = value_weights(values.detach(), old, reward[:, 0])
    torch.testing.assert_close(ours, -gradient, rtol=1e-5, atol=1e-12)


def test_entropy_bonus_is_its_share():
    batch = Batch(action=torch.tensor([[True, False, True], [False, True, False]]))
    weight = Method(EntropyBonus(coefficient=0.3, reduce=PerSequence())).bind(batch).weights(torch.zeros(2, 3)).entropy
    torch.testing.assert_close(weight, torch.tensor([[0.075, 0, 0.075], [0, 0.15, 0]]))


def test_less_entropy_is_its_share_with_a_minus():
    batch = Batch(action=torch.tensor([[True, False, True], [False, True, False]]))
    more, less = (Method(EntropyBonus(coefficient=c)).bind(batch).weights(torch.zeros(2, 3)).entropy for c in (0.3, -0.3))
    assert_equal(less, -more)


@pytest.mark.parametrize(("pool", "weight"), [("mean", (1.56, -1.2)), ("sum", (0.96, -1.2))])
def test_partition_loss_by_hand(pool: str, weight: tuple[float, ...]):
    """Residuals of −1.3 or −0.8, and of 1.2; the first answer has become twice as probable, and the cap is 1.2.

    Its slope is −2·1.2·(−1.3), that of the other −2·1.2, and there are two. Answers that it is not about have none.
    """
    logp = torch.stack([floats(-1, -2), floats(-0.5, 0), floats(-1, -1)])
    batch = Batch(
        action=torch.tensor([[True, True], [True, False], [True, True]]),
        logp_old=logp - torch.stack([floats(math.log(2), 0), floats(0, 0), floats(0, 0)]),
        logp_ref=logp - torch.stack([floats(0.5, 0.5), floats(1, 1), floats(1, 1)]),
        log_z=floats(0.2, 0.2, math.nan),
        reward=floats(1, 0, math.nan),
        origin=torch.tensor([0, 0, Origin.DEMONSTRATION.code]),
    )
    balance = FlowBalance(beta=2.0, pool=pool, of=Relative(baseline="none"))  # type: ignore[arg-type]
    found = Method(PartitionLoss(mask=Cap(0.8, 1.2), advantage=balance)).bind(batch).weights(logp)
    assert found.logp is None
    assert found.log_z is not None
    assert_equal(found.log_z, floats(*weight, 0))


def test_terms_add_up():
    batch = Batch(logp_old=floats(-1, -2)[None])
    one = Term(reduce=PerToken())
    twice = Method(one, Term(name="again", reduce=PerToken()))
    assert_equal(twice.weights(batch, floats(-1.5, -1)[None]), 2 * Method(one).weights(batch, floats(-1.5, -1)[None]))


def test_a_coefficient_is_a_factor():
    batch = Batch(logp_old=floats(-1, -2)[None])
    logp = floats(-1.5, -1)[None]
    assert_equal(Method(Term(coefficient=0.3)).weights(batch, logp), 0.3 * Method(Term()).weights(batch, logp))


def test_a_term_is_about_its_origins():
    """Each counts its own rows only: 2 tokens of the policy, 1 of the demonstration."""
    batch = Batch(
        action=torch.tensor([[True, True], [True, False], [True, True]]),
        logp_old=torch.zeros(3, 2),
        origin=torch.tensor([Origin.POLICY.code, Origin.DEMONSTRATION.code, Origin.TEACHER.code]),
    )
    own = Method(Term()).weights(batch, torch.zeros(3, 2))
    shown = Method(Term(on=(Origin.DEMONSTRATION,))).weights(batch, torch.zeros(3, 2))
    foreign = Method(Term(on=(Origin.DEMONSTRATION, Origin.TEACHER))).weights(batch, torch.zeros(3, 2))
    torch.testing.assert_close(own, torch.tensor([[0.5, 0.5], [0, 0], [0, 0]]))
    torch.testing.assert_close(shown, torch.tensor([[0.0, 0.0], [1, 0], [0, 0]]))
    torch.testing.assert_close(foreign, torch.tensor([[0.0, 0.0], [1, 0], [1, 1]]) / 3)


def test_the_weight_is_the_product_of_its_factors():
    batch = Batch(action=torch.ones(1, 2, dtype=torch.bool), logp_old=floats(-1, -2)[None])
    logp = floats(-1 + math.log(2), -2)[None]
    bound = Method(Term()).bind(batch)
    factors = bound.factors(logp)["policy"]
    assert_equal(factors.weight, factors.share * factors.mask * factors.advantage * factors.ratio)
    assert_equal(factors.weight, bound.weights(logp).logp)
    assert_equal(factors.weight, floats(1, 0.5)[None])
