"""The one frozen, typed tree that describes a run.

`load` reads it from a recipe, a YAML file or a mapping, applies ``key=value`` settings, and turns whatever is wrong into one line
that names the setting, the value got and the way out, before anything heavy is imported.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from quatrain.errors import ConfigError

S = TypeVar("S", bound=BaseModel)


class Section(BaseModel):
    """A frozen section of the tree; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class MethodConfig(Section):
    """Which row of the catalogue, and its numbers."""

    name: str = "grpo"
    """A method's id or alias; `quatrain methods` lists them."""
    settings: dict[str, Any] = {}
    """Hyper-parameters of its parts by dotted name, as in ``mask.high: 0.28`` or ``kl.coefficient: 0``."""


class TaskConfig(Section):
    """Where problems come from, and how they are put to the policy."""

    name: str
    """``written:NAME``, ``reasoning_gym:NAME``, or a JSONL or Parquet file, or a Hugging Face data-set folder."""
    options: dict[str, Any] = {}
    """The task's own options; for reasoning-gym the fields of the data set's configuration."""
    prompt_column: str = "prompt"
    """The column of the question."""
    answer_column: str | None = "answer"
    """None (``task.answer_column=``) where there are no reference answers."""
    demonstration_column: str | None = None
    """A column with full worked answers to imitate; without it the preferred or the reference answer is imitated."""
    chosen_column: str = "chosen"
    """The column of the preferred one of two answers; where there is such a column, there need be no reference answer."""
    rejected_column: str = "rejected"
    """The column of the answer that it is preferred to."""
    completion_column: str = "completion"
    """The column of a single answer, where ``label_column`` says how good it is."""
    label_column: str = "label"
    """The column that says how good ``completion_column`` is: true, false, or a number."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """``chat`` is the tokenizer's chat template, ``plain`` is Question/Answer text; ``auto`` is what suits the model."""
    examples: Annotated[int, Field(ge=0)] | None = None
    """Worked examples before each question; None is what suits the model and the template."""
    system: str = ""
    """A system message (chat), or text before everything (plain)."""


class LoraConfig(Section):
    """Low-rank factors that are trained in the place of the weights (arXiv:2106.09685)."""

    rank: PositiveInt = 16
    """Rank of the factors."""
    alpha: PositiveFloat = 32.0
    """Their product is scaled by alpha / rank."""
    targets: str | list[str] = "all-linear"
    """Modules that get factors, as PEFT names them."""


class TunnelConfig(Section):
    """How good the model ``tunnel`` is at the ``written`` tasks, on whose solutions it was pre-trained, before it learns more."""

    steps: PositiveInt = 700
    """Steps of pre-training: fewer make a weaker start."""
    difficulty: tuple[PositiveInt, PositiveInt] = (1, 4)
    """The least and the greatest value of the tasks' dials among the problems that were shown."""
    wrong: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the solutions shown whose answer is wrong, for one problem always the same; above 0.5 the majority is wrong."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides the first weights and the problems shown."""


class ModelConfig(Section):
    """The policy that is trained."""

    name: str = "smollm2"
    """``smollm2``, ``tunnel``, ``tiny``, or a Hugging Face causal language model: a folder or an id."""
    trust_remote_code: bool = False
    """Run code that is shipped inside the model."""
    dtype: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    """``auto`` is float32 on a CPU and bfloat16 on a GPU."""
    device: str = "auto"
    """``auto`` is a GPU where there is one, else the CPU; or a name of PyTorch's, such as ``cuda:1``."""
    lora: LoraConfig | None = None
    tunnel: TunnelConfig = TunnelConfig()


class RewardConfig(Section):
    """One reward and its weight in the sum."""

    name: str
    """``correct``, ``math``, ``majority``, ``format``, ``length``, ``overlong``, ``rubric``, or
    ``path/to/module.py:function``."""
    weight: float = 1.0
    """Its factor in the sum."""
    options: dict[str, Any] = {}
    """Keyword arguments of the reward."""
    timeout_seconds: PositiveFloat = 10.0
    """A call that takes longer is stopped and recorded as failed."""
    memory_gib: PositiveFloat = 4.0
    """A call that wants more memory fails; the largest of several rewards' limits holds for all."""


class SamplingConfig(Section):
    """How the policy acts in training."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Logits are divided by it, in acting and in learning; 0 takes the most probable token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Only the smallest set of most probable tokens whose mass reaches this."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 keeps the whole vocabulary."""
    stop: list[str] | None = None
    """Strings that end an answer; None is what the template ends on."""
    stop_tokens: list[int] = []
    """Token ids that end an answer, besides the model's own."""


class EngineConfig(Section):
    """What writes answers, and how much it does at once."""

    name: Literal["torch", "vllm"] = "torch"
    """``torch`` is the embedded engine, ``vllm`` is vLLM, which has to be installed."""
    weights: Literal["same", "bfloat16", "int8", "int4"] = "same"
    """In what precision the embedded engine has the policy's weights where it acts in training: as they are, in bfloat16 and
    computing in it, or with the weights of linear layers rounded to eight or four bits for each output."""
    max_sequences: PositiveInt = 64
    """Answers that are written at once; further ones wait for a free place."""
    tokens_per_pass: PositiveInt = 2048
    """Most prompt tokens that one prefill pass computes."""
    memory_gib: PositiveFloat = 2.0
    """Memory that vLLM sets aside for keys and values; one sequence of the model's full context must fit."""


class StalenessConfig(Section):
    """Acting ahead of learning, as where the two run side by side."""

    steps: Annotated[int, Field(ge=0)] = 0
    """How many steps the weights that act are behind those that learn; fewer where a run begins."""
    partial: bool = False
    """Each answer is written by all versions in between, an equal share of ``max_answer_tokens`` by each, not by one alone."""


class UpdateConfig(Section):
    """From weights to new weights: AdamW, its schedule, and how much is computed at once."""

    lr: PositiveFloat = 1e-5
    """The learning rate at its height."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The learning rate's course after the warm-up; linear and cosine end at 0."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises to its height."""
    snr_parts: Annotated[int, Field(ge=0)] = 0
    """The learning rate is multiplied by SNR/(1 + SNR) of the gradient, told from so many parts of each minibatch's groups."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's, for weights of two dimensions or more."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decays of its means of gradients and of their squares."""
    eps: PositiveFloat = 1e-8
    """Added to AdamW's denominator."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient is scaled down to this norm."""
    epochs: PositiveInt = 1
    """How often a step's rollouts are gone through."""
    minibatches: PositiveInt = 1
    """Optimizer steps in one epoch."""
    tokens_per_pass: PositiveInt = 1024
    """Most tokens (shared ones counted once) in one forward and backward pass; a single longer sequence passes alone."""
    head_rows: PositiveInt = 256
    """Most hidden states that meet the vocabulary at once: the only logits that ever exist are [head_rows, V]."""
    gradient_checkpointing: bool = False
    """Compute activations again instead of keeping them: less memory, more time."""
    routing: Literal["none", "old", "rollout"] = "none"
    """Whose choice of experts an update repeats: nobody's, that of the policy at its start (R2), or the acting engine's (R3)."""
    max_bad_steps: PositiveInt = 5
    """So many skipped updates in a row (gradient not finite) end the run, saved."""


class ReferenceConfig(Section):
    """The policy to stay close to, for methods that have one."""

    model: str = "start"
    """The policy to stay close to: ``start`` (the trained model as it was), ``none``, or another model."""
    placement: Literal["keep", "swap"] = "keep"
    """``keep`` holds it in memory, ``swap`` reads it from disk for each pass."""


class TeacherConfig(Section):
    """The policy to learn from, for methods that have one."""

    model: str | None = None
    """A model of the same vocabulary; its log-probabilities of the trained model's actions are what is read."""


class ProcessConfig(Section):
    """The process reward model, a language model that learns beside the policy, for methods that have one."""

    model: str = "start"
    """What it starts from: ``start`` (the trained model as it was), or another model of the same vocabulary."""
    method: str = "implicit_prm"
    """How it learns, on the policy's batches."""
    lr: PositiveFloat = 1e-6
    """Its learning rate at its height; all else is as under ``update``."""


class ProbeConfig(Section):
    """Asking the policy for its answer at the end of each step of what it wrote, for methods that go by how near it has come."""

    step: Annotated[str, Field(min_length=1)] = ".\n\n"
    """The text that ends a step."""
    opener: str = "**Final Answer**\n\\boxed{"
    """The text that asks for the answer there."""
    samples: PositiveInt = 5
    """How many answers are written at each place, to see how sure the policy is."""
    max_tokens: PositiveInt = 10
    """Where such an answer is cut."""


class ReplayConfig(Section):
    """The run's own good answers, kept to be learned from once more, for methods that do."""

    size: PositiveInt | None = None
    """When so many are kept, all of them are replayed, and none is kept any more; None is as many as a step samples."""
    steps: PositiveInt = 10
    """An answer that is older than so many steps is dropped."""


class StressConfig(Section):
    """What is done wrong to a run on purpose, to see what its method stands. Rewards lie from 0 to 1."""

    turned: Annotated[float, Field(ge=0, le=1)] = 0.0
    """So large a share of the training rewards is turned, which makes r of 1 − r."""
    bad_step: PositiveInt | None = None
    """A step of which all rewards are turned."""


class CheckpointConfig(Section):
    """What a run keeps to go on from."""

    every: Annotated[int, Field(ge=0)] = 20
    """Steps between checkpoints; 0 writes only the last."""
    keep: PositiveInt = 2
    """How many are kept."""


class EvaluateConfig(Section):
    """Measuring on held-out problems, before, during and after."""

    every: Annotated[int, Field(ge=0)] = 10
    """Steps between evaluations on held-out problems; 0 evaluates before and after only. ``problems: 0`` never does."""
    problems: Annotated[int, Field(ge=0)] = 200
    """Held-out problems; none of them is ever trained on."""
    progress_problems: PositiveInt = 64
    """How many of them are used between the first and the last evaluation."""
    samples: PositiveInt = 1
    """Answers per problem; with 1, decoding is greedy unless ``temperature`` is set."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """None is greedy for one answer per problem, and that of training for several."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """None is that of training."""
    k: list[PositiveInt] = [1]
    """The k of pass@k, maj@k and distinct@k."""


class RunConfig(Section):
    """Everything that decides a run. Two runs with equal trees, versions and thread counts give equal bits on a CPU."""

    method: Annotated[MethodConfig, BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v)] = MethodConfig()
    task: Annotated[TaskConfig, BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v)]
    model: Annotated[ModelConfig, BeforeValidator(lambda v: {"name": v} if isinstance(v, str) else v)] = ModelConfig()
    steps: PositiveInt = 100
    """Rounds of acting, judging and updating."""
    prompts_per_step: PositiveInt = 8
    """Prompts, and so groups, of each step."""
    group_size: PositiveInt = 8
    """Answers sampled for each prompt."""
    votes: PositiveInt | None = None
    """Answers sampled for each prompt where a reward compares them, as ``majority`` does; beyond the first ``group_size`` they
    vote and are not trained on. None is ``group_size``."""
    labels: Literal["learn", "measure"] = "learn"
    """What a task's answers, worked and rated ones included, and its further columns are for; with ``measure`` rewards, policy
    and update are given none of them, and they serve metrics and held-out accuracy alone."""
    max_answer_tokens: PositiveInt = 64
    """Where an answer is cut."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides everything that is drawn."""
    out: str | None = None
    """The run folder; None makes one under ``runs/``."""
    threads: PositiveInt | None = None
    """CPU threads, and processes that compute rewards; None is PyTorch's choice, and a process a core."""
    rewards: list[RewardConfig] = [RewardConfig(name="correct")]
    sampling: SamplingConfig = SamplingConfig()
    engine: EngineConfig = EngineConfig()
    staleness: StalenessConfig = StalenessConfig()
    update: UpdateConfig = UpdateConfig()
    reference: ReferenceConfig = ReferenceConfig()
    teacher: TeacherConfig = TeacherConfig()
    process: ProcessConfig = ProcessConfig()
    probe: ProbeConfig = ProbeConfig()
    replay: ReplayConfig = ReplayConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    """What is done where the run has collapsed: nothing but to say so; end it, saved; or go back to the weights of the last
    checkpoint from before the first sign, and on from there with the next problems at half the learning rate."""
    stress: StressConfig = StressConfig()
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = []
    """Where metrics go besides the run folder."""
    sample_rollouts: Annotated[int, Field(ge=0)] = 4
    """Rollouts a step that are also written as readable text into ``rollouts.jsonl``."""


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of an error about an unknown `name`: the most similar of the `known` ones (with `prefix`), or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(prefix + match for match in close)}?"
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"known: {shown}" if known else "there is none"


def parse_setting(text: str) -> tuple[str, Any]:
    """``update.lr=1e-5`` as (``update.lr``, 1e-05); values are read as YAML, and numbers like 1e-5 as numbers."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not KEY=VALUE: write for example --set update.lr=1e-5")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key.strip()}: the value {value!r} is not valid YAML ({str(error).splitlines()[0]})") from None
    if isinstance(parsed, str) and parsed == value.strip():  # not in quotes, which make '1e5' a text
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return key.strip(), parsed


def load(tree: Mapping[str, Any], settings: Sequence[str] = ()) -> RunConfig:
    """The run that `tree` describes, with `settings` (``key=value``) applied on top.

    Raises:
        ConfigError: one line for the first thing that is wrong.
    """
    merged = _mutable(tree)
    for key, value in map(parse_setting, settings):
        _put(merged, key.split("."), value)
    return validated(RunConfig, merged)


def validated(kind: type[S], tree: Mapping[str, Any]) -> S:
    """`tree` as a `kind`.

    Raises:
        ConfigError: one line for the first thing that is wrong.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(_explain(error, kind)) from None


def merge(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with `changes` laid over it, section by section; names may be dotted, as in ``update.lr``."""
    merged = _mutable(tree)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        else:
            _put(merged, key.split("."), value)
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises ConfigError where it is missing, malformed or not a mapping."""
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}: give a recipe's name or the path of a YAML file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__}, not settings: write lines like 'steps: 100'")
    return tree


def _mutable(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _mutable(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Set `path` in `tree`; sections given as a bare name (``method: grpo``) become mappings first."""
    head, *rest = path
    if head == "method" and rest and rest[0] not in MethodConfig.model_fields:
        rest = ["settings", ".".join(rest)]
    if not rest:
        if head in ("method", "task", "model") and isinstance(value, str) and isinstance(tree.get(head), dict):
            tree[head]["name"] = value
        else:
            tree[head] = value
        return
    section = tree.get(head)
    if isinstance(section, str):
        section = {"name": section}
    tree[head] = section if isinstance(section, dict) else {}
    if rest[0] == "settings" and len(rest) > 1:
        tree[head].setdefault("settings", {})[".".join(rest[1:])] = value
    else:
        _put(tree[head], rest, value)


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first fault that pydantic found in a `kind`, as one line."""
    fault = error.errors()[0]
    path = [str(part) for part in fault["loc"] if not re.search(r"[\[(]|^(str|int|float)$", str(part))]  # which of a union it was
    name = ".".join(path)
    if fault["type"] == "extra_forbidden":
        namesakes = [other for other in setting_names(kind) if other.rpartition(".")[2] == path[-1]]
        prefix = "".join(f"{part}." for part in path[:-1])
        way_out = f"did you mean {' or '.join(namesakes)}?" if namesakes else nearest(path[-1], _siblings(path, kind), prefix)
        return f"there is no setting {name!r}: {way_out}"
    if fault["type"] == "missing":
        where = f"{f'with --{name} or ' if name == 'task' else ''}in the recipe" if kind is RunConfig else "there"
        return f"the setting {name!r} is missing: give it {where}"
    return f"{name} = {fault['input']!r} is not allowed: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _siblings(path: Sequence[str], kind: type[BaseModel]) -> list[str]:
    """The names that exist beside the last part of `path`, which leads down from a `kind`."""
    section: Any = kind
    for part in path[:-1]:
        if part.isdigit() or not (isinstance(section, type) and issubclass(section, BaseModel)):
            continue
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        section = next((a for a in _flatten(annotation) if isinstance(a, type) and issubclass(a, BaseModel)), None)
    return list(section.model_fields) if section is not None else []


def setting_names(section: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Every setting below `section` by its dotted name."""
    for name, known in section.model_fields.items():
        inner = [a for a in _flatten(known.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        yield prefix + name
        if len(inner) == 1 and known.annotation is not None and not str(known.annotation).startswith("list"):
            yield from setting_names(inner[0], f"{prefix}{name}.")


def _flatten(annotation: Any) -> Iterable[Any]:
    yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _flatten(argument)
