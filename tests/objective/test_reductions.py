from dataclasses import replace

import pytest
import torch
from hypothesis import given

from quatrain.methods import METHODS
from quatrain.objective import Constant, PerCreditedToken, PerGroup, PerSequence, PerToken, Sequence, Token
from tests.objective.views import assert_equal, floats, view
from tests.reference import Shape, draw, shapes
from tests.reference.losses import dapo_as_printed

# Answers of 3, 1 and 2 tokens; the first two are of one prompt. A fourth has no action.
ANSWERS = view([[1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]], prompt_id=torch.tensor([4, 4, -1, -1]))
SECOND_EARNED_NOTHING = replace(ANSWERS, advantage=floats(-2, 0, 1, 9)[:, None].expand(4, 4))


@pytest.mark.parametrize(
    ("reduce", "share"),
    [
        (PerToken(), [1 / 6, 1 / 6, 1 / 6]),
        (PerCreditedToken(), [1 / 5, 1 / 5, 1 / 5]),
        (PerSequence(), [1 / 9, 1 / 3, 1 / 6]),
        (PerGroup(), [1 / 8, 1 / 8, 1 / 4]),
        (Constant(), [1 / 3, 1 / 3, 1 / 3]),
        (Constant(tokens=10.0), [1 / 30, 1 / 30, 1 / 30]),
    ],
    ids=str,
)
def test_share_of_a_token(reduce, share: list[float]):
    assert_equal(reduce(SECOND_EARNED_NOTHING, Token().actions(ANSWERS))[:3, 0], floats(*share))


@pytest.mark.parametrize(
    ("reduce", "share"),
    [
        (PerToken(), [1 / 3, 1 / 3, 1 / 3]),
        (PerCreditedToken(), [1 / 2, 1 / 2, 1 / 2]),
        (PerSequence(), [1 / 3, 1 / 3, 1 / 3]),
        (PerGroup(), [1 / 4, 1 / 4, 1 / 2]),
        (Constant(), [1 / 3, 1 / 3, 1 / 3]),
    ],
    ids=str,
)
def test_share_of_an_answer_that_is_one_action(reduce, share: list[float]):
    assert_equal(reduce(SECOND_EARNED_NOTHING, Sequence().actions(ANSWERS))[:3, 0], floats(*share))


@pytest.mark.parametrize("reduce", [PerToken(), PerCreditedToken(), PerSequence(), PerGroup(), Constant()], ids=str)
def test_nothing_to_count_is_no_division_by_zero(reduce):
    empty = view([[0, 0], [0, 0]], prompt_id=torch.tensor([0, 1]))
    empty = replace(empty, advantage=torch.zeros(2, 2))
    assert reduce(empty, Token().actions(empty)).isfinite().all()


@given(shape=shapes())
def test_per_group_is_dapo_to_the_letter(shape: Shape):
    """Its printed normalizer is that of a group, the one of its code, and of the row, that of the minibatch."""
    case = draw(shape)
    logp = case.logp.clone().requires_grad_()
    loss = dapo_as_printed(replace(case, logp=logp).answers(torch.ones_like(logp)))
    (gradient,) = torch.autograd.grad(loss, logp)
    ours = METHODS["dapo"].replace(reduce=PerGroup()).weights(case.batch, case.logp)
    torch.testing.assert_close(ours, -gradient, rtol=1e-8, atol=1e-12)
