"""What a peer is: a function of another library, that computes on a case."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from oracles.case import Case


class Peer(ABC):
    """A function of another library with its settings."""

    package: ClassVar[str]
    """The name under which the library is installed."""
    settings: Mapping[str, Any]
    """What is set besides the library's defaults."""

    @property
    @abstractmethod
    def function(self) -> str:
        """What the library calls it."""

    @abstractmethod
    def __call__(self, case: Case) -> Tensor:
        """−∂L/∂x of its loss, [B, T]: by log π_θ, or by the values for a critic."""


def descent(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """−∂L/∂x of a loss at `at`, by autograd through the library's own code."""
    variable = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(variable), variable)
    return -gradient
