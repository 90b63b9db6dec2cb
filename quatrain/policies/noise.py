"""Noise in the layers of a policy that learns: a function of what it is added to, whatever else is computed beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quatrain.policies.forest import Forest

_STRIDE = 0x5851F42D4C957F2D


class Noise(nn.Module):
    """How much noise there is in the input of each layer: its deviation, learned by its logarithm."""

    def __init__(self, layers: int, sigma: float) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.full((layers,), math.log(sigma), dtype=torch.float32))

    def forward(self, hidden: Float[Tensor, "1 N D"], layer: int, nodes: Int[Tensor, "N"]) -> Float[Tensor, "1 N D"]:
        """`hidden` with the noise that `layer` has at these `nodes`."""
        noise = normal(nodes + layer * _STRIDE, hidden.shape[-1])
        return hidden + (self.log_sigma[layer].exp() * noise).to(hidden)


def nodes_of(forest: Forest, seed: Sequence[int]) -> Int[Tensor, "N"]:
    """A number for each node of `forest`, made of `seed` and the tokens up to there: the same in any forest."""
    there = forest.path >= 0
    own = _scrambled(forest.tokens * _STRIDE + _scrambled(forest.position + 1))
    so_far = own[forest.path.clamp(min=0)].where(there, 0).cumsum(1)
    out = torch.zeros_like(forest.tokens)
    out[forest.path[there]] = so_far[there]
    state = np.random.SeedSequence(tuple(seed)).generate_state(1, np.uint64).view(np.int64)
    return _scrambled(out ^ int(state[0]))


def normal(numbers: Int[Tensor, "N"], width: int) -> Float[Tensor, "N D"]:
    """`width` standard normal numbers for each of `numbers` (Box and Muller), in float32."""
    columns = torch.arange(width, device=numbers.device)
    bits = _scrambled(_scrambled(numbers)[:, None] + columns * _STRIDE)
    radius, angle = ((((bits >> shift) & 0xFFFFFF).float() + 0.5) / (1 << 24) for shift in (40, 16))
    return (-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()


def _scrambled(bits: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Each number with all its bits mixed: the finalizer of SplitMix64."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        bits = (bits ^ _shifted(bits, shift)) * factor
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Int[Tensor, "*shape"], by: int) -> Int[Tensor, "*shape"]:
    """To the right, with zeros from the left; torch's own shift brings in the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
