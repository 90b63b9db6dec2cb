"""Looking at what there is: measuring a model or a run, and running one of a run's steps again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from quatrain.assembly import (
    load_policy,
    make_learner,
    make_template,
    make_tunnels,
    measure,
    open_engine,
    open_run,
    plan,
    recorded_batch,
)
from quatrain.config import ConfigError, RunConfig, load, read_yaml
from quatrain.diagnostics.evaluation import Evaluation
from quatrain.diagnostics.progress import Progress
from quatrain.diagnostics.records import RunFolder
from quatrain.prompts import Source
from quatrain.rewards import Judge
from quatrain.update.checkpoints import ROLLED_BACK, Checkpoints
from quatrain.update.explain import Explanation, explain


def measure_model(name: str, task: str | None, settings: Sequence[str]) -> Evaluation:
    """Measure a model, or the newest checkpoint of the run in the folder `name`, on held-out problems.

    `settings` are a run's, as ``key=value``. A run's own settings, held-out problems included, hold unless others are given.
    Where no number of problems is given, a file has as many as it has.
    """
    folder = RunFolder(Path(name))
    if not folder.is_run and task is None:
        raise ConfigError(
            f"say what to evaluate {name!r} on: --task written:NAME, reasoning_gym:NAME, or a file; a run folder brings its own"
        )
    tree = read_yaml(folder.config) if folder.is_run else {"model": name}
    planned = plan(load(tree | ({"task": task} if task else {}), settings), trains=False)
    config = planned.config
    held_out = config.evaluate.problems
    own_task = folder.is_run and task is None
    has_number = own_task or any(setting.partition("=")[0].strip() == "evaluate.problems" for setting in settings)
    with Progress(0, f"evaluating {name} on {config.task.name}") as progress:
        make_tunnels(planned, progress)
        with progress.stage(f"loading {config.model.name}"):
            policy = load_policy(config)
        if folder.is_run:
            checkpoints = Checkpoints(folder.checkpoints)
            found = checkpoints.newest(progress.note)
            if found is None:
                raise ConfigError(
                    f"the run {name} has no whole checkpoint yet: evaluate the model it starts from, {config.model.name}"
                )
            policy.load(checkpoints.path(found[0]) / "model")
            progress.note(f"the checkpoint after step {found[0]}")
        template = make_template(planned, policy)
        if planned.task.size and not has_number:
            questions = {p.question for p in islice(planned.task.problems(0), planned.task.size)}
            held_out = min(held_out, len(questions) - len(template.examples) - 1)
        trained_on = own_task and held_out > RunConfig.model_validate(tree).evaluate.problems
        if trained_on:
            progress.note("more problems than the run held out: it may have been trained on some of them")
        source = Source(planned.task, template, seed=config.seed, held_out=held_out)
        with (
            open_engine(config, policy) as engine,
            Judge([], config.max_answer_tokens, truth=planned.truth) as judge,
            progress.stage("answering and judging"),
        ):
            return measure(config, policy, template, engine, judge, source.held_out)


@dataclass(frozen=True)
class Replayed(Explanation):
    """A step that was run again."""

    verdict: str
    same: bool
    """Whether every bit of the weights after the step is as it was."""


def replay(path: Path, step: int, *, tokens: int = 12) -> Replayed:
    """Run one recorded step again, from the checkpoint before it and the recorded rollouts.

    Raises:
        ConfigError: there is no such run or step.
    """
    planned, folder = open_run(path)
    recorded = {record["step"]: record for record in folder.metrics.read()}
    if step not in recorded:
        known = f"it has steps 1 to {max(recorded)}" if recorded else "it has none yet"
        raise ConfigError(f"the run {path} has no recorded step {step}: {known}")
    with Progress(0, f"replaying step {step} of {path}") as progress:
        make_tunnels(planned, progress)
        with progress.stage(f"loading {planned.config.model.name}"):
            policy = load_policy(planned.config, planned.method)
        learner = make_learner(planned, folder, policy)
        checkpoints = Checkpoints(folder.checkpoints)
        found = checkpoints.newest(progress.note, at_most=step - 1)
        start = found[0] if found else 0
        if found:
            checkpoints.restore(*found, learner)
        with progress.stage(f"going from step {start} to step {step}"):
            for before in range(start + 1, step):
                learner.learn(recorded_batch(folder, before), before)
                back = recorded[before].get(ROLLED_BACK)
                if back is not None and back not in checkpoints.steps():
                    raise ConfigError(f"step {before} went back to the checkpoint of step {back}, which is not kept any more")
                if back is not None:
                    checkpoints.go_back(back, learner)
            batch = recorded_batch(folder, step)
            made_of = explain(learner, batch, step, tokens) if batch.size else Explanation((), ())
            learner.learn(batch, step)
    same = learner.fingerprint() == recorded[step]["fingerprint"]
    outcome = (
        "the weights after it are the recorded ones, to the bit" if same else "the weights after it DIFFER from the recorded ones"
    )
    verdict = (
        f"step {step}, from {f'the checkpoint of step {start}' if found else 'the start'}: {outcome} ({learner.fingerprint()})"
    )
    return Replayed(made_of.terms, made_of.tokens, verdict, same)
