"""What a composition of parts means, in words: what cannot run, what is doubtful, and what is biased and why.

A rule is data with a predicate; its finding says what is wrong, with the values, and the way out. Where a rule knows nothing of a
part, such as one of your own, it is silent.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from quatrain.objective.advantages import (
    GAE,
    AboveValue,
    Accepted,
    BetaNormalized,
    ByEntropy,
    LengthAdaptiveGAE,
    One,
    OverGreedy,
    Rejected,
    Relative,
    ReturnToGo,
    Signed,
    StayClose,
    Verified,
    Whitened,
)
from quatrain.objective.denominators import Current, GeometricMean, Old, Reference, Rollout, Unit
from quatrain.objective.likelihoods import Sequence, Token
from quatrain.objective.masks import (
    ByOrigin,
    Cap,
    Clip,
    Corrected,
    DualClip,
    Everywhere,
    GeometricClip,
    Shaped,
    SoftGate,
    Taper,
    TotalVariation,
)
from quatrain.objective.part import SCOPES, Scope, signature
from quatrain.objective.preferences import Desirable, Preferred
from quatrain.objective.reductions import Constant, PerCreditedToken, PerGroup, PerSequence, PerToken, SumPerGroup, Undiluted
from quatrain.objective.terms import AnyTerm, EntropyBonus, Term, ValueLoss
from quatrain.types import Origin

if TYPE_CHECKING:
    from quatrain.objective.method import Method

Severity = Literal["error", "warning", "note"]
Terms = tuple[AnyTerm, ...]


@dataclass(frozen=True)
class Finding:
    """What a rule has to say of a term."""

    rule: str
    severity: Severity
    term: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.term}: {self.message} [{self.rule}]"


@dataclass(frozen=True)
class Rule:
    """One thing that a composition can mean."""

    id: str
    severity: Severity
    statement: str
    """What it says, in a line."""
    why: str
    says: Callable[[AnyTerm, Terms], str | None]
    """Its words for a term among all terms, None where it does not hold."""
    example: Terms
    """Where it holds."""
    counterexample: Terms
    """Where it does not, although it is near."""
    biased: Literal["on-policy", "stale", "engine"] | None = None
    """Over whose answers the expected gradient is no multiple of ∇E[R] then: the current policy's, an earlier one's, or an
    engine's that computes otherwise; None where it claims no bias."""
    source: str = ""


def check(method: Method) -> tuple[Finding, ...]:
    """What the rules find in `method`, errors first; terms that are switched off are not looked at."""
    return findings(method.active)


def refuse(terms: Terms) -> None:
    """Raise ValueError if `terms` cannot run."""
    found = [finding for finding in findings(terms) if finding.severity == "error"]
    if found:
        raise ValueError("\n".join(f"the term {finding.term!r} cannot run: {finding.message}" for finding in found))


def findings(terms: Terms) -> tuple[Finding, ...]:
    """What the rules find in `terms`: errors alone, if there are any, as the other rules take parts for what they should be."""
    for severities in (("error",), ("warning", "note")):
        rules = [rule for severity in severities for rule in RULES if rule.severity == severity]
        said = ((rule, term, rule.says(term, terms)) for rule in rules for term in terms)
        found = tuple(Finding(rule.id, rule.severity, term.name, words) for rule, term, words in said if words)
        if found:
            return found
    return ()


def _inner(part: Any) -> Iterator[Any]:
    """A part and all that it is made of."""
    yield part
    for item in fields(part) if is_dataclass(part) else ():
        value = getattr(part, item.name)
        if is_dataclass(value):
            yield from _inner(value)


def _has(part: Any, *kinds: type) -> Any:
    """The first of `kinds` that a part is or is made of, or None."""
    return next((inner for inner in _inner(part) if isinstance(inner, kinds)), None)


def _alone(term: AnyTerm) -> Iterator[tuple[Origin, Term]]:
    """A term by whose trajectories it is about, each with the parts that hold there."""
    if not isinstance(term, Term):
        return
    for origin in term.on:
        branch = "demonstration" if origin is Origin.DEMONSTRATION else "policy"
        parts = {line: getattr(part, branch) for line, part in term.parts.items() if isinstance(part, ByOrigin)}
        yield origin, replace(term, **parts)


def _own(term: AnyTerm) -> Term | None:
    """A term as it is about the policy's own answers, if it is and learns from them: a KL penalty does not."""
    own = next((alone for origin, alone in _alone(term) if origin is Origin.POLICY), None)
    return None if own is None or _pull(own) else own


def _pull(term: Term) -> StayClose | None:
    """The KL penalty that a term is; k1 is none."""
    kl = _has(term.advantage, StayClose)
    return kl if kl is not None and kl.estimator != "k1" else None


# --- what cannot run ---------------------------------------------------------------------------------------------------------

_CALLED_WITH = {
    "mask": ("the view", "the ratio", "the advantage"),
    "denominator": ("the view",),
    "advantage": ("the view",),
    "likelihood": ("the view", "log-probabilities"),
    "reduce": ("the view", "numbers of actions"),
}
_ALSO_SAYS = {"advantage": ("live",), "likelihood": ("actions",)}


def _wrong_line(term: AnyTerm, _: Terms) -> str | None:
    for line, part in term.parts.items():
        for name, value in [(line, part), *((f"{line}.{f.name}", getattr(part, f.name)) for f in _fields(part))]:
            if isinstance(value, type):
                return f"{name} is the class {value.__name__} and must be one of its kind: write {value.__name__}()"
        says = ("needs", "scope", *_ALSO_SAYS.get(line, ()))
        lacking = [name for name in says if not hasattr(part, name)]
        if lacking or not callable(part):
            return f"{line}={signature(part)} is no {line}: it does not say {' and '.join(lacking) or 'what it computes'}"
        try:
            inspect.signature(part).bind(*_CALLED_WITH[line])
        except TypeError:
            return f"{line}={signature(part)} is no {line}: it cannot be called with {', '.join(_CALLED_WITH[line])}"
    return None


def _fields(part: Any) -> tuple[Any, ...]:
    return fields(part) if is_dataclass(part) and not isinstance(part, type) else ()


def _too_early(term: AnyTerm, _: Terms) -> str | None:
    advantage = getattr(term, "advantage", None)
    live = next((part for part in _inner(advantage) if getattr(part, "live", False)), None)
    counting = _has(term.reduce, PerCreditedToken, Undiluted)
    if counting is not None and isinstance(term, EntropyBonus):
        return f"{signature(counting)} counts what has an advantage, and an entropy bonus has none: take reduce=PerToken()"
    if counting is not None and isinstance(term, Term) and term.advantage.live:
        return (
            f"{signature(counting)} counts what has an advantage before the first forward pass, and {signature(live)} reads "
            "log π_θ: take reduce=PerSequence()"
        )
    if live is not None and (isinstance(term, ValueLoss) or not getattr(advantage, "live", False)):
        whole = "a return" if isinstance(term, ValueLoss) else signature(advantage)
        return f"{whole} is computed before the first forward pass, and {signature(live)} reads log π_θ: take another advantage"
    return None


def _nobody(term: AnyTerm, _: Terms) -> str | None:
    never = [origin.value for origin in term.on if origin in (Origin.GREEDY, Origin.MISMATCHED)]
    if never:
        return f"{never[0]} answers are there to be compared with and never trained on: leave them out of on=(…)"
    return None if term.on else "it is about nobody's trajectories: write on=(Origin.POLICY,)"


# --- what is doubtful --------------------------------------------------------------------------------------------------------

_AROUND_ONE = (Clip, DualClip, SoftGate, GeometricClip)
"""Masks that bound a ratio around 1."""
_OF_THE_RATIO = (*_AROUND_ONE, Cap, Taper, Shaped)
"""Masks of nothing but their term's ratio and the advantage."""
_COMPARISONS = (Preferred, Desirable, Verified)


def _ratio_twice(term: AnyTerm, _: Terms) -> str | None:
    for _origin, alone in _alone(term):
        if isinstance(alone.denominator, Rollout) and _has(alone.mask, Corrected):
            return (
                "Corrected multiplies by π_old/π_rollout, and Rollout() measures against π_rollout already, so the gap between "
                "learner and engine counts twice: take denominator=Old(), or the mask inside of Corrected"
            )
    return None


def _other_ratio(term: AnyTerm, _: Terms) -> str | None:
    for _origin, alone in _alone(term):
        against = signature(alone.denominator)
        around = _has(alone.mask, *_AROUND_ONE)
        if around is not None and isinstance(alone.denominator, Unit):
            return f"{signature(around)} bounds a ratio around 1, and with {against} it is a probability: take Shaped() or Old()"
        if _has(alone.mask, TotalVariation) and not isinstance(alone.denominator, Rollout | Current):
            return f"TotalVariation bounds the distance from π_rollout, and {against} weighs by another one: take Rollout()"
        if _has(alone.mask, Corrected):
            if isinstance(alone.denominator, Unit | Reference):
                return f"Corrected is for a ratio to π_old, and {against} measures against something else: take Old()"
            if isinstance(alone.likelihood, Sequence) and isinstance(alone.denominator, Old | GeometricMean):
                return (
                    f"Corrected is the engine's ratio of each token, and {against} has that of the whole answer: take Rollout()"
                )
    return None


def _idle(term: AnyTerm, _: Terms) -> str | None:
    for line, part in term.parts.items():
        if isinstance(part, ByOrigin) and Origin.DEMONSTRATION not in term.on:
            return f"{line}.demonstration does nothing, as the term is not about demonstrations: take {signature(part.policy)}"
        if isinstance(part, ByOrigin) and set(term.on) == {Origin.DEMONSTRATION}:
            return f"{line}.policy does nothing, as the term is about demonstrations only: take {signature(part.demonstration)}"
    for _origin, alone in _alone(term):
        mask = _has(alone.mask, *_OF_THE_RATIO)
        if mask is not None and isinstance(alone.denominator, Current) and _even(mask):
            return (
                f"{signature(mask)} does nothing, as the ratio to Current() is 1: take denominator=Old(), or leave the mask out"
            )
        if isinstance(alone.denominator, GeometricMean) and isinstance(alone.likelihood, Sequence):
            return "GeometricMean() is a mean over tokens that Sequence() sums up again, which is Old(): take likelihood=Token()"
    return None


def _answers_by_token(term: AnyTerm, _: Terms) -> str | None:
    for _origin, alone in _alone(term):
        whole = _has(alone.advantage, *_COMPARISONS)
        if whole is not None and isinstance(alone.likelihood, Token) and isinstance(alone.reduce, _BY_LENGTH):
            return (
                f"{type(whole).__name__} is about whole answers, and {signature(alone.reduce)} divides by how many tokens they "
                "have: take likelihood=Sequence()"
            )
    return None


def _foreign_ratio(term: AnyTerm, _: Terms) -> str | None:
    for origin, alone in _alone(term):
        against = signature(alone.denominator)
        start = isinstance(alone.denominator, Old | GeometricMean)
        if origin in (Origin.DEMONSTRATION, Origin.RATED) and (start or isinstance(alone.denominator, Rollout)):
            known = "the policy at the start of the update did not write" if start else "no engine gave probabilities for"
            return f"{against} measures against a policy, and {known} {origin.value} answers: take Current() or Unit()"
        if origin in (Origin.REPLAY, Origin.TEACHER) and start and not _has(alone.mask, Corrected):
            return (
                f"{against} is not the policy that wrote {origin.value} answers: take denominator=Rollout(), or mask=Corrected()"
            )
    return None


def _critic(term: AnyTerm, terms: Terms) -> str | None:
    trained = any(isinstance(other, ValueLoss) for other in terms)
    reading = [other for other in terms if isinstance(other, Term) and any("values" in p.needs for p in other.parts.values())]
    if term in reading and not trained:
        return "it reads a critic that no term trains: add ValueLoss()"
    if isinstance(term, ValueLoss) and not reading and any(isinstance(other, Term) for other in terms):
        return "it trains a critic that no other term reads: take advantage=GAE() there, or leave this term out"
    return None


def _same_for_all(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    if own is None or not _constant(own.advantage) or not _even(own.mask) or not isinstance(own.denominator, _SAMPLERS):
        return None
    if isinstance(own.advantage, StayClose):
        return 'k1 has the same slope for every action, so as a loss it pulls to nobody: take StayClose("k2"), or ReturnToGo()'
    return f"{signature(own.advantage)} makes the policy imitate its own answers, good and bad: take Accepted() or Relative()"


def _split(term: AnyTerm, _: Terms) -> str | None:
    for part in term.live_parts:
        for inner in _inner(part):
            if hasattr(inner, "scope") and SCOPES.index(_reach(inner)) > SCOPES.index(part.scope):
                return (
                    f"{signature(inner)} is of a whole {_reach(inner)}, and {type(part).__name__} computes it anew in each "
                    f"micro-batch, which holds whole {part.scope}s alone: the split changes the gradient; put it outside"
                )
    return None


def _reach(part: Any) -> Scope:
    return "batch" if isinstance(part, Relative) and "batch" in (part.baseline, part.scale) else part.scope


# --- what it means -----------------------------------------------------------------------------------------------------------

_BY_LENGTH = (PerSequence, PerToken, PerGroup)
"""Reductions that divide by numbers of actions."""
_SAMPLERS = (Current, Old, Rollout, GeometricMean)
"""Denominators whose ratio is 1 where the current policy acted."""


def _minibatch(term: AnyTerm, _: Terms) -> str | None:
    for _origin, alone in _alone(term):
        statistics = [p for line in (alone.mask, alone.advantage) for p in _inner(line) if hasattr(p, "scope")]
        wide = next((p for p in statistics if _reach(p) == "batch"), None) or _has(alone.reduce, PerCreditedToken, Undiluted)
        if wide is None and isinstance(alone.reduce, PerToken) and isinstance(alone.likelihood, Token):
            wide = alone.reduce
        if wide is not None:
            return f"{signature(wide)} is of the whole minibatch: update.minibatches changes it, update.tokens_per_pass does not"
    return None


def _normalizer(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    if own is None:
        return None
    if _has(own.reduce, PerCreditedToken, Undiluted):
        return f"{signature(own.reduce)} counts what has an advantage, so how the others fare decides how much an answer weighs"
    if not isinstance(own.likelihood, Token):
        return None
    if isinstance(own.reduce, PerSequence):
        return "PerSequence() divides by each answer's length: short right answers gain more, long wrong ones lose less"
    if isinstance(own.reduce, PerToken | PerGroup):
        whose = "minibatch" if isinstance(own.reduce, PerToken) else "group"
        return f"{signature(own.reduce)} divides by the tokens of the {whose}: the longer the answers, the less each token weighs"
    return None


def _own_statistics(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    for part in () if own is None else _inner(own.advantage):
        if isinstance(part, Whitened | BetaNormalized):
            return f"{type(part).__name__} divides by a statistic of the rewards that it scales, the answer's own among them"
        if isinstance(part, Relative) and part.scale != "none":
            of = "the group's mean" if part.scale == "group_mean" else f"the deviation of the {part.scale}"
            return f"scale={part.scale} divides by {of}, which holds the answer's own reward and weighs prompts by difficulty"
        if isinstance(part, Relative) and part.baseline == "length_weighted":
            return "baseline=length_weighted holds the answer's own reward, more of it for a longer answer"
    return None


def _critic_bias(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    gae = None if own is None else _has(own.advantage, GAE, LengthAdaptiveGAE)
    if gae is None:
        return None
    if gae.gamma < 1:
        return f"γ = {gae.gamma:g} discounts by tokens: an answer is worth less, the later it ends"
    if isinstance(gae, LengthAdaptiveGAE):
        return "λ depends on the answer's length, which its tokens know only at the end, and is below 1: the critic's errors stay"
    return f"λ = {gae.lam:g} trusts the critic: the estimate is as far off as the critic is" if gae.lam < 1 else None


def _objective(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    if own is None:
        return None
    threshold = _has(own.advantage, Accepted, Rejected, Signed)
    if threshold is not None:
        return f"{signature(threshold)} climbs the share of rewards of {threshold.threshold:g} or more: E[R] if they are 0 and 1"
    other = _has(own.advantage, *_COMPARISONS, AboveValue, ByEntropy)
    if other is not None:
        return f"{type(other).__name__} is the slope of something else than the expected reward"
    if isinstance(own.denominator, Unit | Reference) and not _pinned(own.mask):
        return f"{signature(own.denominator)} weighs answers that π_θ wrote as if another policy had: likely ones count twice"
    return None


def _regularizer(term: AnyTerm, _: Terms) -> str | None:
    if isinstance(term, EntropyBonus):
        return "the best policy of the sum is not the best of the reward, but a more undecided one"
    own = next((alone for origin, alone in _alone(term) if origin is Origin.POLICY), None)
    if own is None:
        return None
    kl, folded = _pull(own), _has(own.advantage, ReturnToGo)
    if kl is not None and kl.to == "ref":
        descends = {"k2": "the KL from π_θ", "k3": "the forward KL, from π_ref", "forward": "another divergence"}
        return f"it descends {descends.get(kl.estimator, 'the size of the log-ratio')}: the optimum lies nearer to the reference"
    if folded is not None and folded.kl > 0:
        return f"kl={folded.kl:g} is inside of the reward: the gradient is that of E[R] − {folded.kl:g}·KL(π_θ‖π_ref)"
    return None


def _ratio_missing(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    if own is None or not isinstance(own.denominator, Current):
        return None
    return "Current() corrects for nothing: from the second step on a batch, the answers are an earlier policy's"


def _ratio_by_token(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    if own is None or not isinstance(own.likelihood, Token):
        return None
    if isinstance(own.denominator, GeometricMean):
        return "GeometricMean() is the ratio's |y|-th root, which is no importance ratio: of low variance, and biased"
    if isinstance(own.denominator, Old | Rollout):
        return (
            f"{signature(own.denominator)} corrects each token alone, and not how likely its prefix is now: right to first order"
        )
    return None


def _bounded(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    if own is None or not isinstance(own.denominator, Old | Rollout | GeometricMean) or _unbounded(own.mask):
        return None
    known = _has(own.mask, *_OF_THE_RATIO, TotalVariation)
    return None if known is None else f"{signature(known)} gives up some of the gradient where the ratio is far from 1"


def _engine_gap(term: AnyTerm, _: Terms) -> str | None:
    own = _own(term)
    if own is None or not isinstance(own.denominator, Old | GeometricMean) or _has(own.mask, Corrected, TotalVariation):
        return None
    return (
        f"{signature(own.denominator)} takes the engine's probabilities for the learner's: mask=Corrected() makes up for the gap"
    )


# --- masks and terms whose part in the bias is known ---------------------------------------------------------------------------


def _even(mask: Any) -> bool:
    """Whether a mask is known to be the same for all actions where the ratio is 1."""
    if isinstance(mask, Corrected):
        return _even(mask.of)
    if isinstance(mask, Taper):
        return mask.positive_low <= 1 <= mask.positive_high and mask.negative_low <= 1 <= mask.negative_high
    if isinstance(mask, DualClip):
        return mask.bound >= 1
    return isinstance(mask, Everywhere | Clip | Cap | SoftGate | GeometricClip | Shaped | TotalVariation)


def _unbounded(mask: Any) -> bool:
    """Whether a mask lets every ratio π_θ/π_ref pass whole."""
    if isinstance(mask, Clip | DualClip):
        return mask.low >= 1 and mask.high == math.inf and getattr(mask, "bound", math.inf) == math.inf
    if isinstance(mask, Cap):
        return (mask.low, mask.high) == (0, math.inf)
    if isinstance(mask, Taper):
        return (mask.positive_low, mask.positive_high, mask.negative_low, mask.negative_high) == (0, math.inf) * 2
    if isinstance(mask, TotalVariation):
        return mask.bound >= 1 and mask.cap == math.inf
    if isinstance(mask, Corrected):
        return _unbounded(mask.of)
    return isinstance(mask, Everywhere)


def _pinned(mask: Any) -> bool:
    """Whether a mask replaces the ratio by a number."""
    if isinstance(mask, Taper):
        return mask.positive_low == mask.positive_high and mask.negative_low == mask.negative_high
    return isinstance(mask, Cap) and mask.low == mask.high


def _constant(advantage: Any) -> bool:
    return isinstance(advantage, One) or (isinstance(advantage, StayClose) and advantage.estimator == "k1")


_PLAIN = Term(denominator=Current(), advantage=Relative(baseline="leave_one_out"), reduce=Constant())
_WHOLE = replace(_PLAIN, denominator=Old(), likelihood=Sequence())
_SHOWN = replace(_PLAIN, advantage=One(), on=(Origin.DEMONSTRATION,))
_PAIRS = replace(_PLAIN, advantage=Preferred(), likelihood=Sequence(), reduce=SumPerGroup(), on=(Origin.RATED,))
_KL = Term(name="kl", coefficient=0.1, denominator=Current(), advantage=StayClose("k2"), reduce=Constant())

RULES: tuple[Rule, ...] = (
    Rule(
        "wrong-line",
        "error",
        "A part stands in a line that it is not made for.",
        "Each line calls its part in its own way.",
        _wrong_line,
        example=(replace(_PLAIN, advantage=Clip()),),
        counterexample=(replace(_PLAIN, mask=Clip(), denominator=Old()),),
    ),
    Rule(
        "too-early",
        "error",
        "What is computed once for a minibatch reads log π_θ.",
        "It is computed before the first forward pass of an update.",
        _too_early,
        example=(replace(_PAIRS, reduce=PerCreditedToken()),),
        counterexample=(replace(_SHOWN, reduce=PerCreditedToken()),),
    ),
    Rule(
        "nobody",
        "error",
        "A term is about trajectories that nothing is learned from.",
        "Greedy and mismatched answers never enter a loss.",
        _nobody,
        example=(replace(_PLAIN, on=(Origin.GREEDY,)),),
        counterexample=(replace(_PLAIN, advantage=OverGreedy()),),
    ),
    Rule(
        "ratio-twice",
        "warning",
        "An importance ratio is counted twice.",
        "π_θ/π_rollout = π_θ/π_old · π_old/π_rollout: the second factor is what Corrected brings.",
        _ratio_twice,
        example=(replace(_PLAIN, mask=Corrected(high=math.inf, of=Everywhere()), denominator=Rollout()),),
        counterexample=(replace(_PLAIN, mask=Corrected(high=math.inf, of=Everywhere()), denominator=Old()),),
        biased="engine",
        source="arXiv:2110.00641, eq. 2",
    ),
    Rule(
        "other-ratio",
        "warning",
        "A mask's ratio is not its denominator's.",
        "What bounds the step and what weighs the sample are of two policies.",
        _other_ratio,
        example=(replace(_PLAIN, mask=TotalVariation(), denominator=Old()),),
        counterexample=(replace(_PLAIN, mask=TotalVariation(), denominator=Rollout()),),
    ),
    Rule(
        "idle",
        "warning",
        "A part does nothing here.",
        "What it acts on cannot occur in this term, so its numbers are without effect.",
        _idle,
        example=(replace(_PLAIN, mask=Clip()),),
        counterexample=(replace(_PLAIN, mask=Clip(), denominator=Old()),),
    ),
    Rule(
        "answers-by-token",
        "warning",
        "A loss of whole answers is divided by their tokens.",
        "Its slope belongs to the answer, however long that is.",
        _answers_by_token,
        example=(replace(_PAIRS, likelihood=Token(), reduce=PerSequence()),),
        counterexample=(_PAIRS,),
    ),
    Rule(
        "foreign-ratio",
        "warning",
        "A ratio is measured against a policy that did not act.",
        "An importance ratio is one to whoever drew the sample.",
        _foreign_ratio,
        example=(replace(_SHOWN, denominator=Old()),),
        counterexample=(_SHOWN,),
    ),
    Rule(
        "critic",
        "warning",
        "A critic is read and not trained, or trained and not read.",
        "A critic that stays as it began is a random baseline.",
        _critic,
        example=(replace(_PLAIN, advantage=GAE(lam=1.0)),),
        counterexample=(replace(_PLAIN, advantage=GAE(lam=1.0)), ValueLoss()),
    ),
    Rule(
        "same-for-all",
        "warning",
        "All of the policy's own answers have the same advantage.",
        "E[∇log π] = 0: what is left is noise, and what the lengths make of it.",
        _same_for_all,
        example=(_PLAIN, replace(_KL, advantage=StayClose("k1"))),
        counterexample=(_PLAIN, _KL),
        source="http://joschu.net/blog/kl-approx.html",
    ),
    Rule(
        "split",
        "warning",
        "A statistic changes with the split into micro-batches.",
        "What is evaluated at each forward pass sees only the rows of that pass, as many as its scope says.",
        _split,
        example=(replace(_PLAIN, advantage=ByEntropy(of=Relative())),),
        counterexample=(replace(_PLAIN, advantage=ByEntropy(of=Accepted())),),
    ),
    Rule(
        "minibatch",
        "note",
        "A statistic is of the minibatch.",
        "The same answers weigh otherwise in a minibatch of another size.",
        _minibatch,
        example=(replace(_PLAIN, advantage=Relative(scale="batch")),),
        counterexample=(replace(_PLAIN, advantage=Relative(scale="group")),),
    ),
    Rule(
        "normalizer",
        "note",
        "What is divided by depends on the answers.",
        "An unbiased estimate adds up ∇log π over an answer's tokens and divides by what no answer decides.",
        _normalizer,
        example=(replace(_PLAIN, reduce=PerSequence()),),
        counterexample=(_PLAIN,),
        biased="on-policy",
        source="arXiv:2503.20783, section 3.1",
    ),
    Rule(
        "own-statistics",
        "note",
        "A scale or a weighted baseline holds the answer's own reward.",
        "A baseline must not depend on the answer; a plain mean does, but only shrinks the gradient, by (G − 1)/G.",
        _own_statistics,
        example=(replace(_PLAIN, advantage=Relative(scale="group")),),
        counterexample=(replace(_PLAIN, advantage=Relative(baseline="group")),),
        biased="on-policy",
        source="arXiv:2503.20783, section 3.1; arXiv:2402.14740, section 3.2",
    ),
    Rule(
        "critic-bias",
        "note",
        "The return is cut short by a critic, or discounted.",
        "With γ = λ = 1 the critic is a baseline, and its errors cost variance alone.",
        _critic_bias,
        example=(replace(_PLAIN, advantage=GAE(lam=0.95)), ValueLoss()),
        counterexample=(replace(_PLAIN, advantage=GAE(lam=1.0)), ValueLoss()),
        biased="on-policy",
        source="arXiv:1506.02438, section 3",
    ),
    Rule(
        "objective",
        "note",
        "What it climbs is not the expected reward.",
        "Its expected gradient is that of something else, which may be wanted.",
        _objective,
        example=(replace(_PLAIN, advantage=Accepted(threshold=0.5)),),
        counterexample=(replace(_PLAIN, advantage=Relative(baseline="none")),),
        biased="on-policy",
    ),
    Rule(
        "regularizer",
        "note",
        "A KL penalty or an entropy bonus moves the optimum.",
        "It is there to do so; of the reward alone the gradient is biased.",
        _regularizer,
        example=(_PLAIN, _KL),
        counterexample=(_PLAIN, replace(_KL, advantage=StayClose("k1"))),
        biased="on-policy",
        source="arXiv:2205.11275; http://joschu.net/blog/kl-approx.html",
    ),
    Rule(
        "ratio-missing",
        "note",
        "No ratio corrects for answers of an earlier policy.",
        "It is unbiased for one step on each batch.",
        _ratio_missing,
        example=(replace(_WHOLE, denominator=Current()),),
        counterexample=(_WHOLE,),
        biased="stale",
        source="arXiv:cs/0204043, section 2",
    ),
    Rule(
        "ratio-by-token",
        "note",
        "The ratio is not that of the whole answer.",
        "How likely a prefix has become is part of how likely its continuation is.",
        _ratio_by_token,
        example=(replace(_WHOLE, likelihood=Token()),),
        counterexample=(_WHOLE,),
        biased="stale",
        source="arXiv:cs/0204043, section 2",
    ),
    Rule(
        "bounded",
        "note",
        "Ratios far from 1 are bounded: some bias for much less variance.",
        "Weights without bounds have a variance without bounds.",
        _bounded,
        example=(replace(_WHOLE, mask=Cap(high=1.1)),),
        counterexample=(replace(_WHOLE, mask=Cap(high=math.inf)),),
        biased="stale",
        source="arXiv:1707.06347, section 3",
    ),
    Rule(
        "engine-gap",
        "note",
        "Learner and engine are taken to compute the same probabilities.",
        "Other kernels, precisions and quantizations make π_rollout another policy than π_old.",
        _engine_gap,
        example=(replace(_PLAIN, denominator=Old()),),
        counterexample=(replace(_PLAIN, mask=Corrected(high=math.inf, of=Everywhere()), denominator=Old()),),
        biased="engine",
        source="https://fengyao.notion.site/off-policy-rl",
    ),
)
"""Every rule, errors first."""


# --- what it comes to ----------------------------------------------------------------------------------------------------------

Verdict = Literal["unbiased", "biased", "not judged"]


@dataclass(frozen=True)
class Meaning:
    """Whether a method's expected gradient is a multiple of ∇E[R], for answers of up to any length and any rewards."""

    on_policy: Verdict
    """Of answers that the current policy wrote."""
    stale: Verdict
    """Of answers that an earlier policy wrote, whose probabilities are known."""
    because: tuple[str, ...] = ()
    """The rules that say so, or why it is no estimate of that gradient."""

    def __str__(self) -> str:
        why = f" ({', '.join(self.because)})" if self.because else ""
        return f"for ∇E[R], {self.on_policy} on-policy and {self.stale} from stale answers{why}"


def meaning(method: Method) -> Meaning:
    """What the findings on `method` come to."""
    others = sorted(origin.value for origin in method.origins - {Origin.POLICY})
    if others:
        return Meaning("not judged", "not judged", (f"it learns from {' and '.join(others)} answers",))
    if "reward" not in method.needs:
        return Meaning("not judged", "not judged", ("it reads no reward",))
    claimed = {rule.id: rule.biased for rule in RULES if rule.biased in ("on-policy", "stale")}
    found = [finding.rule for finding in check(method) if finding.rule in claimed]
    fresh = any(claimed[rule] == "on-policy" for rule in found)
    terms = [term for term in method.active if not isinstance(term, ValueLoss)]
    on_policy = "biased" if fresh else "unbiased" if all(map(_exact, terms)) else "not judged"
    stale = "biased" if found else "unbiased" if all(map(_exact_from_stale, terms)) else "not judged"
    return Meaning(on_policy, stale, tuple(dict.fromkeys(found)))


def _exact(term: AnyTerm) -> bool:
    """Whether a term is known to be a multiple of ∇E[R], or 0, in expectation over the current policy's answers."""
    if not isinstance(term, Term) or isinstance(term.mask, ByOrigin) or isinstance(term.denominator, ByOrigin):
        return False
    kl = _pull(term)
    if kl is not None and kl is term.advantage and kl.to == "old":
        return True  # at π_old it is 0
    known = isinstance(term.denominator, _SAMPLERS) and _even(term.mask) and isinstance(term.likelihood, Token | Sequence)
    fixed = isinstance(term.reduce, Constant | SumPerGroup)
    return known and (fixed or (isinstance(term.reduce, _BY_LENGTH) and isinstance(term.likelihood, Sequence))) and _fair(term)


def _fair(term: Term) -> bool:
    """Whether an advantage is the reward but for what does not depend on the answer."""
    advantage = term.advantage
    if isinstance(advantage, Relative):
        return advantage.scale == "none" and advantage.baseline != "length_weighted"
    if isinstance(advantage, GAE):
        return (advantage.gamma, advantage.lam) == (1, 1)
    if isinstance(advantage, ReturnToGo):
        return advantage.kl == 0
    return _constant(advantage) or isinstance(advantage, OverGreedy)


def _exact_from_stale(term: AnyTerm) -> bool:
    """The same of an earlier policy's answers, the engine having computed as the learner does."""
    if not _exact(term) or not isinstance(term, Term) or _pull(term):
        return False
    whole = isinstance(term.likelihood, Sequence) and isinstance(term.denominator, Old | Rollout | GeometricMean)
    return whole and _unbounded(term.mask) and not isinstance(term.mask, Corrected)


# --- what a run must give ----------------------------------------------------------------------------------------------------

Given = Literal["reference", "critic", "teacher", "process", "greedy", "groups", "demonstrations", "rated", "pairs", "mismatched"]

_GIVE: dict[str, tuple[Given, str, str]] = {
    "logp_ref": ("reference", "a reference policy", "name one in reference.model"),
    "values": ("critic", "a critic", "train one with ValueLoss()"),
    "logp_teacher": ("teacher", "a teacher's log-probabilities", "choose a method without a teacher"),
    "logp_process": ("process", "a process reward model", "choose a method without one"),
    "reward_greedy": ("greedy", "the policy's greedy answer to each prompt, judged", "choose another baseline"),
}
"""By the field of a batch: what has to be given, in words, and the way out."""
_GIVE_ORIGIN: dict[Origin, tuple[Given, str, str]] = {
    Origin.DEMONSTRATION: ("demonstrations", "worked answers", "set task.answer_column or task.demonstration_column"),
    Origin.RATED: ("rated", "answers with rewards", "set task.chosen_column, or task.completion_column and task.label_column"),
    Origin.MISMATCHED: ("mismatched", "other prompts' answers", "take two prompts or more in each step"),
}


def missing(method: Method, given: Collection[Given], steps_per_batch: int = 1) -> tuple[Finding, ...]:
    """What `method` needs that a run does not give it, and whether it takes more steps on a batch than it corrects for."""
    found = []
    for term in method.active:
        for what, words, way in _needed(term):
            if what not in given:
                drop = f", or set {term.name}.coefficient=0 to drop the term" if term is not method.terms[0] else ""
                found.append(Finding("missing", "error", term.name, f"it needs {words}, and the run gives none: {way}{drop}"))
        if steps_per_batch > 1 and _ratio_missing(term, method.active):
            words = f"{steps_per_batch} steps on each batch, and {signature(Current())} corrects for the first alone"
            found.append(Finding("ratio-missing", "warning", term.name, f"{words}: take one step, or denominator=Old()"))
    return tuple(found)


def _needed(term: AnyTerm) -> Iterator[tuple[Given, str, str]]:
    parts = list(term.parts.values())
    fields = frozenset[str]().union(*(part.needs for part in parts)) | ({"values"} if isinstance(term, ValueLoss) else set())
    yield from (_GIVE[name] for name in sorted(fields & set(_GIVE)))
    inner = [part for line in parts for part in _inner(line)]
    origins = {*term.on, *(origin for part in inner for origin in getattr(part, "reads", ()))}
    yield from (_GIVE_ORIGIN[origin] for origin in Origin if origin in origins and origin in _GIVE_ORIGIN)
    if any(isinstance(part, Preferred) for part in inner):
        yield "pairs", "answers to one prompt with different rewards", "give each prompt a better and a worse one"
    compares = any("prompt_id" in getattr(part, "needs", ()) and not hasattr(part, "of") for part in _inner(parts[0]))
    if isinstance(term, Term) and term.on == (Origin.POLICY,):
        compares = any("prompt_id" in getattr(part, "needs", ()) and not hasattr(part, "of") for part in _inner(term.advantage))
        if compares:
            yield "groups", "two answers or more to each prompt", "set group_size=2 or more"
