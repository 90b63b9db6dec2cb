"""How rows are grouped where all of them are shown: by what they are made of, so that a new row finds its place."""

from __future__ import annotations

from collections.abc import Mapping

from quatrain.objective import (
    Accepted,
    Agreeing,
    Corrected,
    Current,
    ImplicitProcess,
    ImplicitSteps,
    Intrinsic,
    Method,
    One,
    Preferred,
    PrefixMinimum,
    Rollout,
    Verified,
)
from quatrain.types import Origin

FAMILIES: dict[str, str] = {
    "Imitation": "raise the probability of what was shown or accepted; nothing is pushed away",
    "REINFORCE": "one update on fresh answers and so no ratio; they differ in baseline, scale and reduction",
    "Token ratios": "several updates per batch: each token's ratio to the policy at the start is clipped, capped or gated",
    "Sequence ratios": "the same with one ratio for a whole answer, or for a turn of it",
    "Critics": "a learned value says which token deserves the reward",
    "Flow balance": "answers as probable as the reward makes them, in the place of the best one; log Z of the prompt is learned",
    "Process rewards": "a language model that learns from outcomes alone rewards each token, or each turn",
    "Own signals": "the policy's own certainty stands in the place of a reward",
    "Off-policy": "the ratio is to the policy that acted: another engine's, or stale weights",
    "Distillation": "a teacher judges each token of the policy's own answers",
    "Mixed": "demonstrations beside the policy's own answers",
    "Preferences": "answers of the data set that are rated or paired; nothing is sampled",
}
"""What the rows of each family have in common, in the order in which they are shown."""


def family(row: Method) -> str:
    """The family that a method is of; the first question that has an answer decides."""
    lines = row.terms[0].parts
    advantage, denominator, mask = (type(lines.get(line)) for line in ("advantage", "denominator", "mask"))
    if Origin.RATED in row.origins:
        return "Preferences"
    if row.origins == {Origin.DEMONSTRATION} or advantage in (One, Accepted):
        return "Imitation"
    if Origin.DEMONSTRATION in row.origins:
        return "Mixed"
    if "logp_teacher" in row.needs:
        return "Distillation"
    if "log_z" in row.needs:
        return "Flow balance"
    if advantage is Intrinsic:
        return "Own signals"
    if advantage in (ImplicitProcess, ImplicitSteps, Preferred, Verified):
        return "Process rewards"
    if mask in (Agreeing, Corrected) or denominator in (PrefixMinimum, Rollout):
        return "Off-policy"
    if "values" in row.needs:
        return "Critics"
    if denominator is Current:
        return "REINFORCE"
    return "Sequence ratios" if "sequence" in {part.scope for part in lines.values()} else "Token ratios"


def base(name: str) -> str:
    """The id of the row that `name` is another form of, or `name` itself."""
    return name.partition(":")[0]


def by_family(rows: Mapping[str, Method]) -> dict[str, list[str]]:
    """The ids of each family, variants after the row that they are another form of."""
    found: dict[str, list[str]] = {name: [] for name in FAMILIES}
    for name, row in rows.items():
        if base(name) == name or base(name) not in rows:
            found[family(row)] += [name, *(other for other in rows if other != name and base(other) == name)]
    return found
