"""What was measured of the model ``tunnel``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
LEVELS = (1, 2, 3, 4, 5)
"""Values of the dials."""
PROBLEMS = {1: 8, 2: 80, 3: 200, 4: 200, 5: 200}
"""Held-out problems at each level: an easy family has few."""
SAMPLES = 8
"""Answers to each problem."""
METHODS = ("grpo", "rloo")
"""With a reference policy, and without."""
STEPS = 60
SPEED: dict[str, Any] = {
    "model": "tunnel",
    "task": "written:addition",
    "prompts_per_step": 16,
    "group_size": 8,
    "threads": 1,
    "engine": {"max_sequences": 128},
    "update": {"lr": 1e-4, "tokens_per_pass": 320},
    "evaluate": {"problems": 0},
    "checkpoint": {"every": 0},
}
"""The run whose speed is measured."""


def read() -> dict[str, Any]:
    """The committed results."""
    return json.loads(RESULTS.read_text())
