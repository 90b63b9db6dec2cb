"""Records: what a batch refuses, what a group trains on, and that collating loses nothing."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quatrain.types import Batch, Group, Origin, Prompt, Trajectory, collate

PER_SEQUENCE = ["log_z", "reward", "reward_greedy", "prompt_id", "episode_id", "agent", "origin", "task"]
PER_REWARD = ["rewards", "reward_weights"]
PER_TOKEN = [f.name for f in fields(Batch) if f.name not in [*PER_SEQUENCE, *PER_REWARD, "experts"]]


def trajectory(prompt_id: int, prompt: int, answer: int, **changes) -> Trajectory:
    """`prompt` tokens read and `answer` tokens written, each with a number of its own."""
    size = prompt + answer
    action = torch.arange(size) >= prompt
    number = torch.arange(1, size + 1) + 100 * prompt_id
    given = {
        "tokens": number,
        "action": action,
        "logp_rollout": torch.where(action, -number / 10.0, 0.0),
        "version": torch.where(action, number, -1),
        "turn": number % 3,
        "prompt_id": prompt_id,
        "reward": 0.5,
    }
    return Trajectory(**(given | changes))


def group(number: int, *trajectories: Trajectory, task: str = "") -> Group:
    return Group(Prompt(id=number, question="", task=task), trajectories)


SIZES = st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), max_size=3), max_size=4)
"""Of each group, (prompt tokens, answer tokens) of each member."""


@given(sizes=SIZES)
def test_collating_keeps_every_trainable_trajectory_and_its_order(sizes: list[list[tuple[int, int]]]):
    groups = [group(i, *(trajectory(i, *s) for s in members)) for i, members in enumerate(sizes)]
    batch = collate(groups)
    kept = [t for g in groups for t in g.trajectories if t.length]
    assert batch.size == len(kept)
    assert batch.tokens.shape == (len(kept), max((len(t.tokens) for t in kept), default=0))
    for row, t in enumerate(kept):
        size = len(t.tokens)
        for name, fill in {"tokens": 0, "action": False, "logp_rollout": 0, "version": -1, "turn": 0}.items():
            value = getattr(batch, name)[row]
            assert torch.equal(value[:size], getattr(t, name).to(value.dtype))
            assert (value[size:] == fill).all()
        assert int(batch.prompt_id[row]) == t.prompt_id


def test_collating_says_whose_and_of_which_task_each_row_is():
    batch = collate(
        [
            group(8, trajectory(8, 1, 1, reward=1.5, agent=2, episode_id=5), task="sums"),
            group(3, trajectory(3, 1, 1, reward=None, origin=Origin.DEMONSTRATION), task="chess"),
            group(4, trajectory(4, 1, 1, reward=-1.0, origin=Origin.REPLAY), task="sums"),
        ]
    )
    assert batch.reward.tolist() == [1.5, 0.0, -1.0]
    assert batch.origin.tolist() == [Origin.POLICY.code, Origin.DEMONSTRATION.code, Origin.REPLAY.code]
    assert batch.agent.tolist() == [2, 0, 0]
    assert batch.episode_id.tolist() == [5, 0, 0]
    assert batch.task[0] == batch.task[2] != batch.task[1]


def test_the_greedy_answer_is_compared_with_and_not_trained_on():
    greedy = trajectory(1, 1, 1, reward=0.75, origin=Origin.GREEDY)
    unjudged = trajectory(2, 1, 1, reward=None, error="the sandbox died", origin=Origin.GREEDY)
    batch = collate([group(1, trajectory(1, 1, 1), greedy), group(2, unjudged, trajectory(2, 1, 1), trajectory(2, 1, 2))])
    assert batch.origin.tolist() == [Origin.POLICY.code] * 3
    assert batch.reward_greedy[0] == 0.75
    assert batch.reward_greedy[1:].isnan().all()
    assert collate([group(1, trajectory(1, 1, 1))]).reward_greedy is None


def test_collating_nothing_gives_a_batch_of_nothing():
    for groups in ([], [group(1)], [group(1, trajectory(1, 3, 0))]):
        batch = collate(groups)
        assert batch.size == 0
        assert not batch.action.any()


@pytest.mark.parametrize(
    ("changes", "trainable"),
    [
        ({}, True),
        ({"reward": 0.0}, True),
        ({"reward": None}, False),
        ({"error": "the sandbox died"}, False),
        ({"reward": None, "origin": Origin.DEMONSTRATION}, True),
        ({"reward": None, "origin": Origin.REPLAY}, False),
        ({"origin": Origin.DEMONSTRATION, "error": "too long"}, False),
        ({"origin": Origin.RATED}, True),
        ({"reward": None, "origin": Origin.RATED}, False),
        ({"reward": None, "origin": Origin.MISMATCHED}, True),
        ({"origin": Origin.GREEDY}, False),
        ({"origin": Origin.VOTER}, False),
        ({"action": torch.zeros(5, dtype=torch.bool)}, False),
    ],
)
def test_what_can_be_trained_on(changes: dict, trainable: bool):
    member = trajectory(1, 3, 2, **changes)
    assert group(1, member).trainable == ((member,) if trainable else ())


def test_origins_have_different_codes_that_do_not_change():
    """They are written into files."""
    assert {o.value: o.code for o in Origin} == {
        "policy": 0,
        "demonstration": 1,
        "replay": 2,
        "teacher": 3,
        "rated": 4,
        "greedy": 5,
        "mismatched": 6,
        "voter": 7,
    }


def test_collating_lays_out_the_rewards_of_turns():
    turns = {"turn": torch.tensor([0, 1, 1, 2]), "turn_rewards": (0.25, -2.0)}
    batch = collate([group(1, trajectory(1, 1, 3, **turns), trajectory(1, 1, 1, turn=torch.tensor([0, 7]), reward=3.0))])
    assert batch.turn_reward.tolist() == [[0.25, -2, -2, 0], [3, 3, 0, 0]]


def test_collating_lays_out_the_rewards_of_a_total_by_kind():
    judged = [{"correct": 1.0, "short": -0.5}, {"short": 2.0}, {}]
    weights = {"correct": 1.0, "short": 0.25}
    members = [trajectory(1, 1, 1, info={"rewards": some, "weights": weights if some else {}}) for some in judged]
    batch = collate([group(1, *members)])
    nan = float("nan")
    assert torch.equal(batch.rewards.nan_to_num(9), torch.tensor([[1, -0.5], [nan, 2], [nan, nan]]).nan_to_num(9))
    assert torch.equal(batch.reward_weights.nan_to_num(9), torch.tensor([[1, 0.25], [1, 0.25], [nan, nan]]).nan_to_num(9))
    assert collate([group(1, trajectory(1, 1, 1))]).rewards is None


@pytest.mark.parametrize("name", PER_TOKEN + PER_SEQUENCE + PER_REWARD)
def test_a_field_of_the_wrong_shape_is_refused_by_name(name: str):
    wrong = torch.zeros(3, 2) if name in PER_SEQUENCE else torch.zeros(3, dtype=torch.int64)
    axes = "B, R" if name in PER_REWARD else "B, T"
    shape = r"\[3, 2\]; it must be \[B\]" if name in PER_SEQUENCE else rf"\[3\]; it must be \[{axes}\]"
    with pytest.raises(ValueError, match=rf"Batch\.{name} has shape {shape}"):
        Batch(**{name: wrong})


def test_experts_are_of_tokens_and_layers_and_padded_with_none():
    told = torch.arange(5 * 2 * 2, dtype=torch.int16).view(5, 2, 2)
    members = (trajectory(1, 3, 2, experts=told), trajectory(1, 3, 4))
    batch = collate([group(1, *members)])
    assert batch.experts is not None and batch.experts.shape == (2, 7, 2, 2)
    assert torch.equal(batch.experts[0, :5], told)
    assert (batch.experts[0, 5:] == -1).all() and (batch.experts[1] == -1).all()
    assert collate([group(1, members[1])]).experts is None
    with pytest.raises(ValueError, match=r"Batch\.experts has shape \[2, 7\]; it must be \[B, T, L, K\]"):
        Batch(experts=torch.zeros(2, 7))


@pytest.mark.parametrize(
    ("given", "axis"),
    [
        ({"tokens": torch.zeros(2, 3), "logp_old": torch.zeros(2, 4)}, "T"),
        ({"tokens": torch.zeros(2, 3), "logp_old": torch.zeros(3, 3)}, "B"),
        ({"tokens": torch.zeros(2, 3), "reward": torch.zeros(3)}, "B"),
        ({"tokens": torch.zeros(2, 3), "rewards": torch.zeros(3, 1)}, "B"),
        ({"reward_weights": torch.zeros(2, 1), "rewards": torch.zeros(2, 2)}, "R"),
    ],
)
def test_fields_that_disagree_are_refused(given: dict, axis: str):
    with pytest.raises(ValueError, match=f"the fields of a Batch disagree on {axis}"):
        Batch(**given)


def test_what_is_missing_is_named_with_who_needs_it():
    batch = Batch(reward=torch.zeros(2), prompt_id=torch.zeros(2))
    batch.require(["reward", "prompt_id"], "GAE")
    with pytest.raises(ValueError, match=r"GAE needs logp_ref, values, which this batch lacks: pass logp_ref=… to Batch"):
        batch.require(["values", "reward", "logp_ref"], "GAE")


def test_rows_are_taken_from_every_field():
    judged = {"info": {"rewards": {"correct": 1.0}, "weights": {"correct": 0.5}}}
    batch = collate([group(1, trajectory(1, 2, 3), trajectory(1, 1, 1, **judged)), group(2, trajectory(2, 2, 2, **judged))])
    some = batch.rows(torch.tensor([2, 0, 2]))
    for f in fields(Batch):
        whole = getattr(batch, f.name)
        assert (getattr(some, f.name) is None) == (whole is None)
        if whole is not None:
            taken = torch.stack([whole[2], whole[0], whole[2]])
            torch.testing.assert_close(getattr(some, f.name), taken, rtol=0, atol=0, equal_nan=True)


def test_replace_leaves_the_original_as_it_was():
    batch = collate([group(1, trajectory(1, 2, 3))])
    changed = batch.replace(reward=torch.tensor([9.0]), turn=None)
    assert (batch.reward.tolist(), changed.reward.tolist()) == ([0.5], [9.0])
    assert batch.turn is not None
    assert changed.turn is None


def test_size_is_told_by_any_field():
    assert Batch().size == 0
    for name in PER_TOKEN + PER_REWARD:
        assert Batch(**{name: torch.zeros(3, 2)}).size == 3
    for name in PER_SEQUENCE:
        assert Batch(**{name: torch.zeros(3)}).size == 3
