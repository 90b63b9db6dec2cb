import math
from dataclasses import replace

import pytest
import torch

from quatrain.objective import (
    AmongAccepted,
    Budget,
    Constant,
    PerCreditedToken,
    PerGroup,
    PerSequence,
    PerToken,
    PerTurn,
    Ramped,
    Sequence,
    SumPerGroup,
    Token,
    Undiluted,
)
from quatrain.objective.part import signature
from tests.objective.views import assert_equal, floats, view

# Answers of 3, 1 and 2 tokens; the first two are of one prompt. A fourth has no action.
ANSWERS = view([[1, 1, 1, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]], prompt_id=torch.tensor([4, 4, -1, -1]))
EVERY = [PerToken(), PerCreditedToken(), PerSequence(), PerGroup(), SumPerGroup(), Undiluted(), Constant(), Budget(), Ramped()]
SECOND_EARNED_NOTHING = replace(ANSWERS, advantage=floats(-2, 0, 1, 9)[:, None].expand(4, 4))


@pytest.mark.parametrize(
    ("reduce", "share"),
    [
        (PerToken(), [1 / 6, 1 / 6, 1 / 6]),
        (PerCreditedToken(), [1 / 5, 1 / 5, 1 / 5]),
        (PerSequence(), [1 / 9, 1 / 3, 1 / 6]),
        (PerGroup(), [1 / 8, 1 / 8, 1 / 4]),
        (SumPerGroup(), [1 / 2, 1 / 2, 1 / 2]),
        (Constant(), [1 / 3, 1 / 3, 1 / 3]),
        (Constant(tokens=10.0), [1 / 30, 1 / 30, 1 / 30]),
        (Budget(tokens=10.0), [1 / 10, 1 / 10, 1 / 10]),
        (Budget(tokens=4.0), [1 / 4, 1 / 4, 0]),
        (Budget(tokens=3.0), [1 / 3, 0, 0]),
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
        (SumPerGroup(), [1 / 2, 1 / 2, 1 / 2]),
        (Constant(), [1 / 3, 1 / 3, 1 / 3]),
    ],
    ids=str,
)
def test_share_of_an_answer_that_is_one_action(reduce, share: list[float]):
    assert_equal(reduce(SECOND_EARNED_NOTHING, Sequence().actions(ANSWERS))[:3, 0], floats(*share))


def test_a_budget_is_filled_in_the_order_of_the_batch():
    """From behind, without the row that has no action: 2, 1 and 3 tokens. An answer that is one action costs its tokens, too."""
    behind = view(ANSWERS.action.flip(0).tolist())
    for likelihood in (Token(), Sequence()):
        share = Budget(tokens=3.0)(behind, likelihood.actions(behind))
        assert_equal(share[1:, 0], floats(1 / 3, 1 / 3, 0))


@pytest.mark.parametrize("reduce", EVERY, ids=str)
def test_nothing_to_count_is_no_division_by_zero(reduce):
    empty = view([[0, 0], [0, 0]], prompt_id=torch.tensor([0, 1]))
    empty = replace(empty, advantage=torch.zeros(2, 2))
    assert reduce(empty, Token().actions(empty)).isfinite().all()


def test_each_turn_counts_the_same():
    """An answer of two turns with two and one actions, and one of a single turn."""
    acts = [[1, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]]
    answers = view(acts, turn=torch.tensor([[0, 0, 0, 6], [0, 1, 1, 2], [0, 0, 1, 1]]))
    share = PerTurn()(answers, Token().actions(answers)).where(answers.action, 0)
    assert_equal(share, torch.stack([floats(1 / 8, 0, 1 / 8, 1 / 4), floats(0, 1 / 4, 1 / 4, 0), floats(0, 0, 0, 0)]))
    empty = view([[0, 0]], turn=torch.zeros(1, 2).long())
    assert PerTurn()(empty, Token().actions(empty)).isfinite().all()


def test_only_accepted_answers_are_counted():
    """The second answer falls short by a little; the third is at the threshold. The fourth is good, and has no action."""
    graded = replace(ANSWERS, batch=ANSWERS.batch.replace(reward=floats(2, 0.9, 1, 3)))
    actions = Token().actions(graded)
    lengths = actions[:, 0]
    both = lengths[0] + lengths[2]
    assert_equal(AmongAccepted()(graded, actions)[:3, 0], torch.stack([1 / both, 0 * both, 1 / both]))
    each = AmongAccepted(PerSequence(), threshold=1.5)(graded, actions)
    assert_equal(each[:3, 0], torch.stack([1 / lengths[0], 0 * both, 0 * both]))
    assert (AmongAccepted(threshold=9.0)(graded, actions) == 0).all()


def test_a_ramp_rises_by_a_cosine_and_stays():
    """Of four updates the shares are (1 − cos(π/4))/2, ½, (1 + cos(π/4))/2, and whole from then on."""
    part = Ramped(Constant(), updates=4.0)
    actions = Token().actions(ANSWERS)
    memory, shares = {}, []
    for _ in range(6):
        now = replace(ANSWERS, memory=memory)
        shares.append((part(now, actions) / Constant()(now, actions))[0, 0].item())
        memory = {signature(part): part.remember(now)}
    half = math.sqrt(0.5) / 2
    assert shares == pytest.approx([0.5 - half, 0.5, 0.5 + half, 1, 1, 1])


def test_groups_without_an_advantage_are_made_up_for():
    """The second group earned nothing, so the first counts for two; an answer without actions is in none."""
    earned = replace(ANSWERS, advantage=floats(-2, 0, 0, 9)[:, None].expand(4, 4))
    actions = Token().actions(ANSWERS)
    assert_equal(Undiluted(PerGroup())(earned, actions)[:3, 0], 2 * floats(1 / 8, 1 / 8, 1 / 4))
    assert_equal(Undiluted(PerToken())(earned, actions)[:3, 0], 2 * floats(1 / 6, 1 / 6, 1 / 6))
    assert_equal(Undiluted(PerToken())(SECOND_EARNED_NOTHING, actions)[:3, 0], floats(1 / 6, 1 / 6, 1 / 6))
