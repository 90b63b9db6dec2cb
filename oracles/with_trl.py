"""TRL's trainers, built by their own constructors around a model of a few numbers; what a model would say is put in its place."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.gmpo import GMPOConfig, GMPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from oracles.case import Case
from oracles.peer import Peer, descent
from quatrain.types import Origin

disable_progress_bars()
logging.disable_progress_bar()

_PAD, _EOS, _WORD, _ELSEWHERE = range(4)
"""The vocabulary; the last one marks answers to another prompt."""
PROMPT = 3
"""Tokens of the prompts that are given whole."""


@dataclass(frozen=True)
class Trainer(Peer):
    """A trainer of TRL with its settings; called with a case, it gives −∂L/∂log π_θ [B, T] of its loss."""

    trainer: type
    config: type
    settings: Mapping[str, Any] = field(default_factory=dict)
    package: ClassVar[str] = "trl"

    @property
    def function(self) -> str:
        return self.trainer.__name__

    def build(self, columns: dict[str, list[Any]], fixed: Mapping[str, Any], **given: Any) -> Any:
        """The trainer, in the middle of a training without accumulation; `fixed` are settings that change no gradient."""
        config = self.config(
            output_dir=_folder().name, use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, **fixed, **self.settings
        )
        model = LlamaForCausalLM.from_pretrained(_folder().name)
        data = Dataset.from_dict(columns)
        trainer = self.trainer(model=model, args=config, processing_class=_tokenizer(), train_dataset=data, **given)
        trainer.current_gradient_accumulation_steps = 1
        return trainer


@dataclass(frozen=True)
class Sampling(Trainer):
    """A trainer that samples, scores and learns: given are the answers, their rewards and all log-probabilities.

    It is in the second of its passes over the samples, so that π_old is not π_θ.
    """

    corrected: bool = False
    """Whether an engine of its own acted, whose log-probabilities are given, too."""

    def __call__(self, case: Case) -> Tensor:
        rows = len(case.logp)
        fixed = {"num_generations": 4, "per_device_train_batch_size": rows, "num_iterations": 2}
        rewards = case.reward[:, None] if case.batch.rewards is None else case.batch.rewards
        trainer = self.build({"prompt": ["a"] * rows}, fixed, reward_funcs=[_no_reward] * rewards.shape[1])
        answers = [[_EOS] * length for length in case.action.sum(1).tolist()]
        generated: tuple[Any, ...] = ([[_WORD]] * rows, answers, [""] * rows)
        if isinstance(trainer, GRPOTrainer):
            trainer.use_vllm = self.corrected
            acted = [row[: len(ids)].tolist() for row, ids in zip(case.logp_rollout, answers, strict=True)]
            generated = (*generated[:2], None, generated[2], acted if self.corrected else None, {}, None, None)
        trainer._generate = lambda prompts: generated
        trainer._calculate_rewards = lambda *_: rewards
        said = {id(trainer.model): case.logp_old, id(trainer.ref_model): case.logp_ref}
        trainer._get_per_token_logps_and_entropies = lambda model, *_, **__: (said[id(model)], torch.ones_like(case.logp), None)
        scored = trainer._generate_and_score_completions([{"prompt": "a"}] * rows)

        def loss(logp: Tensor) -> Tensor:
            said[id(trainer)] = logp  # the trainer stands for the model as it is now
            return trainer.compute_loss(trainer, scored)

        return descent(loss, case.logp)


class Imitating(Trainer):
    """A trainer that imitates: given are the log-probabilities of the answers that it learns from."""

    def __call__(self, case: Case) -> Tensor:
        trainer = self.build({"text": ["a"] * len(case.logp)}, {})
        inputs = {"input_ids": case.action.long(), "attention_mask": case.action.long()}
        return descent(lambda logp: trainer.compute_loss(_model(logp, case.action), dict(inputs)), case.logp)


class ImitatingAccepted(Imitating):
    """The same, which learns from the answers with reward 1 or more only."""

    def __call__(self, case: Case) -> Tensor:
        accepted = (case.reward >= 1).nonzero()[:, 0]
        return torch.zeros_like(case.logp).index_copy(0, accepted, super().__call__(case.rows(accepted)))


class Preferring(Trainer):
    """A trainer of pairs, the better answers first: given are all log-probabilities."""

    def __call__(self, case: Case) -> Tensor:
        trainer = self.build(_PAIRS, {})
        trainer.ref_model = _model(case.logp_ref, case.action)
        return descent(lambda logp: trainer.compute_loss(_model(logp, case.action), _inputs(case.action)), case.logp)


class PreferringAlone(Trainer):
    """A trainer of pairs without a reference, which reads logits."""

    def __call__(self, case: Case) -> Tensor:
        trainer = self.build(_PAIRS, {"remove_unused_columns": False})
        inputs = _inputs(case.action)
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        halves = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels}
        batch = {
            f"{side}_{name}": part
            for name, value in halves.items()
            for side, part in zip(("chosen", "rejected"), value.chunk(2), strict=True)
        }
        return descent(lambda logp: trainer.compute_loss(_logits(logp), dict(batch)), case.logp)


class Labelling(Trainer):
    """A trainer of answers that are good or bad, with the answers to other prompts that it measures its distance on."""

    def __call__(self, case: Case) -> Tensor:
        trainer = self.build({"prompt": ["a", "a"], "completion": [" a", " a"], "label": [True, False]}, {}, ref_model=_small())
        elsewhere = case.origin == Origin.MISMATCHED.code
        own, other = case.rows((~elsewhere).nonzero()[:, 0]), case.rows(elsewhere.nonzero()[:, 0])
        inputs = _inputs(own.action) | {f"KL_{name}": value for name, value in _inputs(other.action).items()}
        inputs["KL_input_ids"] = inputs["KL_input_ids"] * _ELSEWHERE
        inputs["label"] = case.reward[~elsewhere] > 0

        def model(logp: Tensor) -> Callable[..., Any]:
            here, there = _model(logp[~elsewhere], own.action), _model(logp[elsewhere], other.action)
            return lambda input_ids, **_: there() if (input_ids == _ELSEWHERE).any() else here()

        trainer.ref_model = model(case.logp_ref)
        return descent(lambda logp: trainer.compute_loss(model(logp), dict(inputs)), case.logp)


def grpo(**settings: Any) -> Sampling:
    return Sampling(GRPOTrainer, GRPOConfig, settings)


def grpo_with_vllm(**settings: Any) -> Sampling:
    return Sampling(GRPOTrainer, GRPOConfig, settings, corrected=True)


def gmpo(**settings: Any) -> Sampling:
    return Sampling(GMPOTrainer, GMPOConfig, settings)


def rloo(**settings: Any) -> Sampling:
    return Sampling(RLOOTrainer, RLOOConfig, settings)


def sft(**settings: Any) -> Imitating:
    return Imitating(SFTTrainer, SFTConfig, settings)


def sft_on_accepted(**settings: Any) -> ImitatingAccepted:
    return ImitatingAccepted(SFTTrainer, SFTConfig, settings)


def dpo(**settings: Any) -> Preferring:
    return Preferring(DPOTrainer, DPOConfig, settings)


def cpo(**settings: Any) -> PreferringAlone:
    return PreferringAlone(CPOTrainer, CPOConfig, settings)


def orpo(**settings: Any) -> PreferringAlone:
    return PreferringAlone(ORPOTrainer, ORPOConfig, settings)


def kto(**settings: Any) -> Labelling:
    return Labelling(KTOTrainer, KTOConfig, settings)


_PAIRS = {"prompt": ["a"], "chosen": [" a"], "rejected": [" a"]}


@cache
def _tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<pad>": _PAD, "<eos>": _EOS, "a": _WORD, "b": _ELSEWHERE}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="a")


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """A model of a few numbers on disk, from where trainers load a second one as their reference."""
    sizes = dict.fromkeys(("hidden_size", "intermediate_size"), 2)
    counts = dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1)
    folder = tempfile.TemporaryDirectory()
    LlamaForCausalLM(LlamaConfig(vocab_size=4, **sizes, **counts)).save_pretrained(folder.name)
    return folder


def _small() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(_folder().name)


def _no_reward(**_: Any) -> list[float]:
    raise AssertionError("the rewards are given")


def _inputs(action: Tensor) -> dict[str, Tensor]:
    """Prompts and answers, as collators give them."""
    answer = F.pad(action.long(), (PROMPT, 0))
    seen = F.pad(action.long(), (PROMPT, 0), value=1)
    return {"input_ids": seen, "attention_mask": seen, "completion_mask": answer}


def _model(logp: Tensor, action: Tensor) -> Callable[..., Any]:
    """A model that says `logp`, as TRL's fused head does: 0 where there is no label, as in prompts."""
    said, labelled = (F.pad(x, (PROMPT - 1, 0)) for x in (logp.where(action, 0), action))
    none = torch.zeros_like(said)
    out = {"label_mask": labelled, "entropy": none, "is_top1": none.bool(), "mean_logits": none}
    return lambda **_: SimpleNamespace(log_probs=said, **out)


def _logits(logp: Tensor) -> Callable[..., Any]:
    """A model of four words whose logits are log-probabilities: that of the word that stands in answers is `logp`."""
    others = torch.log(-torch.expm1(logp) / 3)
    said = torch.stack([logp if word == 1 else others for word in range(4)], -1)
    whole = F.pad(said, (0, 0, PROMPT - 1, 1))
    return lambda *_, **__: SimpleNamespace(logits=whole)
