"""Comparisons of whole answers, on sequence log-probabilities that are whole numbers."""

import math
from dataclasses import replace

import pytest
import torch

from quatrain.objective import Desirable, Hinge, Logistic, Preferred, Squared
from quatrain.types import Origin
from tests.objective.views import assert_equal, floats, view

LOGP = torch.tensor([[-1, -2, math.nan], [-1, -2, -3], [math.nan, -8, math.nan]], dtype=torch.float64)
"""Answers of 2, 3 and 1 tokens: sums −3, −6 and −8, means −3/2, −2 and −8."""
ACTS = [[1, 1, 0], [1, 1, 1], [0, 1, 0]]
REF = torch.tensor([[-1, -4, math.inf], [-1, -1, -3], [math.inf, -9, math.inf]], dtype=torch.float64)
"""Log-ratios: sums 2, −1 and 1, means 1, −1/3 and 1."""


def group(*reward: float, **more: torch.Tensor):
    prompt_id = torch.zeros(3, dtype=torch.int64)
    return view(ACTS, LOGP, reward=floats(*reward), prompt_id=prompt_id, logp_ref=REF, **more)


@pytest.mark.parametrize("loss", [Logistic(beta=0.5), Logistic(beta=2.0, gap=0.7), Squared(tau=0.2), Hinge(gap=1.5)], ids=str)
def test_slopes_are_those_of_the_formulas(loss: Logistic | Squared | Hinge):
    margin = torch.linspace(-4, 4, 41, dtype=torch.float64).requires_grad_()
    match loss:
        case Logistic(beta, gap):
            cost = -torch.nn.functional.logsigmoid(beta * margin - gap)
        case Squared(tau):
            cost = (margin - 1 / (2 * tau)) ** 2
        case Hinge(gap):
            cost = (gap - margin).clamp(min=0)
    (slope,) = torch.autograd.grad(cost.sum(), margin)
    away = (margin.detach() - 1.5).abs() > 1e-9  # where the hinge bends, it has no slope
    assert_equal(loss.slope(margin.detach())[away], slope[away])


@pytest.mark.parametrize(
    ("score", "margin", "slopes"),
    [
        ("log_ratio", 2 - -1, (1, 1)),
        ("mean_log_ratio", 1 - -1 / 3, (1 / 2, 1 / 3)),
        ("logp", -3 - -6, (1, 1)),
        ("mean_logp", -1.5 - -2, (1 / 2, 1 / 3)),
    ],
)
def test_one_pair_by_hand(score, margin: float, slopes: tuple[float, float]):
    """The first answer is preferred to the second; the third is of another prompt. The squared loss's slope is 2(m − 1)."""
    pair = view(ACTS, LOGP, reward=floats(1, 0, 1), prompt_id=torch.tensor([5, 5, 2]), logp_ref=REF)
    push = -2 * (margin - 1)
    assert_equal(Preferred(score, Squared(tau=0.5))(pair)[:, 1], push * floats(slopes[0], -slopes[1], 0))


def test_which_policy_a_log_ratio_is_to():
    pair = view(ACTS, LOGP, reward=floats(1, 0, 1), prompt_id=torch.tensor([5, 5, 2]), logp_rollout=REF)
    to_ref = replace(pair, batch=pair.batch.replace(logp_ref=REF, logp_rollout=None))
    assert_equal(Preferred(to="rollout")(pair), Preferred()(to_ref))
    assert Preferred(to="rollout").needs == {"reward", "prompt_id", "logp_rollout"}


def test_log_odds_by_hand():
    """P = ½ and ¼ of one token each: odds 1 and 1/3. ∂ log odds/∂ log P = 1/(1 − P): 2 and 4/3; σ(−log 3) = ¼."""
    pair = view([[1], [1]], floats(0.5, 0.25).log()[:, None], reward=floats(1, 0), prompt_id=torch.tensor([0, 0]))
    assert_equal(Preferred("log_odds", Logistic(beta=1.0))(pair)[:, 0], 0.25 * floats(2, -4 / 3))


def test_a_certain_answer_has_finite_odds():
    pair = view([[1], [1]], floats(0, -1)[:, None], reward=floats(1, 0), prompt_id=torch.tensor([0, 0]))
    assert Preferred("log_odds", Logistic(beta=1.0))(pair).isfinite().all()


def test_all_pairs_of_a_group_count_alike():
    """Rewards 2, 1 and 0: three pairs, each a third. Log-ratios 2, −1 and 1 give margins 3, 1 and −2."""
    first, second, third = (-2 * (m - 1) / 3 for m in (3, 1, -2))
    expected = floats(first + second, third - first, -second - third)
    assert_equal(Preferred("log_ratio", Squared(tau=0.5))(group(2, 1, 0))[:, 1], expected)


def test_equal_rewards_are_no_pair():
    assert (Preferred()(group(1, 1, 1)) == 0).all()
    first, second = -2 * (3 - 1) / 2, -2 * (1 - 1) / 2
    assert_equal(Preferred("log_ratio", Squared(tau=0.5))(group(1, 0, 0))[:, 1], floats(first + second, -first, -second))


def test_what_the_term_is_not_about_is_in_no_pair():
    answers = group(2, 1, 0)
    without = view([ACTS[0], ACTS[1], [0, 0, 0]], LOGP, reward=floats(2, 1, 0), prompt_id=torch.tensor([0, 0, 0]), logp_ref=REF)
    alone = view(ACTS, LOGP, reward=floats(2, 1, 0), prompt_id=torch.tensor([0, 0, 1]), logp_ref=REF)
    assert_equal(Preferred()(without)[:2, 0], Preferred()(alone)[:2, 0])
    assert (Preferred()(without)[2] == 0).all()
    assert not torch.equal(Preferred()(answers)[:2], Preferred()(alone)[:2])


def test_a_reference_is_read_only_where_it_is_compared_with():
    assert Preferred("mean_logp").needs == Preferred("log_odds").needs == {"reward", "prompt_id"}
    assert Preferred("mean_log_ratio").needs == {"reward", "prompt_id", "logp_ref"}


@pytest.mark.parametrize(("mismatched", "level"), [((2, 1), 1.5), ((2, -1), 0.5), ((-1, -1), 0.0), ((), 0.0)])
def test_desirable_against_what_others_gained(mismatched: tuple[float, ...], level: float):
    """Gains 1 and −1 of a good and of a bad answer, against the mean gain of mismatched ones, but for a loss."""
    gain = floats(1, -1, *mismatched)[:, None]
    origin = torch.tensor([Origin.RATED.code] * 2 + [Origin.MISMATCHED.code] * len(mismatched))
    reward = floats(1, 0, *[math.nan] * len(mismatched))
    everyone = view([[1]] * len(gain), gain - 2, reward=reward, origin=origin, logp_ref=torch.full_like(gain, -2.0))
    rated = everyone.over(Origin.RATED)

    def felt(of: float) -> float:
        return 0.5 / (1 + math.exp(0.5 * (of - level))) / (1 + math.exp(0.5 * (level - of)))

    advantage = Desirable(beta=0.5, desirable=3.0, undesirable=7.0)(rated)
    assert_equal(advantage[:2, 0], floats(3 * felt(1), -7 * felt(-1)))
