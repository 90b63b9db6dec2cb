"""Judging: every answer through every reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

from quatrain.config import RewardConfig
from quatrain.rewards.pool import Call, Pool, Verdict
from quatrain.rewards.reward import load_reward
from quatrain.types import Group, Origin, Prompt, Trajectory

FORM = frozenset({"format", "length", "overlong"})
"""Rewards that say nothing about whether an answer is right."""
COMPARING = frozenset({"correct", "math"})
"""Rewards that compare with what the task says of the right answer."""


def verifier(rewards: Sequence[RewardConfig]) -> RewardConfig:
    """What tells whether an answer is right: the first of `rewards` that is not about form or length, else ``correct``."""
    return next((config for config in rewards if config.name not in FORM), RewardConfig(name="correct"))


class Judge:
    """The rewards of a run, computed in processes of their own, which leaving the context ends.

    A reward that raises, hangs, ends its process or returns no finite number costs one trajectory its reward, and nothing else.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        max_answer_tokens: int,
        *,
        origins: frozenset[Origin] = frozenset({Origin.POLICY}),
        workers: int | None = None,
    ) -> None:
        """`origins` are those of the trajectories that are judged."""
        self.verifier = verifier(rewards)
        """What :meth:`correct` scores with."""
        self.unscored = 0
        """Answers that :meth:`correct` has counted as wrong because the verifier failed or hung."""
        self._origins = origins
        self._weights = [config.weight for config in rewards]
        self._names = _distinct([config.name for config in rewards])
        self._max_answer_tokens = max_answer_tokens
        known = [*rewards, self.verifier]
        self._wants = [load_reward(config).wants for config in known]
        self._pool = Pool(known, workers)

    def judge(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with a reward on each trajectory to judge: the weighted sum, with each reward in ``info["rewards"]``.

        Where a reward fails, the trajectory has none and its ``error`` says why. Trajectories that failed before, and those of
        other origins, pass as they are.
        """
        asked = [(g.prompt, t) for g in groups for t in g.trajectories if self._is_judged(t)]
        verdicts = iter(self._pool.compute([self._call(i, *pair) for pair in asked for i in range(len(self._names))]))

        def judged(trajectory: Trajectory) -> Trajectory:
            if not self._is_judged(trajectory):
                return trajectory
            return self._with_rewards(trajectory, {name: next(verdicts) for name in self._names})

        return [replace(g, trajectories=tuple(judged(t) for t in g.trajectories)) for g in groups]

    def correct(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        """The verifier's score of each answer, kept within [0, 1]; 0 where it failed. It is told 0 tokens, not truncated."""
        last = len(self._names)
        pairs = zip(prompts, texts, strict=True)
        verdicts = self._pool.compute([(last, self._facts(last, *pair, tokens=0, truncated=False)) for pair in pairs])
        self.unscored += sum(isinstance(verdict, str) for verdict in verdicts)
        return [0.0 if isinstance(verdict, str) else min(1.0, max(0.0, verdict)) for verdict in verdicts]

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_judged(self, trajectory: Trajectory) -> bool:
        return trajectory.error is None and trajectory.origin in self._origins

    def _call(self, reward: int, prompt: Prompt, trajectory: Trajectory) -> Call:
        truncated = trajectory.info.get("finish") == "length"
        return reward, self._facts(reward, prompt, trajectory.text, tokens=trajectory.length, truncated=truncated)

    def _facts(self, reward: int, prompt: Prompt, completion: str, *, tokens: int, truncated: bool) -> dict[str, Any]:
        """What the reward of this number wants to know."""
        facts = {
            "completion": completion,
            "answer": prompt.answer,
            "question": prompt.question,
            "info": dict(prompt.info),
            "tokens": tokens,
            "truncated": truncated,
            "max_answer_tokens": self._max_answer_tokens,
        }
        return {name: facts[name] for name in self._wants[reward]}

    def _with_rewards(self, trajectory: Trajectory, verdicts: dict[str, Verdict]) -> Trajectory:
        values = {name: verdict for name, verdict in verdicts.items() if not isinstance(verdict, str)}
        failed = [f"reward {name}: {verdict}" for name, verdict in verdicts.items() if isinstance(verdict, str)]
        if failed:
            total = None
        else:
            total = sum((weight * value for weight, value in zip(self._weights, values.values(), strict=True)), 0.0)
        info = {**trajectory.info, "rewards": values}
        return trajectory.replace(reward=total, error=failed[0] if failed else None, info=info)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number from the second of each on: format, format#2."""
    return [f"{name}#{n}" if (n := names[: i + 1].count(name)) > 1 else name for i, name in enumerate(names)]
