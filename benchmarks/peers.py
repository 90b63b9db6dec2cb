"""One step of GRPO in this library and in TRL's GRPOTrainer, by turns, and what both learn from the same prompts.

Both sides run in one environment, that of ``make oracles``, and so on the same torch and transformers; each in a process of its
own that is kept open. What is measured is written at once, and the command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils import logging

from benchmarks.counting import SHAPES, Shape
from benchmarks.results import arguments, hardware, place, read, write
from benchmarks.side import Job, Side, texts
from quatrain import tunnel
from quatrain.config import ModelConfig, TaskConfig, TunnelConfig
from quatrain.policies import load_model
from quatrain.prompts import open_task

SIDES = {"quatrain": "benchmarks.with_quatrain", "trl": "benchmarks.with_trl"}
PYTHON = Path(os.environ.get("ORACLES", ".venv-oracles")) / "bin/python"
TRIED: dict[str, dict[str, Any]] = {
    "micro-batches of 4": {"per_device_train_batch_size": 4},
    "micro-batches of 8": {"per_device_train_batch_size": 8},
    "micro-batches of 16": {"per_device_train_batch_size": 16},
    "all sequences at once": {"per_device_train_batch_size": 0},
    "a static cache": {"cache_implementation": "static"},
    "continuous batching": {"use_transformers_continuous_batching": True},
    "eager attention": {"model_init_kwargs": {"attn_implementation": "eager"}},
    "torch.compile": {"torch_compile": True},
}
"""Settings of TRL's that could be its best, each on top of micro-batches of 8; 0 stands for all sequences."""
USUAL = "micro-batches of 8"
QUICK = {"short": Shape(2, 2, 8, 4)}
TASK = "written:addition"
LEARNING: dict[str, Any] = {"prompts_per_step": 16, "group_size": 8, "answer_tokens": 32, "lr": 1e-4}
"""Of the runs whose rewards are compared; the model is ``tunnel``."""
LEARNING_STEPS = 60


def main() -> None:
    parser = arguments("peers", "One step of GRPO in this library and in TRL, by turns.")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--pairs", default=5, type=int, help="steps of each side that are wanted in all")
    parser.add_argument("--seeds", default=5, type=int, help="runs of each side whose rewards are compared; 0 for none")
    parser.add_argument("--tune", action="store_true", help="first try TRL's settings on each shape, one step of each")
    parser.add_argument("--anew", action="store_true", help="forget what was measured of what is wanted now")
    parser.add_argument("--python", default=PYTHON, type=Path, help="of the environment that TRL is in; ORACLES names its folder")
    given = parser.parse_args()
    if not given.python.exists():
        parser.error(f"there is no {given.python}: run `make oracles`, or say --python")
    logging.disable_progress_bar()
    Peers(given).measure()


class Peers:
    """What is measured so far, and what is wanted."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.console, self.path = given, Console(highlight=False), place(given, "peers")
        empty: dict[str, Any] = {"made_with": {}, "tried": {}, "pairs": {}, "learning": {"settings": {}, "runs": []}}
        self.found = empty | read(self.path)
        self.shapes = QUICK if given.quick else {name: SHAPES[name] for name in given.shapes}

    def measure(self) -> None:
        if self.given.anew:
            for part in ("pairs", "tried") if self.given.tune else ("pairs",):
                self.found[part] = {name: done for name, done in self.found[part].items() if name not in self.shapes}
            self.found["learning"]["runs"] = [] if self.given.seeds else self.found["learning"]["runs"]
        for name, shape in self.shapes.items():
            job = self.job(shape)
            if self.given.tune:
                self.tune(name, job)
            self.pairs(name, job)
        for seed in range(1 if self.given.quick else self.given.seeds):
            if seed not in [run["seed"] for run in self.found["learning"]["runs"]]:
                self.learn(seed)

    def job(self, shape: Shape) -> Job:
        """SmolLM2 on texts of just so many tokens."""
        model, tokenizer = load_model(ModelConfig(name="smollm2"), 0)
        prompts = texts(tokenizer, 16 * shape.prompts, shape.prompt_tokens)
        return Job(model.name_or_path, prompts, shape.prompts, shape.group, shape.answer_tokens, threads=self.given.threads)

    def tune(self, name: str, job: Job) -> None:
        """One step under each of the settings that TRL could be at its best with, or why there is none."""
        done = self.found["tried"].setdefault(name, {})
        for title, settings in TRIED.items():
            if title in done or (self.given.quick and title != USUAL):
                continue
            try:
                with Side(SIDES["trl"], settled(job, settings), self.given.python) as side:
                    done[title] = side.step()
            except RuntimeError as error:
                done[title] = {"failure": str(error)}
            self.say(f"{name}, TRL with {title}: {done[title].get('failure') or format(done[title]['seconds'], '.2f') + ' s'}")

    def best(self, name: str) -> str:
        """The fastest of what was tried."""
        worked = {title: step["seconds"] for title, step in self.found["tried"].get(name, {}).items() if "seconds" in step}
        return min(worked, key=worked.__getitem__, default=USUAL)

    def pairs(self, name: str, job: Job) -> None:
        """A step of each side by turns, until there are as many as wanted; a process's first, which is cold, does not count."""
        done = self.found["pairs"].setdefault(name, [])
        wanted = 1 if self.given.quick else self.given.pairs
        if len(done) >= wanted:
            return
        best = self.best(name)
        with ExitStack() as stack:
            sides = self.open(stack, {"quatrain": job, "trl": settled(job, TRIED[best])})
            for side in sides.values():
                side.step()
            while len(done) < wanted:
                done.append({"trl_settings": best} | {title: side.step() for title, side in sides.items()})
                ours, theirs = (done[-1][title]["seconds"] for title in SIDES)
                self.say(f"{name}, pair {len(done)}: {ours:.2f} s, TRL {theirs:.2f} s, {theirs / ours:.2f} times as long")

    def learn(self, seed: int) -> None:
        """Both sides from the same weights, on the same problems in the same order: the mean reward of each step."""
        steps = 2 if self.given.quick else LEARNING_STEPS
        made = TunnelConfig(steps=2) if self.given.quick else TunnelConfig()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            model, tokenizer = load_model(ModelConfig(name=str(tunnel.make(made))), 0)
            assert model.generation_config is not None
            tokenizer.eos_token = "\n"  # with which the model was taught to end its solutions
            model.generation_config.eos_token_id = tokenizer.eos_token_id
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            problems = list(islice(open_task(TaskConfig(name=TASK)).problems(seed), steps * LEARNING["prompts_per_step"]))
            asked = [tunnel.PLAIN.render(problem) for problem in problems]
            answers = [str(problem.answer) for problem in problems]
            job = Job(folder, asked, **LEARNING, answers=answers, seed=seed, threads=self.given.threads)
            whole = {"per_device_train_batch_size": job.sequences}
            sides = self.open(stack, {"quatrain": job, "trl": settled(job, whole)})
            told = [{title: side.step()["mean_reward"] for title, side in sides.items()} for _ in range(steps)]
        rewards = {title: [step[title] for step in told] for title in SIDES}
        self.found["learning"]["settings"] = {"model": "tunnel", "task": TASK, "steps": steps, **LEARNING}
        self.found["learning"]["runs"].append({"seed": seed, **rewards})
        last = {title: sum(values[-10:]) / len(values[-10:]) for title, values in rewards.items()}
        self.say(f"seed {seed}, reward of the last 10 steps: {last['quatrain']:.3f}, TRL {last['trl']:.3f}")

    def open(self, stack: ExitStack, jobs: dict[str, Job]) -> dict[str, Side]:
        sides = {title: stack.enter_context(Side(SIDES[title], job, self.given.python)) for title, job in jobs.items()}
        self.found["made_with"] = sides["trl"].made_with | hardware(self.given.threads)
        return sides

    def say(self, line: str) -> None:
        """What was found is on disk before it is told."""
        write(self.path, self.found | {"shapes": {name: asdict(shape) for name, shape in SHAPES.items()}})
        self.console.print(line, markup=False)


def settled(job: Job, settings: dict[str, Any]) -> Job:
    """With settings of TRL's; a micro-batch of 0 is all sequences."""
    size = settings.get("per_device_train_batch_size", TRIED[USUAL]["per_device_train_batch_size"]) or job.sequences
    return replace(job, settings=settings | {"per_device_train_batch_size": min(size, job.sequences)})


if __name__ == "__main__":
    main()
