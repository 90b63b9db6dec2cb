"""torch, where a module names it in annotations and within functions alone: imported when one of these first computes.

So the catalogue, whose rows are made of parts, is listed, shown, compared and cited without it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "torch" in sys.modules:
    import torch
    from torch import Tensor
else:

    class _Torch(ModuleType):
        """What stands for torch until then."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module("torch"), name)
            setattr(self, name, value)
            return value

    torch, Tensor = _Torch("torch"), Any

__all__ = ["Tensor", "torch"]
