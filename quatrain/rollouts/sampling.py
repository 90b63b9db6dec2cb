"""Drawing tokens: temperature, top-k and top-p, with the log-probability under the distribution that was drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
        return token, torch.log_softmax(logits, -1).gather(-1, token[:, None])[:, 0]
    logits = _truncate(logits / sampling.temperature, sampling)
    logp = torch.log_softmax(logits, -1)
    mass = logp.exp().cumsum(-1, dtype=torch.float64)
    token = torch.searchsorted(mass, uniform[:, None].double() * mass[:, -1:], right=True)[:, 0]
    token = token.clamp(max=logits.shape[-1] - 1)
    return token, logp.gather(-1, token[:, None])[:, 0]


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
