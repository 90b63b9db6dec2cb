"""The task, the policies to start from, and one run of one row."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import quatrain
from quatrain.config import load
from quatrain.diagnostics.evaluation import Evaluation
from quatrain.diagnostics.progress import Progress
from quatrain.objective import Method
from quatrain.run import Result
from quatrain.types import Origin

NUMBERS = 100
"""Both numbers lie below."""
IMITATION = {"start": 140, "teacher": 400}
"""Steps of imitation behind each policy."""
SEEDS = (0, 1, 2)
SETTINGS: dict[str, Any] = {
    "steps": 40,
    "prompts_per_step": 16,
    "group_size": 8,
    "max_answer_tokens": 5,
    "threads": 1,
    "update": {"lr": 2e-4, "minibatches": 2, "tokens_per_pass": 4096},
    "engine": {"max_sequences": 128},
    "evaluate": {"every": 0, "problems": 200, "samples": 4, "temperature": 1.0},
    "checkpoint": {"every": 0},
}
"""Of every run; accuracy is that of answers drawn at temperature 1."""
SHOWN = {"prompts_per_step": 64}
"""Of runs in which the policy writes nothing: data are cheap."""


@dataclass(frozen=True)
class Place:
    """Where the experiment keeps its task, its policies and its runs."""

    folder: Path

    @property
    def task(self) -> Path:
        return self.folder / "larger.jsonl"

    def policy(self, name: str) -> Path:
        return self.folder / name / "model"

    def prepare(self) -> None:
        """Write the task and train the policies, unless they are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.task.exists():
            self.task.write_text("".join(json.dumps(problem) + "\n" for problem in problems()))
        for name, steps in IMITATION.items():
            if not self.policy(name).is_dir():
                update = {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 10, "tokens_per_pass": 4096}
                tree = {**SETTINGS, **SHOWN, "model": "tiny", "method": "sft", "steps": steps, "update": update}
                silently(tree | {"task": self._task, "out": str(self.folder / name)})

    @property
    def _task(self) -> dict[str, Any]:
        return {"name": str(self.task), "template": "plain", "examples": 0}

    def tree(self, name: str, method: Method, seed: int) -> dict[str, Any]:
        """The settings of one run, by what the row reads."""
        tree = {**SETTINGS, **({} if Origin.POLICY in method.origins else SHOWN)}
        if "logp_teacher" in method.needs:
            tree["teacher"] = {"model": str(self.policy("teacher"))}
        own = {"method": name, "model": str(self.policy("start")), "task": self._task, "seed": seed}
        return tree | own | {"out": str(self.folder / f"{name.replace(':', '-')}-{seed}")}

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train one row with one seed, or take up what is there: how many answers to each problem are right, before and after."""
        tree = self.tree(name, quatrain.method(name), seed)
        folder = Path(tree["out"])
        result = quatrain.resume(folder, progress=quiet()) if folder.exists() else silently(tree)
        assert result.before is not None
        assert result.after is not None
        return {"row": name, "seed": seed, "before": digits(result.before), "after": digits(result.after)}


def problems() -> list[dict[str, str]]:
    """Every two different numbers once, in an order drawn once: the larger one is right, the smaller one is wrong."""
    pairs = [(a, b) for a in range(NUMBERS) for b in range(NUMBERS) if a != b]
    random.Random(0).shuffle(pairs)
    numbers = [(f"{a:02d} {b:02d}", f"{max(a, b):02d}", f"{min(a, b):02d}") for a, b in pairs]
    return [{"prompt": text, "answer": right, "chosen": right, "rejected": wrong} for text, right, wrong in numbers]


def silently(tree: dict[str, Any]) -> Result:
    return quatrain.train(load(tree), progress=quiet())


def quiet() -> Progress:
    return Progress(0, "", console=Console(quiet=True))


def digits(evaluation: Evaluation) -> str:
    """How many of its answers to each problem are right, a digit each."""
    return "".join(str(round(right)) for right in np.asarray(evaluation.scores).sum(1))
