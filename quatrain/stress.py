"""Methods × stresses: which method stands what. Each cell is a run like any other but for what its dial does to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from quatrain.assembly import plan
from quatrain.config import ConfigError, RunConfig, load, merge, nearest
from quatrain.diagnostics.evaluation import Estimate, Evaluation, estimate
from quatrain.diagnostics.health import Collapse, collapse
from quatrain.diagnostics.records import RunFolder
from quatrain.diagnostics.statistics import interquartile_mean
from quatrain.experiment import Arm, Trial, carry_out
from quatrain.methods import METHODS
from quatrain.prompts import find_family

Settings = dict[str, Any]
PLAIN = "plain"
"""The cell in which nothing is done to a run."""


LAB: Settings = {
    "model": "tunnel",
    "task": {"name": "written:chain", "options": {"steps": 3}},
    "steps": 100,
    "prompts_per_step": 16,
    "max_answer_tokens": 48,
    "engine": {"max_sequences": 256},
    "update": {"lr": 1e-4, "minibatches": 2, "tokens_per_pass": 2048},
    "evaluate": {"problems": 100, "samples": 8, "temperature": 1.0, "top_p": 1.0, "k": [1, 8], "every": 0},
    "checkpoint": {"every": 0},
}
"""What a run of the lab is, where nothing else is said."""


@dataclass(frozen=True)
class Dial:
    """One thing that can be done to a run, by degrees."""

    about: str
    settings: Callable[[str, RunConfig], Settings]
    """What a value of the dial sets in a run; ValueError where there is no such value."""
    plain: str = ""
    """The value at which it does nothing, if there is one."""


def _one_of(**known: Settings) -> Callable[[str, RunConfig], Settings]:
    def settings(value: str, config: RunConfig) -> Settings:
        if value not in known:
            raise ValueError(nearest(value, known))
        return known[value]

    return settings


def _difficulty(value: str, config: RunConfig) -> Settings:
    kind, _, name = config.task.name.partition(":")
    if kind != "written":
        raise ValueError(f"{config.task.name} has no dial: take a task written:NAME")
    least, dash, most = value.partition("-")
    return {"task": {"options": {find_family(name).dial: [int(least), int(most)] if dash else int(value)}}}


DIALS: dict[str, Dial] = {
    "staleness": Dial("rollouts by weights so many steps older", lambda v, _: {"staleness": {"steps": int(v)}}, "0"),
    "partial": Dial(
        "answers written by so many versions and one", lambda v, _: {"staleness": {"steps": int(v), "partial": True}}, "0"
    ),
    "mismatch": Dial(
        "an engine that computes otherwise: bf16, int8, int4, vllm, or top_p, which draws from the likeliest nine tenths",
        _one_of(
            none={},
            bf16={"engine": {"weights": "bfloat16"}},
            int8={"engine": {"weights": "int8"}},
            int4={"engine": {"weights": "int4"}},
            vllm={"engine": {"name": "vllm"}},
            top_p={"sampling": {"top_p": 0.9}},
        ),
        "none",
    ),
    "updates": Dial("updates of each batch", lambda v, _: {"update": {"minibatches": int(v)}}),
    "difficulty": Dial("the task's dial: a value at which rewards are rare, or a range, 1-8, of lengths", _difficulty),
    "wrong": Dial("the share of rewards that are turned", lambda v, _: {"stress": {"turned": float(v)}}, "0"),
    "reference": Dial("another model to stay close to", lambda v, _: {"reference": {"model": v}}, "start"),
    "lr": Dial("times the learning rate", lambda v, config: {"update": {"lr": config.update.lr * float(v)}}, "1"),
    "bad_step": Dial("the step of which all rewards are turned", lambda v, _: {"stress": {"bad_step": int(v)}}, "none"),
    "steps": Dial("so many steps, for long runs", lambda v, _: {"steps": int(v)}),
}


def cells(dials: Sequence[str], config: RunConfig) -> dict[str, Settings]:
    """The cells of ``staleness=0,4 mismatch=int8`` by name, the plain one first.

    Raises:
        ConfigError: there is no such dial, or no such value of it.
    """
    found: dict[str, Settings] = {PLAIN: {}}
    for text in dials:
        name, equals, values = text.partition("=")
        if name not in DIALS or not equals:
            raise ConfigError(f"--dials {text}: there is no such dial, or no value: {nearest(name, DIALS)}; write staleness=4,16")
        for value in values.split(","):
            if value == DIALS[name].plain:
                continue
            try:
                found[f"{name}={Path(value).name}"] = DIALS[name].settings(value, config)
            except ValueError as error:
                raise ConfigError(f"--dials {name}={value}: {error}") from None
    return found


@dataclass(frozen=True)
class Found:
    """What one run came to."""

    method: str
    cell: str
    seed: int
    accuracy: float
    """On held-out problems, at its last evaluation."""
    gain: Mapping[str, float]
    """By estimate, as pass@8, the last evaluation minus the first one."""
    collapse: Collapse | None
    steps: int
    seconds: float

    @classmethod
    def of(cls, trial: Trial, method: str, cell: str) -> Found:
        """The run of a trial that is over."""
        folder = RunFolder(trial.path)
        metrics = folder.metrics.read()
        evaluations = list(Evaluation.of_records(folder.evaluations.read()).values())
        first, last = (evaluations[i].estimates for i in (0, -1))
        return cls(
            method,
            cell,
            trial.seed,
            last["pass@1"].value,
            {name: last[name].value - first[name].value for name in last},
            collapse(metrics, stopped=trial.stopped),
            len(metrics),
            sum(record["seconds/total"] for record in metrics),
        )


@dataclass(frozen=True)
class Square:
    """All runs of one method under one stress."""

    runs: tuple[Found, ...]

    @property
    def collapsed(self) -> Estimate:
        """The share of runs that collapsed, with Wilson's interval."""
        return estimate([float(run.collapse is not None) for run in self.runs])

    @property
    def accuracy(self) -> Estimate:
        """The interquartile mean over runs, those that collapsed included."""
        return interquartile_mean([run.accuracy for run in self.runs])

    def to_json(self) -> dict[str, Any]:
        """Figures, intervals and every run."""
        gains = {name: float(np.mean([run.gain[name] for run in self.runs])) for name in self.runs[0].gain}
        runs = [vars(run) | {"collapse": run.collapse and vars(run.collapse)} for run in self.runs]
        told = {"collapsed": vars(self.collapsed), "accuracy": vars(self.accuracy), "gain": gains}
        return told | {"runs": [{k: v for k, v in run.items() if k not in ("method", "cell")} for run in runs]}


@dataclass(frozen=True)
class Lab:
    """Every method under every stress with every seed, in the folders ``FOLDER/CELL/METHOD/seed-N``."""

    trials: Mapping[tuple[str, str], Sequence[Trial]]
    """By method and cell."""
    impossible: Mapping[tuple[str, str], str]
    """Why a method cannot be run in a cell."""

    @classmethod
    def of(
        cls,
        methods: Sequence[str],
        dials: Sequence[str],
        tree: Mapping[str, Any],
        settings: Sequence[str],
        seeds: int,
        folder: Path,
    ) -> Lab:
        """The lab of `methods` under `dials`, its runs otherwise as `tree` and `settings` say; ``all`` are those the task suits.

        Raises:
            ConfigError: a method or a dial is unknown, or a named method cannot be run on the task at all.
        """
        every = list(methods) == ["all"]
        trials: dict[tuple[str, str], Sequence[Trial]] = {}
        impossible: dict[tuple[str, str], str] = {}
        for method in METHODS if every else methods:
            try:
                config = load(merge(tree, {"method": method}), settings)
                plan(config)
            except ConfigError as error:
                if every:
                    continue
                raise ConfigError(f"{method}: {error}") from None
            for cell, own in cells(dials, config).items():
                try:
                    stressed = load(merge(config.model_dump(mode="json"), own))
                    planned = plan(stressed)
                    if "reference" in own and "logp_ref" not in planned.method.needs:
                        raise ConfigError("it has no reference")
                except ConfigError as error:
                    impossible[method, cell] = str(error)
                    continue
                place = folder / cell / re.sub(r"[^\w.=-]+", "-", method)
                arm = Arm(f"{method} {cell}", stressed)
                trials[method, cell] = [Trial(arm, seed, place / f"seed-{seed}") for seed in range(seeds)]
        return cls(trials, impossible)

    def carry_out(self, workers: int | None, title: str) -> dict[tuple[str, str], str]:
        """Do all that is not done yet, seed by seed; by method and cell why a run has no result, where one has none."""
        inside = {id(trial): key for key, some in self.trials.items() for trial in some}
        rounds = zip_longest(*self.trials.values())
        lost = {}
        for trial, failure in carry_out([trial for some in rounds for trial in some if trial], workers, title):
            if failure and not trial.stopped:
                lost[inside[id(trial)]] = failure
        return lost

    def squares(self) -> Iterator[tuple[tuple[str, str], Square]]:
        """What each method came to under each stress, of the runs that are over."""
        for (method, cell), some in self.trials.items():
            runs = tuple(Found.of(trial, method, cell) for trial in some if trial.is_over)
            if runs:
                yield (method, cell), Square(runs)
