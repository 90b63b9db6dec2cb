import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quatrain.objective import GAE, Accepted, One, Relative, StayClose
from tests.objective.views import assert_equal, floats, view

nan = math.nan


def test_one_is_one_everywhere():
    assert_equal(One()(view([[1, 0], [0, 0]])), torch.ones(2, 2, dtype=torch.float64))


def test_accepted_takes_the_threshold_itself():
    graded = view([[1, 1]] * 3, reward=floats(0.5, 0.4, 0.9))
    assert_equal(Accepted(threshold=0.5)(graded)[:, 0], floats(1, 0, 1))


# Two groups, [1, 0, 0, 1] and [2, 5]: means 1/2 and 7/2, deviations √(1/3) and √(9/2); all six: mean 3/2, deviation √(17.5/5).
HAND_WORKED = {
    ("none", "none"): [1, 0, 0, 1, 2, 5],
    ("group", "none"): [0.5, -0.5, -0.5, 0.5, -1.5, 1.5],
    ("group", "group"): [
        math.sqrt(3) / 2,
        -math.sqrt(3) / 2,
        -math.sqrt(3) / 2,
        math.sqrt(3) / 2,
        -math.sqrt(0.5),
        math.sqrt(0.5),
    ],
    ("group", "batch"): [x / math.sqrt(3.5) for x in (0.5, -0.5, -0.5, 0.5, -1.5, 1.5)],
    ("leave_one_out", "none"): [2 / 3, -2 / 3, -2 / 3, 2 / 3, -3, 3],
    ("batch", "none"): [-0.5, -1.5, -1.5, -0.5, 0.5, 3.5],
    ("batch", "batch"): [x / math.sqrt(3.5) for x in (-0.5, -1.5, -1.5, -0.5, 0.5, 3.5)],
    ("none", "group"): [math.sqrt(3), 0, 0, math.sqrt(3), 2 / math.sqrt(4.5), 5 / math.sqrt(4.5)],
}


@pytest.mark.parametrize(("baseline", "scale"), HAND_WORKED)
@pytest.mark.parametrize("left_out", [0.0, 1e6, nan])
def test_relative(baseline: str, scale: str, left_out: float):
    """A seventh answer has no action: its reward, whatever it is, is in no statistic."""
    rewards = view(
        [[1, 1]] * 3 + [[0, 0]] + [[0, 1]] * 3,
        reward=floats(1, 0, 0, left_out, 1, 2, 5),
        prompt_id=torch.tensor([7, 7, 7, 7, 7, -1, -1]),
    )
    advantage = Relative(baseline=baseline, scale=scale, eps=0.0)(rewards)
    assert_equal(advantage[rewards.included, 1], floats(*HAND_WORKED[baseline, scale]))


def test_relative_eps_is_added_to_the_deviation():
    pair = view([[1]] * 2, reward=floats(0, 2), prompt_id=torch.tensor([0, 0]))
    assert_equal(Relative(scale="group", eps=0.5)(pair)[:, 0], floats(-1, 1) / (math.sqrt(2) + 0.5))


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_relative_without_contrast_is_exactly_zero(baseline: str, scale: str, eps: float):
    """Also where the mean of equal rewards is not one of them in floating point: (0.1 + 0.1 + 0.1) / 3 ≠ 0.1."""
    rewards = view([[1]] * 4, reward=floats(0.1, 0.1, 0.1, 9.0), prompt_id=torch.tensor([0, 0, 0, 1]))
    assert (Relative(baseline=baseline, scale=scale, eps=eps)(rewards) == 0).all()


@given(rewards=st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_leave_one_out_is_the_group_mean_stretched(rewards: list[float]):
    """R − mean of the others = n/(n−1) · (R − mean)."""
    n = len(rewards)
    group = view([[1]] * n, reward=floats(*rewards), prompt_id=torch.zeros(n, dtype=torch.int64))
    others = floats(*(r - (sum(rewards) - r) / (n - 1) for r in rewards))
    torch.testing.assert_close(Relative(baseline="leave_one_out")(group)[:, 0], others, rtol=1e-9, atol=1e-9)


def test_gae_steps_over_what_was_not_acted():
    """From the end: 3 − 2 = 1;  0.9·2 − 1 + 0.72·1 = 1.52;  0.9·1 − 0.5 + 0.72·1.52 = 1.4944."""
    dialogue = view(
        [[1, 0, 1, 1, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]],
        reward=floats(3, 3, 3),
        values=torch.tensor([[0.5, nan, 1, 2, nan], [nan, 9, 9, 0.25, 9], [nan] * 5], dtype=torch.float64),
    )
    expected = torch.tensor([[1.4944, 0, 1.52, 1, 0], [0, 0, 0, 2.75, 0], [0] * 5], dtype=torch.float64)
    assert_equal(GAE(gamma=0.9, lam=0.8)(dialogue), expected)


def test_gae_lambda_from_residual_to_return():
    values = floats(0.5, 1, 2)[None]
    answer = view([[1, 1, 1]], reward=floats(3), values=values)
    assert_equal(GAE(gamma=0.9, lam=0.0)(answer), floats(0.9 * 1 - 0.5, 0.9 * 2 - 1, 3 - 2)[None])
    assert_equal(GAE(gamma=0.9, lam=1.0)(answer), floats(0.81 * 3, 0.9 * 3, 3)[None] - values)


@pytest.mark.parametrize(
    ("estimator", "penalty", "at_ln2"),
    [
        ("k1", lambda d: d, 1.0),
        ("k2", lambda d: d**2 / 2, math.log(2)),
        ("k3", lambda d: torch.exp(-d) - 1 + d, 0.5),
    ],
)
def test_stay_close_descends_its_estimate(estimator: str, penalty, at_ln2: float):
    logp = floats(*torch.linspace(-4, -0.1, 50).tolist(), -1.0)[None].requires_grad_()
    logp_ref = floats(*[-1.5] * 50, -1.0 - math.log(2))[None]
    (slope,) = torch.autograd.grad(penalty(logp - logp_ref).sum(), logp)
    ours = StayClose(estimator)(view([[1] * 51], logp.detach(), logp_ref=logp_ref))
    assert_equal(ours, -slope)
    assert ours[0, -1].item() == pytest.approx(-at_ln2, rel=1e-12)


def test_stay_close_is_exact_near_and_finite_far_in_float32():
    distance = torch.tensor([[1e-6, -1e-6, -1000.0]])
    pull = StayClose()(view([[1] * 3], distance, logp_ref=torch.zeros(1, 3)))
    torch.testing.assert_close(pull[0, :2], torch.tensor([-1e-6, 1e-6]), rtol=2e-6, atol=0)
    assert 1e20 < pull[0, 2] < math.inf
