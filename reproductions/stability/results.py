"""What the lab is asked, and what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAP = Path(__file__).with_name("map.json")

METHODS = (
    "reinforce", "grpo", "dapo", "cispo", "sapo", "gspo", "flowrl", "topr", "tis", "seq_tis", "mis", "icepop", "mini_rl", "areal",
    "hispo", "p1_vl", "minpro", "mhpo", "bapo", "c3po", "aepo", "alp",
)  # fmt: skip
"""Rows that need nothing but answers and their rewards, the family by family."""
DIALS = ("staleness=4,16", "partial=8", "mismatch=int4", "updates=8", "lr=4", "difficulty=6,1-8", "wrong=0.2", "bad_step=30")
EARLY = 150
"""Steps of pre-training of the reference that is far away; the start has had 700."""
SEEDS = 3


def read() -> dict[str, Any]:
    """The committed map."""
    return json.loads(MAP.read_text())
