"""Every row of the catalogue × every property. A new row is tested by being there, and fails until it has its published loss."""

from collections.abc import Callable
from dataclasses import fields, replace
from math import exp, inf, log
from typing import Any

import pytest
import torch
from hypothesis import Phase, assume, given
from hypothesis import settings as given_with
from hypothesis import strategies as st

from quatrain.config import ConfigError
from quatrain.methods import METHODS
from quatrain.objective import (
    GAE,
    AboveValue,
    Accepted,
    ByEntropy,
    Current,
    Everywhere,
    FlowBalance,
    Intrinsic,
    LengthAdaptiveGAE,
    Method,
    One,
    Relative,
    Signed,
    Unit,
    difference,
)
from quatrain.objective.bound import Weights
from quatrain.objective.part import Scope, describe, signature
from quatrain.types import Batch, Origin
from tests.reference import LOSSES, Case, Shape, draw, shapes

FITTING: dict[str, dict[str, object]] = {
    "bnpo": {"span": (0.0, 1.0)},
    "luffy": {"judged": True},
    "luffy:code": {"judged": True},
    "srft": {"judged": True},
    "spear": {"replayed": 3},
}
"""What a minibatch must be for a row to have a meaning on it: rewards that are shares, demonstrations that have one."""


def those(holds: Callable[[Method], bool]) -> set[str]:
    """The rows that `holds` is true of."""
    return {name for name, row in METHODS.items() if holds(row)}


def advantage_is(*kinds: type) -> set[str]:
    return those(lambda row: isinstance(row.terms[0].advantage, kinds))


WITHOUT_BASELINE = advantage_is(One, Accepted, ByEntropy, Signed) | those(
    lambda row: row.terms[0].advantage == Relative(baseline="none")
)
FLOWS = advantage_is(FlowBalance)
WITH_CRITIC = advantage_is(GAE, LengthAdaptiveGAE, AboveValue)

EXEMPT: dict[str, dict[str, set[str]]] = {
    "collapses on policy": {
        "measured against θ itself and unmasked: nothing is left to collapse": those(
            lambda row: (row.terms[0].mask, row.terms[0].denominator) == (Everywhere(), Current())
        ),
        "demonstrations are measured against 1, not against who acted": those(
            lambda row: Unit() in (row.terms[0].denominator, getattr(row.terms[0].denominator, "demonstration", None))
        ),
        "measured against the reference policy, not against who acted": {"a_lol"},
        "its hazard is not 0 where the ratio is 1": {"mhpo"},
        "what drops out is drawn, whatever the ratio is": {"clip_cov", "clip_cov:code", "spear"},
    },
    "centred": {
        "no baseline": WITHOUT_BASELINE,
        "its baseline is the critic, not the group": WITH_CRITIC,
        "its baseline is the greedy answer, not the group": {"remax"},
        "centred over the tokens of the minibatch": {
            "reinforce_pp",
            "reinforce_pp:code",
            "reinforce_pp:baseline",
            "areal",
            "gdpo:code",
        },
        "its sum is 0 when weighted by length": {"opo", "opo:code"},
        "each token has an advantage of its own": {"prime", "opd"},
        "its baseline weighs the other answers unequally": {"oblr_po"},
        "each turn has an advantage of its own": {"rank_grpo", "rank_grpo:code", "istar"},
        "each step has an advantage of its own": {"spae"},
        "bad answers are left out at this entropy": {"aepo"},
        "each answer is judged for itself": {"implicit_prm", "kto"},
        "answers that are rewarded alike depart differently from the reference, and log Z is off": FLOWS,
        "what a pair's answers gain and lose is divided by their lengths": {"ipo:mean", "simpo"},
    },
    "silent without contrast": {
        "no baseline": WITHOUT_BASELINE,
        "its baseline is the critic, not the group": WITH_CRITIC,
        "its baseline is the greedy answer, not the group": {"remax"},
        "its process reward has contrast": {"istar"},
        "its steps have contrast": {"spae"},
        "answers that are right alike are told apart by length": {"grpo_lambda_length"},
        "its rewards are the policy's own word, and there is contrast in it": advantage_is(Intrinsic),
        "answers that are rewarded alike depart differently from the reference": {"reinforce_pp", "reinforce_pp:code"},
        "its contrast is that of the minibatch": {"areal"},
        "each token has an advantage of its own": {"prime", "opd"},
        "each answer is judged for itself": {"implicit_prm", "kto"},
        "answers that are rewarded alike depart differently from the reference, and log Z is off": FLOWS,
    },
    "names what it lacks": {
        "it reads nothing but which tokens are actions": those(lambda row: not row.needs),
    },
    "says whose rows": {
        "its terms are about different rows": those(lambda row: not set.intersection(*(set(t.on) for t in row.active))),
    },
}
"""By property and reason, the rows that cannot have it. They are run all the same, and must fail."""

_CLIP = {"low": 0.1, "high": 0.4}
_COVARIANCE = {"cov_low": 0.1, "cov_high": 0.9}
_DRAWN = {"share": 0.1, "cov_low": 0.1}
_TRIPLET = {"low": 0.1, "high": 0.4, "bound": 1.2}
EQUAL_NUMBERS = [
    ("reinforce_pp", {"mask.low": 0.1, "mask.high": 0.1, "advantage.of.kl": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("reinforce_pp", {"advantage.eps": 0.1, "advantage.correction": 0}, {"std_eps": 0.1, "correction": 0}),
    ("reinforce_pp:code", {"mask.low": 0.1, "mask.high": 0.1, "advantage.of.kl": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("reinforce_pp:baseline", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "lam": 0.5}),
    ("max_rl", {"advantage.eps": 0.1}, {"eps": 0.1}),
    ("oblr_po", {"mask.low": 0.1, "mask.high": 0.1}, {"eps": 0.1}),
    ("topr", {"mask.negative_low": 0.8, "mask.negative_high": 1.5}, {"low": 0.8, "high": 1.5}),
    ("topr", {"mask.positive_low": 0.8, "mask.positive_high": 1.5}, {"good_low": 0.8, "good_high": 1.5}),
    ("grpo", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("grpo", {"kl.coefficient": 0.0}, {"beta": 0.0}),
    ("guirlvg", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("guirlvg", {"kl.advantage.most": 0.5, "kl.coefficient": 0.5}, {"most": 0.5, "beta": 0.5}),
    ("rapo", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "alpha": 0.5}),
    ("rapo", {"kl.advantage.least": 0.25, "entropy.coefficient": 0.5}, {"least": 0.25, "beta": 0.5}),
    ("selective", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("selective", {"advantage.threshold": 0.0, "kl.advantage.threshold": 0.0}, {"threshold": 0.0}),
    ("intuitor", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("dr_grpo", {"mask.low": 0.1, "mask.high": 0.1, "reduce.tokens": 50.0}, {"eps": 0.1, "tokens": 50.0}),
    ("lite_ppo", {"mask.low": 0.1, "mask.high": 0.1}, {"eps": 0.1}),
    ("bnpo", {"mask.low": 0.1, "mask.high": 0.4}, {"low": 0.1, "high": 0.4}),
    ("qwenlong_l1_5", {"advantage.eps": 0.1}, {"std_eps": 0.1}),
    ("aepo", {"advantage.low": 0.0, "advantage.high": 1.0, "advantage.of.eps": 0.1}, {"low": 0.0, "high": 1.0, "std_eps": 0.1}),
    ("aepo", {"advantage.high": 5.0}, {"high": 5.0}),
    ("gdpo", {"mask.low": 0.1, "mask.high": 0.1}, {"eps": 0.1}),
    ("gdpo", {"advantage.of.eps": 0.1, "advantage.whole.eps": 0.1}, {"std_eps": 0.1}),
    ("gdpo:code", {"mask.low": 0.1, "mask.high": 0.1, "advantage.eps": 0.1}, {"eps": 0.1, "std_eps": 0.1}),
    ("dapo", {"mask.low": 0.1, "mask.high": 0.4}, {"low": 0.1, "high": 0.4}),
    ("dapo:code", {"mask.low": 0.1, "mask.high": 0.4, "mask.bound": 1.5}, {"low": 0.1, "high": 0.4, "bound": 1.5}),
    ("gspo", {"mask.low": 0.1, "mask.high": 0.2}, {"low": 0.1, "high": 0.2}),
    ("luspo", {"mask.low": 0.1, "mask.high": 0.2}, {"low": 0.1, "high": 0.2}),
    ("rank_grpo", {"mask.low": 0.1, "mask.high": 0.2, "kl.coefficient": 0.5}, {"low": 0.1, "high": 0.2, "beta": 0.5}),
    ("rank_grpo", {"advantage.of.eps": 0.1}, {"std_eps": 0.1}),
    ("rank_grpo:code", {"mask.low": 0.1, "mask.high": 0.2, "kl.coefficient": 0.5}, {"low": 0.1, "high": 0.2, "beta": 0.5}),
    ("rank_grpo:code", {"advantage.of.eps": 0.1}, {"std_eps": 0.1}),
    ("gmpo", {"mask.low": 0.1, "mask.high": 0.2}, {"low": 0.1, "high": 0.2}),
    ("gfpo", {"advantage.share": 0.25}, {"share": 0.25}),
    ("gfpo", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("gfpo", {"entropy.coefficient": 0.5}, {"entropy": 0.5}),
    ("grpo_lambda_length", {"advantage.share": 0.5, "advantage.weight": 0.25}, {"lam": 0.5, "alpha": 0.25}),
    ("grpo_lambda_length", {"mask.low": 0.1, "mask.high": 0.1, "advantage.threshold": 0.5}, {"eps": 0.1, "correct": 0.5}),
    ("grpo_lambda_length", {"advantage.share": 0.0}, {"lam": 0.0}),
    ("grpo_lambda_length", {"advantage.eps": 0.5}, {"std_eps": 0.5}),
    ("cispo", {"mask.low": 0.5, "mask.high": 2.0}, {"low": 0.5, "high": 2.0}),
    ("sapo", {"mask.positive": 0.5, "mask.negative": 2.0}, {"positive": 0.5, "negative": 2.0}),
    ("mhpo", {"mask.bound": 0.7, "mask.rise_shape": 1.2, "mask.rise_scale": 2.0}, {"bound": 0.7, "rise": (1.2, 2.0)}),
    ("mhpo", {"mask.fall_shape": 1.2, "mask.fall_scale": 2.0}, {"fall": (1.2, 2.0)}),
    ("r2vpo", {"variance.advantage.first": 0.5}, {"lam": 0.5}),
    ("r2vpo:fixed", {"variance.coefficient": 0.5}, {"lam": 0.5}),
    ("c3po", {f"{term}reduce.tokens": 20.0 for term in ("", "kl.", "entropy.")}, {"budget": 20.0}),
    ("c3po", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("c3po", {"entropy.coefficient": 0.5}, {"entropy": 0.5}),
    ("ce_gppo", {"mask.low": 0.1, "mask.high": 0.4}, {"low": 0.1, "high": 0.4}),
    ("ce_gppo", {"mask.below": 0.75, "mask.above": 0.5}, {"below": 0.75, "above": 0.5}),
    ("clip_cov", {"mask.share": 0.1, "mask.low": 0.1, "mask.high": 0.9}, {"share": 0.1, "low": 0.1, "high": 0.9}),
    ("clip_cov:code", {"mask.share": 0.1, "mask.low": 0.1}, {"share": 0.1, "low": 0.1}),
    ("clip_cov:code", {"mask.of.low": 0.2, "mask.of.high": 0.2, "mask.share": 0.5}, {"eps": 0.2, "share": 0.5}),
    ("kl_cov", {"kl.mask.share": 0.1, "kl.coefficient": 0.5}, {"share": 0.1, "beta": 0.5}),
    ("kl_cov:code", {"kl.mask.share": 0.1, "kl.coefficient": 0.5}, {"share": 0.1, "beta": 0.5}),
    ("tis", {"mask.high": 1.2, "mask.of.low": 0.1, "mask.of.high": 0.4}, {"cap": 1.2, "low": 0.1, "high": 0.4}),
    ("seq_tis", {"mask.high": 1.2, "mask.of.low": 0.1, "mask.of.high": 0.4}, {"cap": 1.2, "low": 0.1, "high": 0.4}),
    ("mis", {"mask.high": 1.2, "mask.of.of.low": 0.1, "mask.of.of.high": 0.4}, {"cap": 1.2, "low": 0.1, "high": 0.4}),
    ("mis:sequence", {"mask.high": 1.2, "mask.of.of.low": 0.1, "mask.of.of.high": 0.4}, {"cap": 1.2, "low": 0.1, "high": 0.4}),
    ("icepop", {"mask.low": 0.8, "mask.high": 1.2}, {"low": 0.8, "high": 1.2}),
    ("icepop", {"mask.of.of.low": 0.1, "mask.of.of.high": 0.1}, {"eps": 0.1}),
    ("areal", {"mask.of.low": 0.1, "mask.of.high": 0.1, "advantage.eps": 0.1}, {"eps": 0.1, "std_eps": 0.1}),
    ("mini_rl", {"mask.mask.low": 0.1, "mask.mask.high": 0.4, "mask.of.high": 1.2}, {"low": 0.1, "high": 0.4, "cap": 1.2}),
    ("hispo", {"mask.low": 0.8, "mask.high": 1.2, "reduce.tokens": 50.0}, {"of_answer": 0.2, "longest": 50.0}),
    ("hispo", {"mask.low": 0.5, "mask.high": 1.5, "mask.of.low": 0.8, "mask.of.high": 1.2}, {"of_answer": 0.5, "of_token": 0.2}),
    (
        "hispo",
        {"mask.low": 0.5, "mask.high": 1.5} | {f"mask.of.of.{k}": v for k, v in _TRIPLET.items()},
        {"of_answer": 0.5} | _TRIPLET,
    ),
    ("p1_vl", {"mask.high": 1.2, "mask.of.of.low": 0.1, "mask.of.of.high": 0.2}, {"cap": 1.2, "low": 0.1, "high": 0.2}),
    ("minpro", {"mask.low": 0.5, "mask.high": 1.2}, {"low": 0.5, "high": 1.2}),
    ("bapo", {"mask.low": 0.5, "mask.low_last": 0.8, "mask.low_step": 0.1}, {"low": (0.5, 0.8, 0.1)}),
    (
        "bapo",
        {"mask.high": 1.1, "mask.high_last": 1.4, "mask.high_step": 0.1, "mask.target": 2.0},
        {"high": (1.1, 1.4, 0.1), "target": 2.0},
    ),
    ("bapo", {"mask.target": 2.0}, {"target": 2.0}),
    ("bapo:code", {"mask.low": 0.5, "mask.low_last": 0.9, "mask.low_step": 0.1}, {"low": (0.5, 0.9, 0.1)}),
    ("bapo:code", {"mask.high": 1.1, "mask.high_last": 1.45, "mask.high_step": 0.1}, {"high": (1.1, 1.45, 0.1)}),
    ("bapo:code", {"mask.target": 1.5, "mask.bound": 1.5}, {"target": 1.5, "bound": 1.5}),
    ("spae", {"mask.low": 0.1, "mask.high": 0.4}, {"low": 0.1, "high": 0.4}),
    ("spae", {"advantage.of.fade": 0.25, "advantage.of.weight": 0.25}, {"alpha": 0.25, "xi": 0.25}),
    ("spae", {"advantage.of.known": 0.0}, {"known": 0.0}),
    ("spear", {"mask.of.low": 0.1, "mask.of.high": 0.4, "replay.mask.of.low": 0.1, "replay.mask.of.high": 0.4}, _CLIP),
    ("spear", {f"{half}mask.{k}": v for half in ("", "replay.") for k, v in (("low", 0.1), ("high", 0.9))}, _COVARIANCE),
    ("spear", {"mask.share": 0.1, "replay.mask.share": 0.1, "mask.low": 0.1, "replay.mask.low": 0.1}, _DRAWN),
    ("spear", {"reduce.tokens": 50.0, "replay.reduce.of.tokens": 50.0}, {"tokens": 50.0}),
    ("spear", {"replay.coefficient": 0.5, "replay.reduce.updates": 2.0}, {"gamma": 0.5, "ramp": 2.0}),
    ("kepo", {"distil.advantage.beta": 0.25}, {"beta": 0.25}),
    ("kepo", {"distil.reduce.threshold": 0.5}, {"tau": 0.5}),
    ("dppo_tv", {"mask.bound": 0.05, "mask.cap": 1.2}, {"bound": 0.05, "cap": 1.2}),
    ("dppo_tv:code", {"mask.bound": 0.05, "mask.cap": 1.2}, {"bound": 0.05, "cap": 1.2}),
    ("alp", {"mask.low": 0.1, "mask.high": 0.2}, {"low": 0.1, "high": 0.2}),
    ("alp:sequence", {"mask.low": 0.1, "mask.high": 0.2}, {"low": 0.1, "high": 0.2}),
    ("prime", {"mask.low": 0.1, "mask.high": 0.1, "advantage.beta": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("implicit_prm", {"advantage.beta": 0.5}, {"beta": 0.5}),
    ("istar", {"mask.low": 0.1, "mask.high": 0.1, "advantage.beta": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("istar", {"advantage.weight": 0.25}, {"w": 0.25}),
    ("istar_prm", {"advantage.loss.beta": 0.5}, {"beta": 0.5}),
    ("ppo", {"mask.low": 0.1, "mask.high": 0.1}, {"eps": 0.1}),
    ("ppo", {"value.coefficient": 0.1, "value.clip": 0.05}, {"value_coefficient": 0.1, "value_eps": 0.05}),
    ("ppo", {"entropy.coefficient": 0.01}, {"entropy_coefficient": 0.01}),
    ("ppo", {"advantage.gamma": 0.9, "value.advantage.gamma": 0.9}, {"gamma": 0.9}),
    ("ppo", {"advantage.lam": 0.5, "value.advantage.lam": 0.5}, {"lam": 0.5}),
    ("dual_clip", {"mask.low": 0.1, "mask.high": 0.1, "mask.bound": 1.5}, {"eps": 0.1, "bound": 1.5}),
    ("dual_clip", {"value.coefficient": 0.1, "value.clip": 0.05}, {"value_coefficient": 0.1, "value_eps": 0.05}),
    ("decoupled_ppo", {"mask.of.low": 0.1, "mask.of.high": 0.1, "mask.high": 1.2}, {"eps": 0.1, "cap": 1.2}),
    ("vapo", {"advantage.alpha": 1.0, "nll.coefficient": 0.5}, {"alpha": 1.0, "mu": 0.5}),
    ("vapo", {"mask.low": 0.1, "mask.high": 0.4, "value.coefficient": 0.1}, {"low": 0.1, "high": 0.4, "value_coefficient": 0.1}),
    ("ui_tars_2", {"advantage.alpha": 1.0, "value.coefficient": 0.1}, {"alpha": 1.0, "value_coefficient": 0.1}),
    ("ui_tars_2", {"mask.low": 0.1, "mask.high": 0.4}, {"low": 0.1, "high": 0.4}),
    ("flowrl", {"advantage.beta": 5.0, "partition.advantage.beta": 5.0}, {"beta": 5.0}),
    ("flowrl", {f"{half}mask.{k}": v for half in ("", "partition.") for k, v in (("low", 0.9), ("high", 1.1))}, {"eps": 0.1}),
    ("flowrl:code", {"advantage.beta": 5.0, "partition.advantage.beta": 5.0}, {"beta": 5.0}),
    ("luffy", {"mask.demonstration.gamma": 0.5}, {"gamma": 0.5}),
    ("luffy", {"mask.policy.low": 0.1, "mask.policy.high": 0.1}, {"eps": 0.1}),
    ("luffy:code", {"mask.demonstration.gamma": 0.5, "reduce.tokens": 50.0}, {"gamma": 0.5, "tokens": 50.0}),
    ("luffy:code", {"entropy.coefficient": 0.5}, {"entropy": 0.5}),
    ("srft", {"coefficient": 0.2, "right.coefficient": 0.4}, {"imitated": 0.2, "reinforced": 0.4}),
    ("hpt", {"advantage.rate": 0.6, "sft.advantage.rate": 0.6}, {"rate": 0.6}),
    ("hpt", {"mask.low": 0.1, "mask.high": 0.1}, {"eps": 0.1}),
    ("hpt:soft", {"advantage.full": 2, "sft.advantage.full": 2, "mask.low": 0.1, "mask.high": 0.1}, {"full": 2, "eps": 0.1}),
    ("hpt:code", {"advantage.rate": 0.6, "sft.advantage.rate": 0.6}, {"rate": 0.6}),
    ("hpt:code", {"reduce.tokens": 50.0, "entropy.coefficient": 0.5}, {"tokens": 50.0, "entropy": 0.5}),
    ("a_lol", {"mask.low": 0.7, "mask.high": 1.2}, {"low": 0.7, "high": 1.2}),
    ("dpo", {"advantage.loss.beta": 0.5}, {"beta": 0.5}),
    ("ipo", {"advantage.loss.tau": 0.5}, {"tau": 0.5}),
    ("ipo:mean", {"advantage.loss.tau": 0.5}, {"tau": 0.5}),
    ("simpo", {"advantage.loss.beta": 1.0, "advantage.loss.gap": 1.0}, {"beta": 1.0, "gamma": 1.0}),
    ("orpo", {"odds.coefficient": 0.5}, {"lam": 0.5}),
    ("slic", {"advantage.loss.gap": 3.0, "nll.coefficient": 0.5}, {"delta": 3.0, "lam": 0.5}),
    ("vpo", {"advantage.loss.beta": 0.5, "calibrate.coefficient": 0.1}, {"beta": 0.5, "alpha": 0.2}),
    ("vpo:online", {"advantage.loss.beta": 0.5, "calibrate.coefficient": 0.1}, {"beta": 0.5, "alpha": 0.2}),
    ("kto", {"advantage.beta": 0.5}, {"beta": 0.5}),
    ("kto", {"advantage.desirable": 0.5, "advantage.undesirable": 2.0}, {"desirable": 0.5, "undesirable": 2.0}),
]
"""(row, its settings, the same numbers as the published loss calls them)."""


FIRST_FAILURE = given_with(phases=[Phase.explicit, Phase.generate])
"""For tests that exempt rows must fail: no search for the simplest failure."""
FEW = given_with(max_examples=10)
"""For what has to do with how rows are computed rather than with each one's formula: together they have very many examples."""


def every_row(property_: str = "") -> pytest.MarkDecorator:
    """Parametrizes a test by row; the exempt ones are expected to fail it."""
    reasons = {name: reason for reason, names in EXEMPT.get(property_, {}).items() for name in names}

    def row(name: str):
        marks = [pytest.mark.xfail(strict=True, raises=AssertionError, reason=reasons[name])] if name in reasons else []
        return pytest.param(name, id=name, marks=marks)

    return pytest.mark.parametrize("name", [row(name) for name in METHODS])


def case_for(name: str, shape: Shape) -> Case:
    return draw(replace(shape, **FITTING.get(name, {})))


def all_weights(method: Method, case: Case) -> Weights:
    return method.bind(case.batch).weights(case.logp, case.values)


def minus_gradient(name: str, case: Case, **numbers: float) -> Weights:
    """−∂L/∂x of the published loss, by autograd."""
    assert case.batch.entropy is not None
    assert case.batch.log_z is not None
    variables = [x.clone().requires_grad_() for x in (case.logp, case.batch.entropy, case.values, case.batch.log_z)]
    logp, entropy, values, log_z = variables
    batch = case.batch.replace(log_z=log_z)
    loss = LOSSES[name](replace(case, logp=logp, values=values, batch=batch).answers(entropy), **numbers)
    if not loss.requires_grad:  # no answer takes part
        return Weights()
    gradients = torch.autograd.grad(loss, variables, allow_unused=True)
    return Weights(*(None if g is None else -g for g in gradients))


def is_smooth(name: str, case: Case) -> bool:
    """Whether the published gradient stays what it is a hair's breadth off, in whatever direction: no kink is there."""
    signs = torch.randint(2, case.logp.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    here = minus_gradient(name, case)
    for step in (1e-9 * signs, -1e-9 * signs):
        there = minus_gradient(name, replace(case, logp=case.logp + step, values=case.values + step))
        try:
            assert_same(here, there, rtol=1e-5, atol=1e-7)
        except AssertionError:
            return False
    return True


def assert_same(ours: Weights, theirs: Weights, at=..., rtol: float = 1e-12, atol: float = 1e-14) -> None:
    """`ours` equals `theirs`[at] for each thing that a loss may depend on; where it does not, the weight is 0."""
    for field in fields(Weights):
        left, right = getattr(ours, field.name), getattr(theirs, field.name)
        if left is not None or right is not None:
            right = torch.zeros_like(left) if right is None else right[_fitting(at, right)]
            left = torch.zeros_like(right) if left is None else left
            torch.testing.assert_close(left, right, rtol=rtol, atol=atol, msg=lambda text, of=field.name: f"{of}: {text}")


def _fitting(at: Any, weight: torch.Tensor) -> Any:
    """Of rows and columns the rows, where a weight has no columns."""
    return at[0] if isinstance(at, tuple) and weight.ndim == 1 else at


def test_every_row_has_its_published_loss():
    assert set(LOSSES) == set(METHODS), "each row of METHODS has its loss in tests/reference/losses.py, under the same id"


def test_what_is_said_of_rows_is_said_of_rows_that_exist():
    assert {name for exempt in EXEMPT.values() for names in exempt.values() for name in names} <= set(METHODS)
    assert set(FITTING) | {name for name, _, _ in EQUAL_NUMBERS} <= set(METHODS)


@every_row()
@given(shape=shapes())
def test_equals_published_loss(name: str, shape: Shape):
    case = case_for(name, shape)
    assume(is_smooth(name, case))
    assert_same(all_weights(METHODS[name], case), minus_gradient(name, case), rtol=1e-8, atol=1e-12)


@every_row()
def test_bounds_are_those_of_the_paper(name: str):
    """A good and a bad answer of one token, of which one has moved just not as far as each of the row's numbers, or just farther.

    A number may be about a ratio, a log-ratio, a change of the probability or a change of the value; the move may be the policy's
    or that of the policy at the start of the update from the one that acted.
    """
    start = -3.0
    found = {v for _, v in METHODS[name].numbers() if isinstance(v, float) and 0 < v < inf}
    ratios = [r for v in found for r in (v, 1 + v, 1 - v, exp(-v), exp(min(v, 9.0)), 1 + v / exp(start), 1 - v / exp(start))]
    moves = sorted({log(r) for r in ratios if 1e-3 < r < exp(-start)})
    probes = torch.tensor([m + side for m in moves for side in (-1e-5, 1e-5)], dtype=torch.float64)
    none = torch.zeros_like(probes)
    moved = torch.stack([probes, none, none, probes], 1).view(-1, 1)  # the good one of a pair, then the bad one of another
    here = torch.full_like(moved, start)
    reward = torch.tensor([1.0, 0.0 if "span" in FITTING.get(name, {}) else -1.0], dtype=torch.float64).repeat(len(moved) // 2)
    batch = Batch(
        action=torch.ones_like(moved, dtype=torch.bool),
        **dict.fromkeys(("logp_old", "logp_rollout", "logp_ref", "logp_teacher", "logp_process"), here),
        values=torch.zeros_like(moved),
        **dict.fromkeys(("entropy", "entropy_old", "certainty", "potential", "grad_norm_sq"), torch.ones_like(moved)),
        step=torch.zeros_like(moved, dtype=torch.int64),
        log_z=torch.zeros_like(reward),
        reward=reward,
        reward_greedy=torch.zeros_like(reward),
        prompt_id=torch.arange(len(moved)) // 2,
        task=torch.zeros_like(reward, dtype=torch.int64),
        turn=torch.zeros_like(moved, dtype=torch.int64),
        turn_reward=reward[:, None],
        rewards=reward[:, None],
        reward_weights=torch.ones_like(reward)[:, None],
    )
    for origin in METHODS[name].origins:
        owned = batch.replace(origin=torch.full((len(moved),), origin.code))
        for case in (Case(owned, here + moved, moved), Case(owned.replace(logp_rollout=here - moved), here, moved)):
            assert_same(all_weights(METHODS[name], case), minus_gradient(name, case), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("name", "settings", "numbers"), EQUAL_NUMBERS, ids=lambda x: x if isinstance(x, str) else ",".join(x))
def test_numbers_mean_what_the_paper_means(name: str, settings: dict, numbers: dict):
    case = case_for(name, Shape(seed=3, groups=(4,) * 8, demonstrations=6, longest=8, spread=1.0))
    ours = all_weights(METHODS[name].with_settings(settings), case)
    assert_same(ours, minus_gradient(name, case, **numbers), rtol=1e-8, atol=1e-12)
    with pytest.raises(AssertionError):  # the case tells these numbers from the default ones
        assert_same(ours, minus_gradient(name, case), rtol=1e-6, atol=1e-12)


@every_row("collapses on policy")
@FIRST_FAILURE
@given(shape=shapes())
def test_collapses_on_policy(name: str, shape: Shape):
    """At π_θ = π_old the ratio is 1 and no mask acts: what is left is REINFORCE with the row's own advantage."""
    case = case_for(name, shape).on_policy()
    collapsed = METHODS[name].replace(mask=Everywhere(), denominator=Current())
    assert collapsed != METHODS[name]
    assert_same(all_weights(METHODS[name], case), all_weights(collapsed, case))


@every_row("centred")
@FIRST_FAILURE
@given(shape=shapes(rewards="real"))
def test_advantages_sum_to_zero_in_each_group(name: str, shape: Shape):
    case = case_for(name, shape)
    factors = METHODS[name].bind(case.batch).factors(case.logp)[METHODS[name].terms[0].name]
    of_answer = factors.advantage.sum(1) / factors.advantage.ne(0).sum(1).clamp(min=1)
    for prompt in case.batch.prompt_id.unique():
        own = of_answer[case.batch.prompt_id == prompt]
        assert own.sum().abs() <= 1e-12 * (1 + own.abs().sum())


@every_row("silent without contrast")
@FIRST_FAILURE
@given(shape=shapes(rewards="equal"), groups_of_one=st.booleans())
def test_no_contrast_no_weight(name: str, shape: Shape, groups_of_one: bool):
    case = case_for(name, replace(shape, rewards="real") if groups_of_one else shape)
    if groups_of_one:
        case = replace(case, batch=case.batch.replace(prompt_id=torch.arange(case.batch.size)))
    factors = METHODS[name].bind(case.batch).factors(case.logp)[METHODS[name].terms[0].name]
    assert (factors.weight == 0).all()


@every_row()
@FEW
@given(shape=shapes())
def test_order_of_rows_does_not_matter(name: str, shape: Shape):
    case = case_for(name, shape)
    order = torch.randperm(case.batch.size, generator=torch.Generator().manual_seed(shape.seed))
    assert_same(all_weights(METHODS[name], case.rows(order)), all_weights(METHODS[name], case), at=order)


@every_row()
@FEW
@given(shape=shapes(), data=st.data())
def test_padding_does_not_matter(name: str, shape: Shape, data: st.DataObject):
    case = case_for(name, shape)
    extra = data.draw(st.integers(1, 3))
    columns = st.integers(0, case.logp.shape[1] + extra - 1)
    wider, old = case.widened(data.draw(st.sets(columns, min_size=extra, max_size=extra)))
    assert_same(all_weights(METHODS[name], case), all_weights(METHODS[name], wider), at=(slice(None), old))


@every_row()
@FEW
@given(shape=shapes(), base=st.sampled_from([-3, -1, 10**12]))
def test_names_of_prompts_do_not_matter(name: str, shape: Shape, base: int):
    case = case_for(name, shape)
    renamed = replace(case, batch=case.batch.replace(prompt_id=base - 7 * case.batch.prompt_id))
    assert_same(all_weights(METHODS[name], renamed), all_weights(METHODS[name], case))


def units(case: Case, reach: Scope) -> list[torch.Tensor]:
    """The rows that must be seen together."""
    assert case.batch.prompt_id is not None
    match reach:
        case "token" | "sequence":
            return list(torch.arange(case.batch.size).split(1))
        case "group":
            return [(case.batch.prompt_id == prompt).nonzero()[:, 0] for prompt in case.batch.prompt_id.unique()]
        case "batch":
            return [torch.arange(case.batch.size)]


@every_row()
@FEW
@given(shape=shapes(), parts=st.integers(1, 4))
def test_micro_batches_change_nothing(name: str, shape: Shape, parts: int):
    """Where they may be cut at any row, not even the last bit."""
    case = case_for(name, shape)
    bound = METHODS[name].bind(case.batch)
    whole = units(case, bound.reach)
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(shape.seed))
    rounding = 0.0 if bound.reach in ("token", "sequence") else 1e-12
    for some in order.chunk(parts):
        index = torch.cat([whole[i] for i in some])
        assert_same(
            bound.rows(index).weights(case.logp[index], case.values[index]),
            bound.weights(case.logp, case.values),
            at=index,
            rtol=rounding,
            atol=0,
        )


def test_what_must_be_seen_together_must_be():
    """A row that says so of its groups, or of the minibatch, has other weights when it is cut into single sequences."""
    case = draw(Shape(seed=0, groups=(4, 4), rated=(3, 3), mismatched=3, longest=12))
    reaching = {
        name: METHODS[name].bind(case.batch) for name in METHODS if METHODS[name].bind(case.batch).reach in ("group", "batch")
    }
    assert {"dpo", "kto", "clip_cov"} <= set(reaching)
    for bound in reaching.values():
        rows = torch.arange(case.batch.size).split(1)
        single = torch.cat([bound.rows(i).weights(case.logp[i]).logp for i in rows])
        assert not torch.allclose(single, bound.weights(case.logp).logp)


@every_row()
@FEW
@given(shape=shapes())
def test_only_own_actions_have_weight(name: str, shape: Shape):
    """Exactly 0, whatever garbage the padding holds, and for every row that the method is not about."""
    case = case_for(name, shape)
    codes = torch.tensor([origin.code for origin in METHODS[name].origins])
    counted = case.batch.action & torch.isin(case.batch.origin, codes)[:, None]
    weights = all_weights(METHODS[name], case)
    for field in fields(Weights):
        weight = getattr(weights, field.name)
        if weight is not None:
            own = counted if weight.ndim == 2 else counted.any(1)
            assert (weight[~own] == 0).all()
            assert weight[own].isfinite().all()


@every_row("says whose rows")
def test_without_origins_all_rows_are_its_own(name: str):
    row, case = METHODS[name], case_for(name, Shape(seed=5, demonstrations=2))
    case = replace(case, batch=case.batch.replace(reward=torch.linspace(0, 1, case.batch.size, dtype=torch.float64)))
    common = set.intersection(*(set(term.on) for term in row.active))
    assert common
    whose = Origin.POLICY if Origin.POLICY in common else common.pop()
    owned = replace(case, batch=case.batch.replace(origin=torch.full_like(case.batch.origin, whose.code)))
    unsaid = replace(case, batch=case.batch.replace(origin=None))
    assert_same(all_weights(row, unsaid), all_weights(row, owned), rtol=0, atol=0)


@every_row("names what it lacks")
def test_names_what_it_lacks_and_the_way_out(name: str):
    case = case_for(name, Shape())
    assert METHODS[name].needs
    for needed in METHODS[name].needs:
        with pytest.raises(ValueError, match=rf"needs {needed}, .*pass {needed}=… to Batch\(\.\.\.\)"):
            METHODS[name].weights(case.batch.replace(**{needed: None}), case.logp)


@every_row()
def test_reads_nothing_else(name: str):
    case = case_for(name, Shape(seed=1))
    kept = METHODS[name].needs | {"action", "origin"}
    bare = Batch(**{key: getattr(case.batch, key) for key in kept})
    assert_same(all_weights(METHODS[name], replace(case, batch=bare)), all_weights(METHODS[name], case), rtol=0, atol=0)


@every_row()
def test_logp_of_another_shape_is_refused(name: str):
    case = case_for(name, Shape())
    with pytest.raises(ValueError, match=r"logp has shape .*: they must be equal"):
        METHODS[name].weights(case.batch, case.logp[:, 1:])


@every_row()
@pytest.mark.parametrize("batch_dtype", [torch.float32, torch.float64], ids=["float32 batch", "float64 batch"])
@FEW
@given(shape=shapes(), spread=st.sampled_from([0.5, 25.0, 1e3]))
def test_float32_in_float32_out(name: str, batch_dtype: torch.dtype, shape: Shape, spread: float):
    """Finite, however far apart the policies are."""
    case = case_for(name, replace(shape, spread=spread))
    batch = case.batch.map(lambda x: x.to(batch_dtype) if x.is_floating_point() else x)
    weights = all_weights(METHODS[name], Case(batch, case.logp.float(), case.values.float()))
    for weight in (getattr(weights, field.name) for field in fields(Weights)):
        assert weight is None or (weight.dtype == torch.float32 and weight.isfinite().all())


@every_row()
def test_weights_carry_no_gradient(name: str):
    """Whatever of what they are computed from does."""
    case = case_for(name, Shape(seed=2))
    batch = case.batch.map(lambda x: x.clone().requires_grad_() if x.is_floating_point() else x)
    case = Case(batch, case.logp.requires_grad_(), case.values.requires_grad_())
    weights = all_weights(METHODS[name].with_settings({"entropy.coefficient": 0.1} if name == "ppo" else {}), case)
    for weight in (getattr(weights, field.name) for field in fields(Weights)):
        assert weight is None or not weight.requires_grad
    for factors in METHODS[name].bind(batch).factors(case.logp).values():
        assert not any(f.requires_grad for f in vars(factors).values())


@every_row()
def test_metrics_are_numbers_under_one_scheme(name: str):
    case = case_for(name, Shape(seed=4, groups=(4, 4)))
    metrics = METHODS[name].bind(case.batch).metrics(case.logp)
    assert {"mask/passed", "ratio/p01", "ratio/p50", "ratio/p99", "ratio/max", "advantage/std"} <= set(metrics)
    assert all(isinstance(value, float) and value == value for value in metrics.values())
    assert 0 <= metrics["mask/passed"] <= 1
    assert metrics["ratio/p01"] <= metrics["ratio/p50"] <= metrics["ratio/p99"] <= metrics["ratio/max"] + 1e-6


OTHER = {
    **{"none": "group", "group": "batch", "batch": "none", "leave_one_out": "batch", "length_weighted": "none"},
    "gradient_weighted": "none",
    **{
        "group_mean": "none",
        "task": "group",
        "length": "efficiency",
        "above": "upto",
        "upto": "above",
        "ref": "old",
        "old": "ref",
    },
    **{"k1": "k2", "k2": "k3", "k3": "k1", "forward": "abs", "abs": "weighted", "weighted": "forward", "variance": "k1"},
    **{"share": "odds", "odds": "share", "high": "low", "low": "high"},
    **{"turn": "sequence", "same": "all", "all": "same", "rollout": "ref"},
    **{"mean": "sum", "sum": "mean"},
    **{"token": "sequence", "sequence": "token", "geometric": "token"},
    **{"certainty": "entropy", "entropy": "likelihood", "likelihood": "certainty"},
    **{"log_ratio": "logp", "mean_log_ratio": "logp", "logp": "log_ratio", "mean_logp": "logp", "log_odds": "logp"},
}
"""For each choice that a number may be, another one."""


def another(path: str, value: str | float) -> str | float:
    """Another value that a number may have."""
    if isinstance(value, str):
        return "turn" if (path, value) == ("denominator.over", "sequence") else OTHER[value]
    match path.rpartition(".")[2]:
        case "sign":
            return -value
        case "correction":
            return 1 - value
        case "full" | "history":
            return value + 1
        case _:
            return 1.5 if value == inf else abs(value - 0.125)


@every_row()
def test_every_number_can_be_set(name: str):
    row = METHODS[name]
    for path, value in row.numbers():
        other = another(path, value)
        changed = row.with_settings({path: other})
        assert dict(changed.numbers()) == dict(row.numbers()) | {path: other}
        assert changed != row
        assert len(difference(row, changed)) == 1
        assert (changed.paper, changed.claim, changed.aka, changed.status) == (row.paper, row.claim, row.aka, row.status)
        assert changed.with_settings({path: value}) == row
        with pytest.raises(ConfigError, match=rf"method\.{path} = 'much' is not allowed"):
            row.with_settings({path: "much"})
        with pytest.raises(ConfigError, match=rf"there is no setting 'method\.{path}x': did you mean .*{path}"):
            row.with_settings({f"{path}x": value})


@every_row()
def test_explains_all_that_it_is_made_of(name: str):
    row, text = METHODS[name], METHODS[name].explain()
    assert row.paper in text
    assert row.claim in text
    for term in row.terms:
        for part in term.parts.values():
            about = describe(part)
            assert signature(part) in text
            assert about.summary in text
            assert about.source in text
            assert all(line in text for line in about.formula.splitlines())


@every_row()
def test_lines_tell_it_from_every_other_row(name: str):
    row = METHODS[name]
    assert dict(row.lines())["reduce"] == signature(row.terms[0].reduce)
    for other in METHODS.values():
        assert bool(difference(row, other)) == (row != other)
        assert set(difference(row, other)) == {(line, ours, theirs) for line, theirs, ours in difference(other, row)}
