"""A run assembled from its configuration: the one place that knows every stage."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from safetensors.torch import load_file

from quatrain import loop
from quatrain.config import ConfigError, ModelConfig, RunConfig, load, read_yaml
from quatrain.diagnostics.evaluation import Estimate, Evaluation, difference
from quatrain.diagnostics.measures import readable, rollout_metrics
from quatrain.diagnostics.progress import Progress
from quatrain.diagnostics.records import RunFolder, default_run_path
from quatrain.diagnostics.report import write_report
from quatrain.diagnostics.trackers import open_trackers
from quatrain.errors import StoppedRun
from quatrain.methods import method as find_method
from quatrain.objective import Method, Term
from quatrain.policies import CausalLM, advice, load_model
from quatrain.policies import check as check_model
from quatrain.prompts import Source, Task, Template, open_task, resolve_template
from quatrain.rewards import Judge, check_rewards
from quatrain.rollouts import Request, Rollout, Sampling, TorchEngine
from quatrain.types import Batch, Group, Origin, Prompt
from quatrain.update import Learner, Reference
from quatrain.update.checkpoints import Checkpoints, save_tensors
from quatrain.update.explain import Explanation, explain

PROVIDED = frozenset({"reward", "prompt_id", "logp_old", "logp_rollout", "logp_ref", "values"})
"""Fields of a batch that a run of this kind can fill."""
PROBED = 20
"""Problems of an endless task that are looked at for worked answers."""


@dataclass(frozen=True)
class Plan:
    """A configuration that was found to be possible, before any model is loaded."""

    config: RunConfig
    method: Method
    task: Task


@dataclass(frozen=True)
class Result:
    """What a run came to."""

    folder: Path
    before: Evaluation | None
    after: Evaluation | None

    @property
    def gain(self) -> Estimate | None:
        """Accuracy after minus before, paired over the held-out problems."""
        if self.before is None or self.after is None:
            return None
        return difference(self.before.scores, self.after.scores)


def plan(config: RunConfig) -> Plan:
    """Check what can be checked without loading a model.

    Raises:
        ConfigError: something is unknown, missing, or does not go together.
    """
    method = find_method(config.method.name).with_settings(config.method.settings)
    _check_composition(config, method)
    check_rewards(config.rewards)
    task = open_task(config.task)
    if method.origins == {Origin.DEMONSTRATION} and all(p.worked is None for p in islice(task.problems(0), task.size or PROBED)):
        raise ConfigError(
            f"the method {config.method.name} imitates worked answers and {task.name} has none: "
            "set task.answer_column or task.demonstration_column"
        )
    check_model(config.model)
    if config.reference.model not in ("start", "none"):
        check_model(ModelConfig(name=config.reference.model))
    return Plan(config, method, task)


def _check_composition(config: RunConfig, method: Method) -> None:
    """What each setting allows alone and not together."""
    name = config.method.name
    if "logp_ref" in method.needs and config.reference.model == "none":
        weight = next(f"method.{key}" for key, _ in method.numbers() if key.endswith("beta"))
        raise ConfigError(
            f"the method {name} needs logp_ref and reference.model is none: leave it at start, or set {weight}=0 to drop the term"
        )
    unavailable = sorted(method.needs - PROVIDED)
    if unavailable:
        raise ConfigError(f"the method {name} needs {', '.join(unavailable)}, which nothing in a single-turn run provides")
    compares = any(isinstance(t, Term) and "prompt_id" in t.advantage.needs for t in method.active)
    if compares and config.group_size < 2:
        raise ConfigError(
            f"the method {name} compares an answer with the others of its group and group_size is {config.group_size}: "
            "set group_size=2 or more, or choose a method without a group baseline (reinforce, ppo)"
        )
    if Origin.POLICY in method.origins and config.sampling.temperature == 0:
        raise ConfigError("sampling.temperature is 0, so all answers of a group are the same: set it above 0")
    if config.update.minibatches > config.prompts_per_step:
        raise ConfigError(
            f"update.minibatches is {config.update.minibatches} and a step has {config.prompts_per_step} prompts, whose groups "
            "are never split: lower update.minibatches or raise prompts_per_step"
        )
    too_large = [k for k in config.evaluate.k if k > config.evaluate.samples]
    if too_large:
        raise ConfigError(
            f"evaluate.k has {too_large[0]} and there are {config.evaluate.samples} answers per problem: raise evaluate.samples"
        )


def train(config: RunConfig, *, progress: Progress | None = None) -> Result:
    """Run `config` in a new folder, from its first step to its last.

    Raises:
        ConfigError: before a model is loaded.
        StoppedRun: the gradient stayed not finite; the run is saved.
    """
    planned = plan(config)
    Source(planned.task, Template("plain"), seed=config.seed, held_out=config.evaluate.problems)  # raises where too few problems
    folder = RunFolder(Path(config.out) if config.out else default_run_path(config.method.name, config.task.name))
    folder.create(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    try:
        return _carry_out(planned, folder, progress)
    except ConfigError:  # what only the model could tell
        if not folder.metrics.read() and not folder.evaluations.read():
            shutil.rmtree(folder.path)  # so that the same command, corrected, finds its place free
        raise


def resume(path: Path, *, progress: Progress | None = None) -> Result:
    """Go on with the run in `path` from its newest whole checkpoint, to the bits that it would have had without a break."""
    planned, folder = open_run(path)
    if folder.model.is_dir() and folder.report.is_file():
        (progress or Progress(0, "")).note(f"{path} is finished: nothing is left to do")
        return _result(planned, folder)
    return _carry_out(planned, folder, progress)


def open_run(path: Path) -> tuple[Plan, RunFolder]:
    """The plan and the folder of a run that was begun."""
    folder = RunFolder(path)
    if not folder.is_run:
        raise ConfigError(f"{path} is not a run folder: it has no config.yaml")
    return plan(load(read_yaml(folder.config))), folder


def _carry_out(planned: Plan, folder: RunFolder, progress: Progress | None) -> Result:
    config = planned.config
    title = f"{config.method.name} · {config.task.name} · {config.model.name} · seed {config.seed} → {folder.path}"
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoint.keep)
    with ExitStack() as stack:
        stack.enter_context(_lock(folder.path))
        shown = progress or stack.enter_context(Progress(config.steps, title, done=max(checkpoints.steps(), default=0)))
        run = stack.enter_context(Run.open(planned, folder, shown))
        done = run.restore()
        run.evaluate_before(done)
        if done < config.steps:
            try:
                loop.train(
                    range(done + 1, config.steps + 1),
                    config.prompts_per_step,
                    run.source,
                    run.rollout,
                    run.judge,
                    run.learner,
                    run,
                )
            except StoppedRun as stop:
                write_report([folder.path], folder.report)
                kept = checkpoints.steps()
                last = f"the last checkpoint is that of step {kept[-1]}" if kept else "it had no checkpoint yet"
                raise StoppedRun(f"{stop}; see {folder.report}, {last}") from stop
        run.finish()
    return _result(planned, folder)


def _result(planned: Plan, folder: RunFolder) -> Result:
    at = {record["step"]: Evaluation.from_json(record) for record in folder.evaluations.read()}
    return Result(folder.path, at.get(0), at.get(planned.config.steps))


class Run:
    """A policy, the stages around it and the folder that remembers them."""

    def __init__(self, planned: Plan, folder: RunFolder, progress: Progress, policy: CausalLM, stack: ExitStack) -> None:
        config = planned.config
        if config.max_answer_tokens >= policy.context:
            raise ConfigError(
                f"max_answer_tokens is {config.max_answer_tokens} and {config.model.name} holds {policy.context} tokens, "
                "prompt and answer together: lower it"
            )
        self.config, self.method, self.folder, self.progress, self.policy = config, planned.method, folder, progress, policy
        self.has_failures = False
        template = make_template(planned, policy)
        self.template = template
        self.judge = stack.enter_context(Judge(config.rewards, config.max_answer_tokens))
        self.source = Source(planned.task, template, seed=config.seed, held_out=config.evaluate.problems)
        self.engine = TorchEngine(
            policy, max_sequences=config.engine.max_sequences, tokens_per_pass=config.engine.tokens_per_pass
        )
        self.sampling = make_sampling(config, template)
        self.rollout = Rollout(
            self.engine,
            self.sampling,
            config.group_size,
            encode=lambda text: encode(policy, template, text),
            encode_answer=lambda text: policy.tokenizer(text, add_special_tokens=False)["input_ids"],
            context=policy.context,
            seed=config.seed,
            origins=self.method.origins,
        )
        self.learner = make_learner(planned, folder, policy)
        self.checkpoints = Checkpoints(folder.checkpoints, config.checkpoint.keep)
        self.stack = stack

    @classmethod
    @contextmanager
    def open(cls, planned: Plan, folder: RunFolder, progress: Progress) -> Iterator[Run]:
        """Load the model and build the stages around it."""
        config = planned.config
        with ExitStack() as stack:
            with progress.stage(f"loading {config.model.name}"):
                policy = load_policy(config, critic="value" in planned.method.targets)
            yield cls(planned, folder, progress, policy, stack)

    def restore(self) -> int:
        """Go back to the newest whole checkpoint; returns its step, 0 where there is none."""
        found = self.checkpoints.newest(self.progress.note)
        step = 0
        if found is not None:
            step, manifest = found
            with self.progress.stage(f"resuming after step {step}"):
                self.checkpoints.restore(step, manifest, self.learner)
                self.source.load_state_dict(manifest["state"]["source"])
        self.folder.truncate_after(step)
        tree = self.config.model_dump(mode="json")
        self.trackers = self.stack.enter_context(open_trackers(self.config.trackers, self.folder.path, tree))
        return step

    def evaluate_before(self, done: int) -> None:
        """Measure the start, unless that was done before a break."""
        if done == 0 and self.config.evaluate.problems and not self.folder.evaluations.read():
            self._evaluate(0, self.config.evaluate.problems)

    def rollouts(self, step: int, groups: Sequence[Group], batch: Batch) -> None:
        """Keep what was acted: whole, for `replay`, and some of it for people."""
        record = {name: value for name, value in vars(batch).items() if value is not None}
        if batch.size:
            place = self.folder.path / "rollouts"
            place.mkdir(exist_ok=True)
            save_tensors(place / f"step-{step:06d}.safetensors", record)
        self.folder.rollouts.append(*({"step": step, **r} for r in readable(groups, self.config.sample_rollouts)))

    def evaluate(self, step: int) -> dict[str, float]:
        """Measure on held-out problems if it is time: on all of them at the end, on some in between."""
        settings = self.config.evaluate
        last = step == self.config.steps
        if not settings.problems or not (last or (settings.every and step % settings.every == 0)):
            return {}
        return self._evaluate(step, settings.problems if last else min(settings.problems, settings.progress_problems))

    def log(self, step: int, groups: Sequence[Group], metrics: dict[str, Any], clock: loop.Clock) -> None:
        record = {"step": step, **rollout_metrics(groups), **metrics, "fingerprint": self.learner.fingerprint()}
        busy = clock.seconds["rollout"] + clock.seconds["update"]
        record |= {f"seconds/{stage}": seconds for stage, seconds in clock.seconds.items()}
        record |= {"seconds/total": sum(clock.seconds.values()), "tokens_per_second": record.get("rollout/tokens", 0.0) / busy}
        errors = [t.error for group in groups for t in group.trajectories]
        failed = [error for error in errors if error]
        if failed and not self.has_failures:
            self.has_failures = True
            self.progress.note(
                f"step {step}: {len(failed)} of {len(errors)} answers are left out, the first because: {failed[0]}"
            )
        self.folder.metrics.append(record)
        self.trackers.log(step, record)
        self.progress.step(step, record)

    def checkpoint(self, step: int) -> None:
        every = self.config.checkpoint.every
        if step == self.config.steps or (every and step % every == 0):
            with self.progress.stage(f"checkpoint of step {step}", keep=False):
                self.save(step)

    def save(self, step: int) -> None:
        self.checkpoints.save(step, self.learner, {"source": self.source.state_dict()})

    def finish(self) -> None:
        """Write the model and the report."""
        with self.progress.stage("writing the model and the report"):
            if not self.folder.model.is_dir():
                work = self.folder.path / ".model.partial"
                self.policy.export(work)
                work.rename(self.folder.model)
            write_report([self.folder.path], self.folder.report)

    def _evaluate(self, step: int, problems: int) -> dict[str, float]:
        settings = self.config.evaluate
        with self.progress.stage(f"evaluating on {problems} held-out problems", keep=step in (0, self.config.steps)):
            evaluation = measure(
                self.engine,
                self.judge,
                self.source.held_out[:problems],
                lambda text: encode(self.policy, self.template, text),
                evaluation_sampling(self.config, self.sampling),
                task=self.config.task.name,
                samples=settings.samples,
                k=settings.k,
                seed=self.config.seed,
            )
        self.folder.evaluations.append({"step": step, **evaluation.to_json()})
        accuracy = evaluation.accuracy
        if step in (0, self.config.steps):
            when = "before" if step == 0 else "after"
            for line in evaluation.lines():
                self.progress.note(f"{when}: {line}")
        return {
            "held_out/accuracy": accuracy.value,
            "held_out/low": accuracy.low,
            "held_out/high": accuracy.high,
            "held_out/problems": float(evaluation.problems),
        }


def load_policy(config: RunConfig, *, critic: bool = False) -> CausalLM:
    """The policy of `config`, at its start."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    if config.threads:
        torch.set_num_threads(config.threads)
    model, tokenizer = load_model(config.model, config.seed)
    return CausalLM(
        model,
        tokenizer,
        lora=config.model.lora,
        critic=critic,
        gradient_checkpointing=config.update.gradient_checkpointing,
        seed=config.seed,
    )


def make_learner(planned: Plan, folder: RunFolder, policy: CausalLM) -> Learner:
    """What turns this run's batches into weights, at the run's start."""
    config, method = planned.config, planned.method
    reference = None
    if "logp_ref" in method.needs:
        named = ModelConfig(name=config.reference.model, dtype=config.model.dtype, device=config.model.device)
        other = None if named.name == "start" else CausalLM(*load_model(named, config.seed))
        reference = Reference(policy, keep=config.reference.placement == "keep", folder=folder.path, other=other)
    temperature = config.sampling.temperature
    return Learner(
        policy, method, config.update, steps=config.steps, temperature=temperature, reference=reference, seed=config.seed
    )


def make_template(planned: Plan, policy: CausalLM) -> Template:
    """How the task's problems are put to this policy."""
    suits = advice(planned.config.model)
    return resolve_template(
        planned.config.task,
        planned.task,
        policy.tokenizer,
        style=suits.template,
        examples=suits.examples,
        seed=planned.config.seed,
    )


def make_sampling(config: RunConfig, template: Template) -> Sampling:
    """How the policy acts in training; an answer ends where the template ends one, unless stop strings are given."""
    s = config.sampling
    stop = template.stop if s.stop is None else s.stop
    return Sampling(config.max_answer_tokens, s.temperature, s.top_p, s.top_k, tuple(stop), tuple(s.stop_tokens))


def evaluation_sampling(config: RunConfig, training: Sampling) -> Sampling:
    """Greedy for one answer per problem; for several, as in training unless a temperature is set."""
    asked = config.evaluate.temperature
    temperature = asked if asked is not None else 0.0 if config.evaluate.samples == 1 else training.temperature
    return replace(training, temperature=temperature)


def encode(policy: CausalLM, template: Template, text: str) -> list[int]:
    """A prompt's text as tokens; never none, so that there is something to predict from."""
    tokens = policy.tokenizer(text, add_special_tokens=template.add_special_tokens)["input_ids"]
    return tokens or [policy.tokenizer.bos_token_id or 0]


def measure(
    engine: TorchEngine,
    judge: Judge,
    prompts: Sequence[Prompt],
    encoder: Any,
    sampling: Sampling,
    *,
    task: str,
    samples: int,
    k: Sequence[int],
    seed: int,
) -> Evaluation:
    """Answer each of `prompts` `samples` times and judge the answers."""
    began = time.perf_counter()
    requests = [
        Request(torch.tensor(encoder(prompt.text)), (seed, 2, number, sample))
        for number, prompt in enumerate(prompts)
        for sample in range(samples)
    ]
    texts = [completion.text for completion in engine.generate(requests, sampling)]
    asked = [prompt for prompt in prompts for _ in range(samples)]
    scores = np.reshape(judge.correct(asked, texts), (len(prompts), samples))
    answers = [[text.strip() or None for text in texts[i * samples : (i + 1) * samples]] for i in range(len(prompts))]
    return Evaluation.of(task, scores, answers=answers if max(k) > 1 else None, k=list(k), seconds=time.perf_counter() - began)


def measure_model(name: str, task: str | None, settings: Sequence[str]) -> Evaluation:
    """Measure a model, or the newest checkpoint of the run in the folder `name`, on held-out problems.

    `settings` are a run's, as ``key=value``. A run's own settings, held-out problems included, hold unless others are given.
    Where no number of problems is given, a file has as many as it has.
    """
    folder = RunFolder(Path(name))
    if not folder.is_run and task is None:
        raise ConfigError(f"say what to evaluate {name!r} on: --task reasoning_gym:NAME, or a file; a run folder brings its own")
    tree = read_yaml(folder.config) if folder.is_run else {"model": name}
    planned = plan(load(tree | ({"task": task} if task else {}), settings))
    config = planned.config
    held_out = config.evaluate.problems
    own_task = folder.is_run and task is None
    has_number = own_task or any(setting.partition("=")[0].strip() == "evaluate.problems" for setting in settings)
    with Progress(0, f"evaluating {name} on {config.task.name}") as progress:
        with progress.stage(f"loading {config.model.name}"):
            policy = load_policy(config)
        if folder.is_run:
            found = Checkpoints(folder.checkpoints).newest(progress.note)
            if found is None:
                raise ConfigError(
                    f"the run {name} has no whole checkpoint yet: evaluate the model it starts from, {config.model.name}"
                )
            policy.load(Checkpoints(folder.checkpoints).path(found[0]) / "model")
            progress.note(f"the checkpoint after step {found[0]}")
        template = make_template(planned, policy)
        if planned.task.size and not has_number:
            questions = {p.question for p in islice(planned.task.problems(0), planned.task.size)}
            held_out = min(held_out, len(questions) - len(template.examples) - 1)
        trained_on = own_task and held_out > RunConfig.model_validate(tree).evaluate.problems
        if trained_on:
            progress.note("more problems than the run held out: it may have been trained on some of them")
        source = Source(planned.task, template, seed=config.seed, held_out=held_out)
        engine = TorchEngine(policy, max_sequences=config.engine.max_sequences, tokens_per_pass=config.engine.tokens_per_pass)
        with Judge(config.rewards, config.max_answer_tokens) as judge, progress.stage("answering and judging"):
            return measure(
                engine,
                judge,
                source.held_out,
                lambda text: encode(policy, template, text),
                evaluation_sampling(config, make_sampling(config, template)),
                task=config.task.name,
                samples=config.evaluate.samples,
                k=config.evaluate.k,
                seed=config.seed,
            )


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
        with progress.stage(f"loading {planned.config.model.name}"):
            policy = load_policy(planned.config, critic="value" in planned.method.targets)
        learner = make_learner(planned, folder, policy)
        checkpoints = Checkpoints(folder.checkpoints)
        found = checkpoints.newest(progress.note, at_most=step - 1)
        start = found[0] if found else 0
        if found:
            checkpoints.restore(*found, learner)
        with progress.stage(f"going from step {start} to step {step}"):
            for before in range(start + 1, step):
                learner.learn(recorded_batch(folder, before), before)
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


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run; the lock goes with the process, however it ends."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder} is being run by another process: wait for it, or choose another --out") from None
        yield


def recorded_batch(folder: RunFolder, step: int) -> Batch:
    """What was acted in `step`, as the update saw it; empty where nothing could be trained on."""
    path = folder.path / "rollouts" / f"step-{step:06d}.safetensors"
    return Batch(**load_file(path)) if path.exists() else Batch()
