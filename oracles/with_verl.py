"""verl's estimators and losses, called as its trainer calls them: advantages first, then the loss of an actor or a critic."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.config import AlgoConfig, RolloutCorrectionConfig
from verl.trainer.distillation.losses import distillation_ppo_loss
from verl.trainer.ppo.core_algos import compute_rewards, get_adv_estimator_fn
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.utils import tensordict_utils
from verl.workers.config import ActorConfig, CriticConfig, DistillationConfig, DistillationLossConfig, PolicyLossConfig
from verl.workers.utils.losses import ppo_loss, sft_loss, value_loss

from oracles.case import LONGEST, Case
from oracles.peer import Peer, descent


@dataclass(frozen=True)
class Actor(Peer):
    """An advantage estimator and a policy loss by their names; called with a case, it gives −∂L/∂log π_θ [B, T]."""

    estimator: str
    loss: str = "vanilla"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the actor, its loss, the estimator, and the correction for the engine that acted being another policy."""
    package: ClassVar[str] = "verl"

    @property
    def function(self) -> str:
        return f"{self.estimator} + {self.loss}"

    def __call__(self, case: Case) -> Tensor:
        correction = _known(self.settings, RolloutCorrectionConfig)
        bypass = correction.get("bypass_mode", False)
        given = {
            "response_mask": case.action,
            "old_log_probs": case.logp_rollout if bypass else case.logp_old,
            "ref_log_prob": case.logp_ref,
            "advantages": _estimates(case, self.estimator, self.settings)[0],
        }
        if correction and not bypass:
            gap = case.logp_old - case.logp_rollout
            given["rollout_is_weights"] = compute_rollout_correction_weights(gap, case.action.double(), **correction)[0]
        of_loss = _known(self.settings, PolicyLossConfig) | {"loss_mode": self.loss}
        of_loss["rollout_correction"] = RolloutCorrectionConfig(**correction)
        config = _actor(policy_loss=PolicyLossConfig(**of_loss), **_known(self.settings, ActorConfig))
        return descent(lambda logp: ppo_loss(config, {"log_probs": _whole(logp, case)}, _data(case, given))[0], case.logp)


@dataclass(frozen=True)
class Critic(Peer):
    """A critic's loss; called with a case, it gives −∂L/∂V [B, T]."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    package: ClassVar[str] = "verl"

    @property
    def function(self) -> str:
        return "gae + value_loss"

    def __call__(self, case: Case) -> Tensor:
        returns = _estimates(case, "gae", self.settings)[1]
        given = {"response_mask": case.action, "values": case.values, "returns": returns}
        config = CriticConfig(strategy="fsdp", ppo_micro_batch_size_per_gpu=1, **_known(self.settings, CriticConfig))
        return descent(
            lambda values: value_loss(config, {"values": _whole(values, case)}, _data(case, given))[0], case.values_now
        )


@dataclass(frozen=True)
class Distiller(Peer):
    """The loss of its trainer for students of a teacher."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    package: ClassVar[str] = "verl"

    @property
    def function(self) -> str:
        return "distillation_ppo_loss"

    def __call__(self, case: Case) -> Tensor:
        distilling = DistillationConfig(distillation_loss=DistillationLossConfig(**self.settings))
        given = {
            "response_mask": case.action,
            "old_log_probs": case.logp_old,
            "advantages": torch.zeros_like(case.logp),
        }

        def loss(logp: Tensor) -> Tensor:
            data = _data(case, given)
            data["teacher_logprobs"] = _whole(case.logp_teacher, case)
            return distillation_ppo_loss(_actor(), distilling, {"log_probs": _whole(logp, case)}, data)[0]

        return descent(loss, case.logp)


@dataclass(frozen=True)
class Imitator(Peer):
    """The loss of its trainer for demonstrations."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    package: ClassVar[str] = "verl"

    @property
    def function(self) -> str:
        return "sft_loss"

    def __call__(self, case: Case) -> Tensor:
        def loss(logp: Tensor) -> Tensor:
            marked = torch.nested.as_nested_tensor(
                [torch.cat([row.new_zeros(1), row[:length]]) for row, length in _rows(case.action, case)], layout=torch.jagged
            )
            data = _data(case, {})
            data["loss_mask"] = marked
            return sft_loss(_actor(), {"log_probs": _whole(logp, case)}, data)[0]

        return descent(loss, case.logp)


def _actor(**settings: Any) -> ActorConfig:
    return ActorConfig(strategy="fsdp", rollout_n=4, ppo_micro_batch_size_per_gpu=1, **settings)


def _known(settings: Mapping[str, Any], config: type) -> dict[str, Any]:
    """Those that are fields of `config`."""
    return {name: value for name, value in settings.items() if name in {f.name for f in fields(config)}}


def _estimates(case: Case, estimator: str, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Advantages and returns [B, T]; the reward arrives with the last action, less a KL with each one where that is set."""
    last = case.action & (case.action.cumsum(1) == case.action.sum(1, keepdim=True))
    kl = settings.get("kl_coef", 0.0)
    rewards = {} if case.batch.rewards is None else {str(k): column.numpy() for k, column in enumerate(case.batch.rewards.T)}
    several = {} if not rewards else {"gdpo_reward_keys": list(rewards), "gdpo_reward_weights": case.reward_weights[0].tolist()}
    estimate = get_adv_estimator_fn(estimator)
    given = {
        "token_level_rewards": compute_rewards(case.reward[:, None] * last, case.logp_old, case.logp_ref, kl),
        "response_mask": case.action.double(),
        "index": case.prompt_id.numpy(),
        "values": case.values,
        "reward_baselines": case.batch.reward_greedy,
        "non_tensor_batch": rewards,
        "batch": {"prompts": case.tokens[:, :0], "attention_mask": case.action},
        "config": AlgoConfig(**several),
        **settings,
    }
    wanted = inspect.signature(estimate).parameters
    return estimate(**{name: value for name, value in given.items() if name in wanted})


def _rows(value: Tensor, case: Case) -> Iterator[tuple[Tensor, int]]:
    return zip(value, case.action.sum(1).tolist(), strict=True)


def _whole(value: Tensor, case: Case) -> Tensor:
    """What a model says along a prompt of one token and its answer: at each token about the next one, at the last nothing."""
    return torch.nested.as_nested_tensor(
        [torch.cat([row[:length], row.new_zeros(1)]) for row, length in _rows(value, case)], layout=torch.jagged
    )


def _data(case: Case, given: dict[str, Tensor]) -> TensorDict:
    """What its workers hand to a loss: answers without padding, and what the whole minibatch counts."""
    counts = {"dp_size": 1, "batch_num_tokens": int(case.action.sum()), "global_batch_size": len(case.logp)}
    answers = {
        name: torch.nested.as_nested_tensor([row[:length] for row, length in _rows(value, case)], layout=torch.jagged)
        for name, value in {"responses": case.tokens, **given}.items()
    }
    prompts = torch.nested.as_nested_tensor([torch.ones(1, dtype=torch.int64)] * len(case.logp), layout=torch.jagged)
    return tensordict_utils.get_tensordict({"prompts": prompts, **answers}, {**counts, "max_response_len": LONGEST})
