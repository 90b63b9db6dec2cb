"""All claims about mechanisms, and what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reproductions.mechanisms import credit, estimators, policies
from reproductions.mechanisms.mechanism import Mechanism

RESULTS = Path(__file__).with_name("results.json")
MECHANISMS: dict[str, Mechanism] = {
    value.name: value
    for module in (estimators, credit, policies)
    for value in vars(module).values()
    if isinstance(value, Mechanism)
}
"""By name."""


def read() -> dict[str, Any]:
    """The committed results."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {"made_with": {}, "mechanisms": {}}
