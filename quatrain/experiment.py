"""Arms × seeds: what is compared, each run in a folder and a process of its own; what is done is read, what was begun goes on."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self, cast

import torch
from rich.console import Console

from quatrain.assembly import Plan, truth
from quatrain.config import ConfigError, ModelConfig, RunConfig, TeacherConfig, load, merge, read_yaml
from quatrain.diagnostics.progress import Progress
from quatrain.diagnostics.records import RunFolder, write_atomic
from quatrain.diagnostics.report import differing
from quatrain.errors import StoppedRun
from quatrain.methods import method as find_method
from quatrain.run import check, resume, train

POLL_SECONDS = 0.5
"""How often the display looks at how far the runs are."""
SHARED = ("task", "max_answer_tokens", "evaluate")
"""Settings that, with the reward that tells right from wrong, say what is measured."""


@dataclass(frozen=True)
class Arm:
    """One of the things compared; its seed and its folder are the experiment's to say."""

    name: str
    config: RunConfig
    first: RunConfig | None = None
    """The run whose model this one goes on from, as reinforcement goes on from imitation; its steps count, too."""

    @classmethod
    def of(cls, name: str, tree: Mapping[str, Any], settings: Sequence[str] = ()) -> Self:
        """The arm that `tree` describes, with ``key=value`` settings on top; an error names it.

        What stands under ``first`` is what the run before it has otherwise; another method there has settings of its own.
        """
        own = {key: value for key, value in tree.items() if key != "first"}
        other = tree.get("first", {})
        shared = {key: value for key, value in own.items() if key.partition(".")[0] != "method" or "method" not in other}
        try:
            first = load(merge(shared, other), settings) if "first" in tree else None
            return cls(name, load(own, settings), first)
        except ConfigError as error:
            raise ConfigError(f"arm {name}: {error}") from None

    @property
    def steps(self) -> int:
        """Of all its runs."""
        return sum(run.steps for run in self.runs)

    def within(self, steps: int) -> Arm:
        """With so many steps in all, shared out as they were."""
        if self.first is None:
            return replace(self, config=self.config.model_copy(update={"steps": steps}))
        if steps < 2:
            raise ConfigError(f"arm {self.name}: two runs need two steps or more, not {steps}")
        early = min(max(1, round(steps * self.first.steps / self.steps)), steps - 1)
        shared = {"first": early, "config": steps - early}
        return replace(self, **{name: getattr(self, name).model_copy(update={"steps": n}) for name, n in shared.items()})

    @property
    def runs(self) -> list[RunConfig]:
        """One, or two."""
        return [run for run in (self.first, self.config) if run]

    def without_idle(self, teacher: str | None) -> Arm:
        """With the model `teacher` for those of its runs alone that learn from one.

        Raises:
            ConfigError: there is no such method, or no such setting of it.
        """
        return replace(
            self,
            config=self._without_idle(teacher, self.config),
            first=self.first and self._without_idle(teacher, self.first),
        )

    def _without_idle(self, teacher: str | None, run: RunConfig) -> RunConfig:
        try:
            needs = find_method(run.method.name).with_settings(run.method.settings).needs
        except ConfigError as error:
            raise ConfigError(f"arm {self.name}: {error}") from None
        idle = run.teacher.model == teacher and "logp_teacher" not in needs
        return run.model_copy(update={"teacher": TeacherConfig()}) if idle else run


@dataclass(frozen=True)
class Trial:
    """One arm with one seed."""

    arm: Arm = field(compare=False)
    seed: int
    path: Path

    @property
    def config(self) -> RunConfig:
        """On one thread unless told otherwise, so that its bits do not depend on how many trials run beside it."""
        config, first = self.arm.config, self.first
        if first:
            kept = {name: value for name, value in config.model if name not in ("name", "tunnel")}
            config = config.model_copy(update={"model": ModelConfig(name=str(RunFolder(first.path).model), **kept)})
        return config.model_copy(update={"seed": self.seed, "out": str(self.path), "threads": config.threads or 1})

    @property
    def first(self) -> Trial | None:
        """The run before it, in a folder beside its own."""
        first = self.arm.first
        return Trial(Arm(self.arm.name, first), self.seed, self.path.with_name(f"{self.path.name}-first")) if first else None

    @property
    def log(self) -> Path:
        """What the run would have said in a terminal; beside its folder, which a run that cannot start does not leave."""
        return self.path.with_suffix(".log")

    @property
    def _stopped(self) -> Path:
        return self.path / "stopped.txt"

    @property
    def stopped(self) -> str:
        """Why the run ended itself; empty where it did not. Such a run is over: going on could only flatter its arm."""
        own = self._stopped.read_text().strip() if self._stopped.exists() else ""
        return own or (self.first.stopped if self.first else "")

    @property
    def is_finished(self) -> bool:
        folder = RunFolder(self.path)
        return folder.model.is_dir() and folder.report.is_file()

    @property
    def is_over(self) -> bool:
        """Whether it finished, or ended itself."""
        return self.is_finished or bool(self.stopped)

    @property
    def steps(self) -> int:
        """How many steps are recorded."""
        path = RunFolder(self.path).metrics.path
        own = path.read_bytes().count(b"\n") if path.exists() else 0
        return own + (self.first.steps if self.first else 0)

    def check(self) -> Plan:
        """Raise ConfigError where the trial cannot be, or its folder holds something else."""
        if self.first:
            self.first.check()
        try:
            # the model that the first run will have left is not there yet: the one that it starts from stands in for it
            planned = check(self.config.model_copy(update={"model": self.arm.config.model}))
        except ConfigError as error:
            raise ConfigError(f"arm {self.arm.name}: {error}") from None
        folder = RunFolder(self.path)
        if folder.is_run:
            there, here = (c.model_dump(mode="json") for c in (load(read_yaml(folder.config)), self.config))
            for name, (old, new) in differing([there, here]):
                raise ConfigError(f"{self.path} holds a run with {name} = {old}, not {new}: choose another --out")
        return planned

    def carry_out(self) -> None:
        """Do the run, or what is left of it, and leave its log; the run before it comes first."""
        if self.first and not self.first.is_finished:
            self.first.carry_out()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        title = f"{self.arm.name} · seed {self.seed} → {self.path}"
        with self.log.open("a") as file, Progress(self.config.steps, title, console=Console(file=file, width=130)) as progress:
            try:
                if self.path.exists():
                    resume(self.path, progress=progress)
                else:
                    train(self.config, progress=progress)
            except StoppedRun as stop:
                write_atomic(self._stopped, f"{stop}\n")
                raise
            except Exception:
                traceback.print_exc(file=file)
                raise


@dataclass(frozen=True)
class Experiment:
    """Every arm with every seed, in the folders ``FOLDER/ARM/seed-N``.

    The same seed gives all arms the same held-out problems, and the same stream of problems to train on.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    folder: Path

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(
                    f"the arm {name} is there twice: give one of them a setting of its own, as in {name},update.lr=1e-5"
                )
        if len({_slug(name) for name in names}) < len(names):
            raise ConfigError(f"the arms {', '.join(names)} would share a folder: let them differ in more than punctuation")
        if len(self.arms) < 2:
            raise ConfigError("a comparison needs two arms or more")
        if len(self.seeds) < 2:
            raise ConfigError("one seed says nothing of the next: give 2 or more, better 5")

    @property
    def trials(self) -> list[Trial]:
        """Seed by seed, so that an experiment cut short has whole seeds."""
        return [Trial(arm, seed, self.folder / _slug(arm.name) / f"seed-{seed}") for seed in self.seeds for arm in self.arms]

    def check(self) -> list[Plan]:
        """The plans of all arms, before the first one runs.

        Raises:
            ConfigError: an arm cannot be, does not measure what the others measure, or its folder holds another run.
        """
        first, *others = self.arms
        for arm in others:
            for name, (ours, theirs) in differing([_measured(one.config) for one in (first, arm)]):
                raise ConfigError(
                    f"{first.name} and {arm.name} are measured differently, {name} is {ours} and {theirs}: give one for all arms"
                )
        return [trial.check() for trial in self.trials][: len(self.arms)]

    def carry_out(self, workers: int | None = None) -> dict[Trial, str]:
        """Do all that is not done yet, `workers` at once; why each trial has no result, or ``""``."""
        trials = self.trials
        ended = dict(carry_out(trials, workers, f"{len(self.arms)} arms × {len(self.seeds)} seeds → {self.folder}"))
        return {trial: ended[trial] for trial in trials}


def carry_out(trials: Sequence[Trial], workers: int | None, title: str) -> Iterator[tuple[Trial, str]]:
    """Each of `trials` as it ends, those that are over first, with why it has no result, or ``""``."""
    over = [trial for trial in trials if trial.is_over]
    yield from ((trial, trial.stopped) for trial in over)
    left = [trial for trial in trials if trial not in over]
    if left:
        done = sum(trial.arm.steps for trial in over)
        total, begun = done + sum(trial.arm.steps for trial in left), done + sum(trial.steps for trial in left)
        with Progress(total, title, done=begun, plain_seconds=30, in_bursts=True) as progress:
            if over:
                progress.note(f"{len(over)} of {len(trials)} runs were there")
            yield from _in_processes(left, workers or default_workers(), progress, done)


def default_workers() -> int:
    """One for each core, and one alone where there is a GPU, which runs would have to share."""
    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def _in_processes(trials: Sequence[Trial], workers: int, progress: Progress, done: int) -> Iterator[tuple[Trial, str]]:
    """Each trial with its failure, or ``""``, as it ends; each in a process of its own, so that a killed one takes none along."""
    context = get_context("forkserver")  # imports torch once for all of them
    context.set_forkserver_preload([__name__])
    waiting, running, ended = list(trials), dict[Any, tuple[Trial, BaseProcess, float]](), set[Trial]()
    shown = done + sum(trial.steps for trial in trials)
    with ExitStack() as stack:
        stack.callback(lambda: [process.terminate() for _, process, _ in running.values()])
        starting = stack.enter_context(ExitStack())
        starting.enter_context(progress.stage("starting the first runs"))
        while waiting or running:
            while waiting and len(running) < workers:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(waiting[0], theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = waiting.pop(0), process, time.monotonic()
            for ready in cast(list[Connection], wait(list(running), POLL_SECONDS)):
                trial, process, began = running.pop(ready)
                failure = _answer(ready, process)
                ended.add(trial)
                took = f"{time.monotonic() - began:.0f} s"
                progress.note(f"{'✗' if failure else '✓'} {trial.arm.name} seed {trial.seed}  {failure or took}")
                yield trial, failure
            now = done + sum(trial.arm.steps if trial in ended else trial.steps for trial in trials)
            if now > shown:
                starting.close()
            for step in range(shown + 1, now + 1):
                progress.step(step, {"experiment/runs": f"{len(ended)}/{len(trials)}"})
            shown = max(shown, now)


def _work(trial: Trial, connection: Connection) -> None:
    """In the process: do the trial and say why it failed, or ``""``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C it is the experiment that ends its processes
    sys.stdout = sys.stderr = io.StringIO()  # what libraries print must not tear the display
    try:
        trial.carry_out()
        connection.send("")
    except StoppedRun as stop:
        connection.send(f"ended itself: {stop}")
    except Exception as error:
        connection.send(
            f"{type(error).__name__ if not isinstance(error, ConfigError) else 'not possible'}: {error}; see {trial.log}"
        )


def _answer(connection: Connection, process: BaseProcess) -> str:
    try:
        answer = connection.recv()
    except EOFError:
        answer = None
    process.join()
    return f"its process was ended from outside, exit code {process.exitcode}: short of memory?" if answer is None else answer


def _measured(config: RunConfig) -> dict[str, Any]:
    """What a run of `config` is measured by."""
    tree, judge = config.model_dump(mode="json"), truth(config)
    return {key: tree[key] for key in SHARED} | {"the judging reward": {"name": judge.name, "options": judge.options}}


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", name)
