"""A run, from its configuration to its last file."""

from __future__ import annotations

import fcntl
import functools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from quatrain import loop
from quatrain.assembly import (
    Plan,
    encode,
    encode_further,
    load_policy,
    make_acting,
    make_learner,
    make_sampling,
    make_template,
    make_tunnels,
    measure,
    open_engine,
    open_run,
    plan,
)
from quatrain.config import ConfigError, RunConfig
from quatrain.diagnostics.evaluation import Estimate, Evaluation, difference, estimate
from quatrain.diagnostics.health import Watch
from quatrain.diagnostics.measures import accuracy_metrics, readable, rollout_metrics, sampled, staleness, vote_metrics
from quatrain.diagnostics.progress import Progress
from quatrain.diagnostics.records import RunFolder, default_run_path
from quatrain.diagnostics.report import write_report
from quatrain.diagnostics.trackers import Trackers, open_trackers
from quatrain.errors import StoppedRun
from quatrain.policies import Advice, CausalLM
from quatrain.prompts import Source, Template
from quatrain.rewards import Judge
from quatrain.rewards.turned import Turned
from quatrain.rollouts import Ahead, Engine, Kept, Probed, Rollout
from quatrain.types import Batch, Group, Origin, collate
from quatrain.update import ranking
from quatrain.update.checkpoints import ROLLED_BACK, Checkpoints, save_tensors

RATED = frozenset({Origin.RATED})
MOST_ROLLBACKS = 4
"""A run that collapses once more after so many ways back ends itself."""


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


def train(config: RunConfig, *, progress: Progress | None = None) -> Result:
    """Run `config` in a new folder, from its first step to its last.

    Raises:
        ConfigError: before a model is loaded.
        StoppedRun: the gradient stayed not finite; the run is saved.
    """
    planned = check(config)
    folder = RunFolder(Path(config.out) if config.out else default_run_path(config.method.name, config.task.name))
    folder.create(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    try:
        return _carry_out(planned, folder, progress)
    except ConfigError:  # what only the model could tell
        if not folder.metrics.read() and not folder.evaluations.read():
            shutil.rmtree(folder.path)  # so that the same command, corrected, finds its place free
        raise


def check(config: RunConfig) -> Plan:
    """What `config` comes to, with enough problems; raises ConfigError, before a model is loaded, where it cannot be."""
    planned = plan(config)
    Source(planned.task, Template("plain"), seed=config.seed, held_out=planned.held_out)  # raises where too few problems
    return planned


def resume(path: Path, *, progress: Progress | None = None) -> Result:
    """Go on with the run in `path` from its newest whole checkpoint, to the bits that it would have had without a break."""
    planned, folder = open_run(path, acts=True)
    if folder.model.is_dir() and folder.report.is_file():
        (progress or Progress(0, "")).note(f"{path} is finished: nothing is left to do")
        return _result(planned, folder)
    return _carry_out(planned, folder, progress)


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
                    run.judging,
                    run.learner,
                    run,
                )
            except StoppedRun as stop:
                run.save(run.reached)  # the weights are those of the last good update
                write_report([folder.path], folder.report)
                raise StoppedRun(f"{stop}; see {folder.report}, and what was learned in {folder.checkpoints}") from stop
        run.finish()
    return _result(planned, folder)


def _result(planned: Plan, folder: RunFolder) -> Result:
    at = Evaluation.of_records(folder.evaluations.read())
    return Result(folder.path, at.get(0), at.get(planned.config.steps))


class Run:
    """A policy, the stages around it and the folder that remembers them."""

    def __init__(
        self,
        planned: Plan,
        folder: RunFolder,
        progress: Progress,
        policy: CausalLM,
        engine: Engine,
        judge: Judge,
        trackers: Trackers,
    ) -> None:
        config = planned.config
        if config.max_answer_tokens >= policy.context:
            raise ConfigError(
                f"max_answer_tokens is {config.max_answer_tokens} and {config.model.name} holds {policy.context} tokens, "
                "prompt and answer together: lower it"
            )
        self.planned, self.config, self.folder, self.progress, self.policy = planned, config, folder, progress, policy
        self.has_failures = False
        self.reached = 0
        """The step that is being done."""
        self.watch = Watch()
        template = make_template(planned, policy)
        self.template = template
        self.judge, self.trackers = judge, trackers
        stress = config.stress
        is_stressed = stress.turned or stress.bad_step
        self.turned = Turned(judge, stress.turned, stress.bad_step, config.seed) if is_stressed else None
        learns = config.labels == "learn"
        self.source = Source(planned.task, template, seed=config.seed, held_out=planned.held_out, labels=learns)
        self.engine = engine
        self.learner = make_learner(planned, folder, policy)
        judges = self.turned or judge
        size = config.replay.size or config.prompts_per_step * config.group_size
        self.kept = (
            Kept(judges.judge, size, config.replay.steps, again=self.source.again)
            if Origin.REPLAY in planned.method.origins
            else None
        )
        self.judging = self.kept or judges
        encode_answer = functools.partial(encode_further, policy)
        rollout = Rollout(
            make_acting(config, policy, engine),
            make_sampling(config, template),
            config.group_size,
            encode=lambda text: encode(policy, template, text),
            encode_answer=encode_answer,
            context=policy.context,
            seed=config.seed,
            voters=planned.voters,
            origins=planned.method.origins | planned.method.reads,
        )
        behind = config.staleness
        self.rated = replace(rollout, origins=RATED)
        self.ahead = (
            Ahead(rollout, behind.steps, partial=behind.partial, take=self.source.take, again=self.source.again)
            if behind.steps
            else None
        )
        self.rollout = self.ahead or rollout
        if "potential" in planned.method.needs:
            self.rollout = Probed(
                self.rollout,
                self.engine,
                replace(rollout.sampling, max_tokens=config.probe.max_tokens),
                config.probe.samples,
                config.probe.step,
                config.probe.opener,
                encode=encode_answer,
                decode=policy.tokenizer.decode,
                score=self._score,
                context=policy.context,
                seed=config.seed,
            )
        self.checkpoints = Checkpoints(folder.checkpoints, config.checkpoint.keep)

    @classmethod
    @contextmanager
    def open(cls, planned: Plan, folder: RunFolder, progress: Progress) -> Iterator[Run]:
        """Load the model and build the stages around it."""
        config = planned.config
        with ExitStack() as stack:
            trackers = open_trackers(config.trackers, folder.path, config.model_dump(mode="json"))
            stack.enter_context(trackers)
            origins = planned.method.judged | {Origin.POLICY, Origin.VOTER}
            judge = Judge(planned.rewards, config.max_answer_tokens, workers=config.threads, origins=origins, truth=planned.truth)
            stack.enter_context(judge)  # its processes start while the model loads
            for note in planned.notes:
                progress.note(note)
            make_tunnels(planned, progress)
            with progress.stage(f"loading {config.model.name}"):
                policy = load_policy(config, planned.method)
            with progress.stage("starting the engine", keep=False):
                engine = stack.enter_context(open_engine(config, policy))
            yield cls(planned, folder, progress, policy, engine, judge, trackers)

    def restore(self) -> int:
        """Go back to the newest whole checkpoint; returns its step, 0 where there is none."""
        found = self.checkpoints.newest(self.progress.note)
        step = 0
        if found is not None:
            step, manifest = found
            with self.progress.stage(f"resuming after step {step}"):
                self.checkpoints.restore(step, manifest, self.learner)
                self.source.load_state_dict(manifest["state"]["source"])
                tensors = self.checkpoints.tensors(step)
                if self.turned:
                    self.turned.steps = step
                if self.ahead:
                    self.ahead.load_state(tensors, manifest["state"]["under_way"])
                if self.kept:
                    self.kept.load_state(tensors, manifest["state"]["kept"])
        self.folder.truncate_after(step)
        self.watch = Watch(self.folder.metrics.read()[self._watched_since :])
        return step

    def evaluate_before(self, done: int) -> None:
        """Measure the start, unless that was done before a break."""
        if done == 0 and self.planned.held_out and not self.folder.evaluations.read():
            self._evaluate(0, self.planned.held_out)

    def rollouts(self, step: int, groups: Sequence[Group], batch: Batch) -> None:
        """Keep what was acted: whole, for `replay`, and some of it for people."""
        self.reached = step
        record = {name: value for name, value in vars(batch).items() if value is not None}
        if batch.size:
            place = self.folder.path / "rollouts"
            place.mkdir(exist_ok=True)
            save_tensors(place / f"step-{step:06d}.safetensors", record)
        shown = readable(self._labelled(groups), self.config.sample_rollouts)
        self.folder.rollouts.append(*({"step": step, **r} for r in shown))

    def evaluate(self, step: int) -> dict[str, float]:
        """Measure on held-out problems if it is time: on all of them at the end, on some in between."""
        settings, problems = self.config.evaluate, self.planned.held_out
        last = step == self.config.steps
        if not problems or not (last or (settings.every and step % settings.every == 0)):
            return {}
        return self._evaluate(step, problems if last else min(problems, settings.progress_problems))

    def log(self, step: int, groups: Sequence[Group], metrics: dict[str, Any], clock: loop.Clock) -> None:
        told = rollout_metrics(groups) | vote_metrics(groups)
        if self.ahead:
            per_step = self.config.update.epochs * self.config.update.minibatches
            told["rollout/staleness"] = staleness(groups, self.learner.updates - per_step)
        if self.planned.measures_rollouts:
            with clock("measure"):
                told |= self._measure(groups)
        record = {"step": step, **told, **metrics, "fingerprint": self.learner.fingerprint()}
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
        stop = self._react(step, record)
        self.folder.metrics.append(record)
        self.trackers.log(step, record)
        self.progress.step(step, record)
        if stop:
            raise StoppedRun(stop)

    def _react(self, step: int, record: dict[str, Any]) -> str:
        """Say what signs the metrics of a step show, and do what is to be done about a collapse; why the run ends, if it does."""
        for one in self.watch.see(record):
            self.progress.note(f"sign: {one}")
        fell, wanted = self.watch.collapse, self.config.on_collapse
        if fell is None:
            return ""
        began = self._watched_since + min(fell.step, self.watch.began or fell.step)
        told = f"it has collapsed, seen by its {fell.sign}: {fell.says}"
        if wanted == "warn":
            self.progress.note(f"step {step}: {told}; `quatrain doctor {self.folder.path}` says what came first")
        if wanted != "rollback":
            return told if wanted == "stop" else ""
        found = self.checkpoints.newest(self.progress.note, at_most=began - 1)
        times = sum(ROLLED_BACK in other for other in self.folder.metrics.read())
        if found is None or times == MOST_ROLLBACKS:
            why = "there is no checkpoint from before" if found is None else f"it went back {times} times before"
            return f"{told}, and {why}"
        self.checkpoints.go_back(found[0], self.learner)
        record[ROLLED_BACK] = found[0]
        self.watch = Watch()
        rate = f"the learning rate is {self.learner.lr():.3g} now"
        self.progress.note(f"step {step}: {told}; back to the weights of step {found[0]}, {rate}")
        return ""

    @property
    def _watched_since(self) -> int:
        """The last step that went back, 0 where none did."""
        return max((record["step"] for record in self.folder.metrics.read() if ROLLED_BACK in record), default=0)

    def checkpoint(self, step: int) -> None:
        every = self.config.checkpoint.every
        if step == self.config.steps or (every and step % every == 0):
            with self.progress.stage(f"checkpoint of step {step}", keep=False):
                self.save(step)

    def save(self, step: int) -> None:
        tensors, under_way = self.ahead.state() if self.ahead else ({}, [])
        since, began = self._watched_since, self.watch.began
        healthy = [s for s in self.checkpoints.steps() if began is None or s < since + began]
        kept, stand = self.kept.state() if self.kept else ({}, None)
        state = {"source": self.source.state_dict(), "under_way": under_way, "kept": stand}
        spare = max(healthy, default=None) if self.config.on_collapse == "rollback" else None
        self.checkpoints.save(step, self.learner, state, tensors | kept, spare=spare)

    def finish(self) -> None:
        """Write the model and the report."""
        with self.progress.stage("writing the model and the report"):
            if not self.folder.model.is_dir():
                work = self.folder.path / ".model.partial"
                self.policy.export(work)
                Advice(self.template.style, len(self.template.examples)).write(work)
                work.rename(self.folder.model)
            write_report([self.folder.path], self.folder.report)

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the policy makes of the actions of a batch: their log-probabilities, and its entropies there."""
        with torch.no_grad():
            scores = self.learner.score(batch.to(self.policy.device), self.policy)
        return scores.logp, scores.entropy

    def _measure(self, groups: Sequence[Group]) -> dict[str, float]:
        """How right the training answers and what they were rewarded for are, by labels that no reward has read."""
        asked = [(group.prompt, t.text) for group in self._labelled(groups) for t in sampled(group)]
        scores = iter(self.judge.correct([prompt for prompt, _ in asked], [text for _, text in asked]))
        return accuracy_metrics(groups, [[next(scores) for _ in sampled(group)] for group in groups])

    def _labelled(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with all that the task knows of their prompts."""
        learns = self.config.labels == "learn"
        return [group if learns else replace(group, prompt=self.source.labelled(group.prompt)) for group in groups]

    def _evaluate(self, step: int, problems: int) -> dict[str, float]:
        prompts = self.source.held_out[:problems]
        record: dict[str, Any] = {"step": step}
        found: dict[str, float] = {}
        lines: list[str] = []
        with self.progress.stage(f"evaluating on {problems} held-out problems", keep=step in (0, self.config.steps)):
            if self.planned.is_verifiable:
                evaluation = measure(self.config, self.policy, self.template, self.engine, self.judge, prompts)
                record |= evaluation.to_json()
                accuracy, lines = evaluation.accuracy, evaluation.lines()
                found = {"held_out/accuracy": accuracy.value, "held_out/low": accuracy.low, "held_out/high": accuracy.high}
                found["held_out/problems"] = float(evaluation.problems)
            if self.planned.has_pairs:
                margins = self.learner.margins(collate(self.rated(prompts, version=0))).cpu()
                record["ranked"] = ranking(margins).tolist()
                ranked = estimate(record["ranked"])
                found |= {"held_out/preference": ranked.value, "held_out/margin": margins.mean().item()}
                lines.append(f"preference accuracy {ranked} on {ranked.n} pairs")
        self.folder.evaluations.append(record)
        if step in (0, self.config.steps):
            for line in lines:
                self.progress.note(f"{'before' if step == 0 else 'after'}: {line}")
        return found


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run; the lock goes with the process, however it ends."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder} is being run by another process: wait for it, or choose another --out") from None
        yield
