"""The policy's weights as an engine of another precision has them."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from quatrain.policies import CausalLM

Precision = Literal["bfloat16", "int8"]


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
            rounds = self.precision == "int8" and name in self._linear
            own.copy_(rounded(trained[name]) if rounds else trained[name])


def rounded(weight: Float[Tensor, "O I"]) -> Float[Tensor, "O I"]:
    """The nearest of 255 equal steps for each output: s·round(w/s), s = max|w| / 127."""
    step = weight.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / 127
    return (weight / step).round() * step
