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
"""Queries of a block, at most."""


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
    """Queries in the order of their nodes, in blocks; padded in both directions."""

    keys: Int[Tensor, "B W"]
    """Those that some query of the block sees."""
    seen: Bool[Tensor, "B R W"]
    row: Int[Tensor, "Q"]
    """Where among the rows of all blocks each query is."""
    _added: Float[Tensor, "B 1 FR W"] | None = field(default=None, init=False)

    @staticmethod
    def of(descent: Descent, device: torch.device) -> Blocks:
        sees = descent.sees(descent.node.device)
        parts = _cut(descent.position)
        rows, keys, seen = max(map(len, parts)), [], []
        for some in parts:
            node = descent.node[some]
            near = (descent.first <= node.max()) & (node.min() < descent.end)
            if descent.window is not None:
                near &= descent.key_position > descent.position[some].min() - descent.window
            keys.append(near.nonzero()[:, 0])
            seen.append(sees(some[:, None], keys[-1]))
        width = max(map(len, keys))
        made = [pad(own, (0, width - own.shape[1]), value=False) for own in seen]
        made = [pad(own, (0, 0, 0, rows - len(own)), value=True) for own in made]
        row = torch.cat([number * rows + torch.arange(len(some)) for number, some in enumerate(parts)])
        keys = [pad(index, (0, width - len(index))) for index in keys]
        return Blocks(torch.stack(keys).to(device), torch.stack(made).to(device), row.to(device))

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        del layer
        heads, width = query.shape[1], query.shape[3]
        (blocks, rows), shared = self.seen.shape[:2], key.shape[1]
        folds = heads // shared
        query = query.new_zeros(heads, blocks * rows, width).index_copy(1, self.row, query[0])
        query = query.view(shared, folds, blocks, rows, width).permute(2, 0, 1, 3, 4).reshape(blocks, shared, folds * rows, width)
        key, value = (x[0, :, self.keys].transpose(0, 1) for x in (key, value))
        out = scaled_dot_product_attention(query, key, value, attn_mask=self._mask(folds, query.dtype), scale=scaling)
        out = out.view(blocks, shared, folds, rows, -1).permute(0, 3, 1, 2, 4).reshape(blocks * rows, heads, -1)
        return out[None, self.row]

    def _mask(self, folds: int, dtype: torch.dtype) -> Float[Tensor, "B 1 FR W"]:
        """What is added to scores: 0 where a key is seen, −∞ elsewhere; made once for all layers."""
        if self._added is None or self._added.dtype != dtype or self._added.shape[2] != folds * self.seen.shape[1]:
            added = torch.zeros(self.seen.shape, dtype=dtype, device=self.seen.device).masked_fill(~self.seen, -torch.inf)
            self._added = added[:, None].repeat(1, 1, folds, 1)
        return self._added


def _cut(position: Int[Tensor, "Q"]) -> list[Int[Tensor, "R"]]:
    """Queries next to each other: ROWS at most, and cut where a branch begins that leaves more than ROWS keys behind."""
    left = position[:-1] + 1 - position[1:]
    runs = torch.arange(len(position)).tensor_split((left > ROWS).nonzero()[:, 0] + 1)
    return [part for run in runs for part in run.split(ROWS)]


@dataclass
class Branches:
    """A query for each of Q answers: the last token of its own row of keys, behind a prompt that it shares with others.

    The scores of both places lie side by side under one softmax. With a prompt's keys and values all its answers are one product.
    """

    trunks: Mapping[int, tuple[Float[Tensor, "P K W d"], Float[Tensor, "P K W v"]]]
    """Keys and values of each prompt, by layer; none where the rows have them, too."""
    members: Int[Tensor, "P G"]
    """The answers to each prompt, filled up with any."""
    place: Int[Tensor, "Q"]
    """Where among the members, laid out in a row, each answer is."""
    seen: Bool[Tensor, "Q S"] | None
    """Which keys an answer sees, its prompt's first; None if all."""
    _order: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict, init=False)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        (count, shared), heads, width = key.shape[:2], query.shape[1], query.shape[3]
        folds = heads // shared
        query = query[0].transpose(0, 1).reshape(count, shared, folds, width)
        query = query * (width**-0.5 if scaling is None else scaling)
        scores = query @ key.mT
        if not self.trunks:
            return (self._shares(scores) @ value).reshape(1, count, heads, -1)
        together, apart = self._orders(shared, folds)
        above, above_value = self.trunks[layer]
        size = above.shape[2]
        scores = torch.cat([_laid(_laid(query, together) @ above.mT, apart), scores], -1)
        shares = self._shares(scores)
        upper = _laid(_laid(shares, together)[..., :size] @ above_value, apart)
        return (shares[..., size:] @ value).add_(upper).view(1, count, heads, -1)

    def _shares(self, scores: Float[Tensor, "Q K F S"]) -> Float[Tensor, "Q K F S"]:
        """Their softmax, in float32 or better inside."""
        if self.seen is not None:
            scores = scores.masked_fill(~self.seen[:, None, None], -torch.inf)
        return scores.softmax(-1, torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)

    def _orders(self, shared: int, folds: int) -> tuple[Int[Tensor, "P K GF"], Int[Tensor, "Q K F"]]:
        """Where what answers have side by side for each prompt is among what each has, and the other way round."""
        if (known := self._order.get((shared, folds))) is None:
            head, fold = (torch.arange(n, device=self.place.device) for n in (shared, folds))
            size = self.members.shape[1]
            together = (self.members[:, None, :, None] * shared + head[:, None, None]) * folds + fold
            prompt, member = (self.place // size)[:, None, None], (self.place % size)[:, None, None]
            apart = ((prompt * shared + head[:, None]) * size + member) * folds + fold
            known = self._order[shared, folds] = together.flatten(2), apart
        return known


def _laid(x: Shaped[Tensor, "A B C n"], order: Int[Tensor, "I J L"]) -> Shaped[Tensor, "I J L n"]:
    """What has a place each, in another order."""
    return x.flatten(0, 2).index_select(0, order.flatten()).view(*order.shape, -1)


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
