"""The task, the policies to start from, and one run of one row."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import quatrain
from quatrain.config import load
from quatrain.diagnostics.evaluation import Evaluation
from quatrain.diagnostics.progress import Progress
from quatrain.objective import Method
from quatrain.run import Result
from quatrain.types import Origin
from reproductions.rows.results import SAMPLES

NUMBERS = 100
"""Both numbers lie below."""
IMITATION = {"start": 0.6, "teacher": 1.0}
"""How many of the answers that each policy imitated were right."""
IMITATION_STEPS = 300
SEEDS = (0, 1, 2)
SETTINGS: dict[str, Any] = {
    "steps": 40,
    "prompts_per_step": 16,
    "group_size": 8,
    "max_answer_tokens": 5,
    "threads": 1,
    "update": {"lr": 2e-4, "minibatches": 2, "tokens_per_pass": 4096},
    "process": {"lr": 2e-4},
    "engine": {"max_sequences": 128},
    "evaluate": {"every": 0, "problems": 200, "samples": SAMPLES, "temperature": 1.0},
    "checkpoint": {"every": 0},
}
"""Of every run; accuracy is that of answers drawn at temperature 1."""
SHOWN = {"prompts_per_step": 64}
"""Of runs in which the policy writes nothing: data are cheap."""


@dataclass(frozen=True)
class Place:
    """Where the experiment keeps its task, its policies and its runs."""

    folder: Path

    def task(self, right: float = 1.0) -> dict[str, Any]:
        """The problems, with right answers for the share `right` and wrong ones for the rest."""
        file = self.folder / f"larger-{right}.jsonl"
        if not file.exists():
            file.write_text("".join(json.dumps(problem) + "\n" for problem in problems(right)))
        return {"name": str(file), "template": "plain", "examples": 0}

    def policy(self, name: str) -> Path:
        return self.folder / name / "model"

    def prepare(self) -> None:
        """Train the policies, unless they are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.task()
        for name, right in IMITATION.items():
            if not self.policy(name).is_dir():
                update = {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 10, "tokens_per_pass": 4096}
                tree = {**SETTINGS, **SHOWN, "model": "tiny", "method": "sft", "steps": IMITATION_STEPS, "update": update}
                self._carry_out(tree | {"task": self.task(right), "out": str(self.folder / name)})

    def tree(self, name: str, method: Method, seed: int) -> dict[str, Any]:
        """The settings of one run, by what the row reads."""
        tree = {**SETTINGS, **({} if Origin.POLICY in method.origins else SHOWN)}
        if "logp_teacher" in method.needs:
            tree["teacher"] = {"model": str(self.policy("teacher"))}
        own = {"method": name, "model": str(self.policy("start")), "task": self.task(), "seed": seed}
        return tree | own | {"out": str(self.folder / f"{name.replace(':', '-')}-{seed}")}

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Train one row with one seed, or take up what is there: how many answers to each problem are right, before and after."""
        tree = self.tree(name, quatrain.method(name), seed)
        result = self._carry_out(tree)
        assert result.before is not None
        assert result.after is not None
        return {"row": name, "seed": seed, "before": digits(result.before), "after": digits(result.after)}

    @staticmethod
    def _carry_out(tree: dict[str, Any]) -> Result:
        """Silently; a run that was begun goes on."""
        folder = Path(tree["out"])
        with Progress(0, "", console=Console(quiet=True)) as progress:
            return (
                quatrain.resume(folder, progress=progress) if folder.exists() else quatrain.train(load(tree), progress=progress)
            )


def problems(right: float) -> list[dict[str, str]]:
    """Every two different numbers once, to say the larger one of; for all but the share `right`, the smaller one. Drawn once."""
    draw = random.Random(0)
    pairs = [(a, b) for a in range(NUMBERS) for b in range(NUMBERS) if a != b]
    draw.shuffle(pairs)
    out = []
    for a, b in pairs:
        better, worse = (f"{pick(a, b):02d}" for pick in ((max, min) if draw.random() < right else (min, max)))
        out.append({"prompt": f"{a:02d} {b:02d}", "answer": better, "chosen": better, "rejected": worse})
    return out


def digits(evaluation: Evaluation) -> str:
    """How many of its answers to each problem are right, a digit each."""
    return "".join(str(round(share * SAMPLES)) for share in evaluation.scores)
