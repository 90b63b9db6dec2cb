"""Rewards that are wrong on purpose, to see what a method stands."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from quatrain.rewards.judge import Judge
from quatrain.types import Group, Trajectory


@dataclass
class Turned:
    """A judge of whose rewards some say the opposite: r becomes 1 − r."""

    by: Judge
    share: float
    """How many of all rewards are turned; which ones depends on the seed, the prompt's id and the answer's number alone."""
    bad_step: int | None
    """A step of which all are turned instead."""
    seed: int
    steps: int = 0
    """How many were judged."""

    def judge(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with their rewards, some of them turned; ``info["turned"]`` says of which answers."""
        self.steps += 1
        return [
            replace(group, trajectories=tuple(self._turned(t, number) for number, t in enumerate(group.trajectories)))
            for group in self.by.judge(groups)
        ]

    def _turned(self, trajectory: Trajectory, number: int) -> Trajectory:
        drawn = random.Random(f"turned/{self.seed}/{trajectory.prompt_id}/{number}").random()
        if trajectory.reward is None or not (self.steps == self.bad_step or drawn < self.share):
            return trajectory
        return trajectory.replace(reward=1 - trajectory.reward, info={**trajectory.info, "turned": True})
