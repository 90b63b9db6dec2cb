"""The side of this library: its loop, engine and learner around a job's prompts and rewards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.side import Channel
from quatrain import loop
from quatrain.config import ModelConfig, UpdateConfig
from quatrain.methods import method
from quatrain.objective import Method
from quatrain.policies import CausalLM, load_model
from quatrain.rollouts import Rollout, Sampling, TorchEngine
from quatrain.types import Batch, Group, Prompt
from quatrain.update import Learner


class Stages:
    """What stands around acting and learning: prompts when they are asked for, rewards, and what a step came to."""

    def __init__(self, channel: Channel, learner: Learner, methods: Sequence[Method]) -> None:
        self.channel, self.job, self.learner, self.methods = channel, channel.job, learner, methods
        self.taken = 0
        self.told: dict[str, float] = {}

    def take(self, count: int) -> list[Prompt]:
        self.channel.wait()
        self.learner.method = self.methods[self.taken // count % len(self.methods)]
        places = range(self.taken, self.taken + count)
        self.taken += count
        known = self.job.prompts
        return [Prompt(i, known[i % len(known)], known[i % len(known)]) for i in places]

    def judge(self, groups: Sequence[Group]) -> list[Group]:
        return [
            Group(g.prompt, tuple(t.replace(reward=self.job.reward(g.prompt.text, t.text)) for t in g.trajectories))
            for g in groups
        ]

    def learn(self, groups: Sequence[Group]) -> None: ...

    def rollouts(self, step: int, groups: Sequence[Group], batch: Batch) -> None:
        assert batch.action is not None and batch.reward is not None
        self.told = {"tokens": int(batch.action.sum()), "mean_reward": batch.reward.mean().item()}

    def evaluate(self, step: int) -> dict[str, float]:
        return {}

    def log(self, step: int, groups: Sequence[Group], metrics: dict[str, Any], clock: loop.Clock) -> None:
        self.channel.tell(**{name: clock.seconds[name] for name in ("rollout", "reward", "update")}, **self.told)

    def checkpoint(self, step: int) -> None: ...


def main() -> None:
    channel = Channel()
    job = channel.job
    torch.set_num_threads(job.threads)
    policy = CausalLM(*load_model(ModelConfig(name=job.model), seed=0))
    if job.answers is None:
        policy.base.generation_config.eos_token_id = []  # no token ends an answer
    methods = [method(name).with_settings({"kl.coefficient": 0} if name == "grpo" else {}) for name in job.methods]
    learner = Learner(policy, methods[0], UpdateConfig(lr=job.lr, **job.settings), steps=sys.maxsize, seed=job.seed)
    engine = TorchEngine(policy, max_sequences=job.sequences)

    def encode(text: str) -> list[int]:
        return policy.tokenizer(text)["input_ids"]

    rollout = Rollout(engine, Sampling(job.answer_tokens), job.group_size, encode, encode, policy.context, job.seed)
    stages = Stages(channel, learner, methods)
    channel.ready()
    loop.train(range(1, sys.maxsize), job.prompts_per_step, stages, rollout, stages, learner, stages)


if __name__ == "__main__":
    main()
