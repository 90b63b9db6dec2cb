"""torch and the types of its tensors, where annotations and functions alone name them: imported when one first computes.

So the catalogue, whose rows are made of parts, is listed, shown, compared and cited without torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "torch" in sys.modules:
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor
else:

    class _Torch(ModuleType):
        """What stands for torch until then."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module("torch"), name)
            setattr(self, name, value)
            return value

    torch, Bool, Float, Int, Tensor = _Torch("torch"), Any, Any, Any, Any

__all__ = ["Bool", "Float", "Int", "Tensor", "torch"]
