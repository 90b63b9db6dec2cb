"""What a recipe is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """A method with the stages and the numbers around it, and what to expect of it."""

    about: str
    """One sentence."""
    config: Mapping[str, Any]
    """A run's settings, as in a YAML file."""
    expects: str
    """The figure to expect, with its interval, and how long it takes."""
    paper: str = ""
