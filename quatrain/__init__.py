"""Quatrain: reinforcement-learning post-training where every method is four interchangeable lines.

Each public name is imported when it is first asked for, so that ``import quatrain`` costs nothing: the processes that compute
rewards import it too, and hold no tensors.
"""
# ruff: noqa: F401, F403  what stands below TYPE_CHECKING is for type checkers alone

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quatrain.config import ConfigError, RunConfig
    from quatrain.config import load as load_config
    from quatrain.errors import StoppedRun
    from quatrain.methods import METHODS, method
    from quatrain.objective import *
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
}
"""The public names by the module that holds them; all others are the parts of a method, in `quatrain.objective`."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_ELSEWHERE = {"load_config": "load"}
"""Names that are shorter in their own module."""


def __getattr__(name: str) -> Any:
    value: Any = None
    if name == "__version__":
        value = importlib.metadata.version("quatrain")
    elif name in _HOME_OF:
        value = getattr(importlib.import_module(f"quatrain.{_HOME_OF[name]}"), _ELSEWHERE.get(name, name))
    elif not name.startswith("_"):
        objective = importlib.import_module("quatrain.objective")
        value = getattr(objective, name) if name in objective.__all__ else None
    if value is None:
        raise AttributeError(f"module 'quatrain' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_HOME_OF, *importlib.import_module("quatrain.objective").__all__, "__version__"})
