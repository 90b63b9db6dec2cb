"""Which answers, and which parts of them, are told apart: several rewards, tasks, ranks and steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch

from quatrain.claims import Expectation
from quatrain.methods import method
from quatrain.objective.part import View
from quatrain.rollouts import Rollout
from quatrain.run import Run
from quatrain.types import Batch, Group, Trajectory, collate
from reproductions.mechanisms.acting import acted, stages
from reproductions.mechanisms.mechanism import Measured, mechanism


@mechanism(
    "gdpo",
    "gdpo:code",
    says="Answers of a group that earned different rewards with the same sum have different advantages, where GRPO takes them "
    "for alike.",
    paper="arXiv:2601.05242",
    measured="of all pairs of answers of a group that earned different things, the share that have different advantages: 48 "
    "prompts × 16 answers of `tunnel` to `written:sum_to?digits=4`, rewarded for being right and for a first number that "
    "begins with 1",
    metric="told apart",
    expected=[Expectation(better="gdpo", than="grpo", smallest_effect=0.05)],
    seeds=5,
)
def told_apart(seed: int) -> Measured:
    """With both advantages."""
    rewards = [{"name": "correct"}, {"name": "format", "options": {"pattern": ".*: 1.*"}}]
    with stages(method="gdpo", task="written:sum_to?digits=4", rewards=rewards, group_size=16, seed=seed) as run:
        batch = acted(run, 48)
    assert batch.rewards is not None and batch.prompt_id is not None
    view = _view(batch)
    out = {}
    for name in ("gdpo", "grpo"):
        advantage = method(name).terms[0].parts["advantage"](view)  # type: ignore[operator]
        own = advantage.gather(1, view.action.int().argmax(1, keepdim=True))[:, 0]
        told = [
            not torch.isclose(own[i], own[j], rtol=0, atol=1e-6)
            for number in batch.prompt_id.unique()
            for i, j in combinations((batch.prompt_id == number).nonzero()[:, 0].tolist(), 2)
            if not torch.equal(batch.rewards[i], batch.rewards[j])
        ]
        out[name] = {"told apart": float(torch.tensor(told).float().mean())}
    return out


STEPS, LAST = 30, 8
"""Steps of a training, and those at its end whose answers are counted."""
SMALL = 0.1
"""The reward of a right answer in the task with small rewards."""


@mechanism(
    "qwenlong_l1_5",
    says="Where two tasks are rewarded on different scales, dividing by the deviation of the task lets the one with small "
    "rewards be learned, which dividing by that of the batch does not, and costs the other nothing.",
    paper="arXiv:2512.12967",
    measured=f"the share of right answers in the last {LAST} of {STEPS} steps with 8 prompts of `written:addition`, where a "
    f"right answer earns {SMALL}, and 8 of `written:chain`, where it earns 1",
    metric="small rewards",
    expected=[
        Expectation(says="The small rewards are learned from.", better="task", than="batch", smallest_effect=0.02),
        Expectation(says="The large ones are, too.", better="task", metric="large rewards", than="batch", smallest_effect=-0.02),
    ],
    seeds=4,
    note="So few steps hardly move the policy with either scale, so that they say little of which is better.",
)
def task_scale(seed: int) -> Measured:
    """Both scales."""
    return {scale: _two_tasks(scale, seed) for scale in ("task", "batch")}


def _two_tasks(scale: str, seed: int) -> dict[str, float]:
    shared = {
        "method": {"name": "qwenlong_l1_5", "settings": {"advantage.scale": scale}},
        "steps": STEPS,
        "seed": seed,
    }
    large_task = stages(task="written:chain", **shared)
    small_task = stages(task="written:addition", rewards=[{"name": "correct", "weight": SMALL}], **shared)
    right: dict[str, list[float]] = {"large rewards": [], "small rewards": []}
    with large_task as large, small_task as small:
        assert isinstance(large.rollout, Rollout) and isinstance(small.rollout, Rollout)
        asking = replace(small.rollout, engine=large.rollout.engine)  # one policy does both
        for step in range(1, STEPS + 1):
            ours = large.judging.judge(large.rollout(large.source.take(8), version=step))
            others = [_apart(g) for g in small.judging.judge(asking(small.source.take(8), version=step))]
            for name, groups, most in (("large rewards", ours, 1.0), ("small rewards", others, SMALL)):
                rewards = [t.reward / most for g in groups for t in g.trajectories if t.reward is not None]
                right[name].append(sum(rewards) / len(rewards))
            large.learner.learn(collate([*ours, *others]), step)
    return {name: sum(found[-LAST:]) / LAST for name, found in right.items()}


def _apart(group: Group) -> Group:
    """With a prompt that no prompt of the other task has the number of."""
    number = group.prompt.id + 1_000_000
    return Group(replace(group.prompt, id=number), tuple(t.replace(prompt_id=number) for t in group.trajectories))


@mechanism(
    "rank_grpo",
    "rank_grpo:code",
    says="Where each item of a list has its own reward, advantage and ratio, the later items get better than where the list "
    "has one.",
    paper="arXiv:2510.20150",
    measured=f"the share of right items in the last {LAST} of {STEPS} steps of 8 prompts × 8 answers; items are the steps of "
    "`written:addition` and its result, and `later` counts the second half of them. GRPO's reward is their mean",
    metric="later",
    expected=[
        Expectation(says="Later items are right more often.", better="rank_grpo", than="grpo", smallest_effect=0.02),
        Expectation(says="All items are.", better="rank_grpo", metric="all", than="grpo", smallest_effect=0.02),
    ],
    seeds=4,
)
def ranks(seed: int) -> Measured:
    """Both with the same weight of the KL."""
    return {name: _listing(name, seed) for name in ("rank_grpo", "grpo")}


def _listing(name: str, seed: int) -> dict[str, float]:
    chosen = {"name": name, "settings": {"kl.coefficient": 0.001}}
    later, every = [], []
    with stages(method=chosen, task="written:addition", steps=STEPS, seed=seed) as run:
        for step in range(1, STEPS + 1):
            groups = [_itemized(run, g) for g in run.rollout(run.source.take(8), version=step)]
            hits = [t.turn_rewards for g in groups for t in g.trajectories]
            later.append(_mean(hit for own in hits for hit in own[len(own) // 2 :]))
            every.append(_mean(hit for own in hits for hit in own))
            run.learner.learn(collate(groups), step)
    return {"later": _mean(later[-LAST:]), "all": _mean(every[-LAST:])}


@mechanism(
    "istar",
    "istar_prm",
    says="A process reward that is learned from which of two trajectories won tells which of a failed one's steps was wrong.",
    paper="arXiv:2509.19199",
    measured="the share of pairs of a right and a wrong step of the same failed answer in which the right one has the greater "
    f"process reward, in the last {LAST} of {STEPS} steps of 8 prompts × 8 answers to `written:addition`, of which only the "
    "result is judged",
    metric="found",
    expected=[Expectation(better="istar", than="chance", smallest_effect=0.05)],
    seeds=4,
    note="The process reward is learned beside the policy, as in the paper, and is its log-ratio to the policy of the day.",
)
def step_rewards(seed: int) -> Measured:
    """Before each batch is learned from."""
    found: list[float] = []
    process = {"method": "istar_prm", "lr": 1e-4}
    with stages(method="istar", task="written:addition", process=process, steps=STEPS, seed=seed) as run:
        for step in range(1, STEPS + 1):
            groups = run.judging.judge(run.rollout(run.source.take(8), version=step))
            told = [_itemized(run, g) for g in groups]
            batch = collate([_rewarded(g, of) for g, of in zip(told, groups, strict=True)])
            if step > STEPS - LAST:
                found += _pairs_found(run, batch, [t.turn_rewards for g in told for t in g.trainable])
            run.learner.learn(batch, step)
    return {"istar": {"found": _mean(found)}, "chance": {"found": 0.5}}


def _rewarded(group: Group, judged: Group) -> Group:
    """With the rewards of the same answers as they were judged as a whole."""
    pairs = zip(group.trajectories, judged.trajectories, strict=True)
    return replace(group, trajectories=tuple(t.replace(reward=of.reward) for t, of in pairs))


def _pairs_found(run: Run, batch: Batch, hits: list[tuple[float, ...]]) -> list[float]:
    """1 for each pair of a right and a wrong step of a failed answer that the process reward ranks right, 0 for the others."""
    assert run.learner.process is not None and batch.action is not None and batch.turn is not None and batch.reward is not None
    logp = [run.learner.score(batch, policy).logp for policy in (run.learner.process.policy, run.policy)]
    gain = (logp[0] - logp[1]).where(batch.action, 0)
    out = []
    for row, own in enumerate(hits):
        if batch.reward[row] == 0:
            reward = [gain[row][batch.turn[row] == k].sum().item() for k in range(len(own))]
            places = list(enumerate(own))
            out += [float(reward[i] > reward[j]) for i, right in places for j, other in places if right > other]
    return out


def _itemized(run: Run, group: Group) -> Group:
    """Each answer's items as its turns, 1 where it is that of the solution, and their mean as its reward."""
    solution = (group.prompt.demonstration or "").split()
    gap = run.policy.tokenizer(" ", add_special_tokens=False)["input_ids"][0]

    def told(trajectory: Trajectory) -> Trajectory:
        spaces = (trajectory.tokens == gap) & trajectory.action
        turn = spaces.int().cumsum(0) - int(trajectory.text.startswith(" "))
        written = trajectory.text.split()
        hits = tuple(float(written[k] == item) if k < len(written) else 0.0 for k, item in enumerate(solution))
        return trajectory.replace(turn=turn.clamp(min=0).long(), turn_rewards=hits, reward=_mean(hits))

    return replace(group, trajectories=tuple(told(t) for t in group.trajectories))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _view(batch: Batch) -> View:
    assert batch.action is not None
    return View(batch, batch.action, None)
