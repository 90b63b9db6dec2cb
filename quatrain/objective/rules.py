"""The rules of composition: a predicate each, with what it says of a term, where it holds, and where it does not.

Where a rule knows nothing of a part, such as one of your own, it is silent.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal

from quatrain.objective.advantages import (
    GAE,
    AboveValue,
    Accepted,
    BetaNormalized,
    ByEntropy,
    ByReward,
    FlowBalance,
    Intrinsic,
    LengthAdaptiveGAE,
    LengthSwitched,
    One,
    OverGreedy,
    Priced,
    Rejected,
    Relative,
    ReturnToGo,
    Signed,
    StayClose,
    StepPotential,
    TowardTeacher,
    Verified,
    Whitened,
)
from quatrain.objective.denominators import Current, GeometricMean, Old, PrefixMinimum, Reference, Rollout, Unit
from quatrain.objective.likelihoods import Perturbed, Sequence, Token
from quatrain.objective.masks import (
    Against,
    Agreeing,
    BalancedClip,
    ByOrigin,
    Cap,
    Clip,
    Corrected,
    DualClip,
    Everywhere,
    GeometricClip,
    Hazard,
    PreservingClip,
    Shaped,
    SoftGate,
    Taper,
    TotalVariation,
)
from quatrain.objective.part import SCOPES, Scope, brief, signature
from quatrain.objective.preferences import Desirable, Preferred
from quatrain.objective.reductions import (
    AmongAccepted,
    Budget,
    Constant,
    PerCreditedToken,
    PerGroup,
    PerSequence,
    PerToken,
    PerTurn,
    SumPerGroup,
    Undiluted,
)
from quatrain.objective.terms import AnyTerm, EntropyBonus, PartitionLoss, Term, ValueLoss
from quatrain.types import Origin

Severity = Literal["error", "warning", "note"]
Terms = tuple[AnyTerm, ...]


@dataclass(frozen=True)
class Rule:
    """One thing that a composition can mean; its docstring is that of `says`: a line, why, and the source."""

    says: Callable[[AnyTerm, Terms], str | None]
    """Its words for a term among all terms, None where it does not hold."""
    severity: Severity
    example: Terms
    """Where it holds."""
    counterexample: Terms
    """Where it does not, although it is near."""
    biased: Literal["on-policy", "stale", "engine"] | None = None
    """Over whose answers the expected gradient is no multiple of ∇E[R] then: the current policy's, an earlier one's, or an
    engine's that computes otherwise; None where it claims no bias."""

    @property
    def id(self) -> str:
        return self.says.__name__.strip("_").replace("_", "-")

    @property
    def about(self) -> tuple[str, str, str]:
        """What it says in a line, why, and the source, which may be empty."""
        said, why, *source = (inspect.getdoc(self.says) or "").split("\n\n")
        return said, why, "".join(source).removeprefix("Source: ").removesuffix(".")


def inner(part: Any) -> Iterator[Any]:
    """A part and all that it is made of."""
    yield part
    for item in fields(part) if is_dataclass(part) else ():
        value = getattr(part, item.name)
        if is_dataclass(value):
            yield from inner(value)


def _has(part: Any, *kinds: type) -> Any:
    """The first of `kinds` that a part is or is made of, or None."""
    return next((found for found in inner(part) if isinstance(found, kinds)), None)


def _alone(term: AnyTerm) -> Iterator[tuple[Origin, Term]]:
    """A term by whose trajectories it is about, each with the parts that hold there."""
    if not isinstance(term, Term):
        return
    for origin in term.on:
        branch = "demonstration" if origin is Origin.DEMONSTRATION else "policy"
        parts = {line: getattr(part, branch) for line, part in term.parts.items() if isinstance(part, ByOrigin)}
        if isinstance(term.likelihood, Perturbed):
            parts["likelihood"] = term.likelihood.of
        yield origin, replace(term, **parts)


def _own(term: AnyTerm) -> Term | None:
    """A term as it is about the policy's own answers, if it is and learns from them: a KL penalty does not."""
    own = next((alone for origin, alone in _alone(term) if origin is Origin.POLICY), None)
    return None if own is None or pull(own) else own


def pull(term: Term) -> StayClose | None:
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
_TELLING = {"advantage": "live", "likelihood": "actions"}
"""What parts of these lines say, and of no other."""


def _wrong_line(term: AnyTerm, _: Terms) -> str | None:
    """A part stands in a line that it is not made for.

    Each line calls its part in its own way.
    """
    parts = [nested for line, part in term.parts.items() for nested in _nested(line, line, part)]
    unfit = next(filter(None, (_unfit(*part) for part in parts)), None)
    if unfit is None and isinstance(term, PartitionLoss) and not isinstance(term.advantage, FlowBalance):
        return f"advantage={signature(term.advantage)} has no log Z to learn: write advantage=FlowBalance()"
    return unfit


def _nested(line: str, at: str, part: Any) -> Iterator[tuple[str, str, Any]]:
    """The line and dotted name of a part, after those inside of it: a line of their own, or what stands in for it."""
    for name in ("of", "policy", "demonstration", *_CALLED_WITH) if is_dataclass(part) and not isinstance(part, type) else ():
        if hasattr(part, name):
            yield from _nested(name if name in _CALLED_WITH else line, f"{at}.{name}", getattr(part, name))
    yield line, at, part


def _unfit(line: str, at: str, part: Any) -> str | None:
    if isinstance(part, type):
        return f"{at} is the class {part.__name__}, not a part of it: write {part.__name__}()"
    other = next((home for home, told in _TELLING.items() if home != line and hasattr(part, told)), None)
    if other is not None and line not in _TELLING:
        return f"{at}={signature(part)} is no {line}: write {other}={signature(part)}"
    lacking = [name for name in ("needs", "scope", _TELLING.get(line, "scope")) if not hasattr(part, name)]
    if lacking or not callable(part):
        return f"{at}={signature(part)} is no {line}: it does not say {' and '.join(lacking) or 'what it computes'}"
    try:
        inspect.signature(part).bind(*_CALLED_WITH[line])
    except TypeError:
        return f"{at}={signature(part)} is no {line}: it cannot be called with {', '.join(_CALLED_WITH[line])}"
    return None


def _too_early(term: AnyTerm, _: Terms) -> str | None:
    """What is computed once for a minibatch reads log π_θ.

    It is computed before the first forward pass of an update.
    """
    advantage = getattr(term, "advantage", None)
    live = next((part for part in inner(advantage) if getattr(part, "live", False)), None)
    counting = _has(term.reduce, PerCreditedToken, Undiluted)
    if counting is not None and isinstance(term, EntropyBonus):
        return f"{brief(counting)} counts what has an advantage, and an entropy bonus has none: take reduce=PerToken()"
    if counting is not None and isinstance(term, Term | PartitionLoss) and term.advantage.live:
        return (
            f"{brief(counting)} counts what has an advantage before the first forward pass, and {brief(live)} reads "
            "log π_θ: take reduce=PerSequence()"
        )
    if live is not None and (isinstance(term, ValueLoss) or not getattr(advantage, "live", False)):
        whole = "a return" if isinstance(term, ValueLoss) else brief(advantage)
        return f"{whole} is computed before the first forward pass, and {brief(live)} reads log π_θ: take another advantage"
    return None


def _noises(term: AnyTerm, terms: Terms) -> str | None:
    """Two terms ask for different noise.

    A forward pass has one, for whatever is read of it.
    """
    first = next((other for other in terms if isinstance(other.likelihood, Perturbed)), term)
    if not isinstance(term.likelihood, Perturbed) or replace(first.likelihood, of=term.likelihood.of) == term.likelihood:
        return None
    return f"its noise is {brief(term.likelihood)}, and that of {first.name} is {brief(first.likelihood)}: set the same numbers"


def _nobody(term: AnyTerm, _: Terms) -> str | None:
    """A term is about trajectories that nothing is learned from.

    Greedy and mismatched answers, and those that only vote, never enter a loss.
    """
    never = [origin.value for origin in term.on if origin in (Origin.GREEDY, Origin.MISMATCHED, Origin.VOTER)]
    if never:
        return f"{never[0]} answers are there to be compared with and never trained on: leave them out of on=(…)"
    return None if term.on else "it is about nobody's trajectories: write on=(Origin.POLICY,)"


# --- what is doubtful --------------------------------------------------------------------------------------------------------

_AROUND_ONE = (Clip, DualClip, PreservingClip, SoftGate, Hazard, BalancedClip, GeometricClip)
"""Masks that bound a ratio around 1."""
_OF_THE_RATIO = (*_AROUND_ONE, Cap, Taper, Shaped)
"""Masks of nothing but their term's ratio and the advantage."""
_COMPARISONS = (Preferred, Desirable, Verified)


_START = (Old, GeometricMean, PrefixMinimum)
"""Denominators of the policy at the start of the update."""


def _weighing(mask: Any) -> Any:
    """A mask without what it has of another ratio than its term's."""
    return mask.of if isinstance(mask, Against) else mask


def _ratio_twice(term: AnyTerm, _: Terms) -> str | None:
    """An importance ratio is counted twice.

    π_θ/π_rollout = π_θ/π_old · π_old/π_rollout: the second factor is what Corrected brings.

    Source: arXiv:2110.00641, eq. 2.
    """
    for _origin, alone in _alone(term):
        if isinstance(alone.denominator, Rollout) and _has(alone.mask, Corrected):
            return (
                "Corrected multiplies by π_old/π_rollout, and Rollout measures against π_rollout already, so the gap between "
                "learner and engine counts twice: take denominator=Old(), or the mask inside of Corrected"
            )
    return None


def _other_ratio(term: AnyTerm, _: Terms) -> str | None:
    """A mask's ratio is not its denominator's.

    What bounds the step and what weighs the sample are of two policies.
    """
    for _origin, alone in _alone(term):
        against = brief(alone.denominator)
        around = _has(_weighing(alone.mask), *_AROUND_ONE)
        if around is not None and isinstance(alone.denominator, Unit):
            return f"{brief(around)} bounds a ratio around 1, and with {against} it is a probability: take Shaped() or Old()"
        if _has(alone.mask, TotalVariation) and not isinstance(alone.denominator, Rollout | Current):
            return f"TotalVariation bounds the distance from π_rollout, and {against} weighs by another one: take Rollout()"
        if _has(alone.mask, Corrected):
            if isinstance(alone.denominator, Unit | Reference):
                return f"Corrected is for a ratio to π_old, and {against} measures against something else: take Old()"
            whole = isinstance(alone.likelihood, Sequence) and isinstance(alone.denominator, Old | GeometricMean)
            if whole and _has(alone.mask, Corrected).over == "token":
                return (
                    f"Corrected is the engine's ratio of each token, and {against} has that of the whole answer: take Rollout()"
                )
    return None


def _idle(term: AnyTerm, _: Terms) -> str | None:
    """A part does nothing here.

    What it acts on cannot occur in this term, so its numbers are without effect.
    """
    for line, part in term.parts.items():
        if isinstance(part, ByOrigin) and Origin.DEMONSTRATION not in term.on:
            return f"{line}.demonstration does nothing, as the term is not about demonstrations: take {brief(part.policy)}"
        if isinstance(part, ByOrigin) and set(term.on) == {Origin.DEMONSTRATION}:
            return f"{line}.policy does nothing, as the term is about demonstrations only: take {brief(part.demonstration)}"
    for _origin, alone in _alone(term):
        mask = _has(_weighing(alone.mask), *_OF_THE_RATIO)
        if mask is not None and isinstance(alone.denominator, Current) and even(mask):
            return f"{brief(mask)} is the same everywhere, as the ratio to Current is 1: take Old(), or leave it out"
        if isinstance(alone.denominator, GeometricMean) and isinstance(alone.likelihood, Sequence):
            return "GeometricMean is a mean over tokens that Sequence sums up again, which is Old(): take likelihood=Token()"
    return None


def _answers_by_token(term: AnyTerm, _: Terms) -> str | None:
    """A loss of whole answers is divided by their tokens.

    Its slope belongs to the answer, however long that is.
    """
    for _origin, alone in _alone(term):
        whole = _has(alone.advantage, *_COMPARISONS)
        if whole is not None and isinstance(alone.likelihood, Token) and isinstance(alone.reduce, (*BY_LENGTH, PerTurn)):
            return (
                f"{type(whole).__name__} is about whole answers, and {brief(alone.reduce)} divides by how many tokens they "
                "have: take likelihood=Sequence()"
            )
    return None


def _foreign_ratio(term: AnyTerm, _: Terms) -> str | None:
    """A ratio is measured against a policy that did not act.

    An importance ratio is one to whoever drew the sample.
    """
    for origin, alone in _alone(term):
        against = brief(alone.denominator)
        start = isinstance(alone.denominator, _START)
        if origin in (Origin.DEMONSTRATION, Origin.RATED) and (start or isinstance(alone.denominator, Rollout)):
            known = "the policy at the start of the update did not write" if start else "no engine gave probabilities for"
            return (
                f"{against} measures against a policy, and {known} {origin.value} answers: take Current(), Unit() or Reference()"
            )
        if origin in (Origin.REPLAY, Origin.TEACHER) and start and not _has(alone.mask, Corrected):
            return (
                f"{against} is not the policy that wrote {origin.value} answers: take denominator=Rollout(), or mask=Corrected()"
            )
    return None


def _critic(term: AnyTerm, terms: Terms) -> str | None:
    """A critic is read and not trained, or trained and not read.

    A critic that stays as it began is a random baseline.
    """
    trained = any(isinstance(other, ValueLoss) for other in terms)
    reading = [other for other in terms if isinstance(other, Term) and any("values" in p.needs for p in other.parts.values())]
    if term in reading and not trained:
        return "it reads a critic that no term trains: add ValueLoss()"
    if isinstance(term, ValueLoss) and not reading and any(isinstance(other, Term) for other in terms):
        return "it trains a critic that no other term reads: take advantage=GAE() there, or leave this term out"
    return None


def _partition(term: AnyTerm, terms: Terms) -> str | None:
    """A log Z is read and not trained, trained and not read, or trained to balance something else.

    A squared residual has two halves, the slope by log π_θ and the one by log Z.

    Source: arXiv:2509.15207, eq. 6.
    """
    reading = [other for other in terms if isinstance(other, Term) and any("log_z" in p.needs for p in other.parts.values())]
    trained = [other for other in terms if isinstance(other, PartitionLoss)]
    if term in reading and not trained:
        return "it reads a log Z that no term trains: add PartitionLoss()"
    if isinstance(term, PartitionLoss) and not reading and any(isinstance(other, Term) for other in terms):
        return "it trains a log Z that no other term reads: take advantage=FlowBalance() there, or leave this term out"
    for other in reading if isinstance(term, PartitionLoss) else ():
        line = next((line for line, part in term.parts.items() if part != other.parts[line]), None)
        if line is not None:
            ours, theirs = brief(term.parts[line]), brief(other.parts[line])
            return f"its {line} is {ours}, and that of {other.name} is {theirs}: log Z then learns what nobody reads"
    return None


def _same_for_all(term: AnyTerm, _: Terms) -> str | None:
    """All of the policy's own answers have the same advantage.

    E[∇log π] = 0: what is left is noise, and what the lengths make of it.

    Source: http://joschu.net/blog/kl-approx.html.
    """
    own = _own(term)
    if own is None or not constant(own.advantage) or not even(own.mask) or not isinstance(own.denominator, SAMPLERS):
        return None
    if _has(own.advantage, StayClose):
        return 'k1 has the same slope for every action, so as a loss it pulls to nobody: take StayClose("k2"), or ReturnToGo()'
    return f"{brief(own.advantage)} makes the policy imitate its own answers, good and bad: take Accepted() or Relative()"


def _split(term: AnyTerm, terms: Terms) -> str | None:
    """A statistic changes with the split into micro-batches.

    What is evaluated at each forward pass sees only the rows of that pass, as many as the scopes of parts say.
    """
    together = max(("sequence", *(p.scope for t in terms for p in t.live_parts)), key=SCOPES.index)
    for part in term.live_parts:
        for statistic in inner(part):
            if hasattr(statistic, "scope") and SCOPES.index(_reach(statistic)) > SCOPES.index(together):
                return (
                    f"{brief(statistic)} is of a whole {_reach(statistic)}, and {type(part).__name__} computes it anew in "
                    f"each micro-batch, where each {together} is whole and no more: put it outside"
                )
    return None


def _reach(part: Any) -> Scope:
    wide = isinstance(part, Relative) and ("batch" in (part.baseline, part.scale) or part.scale == "task")
    return "batch" if wide else part.scope


# --- what it means -----------------------------------------------------------------------------------------------------------

BY_LENGTH = (PerSequence, PerToken, PerGroup)
"""Reductions that divide by numbers of actions."""
_VANISHING = (Relative, BetaNormalized, Accepted, Rejected, OverGreedy, AboveValue)
"""Advantages that are exactly 0 for some answers, and not for others."""
SAMPLERS = (Current, Rollout, *_START)
"""Denominators whose ratio is 1 where the current policy acted."""


def _minibatch(term: AnyTerm, _: Terms) -> str | None:
    """A statistic is of the minibatch.

    The same answers weigh otherwise in a minibatch of another size.
    """
    for _origin, alone in _alone(term):
        statistics = [p for line in (alone.mask, alone.advantage) for p in inner(line) if hasattr(p, "scope")]
        wide = next((p for p in statistics if _reach(p) == "batch"), None) or _has(
            alone.reduce, AmongAccepted, Budget, PerCreditedToken, Undiluted
        )
        if wide is None and isinstance(alone.reduce, PerToken) and isinstance(alone.likelihood, Token):
            wide = alone.reduce
        if wide is not None:
            return f"{brief(wide)} is of the whole minibatch: update.minibatches changes it, update.tokens_per_pass does not"
    return None


def _normalizer(term: AnyTerm, _: Terms) -> str | None:
    """What is divided by depends on the answers.

    An unbiased estimate adds up ∇log π over an answer's tokens and divides by what no answer decides.

    Source: arXiv:2503.20783, section 3.1.
    """
    own = _own(term)
    if own is None:
        return None
    if _has(own.reduce, PerCreditedToken, Undiluted):
        if not isinstance(own.advantage, _VANISHING):
            return None
        return f"{brief(own.reduce)} counts what has an advantage, so how the others fare decides how much an answer weighs"
    if isinstance(own.reduce, PerTurn):
        return "PerTurn divides by each turn's length and each answer's number of turns: the longer, the less each token weighs"
    if not isinstance(own.likelihood, Token):
        return None
    if isinstance(own.reduce, PerSequence):
        return "PerSequence divides by each answer's length: short right answers gain more, long wrong ones lose less"
    if isinstance(own.reduce, PerToken | PerGroup):
        whose = "minibatch" if isinstance(own.reduce, PerToken) else "group"
        return f"{brief(own.reduce)} divides by the tokens of the {whose}: the longer the answers, the less each token weighs"
    return None


def _own_statistics(term: AnyTerm, _: Terms) -> str | None:
    """A scale or a weighted baseline holds the answer's own reward.

    A baseline must not depend on the answer; a plain mean does, but only shrinks the gradient, by (G − 1)/G.

    Source: arXiv:2503.20783, section 3.1; arXiv:2402.14740, section 3.2.
    """
    own = _own(term)
    for part in () if own is None else inner(own.advantage):
        if isinstance(part, Whitened | BetaNormalized):
            return f"{type(part).__name__} divides by a statistic of what it scales, the answer's own part in it included"
        if isinstance(part, Relative) and part.scale != "none":
            of = "the group's mean" if part.scale == "group_mean" else f"the deviation of the {part.scale}"
            return f"scale={part.scale} divides by {of}, which holds the answer's own reward and weighs prompts by difficulty"
        if isinstance(part, Relative) and part.baseline == "length_weighted":
            return "baseline=length_weighted holds the answer's own reward, more of it for a longer answer"
    return None


def _critic_bias(term: AnyTerm, _: Terms) -> str | None:
    """The return is cut short by a critic, or discounted.

    With γ = λ = 1 the critic is a baseline, and its errors cost variance alone.

    Source: arXiv:1506.02438, section 3.
    """
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
    """What it climbs is not the expected reward.

    Its expected gradient is that of something else, which may be wanted.
    """
    own = _own(term)
    if own is None:
        return None
    threshold = _has(own.advantage, Accepted, Rejected, Signed)
    if threshold is not None:
        return f"{brief(threshold)} climbs the share of rewards of {threshold.threshold:g} or more: E[R] if they are 0 and 1"
    flow = _has(own.advantage, FlowBalance)
    if flow is not None:
        return f"{brief(flow)} comes to rest near π_ref·exp({flow.beta:g}·r̂)/Z, not at the most reward"
    if _has(own.reduce, AmongAccepted):
        return "AmongAccepted leaves out the answers that fall short: what is climbed is something else"
    other = _has(
        own.advantage,
        *(*_COMPARISONS, AboveValue, ByEntropy, ByReward, Intrinsic, LengthSwitched, StepPotential, TowardTeacher),
    )
    if other is not None and not (isinstance(other, ByReward) and isinstance(other.of, One)):
        return f"{type(other).__name__} is other than the reward and a baseline: what is climbed is something else"
    if isinstance(own.denominator, Unit | Reference) and not _pinned(own.mask):
        return f"{brief(own.denominator)} weighs answers that π_θ drew as if another policy had drawn them"
    return None


def _regularizer(term: AnyTerm, _: Terms) -> str | None:
    """A KL penalty or an entropy bonus moves the optimum.

    It is there to do so; of the reward alone the gradient is biased.

    Source: arXiv:2205.11275; http://joschu.net/blog/kl-approx.html.
    """
    if isinstance(term, EntropyBonus):
        side = "un" if term.coefficient > 0 else ""
        return f"the best policy of the sum is not the best of the reward, but a more {side}decided one"
    own = next((alone for origin, alone in _alone(term) if origin is Origin.POLICY), None)
    if own is None:
        return None
    kl, folded = pull(own), _has(own.advantage, ReturnToGo)
    if kl is not None and kl.to == "ref":
        descends = {
            "k2": "the KL from π_θ",
            "k3": "the forward KL, from π_ref",
            "forward": "another divergence",
            "weighted": "the squared log-ratio under π_ref",
            "variance": "another divergence",
        }
        return f"it descends {descends.get(kl.estimator, 'the size of the log-ratio')}: the optimum lies nearer to the reference"
    if folded is not None and folded.kl > 0:
        penalty = {"k1": "KL(π_θ‖π_ref)", "k2": "(E[d²/2] − KL(π_θ‖π_ref))", "k3": "(KL(π_θ‖π_ref) − KL(π_ref‖π_θ))"}
        what = penalty[folded.estimator]
        return f"kl={folded.kl:g} is inside of the reward: the gradient is that of E[R] − {folded.kl:g}·{what}"
    return None


def ratio_missing(term: AnyTerm, _: Terms) -> str | None:
    """No ratio corrects for answers of an earlier policy.

    It is unbiased for one step on each batch.

    Source: arXiv:cs/0204043, section 2.
    """
    own = _own(term)
    if own is None or not isinstance(own.denominator, Current):
        return None
    return "Current corrects for nothing: from the second step on a batch, the answers are an earlier policy's"


def _ratio_by_token(term: AnyTerm, _: Terms) -> str | None:
    """The ratio is not that of the whole answer.

    How likely a prefix has become is part of how likely its continuation is.

    Source: arXiv:cs/0204043, section 2.
    """
    own = _own(term)
    if own is None or not isinstance(own.likelihood, Token) or constant(own.advantage):
        return None
    if isinstance(own.denominator, GeometricMean):
        return "GeometricMean is the ratio's |y|-th root, which is no importance ratio: of low variance, and biased"
    if isinstance(own.denominator, PrefixMinimum):
        return "PrefixMinimum has the least ratio of the prefix in the place of the product of all: of low variance, and biased"
    if isinstance(own.denominator, Old | Rollout):
        return f"{brief(own.denominator)} corrects each token alone, and not how likely its prefix is now: right to first order"
    return None


def _bounded(term: AnyTerm, _: Terms) -> str | None:
    """Ratios far from 1 are bounded: some bias for much less variance.

    Weights without bounds have a variance without bounds.

    Source: arXiv:1707.06347, section 3.
    """
    own = _own(term)
    if own is None or not isinstance(own.denominator, (*_START, Rollout)) or unbounded(own.mask):
        return None
    known = _has(own.mask, *_OF_THE_RATIO, TotalVariation)
    return None if known is None else f"{brief(known)} gives up some of the gradient where the ratio is far from 1"


def _engine_gap(term: AnyTerm, _: Terms) -> str | None:
    """Learner and engine are taken to compute the same probabilities.

    Other kernels, precisions and quantizations make π_rollout another policy than π_old.

    Source: https://fengyao.notion.site/off-policy-rl.
    """
    own = _own(term)
    if own is None:
        return None
    agreeing = _has(own.mask, Agreeing)
    if agreeing is not None and (agreeing.low, agreeing.high) != (0, math.inf):
        return "Agreeing leaves out what the engine thinks otherwise of: some bias for much less variance"
    if not isinstance(own.denominator, _START) or _has(own.mask, Corrected, TotalVariation):
        return None
    return f"{brief(own.denominator)} takes the engine's probabilities for the learner's: mask=Corrected() makes up for the gap"


# --- masks and terms whose part in the bias is known ---------------------------------------------------------------------------


def even(mask: Any) -> bool:
    """Whether a mask is known to be the same for all actions where the ratio is 1."""
    if isinstance(mask, Corrected):
        return even(mask.of)
    if isinstance(mask, Against):
        return even(mask.of) and even(mask.mask)
    if isinstance(mask, Agreeing):
        return mask.low <= 1 <= mask.high and even(mask.of)
    if isinstance(mask, Taper):
        return mask.positive_low <= 1 <= mask.positive_high and mask.negative_low <= 1 <= mask.negative_high
    if isinstance(mask, DualClip):
        return mask.bound >= 1
    if isinstance(mask, BalancedClip):
        return mask.low_last <= 1 <= mask.high and mask.bound >= 1
    return isinstance(
        mask, Everywhere | Clip | PreservingClip | Cap | SoftGate | Hazard | GeometricClip | Shaped | TotalVariation
    )


def unbounded(mask: Any) -> bool:
    """Whether a mask lets every ratio π_θ/π_ref pass whole."""
    if isinstance(mask, Clip | DualClip | PreservingClip):
        return mask.low >= 1 and mask.high == math.inf and getattr(mask, "bound", math.inf) == math.inf
    if isinstance(mask, Cap):
        return (mask.low, mask.high) == (0, math.inf)
    if isinstance(mask, Taper):
        return (mask.positive_low, mask.positive_high, mask.negative_low, mask.negative_high) == (0, math.inf) * 2
    if isinstance(mask, TotalVariation):
        return mask.bound >= 1 and mask.cap == math.inf
    if isinstance(mask, Against):
        return unbounded(mask.of) and unbounded(mask.mask)
    if isinstance(mask, Corrected | Agreeing):
        return unbounded(mask.of)
    return isinstance(mask, Everywhere)


def _pinned(mask: Any) -> bool:
    """Whether a mask replaces the ratio by a number, at least that of good actions or that of bad ones."""
    if isinstance(mask, Taper):
        return mask.positive_low == mask.positive_high or mask.negative_low == mask.negative_high
    return isinstance(mask, Cap) and mask.low == mask.high


def constant(advantage: Any) -> bool:
    """Whether an advantage is the same for all answers."""
    if isinstance(advantage, Priced):
        return constant(advantage.of)
    return isinstance(advantage, One) or (isinstance(advantage, StayClose) and advantage.estimator == "k1")


# --- the rules -----------------------------------------------------------------------------------------------------------------

_PLAIN = Term(denominator=Current(), advantage=Relative(baseline="leave_one_out"), reduce=Constant())
_WHOLE = replace(_PLAIN, denominator=Old(), likelihood=Sequence())
_SHOWN = replace(_PLAIN, advantage=One(), on=(Origin.DEMONSTRATION,))
_PAIRS = replace(_PLAIN, advantage=Preferred(), likelihood=Sequence(), reduce=SumPerGroup(), on=(Origin.RATED,))
_KL = Term(name="kl", coefficient=0.1, denominator=Current(), advantage=StayClose("k2"), reduce=Constant())
_NOISY = replace(_PLAIN, denominator=Rollout(), likelihood=Perturbed())
_CRITIC = ValueLoss()
_ENGINE = Corrected(high=math.inf, of=Everywhere())
_FLOW = replace(_PLAIN, denominator=Old(), advantage=FlowBalance(), likelihood=Sequence(), reduce=PerSequence())


def _with(term: Term, *others: AnyTerm, **lines: Any) -> Terms:
    return (replace(term, **lines), *others)


RULES: tuple[Rule, ...] = (
    Rule(_wrong_line, "error", _with(_PLAIN, advantage=Clip()), _with(_PLAIN, mask=Clip(), denominator=Old())),
    Rule(_too_early, "error", _with(_PAIRS, reduce=PerCreditedToken()), _with(_SHOWN, reduce=PerCreditedToken())),
    Rule(_noises, "error", (_NOISY, replace(_NOISY, name="more", likelihood=Perturbed(sigma=1e-3))), (_NOISY, _KL)),
    Rule(_nobody, "error", _with(_PLAIN, on=(Origin.GREEDY,)), _with(_PLAIN, advantage=OverGreedy())),
    Rule(
        _ratio_twice,
        "warning",
        _with(_PLAIN, mask=_ENGINE, denominator=Rollout()),
        _with(_PLAIN, mask=_ENGINE, denominator=Old()),
        biased="engine",
    ),
    Rule(
        _other_ratio,
        "warning",
        _with(_PLAIN, mask=TotalVariation(), denominator=Old()),
        _with(_PLAIN, mask=TotalVariation(), denominator=Rollout()),
    ),
    Rule(_idle, "warning", _with(_PLAIN, mask=Clip()), _with(_PLAIN, mask=Clip(), denominator=Old())),
    Rule(_answers_by_token, "warning", _with(_PAIRS, likelihood=Token(), reduce=PerSequence()), _with(_PAIRS)),
    Rule(_foreign_ratio, "warning", _with(_SHOWN, denominator=Old()), _with(_SHOWN)),
    Rule(_critic, "warning", _with(_PLAIN, advantage=GAE(lam=1.0)), _with(_PLAIN, _CRITIC, advantage=GAE(lam=1.0))),
    Rule(
        _partition,
        "warning",
        _with(_FLOW, PartitionLoss(advantage=FlowBalance(beta=5.0))),
        _with(_FLOW, PartitionLoss()),
    ),
    Rule(_same_for_all, "warning", _with(_PLAIN, replace(_KL, advantage=StayClose("k1"))), _with(_PLAIN, _KL)),
    Rule(
        _split,
        "warning",
        _with(_PLAIN, advantage=ByEntropy(of=Relative())),
        _with(_PLAIN, advantage=ByEntropy(of=Accepted())),
    ),
    Rule(
        _minibatch,
        "note",
        _with(_PLAIN, advantage=Relative(scale="batch")),
        _with(_PLAIN, advantage=Relative(scale="group")),
    ),
    Rule(_normalizer, "note", _with(_PLAIN, reduce=PerSequence()), _with(_PLAIN), biased="on-policy"),
    Rule(
        _own_statistics,
        "note",
        _with(_PLAIN, advantage=Relative(baseline="group", scale="group")),
        _with(_PLAIN, advantage=Relative(baseline="group")),
        biased="on-policy",
    ),
    Rule(
        _critic_bias,
        "note",
        _with(_PLAIN, _CRITIC, advantage=GAE(lam=0.95)),
        _with(_PLAIN, _CRITIC, advantage=GAE(lam=1.0)),
        biased="on-policy",
    ),
    Rule(
        _objective,
        "note",
        _with(_PLAIN, advantage=Accepted(threshold=0.5)),
        _with(_PLAIN, advantage=Relative(baseline="none")),
        biased="on-policy",
    ),
    Rule(_regularizer, "note", _with(_PLAIN, _KL), _with(_PLAIN, replace(_KL, advantage=StayClose("k1"))), biased="on-policy"),
    Rule(ratio_missing, "note", _with(_WHOLE, denominator=Current()), _with(_WHOLE), biased="stale"),
    Rule(_ratio_by_token, "note", _with(_WHOLE, likelihood=Token()), _with(_WHOLE), biased="stale"),
    Rule(_bounded, "note", _with(_WHOLE, mask=Cap(high=1.1)), _with(_WHOLE, mask=Cap(high=math.inf)), biased="stale"),
    Rule(
        _engine_gap,
        "note",
        _with(_PLAIN, denominator=Old()),
        _with(_PLAIN, mask=_ENGINE, denominator=Old()),
        biased="engine",
    ),
)
"""Every rule, errors first."""
