import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quatrain.objective import (
    GAE,
    AboveMedian,
    AboveValue,
    Accepted,
    BetaNormalized,
    ByEntropy,
    ByReward,
    ByTurn,
    Decoupled,
    EntropySwitched,
    Filtered,
    Flattened,
    FlowBalance,
    Gated,
    ImplicitProcess,
    ImplicitSteps,
    Intrinsic,
    LengthAdaptiveGAE,
    LengthSwitched,
    One,
    OverGreedy,
    Pooled,
    Priced,
    Rejected,
    Relative,
    ReturnToGo,
    Signed,
    SoftlyGated,
    StayClose,
    StepPotential,
    TeacherGap,
    TowardTeacher,
    Unsolved,
    Verified,
    Whitened,
)
from quatrain.objective.part import View, signature
from quatrain.types import Origin
from tests.objective.views import assert_equal, floats, view

nan = math.nan


def test_one_is_one_everywhere():
    assert_equal(One()(view([[1, 0], [0, 0]])), torch.ones(2, 2, dtype=torch.float64))


def test_accepted_takes_the_threshold_itself():
    graded = view([[1, 1]] * 3, reward=floats(0.5, 0.4, 0.9))
    assert_equal(Accepted(threshold=0.5)(graded)[:, 0], floats(1, 0, 1))
    assert_equal(Rejected(threshold=0.5)(graded)[:, 0], floats(0, -1, 0))
    assert_equal(Signed(threshold=0.5)(graded)[:, 0], floats(1, -1, 1))


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
    ("group", "task"): [x / math.sqrt(3.5) for x in (0.5, -0.5, -0.5, 0.5, -1.5, 1.5)],
    ("group", "batch"): [x / math.sqrt(3.5) for x in (0.5, -0.5, -0.5, 0.5, -1.5, 1.5)],
    ("leave_one_out", "none"): [2 / 3, -2 / 3, -2 / 3, 2 / 3, -3, 3],
    ("batch", "none"): [-0.5, -1.5, -1.5, -0.5, 0.5, 3.5],
    ("batch", "batch"): [x / math.sqrt(3.5) for x in (-0.5, -1.5, -1.5, -0.5, 0.5, 3.5)],
    ("none", "group"): [math.sqrt(3), 0, 0, math.sqrt(3), 2 / math.sqrt(4.5), 5 / math.sqrt(4.5)],
    ("group", "group_mean"): [1, -1, -1, 1, -3 / 7, 3 / 7],
}


@pytest.mark.parametrize(("baseline", "scale"), HAND_WORKED)
@pytest.mark.parametrize("left_out", [0.0, 1e6, nan])
def test_relative(baseline: str, scale: str, left_out: float):
    """A seventh answer has no action: its reward, whatever it is, is in no statistic."""
    rewards = view(
        [[1, 1]] * 3 + [[0, 0]] + [[0, 1]] * 3,
        reward=floats(1, 0, 0, left_out, 1, 2, 5),
        prompt_id=torch.tensor([7, 7, 7, 7, 7, -1, -1]),
        task=torch.full((7,), 4),
    )
    advantage = Relative(baseline=baseline, scale=scale, eps=0.0)(rewards)
    assert_equal(advantage[rewards.included, 1], floats(*HAND_WORKED[baseline, scale]))


def test_relative_eps_is_added_to_the_deviation():
    pair = view([[1]] * 2, reward=floats(0, 2), prompt_id=torch.tensor([0, 0]))
    assert_equal(Relative(scale="group", eps=0.5)(pair)[:, 0], floats(-1, 1) / (math.sqrt(2) + 0.5))


def test_relative_correction_is_what_the_count_is_less():
    pair = view([[1]] * 2, reward=floats(0, 2), prompt_id=torch.tensor([0, 0]))
    assert_equal(Relative(scale="group", eps=0.0, correction=0)(pair)[:, 0], floats(-1, 1))
    assert_equal(Relative(scale="group", eps=0.0, correction=1)(pair)[:, 0], floats(-1, 1) / math.sqrt(2))


def test_relative_weighted_by_length():
    """(3·1 + 1·5) / 4 = 2; what comes between actions is not counted."""
    pair = view([[1, 0, 1, 1], [0, 1, 0, 0]], reward=floats(1, 5), prompt_id=torch.tensor([0, 0]))
    assert_equal(Relative(baseline="length_weighted")(pair)[:, 1], floats(-1, 3))


def test_relative_weighted_by_gradients():
    """Weights 3, 1 and 0 of three answers: the others' means are 5, 1 and (3·1 + 1·5)/4 = 2; alone there is nothing to weigh."""
    four = view(
        [[1, 0, 1], [0, 1, 0], [1, 1, 0], [1, 1, 1]],
        reward=floats(1, 5, 7, 2),
        prompt_id=torch.tensor([0, 0, 0, 1]),
        grad_norm_sq=torch.tensor([[1, nan, 2], [9, 1, 9], [0, 0, 9], [1, 1, 1]]),
    )
    weighted = Relative(baseline="gradient_weighted")
    assert weighted.needs == {"reward", "prompt_id", "grad_norm_sq"}
    assert_equal(weighted(four)[:, 0], floats(-4, 4, 5, 0))
    flat = replace(four, batch=four.batch.replace(grad_norm_sq=torch.zeros(4, 3)))
    assert_equal(weighted(flat)[:, 0], floats(1, 5, 7, 0))


def test_relative_over_a_mean_that_is_not_above_zero_is_nothing():
    graded = view([[1]] * 4, reward=floats(-3, 1, -1, 1), prompt_id=torch.tensor([0, 0, 1, 1]))
    assert (Relative(scale="group_mean")(graded) == 0).all()


def test_relative_to_the_deviation_of_each_task():
    """Two prompts of one task, with rewards 0, 2, 4 and 6, and one of another: deviations √(20/3) and √2."""
    six = view(
        [[1]] * 6, reward=floats(0, 2, 4, 6, 10, 12), prompt_id=torch.arange(6) // 2, task=torch.tensor([9] * 4 + [-1] * 2)
    )
    expected = floats(-1, 1, -1, 1, -1, 1) / floats(*[20 / 3] * 4, 2, 2).sqrt()
    assert_equal(Relative(scale="task", eps=0.0)(six)[:, 0], expected)
    assert Relative(scale="task").needs == {"reward", "prompt_id", "task"}


@pytest.mark.parametrize("scale", ["none", "group", "task", "batch", "group_mean"])
@pytest.mark.parametrize("baseline", ["group", "leave_one_out", "length_weighted", "gradient_weighted"])
@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_relative_without_contrast_is_exactly_zero(baseline: str, scale: str, eps: float):
    """Also where the mean of equal rewards is not one of them in floating point: (0.1 + 0.1 + 0.1) / 3 ≠ 0.1."""
    groups = torch.tensor([0, 0, 0, 1])
    lengths = torch.ones(4, 1)
    rewards = view([[1]] * 4, reward=floats(0.1, 0.1, 0.1, 9.0), prompt_id=groups, task=groups, grad_norm_sq=lengths)
    assert (Relative(baseline=baseline, scale=scale, eps=eps)(rewards) == 0).all()


@given(rewards=st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_leave_one_out_is_the_group_mean_stretched(rewards: list[float]):
    """R − mean of the others = n/(n−1) · (R − mean)."""
    n = len(rewards)
    group = view([[1]] * n, reward=floats(*rewards), prompt_id=torch.zeros(n, dtype=torch.int64))
    others = floats(*(r - (sum(rewards) - r) / (n - 1) for r in rewards))
    torch.testing.assert_close(Relative(baseline="leave_one_out")(group)[:, 0], others, rtol=1e-9, atol=1e-9)


def test_beta_normalized_by_hand():
    """Rates ½ ± 1/√40 have mean ½ and variance 1/20, those of Beta(2, 2), so f is the density of Beta(5/3, 5/3) at the rate."""
    rate = 0.5 + 1 / math.sqrt(40)
    # Of two rewards with mean p, one is 1 and the other 2p − 1, or one is 0 and the other 2p.
    pairs = view([[1]] * 4, reward=floats(1, 2 * rate - 1, 0, 2 * (1 - rate)), prompt_id=torch.tensor([0, 0, 1, 1]))
    norm = math.gamma(5 / 3) ** 2 / math.gamma(10 / 3)
    density = (rate * (1 - rate)) ** (2 / 3) / norm
    expected = floats(1 - rate, rate - 1, rate - 1, 1 - rate) / density
    assert_equal(BetaNormalized()(pairs)[:, 0], expected)


@pytest.mark.parametrize("reward", [(1, 0, 1, 0), (1, 0, 0, 0, 1, 1), (1, 0)])
def test_beta_normalized_is_flat_where_rates_do_not_differ_or_differ_most(reward: tuple[float, ...]):
    """Alike, as far apart as can be, and one group alone: α = β = 1, whose density is 1."""
    pairs = view([[1]] * len(reward), reward=floats(*reward), prompt_id=torch.arange(len(reward)) // 2)
    assert_equal(BetaNormalized()(pairs), Relative()(pairs))


def test_decoupled_by_hand():
    """Two answers: of the first reward the z-scores are ±√½, of the second, which is as far apart as may be, the same.

    The third reward is equal for all. Weighted by 1, −3 and 5: ∓2·√½ in the one group, 4·√½ in the other, whose rewards disagree.
    """
    rewards = torch.tensor([[1, 9, 2], [0, 5, 2], [nan, nan, nan], [3, 7, 2], [1, 8, 2]], dtype=torch.float64)
    graded = view(
        [[1, 1], [0, 1], [0, 0], [1, 0], [1, 1]],
        reward=torch.zeros(5),
        rewards=rewards,
        reward_weights=torch.tensor([1, -3, 5]).expand(5, 3),
        prompt_id=torch.tensor([0, 0, 0, 1, 1]),
    )
    each = Relative(scale="group", eps=0.0)
    summed = floats(-2, 2, 4, -4) * math.sqrt(0.5)
    assert_equal(Decoupled(each, Relative("none"))(graded)[graded.included, 0], summed)
    whole = Relative("batch", "batch", eps=0.0)
    assert_equal(Decoupled(each, whole)(graded)[graded.included, 1], summed / math.sqrt(20 / 3))


def test_decoupled_is_the_advantage_where_there_is_one_reward():
    graded = view([[1]] * 4, reward=floats(0, 1, 5, 5), prompt_id=torch.tensor([0, 0, 1, 1]), reward_weights=torch.ones(4, 1))
    graded = replace(graded, batch=graded.batch.replace(rewards=graded.batch.reward[:, None]))
    assert_equal(Decoupled(Relative(), Relative("none"))(graded), Relative()(graded))


def test_length_switched_by_hand():
    """Three groups with ½, ½ and ⅓ of their answers right; the best third of them is one, and the second is as good.

    In the first, right answers of 1 and 3 tokens: mean 2, deviation √2; in the second, one alone loses half of the weight.
    """
    lengths = [1, 3, 2, 2, 2, 1, 3, 1, 1]
    acts = [[int(t < n) for t in range(3)] for n in lengths]
    graded = view(acts, reward=floats(1, 2, 0, 0.5, 1, 0, 1, 0, 0), prompt_id=torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2]))
    longer = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    reward = floats(1 - 0.5 * (1 - longer), 1 - 0.5 * longer, 0, 0, 0.75, 0, 1, 0, 0)
    switched = LengthSwitched(share=1 / 3, weight=0.5, eps=0.0, of=Relative(baseline="none"))
    lone = graded.batch.prompt_id == 1
    assert_equal(switched(graded)[~lone, 0], reward[~lone])
    assert_equal(replace(switched, eps=1.0)(graded)[lone, 0], reward[lone])
    assert_equal(replace(switched, share=0.0)(graded)[:, 0], (reward > 0).double())


TURNS = {"turn": torch.tensor([[0, 0, 3], [0, 3, 3], [3, 0, 0]]), "prompt_id": torch.tensor([5, 5, 2])}
"""Answers to two prompts, with turns 0 and 3."""


def test_by_turn_by_hand():
    """To the first prompt, turn 0 has the rewards 1 and 5, turn 3 has 2 and 4; to the second there is one answer of one turn."""
    turn_reward = torch.tensor([[1, 1, 2], [5, 4, 4], [nan, 7, 7]], dtype=torch.float64)
    acts = [[1, 1, 1], [1, 1, 0], [0, 1, 1]]
    graded = view(acts, reward=torch.zeros(3), turn_reward=turn_reward, **TURNS)
    same = torch.tensor([[-2, -2, -1], [2, 1, 0], [0, 0, 0]]).double()
    assert_equal(ByTurn(Relative())(graded), same)
    every = torch.tensor([[-2, -2, -1], [2, 1, 0], [0, 0, 0]]).double()  # their mean is 3 as well
    assert_equal(ByTurn(Relative(), "all")(graded), every)
    others = torch.tensor([[1 - 11 / 3, 1 - 11 / 3, 2 - 10 / 3], [5 - 7 / 3, 4 - 8 / 3, 0], [0, 0, 0]]).double()
    torch.testing.assert_close(ByTurn(Relative("leave_one_out"), "all")(graded), others, rtol=1e-6, atol=0)


def test_by_turn_with_one_turn_is_the_advantage():
    graded = view([[1, 1], [0, 1], [1, 0]], reward=floats(1, 2, 5), prompt_id=torch.zeros(3).long(), turn=torch.full((3, 2), 2))
    graded = replace(graded, batch=graded.batch.replace(turn_reward=graded.batch.reward[:, None].expand(3, 2)))
    for among in ("same", "all"):
        assert_equal(ByTurn(Relative(scale="group"), among)(graded), Relative(scale="group")(graded).where(graded.action, 0))


def test_implicit_steps_by_hand():
    """Process rewards 2·(1 + 2), 2·4, 2·0 and 2·(−1 + 3): 6, 8, 0 and 4; outcomes 1 and 0, less the other's."""
    gains = torch.tensor([[1, 2, 4], [0, -1, 3], [nan, nan, nan]], dtype=torch.float64)
    acted = view([[1, 1, 1], [1, 1, 1], [0, 0, 0]], reward=floats(1, 0, 9), logp_process=gains, logp_old=0 * gains, **TURNS)
    steps = floats(6 - 4, 8 - 10 / 3, 0 - 6, 4 - 14 / 3)
    expected = torch.stack([1 + 0.5 * steps[[0, 0, 1]], -1 + 0.5 * steps[[2, 3, 3]]])
    assert_equal(ImplicitSteps(beta=2.0, weight=0.5)(acted)[:2], expected)


def test_over_greedy_is_nothing_where_that_is_not_known():
    graded = view([[1, 1]] * 3, reward=floats(1, 0, 1), reward_greedy=floats(0.25, 0.25, nan))
    assert_equal(OverGreedy()(graded)[:, 0], floats(0.75, -0.25, 0))


@pytest.mark.parametrize(
    ("by", "field", "rewards"),
    [("certainty", "certainty", (2, 5, 1)), ("entropy", "entropy_old", (-4, -5, -3)), ("likelihood", "logp_old", (4, 5, 3))],
)
@pytest.mark.parametrize("of", [Relative(), Relative("leave_one_out"), Relative(scale="group"), Relative("batch", "batch")])
def test_intrinsic_puts_a_signal_in_the_place_of_the_reward(by: str, field: str, rewards: tuple[float, ...], of: Relative):
    """A mean over an answer's actions, or a sum; what is no action is not looked at, and neither is the reward."""
    signal = torch.stack([floats(1, nan, 3, nan), floats(nan, 5, nan, nan), floats(1, 1, 1, nan)])
    answers = {"prompt_id": torch.tensor([0, 0, 0])}
    acts = [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]]
    told = view(acts, **{field: signal}, reward=floats(nan, nan, nan), **answers)
    assert_equal(Intrinsic(by, of)(told), of(view(acts, reward=floats(*rewards), **answers)))
    assert Intrinsic(by, of).needs == of.needs - {"reward"} | {field}


def test_return_to_go_subtracts_the_departures_ahead():
    """Departures 1, 2 and 4 of the actions; what was not acted departs by nothing."""
    answer = view([[1, 0, 1, 1]], reward=floats(3), logp_old=floats(-1, nan, -1, 0)[None], logp_ref=floats(-2, nan, -3, -4)[None])
    assert_equal(ReturnToGo(kl=0.5)(answer)[0, [0, 2, 3]], floats(3 - 3.5, 3 - 3, 3 - 2))
    assert_equal(ReturnToGo(kl=0.5, estimator="k2")(answer)[0, [0, 2, 3]], floats(3 - 5.25, 3 - 5, 3 - 4))
    k3 = [math.exp(-d) - 1 + d for d in (1, 2, 4)]
    ahead = [3 - sum(k3[i:]) / 2 for i in range(3)]
    assert_equal(ReturnToGo(kl=0.5, estimator="k3")(answer)[0, [0, 2, 3]], floats(*ahead))


def test_whitened_counts_actions():
    """An answer of three actions worth 1 and one of one worth 5: mean 2, deviation √(12/3), or √(12/4)."""
    graded = view([[1, 1, 1], [0, 1, 0]], reward=floats(1, 5))
    raw = Relative(baseline="none")
    assert_equal(Whitened(raw, eps=0.0)(graded)[:, 1], floats(-0.5, 1.5))
    assert_equal(Whitened(raw, eps=0.0, correction=0)(graded)[:, 1], floats(-1, 3) / math.sqrt(3))
    assert_equal(Whitened(raw, eps=1.0)(graded)[:, 1], floats(-1 / 3, 1))


@pytest.mark.parametrize("reward", [floats(1), floats(0.1, 0.1, 0.1)])
def test_whitened_without_contrast_is_exactly_zero(reward: torch.Tensor):
    graded = view([[1]] * len(reward), reward=reward)
    assert (Whitened(Relative(baseline="none"), eps=0.0)(graded) == 0).all()


def test_filtered_is_among_the_best_by_length_or_by_efficiency():
    """Rewards 0, 4, 9 and 2½ of 1, 2, 3 and 1 tokens. The first and the last are as short; 9 and 2½ are most per token."""
    group = view(
        [[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 1, 0]], reward=floats(0, 4, 9, 2.5), prompt_id=torch.zeros(4, dtype=torch.int64)
    )
    first = [0, 1, 2, 3], [0, 1, 1, 1]  # the row, and a place where each has an action
    assert_equal(Filtered(0.5, "length", Relative())(group)[first], floats(-1.25, 0, 0, 1.25))
    assert_equal(Filtered(0.25, "length", Relative())(group)[first], floats(-1.25, 0, 0, 1.25))
    assert_equal(Filtered(0.5, "efficiency", Relative())(group)[first], floats(0, 0, 3.25, -3.25))
    assert_equal(Filtered(0.75, "efficiency", Relative(baseline="none"))(group)[first], floats(0, 4, 9, 2.5))


def test_an_entropy_switch_goes_on_above_and_off_below():
    """A scripted series of entropies; of two answers the second is longer, and the mean is over answers."""
    part = EntropySwitched(low=1.0, high=2.0, of=Relative())
    memory, kept = {}, []
    for entropy in (1.5, 2.5, 1.5, 1.0, 0.5, 1.5, 2.0):
        state = view(
            [[1, 0, 0], [1, 1, 1]],
            entropy_old=torch.tensor([[entropy - 0.25, 9, 9], [entropy + 0.5, entropy, entropy + 0.25]]).double(),
            reward=floats(0, 1),
            prompt_id=torch.zeros(2, dtype=torch.int64),
        )
        state = replace(state, memory=memory)
        bad, good = part(state)[:, 0].tolist()
        assert good == 0.5
        kept.append(bad == -0.5)
        memory = {signature(part): part.remember(state)}
        assert part.metrics(state) == {"advantage/switched": memory[signature(part)][0]}
    assert kept == [True, False, False, False, True, True, True]


MIXED = view(
    [[1]] * 4,
    reward=floats(0, 1, 5, 0),
    prompt_id=torch.tensor([0, 0, 0, 1]),
    origin=torch.tensor([o.code for o in (Origin.POLICY, Origin.POLICY, Origin.DEMONSTRATION, Origin.POLICY)]),
)
"""Two answers and a demonstration to one prompt, and a failed answer to another."""


def test_pooled_statistics_are_over_demonstrations_as_well():
    for own in (MIXED, replace(MIXED, action=MIXED.action & (MIXED.batch.origin == Origin.DEMONSTRATION.code)[:, None])):
        assert_equal(Pooled(Relative())(own)[:, 0], floats(-2, -1, 3, 0))


@pytest.mark.parametrize(("rate", "above"), [(0.0, [1, 1, 1, 0]), (0.5, [0, 0, 0, 0]), (-1.0, [1, 1, 1, 1])])
def test_gated_by_the_policys_own_answers(rate: float, above: list[float]):
    """Rates ½ and 0: the demonstration's reward does not count."""
    assert_equal(Gated(One(), "above", rate)(MIXED)[:, 0], floats(*above))
    assert_equal(Gated(One(), "upto", rate)(MIXED)[:, 0], 1 - floats(*above))


@pytest.mark.parametrize(
    ("right", "above", "upto"), [(0, 0, 1), (1, 1 / 8, 1 / 2), (2, 1 / 4, 1 / 4), (3, 1 / 2, 1 / 8), (4, 1, 0), (8, 1, 0)]
)
def test_softly_gated_by_the_number_of_right_answers(right: int, above: float, upto: float):
    """A demonstration's reward does not count."""
    of = view(
        [[1]] * 9,
        reward=floats(*[1] * right, *[0] * (8 - right), 1),
        prompt_id=torch.zeros(9, dtype=torch.int64),
        origin=torch.tensor([Origin.POLICY.code] * 8 + [Origin.DEMONSTRATION.code]),
    )
    assert_equal(SoftlyGated(One(), "above")(of)[:, 0], floats(*[above] * 9))
    assert_equal(SoftlyGated(One(), "upto")(of)[:, 0], floats(*[upto] * 9))


def test_by_entropy_takes_the_mean_over_the_answer():
    undecided = view([[1, 0, 1]], entropy=floats(0, nan, 2 * math.log(3))[None])
    assert_equal(ByEntropy(1)(undecided), floats(3, 3, 3)[None])
    assert_equal(ByEntropy(-1)(undecided), floats(1, 1, 1)[None] / 3)


def test_implicit_process_by_hand():
    """Process rewards ½·(2, 4), of mean 3/2, and ½·6 = 3; outcomes 1 and 0. A third answer is alone.

    From the end, for the first answer: 2 − 3 + 1 = 0, then 1 − 3 + 0 = −2; for the second: 3 − 3/2 − 1.
    """
    judged = view(
        [[1, 0, 1], [0, 1, 0], [1, 0, 0]],
        reward=floats(1, 0, 1),
        prompt_id=torch.tensor([0, 0, 1]),
        logp_process=torch.tensor([[1, nan, 2], [nan, 4, nan], [9, nan, nan]]).double(),
        logp_ref=torch.tensor([[-1, nan, -2], [nan, -2, nan], [0, nan, nan]]).double(),
    )
    advantage = ImplicitProcess(beta=0.5)(judged)
    assert_equal(advantage[judged.action], floats(-2, 0, 0.5, 0))


def test_verified_is_the_slope_of_the_cross_entropy():
    logp = torch.tensor([[-1.0, -2.0], [-3.0, -0.5]], dtype=torch.float64, requires_grad=True)
    logp_ref, reward = floats(-2, -1.5, -0.5, -1).view(2, 2), floats(1, 0.25)
    logit = 0.5 * (logp - logp_ref).sum(1)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, reward, reduction="sum")
    (slope,) = torch.autograd.grad(loss, logp)
    assert_equal(Verified(beta=0.5)(view([[1, 1]] * 2, logp.detach(), reward=reward, logp_ref=logp_ref)), -slope)


@pytest.mark.parametrize(
    ("pool", "residual", "advantage"), [("mean", (-1.3, 1.2), (1.3, -2.4)), ("sum", (-0.8, 1.2), (1.6, -2.4))]
)
def test_flow_balance_by_hand(pool: str, residual: tuple[float, ...], advantage: tuple[float, ...]):
    """Log-ratios of ½ and ½, or of 1, log Z = 0.2, and rewards of 1 and 0 that count twice: 0.2 + ½ − 2, or 0.2 + 1 − 2."""
    logp = torch.stack([floats(-1, -2, nan), floats(-0.5, nan, nan)])
    logp_ref = torch.stack([floats(-1.5, -2.5, nan), floats(-1.5, nan, nan)])
    graded = view([[1, 1, 0], [1, 0, 0]], logp, logp_ref=logp_ref, log_z=floats(0.2, 0.2), reward=floats(1, 0))
    balance = FlowBalance(beta=2.0, pool=pool, of=Relative(baseline="none"))  # type: ignore[arg-type]
    assert_equal(balance.residual(graded)[:, 0], floats(*residual))
    assert_equal(balance(graded), floats(*advantage)[:, None].expand(2, 3))
    square = (residual[0] ** 2 + residual[1] ** 2) / 2
    assert balance.metrics(graded) == pytest.approx({"flow/residual": square, "flow/log_z": 0.2})


def test_a_flow_is_of_those_that_it_is_about():
    """The third answer is nobody's: it has no part in the statistics, nor in the metrics."""
    logp = floats(-1, -2, -3)[:, None]
    graded = view([[1], [1], [0]], logp, logp_ref=logp, log_z=floats(0, 0, 9), reward=floats(2, 0, 9), prompt_id=torch.zeros(3))
    balance = FlowBalance(beta=3.0, of=Relative())
    assert_equal(balance.residual(graded)[:2, 0], floats(-3, 3))
    assert balance.metrics(graded) == pytest.approx({"flow/residual": 9.0, "flow/log_z": 0.0})


def test_teacher_gap_is_how_much_likelier_the_teacher_finds_it():
    graded = view([[1, 1]], logp_teacher=floats(-1, -4)[None], logp_rollout=floats(-2, -1)[None])
    assert_equal(TeacherGap()(graded), floats(1, -3)[None])


def test_toward_a_teacher_by_hand():
    """Ratios π_teacher/π_θ of 3 and ½: ½·log 2 and ½·log ¾; with beta ¼: ¾·log 3/2 and ¾·log 7/8; far away they stay finite."""
    here = floats(-1, -2, -3, -3)[None]
    teacher = here + torch.stack([floats(3, 0.5).log(), floats(-900, 900)]).view(1, 4)
    asked = view([[1, 1, 1, 1]], logp=here, logp_teacher=teacher)
    assert_equal(TowardTeacher()(asked)[0, :2], 0.5 * floats(2, 0.75).log())
    assert_equal(TowardTeacher(0.25)(asked)[0, :2], 0.75 * floats(1.5, 0.875).log())
    assert_equal(TowardTeacher()(asked)[0, 2:], floats(0.5 * math.log(0.5), 0.5 * (900 + math.log(0.5))))


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_toward_a_teacher_is_the_slope_of_the_divergence_in_expectation(beta: float):
    """Σ_v π_θ(v)·Â(v)·∇log π_θ(v) = −∇JSD(π_teacher‖π_θ), by autograd over a vocabulary of five."""
    logits, other = floats(0.3, -1, 2, 0, 0.5).requires_grad_(), floats(-0.5, 1, 0.2, 2, 0).softmax(0)
    policy = logits.softmax(0)
    mixture = beta * other + (1 - beta) * policy
    jsd = beta * (other * (other / mixture).log()).sum() + (1 - beta) * (policy * (policy / mixture).log()).sum()
    (slope,) = torch.autograd.grad(jsd, logits, retain_graph=True)
    drawn = view([[1] * 5], logp=policy.detach().log()[None], logp_teacher=other.log()[None])
    climbed = (policy.detach() * TowardTeacher(beta)(drawn)[0] * policy.log()).sum()
    assert_equal(torch.autograd.grad(climbed, logits)[0], -slope)


def test_step_potential_by_hand():
    """Two answers of steps with the potentials 0, 1, 1, ½ and −1, of rewards 1 and 0; nobody acted in the third.

    Differences are 0, 1, 0, −½ and 0, so scaled they are ⅓, 1, ⅓, 0 and ⅓; before the four steps 0, 0, 1 and 2 were above 0.9.
    The first step is of two actions, with a gap between them.
    """
    acts = [[1, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0], [0] * 6]
    step = torch.tensor([[0, 9, 0, 1, 2, 3], [9, 2, 2, 2, 2, 2], [0] * 6])
    potential = floats(0, nan, 0, 1, 1, 0.5, nan, -1, -1, nan, nan, nan, *[nan] * 6).view(3, 6)
    probed = view(acts, reward=floats(1, 0, 5), prompt_id=torch.tensor([0, 0, 1]), step=step, potential=potential)
    found = StepPotential(fade=0.5, weight=2.0, of=Relative())(probed)
    e = math.e
    grown = floats(e ** (1 / 3), e, e ** (1 / 3), 1, e ** (1 / 3))
    shaping = 2 * (grown - grown.mean())
    kept = floats(1, 1, 0.5 + 0.5 / e, 0.5 + 0.5 / e**2)
    assert_equal(found[0, [0, 2, 3, 4, 5]], (0.5 * kept + shaping[:4])[[0, 0, 1, 2, 3]])
    assert_equal(found[1, 1:3], (-0.5 + shaping[4:]).expand(2))
    assert_equal(StepPotential(fade=0.5, weight=0.0, known=-0.5)(probed)[0, 3:], 0.5 * (0.5 + 0.5 / floats(e, e**2, e**3)))


def test_step_potential_without_steps_to_tell_apart_is_the_other_advantage():
    even = view([[1, 1], [1, 0]], reward=floats(1, 0), prompt_id=torch.zeros(2).long(), step=torch.zeros(2, 2).long())
    even = replace(even, batch=even.batch.replace(potential=torch.full((2, 2), 0.95)))
    assert_equal(StepPotential()(even), Relative()(even))
    nobody = replace(even, action=torch.zeros_like(even.action))
    assert StepPotential()(nobody).isfinite().all()


def test_above_median_remembers_what_groups_earned():
    """Groups earn 0 and 1, then 3, of which two or all three are remembered; a replayed answer to the first prompt has 2."""
    origin = torch.tensor([o.code for o in (Origin.POLICY, Origin.POLICY, Origin.POLICY, Origin.REPLAY)])

    def step(rewards: tuple[float, ...], prompts: tuple[int, ...], memory: dict) -> View:
        whole = view([[1]] * 4, reward=floats(*rewards, 2), prompt_id=torch.tensor([*prompts, 0]), origin=origin)
        return replace(whole, action=whole.action & (origin == Origin.REPLAY.code)[:, None], memory=memory)

    for history, medians in ((10, (0.5, 1.0)), (2, (0.5, 2.0))):
        part = AboveMedian(history)
        memory: dict = {}
        for (rewards, prompts), median in zip((((-1, 1, 1), (0, 0, 1)), ((3, 3, 3), (2, 2, 2))), medians, strict=True):
            seen = step(rewards, prompts, memory)
            assert_equal(part(seen)[3], floats(2 - median))
            assert_equal(part(seen)[:3, 0], (floats(*rewards) - median).clamp(min=0))
            memory = {signature(part): part.remember(seen)}
    alone = step((0, 0, 0), (0, 0, 0), {})
    assert (AboveMedian()(replace(alone, batch=alone.batch.rows(torch.tensor([3])), action=alone.action[3:])) == 0).all()


def test_above_value_reads_the_value_of_the_first_action():
    graded = view([[0, 1, 1]] * 2, reward=floats(3, 1), values=floats(nan, 2, 9).expand(2, 3))
    assert_equal(AboveValue()(graded)[:, 2], floats(1, 0))


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


def test_length_adaptive_gae_has_a_lambda_for_each_answer():
    """alpha ½: λ is ½ for four actions, and 0 for two and for one."""
    action = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 0, 0]])
    values = torch.cos(torch.arange(12.0).double()).view(3, 4)
    answers = view(action.tolist(), reward=floats(3, 2, 1), values=values)
    ours = LengthAdaptiveGAE(alpha=0.5, gamma=0.9)(answers)
    assert_equal(ours[:1], GAE(gamma=0.9, lam=0.5)(answers)[:1])
    assert_equal(ours[1:], GAE(gamma=0.9, lam=0.0)(answers)[1:])


@pytest.mark.parametrize(
    ("estimator", "penalty", "at_ln2"),
    [
        ("k1", lambda d: d, 1.0),
        ("k2", lambda d: d**2 / 2, math.log(2)),
        ("k3", lambda d: torch.exp(-d) - 1 + d, 0.5),
        ("forward", lambda d: torch.exp(d) - 1 - d, 1.0),
        ("weighted", lambda d: 1 - (1 + d) * torch.exp(-d), math.log(2) / 2),
        ("abs", lambda d: d.abs(), 1.0),
        ("variance", lambda d: (torch.exp(d) - 1) ** 2, 4.0),
    ],
)
def test_stay_close_descends_its_estimate(estimator: str, penalty, at_ln2: float):
    logp = floats(*torch.linspace(-4, -0.1, 50).tolist(), -1.0)[None].requires_grad_()
    logp_ref = floats(*[-1.5] * 50, -1.0 - math.log(2))[None]
    (slope,) = torch.autograd.grad(penalty(logp - logp_ref).sum(), logp)
    state = view([[1] * 51], logp.detach(), logp_ref=logp_ref)
    ours = StayClose(estimator)(state)
    assert_equal(ours, -slope)
    assert_equal(StayClose(estimator).cost(state), penalty(logp - logp_ref).detach())
    assert ours[0, -1].item() == pytest.approx(-at_ln2, rel=1e-12)
    to_old = StayClose(estimator, to="old")
    assert to_old.needs == {"logp_old"}
    assert_equal(to_old(view([[1] * 51], logp.detach(), logp_old=logp_ref)), ours)


def test_stay_close_is_exact_near_and_finite_far_in_float32():
    distance = torch.tensor([[1e-6, -1e-6, -1000.0]])
    pull = StayClose()(view([[1] * 3], distance, logp_ref=torch.zeros(1, 3)))
    torch.testing.assert_close(pull[0, :2], torch.tensor([-1e-6, 1e-6]), rtol=2e-6, atol=0)
    assert 1e20 < pull[0, 2] < math.inf
    push = StayClose("forward")(view([[1] * 3], -distance, logp_ref=torch.zeros(1, 3)))
    torch.testing.assert_close(push[0, :2], torch.tensor([1e-6, -1e-6]), rtol=2e-6, atol=0)
    assert -math.inf < push[0, 2] < -1e20
    assert StayClose("variance")(view([[1] * 3], -distance, logp_ref=torch.zeros(1, 3))).isfinite().all()
    for estimator in ("k1", "k2", "k3", "forward", "weighted", "abs", "variance"):
        assert StayClose(estimator).cost(view([[1] * 3], distance, logp_ref=torch.zeros(1, 3))).isfinite().all()
    weighted = StayClose("weighted")(view([[1] * 3], distance, logp_ref=torch.zeros(1, 3)))
    torch.testing.assert_close(weighted[0, :2], torch.tensor([-1e-6, 1e-6]), rtol=2e-6, atol=0)
    assert 1e20 < weighted[0, 2] < math.inf


def test_a_price_rises_above_the_bound_and_falls_below_it_to_no_less_than_nothing():
    """Of two answers, mean distances 1 and k of one token each, so that E[k] = (1 + k)/2, which is 1 at the bound."""
    part = Priced(bound=1.0, rate=0.5, first=0.75, of=StayClose("k2"))
    memory, prices = {}, []
    for k in (1.0, 5.0, 1.0, -1.0, -1.0, -1.0, -1.0, nan, 2.0):
        distances = torch.tensor([[2.0, 0.0, 9.0], [(2 * max(k, 0.0)) ** 0.5, 9.0, 9.0]]).double()
        state = view([[1, 1, 0], [1, 0, 0]], distances * k / k, logp_ref=torch.zeros(2, 3))
        state = replace(state, memory=memory)
        prices.append(state.recall(part)[0])
        if k == k:
            assert_equal(part(state), prices[-1] * StayClose("k2")(state))
            assert part.metrics(state) == {"price": prices[-1], "price/cost": pytest.approx((1 + max(k, 0.0)) / 2)}
        memory = {signature(part): part.remember(state)}
    assert prices == pytest.approx([0.75, 0.75, 1.75, 1.75, 1.5, 1.25, 1.0, 0.75, 0.75])
    assert memory[signature(part)] == pytest.approx((1.0,))
    cheap = replace(part, first=0.25)
    assert cheap.remember(view([[1]], torch.zeros(1, 1), logp_ref=torch.zeros(1, 1))) == (0.0,)
    assert cheap.remember(view([[0]], torch.zeros(1, 1), logp_ref=torch.zeros(1, 1))) == (0.25,), "nobody's distance"


def test_by_reward_is_nothing_at_no_reward_and_all_at_the_most():
    rewarded = view([[1, 1]] * 3, floats(-1, -2).expand(3, 2), reward=floats(0, 1, 2), logp_ref=floats(-2, -2).expand(3, 2))
    pull = StayClose("k2")
    assert_equal(ByReward(pull, most=2.0)(rewarded), floats(0, 0.5, 1)[:, None] * pull(rewarded))
    assert_equal(ByReward(One())(rewarded)[:, 0], floats(0, 1, 2))


def test_flattened_takes_the_reference_to_a_power():
    """Exponents 1/4, 5/8, 1 and, beyond the ends, 1/4 and 1 of a reference at −2: distances from −1."""
    logp, logp_ref = floats(-1).expand(5, 1), floats(-2).expand(5, 1)
    answers = view([[1]] * 5, logp, reward=floats(0, 0.5, 1, -3, 3), logp_ref=logp_ref)
    assert_equal(Flattened(StayClose("k2"), least=0.25)(answers)[:, 0], floats(0.5, -0.25, -1, 0.5, -1) * 1.0)


def test_unsolved_drops_the_prompts_that_the_greedy_answer_solves():
    asked = view([[1]] * 5, reward=floats(0, 1, 0.5, 2, 3), reward_greedy=floats(0, 1, 0.9, nan, 1.5))
    assert_equal(Unsolved(Relative(baseline="none"))(asked)[:, 0], floats(0, 0, 0.5, 2, 0))
    assert_equal(Unsolved(One(), threshold=1.2)(asked)[:, 0], floats(1, 1, 1, 1, 0))
