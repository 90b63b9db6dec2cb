"""A configuration checked, and the pieces that it asks for built: what a run and whatever looks at a run both need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

from quatrain.config import ConfigError, ModelConfig, RunConfig, load, read_yaml
from quatrain.diagnostics.evaluation import Evaluation
from quatrain.diagnostics.records import RunFolder
from quatrain.methods import method as find_method
from quatrain.objective import Method, Term
from quatrain.policies import CausalLM, advice, load_model
from quatrain.policies import check as check_model
from quatrain.prompts import Task, Template, open_task, resolve_template
from quatrain.rewards import Judge, check_rewards
from quatrain.rollouts import Request, Sampling, TorchEngine
from quatrain.types import Batch, Origin, Prompt
from quatrain.update import Learner, Reference

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
        weight = next(f"method.{key}" for key, _ in method.numbers() if key.endswith(".coefficient"))
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
            "set group_size=2 or more, or choose a method without a group baseline, see `quatrain methods`"
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


def open_run(path: Path) -> tuple[Plan, RunFolder]:
    """The plan and the folder of a run that was begun."""
    folder = RunFolder(path)
    if not folder.is_run:
        raise ConfigError(f"{path} is not a run folder: it has no config.yaml")
    return plan(load(read_yaml(folder.config))), folder


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


def make_engine(config: RunConfig, policy: CausalLM) -> TorchEngine:
    """What writes this policy's answers."""
    return TorchEngine(policy, max_sequences=config.engine.max_sequences, tokens_per_pass=config.engine.tokens_per_pass)


def measure(
    config: RunConfig, policy: CausalLM, template: Template, engine: TorchEngine, judge: Judge, prompts: Sequence[Prompt]
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
    answers = [[text.strip() or None for text in texts[i * samples : (i + 1) * samples]] for i in range(len(prompts))]
    answers = answers if max(k) > 1 else None
    return Evaluation.of(config.task.name, scores, answers=answers, k=k, seconds=time.perf_counter() - began)


def recorded_batch(folder: RunFolder, step: int) -> Batch:
    """What was acted in `step`, as the update saw it; empty where nothing could be trained on."""
    path = folder.path / "rollouts" / f"step-{step:06d}.safetensors"
    return Batch(**load_file(path)) if path.exists() else Batch()
