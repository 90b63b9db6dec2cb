"""A configuration checked, and the pieces that it asks for built: what a run and whatever looks at a run both need."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from quatrain import tunnel
from quatrain.config import ConfigError, ModelConfig, ProcessConfig, RewardConfig, RunConfig, load, read_yaml
from quatrain.diagnostics.evaluation import Evaluation
from quatrain.diagnostics.progress import Progress
from quatrain.diagnostics.records import RunFolder
from quatrain.methods import method as find_method
from quatrain.objective import Method, check, missing
from quatrain.objective.composition import Given
from quatrain.policies import CausalLM, advice, load_model
from quatrain.policies import check as check_model
from quatrain.prompts import Problem, Task, Template, Unlabelled, open_task, resolve_template
from quatrain.rewards import Judge, check_rewards, load_reward
from quatrain.rewards.judge import COMPARING, verifier
from quatrain.rewards.verifiers import reading
from quatrain.rollouts import Engine, Request, Sampling, TorchEngine, VLLMEngine, check_vllm
from quatrain.types import Batch, Origin, Prompt
from quatrain.update import PROCESS, Learner, Reference, check_vocabulary

PROVIDED = frozenset(
    {"reward", "rewards", "reward_weights", "reward_greedy", "turn", "turn_reward", "prompt_id", "task"}
    | {"logp_old", "logp_rollout", "logp_ref", "logp_teacher", "logp_process"}
    | {"entropy", "entropy_old", "certainty", "grad_norm_sq", "values", "log_z", "step", "potential"}
)
"""Fields of a batch that a run of this kind can fill."""
OF_ANSWERS = frozenset({"reward", "prompt_id", "logp_old", "logp_rollout", "logp_ref", "entropy"})
"""Those that a process reward model can learn from."""
LABELLED = frozenset({Origin.DEMONSTRATION, Origin.RATED, Origin.MISMATCHED})
"""Answers that the task brings."""
TUNNEL = "tunnel"
"""The model that the library pre-trains itself."""
PROBED = 20
"""Problems of an endless task that are looked at for what it has."""


@dataclass(frozen=True)
class Plan:
    """A configuration that was found to be possible, before any model is loaded."""

    config: RunConfig
    method: Method
    task: Task
    is_verifiable: bool
    """Whether something tells which of the policy's answers are right."""
    has_pairs: bool
    """Whether the task has pairs of a better and a worse answer."""
    doubts: tuple[str, ...] = ()
    """What the method means with these settings that it is not likely to be meant to."""

    @property
    def rewards(self) -> list[RewardConfig]:
        """Those that can be computed: without reference answers, or where these only measure, none that compares with them."""
        compares = self.is_verifiable and self.config.labels == "learn"
        return [r for r in self.config.rewards if compares or r.name not in COMPARING]

    @property
    def truth(self) -> RewardConfig:
        """What tells whether an answer is right."""
        return truth(self.config)

    @property
    def measures_rollouts(self) -> bool:
        """Whether the training answers can be verified and no reward does it."""
        return self.is_verifiable and self.truth not in self.rewards

    @property
    def voters(self) -> int:
        """Answers to each prompt that vote and are not trained on."""
        return (self.config.votes or self.config.group_size) - self.config.group_size

    @property
    def held_out(self) -> int:
        """How many problems are set aside to measure on; none where there is nothing to measure."""
        return self.config.evaluate.problems if self.is_verifiable or self.has_pairs else 0

    @property
    def notes(self) -> Iterator[str]:
        """What a person should know before the run starts."""
        yield from self.doubts
        if not self.is_verifiable:
            instead = ", but held-out pairs are ranked" if self.held_out else ""
            judged = "judged by no reference" if self.rewards else "not judged"
            yield f"{self.task.name} has no reference answers: what the policy writes is {judged}{instead}"
        if self.config.labels == "measure" and self.config.task.examples:
            yield f"the answers of {self.config.task.examples} problems, which are not trained on, stand in each prompt"


def truth(config: RunConfig) -> RewardConfig:
    """What tells whether an answer is right; where labels only measure, no reward of the run's stands in for them."""
    return verifier(config.rewards if config.labels == "learn" else ())


def plan(config: RunConfig, *, trains: bool = True, acts: bool = True) -> Plan:
    """Check what can be checked without loading a model; `trains` is whether the method matters, and `acts` whether the engine.

    Raises:
        ConfigError: something is unknown, missing, or does not go together.
    """
    method = find_method(config.method.name).with_settings(config.method.settings)
    if trains:
        _check_settings(config, method)
    too_large = [k for k in config.evaluate.k if k > config.evaluate.samples]
    if too_large:
        raise ConfigError(
            f"evaluate.k has {too_large[0]} and there are {config.evaluate.samples} answers per problem: raise evaluate.samples"
        )
    check_rewards(config.rewards)
    task = open_task(config.task)
    seen = list(islice(task.problems(0), task.size or PROBED))
    updates = config.update.epochs * config.update.minibatches
    doubts = (*check(method), *missing(method, _given(config, method, seen), updates)) if trains else ()
    for doubt in doubts:
        if doubt.severity == "error":
            raise ConfigError(f"the method {config.method.name} cannot learn from {task.name} like this: {doubt.message}")
    is_verifiable = truth(config).name not in COMPARING or any(p.verifiable for p in seen)
    compared = next((r.name for r in config.rewards if r.name in COMPARING), None)
    if config.labels == "measure" and compared and trains and method.judged:
        raise ConfigError(
            f"labels = measure keeps reference answers from training, and the reward {compared} compares with them: "
            "reward what needs none, as with --reward majority, or set labels=learn"
        )
    if not is_verifiable and compared and (method.judged or not trains):
        raise ConfigError(
            f"the reward {compared} compares with reference answers and {task.name} has none: set task.answer_column, "
            "or judge by a function of your own, as in --reward path/to/module.py:function"
        )
    if acts and config.engine.name == "vllm":
        check_vllm(config)
    check_model(config.model)
    for name in (config.reference.model, config.teacher.model, config.process.model) if trains else ():
        if name not in ("start", "none", None):
            check_model(ModelConfig(name=name))
    doubtful = tuple(dict.fromkeys(str(doubt) for doubt in doubts if doubt.severity == "warning"))
    return Plan(config, method, task, is_verifiable, any(_is_pair(p) for p in seen), doubtful)


def _is_pair(problem: Problem) -> bool:
    return len({reward for _, reward in problem.rated}) > 1


def _given(config: RunConfig, method: Method, problems: Sequence[Problem]) -> set[Given]:
    """What a method may ask for and this run has."""
    has: dict[Given, bool] = {
        "reference": config.reference.model != "none",
        "critic": "value" in method.targets,
        "partition": "log_z" in method.targets,
        "teacher": config.teacher.model is not None,
        "answers": config.labels == "learn" and all(p.answer for p in problems),
        "groups": config.group_size > 1,
        "demonstrations": any(p.worked is not None for p in problems),
        "rated": any(p.rated for p in problems),
        "pairs": any(_is_pair(p) for p in problems),
        "mismatched": config.prompts_per_step > 1,
    }
    return {what for what, there in has.items() if there}


def _check_settings(config: RunConfig, method: Method) -> None:
    """What each setting allows alone and not together."""
    name = config.method.name
    if "logp_teacher" not in method.needs and config.teacher.model is not None:
        raise ConfigError(
            f"teacher.model is {config.teacher.model} and the method {name} reads no teacher: "
            "leave --teacher out, or choose a method that distils, see `quatrain methods`"
        )
    learns = find_method(config.process.method)
    if "logp_process" in method.needs and (learns.origins != {Origin.POLICY} or not learns.needs <= OF_ANSWERS):
        raise ConfigError(
            f"process.method is {config.process.method}, which needs more than judged answers: "
            f"leave it at {ProcessConfig().method}, or choose a method without critic, teacher and demonstrations"
        )
    unavailable = sorted(method.needs - PROVIDED)
    if unavailable:
        raise ConfigError(f"the method {name} needs {', '.join(unavailable)}, which nothing in a single-turn run provides")
    if Origin.POLICY in method.origins and config.sampling.temperature == 0:
        raise ConfigError("sampling.temperature is 0, so all answers of a group are the same: set it above 0")
    given = sorted(origin.value for origin in (method.origins | method.reads) & LABELLED)
    if config.labels == "measure" and given:
        raise ConfigError(
            f"labels = measure keeps what a task knows of answers from training, and the method {name} reads {given[0]} ones: "
            "set labels=learn"
        )
    if config.votes is not None and config.votes < config.group_size:
        raise ConfigError(
            f"votes is {config.votes} and group_size is {config.group_size}: all answers of a group vote, so raise votes"
        )
    compares = Origin.POLICY in method.judged and any(load_reward(reward).of_all for reward in config.rewards)
    if config.votes is not None and not compares:
        raise ConfigError(
            f"votes is {config.votes} and nothing is learned from how answers compare: leave it out, or take --reward majority"
        )
    foreign = sorted(origin.value for origin in method.origins - {Origin.POLICY})
    if config.update.routing == "rollout" and foreign:
        raise ConfigError(
            f"update.routing = rollout repeats the engine's experts, and the method {name} learns from {foreign[0]} answers, "
            "which no engine wrote: set update.routing=old or none"
        )
    if config.update.minibatches > config.prompts_per_step:
        raise ConfigError(
            f"update.minibatches is {config.update.minibatches} and a step has {config.prompts_per_step} prompts, whose groups "
            "are never split: lower update.minibatches or raise prompts_per_step"
        )
    groups = config.prompts_per_step // config.update.minibatches
    if config.update.snr_parts == 1 or config.update.snr_parts > groups:
        raise ConfigError(
            f"update.snr_parts is {config.update.snr_parts} and a minibatch has {groups} prompts, whose groups are never split: "
            f"set it to 0, which leaves the learning rate as it is, or to at least 2 and at most {groups}"
        )


def open_run(path: Path, *, acts: bool = False) -> tuple[Plan, RunFolder]:
    """The plan and the folder of a run that was begun; `acts` is whether it is to be gone on with."""
    folder = RunFolder(path)
    if not folder.is_run:
        raise ConfigError(f"{path} is not a run folder: it has no config.yaml")
    return plan(load(read_yaml(folder.config)), acts=acts), folder


def make_tunnels(planned: Plan, progress: Progress) -> None:
    """Pre-train what the run loads under the name ``tunnel``, where that was not done before."""
    _quieten()
    config = planned.config
    others = (config.reference.model, config.teacher.model, config.process.model)
    for model in (config.model, *(ModelConfig(name=name) for name in others if name)):
        if model.name == TUNNEL and not tunnel.folder(model.tunnel).is_dir():
            with progress.stage(f"pre-training the tunnel policy, {model.tunnel.steps} steps, once"):
                tunnel.make(model.tunnel)


def load_policy(config: RunConfig, method: Method | None = None) -> CausalLM:
    """The policy of `config`, at its start, with what `method` learns beside it."""
    _quieten()
    if config.threads:
        torch.set_num_threads(config.threads)
    policy = CausalLM(
        *_load(config.model, config.seed),
        lora=config.model.lora,
        critic=method is not None and "value" in method.targets,
        partition=method is not None and "log_z" in method.targets,
        noise=None if method is None or method.perturbation is None else method.perturbation.sigma,
        gradient_checkpointing=config.update.gradient_checkpointing,
        seed=config.seed,
    )
    if method is not None and config.update.routing != "none" and policy.experts is None:
        raise ConfigError(
            f"update.routing is {config.update.routing} and the model {config.model.name} has no experts: set it to none"
        )
    return policy


def _quieten() -> None:
    """What reads and writes models shows no progress of its own."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def make_learner(planned: Plan, folder: RunFolder, policy: CausalLM) -> Learner:
    """What turns this run's batches into weights, at the run's start."""
    config, method = planned.config, planned.method
    shared: dict[str, Any] = {"steps": config.steps, "temperature": config.sampling.temperature, "seed": config.seed}
    learns = find_method(config.process.method)
    if "logp_ref" in method.needs | (learns.needs if "logp_process" in method.needs else set()):
        other = None if config.reference.model == "start" else _load_frozen(config, config.reference.model)
        keep = config.reference.placement == "keep"
        shared["reference"] = Reference(policy, keep=keep, folder=folder.path, other=other)
    teacher = process = None
    if "logp_teacher" in method.needs:
        assert config.teacher.model is not None
        teacher = Reference(policy, keep=True, folder=folder.path, other=_load_frozen(config, config.teacher.model))
    if "logp_process" in method.needs:
        changes = {} if config.process.model == "start" else {"name": config.process.model}
        update = config.update.model_copy(update={"lr": config.process.lr, "routing": "none"})
        model = load_policy(
            config.model_copy(update={"model": config.model.model_copy(update=changes), "update": update}), learns
        )
        check_vocabulary(policy, model)
        process = Learner(model, learns, update, section=PROCESS, **shared)
    return Learner(policy, method, config.update, teacher=teacher, process=process, **shared)


def _load_frozen(config: RunConfig, name: str) -> CausalLM:
    """Another model, as the policy is had: on its device and in its precision."""
    return CausalLM(*_load(ModelConfig(name=name, dtype=config.model.dtype, device=config.model.device), config.seed))


def _load(model: ModelConfig, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer; those of ``tunnel`` are made first, unless they were made before."""
    made = {"name": str(tunnel.make(model.tunnel))} if model.name == TUNNEL else {}
    return load_model(model.model_copy(update=made), seed)


def make_template(planned: Plan, policy: CausalLM) -> Template:
    """How the task's problems are put to this policy."""
    suits = advice(planned.config.model)
    blind = planned.config.labels == "measure" and not planned.config.task.examples
    return resolve_template(
        planned.config.task,
        Unlabelled(planned.task) if blind else planned.task,
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
    """Greedy for one answer per problem; for several, as in training unless something else is set."""
    asked = config.evaluate
    temperature = 0.0 if asked.samples == 1 else training.temperature
    return replace(
        training,
        temperature=temperature if asked.temperature is None else asked.temperature,
        top_p=training.top_p if asked.top_p is None else asked.top_p,
    )


def encode(policy: CausalLM, template: Template, text: str) -> list[int]:
    """A prompt's text as tokens; never none, so that there is something to predict from."""
    tokens = policy.tokenizer(text, add_special_tokens=template.add_special_tokens)["input_ids"]
    return tokens or [policy.tokenizer.bos_token_id or 0]


def encode_further(policy: CausalLM, text: str) -> list[int]:
    """A text that goes on where another one ended, as tokens."""
    tokens: list[int] = policy.tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokens


@contextmanager
def open_engine(config: RunConfig, policy: CausalLM) -> Iterator[Engine]:
    """What writes this policy's answers, in the policy's own precision."""
    settings = config.engine
    if settings.name == "vllm":
        with VLLMEngine(
            policy,
            max_sequences=settings.max_sequences,
            tokens_per_pass=settings.tokens_per_pass,
            memory_gib=settings.memory_gib,
        ) as engine:
            yield engine
    else:
        yield TorchEngine(policy, max_sequences=settings.max_sequences, tokens_per_pass=settings.tokens_per_pass)


def make_acting(config: RunConfig, policy: CausalLM, engine: Engine) -> Engine:
    """What writes the answers to train on: `engine`, or one with weights of another precision, or which tells its experts."""
    settings, tells_experts = config.engine, config.update.routing == "rollout"
    if settings.weights == "same" and not tells_experts:
        return engine
    return TorchEngine(
        policy,
        max_sequences=settings.max_sequences,
        tokens_per_pass=settings.tokens_per_pass,
        weights=settings.weights,
        tells_experts=tells_experts,
    )


def measure(
    config: RunConfig, policy: CausalLM, template: Template, engine: Engine, judge: Judge, prompts: Sequence[Prompt]
) -> Evaluation:
    """Answer each of `prompts` as often as `config` says, and judge the answers."""
    began = time.perf_counter()
    samples, k = config.evaluate.samples, config.evaluate.k
    encoded = [torch.tensor(encode(policy, template, prompt.text)) for prompt in prompts]
    requests = [
        Request(tokens, (config.seed, 2, number, sample)) for number, tokens in enumerate(encoded) for sample in range(samples)
    ]
    sampling = evaluation_sampling(config, make_sampling(config, template))
    texts = [completion.text for completion in engine.generate(requests, sampling)]
    asked = [prompt for prompt in prompts for _ in range(samples)]
    scores = np.reshape(judge.correct(asked, texts), (len(prompts), samples))
    answers = None
    if max(k) > 1:
        read = [reading(text, prompt.info) for prompt, text in zip(asked, texts, strict=True)]
        answers = [read[i : i + samples] for i in range(0, len(read), samples)]
    return Evaluation.of(config.task.name, scores, answers=answers, k=k, seconds=time.perf_counter() - began)


def recorded_batch(folder: RunFolder, step: int) -> Batch:
    """What was acted in `step`, as the update saw it; empty where nothing could be trained on."""
    path = folder.path / "rollouts" / f"step-{step:06d}.safetensors"
    return Batch(**load_file(path)) if path.exists() else Batch()
