"""A Hugging Face causal language model as a policy: it scores forests of tokens, and it is what is trained."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from quatrain.config import ConfigError, LoraConfig
from quatrain.policies import attention
from quatrain.policies.forest import Forest, plant
from quatrain.policies.noise import Noise, nodes_of
from quatrain.policies.routing import Routing

AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}
"""How far, in total variation, distributions over a forest may be from the model's own; in half precision 0.1."""


class CausalLM:
    """A model, its tokenizer and what a method may learn beside it.

    That is a critic and log Z of prompts, heads on the last hidden states, and noise in the layers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        lora: LoraConfig | None = None,
        critic: bool = False,
        partition: bool = False,
        noise: float | None = None,
        gradient_checkpointing: bool = False,
        seed: int = 0,
    ) -> None:
        """`seed` initializes the LoRA factors and the hidden layers of log Z; `noise` is its deviation at the start.

        Raises:
            ConfigError: the model is of a kind that cannot share what sequences have in common.
        """
        kinds: set[str] = set(getattr(model.config, "layer_types", None) or ())
        if not attention.supports(kinds):
            raise ConfigError(
                f"{_name(model)} has layers of kind {sorted(kinds)}; only softmax attention, full or "
                "over a sliding window, can share what sequences have in common: choose another model"
            )
        _remove_dropout(model)
        _check_forest(model)
        model.set_attn_implementation(attention.NAME)
        self.tokenizer: Any = tokenizer
        self.base: Any = model
        self.decoder: Any = model.get_decoder()
        self.head: Any = model.get_output_embeddings()
        self.peft: Any = None
        """The model with LoRA's factors in it, or None."""
        if lora is not None:
            peft = importlib.import_module("peft")
            settings = peft.LoraConfig(
                r=lora.rank,
                lora_alpha=cast(int, lora.alpha),
                target_modules=lora.targets,
                lora_dropout=0.0,
                task_type="CAUSAL_LM",
            )
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.peft = peft.get_peft_model(model, settings)
            self.head = model.get_output_embeddings()
        self.critic = _nought(self.width).to(self.device) if critic else None
        self.partition = _partition(self.width, seed).to(self.device) if partition else None
        self.noise = None if noise is None else Noise(len(self.layers), noise).to(self.device)
        model.eval()
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()

    @property
    def heads(self) -> dict[str, nn.Module]:
        """What a method learns beside the model, by name."""
        known = {"critic": self.critic, "partition": self.partition, "noise": self.noise}
        return {name: head for name, head in known.items() if head is not None}

    def copied(self) -> CausalLM:
        """The policy with a copy of its weights as they are now, frozen, and without what a method learns beside them."""
        other = copy.copy(self)
        other.base = copy.deepcopy(self.base)
        other.decoder, other.head = other.base.get_decoder(), other.base.get_output_embeddings()
        other.critic = other.partition = other.noise = None
        return other.frozen()

    def frozen(self) -> CausalLM:
        """The policy itself, not to be trained any more."""
        self.base.eval()
        for parameter in self.base.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        return self

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def layers(self) -> list[nn.Module]:
        """Those of the decoder, from the first to the last."""
        count = self.base.config.get_text_config().num_hidden_layers
        return list(next(m for m in self.decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count))

    @property
    def experts(self) -> tuple[int, int] | None:
        """How many experts a layer has and how many it chooses for a token; None of a dense model."""
        config = self.base.config.get_text_config()
        names = ("num_experts", "num_local_experts", "n_routed_experts")
        count = next((getattr(config, name) for name in names if getattr(config, name, None)), None)
        each = getattr(config, "num_experts_per_tok", None)
        return (count, each) if count and each else None

    @property
    def keeps_latents(self) -> bool:
        """Whether what a cache keeps is not yet keys and values: multi-head latent attention makes these of it in each pass."""
        return getattr(self.base.config.get_text_config(), "kv_lora_rank", None) is not None

    @property
    def width(self) -> int:
        """D, the width of a hidden state."""
        return self.base.get_input_embeddings().weight.shape[1]

    @property
    def context(self) -> int:
        """Most tokens of a sequence.

        With LongRoPE these are the original ones: a longer sequence would change the frequencies of all others in its pass.
        """
        most = getattr(self.base.config, "max_position_embeddings", None) or 1 << 30
        rope = getattr(self.base.config, "rope_parameters", None) or {}
        kinds = [kind for kind in (rope, *rope.values()) if isinstance(kind, dict) and kind.get("rope_type") == "longrope"]
        return min([most, *(kind["original_max_position_embeddings"] for kind in kinds)])

    @property
    def end_tokens(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ends = self.base.generation_config.eos_token_id if self.base.generation_config else None
        ends = self.tokenizer.eos_token_id if ends is None else ends
        return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What is trained."""
        yield from ((name, p) for name, p in self.base.named_parameters() if p.requires_grad)
        for head, module in self.heads.items():
            yield from ((f"{head}.{name}", p) for name, p in module.named_parameters())

    def hidden(
        self, tokens: Int[Tensor, "Q"], position: Int[Tensor, "Q"], views: attention.Views, cache: Cache | None = None
    ) -> Float[Tensor, "Q D"]:
        """The last hidden state of each token. Of their keys, or of those that a cache gives, it sees what `views` say."""
        checkpointing = self.gradient_checkpointing and cache is None and torch.is_grad_enabled()
        if self.base.training != checkpointing:  # layers checkpoint in training mode, and then they drop the cache
            self.base.train(checkpointing)
        out = self.decoder(
            input_ids=tokens[None].to(self.device),
            position_ids=position[None].to(self.device),
            attention_mask=attention.mask_for(self.base.config, views, self.device),
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state[0]

    def hidden_of(self, forest: Forest) -> Float[Tensor, "N D"]:
        """The last hidden state of each node."""
        return self.hidden(forest.tokens, forest.position, lambda window: forest.view(self.device, window))

    @contextlib.contextmanager
    def routed(self, wanted: Int[Tensor, "N L K"] | None = None) -> Iterator[Routing]:
        """A context in which the experts of one forward pass over N tokens are recorded, for the pass and for its gradient.

        Where some are `wanted`, and not -1, they are chosen again.
        """
        assert self.experts is not None
        layers = self.layers
        routing = Routing(*self.experts, len(layers), None if wanted is None else wanted.to(self.device))
        hooks = [hook for number, layer in enumerate(layers) for hook in routing.hooks(layer, number)]
        try:
            yield routing
        finally:
            for hook in hooks:
                hook.remove()

    @contextlib.contextmanager
    def noisy(self, forest: Forest, seed: Sequence[int]) -> Iterator[None]:
        """A context in which the layers have noise, if the policy has learned any: for `hidden_of(forest)` and its gradient.

        What a node gets depends on `seed` and on the tokens up to there, and not on what else is in the forest.
        """
        if self.noise is None:
            yield
            return
        nodes = nodes_of(forest, seed).to(self.device)
        hooks = [
            layer.register_forward_pre_hook(functools.partial(self._add_noise, number, nodes))
            for number, layer in enumerate(self.layers)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _add_noise(self, number: int, nodes: Tensor, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        assert self.noise is not None
        hidden, *others = inputs
        return self.noise(hidden, number, nodes), *others

    def logits(self, hidden: Float[Tensor, "R D"]) -> Float[Tensor, "R V"]:
        """Unnormalized log-probabilities of the next token, in float32 or better."""
        logits = self.head(hidden)
        return logits if logits.dtype == torch.float64 else logits.float()

    def value(self, hidden: Float[Tensor, "R D"]) -> Float[Tensor, "R"]:
        """The critic's value of the state that `hidden` ends."""
        assert self.critic is not None
        return self.critic(hidden.to(self.critic.weight.dtype))[:, 0]

    def log_z(self, hidden: Float[Tensor, "N D"], prompts: Bool[Tensor, "P N"]) -> Float[Tensor, "P"]:
        """log Z of each prompt, which is a row of `prompts`: True for its tokens' hidden states, whose mean is read."""
        assert self.partition is not None
        dtype = next(self.partition.parameters()).dtype
        share = prompts.to(dtype) / prompts.sum(1, keepdim=True)
        return self.partition(share @ hidden.to(dtype))[:, 0]

    def without_adapter(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which the policy is the model that LoRA started from."""
        assert self.peft is not None
        return self.peft.disable_adapter()

    def weights(self) -> dict[str, Tensor]:
        """The model's weights by the names that `from_pretrained` reads, tied ones under each of theirs; LoRA is merged in."""
        model = self.base if self.peft is None else copy.deepcopy(self.peft).merge_and_unload()
        return revert_weight_conversion(model, model.state_dict())

    def save(self, folder: Path) -> None:
        """Write weights and tokenizer as `from_pretrained` reads them; a LoRA policy writes its adapter."""
        (self.base if self.peft is None else self.peft).save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        for name, head in self.heads.items():
            save_file({k: v.contiguous() for k, v in head.state_dict().items()}, folder / f"{name}.safetensors")

    def export(self, folder: Path) -> None:
        """Write a whole model that needs nothing else: LoRA is merged into it."""
        if self.peft is None:
            return self.save(folder)
        merged = copy.deepcopy(self.peft).merge_and_unload()  # merging in place and back again would not give the same bits
        merged.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        return None

    def load(self, folder: Path) -> None:
        """Read back, to the bit, what `save` wrote."""
        if self.peft is not None:
            weights = load_file(folder / "adapter_model.safetensors")
            importlib.import_module("peft").set_peft_model_state_dict(self.peft, weights)
        else:
            # names in the files need not be those of the parameters: from_pretrained knows how they map
            stored = type(self.base).from_pretrained(folder, dtype=self.base.dtype, use_safetensors=True)
            self.base.load_state_dict(stored.state_dict())
        for name, head in self.heads.items():
            head.load_state_dict(load_file(folder / f"{name}.safetensors"))


def _nought(width: int) -> nn.Linear:
    """A linear map to a number, which is 0 at the start."""
    made = nn.Linear(width, 1, dtype=torch.float32)
    nn.init.zeros_(made.weight)
    nn.init.zeros_(made.bias)
    return made


def _partition(width: int, seed: int) -> nn.Sequential:
    """log Z of a prompt: two hidden layers (arXiv:2509.15207 and its code), without dropout, and 0 at the start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))]
        return nn.Sequential(*hidden, _nought(width)).float()


def _remove_dropout(model: nn.Module) -> None:
    """A policy must act and be scored alike; dropout, skipped layers and noise in a router would make the two differ."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and name.endswith(("dropout", "dropout_prob", "layerdrop", "jitter_noise")):
                setattr(module, name, 0.0)


@torch.no_grad()
def _check_forest(model: Any) -> None:
    """Compare the distributions over a small forest with the model's own; a model that cannot be run so is refused."""
    tokens = torch.arange(3, 11) % model.get_input_embeddings().weight.shape[0]
    sequences = [tokens, torch.cat([tokens[:4], tokens.flip(0)])]
    model.eval()
    own = [torch.softmax(model(s[None].to(model.device)).logits[0].double(), -1) for s in sequences]
    kept = model.config._attn_implementation
    forest = plant(sequences)
    try:
        model.set_attn_implementation(attention.NAME)
        if model.get_decoder().config._attn_implementation != attention.NAME:
            raise ValueError("its attention cannot be chosen")
        mask = attention.mask_for(model.config, lambda window: forest.view(model.device, window), model.device)
        tokens, position = (x[None].to(model.device) for x in (forest.tokens, forest.position))
        inputs = {"input_ids": tokens, "position_ids": position, "attention_mask": mask}
        hidden = model.get_decoder()(**inputs, use_cache=False).last_hidden_state[0]
        probability = torch.softmax(model.get_output_embeddings()(hidden).double(), -1)
        model.set_attn_implementation(kept)
    except Exception as error:  # the model's own code: it may fail in any way
        raise ConfigError(
            f"{_name(model)} cannot be run so that shared beginnings are computed once ({error}): choose another model"
        ) from error
    for sequence, path, expected in zip(sequences, forest.path, own, strict=True):
        error = (probability[path[: len(sequence)]] - expected).abs().sum(-1).max().item() / 2
        limit = AGREEMENT.get(model.dtype, 0.1)
        if not error <= limit:
            raise ConfigError(
                f"{_name(model)} gives other probabilities when shared beginnings are computed once (difference {error:.2g}, "
                f"allowed {limit:g}): its attention or its output head is of a kind that is not supported; choose another model"
            )


def _name(model: Any) -> str:
    """``the model 'name' (Class)``."""
    return f"the model {model.config.name_or_path!r} ({type(model).__name__})"
