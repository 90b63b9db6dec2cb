"""Line 1, the stabilization mask: how much of an action's gradient may pass.

A mask is called with the view, the ratio π_θ/π_ref of its term's denominator and the advantage, and returns a factor
[B, T]. A factor need not be 0 or 1: a capped weight is not a zero mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from quatrain.objective.part import Scope, View


@dataclass(frozen=True)
class Everywhere:
    """Every action's gradient passes whole.

        M = 1

    Source: arXiv:2509.04419, table 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return torch.ones_like(ratio)


@dataclass(frozen=True)
class Clip:
    """No gradient where the ratio has already left the trust region in the direction that the advantage pushes.

        M = 0 if (Â > 0 and r > 1 + high) or (Â < 0 and r < 1 − low), else 1

    Source: arXiv:1707.06347, eq. 7; low ≠ high (clip-higher): arXiv:2503.14476, eq. 10.
    """

    low: NonNegativeFloat = 0.2
    """How far below 1 the ratio may fall."""
    high: NonNegativeFloat = 0.2
    """How far above 1 the ratio may rise."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        blocked = ((advantage > 0) & (ratio > 1 + self.high)) | ((advantage < 0) & (ratio < 1 - self.low))
        return (~blocked).to(ratio)


@dataclass(frozen=True)
class Cap:
    """The ratio as a weight, bounded on both sides; an action beyond the bounds keeps a gradient.

        M · r = min(max(r, low), high)

    Source: arXiv:2506.13585 (CISPO), eq. 4 and 5.
    """

    low: NonNegativeFloat = 0.0
    """Smallest weight; 0 is no lower bound."""
    high: PositiveFloat = 5.0
    """Largest weight. The paper tunes it and states no value; 5 is a common choice."""
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View, ratio: Float[Tensor, "B T"], advantage: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        return ratio.clamp(self.low, self.high) / ratio.clamp(min=torch.finfo(ratio.dtype).tiny)
