"""Quatrain: reinforcement-learning post-training where every method is four interchangeable lines.

Each public name is imported when it is first asked for, so that ``import quatrain`` costs nothing: the processes that compute
rewards import it too, and hold no tensors.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quatrain.config import ConfigError, RunConfig
    from quatrain.config import load as load_config
    from quatrain.errors import StoppedRun
    from quatrain.methods import METHODS, method
    from quatrain.objective import (
        GAE,
        Accepted,
        Cap,
        Clip,
        Constant,
        Current,
        EntropyBonus,
        Everywhere,
        GeometricMean,
        Method,
        Old,
        One,
        PerCreditedToken,
        PerGroup,
        PerSequence,
        PerToken,
        Relative,
        Sequence,
        StayClose,
        Term,
        Token,
        ValueLoss,
        View,
        check,
        difference,
        meaning,
    )
    from quatrain.recipes import RECIPES, Recipe
    from quatrain.run import Result, resume, train
    from quatrain.types import Batch, Group, Origin, Prompt, Trajectory

    __version__: str

_HOMES: dict[str, tuple[str, ...]] = {
    "config": ("ConfigError", "RunConfig", "load_config"),
    "errors": ("StoppedRun",),
    "methods": ("METHODS", "method"),
    "recipes": ("RECIPES", "Recipe"),
    "run": ("Result", "resume", "train"),
    "types": ("Batch", "Group", "Origin", "Prompt", "Trajectory"),
    "objective": (
        "Method", "Term", "EntropyBonus", "ValueLoss", "View", "check", "difference", "meaning",
        "Everywhere", "Clip", "Cap",
        "Current", "Old", "GeometricMean",
        "One", "Accepted", "Relative", "GAE", "StayClose",
        "Token", "Sequence",
        "PerToken", "PerCreditedToken", "PerSequence", "PerGroup", "Constant",
    ),
}  # fmt: skip
"""The public names by the module that holds them; the parts of a method line by line."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_ELSEWHERE = {"load_config": "load"}
"""Names that are shorter in their own module."""

__all__ = [
    "GAE",
    "METHODS",
    "RECIPES",
    "Accepted",
    "Batch",
    "Cap",
    "Clip",
    "ConfigError",
    "Constant",
    "Current",
    "EntropyBonus",
    "Everywhere",
    "GeometricMean",
    "Group",
    "Method",
    "Old",
    "One",
    "Origin",
    "PerCreditedToken",
    "PerGroup",
    "PerSequence",
    "PerToken",
    "Prompt",
    "Recipe",
    "Relative",
    "Result",
    "RunConfig",
    "Sequence",
    "StayClose",
    "StoppedRun",
    "Term",
    "Token",
    "Trajectory",
    "ValueLoss",
    "View",
    "__version__",
    "check",
    "difference",
    "load_config",
    "meaning",
    "method",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.metadata.version("quatrain")
    elif name in _HOME_OF:
        module = importlib.import_module(f"quatrain.{_HOME_OF[name]}")
        value = getattr(module, _ELSEWHERE.get(name, name))
    else:
        raise AttributeError(f"module 'quatrain' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
