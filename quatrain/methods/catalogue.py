"""Rows only. A new method is a new entry here, and its published loss in ``tests/reference/``."""

from __future__ import annotations

from quatrain.config import ConfigError, nearest
from quatrain.objective import (
    GAE,
    Accepted,
    Cap,
    Clip,
    Constant,
    Current,
    EntropyBonus,
    GeometricMean,
    Method,
    Old,
    One,
    PerCreditedToken,
    PerSequence,
    PerToken,
    Relative,
    Sequence,
    StayClose,
    Term,
    ValueLoss,
)
from quatrain.types import Origin

_Z_SCORE = Relative(baseline="group", scale="group")

METHODS: dict[str, Method] = {
    "sft": Method(
        Term(denominator=Current(), advantage=One(), on=(Origin.DEMONSTRATION,)),
        paper="arXiv:2109.01652",
        claim="Imitates demonstrations: the mean negative log-likelihood of their tokens.",
        aka=("nll", "supervised"),
    ),
    "rft": Method(
        Term(denominator=Current(), advantage=Accepted(threshold=1.0), reduce=PerCreditedToken()),
        paper="arXiv:2308.01825",
        claim="Imitates the policy's own accepted answers.",
        aka=("raft", "rejection_sampling"),
    ),
    "reinforce": Method(
        Term(denominator=Current(), advantage=Relative(baseline="none"), likelihood=Sequence(), reduce=PerSequence()),
        paper="doi:10.1007/BF00992696",
        claim="The plain policy gradient: unbiased, with the largest variance.",
        aka=("vanilla_pg",),
    ),
    "rloo": Method(
        Term(denominator=Current(), advantage=Relative(baseline="leave_one_out"), likelihood=Sequence(), reduce=PerSequence()),
        paper="arXiv:2402.14740",
        claim="REINFORCE whose baseline is the mean reward of the prompt's other answers: unbiased, no critic.",
        aka=("leave_one_out",),
    ),
    "grpo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=_Z_SCORE, reduce=PerSequence()),
        Term(name="kl", denominator=Current(), advantage=StayClose(beta=0.04), reduce=PerSequence()),
        paper="arXiv:2402.03300",
        claim="PPO without a critic: the group's mean and deviation stand in for the value.",
        aka=("group_relative",),
    ),
    "dr_grpo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Relative(baseline="group"), reduce=Constant()),
        paper="arXiv:2503.20783",
        claim="GRPO without its biases by length and by difficulty.",
        aka=("drgrpo", "grpo_done_right"),
    ),
    "dapo": Method(
        Term(mask=Clip(0.2, 0.28), denominator=Old(), advantage=_Z_SCORE, reduce=PerToken()),
        paper="arXiv:2503.14476",
        claim="Clip-higher and the token-level mean keep long answers learning and entropy alive.",
        aka=("clip_higher",),
    ),
    "gspo": Method(
        Term(mask=Clip(3e-4, 4e-4), denominator=GeometricMean(), advantage=_Z_SCORE, reduce=PerSequence()),
        paper="arXiv:2507.18071",
        claim="Ratio and clip of the whole sequence, as the reward is of the whole sequence.",
        aka=(),
    ),
    "cispo": Method(
        Term(mask=Cap(high=5.0), denominator=Old(), advantage=_Z_SCORE, reduce=PerToken()),
        paper="arXiv:2506.13585",
        claim="Caps the weight and drops no token, so rare reflective tokens keep their gradient.",
        aka=("minimax_m1",),
    ),
    "ppo": Method(
        Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=GAE(gamma=1.0, lam=0.95), reduce=PerToken()),
        ValueLoss(beta=0.5, clip=0.2, advantage=GAE(gamma=1.0, lam=0.95), reduce=PerToken()),
        EntropyBonus(beta=0.0, reduce=PerToken()),
        paper="arXiv:1707.06347",
        claim="A learned critic tells each token's share; the clip keeps the update near.",
        aka=("ppo_clip",),
    ),
}
"""Every method by its id."""


def method(name: str) -> Method:
    """The method whose id or alias is `name`; case, spaces and ``-`` do not matter.

    Raises:
        ConfigError: there is none; the nearest names are listed.
    """
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")
    for key, row in METHODS.items():
        if wanted == key or wanted in row.aka:
            return row
    known = [*METHODS, *(alias for row in METHODS.values() for alias in row.aka)]
    raise ConfigError(f"there is no method {name!r}: {nearest(wanted, known)}")
