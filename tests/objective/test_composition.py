"""The rules of composition: each in both directions, and what they claim of bias against the exact gradient."""

import inspect
import math
import random
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from quatrain.diagnostics.enumeration import ONE_TOKEN, TINY, World, estimates, unfit
from quatrain.methods import METHODS
from quatrain.objective import (
    GAE,
    AboveValue,
    Accepted,
    Against,
    Agreeing,
    AmongAccepted,
    BalancedClip,
    BetaNormalized,
    Budget,
    ByEntropy,
    ByOrigin,
    ByReward,
    ByTurn,
    Cap,
    Clip,
    Constant,
    Corrected,
    CovarianceTop,
    Current,
    Decoupled,
    Desirable,
    DualClip,
    EntropyBonus,
    EntropySwitched,
    Everywhere,
    Filtered,
    Flattened,
    FlowBalance,
    Gated,
    GeometricClip,
    GeometricMean,
    Hazard,
    LengthAdaptiveGAE,
    LengthSwitched,
    Method,
    Old,
    One,
    OverGreedy,
    PartitionLoss,
    PerCreditedToken,
    PerGroup,
    PerSequence,
    PerToken,
    Perturbed,
    PerTurn,
    PrefixMinimum,
    PreservingClip,
    Priced,
    Ramped,
    Reference,
    Rejected,
    Relative,
    ReturnToGo,
    Rollout,
    Sequence,
    Shaped,
    Signed,
    SoftGate,
    SoftlyGated,
    StayClose,
    SumPerGroup,
    Taper,
    Term,
    Token,
    TotalVariation,
    Undiluted,
    Unit,
    Unsolved,
    ValueLoss,
    Verified,
    Whitened,
    advantages,
    check,
    composition,
    denominators,
    likelihoods,
    masks,
    meaning,
    missing,
    preferences,
    reductions,
    rules,
)
from quatrain.objective.composition import Given, findings
from quatrain.objective.rules import RULES, Rule
from quatrain.types import Origin
from tests.reference import Shape, draw

PLAIN = Term(denominator=Current(), advantage=Relative(baseline="leave_one_out"), reduce=Constant())
SHOWN = (Origin.DEMONSTRATION,)
RATED = (Origin.RATED,)
CLAIMS = [rule for rule in RULES if rule.biased]


def named(rules: list[Rule]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in rules])


def said(*terms: Any) -> set[str]:
    return {finding.rule for finding in findings(terms)}


@dataclass(frozen=True)
class Doubtful(World):
    """A world whose critic errs."""

    @cached_property
    def values(self) -> Tensor:
        return torch.cos(1.0 + self.state.double()).expand(self.logp.shape)


@dataclass(frozen=True)
class Otherwise(World):
    """A world whose engine acts as an earlier policy would: what the policy is at the start of the update, the learner knows."""

    def fields(self, current: World) -> dict[str, Tensor]:
        return {**super().fields(current), "logp_old": current.logp}


def of(kind: type[World], world: World) -> World:
    """With some log Z, too."""
    log_z = torch.tensor([0.3, -0.2]).double()[: len(world.reward)]
    return kind(world.logits, world.reference, world.reward, world.longest, log_z)


WORLDS = {
    "on-policy": (of(Doubtful, TINY), 0),
    "stale": (of(Doubtful, TINY), 2),
    "engine": (of(Otherwise, ONE_TOKEN), 2),
}


def turned(method: Method, claim: str) -> float:
    """What of the expected gradient is no multiple of the exact one, as a share of it; 0 where it is 0 itself."""
    world, updates = WORLDS[claim]
    current = world.after(updates)
    found, probability = estimates(method, world, current, group=2)
    mean, exact = probability @ found.flatten(1), current.gradient.flatten()
    rest = mean - (mean @ exact) / (exact @ exact) * exact
    return (rest.norm() / mean.norm()).item() if mean.norm() > 1e-12 else 0.0


@named(list(RULES))
def test_a_rule_holds_where_it_should_and_nowhere_near(rule: Rule):
    assert rule.id in said(*rule.example)
    assert rule.id not in said(*rule.counterexample)


@named(CLAIMS)
def test_a_claim_of_bias_is_true(rule: Rule):
    assert rule.biased
    assert turned(Method(*rule.example), rule.biased) > 1e-3
    assert turned(Method(*rule.counterexample), rule.biased) < 1e-9


def test_rules_say_what_they_are():
    for rule in RULES:
        statement, why, source = rule.about
        assert statement.endswith(".") and why.endswith(".")
        assert re.fullmatch(r"(arXiv:|https?://).*[^.]", source) or not source
    assert len({rule.id for rule in RULES}) == len(RULES)


LACKING = "it does not say needs and scope and live"


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ([replace(PLAIN, mask=Clip)], "mask is the class Clip, not a part of it: write Clip()"),
        ([replace(PLAIN, advantage=Whitened(of=Relative))], "advantage.of is the class Relative"),
        ([replace(PLAIN, advantage=1.0)], f"advantage=1.0 is no advantage: {LACKING}"),
        ([replace(PLAIN, advantage=Whitened(of=Old()))], "advantage.of=Old() is no advantage: it does not say live"),
        ([replace(PLAIN, reduce=Token())], "reduce=Token() is no reduce: write likelihood=Token()"),
        ([replace(PLAIN, denominator=One())], "denominator=One() is no denominator: write advantage=One()"),
        ([replace(PLAIN, mask=Corrected(of=Old()))], "mask.of=Old() is no mask: it cannot be called with the view, the ratio"),
        ([replace(PLAIN, mask=Against(mask=Old()))], "mask.mask=Old() is no mask"),
        ([replace(PLAIN, mask=Against(denominator=Clip))], "mask.denominator is the class Clip, not a part of it"),
        ([replace(PLAIN, likelihood=Old())], "likelihood=Old() is no likelihood: it does not say actions"),
        ([replace(PLAIN, reduce=PerCreditedToken(), advantage=StayClose())], "take reduce=PerSequence()"),
        (
            [replace(PLAIN, reduce=Undiluted(), advantage=Gated(of=Verified()))],
            "Gated(Verified(0.05), above, 0) reads log π_θ",
        ),
        ([PLAIN, EntropyBonus(reduce=Undiluted())], "the term 'entropy' cannot run: Undiluted(PerGroup) counts"),
        ([replace(PLAIN, advantage=Whitened(of=StayClose()))], "is computed before the first forward pass"),
        ([PLAIN, PartitionLoss(advantage=Relative())], "the term 'partition' cannot run: advantage=Relative(baseline='group'"),
        ([PLAIN, PartitionLoss(reduce=PerCreditedToken())], "FlowBalance(15, mean, Relative(group, group)) reads log π_θ"),
        ([PLAIN, ValueLoss(advantage=ByEntropy())], "a return is computed before the first forward pass"),
        ([replace(PLAIN, on=())], "write on=(Origin.POLICY,)"),
        ([replace(PLAIN, on=(Origin.POLICY, Origin.MISMATCHED))], "mismatched answers are there to be compared with"),
    ],
)
def test_what_cannot_run_is_refused_when_it_is_built(terms: list[Any], words: str):
    with pytest.raises(ValueError, match=re.escape(words)):
        Method(*terms)


def test_what_is_switched_off_may_be_anything():
    off = Method(PLAIN, EntropyBonus(coefficient=0.0, reduce=PerCreditedToken()))
    assert check(off) == check(Method(PLAIN))
    with pytest.raises(ValueError, match="entropy bonus has none"):
        off.with_settings({"entropy.coefficient": 0.1})


@pytest.mark.parametrize(
    ("holds", "rule", "terms"),
    [
        (True, "ratio-twice", [replace(PLAIN, denominator=ByOrigin(Rollout(), Unit()), mask=Corrected(), on=(*SHOWN, *RATED))]),
        (False, "ratio-twice", [replace(PLAIN, denominator=Rollout(), mask=Clip())]),
        (True, "other-ratio", [replace(PLAIN, denominator=Unit(), mask=Clip(), on=SHOWN)]),
        (False, "other-ratio", [replace(PLAIN, denominator=Unit(), mask=Shaped(), on=SHOWN)]),
        (True, "other-ratio", [replace(PLAIN, denominator=Reference(), mask=Corrected())]),
        (True, "other-ratio", [replace(PLAIN, denominator=Old(), mask=Corrected(), likelihood=Sequence())]),
        (False, "other-ratio", [replace(PLAIN, denominator=Old(), mask=Corrected(over="sequence"), likelihood=Sequence())]),
        (False, "other-ratio", [replace(PLAIN, denominator=Old(), mask=Corrected())]),
        (True, "idle", [replace(PLAIN, mask=Corrected(of=Clip()))]),
        (False, "idle", [replace(PLAIN, mask=TotalVariation())]),
        (False, "idle", [replace(PLAIN, mask=Against(of=Everywhere()))]),
        (True, "idle", [replace(PLAIN, mask=Against(of=Cap()))]),
        (True, "bounded", [replace(PLAIN, denominator=Rollout(), mask=Against(of=Everywhere()))]),
        (True, "foreign-ratio", [replace(PLAIN, denominator=PrefixMinimum(), on=SHOWN)]),
        (False, "idle", [replace(PLAIN, mask=Taper(positive_low=2, positive_high=2))]),
        (True, "idle", [replace(PLAIN, mask=ByOrigin())]),
        (True, "idle", [replace(PLAIN, denominator=ByOrigin(Old(), Unit()), on=SHOWN)]),
        (False, "idle", [replace(PLAIN, denominator=ByOrigin(Old(), Unit()), on=(*SHOWN, Origin.POLICY))]),
        (True, "idle", [replace(PLAIN, denominator=GeometricMean(), likelihood=Sequence())]),
        (False, "idle", [replace(PLAIN, denominator=GeometricMean())]),
        (True, "answers-by-token", [replace(PLAIN, advantage=Desirable(), reduce=PerToken(), on=RATED)]),
        (False, "answers-by-token", [replace(PLAIN, advantage=Desirable(), reduce=Constant(), on=RATED)]),
        (True, "foreign-ratio", [replace(PLAIN, advantage=One(), denominator=Rollout(), on=SHOWN)]),
        (True, "foreign-ratio", [replace(PLAIN, denominator=Old(), on=(Origin.REPLAY,))]),
        (False, "foreign-ratio", [replace(PLAIN, denominator=Old(), mask=Corrected(), on=(Origin.REPLAY,))]),
        (False, "foreign-ratio", [replace(PLAIN, denominator=Rollout(), on=(Origin.TEACHER,))]),
        (True, "critic", [PLAIN, ValueLoss()]),
        (True, "partition", [replace(PLAIN, advantage=FlowBalance())]),
        (True, "partition", [replace(PLAIN, advantage=Gated(of=FlowBalance())), PartitionLoss(denominator=Current())]),
        (True, "partition", [PLAIN, PartitionLoss()]),
        (False, "partition", [PartitionLoss()]),
        (True, "split", [replace(PLAIN, advantage=FlowBalance(of=Relative(scale="batch")))]),
        (False, "split", [replace(PLAIN, advantage=FlowBalance())]),
        (True, "objective", [replace(PLAIN, advantage=FlowBalance(of=Relative(baseline="none")))]),
        (True, "objective", [replace(PLAIN, advantage=ByReward(Relative()))]),
        (False, "objective", [replace(PLAIN, advantage=ByReward(One()))]),
        (False, "critic", [ValueLoss()]),
        (True, "same-for-all", [replace(PLAIN, advantage=One())]),
        (False, "same-for-all", [replace(PLAIN, advantage=One(), on=SHOWN)]),
        (False, "same-for-all", [replace(PLAIN, advantage=One(), mask=CovarianceTop())]),
        (False, "split", [replace(PLAIN, advantage=ByEntropy(of=Relative()), mask=CovarianceTop())]),
        (False, "split", [replace(PLAIN, advantage=Whitened(Relative()))]),
        (True, "minibatch", [replace(PLAIN, reduce=PerToken())]),
        (True, "minibatch", [replace(PLAIN, reduce=Budget())]),
        (True, "minibatch", [replace(PLAIN, denominator=Old(), mask=BalancedClip())]),
        (False, "minibatch", [replace(PLAIN, reduce=PerToken(), likelihood=Sequence())]),
        (False, "normalizer", [replace(PLAIN, reduce=PerSequence(), on=SHOWN)]),
        (False, "normalizer", [replace(PLAIN, reduce=PerGroup(), likelihood=Sequence())]),
        (False, "own-statistics", [replace(PLAIN, advantage=Relative(scale="group"), on=SHOWN)]),
        (False, "regularizer", [replace(PLAIN, advantage=StayClose("k2", to="old"))]),
        (True, "regularizer", [PLAIN, EntropyBonus()]),
        (False, "bounded", [replace(PLAIN, mask=Clip())]),
        (False, "engine-gap", [replace(PLAIN, denominator=Rollout())]),
        (True, "engine-gap", [replace(PLAIN, denominator=Rollout(), mask=Agreeing(of=Everywhere()))]),
        (True, "ratio-twice", [replace(PLAIN, denominator=Rollout(), mask=Agreeing())]),
    ],
)
def test_what_else_a_rule_is_about(holds: bool, rule: str, terms: list[Any]):
    assert (rule in said(*terms)) == holds


CASE = draw(Shape(seed=3, groups=(3, 3, 3), demonstrations=3))


def weights(term: Term, rows: Tensor | None = None) -> Tensor:
    case = CASE if rows is None else CASE.rows(rows)
    return Method(term).weights(case.batch.replace(entropy=-case.logp), case.logp)


@pytest.mark.parametrize(
    ("idle", "plain"),
    [
        (replace(PLAIN, mask=Clip()), PLAIN),
        (replace(PLAIN, mask=PreservingClip()), PLAIN),
        (replace(PLAIN, mask=SoftGate()), PLAIN),
        (replace(PLAIN, mask=ByOrigin(Everywhere(), Clip())), PLAIN),
        (
            replace(PLAIN, denominator=GeometricMean(), likelihood=Sequence()),
            replace(PLAIN, denominator=Old(), likelihood=Sequence()),
        ),
    ],
)
def test_what_does_nothing_may_go(idle: Term, plain: Term):
    assert "idle" in said(idle) and "idle" not in said(plain)
    torch.testing.assert_close(weights(idle), weights(plain))


@named([rule for rule in RULES if rule.id == "split"])
def test_what_changes_with_the_split(rule: Rule):
    """Each sequence alone, as a micro-batch."""
    for terms, changes in ((rule.example, True), (rule.counterexample, False)):
        bound = Method(*terms).bind(CASE.batch.replace(entropy=-CASE.logp))
        whole = bound.weights(CASE.logp).logp
        alone = [bound.rows(row).weights(CASE.logp[row]).logp for row in torch.arange(len(CASE.logp))[:, None]]
        assert whole is not None
        assert torch.cat(alone).allclose(whole) != changes  # type: ignore[arg-type]


@named([rule for rule in RULES if rule.id == "minibatch"])
def test_what_changes_with_the_minibatch(rule: Rule):
    """Two halves of as many groups each, of which either counts for a half."""
    rows = (CASE.batch.origin == Origin.POLICY.code).nonzero()[:, 0]
    assert CASE.batch.prompt_id is not None
    first = torch.isin(CASE.batch.prompt_id[rows], CASE.batch.prompt_id[rows].unique()[:1])
    for terms, changes in ((rule.example, True), (rule.counterexample, False)):
        (term,) = terms
        assert isinstance(term, Term)
        whole, part = weights(term, rows)[first], weights(term, rows[first])
        assert (part * first.sum() / len(rows)).allclose(whole) != changes


MEASURED = {name: row for name, row in METHODS.items() if not unfit(row, WORLDS["on-policy"][0])}


@pytest.mark.parametrize("name", MEASURED)
def test_every_measured_row_means_what_it_does(name: str):
    """Whether its expected gradient is a multiple of the exact one, from fresh answers and from stale ones."""
    meant = meaning(METHODS[name])
    for claim, verdict in (("on-policy", meant.on_policy), ("stale", meant.stale)):
        measured = turned(METHODS[name], claim)
        assert verdict == ("biased" if measured > 1e-9 else "unbiased"), (claim, measured)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in MEASURED])
def test_other_rows_are_not_called_unbiased(name: str):
    meant = meaning(METHODS[name])
    assert "unbiased" not in (meant.on_policy, meant.stale)


@pytest.mark.parametrize("name", METHODS)
def test_no_row_is_doubtful(name: str):
    assert not [finding for finding in check(METHODS[name]) if finding.severity != "note"]


_STATISTICS = [
    Relative(baseline, scale)
    for baseline in ("none", "group", "leave_one_out", "length_weighted", "gradient_weighted", "batch")
    for scale in ("none", "group", "task", "batch", "group_mean")
]
LINES: dict[str, list[Any]] = {
    "mask": [
        Clip(0.05, 0.05), Clip(1.0, math.inf), DualClip(0.05, 0.05, 1.1), PreservingClip(0.05, 0.05), SoftGate(),
        GeometricClip(0.05, 0.05), Hazard(), BalancedClip(0.9, 0.95, 0.01, 1.01, 1.05, 0.01),
        Cap(high=1.05), Cap(high=math.inf), Taper(), Taper(0, math.inf, 0, math.inf),
        TotalVariation(0.02), TotalVariation(1.0), Shaped(), Corrected(of=Everywhere()), CovarianceTop(share=0.3),
        Against(Clip(0.05, 0.05), Old(), Everywhere()), Against(Clip(0.05, 0.05), Old(), Cap(high=1.05)),
        Corrected(over="sequence", of=Clip(0.05, 0.05)), Agreeing(), Agreeing(0.99, 1.01, "geometric", Everywhere()),
    ],
    "denominator": [
        Current(), Old(), Rollout(), Reference(), Unit(), GeometricMean(), GeometricMean("turn"), PrefixMinimum(),
    ],
    "advantage": [
        *_STATISTICS, Accepted(0.5), Rejected(0.5), Signed(0.5), BetaNormalized(), OverGreedy(), ReturnToGo(0.0), ReturnToGo(0.3),
        ReturnToGo(0.3, "k3"), ByReward(One()), ByReward(Relative()), Unsolved(Relative()), Unsolved(Relative(scale="group")),
        ByTurn(), ByTurn(Relative("leave_one_out"), "all"), Decoupled(), Decoupled(Relative(), Relative("none")),
        LengthSwitched(0.5, threshold=0.5), LengthSwitched(0.5, threshold=0.5, of=Relative("leave_one_out")),
        Whitened(Relative()), EntropySwitched(), Filtered(), Gated(Relative()), SoftlyGated(Relative()),
        ByEntropy(1, Accepted(0.5)), Verified(), AboveValue(),
        GAE(1.0, 1.0), GAE(1.0, 0.5), GAE(0.9, 1.0), LengthAdaptiveGAE(1.0), FlowBalance(2.0),
        FlowBalance(0.5, "sum", Relative("none")),
    ],
    "likelihood": [Token(), Sequence(), Perturbed(), Perturbed(Sequence())],
    "reduce": [
        PerToken(), PerSequence(), PerGroup(), SumPerGroup(), PerCreditedToken(), Undiluted(), Budget(), PerTurn(),
        AmongAccepted(threshold=0.5), AmongAccepted(Constant(), 0.5), Ramped(Constant()), Ramped(SumPerGroup(), 2.0),
    ],
}  # fmt: skip
PENALTIES = [
    StayClose(estimator, to)
    for estimator in ("k1", "k2", "k3", "forward", "weighted", "abs", "variance")
    for to in ("ref", "old")
] + [ByReward(), Flattened(), Priced(), Priced(of=StayClose("k1")), Priced(of=StayClose())]


def compose(seed: int) -> tuple[Any, ...]:
    """Lines drawn at random; half of them what is known to be harmless, so that much is unbiased."""
    chance = random.Random(seed)
    harmless = {"mask": Everywhere(), "denominator": Old(), "advantage": PLAIN.advantage, "reduce": Constant()}
    lines: dict[str, Any] = {
        name: chance.choice(parts) if chance.random() < 0.5 else harmless.get(name) for name, parts in LINES.items()
    }
    term = replace(PLAIN, **{name: part or Sequence() for name, part in lines.items()})
    kl = replace(PLAIN, name="kl", coefficient=0.3, advantage=chance.choice(PENALTIES))
    return (term, kl) if chance.random() < 0.2 else (term,)


@pytest.mark.parametrize("seed", range(60))
def test_any_composition_means_what_it_does(seed: int):
    """Where a verdict is given, it is the measured one; an expected gradient of 0 is a multiple of any."""
    terms = compose(seed)
    if any(finding.severity == "error" for finding in findings(terms)):
        return
    meant = meaning(Method(*terms))
    for claim, verdict in (("on-policy", meant.on_policy), ("stale", meant.stale)):
        measured = turned(Method(*terms), claim)
        assert verdict == "not judged" or verdict == ("biased" if measured > 1e-9 else "unbiased"), (claim, measured, terms)


def test_a_meaning_is_told():
    assert str(meaning(METHODS["rloo"])) == "for ∇E[R], unbiased on-policy and biased from stale answers (ratio-missing)"
    assert "it learns from rated answers" in str(meaning(METHODS["dpo"]))
    assert "it reads no reward" in str(meaning(METHODS["opd"]))
    shown = METHODS["grpo"].explain()
    assert all(str(finding) in shown for finding in check(METHODS["grpo"]))
    assert f"gradient      {meaning(METHODS['grpo'])}" in shown


EVERYTHING: frozenset[Given] = frozenset(get_args(Given))
NEEDED: dict[str, set[Given]] = {
    "grpo": {"reference", "groups"},
    "ppo": {"critic"},
    "flowrl": {"reference", "groups", "partition"},
    "opd": {"teacher"},
    "prime": {"reference", "groups"},
    "istar_prm": {"groups"},
    "spae": {"answers", "groups"},
    "spear": {"groups"},
    "kepo": {"teacher", "groups"},
    "remax": set(),
    "reinforce": set(),
    "sft": {"demonstrations"},
    "luffy": {"demonstrations"},
    "dpo": {"reference", "rated", "pairs"},
    "kto": {"reference", "rated", "mismatched"},
    "simpo": {"rated", "pairs"},
    "hpt": {"groups", "demonstrations"},
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_run_is_told_what_it_lacks(name: str):
    assert not missing(METHODS[name], EVERYTHING)
    assert not missing(METHODS[name], NEEDED[name])
    for what in NEEDED[name]:
        found = missing(METHODS[name], EVERYTHING - {what})
        assert found and all(finding.severity == "error" for finding in found), what


def test_the_way_out_is_told():
    (found,) = missing(METHODS["grpo"], {"groups"})
    assert found.term == "kl"
    assert found.message == (
        "it needs a reference policy, and the run gives none: leave reference.model at start, or set method.kl.coefficient=0 "
        "to drop the term"
    )
    assert not missing(METHODS["grpo"].with_settings({"kl.coefficient": 0}), {"groups"})


def test_more_steps_on_a_batch_want_a_ratio():
    assert not missing(METHODS["rloo"], {"groups"})
    (found,) = missing(METHODS["rloo"], {"groups"}, steps_per_batch=4)
    assert (found.rule, found.severity) == ("ratio-missing", "warning")
    assert "4 steps on each batch" in found.message
    assert not missing(METHODS["dapo"], {"groups"}, steps_per_batch=4)
    assert not missing(METHODS["sft"], {"demonstrations"}, steps_per_batch=4)


UNTOLD = {
    "AboveMedian",
    "CovarianceDrop",
    "ByTurn",
    "CovarianceTop",
    "Decoupled",
    "EntropySwitched",
    "Filtered",
    "Flattened",
    "Gated",
    "Hinge",
    "ImplicitProcess",
    "ImplicitSteps",
    "Logistic",
    "Pooled",
    "Ramped",
    "Squared",
    "SoftlyGated",
} | {
    "Statistics",
    "TeacherGap",
    "Unsolved",
}
"""Parts of which no rule knows anything, as nothing is claimed of them."""


def test_the_rules_know_each_part_or_it_is_said_that_they_do_not():
    told = "".join(inspect.getsource(module) for module in (composition, rules))
    modules = (advantages, denominators, likelihoods, masks, preferences, reductions)
    parts = {name for m in modules for name, part in vars(m).items() if isinstance(part, type) and part.__module__ == m.__name__}
    unknown = {name for name in parts if not name.startswith("_") and not re.search(rf"\b{name}\b", told)}
    assert unknown == UNTOLD
