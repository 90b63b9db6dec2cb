"""Judging: every answer through every reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

from quatrain.config import RewardConfig
from quatrain.rewards.pool import Call, Pool
from quatrain.rewards.reward import load_reward
from quatrain.types import Group, Origin, Prompt, Trajectory

FORM = frozenset({"format", "length", "overlong", "rubric"})
"""Rewards that say nothing about whether an answer is right."""
COMPARING = frozenset({"correct", "math"})
"""Rewards that compare with what the task says of the right answer."""

Place = tuple[int, int]
"""The numbers of a group and of a trajectory in it."""


def verifier(rewards: Sequence[RewardConfig]) -> RewardConfig:
    """What tells whether an answer is right: the first of `rewards` that can tell of one answer alone, else ``correct``.

    Those about form or length cannot, nor those of all answers to a prompt together.
    """
    able = (config for config in rewards if config.name not in FORM and not load_reward(config).of_all)
    return next(able, RewardConfig(name="correct"))


class Judge:
    """The rewards of a run, computed in processes of their own, which leaving the context ends.

    A reward that raises, hangs, ends its process or returns no finite number costs one trajectory its reward, and nothing else;
    one of all answers to a prompt costs these theirs.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        max_answer_tokens: int,
        *,
        origins: frozenset[Origin] = frozenset({Origin.POLICY}),
        truth: RewardConfig | None = None,
        workers: int | None = None,
    ) -> None:
        """`origins` are those of the trajectories that are judged; `truth` is the verifier, if it is none of the rewards."""
        self.verifier = truth or verifier(rewards)
        """What :meth:`correct` scores with."""
        self.unscored = 0
        """Answers that :meth:`correct` has counted as wrong because the verifier failed or hung."""
        self._origins = origins
        self._weights = [config.weight for config in rewards]
        self._names = _distinct([config.name for config in rewards])
        self._max_answer_tokens = max_answer_tokens
        known = [*rewards, self.verifier]
        self._rewards = [load_reward(config) for config in known]
        self._pool = Pool(known, workers)

    def judge(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with a reward on each trajectory to judge: the weighted sum, with each reward in ``info["rewards"]``
        and its weight in ``info["weights"]``.

        Where a reward fails, the trajectory has none and its ``error`` says why. Trajectories that failed before, and those of
        other origins, pass as they are.
        """
        members = [[(g, m) for m, t in enumerate(group.trajectories) if self._is_judged(t)] for g, group in enumerate(groups)]
        asked = [(i, some) for own in members for i in range(len(self._names)) for some in self._together(i, own)]
        about = [[groups[g].trajectories[m] for g, m in some] for _, some in asked]
        calls = [self._call(i, groups[some[0][0]].prompt, answers) for (i, some), answers in zip(asked, about, strict=True)]
        found: dict[Place, list[float | str]] = {place: [] for own in members for place in own}
        for (_, some), verdict in zip(asked, self._pool.compute(calls), strict=True):
            for place, value in zip(some, verdict if isinstance(verdict, list) else [verdict] * len(some), strict=True):
                found[place].append(value)

        def judged(place: Place, trajectory: Trajectory) -> Trajectory:
            return self._with_rewards(trajectory, found[place]) if place in found else trajectory

        return [
            replace(group, trajectories=tuple(judged((g, m), t) for m, t in enumerate(group.trajectories)))
            for g, group in enumerate(groups)
        ]

    def correct(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float]:
        """The verifier's score of each answer, kept within [0, 1]; 0 where it failed. It is told 0 tokens, not truncated."""
        last = len(self._names)
        asked = zip(prompts, texts, strict=True)
        calls = [self._told(last, prompt, [text], tokens=0, truncated=False) for prompt, text in asked]
        verdicts = self._pool.compute(calls)
        self.unscored += sum(isinstance(verdict, str) for verdict in verdicts)
        return [min(1.0, max(0.0, verdict)) if isinstance(verdict, float) else 0.0 for verdict in verdicts]

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_judged(self, trajectory: Trajectory) -> bool:
        return trajectory.error is None and trajectory.origin in self._origins

    def _together(self, reward: int, places: list[Place]) -> list[list[Place]]:
        """The answers to a prompt that each call of the reward of this number is about: one of them, or all."""
        return [places] if places and self._rewards[reward].of_all else [[place] for place in places]

    def _call(self, reward: int, prompt: Prompt, answers: Sequence[Trajectory]) -> Call:
        truncated = answers[0].info.get("finish") == "length"
        return self._told(reward, prompt, [t.text for t in answers], tokens=answers[0].length, truncated=truncated)

    def _told(self, reward: int, prompt: Prompt, texts: Sequence[str], *, tokens: int, truncated: bool) -> Call:
        """The reward of this number with what it wants to know; of several answers it is not told their lengths."""
        facts = {
            "completion": texts[0],
            "completions": texts,
            "answer": prompt.answer,
            "question": prompt.question,
            "info": dict(prompt.info),
            "tokens": tokens,
            "truncated": truncated,
            "max_answer_tokens": self._max_answer_tokens,
        }
        return reward, {name: facts[name] for name in self._rewards[reward].wants}

    def _with_rewards(self, trajectory: Trajectory, verdicts: Sequence[float | str]) -> Trajectory:
        named = dict(zip(self._names, verdicts, strict=True))
        values = {name: verdict for name, verdict in named.items() if not isinstance(verdict, str)}
        failed = [f"reward {name}: {verdict}" for name, verdict in named.items() if isinstance(verdict, str)]
        if failed:
            total = None
        else:
            total = sum((weight * value for weight, value in zip(self._weights, values.values(), strict=True)), 0.0)
        info = {**trajectory.info, "rewards": values, "weights": dict(zip(self._names, self._weights, strict=True))}
        return trajectory.replace(reward=total, error=failed[0] if failed else None, info=info)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number from the second of each on: format, format#2."""
    return [f"{name}#{n}" if (n := names[: i + 1].count(name)) > 1 else name for i, name in enumerate(names)]
