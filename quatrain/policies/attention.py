"""Attention over a forest, for any Hugging Face model that lets its attention function be chosen.

A token of a forest attends to its ancestors and itself, so the tokens × tokens matrix is nearly empty, and is never made. Tokens
next to each other see much the same keys: `Blocks` of them are attended together, each block over the keys that it needs; on a
GPU a kernel does the same, `Flexed`.
Answers that are being written attend to two places, their prompt, which they share, and what they wrote themselves: `Branches`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "quatrain_folded"
ROWS = 64
"""Queries of a block."""


@runtime_checkable
class View(Protocol):
    """Which keys the queries of a pass see."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """softmax(q·k·scaling)·v over the keys that each query sees, [1, Q, H, v].

        Query heads that share a key head are laid out as further queries: copying keys and values for each query head, as
        grouped-query attention is usually written, would move several times the memory.

        Args:
            query: [1, H, Q, d]. key, value: what the cache gives, or those of the queries themselves, [1, K, Q, d], K dividing H.
        """
        ...


Views = Callable[[int | None], View]
"""The view of layers that see so many positions back, themselves included, or all."""


@dataclass(frozen=True)
class Descent:
    """Query q sees key s if first[s] ≤ node[q] < end[s], and if it is not `window` positions back or more."""

    node: Int[Tensor, "Q"]
    """In ascending order."""
    position: Int[Tensor, "Q"]
    first: Int[Tensor, "S"]
    end: Int[Tensor, "S"]
    key_position: Int[Tensor, "S"]
    window: int | None = None

    def view(self, device: torch.device) -> View:
        """The way to attend that is fast there."""
        return Flexed.of(self, device) if device.type == "cuda" else Blocks.of(self, device)

    def sees(self, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
        """Whether queries see keys, by their numbers there, which are broadcast."""
        node, first, end = (x.to(device) for x in (self.node, self.first, self.end))
        if (window := self.window) is None:
            return lambda q, k: (first[k] <= node[q]) & (node[q] < end[k])
        at, key_at = self.position.to(device), self.key_position.to(device)
        return lambda q, k: (first[k] <= node[q]) & (node[q] < end[k]) & (at[q] - key_at[k] < window)


@dataclass
class Flexed:
    """All queries at once, by a kernel that is compiled for what they see, and skips the keys that no query next to it does."""

    mask: BlockMask

    @staticmethod
    def of(descent: Descent, device: torch.device) -> Flexed:
        sees = descent.sees(device)
        sizes = len(descent.node), len(descent.first)
        return Flexed(create_block_mask(lambda _, __, q, k: sees(q, k), None, None, *sizes, device=str(device)))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        del layer
        attention = _compiled() if query.is_cuda else flex_attention
        out = attention(query, key, value, block_mask=self.mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
        return out.transpose(1, 2)


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


@dataclass
class Blocks:
    """Queries in the order of their nodes, in blocks of ROWS; padded in both directions."""

    keys: Int[Tensor, "B W"]
    """Those that some query of the block sees."""
    seen: Bool[Tensor, "B R W"]
    _added: Float[Tensor, "B 1 FR W"] | None = field(default=None, init=False)

    @staticmethod
    def of(descent: Descent, device: torch.device) -> Blocks:
        rows = min(ROWS, len(descent.node))
        sees = descent.sees(descent.node.device)
        keys, seen = [], []
        for some in torch.arange(len(descent.node)).split(rows):
            node = descent.node[some]
            near = (descent.first <= node.max()) & (node.min() < descent.end)
            if descent.window is not None:
                near &= descent.key_position > descent.position[some].min() - descent.window
            keys.append(near.nonzero()[:, 0])
            seen.append(sees(some[:, None], keys[-1]))
        width = max(map(len, keys))
        made = [pad(own, (0, width - own.shape[1]), value=False) for own in seen]
        made[-1] = pad(made[-1], (0, 0, 0, rows - len(made[-1])), value=True)
        keys = [pad(index, (0, width - len(index))) for index in keys]
        return Blocks(torch.stack(keys).to(device), torch.stack(made).to(device))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        del layer
        _, heads, queries, width = query.shape
        (blocks, rows), shared = self.seen.shape[:2], key.shape[1]
        folds = heads // shared
        query = pad(query, (0, 0, 0, blocks * rows - queries)).view(shared, folds, blocks, rows, width)
        query = query.permute(2, 0, 1, 3, 4).reshape(blocks, shared, folds * rows, width)
        key, value = (x[0, :, self.keys].transpose(0, 1) for x in (key, value))
        out = scaled_dot_product_attention(query, key, value, attn_mask=self._mask(folds, query.dtype), scale=scaling)
        out = out.view(blocks, shared, folds, rows, -1).permute(0, 3, 1, 2, 4)
        return out.reshape(1, blocks * rows, heads, -1)[:, :queries]

    def _mask(self, folds: int, dtype: torch.dtype) -> Float[Tensor, "B 1 FR W"]:
        """What is added to scores: 0 where a key is seen, −∞ elsewhere; made once for all layers."""
        if self._added is None or self._added.dtype != dtype or self._added.shape[2] != folds * self.seen.shape[1]:
            added = torch.zeros(self.seen.shape, dtype=dtype, device=self.seen.device).masked_fill(~self.seen, -torch.inf)
            self._added = added[:, None].repeat(1, 1, folds, 1)
        return self._added


@dataclass
class Branches:
    """A query for each of Q answers: the last token of its own row of keys, behind a prompt that it shares with others.

    The two places are attended one by one, and what they come to is put together by their shares: with outputs o₁ and o₂, and l
    the logarithm of the sum of the exponentials of the scores, o = σ(l₂ − l₁)·o₂ + σ(l₁ − l₂)·o₁.
    """

    trunks: Mapping[int, tuple[Float[Tensor, "P K W d"], Float[Tensor, "P K W v"]]]
    """Keys and values of each prompt, by layer; none where the rows have them, too."""
    members: Int[Tensor, "P G"]
    """The answers to each prompt, filled up with any."""
    place: Int[Tensor, "Q"]
    """Where among the members, laid out in a row, each answer is."""
    above: Bool[Tensor, "Q W"] | None
    """Which keys of its prompt an answer sees; None if all."""
    own: Bool[Tensor, "Q T"] | None
    """Which keys of its row."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        (count, shared), heads, width = key.shape[:2], query.shape[1], query.shape[3]
        query = query[0].transpose(0, 1).reshape(count, shared, heads // shared, width)
        query = query * (width**-0.5 if scaling is None else scaling)
        found = _attend(query, key, value, None if self.own is None else self.own[:, None, None])
        if self.trunks:
            above = None if self.above is None else self._together(self.above[:, None, None].expand(-1, 1, heads // shared, -1))
            upper = self._apart(_attend(self._together(query), *self.trunks[layer], above))
            found = torch.lerp(upper, found, torch.sigmoid(found[..., -1:] - upper[..., -1:]))
        return found[..., :-1].to(value.dtype).reshape(1, count, heads, -1)

    def _together(self, x: Shaped[Tensor, "Q K F n"]) -> Shaped[Tensor, "P K GF n"]:
        """What answers have, side by side for each prompt."""
        return x[self.members].transpose(1, 2).flatten(2, 3)

    def _apart(self, x: Float[Tensor, "P K GF n"]) -> Float[Tensor, "Q K F n"]:
        return x.unflatten(2, (self.members.shape[1], -1)).transpose(1, 2).flatten(0, 1)[self.place]


def _attend(
    query: Float[Tensor, "B K F d"],
    key: Float[Tensor, "B K S d"],
    value: Float[Tensor, "B K S v"],
    sees: Bool[Tensor, "..."] | None,
) -> Float[Tensor, "B K F v1"]:
    """softmax(q·k)·v, and behind it log Σ exp(q·k), in float32 or better; 0 and −∞ where nothing is seen."""
    scores = query @ key.mT
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if sees is not None:
        scores = scores.masked_fill(~sees, -torch.inf)
    total = scores.logsumexp(-1, keepdim=True)
    found = (scores - total.clamp(min=torch.finfo(total.dtype).min)).exp().to(value.dtype) @ value
    return torch.cat([found.to(total.dtype), total], -1)


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
    """Scaled dot-product attention as the view says that the mask carries.

    Args:
        query: [1, H, Q, d]. key, value: [1, K, S, d], K dividing H.
        attention_mask: what `mask_for` gives; None is plain causal attention, with any batch size.
    """
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError(f"{type(module).__name__} asks for an attention that a forest of sequences does not have")
    if attention_mask is None:
        causal = query.shape[2] > 1
        out = scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None
    view: View | None = getattr(attention_mask, _VIEW, None)
    if view is None:
        raise ValueError(f"{type(module).__name__} makes an attention mask of its own")
    return view.attend(getattr(module, "layer_idx", 0), query, key, value, scaling), None


AttentionInterface.register(NAME, folded_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
_VIEW = "quatrain_view"


def mask_for(config: Any, views: Views, device: torch.device) -> Tensor | dict[str, Tensor]:
    """What a model with `config` takes for an attention mask: it hands it to each layer as it is, with the view of that layer."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not window or kinds == {"full_attention"}:
        return _carrier(views(None), device)
    if kinds == {"full_attention", "sliding_attention"}:
        return {"full_attention": _carrier(views(None), device), "sliding_attention": _carrier(views(window), device)}
    return _carrier(views(window), device)


def _carrier(view: View, device: torch.device) -> Tensor:
    """A mask of four dimensions, which transformers leaves as it is, that says nothing itself."""
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
    setattr(mask, _VIEW, view)
    return mask


def supports(kinds: set[str]) -> bool:
    """Whether layers of these kinds can run over a forest."""
    return kinds <= {"full_attention", "sliding_attention"}
