"""How much of a gradient is signal, for a learning rate that goes by it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from quatrain.types import Batch


class Signal:
    """The share of a minibatch's gradient that is not noise, by which the learning rate is multiplied.

    With the gradient g = Σᵢ gᵢ of m equal parts of the minibatch's groups,

        V = m/(m − 1) · (Σᵢ ‖gᵢ‖² − ‖g‖²/m),    share = SNR/(1 + SNR) = max(0, 1 − V / ‖g‖²)

    as E‖g‖² is ‖E g‖² and the variance, which V estimates. Both are averaged over the updates, of which each weighs `DECAY` of
    the one after it.
    Source: arXiv:2511.23310 (OBLR-PO), η = (1/L) · SNR/(1 + SNR) for the ascent of an L-smooth objective; the average over
    updates, and that it is AdamW's learning rate that is multiplied, is ours.
    """

    DECAY = 0.9

    def __init__(self, parameters: Sequence[nn.Parameter], parts: int) -> None:
        self.parameters, self.parts = parameters, parts
        self.power = self.variance = 0.0
        """‖g‖² and V, summed over the updates so far with their weights."""

    @property
    def share(self) -> float:
        """SNR/(1 + SNR); 1 where no gradient has been seen."""
        return max(0.0, 1 - self.variance / self.power) if self.power else 1.0

    def divide(self, batch: Batch) -> list[Tensor]:
        """The rows of each part, [B] bool: groups are dealt out in turn."""
        assert batch.prompt_id is not None
        group = torch.unique(batch.prompt_id, return_inverse=True)[1]
        return [group % self.parts == part for part in range(self.parts)]

    def through(self, parts: Sequence[Sequence[Tensor]]) -> Iterator[Tensor]:
        """The passes of one part after the other; after the last one the parameters have that of all."""
        whole: list[Tensor | None] = [None] * len(self.parameters)
        inner = 0.0
        for passes in parts:
            yield from passes
            own = [p.grad for p in self.parameters]
            inner += _square(own)
            whole = [b if a is None else a if b is None else a.add_(b) for a, b in zip(whole, own, strict=True)]
            for p in self.parameters:
                p.grad = None
        for p, grad in zip(self.parameters, whole, strict=True):
            p.grad = grad
        power = _square(whole)
        if math.isfinite(power) and math.isfinite(inner):  # an update with another gradient is skipped
            self.power = self.DECAY * self.power + power
            self.variance = self.DECAY * self.variance + (self.parts * inner - power) / (self.parts - 1)


def _square(grads: Sequence[Tensor | None]) -> float:
    return float(sum(grad.double().square().sum() for grad in grads if grad is not None))
