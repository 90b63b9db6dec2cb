"""Attention over a forest, for any Hugging Face model that lets its attention function be chosen."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "quatrain_folded"


def folded_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention in which query heads that share a key head are laid out as further queries.

    Keys and values are read as they lie in the cache; copying them for each query head, as grouped-query attention is usually
    written, would move several times the memory.

    Args:
        query: [1, H, Q, d]. key, value: [1, K, S, d], K dividing H; [Q, K, S, d] where each query has its own.
        attention_mask: [1, 1, Q, S], or [Q, 1, 1, S] for own keys, True where a query sees a key; None is plain causal attention,
            with any batch size.
    """
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(f"{type(module).__name__} asks for an attention that a forest of sequences does not have")
    if attention_mask is None:
        causal = query.shape[2] > 1
        out = scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None
    batch, heads, queries, width = query.shape
    folds = heads // key.shape[1]
    if attention_mask.shape[0] > batch:
        own = query[0].transpose(0, 1).reshape(queries, key.shape[1], folds, width)
        out = scaled_dot_product_attention(own, key, value, attn_mask=attention_mask, scale=scaling)
        return out.reshape(1, queries, heads, -1), None
    folded = query.reshape(batch, key.shape[1], folds * queries, width)
    mask = attention_mask.repeat(1, 1, folds, 1)
    out = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(batch, heads, queries, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, folded_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def mask_for(config: Any, sees: Tensor, position: Tensor, key_position: Tensor) -> Tensor | dict[str, Tensor]:
    """The attention mask of a model with `config`.

    Args:
        sees: [Q, S] bool, True where a query may attend to a key.
        position, key_position: [Q] and [S], for the layers whose attention slides over a window; [Q, S] where each query has keys
            of its own.
    """
    own = key_position.ndim == 2
    full = sees[:, None, None] if own else sees[None, None]
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not window or kinds == {"full_attention"}:
        return full
    near = position[:, None] - key_position < window
    sliding = full & (near[:, None, None] if own else near[None, None])
    if kinds == {"full_attention", "sliding_attention"}:
        return {"full_attention": full, "sliding_attention": sliding}
    return sliding


def supports(kinds: set[str]) -> bool:
    """Whether layers of these kinds can run over a forest."""
    return kinds <= {"full_attention", "sliding_attention"}
