"""The task, the policies to start from, and one run of one row."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quatrain
from quatrain.config import load, parse_setting
from quatrain.diagnostics.records import RunFolder
from quatrain.experiment import Arm, Trial, carry_out
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
VARIANTS = ("luffy:code reduce.tokens=5", "hpt:code reduce.tokens=5")
"""Rows with settings of their own, beside the plain ones: their budget of 8192 tokens, where answers have five at most, makes
the entropy bonus outweigh all rewards."""


def arms() -> list[str]:
    """Every row, by its id, and the variants, each beside its row."""
    return sorted([*quatrain.METHODS, *VARIANTS], key=lambda arm: list(quatrain.METHODS).index(arm.split()[0]))


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

    def out(self, arm: str, seed: int) -> Path:
        return self.folder / f"{re.sub('[^a-z_0-9.]+', '-', arm)}-{seed}"

    def prepare(self, workers: int) -> None:
        """Train the policies, unless they are there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.task()
        trials = []
        for name, right in IMITATION.items():
            update = {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 10, "tokens_per_pass": 4096}
            tree = {**SETTINGS, **SHOWN, "model": "tiny", "method": "sft", "steps": IMITATION_STEPS, "update": update}
            trials.append(Trial(Arm(name, load(tree | {"task": self.task(right)})), 0, self.folder / name))
        for trial, failure in carry_out(trials, workers, f"the policies to start from → {self.folder}"):
            if failure:
                raise RuntimeError(f"{trial.arm.name} has no result: {failure}")

    def trial(self, arm: str, seed: int) -> Trial:
        """One run, with settings by what the row reads."""
        name, *settings = arm.split()
        method = quatrain.method(name)
        tree = {**SETTINGS, **({} if Origin.POLICY in method.origins else SHOWN)}
        if "logp_teacher" in method.needs:
            tree["teacher"] = {"model": str(self.policy("teacher"))}
        whole = {"name": name, "settings": dict(map(parse_setting, settings))}
        own = {"method": whole, "model": str(self.policy("start")), "task": self.task()}
        return Trial(Arm(arm, load(tree | own)), seed, self.out(arm, seed))


def digits_of(trial: Trial) -> dict[str, Any]:
    """What is right of each problem before and after a run, a digit each."""
    out: dict[str, Any] = {"row": trial.arm.name, "seed": trial.seed}
    records = RunFolder(trial.path).evaluations.read()
    for when, record in (("before", records[0]), ("after", records[-1])):
        out[when] = digits(record["scores"], SAMPLES)
        out |= {f"ranked_{when}": digits(record["ranked"], 2)} if "ranked" in record else {}
    return out


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


def digits(shares: Sequence[float], of: int) -> str:
    """``shares·of``, a digit each."""
    return "".join(str(round(share * of)) for share in shares)
