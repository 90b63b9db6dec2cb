"""What a step's groups say of the policy, in the names that every run uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quatrain.types import Group, Origin


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Rewards and their parts, lengths and failures of what the policy wrote; what was laid beside it does not count."""
    written = [t for group in groups for t in group.trajectories if t.origin is Origin.POLICY]
    if not written:
        return {}
    acted = [t for t in written if t.length]
    judged = [(t.reward, t.info["rewards"]) for t in written if t.reward is not None and t.info.get("rewards")]
    rewards, parts = [reward for reward, _ in judged], [part for _, part in judged]
    out = {
        "rollout/failed": float(sum(not t.length for t in written)),
        "reward/failed": float(sum(t.reward is None for t in acted)),
        "rollout/tokens": float(sum(t.length for t in acted)),
    }
    if acted:
        out["rollout/length"] = float(np.mean([t.length for t in acted]))
        out["rollout/truncated"] = float(np.mean([t.info.get("finish") == "length" for t in acted]))
    if rewards:
        out["reward/mean"], out["reward/std"] = float(np.mean(rewards)), float(np.std(rewards))
    for name in dict.fromkeys(name for part in parts for name in part):
        out[f"reward/{name}"] = float(np.mean([part[name] for part in parts if name in part]))
    return out


def readable(groups: Sequence[Group], count: int) -> list[dict[str, object]]:
    """Some of a step's rollouts as people read them: the first of each group in turn, failures first."""
    members = [(group, t) for group in groups for t in group.trajectories]
    rank = {id(t): (t.error is None, position) for group in groups for position, t in enumerate(group.trajectories)}
    members.sort(key=lambda pair: rank[id(pair[1])])
    out = []
    for group, t in members[:count]:
        rewards = [other.reward for other in group.trajectories if other.reward is not None]
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
