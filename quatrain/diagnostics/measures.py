"""What a step's groups say of the policy, in the names that every run uses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
import torch

from quatrain.types import Group, Origin, Trajectory

SAMPLED = frozenset({Origin.POLICY, Origin.VOTER})
"""Whose answers have a vote."""
VOTE = "majority"
"""The reward that says who agrees with the most frequent answer."""


def sampled(group: Group) -> list[Trajectory]:
    """The answers that were sampled from the policy, those that only vote included."""
    return [t for t in group.trajectories if t.origin in SAMPLED and t.length]


def vote_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """How large the majorities are, where there was a vote."""
    votes = [vote for group in groups if (vote := _vote(group))]
    return {"vote/share": float(np.mean([np.mean(vote) for vote in votes]))} if votes else {}


def accuracy_metrics(groups: Sequence[Group], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """How many training answers are right by the verifier's `scores` of those `sampled`, and what of the vote is."""
    found: dict[str, list[float]] = {"rollout/accuracy": [], "vote/label_accuracy": [], "vote/reward_accuracy": []}
    for group, some in zip(groups, scores, strict=True):
        trained = [t.origin is Origin.POLICY for t in sampled(group)]
        found["rollout/accuracy"] += compress(some, trained)
        if vote := _vote(group):
            found["vote/label_accuracy"].append(1.0 in vote and some[vote.index(1.0)] == 1)
            right = ((agrees == 1) == (score == 1) for agrees, score in zip(vote, some, strict=True))
            found["vote/reward_accuracy"] += compress(right, trained)
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _vote(group: Group) -> list[float]:
    """Of each sampled answer whether it agrees with the majority; nothing where there was no vote."""
    votes = [t.info.get("rewards", {}).get(VOTE) for t in sampled(group)]
    return [] if None in votes else votes


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards and their parts, lengths and failures of the answers to train on; of others that the policy wrote, the tokens."""
    written = [t for group in groups for t in group.trajectories if t.origin is Origin.POLICY]
    if not written:
        return {}
    acted = [t for t in written if t.length]
    beside = [t for group in groups for t in group.trajectories if t.origin in (Origin.GREEDY, Origin.VOTER)]
    judged = [(t.reward, t.info["rewards"]) for t in written if t.reward is not None and t.info.get("rewards")]
    rewards, parts = [reward for reward, _ in judged], [part for _, part in judged]
    out = {
        "rollout/failed": float(sum(not t.length for t in written)),
        "reward/failed": float(sum(t.reward is None for t in acted)),
        "rollout/tokens": float(sum(t.length for t in [*acted, *beside])),
    }
    if acted:
        out["rollout/length"] = float(np.mean([t.length for t in acted]))
        out["rollout/truncated"] = float(np.mean([t.info.get("finish") == "length" for t in acted]))
    if rewards:
        out["reward/mean"], out["reward/std"] = float(np.mean(rewards)), float(np.std(rewards))
    replayed = sum(t.origin is Origin.REPLAY for group in groups for t in group.trajectories)
    out |= {"rollout/replayed": float(replayed)} if replayed else {}
    for name in dict.fromkeys(name for part in parts for name in part):
        out[f"reward/{name}"] = float(np.mean([part[name] for part in parts if name in part]))
    return out


def staleness(groups: Sequence[Group], version: int) -> float:
    """How many updates older the policy was, on average over the tokens to train on, than `version`; NaN where there are none."""
    acted = [t.version[t.action] for group in groups for t in group.trajectories if t.origin is Origin.POLICY and t.length]
    return float(version - torch.cat(acted).float().mean()) if acted else float("nan")


def readable(groups: Sequence[Group], count: int) -> list[dict[str, object]]:
    """Some of a step's rollouts as people read them: the first of each group in turn, failures first."""
    members = [(group, t) for group in groups for t in group.trajectories]
    rank = {id(t): (t.error is None, position) for group in groups for position, t in enumerate(group.trajectories)}
    members.sort(key=lambda pair: rank[id(pair[1])])
    out = []
    for group, t in members[:count]:
        rewards = [other.reward for other in group.trainable if other.reward is not None]
        centred = None if t.reward is None or not rewards else t.reward - float(np.mean(rewards))
        out.append(
            {
                "prompt": group.prompt.text,
                "answer": group.prompt.answer,
                "text": t.text,
                "reward": t.reward,
                "rewards": t.info.get("rewards", {}),
                "advantage": centred,
                "finish": t.info.get("finish"),
                "tokens": t.length,
                "origin": t.origin.value,
                "error": t.error,
            }
        )
    return out
