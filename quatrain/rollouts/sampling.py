"""Drawing tokens: temperature, top-k and top-p, with the log-probability under the distribution that was drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 256
"""Tokens whose mass is added up before it is accumulated."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is written."""

    max_tokens: int
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Only the smallest set of most probable tokens whose mass reaches this."""
    top_k: int = 0
    """Only so many most probable tokens; 0 is all."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer and are cut off it."""
    stop_tokens: tuple[int, ...] = ()
    """Tokens that do, besides the model's own."""


def draw(
    logits: Float[Tensor, "R V"], uniform: Float[Tensor, "R"], sampling: Sampling
) -> tuple[Int[Tensor, "R"], Float[Tensor, "R"]]:
    """One token for each row, by inverting the cumulative distribution at `uniform` in [0, 1), and its log-probability.

    Greedy decoding reports the log-probability at temperature 1.
    """
    if sampling.temperature == 0:
        token = logits.argmax(-1)
        return token, (logits.gather(-1, token[:, None]) - logits.logsumexp(-1, keepdim=True))[:, 0]
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    mass = _truncate(logits, sampling).softmax(-1)
    token, total = _invert(mass, uniform.double())
    return token, (mass.gather(-1, token[:, None])[:, 0].double() / total).log().to(logits.dtype)


def _invert(mass: Float[Tensor, "R V"], uniform: Float[Tensor, "R"]) -> tuple[Int[Tensor, "R"], Float[Tensor, "R"]]:
    """The first token of each row at which the cumulative mass exceeds its share `uniform` of the total, and the total.

    Found in two steps, among blocks of tokens and inside one, so that nothing is accumulated over the whole vocabulary.
    """
    missing = -mass.shape[1] % BLOCK
    blocks = (pad(mass, (0, missing)) if missing else mass).unflatten(1, (-1, BLOCK))
    below = blocks.sum(-1).double().cumsum(-1)
    total = below[:, -1]
    block, rest = _first_above(below, uniform * total)
    inside = blocks[torch.arange(len(mass), device=mass.device), block].double().cumsum(-1)
    place, _ = _first_above(inside, rest)
    return block * BLOCK + place, total


def _first_above(below: Float[Tensor, "R N"], wanted: Float[Tensor, "R"]) -> tuple[Int[Tensor, "R"], Float[Tensor, "R"]]:
    """The first place at which an ascending row exceeds `wanted`, and by how much that exceeds the place before."""
    most = torch.nextafter(below[:, -1], torch.zeros_like(wanted))  # rounding never leads to a place without mass
    wanted = torch.minimum(wanted, most)
    place = torch.searchsorted(below, wanted[:, None], right=True)
    before = torch.where(place > 0, below.gather(1, (place - 1).clamp(min=0)), 0)
    return place[:, 0], (wanted[:, None] - before)[:, 0]


def _truncate(logits: Float[Tensor, "R V"], sampling: Sampling) -> Float[Tensor, "R V"]:
    """`logits` with −∞ for what top-k and then top-p exclude."""
    if 0 < sampling.top_k < logits.shape[-1]:
        kept = logits.topk(sampling.top_k, -1)  # by place, as equal logits are common in half precision
        logits = torch.full_like(logits, -torch.inf).scatter(-1, kept.indices, kept.values)
    if sampling.top_p < 1:
        ordered, index = logits.sort(-1, descending=True)
        probability = ordered.softmax(-1)
        beyond = probability.cumsum(-1) - probability >= sampling.top_p
        beyond[:, 0] = False
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, index, beyond), -torch.inf)
    return logits
