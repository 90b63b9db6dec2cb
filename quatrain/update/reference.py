"""Policies that are read and not trained: the one to stay close to, and a teacher."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from quatrain.config import ConfigError
from quatrain.policies import CausalLM


class Reference:
    """How such a policy is had when a pass needs it: a kept copy, weights swapped in from disk, or LoRA switched off."""

    def __init__(self, policy: CausalLM, *, keep: bool, folder: Path, other: CausalLM | None = None) -> None:
        """The policy as it is now, or `other`.

        Args:
            keep: hold a copy in memory; otherwise its weights lie in `folder` and are read for each pass.

        Raises:
            ConfigError: `other` has another vocabulary.
        """
        self.policy = policy
        self.kept: CausalLM | None = None
        self.file: Path | None = None
        if other is not None:
            check_vocabulary(policy, other)
            self.kept = _frozen(other)
        elif policy.peft is None and keep:
            self.kept = _frozen(copy.copy(policy), copy_weights=True)
        elif policy.peft is None:
            self.file = folder / "reference.safetensors"
            if not self.file.exists():
                partial = self.file.with_suffix(".partial")
                save_file({name: p.detach().cpu().clone() for name, p in policy.base.named_parameters()}, partial)
                partial.rename(self.file)

    @contextlib.contextmanager
    def active(self) -> Iterator[CausalLM]:
        """The reference policy, for as long as the context lasts."""
        if self.kept is not None:
            yield self.kept
        elif self.file is None:
            with self.policy.without_adapter():
                yield self.policy
        else:
            own = dict(self.policy.base.named_parameters())
            trained = {name: p.data for name, p in own.items()}
            try:
                with safe_open(self.file, framework="pt") as stored:
                    for name, p in own.items():
                        p.data = stored.get_tensor(name).to(p.device).clone()
                yield self.policy
            finally:
                for name, p in own.items():
                    p.data = trained[name]


def check_vocabulary(policy: CausalLM, other: CausalLM) -> None:
    """Raise ConfigError if `other` cannot score what `policy` wrote."""
    if other.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        name = other.base.config.name_or_path or type(other.base).__name__
        raise ConfigError(f"the model {name!r} has another vocabulary than the trained one: choose one of the same family")


def _frozen(policy: CausalLM, *, copy_weights: bool = False) -> CausalLM:
    if copy_weights:
        policy.base = copy.deepcopy(policy.base)
        policy.decoder, policy.head = policy.base.get_decoder(), policy.base.get_output_embeddings()
        policy.critic = policy.partition = policy.noise = None
    policy.base.eval()
    for parameter in policy.base.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return policy
