"""Rewards that are wrong on purpose."""

from collections.abc import Iterator

import pytest

from quatrain.config import RewardConfig
from quatrain.rewards import Judge
from quatrain.rewards.turned import Turned
from quatrain.types import Group, Prompt
from tests.rewards.conftest import trajectory


@pytest.fixture
def judge(write_reward) -> Iterator[Judge]:
    """Every second answer is right; one that says nothing cannot be judged."""
    name = write_reward("def reward(completion): return float(completion)")
    with Judge([RewardConfig(name=name)], 64, workers=1) as judge:
        yield judge


def groups(count: int) -> list[Group]:
    return [Group(Prompt(n, "?"), tuple(trajectory(str(m % 2), prompt_id=n) for m in range(8))) for n in range(count)]


def turned(judge: Turned, given: list[Group]) -> list[bool]:
    """Of each answer whether its reward is turned."""
    out = []
    for group in judge.judge(given):
        for number, t in enumerate(group.trajectories):
            out.append(t.reward != number % 2)
            assert t.reward == (1 - number % 2 if out[-1] else number % 2)
            assert ("turned" in t.info) == out[-1]
            assert list(t.info["rewards"].values()) == [number % 2]
    return out


def test_a_share_is_turned_whatever_is_judged_beside(judge):
    found = turned(Turned(judge, 0.1, None, seed=0), groups(100))
    assert sum(found) / 800 == pytest.approx(0.1, abs=0.03)
    assert found[:80] == turned(Turned(judge, 0.1, None, seed=0), groups(10))
    assert found[:80] != turned(Turned(judge, 0.1, None, seed=1), groups(10))


def test_all_of_the_bad_step_are_turned(judge):
    bad = Turned(judge, 0.0, 2, seed=0)
    assert [sum(turned(bad, groups(3))) for _ in range(3)] == [0, 24, 0]


def test_what_has_no_reward_has_none(judge):
    (group,) = Turned(judge, 1.0, None, seed=0).judge([Group(Prompt(0, "?"), (trajectory("none"), trajectory("1")))])
    assert [t.reward for t in group.trajectories] == [None, 0.0]
