"""The side of TRL's GRPOTrainer, which trains until nobody asks for a step any more."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.side import Channel


class Turns(TrainerCallback):
    """A step begins when it is asked for, and then is told."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.told: dict[str, Any] = {}

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.channel.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        before = self.told["rollout"] + self.told["reward"]
        self.channel.tell(update=time.perf_counter() - self.channel.began - before, **self.told)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose seconds are told as those of the stage."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            out = function(*args, **kwargs)
            self.told[stage] = time.perf_counter() - began
            return out

        return call


def main() -> None:
    channel = Channel()
    job = channel.job
    torch.set_num_threads(job.threads)
    turns = Turns(channel)

    def reward(prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        found = [job.reward(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        turns.told |= {"tokens": sum(map(len, completion_ids)), "mean_reward": fmean(found)}
        return found

    own = {"per_device_train_batch_size": min(8, job.sequences)} | job.settings
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
            max_steps=10**6,
            seed=job.seed,
            shuffle_dataset=False,
            learning_rate=job.lr,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            loss_type="grpo",
            beta=0.0,
            num_generations=job.group_size,
            max_completion_length=job.answer_tokens,
            generation_kwargs={"min_new_tokens": job.answer_tokens} if job.answers is None else None,
            gradient_accumulation_steps=job.sequences // own["per_device_train_batch_size"],
            **own,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32),
            args=config,
            processing_class=AutoTokenizer.from_pretrained(job.model, padding_side="left"),
            train_dataset=Dataset.from_dict({"prompt": job.prompts}),
            reward_funcs=[reward],
            callbacks=[turns],
        )
        trainer._generate = turns.timed("rollout", trainer._generate)
        trainer._calculate_rewards = turns.timed("reward", trainer._calculate_rewards)
        channel.ready()
        trainer.train()


if __name__ == "__main__":
    main()
