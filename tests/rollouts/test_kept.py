"""A run's own good answers: which are kept, for how long, and when they come back."""

import json
from collections.abc import Sequence
from dataclasses import replace

import torch

from quatrain.rollouts import Kept
from quatrain.types import Group, Origin, Prompt, Trajectory, collate


def answer(prompt: int, reward: float | None, origin: Origin = Origin.POLICY) -> Trajectory:
    size = 2 + prompt % 3
    return Trajectory(
        tokens=torch.arange(size) + 10 * prompt,
        action=torch.arange(size) > 0,
        logp_rollout=torch.linspace(0, -prompt, size),
        version=torch.arange(size) - 1,
        turn=torch.zeros(size, dtype=torch.int64),
        prompt_id=prompt,
        episode_id=prompt,
        text=f"{prompt}:{reward}",
        reward=reward,
        origin=origin,
        info={"rewards": {"correct": reward}},
    )


def prompt(number: int) -> Prompt:
    return Prompt(id=number, question=str(number))


def step(number: int, *rewards: float | None) -> list[Group]:
    return [Group(prompt(number), tuple(answer(number, reward) for reward in rewards))]


def kept(size: int, steps: int = 10) -> Kept:
    return Kept(list, size, steps, again=prompt)


def told(groups: Sequence[Group]) -> list[tuple[int, str, str]]:
    return [(g.prompt.id, t.text, t.origin.value) for g in groups for t in g.trajectories if t.origin is Origin.REPLAY]


def test_good_answers_come_back_once_when_there_are_enough():
    keeping = kept(3)
    assert told(keeping.judge(step(1, 1.0, 0.0, 0.0))) == []
    assert told(keeping.judge(step(2, 1.0, 0.6, 0.0))) == []
    third = keeping.judge(step(3, 0.0, 1.0))
    assert told(third) == [(1, "1:1.0", "replay"), (2, "2:1.0", "replay"), (2, "2:0.6", "replay")]
    assert [g.prompt.id for g in third] == [3, 1, 2], "one group for each prompt, after those of the step"
    assert told(keeping.judge(step(4, 1.0, 0.0))) == [], "what was replayed is no longer kept"
    keeping.judge(step(5, 0.0, 1.0))
    assert [number for number, *_ in told(keeping.judge(step(6, 1.0)))] == [3, 4, 5]


def test_only_what_is_better_than_its_group_is_good():
    """Not what is as good as the mean, by others, of no reward, or failed."""
    keeping = kept(1)
    others = [answer(1, 1.0, origin) for origin in (Origin.GREEDY, Origin.VOTER, Origin.DEMONSTRATION, Origin.REPLAY)]
    failed = replace(answer(1, 1.0), error="broken")
    keeping.judge([Group(prompt(1), (answer(1, 0.5), answer(1, 0.5), answer(1, None), *others, failed))])
    assert told(keeping.judge(step(2, 0.5))) == []


def test_what_is_too_old_is_dropped():
    for steps, comes in ((2, True), (1, False)):
        keeping = kept(1, steps)
        keeping.size = 2
        keeping.judge(step(1, 1.0, 0.0))
        keeping.judge(step(2, 1.0, 0.0))
        assert bool(told(keeping.judge(step(3)))) == comes


def test_a_batch_holds_them_as_they_were_written():
    keeping = kept(1)
    keeping.judge(step(4, 1.0, 0.0))
    batch = collate(keeping.judge(step(5, 1.0, 0.0)))
    assert batch.origin is not None and batch.prompt_id is not None and batch.reward is not None
    assert batch.logp_rollout is not None and batch.action is not None and batch.tokens is not None
    assert batch.origin.tolist() == [Origin.POLICY.code] * 2 + [Origin.REPLAY.code]
    assert (batch.prompt_id[2], batch.reward[2]) == (4, 1.0)
    stored = answer(4, 1.0)
    assert torch.equal(batch.tokens[2, :3], stored.tokens)
    assert torch.equal(batch.logp_rollout[2, :3], stored.logp_rollout)
    assert torch.equal(batch.action[2, :3], stored.action)


def test_what_was_kept_is_there_after_a_break():
    through = kept(4, steps=3)
    for number, rewards in enumerate([(1.0, 0.0), (0.3, 0.1, 0.2), (1.0, 1.0)], 1):
        through.judge(step(number, *rewards))
    tensors, state = through.state()
    resumed = kept(4, steps=3)
    resumed.load_state(tensors, json.loads(json.dumps(state)))
    for number in range(4, 9):
        ours, theirs = (one.judge(step(number, 1.0, 0.1, 0.7)) for one in (resumed, through))
        assert told(ours) == told(theirs)
        for left, right in zip(ours, theirs, strict=True):
            for a, b in zip(left.trajectories, right.trajectories, strict=True):
                assert all(
                    torch.equal(getattr(a, n), getattr(b, n)) for n in ("tokens", "action", "logp_rollout", "version", "turn")
                )
                assert (a.reward, a.info, a.prompt_id, a.episode_id) == (b.reward, b.info, b.prompt_id, b.episode_id)
    assert kept(1).state() == ({}, {"number": 0, "kept": []})
