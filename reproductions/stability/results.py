"""What the lab is asked, and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MAP = Path(__file__).with_name("map.json")
WARNING = Path(__file__).with_name("warning.json")

METHODS = (
    "reinforce", "grpo", "dapo", "cispo", "sapo", "gspo", "flowrl", "topr", "tis", "seq_tis", "mis", "icepop", "mini_rl", "areal",
    "hispo", "p1_vl", "minpro", "mhpo", "r2vpo", "bapo", "c3po", "aepo", "alp",
)  # fmt: skip
"""Rows that need nothing but answers and their rewards."""
DIALS = ("staleness=16", "partial=8", "mismatch=int4", "updates=8", "lr=4", "difficulty=6,1-8", "wrong=0.2", "bad_step=30")
FEW = ("reinforce", "grpo", "gspo", "icepop")
DEAR = ("mismatch=vllm", "steps=1000")
"""What only a few methods are put under: another engine, with an environment of its own, and two thousand updates."""
EARLY = 150
"""Steps of pre-training of the reference that is far away; the start has had 700."""
SEEDS, MORE = 3, 10
"""Runs in each cell, and in those that a claim rests on."""
THAN = "grpo"
"""What claims hold a method against."""
EFFECT = 0.05
"""The least difference of held-out accuracy that counts."""


@dataclass(frozen=True)
class Published:
    """That a method learns more than GRPO under a stress."""

    method: str
    cell: str
    says: str


CLAIMS = (
    Published("tis", "mismatch=int4", "a token's weight against the engine, truncated, makes up for the gap"),
    Published("seq_tis", "mismatch=int4", "a whole answer's weight does, as what a token leaves out adds up"),
    Published("mis", "mismatch=int4", "tokens far likelier to the learner are better left out"),
    Published("icepop", "mismatch=int4", "tokens that differ much, either way, are better left out"),
    Published("mini_rl", "mismatch=int4", "a weight against the engine, and a clip by what the update changed"),
    Published("hispo", "mismatch=int4", "engine and learner must agree on the answer and on the token"),
    Published("p1_vl", "mismatch=int4", "answers whose mean ratio is too large are left out, the others weigh in full"),
    Published("alp", "mismatch=int4", "noise learned in the layers keeps the ratio to the engine tame"),
    Published("areal", "staleness=16", "old answers are as good as fresh ones where what bounds the step is not what acted"),
    Published("bapo", "staleness=16", "bounds that move until good answers have their part"),
    Published("minpro", "staleness=16", "the least ratio of the prefix makes a stable correction"),
    Published("mhpo", "updates=8", "hazards of rising and of falling bound the gradient without a kink"),
    Published("r2vpo", "updates=8", "a price on the ratio's variance, which rises while that is above its bound"),
    Published("c3po", "difficulty=1-8", "as many tokens in every update, where lengths vary"),
    Published("aepo", "lr=4", "bad answers are left out while entropy is too high"),
)
"""What the rows' papers claim, where the lab can ask it."""
