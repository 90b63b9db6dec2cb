"""Small randomly initialized models of many Hugging Face families, with weights that make attention and every bias matter."""

import warnings
from collections.abc import Callable

import torch
import transformers as hf
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from quatrain.config import ModelConfig
from quatrain.policies import load_model

TOKENIZER: PreTrainedTokenizerBase = load_model(ModelConfig(name="tiny"), 0)[1]
VOCABULARY = len(TOKENIZER)
CONTEXT = 64
WINDOW = 5

_SIZE = {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_PLAIN = _SIZE | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_LLAMA = _PLAIN | {"intermediate_size": 48, "num_key_value_heads": 2}
_GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT} | {
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_MIXED = ["sliding_attention", "full_attention"]

FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**_LLAMA),
    "llama, tied": lambda: hf.LlamaConfig(**_LLAMA, tie_word_embeddings=True),
    "mistral": lambda: hf.MistralConfig(**_LLAMA, sliding_window=WINDOW),
    "qwen2": lambda: hf.Qwen2Config(**_LLAMA),
    "qwen2, mixed": lambda: hf.Qwen2Config(**_LLAMA, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3": lambda: hf.Qwen3Config(**_LLAMA, head_dim=16),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(**_LLAMA, **_EXPERTS, head_dim=16),
    "gemma": lambda: hf.GemmaConfig(**_LLAMA | {"num_key_value_heads": 1}, head_dim=8),
    "gemma3": lambda: hf.Gemma3TextConfig(**_LLAMA, head_dim=8, sliding_window=WINDOW, layer_types=_MIXED),
    "phi": lambda: hf.PhiConfig(**_PLAIN, intermediate_size=48),
    "phi3": lambda: hf.Phi3Config(**_LLAMA, sliding_window=WINDOW),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**_PLAIN, intermediate_size=48),
    "gpt2": lambda: hf.GPT2Config(**_GPT2),
    "opt": lambda: hf.OPTConfig(**_PLAIN, ffn_dim=48, word_embed_proj_dim=32),
    "olmo2": lambda: hf.Olmo2Config(**_LLAMA),
    "starcoder2": lambda: hf.Starcoder2Config(**_LLAMA, sliding_window=WINDOW),
    "stablelm": lambda: hf.StableLmConfig(**_LLAMA),
    "smollm3": lambda: hf.SmolLM3Config(**_LLAMA),
    "glm": lambda: hf.GlmConfig(**_LLAMA, head_dim=8),
    "deepseek_v3": lambda: hf.DeepseekV3Config(
        **_LLAMA | {"num_key_value_heads": 4},
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
    ),
}
"""Families that work: grouped heads, windows shorter than the tests' sequences, learned positions, experts, latent attention."""

REFUSED: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "gemma2": (lambda: hf.Gemma2Config(**_LLAMA, head_dim=8, sliding_window=WINDOW), "Gemma2Attention asks for an attention"),
    "gpt_oss": (
        lambda: hf.GptOssConfig(**_LLAMA, head_dim=8, sliding_window=WINDOW, num_local_experts=4, num_experts_per_tok=2),
        "GptOssAttention asks for an attention",
    ),
    "gpt_neo": (
        lambda: hf.GPTNeoConfig(
            **_SIZE, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=WINDOW
        ),
        "its attention cannot be chosen",
    ),
    "gptj": (lambda: hf.GPTJConfig(**_GPT2, rotary_dim=4), "its attention cannot be chosen"),
    "bloom": (lambda: hf.BloomConfig(**_SIZE, hidden_size=32, n_layer=2, n_head=4), "its attention cannot be chosen"),
    "falcon": (lambda: hf.FalconConfig(**_PLAIN), "its attention cannot be chosen"),
    "mpt": (lambda: hf.MptConfig(**_SIZE, d_model=32, n_layers=2, n_heads=4), "its attention cannot be chosen"),
    "xglm": (
        lambda: hf.XGLMConfig(**_SIZE, d_model=32, num_layers=2, attention_heads=4, ffn_dim=48),
        "its attention cannot be chosen",
    ),
    "cohere": (lambda: hf.CohereConfig(**_LLAMA), "gives other probabilities"),
    "granite": (lambda: hf.GraniteConfig(**_LLAMA, logits_scaling=3.0), "gives other probabilities"),
    "recurrent_gemma": (
        lambda: hf.RecurrentGemmaConfig(**_LLAMA | {"num_hidden_layers": 3}, lru_width=32),
        "gives other probabilities",
    ),
    "mamba": (lambda: hf.MambaConfig(**_SIZE, hidden_size=32, num_hidden_layers=2, state_size=4), "linear_attention"),
    "lfm2": (lambda: hf.Lfm2Config(**_LLAMA, layer_types=["conv", "full_attention"]), "conv"),
    "llama4": (
        lambda: hf.Llama4TextConfig(**_LLAMA, head_dim=8, attention_chunk_size=8, num_local_experts=2, intermediate_size_mlp=48),
        "chunked_attention",
    ),
}
"""Families that do not, and what the refusal says."""


def build(config: PreTrainedConfig, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    """A model with weights so large that attention looks somewhere, and with biases and norms unlike those of an empty start."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model = hf.AutoModelForCausalLM.from_config(config).to(dtype)
        embedding = 0.2 if model.config.tie_word_embeddings else 0.7  # not so large that one token takes all
        with torch.no_grad():
            for name, p in model.named_parameters():
                noise = torch.randn(p.shape, dtype=torch.float64).to(p)
                if p.ndim == 1:
                    p.add_(0.2 * noise)
                else:
                    p.copy_(noise * (embedding if "emb" in name or "wte" in name else 1.5 / p.shape[-1] ** 0.5))
    if dtype == torch.float64 and "experts" in " ".join(name for name, _ in model.named_parameters()):
        model.set_experts_implementation("eager")  # the grouped one has no float64
    return model.eval()


def family(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> PreTrainedModel:
    return build(FAMILIES[name](), dtype, seed)


def sequences(seed: int = 0) -> list[torch.Tensor]:
    """Sequences that share beginnings in several depths, one that is a prefix of another, one alone, one twice."""
    generator = torch.Generator().manual_seed(seed)
    base, other, *tails = (torch.randint(3, VOCABULARY, (n,), generator=generator) for n in (7, 3, 14, 9, 20, 1, 12))
    first = torch.cat([base, tails[0]])
    return [first, torch.cat([base, tails[1]]), torch.cat([base[:3], other, tails[2]]), first[:11], tails[3], tails[4], first]
