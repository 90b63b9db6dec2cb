"""The ratio that a denominator and a likelihood make of log-ratios ln 2, 0 and ln 4."""

import math

import pytest
import torch

from quatrain.objective import Current, GeometricMean, Old, PrefixMinimum, Reference, Rollout, Sequence, Term, Token, Unit
from tests.objective.views import assert_equal, floats, view

LOG_RATIO = [math.log(2), math.nan, 0.0, math.log(4)]
"""Its second token is not an action."""


@pytest.mark.parametrize(("denominator", "field"), [(Old(), "logp_old"), (Rollout(), "logp_rollout"), (Reference(), "logp_ref")])
def test_which_policy_is_measured_against(denominator, field: str):
    logp = floats(-1, math.inf, -2, -3)[None]
    others = dict.fromkeys(("logp_old", "logp_rollout", "logp_ref"), torch.full_like(logp, 9.0))
    answer = view([[1, 0, 1, 1]], logp, **(others | {field: logp - floats(*LOG_RATIO)}))
    factors = Term(denominator=denominator).factors(answer, torch.ones(1, 4), torch.ones(1, 1))
    assert_equal(factors.ratio, floats(2, 0, 1, 4)[None])
    assert denominator.needs == {field}


@pytest.mark.parametrize(
    ("denominator", "likelihood", "ratio"),
    [
        (Unit(), Token(), [math.exp(-1), 0, math.exp(-2), math.exp(-3)]),
        (Unit(), Sequence(), [math.exp(-6), 0, math.exp(-6), math.exp(-6)]),
        (Old(), Token(), [2, 0, 1, 4]),
        (Old(), Sequence(), [8, 0, 8, 8]),
        (PrefixMinimum(), Token(), [2, 0, 2, 4]),
        (GeometricMean(), Token(), [2, 0, 2, 2]),
        (GeometricMean(), Sequence(), [8, 0, 8, 8]),
        (Current(), Token(), [1, 0, 1, 1]),
        (Current(), Sequence(), [1, 0, 1, 1]),
    ],
)
def test_ratio(denominator, likelihood, ratio: list[float]):
    logp = floats(-1, math.inf, -2, -3)[None]
    answer = view([[1, 0, 1, 1]], logp, logp_old=logp - floats(*LOG_RATIO))
    factors = Term(denominator=denominator, likelihood=likelihood).factors(answer, torch.ones(1, 4), torch.ones(1, 1))
    assert_equal(factors.ratio, floats(*ratio)[None])


def test_the_least_ratio_of_the_prefix():
    """Ratios 4, ½, 2 and ¼ of the tokens that are actions: the least of those before them are none, 4, ½ and ½."""
    ratios = floats(4, math.nan, 0.5, 2, 0.25)[None]
    answer = view([[1, 0, 1, 1, 1]], ratios.log(), logp_old=torch.zeros(1, 5).double())
    factors = Term(denominator=PrefixMinimum()).factors(answer, torch.ones(1, 5), torch.ones(1, 1))
    assert_equal(factors.ratio, floats(4, 0, 2, 1, 0.125)[None])


def test_one_ratio_for_each_turn():
    """Ln 2 and ln 4 in one turn have the mean ln √8; the token between is not an action, and of the other turn."""
    logp = floats(-1, math.inf, -2, -3)[None].expand(2, 4)
    turn = torch.tensor([[0, 1, 1, 0], [4, 4, 4, 4]])
    answers = view([[1, 0, 1, 1]] * 2, logp, logp_old=logp - floats(*LOG_RATIO), turn=turn)
    factors = Term(denominator=GeometricMean("turn")).factors(answers, torch.ones(2, 4), torch.ones(2, 1))
    assert_equal(factors.ratio, torch.stack([floats(8**0.5, 0, 1, 8**0.5), floats(2, 0, 2, 2)]))
    assert GeometricMean("turn").needs == {"logp_old", "turn"}


def test_between_the_ratio_of_a_token_and_that_of_a_sequence():
    logp, old = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    acts = [[1, 1, 0, 1, 1, 1], [1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1]]
    for turn, other in ((torch.arange(6).expand(3, 6), Old()), (torch.ones(3, 6).long(), GeometricMean())):
        answers = view(acts, logp, logp_old=old, turn=turn)
        ours, theirs = (Term(denominator=d).factors(answers, logp, logp).ratio for d in (GeometricMean("turn"), other))
        assert_equal(ours, theirs)


def test_one_ratio_for_the_sequence_in_float32_as_well():
    """A trust region of 3e-4 is some thousand roundings of a log-probability of -20 wide."""
    logp = -20 * torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    answer = view([[1] * 50] * 3, logp, logp_old=logp - 1e-3 * torch.rand(3, 50))
    ratio = Term(denominator=GeometricMean()).factors(answer, torch.ones(3, 50), torch.ones(3, 1)).ratio
    assert ratio.dtype == torch.float32
    assert (ratio == ratio[:, :1]).all()
    assert ratio.unique().numel() == 3


def test_no_ratio_overflows():
    logp = torch.tensor([[-1e4, 0.0]])
    factors = Term().factors(view([[1, 1]], logp, logp_old=logp.flip(1)), torch.ones(1, 2), torch.ones(1, 1))
    assert factors.ratio.isfinite().all()
    assert factors.ratio[0, 0] < 1e-20 < 1e20 < factors.ratio[0, 1]


@pytest.mark.parametrize(("likelihood", "actions"), [(Token(), [2, 0, 1]), (Sequence(), [1, 0, 1])])
def test_number_of_actions(likelihood, actions: list[float]):
    assert_equal(likelihood.actions(view([[1, 0, 1], [0, 0, 0], [0, 1, 0]])), floats(*actions)[:, None])
