"""The policy's weights as an engine of another precision has them."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quatrain.policies import CausalLM

Precision = Literal["bfloat16", "int8", "int4"]
BITS = {"int8": 8, "int4": 4}
"""Of the weights of linear layers, by precision."""


class Served:
    """A copy of a policy in another precision, which follows it."""

    def __init__(self, policy: CausalLM, precision: Precision) -> None:
        self.trained, self.precision = policy, precision
        self.policy = policy.copied()
        """What acts."""
        if precision == "bfloat16":
            self.policy.base.to(torch.bfloat16)
        modules = self.policy.base.named_modules()
        self._linear = {f"{name}.weight" for name, module in modules if isinstance(module, nn.Linear)}

    @torch.no_grad()
    def follow(self) -> None:
        """Take over the policy's weights as they are now."""
        trained = dict(self.trained.base.named_parameters())
        for name, own in self.policy.base.named_parameters():
            bits = BITS.get(self.precision) if name in self._linear else None
            own.copy_(rounded(trained[name], bits) if bits else trained[name])


def rounded(weight: Float[Tensor, "O I"], bits: int) -> Float[Tensor, "O I"]:
    """The nearest of 2^b − 1 equal steps for each output: s·round(w/s), s = max|w| / (2^(b−1) − 1)."""
    step = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / (2 ** (bits - 1) - 1)
    return (weight / step).round() * step
