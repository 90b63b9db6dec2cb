"""What a composition of parts means, in words: what cannot run, what is doubtful, and what is biased and why.

Each finding says what is wrong, with the values, and the way out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quatrain.objective.advantages import (
    GAE,
    OverGreedy,
    Priced,
    Relative,
    ReturnToGo,
)
from quatrain.objective.denominators import GeometricMean, Old, Rollout
from quatrain.objective.likelihoods import Sequence, Token
from quatrain.objective.masks import (
    Agreeing,
    ByOrigin,
    Corrected,
)
from quatrain.objective.preferences import Preferred
from quatrain.objective.reductions import Constant, SumPerGroup
from quatrain.objective.rules import (
    BY_LENGTH,
    RULES,
    SAMPLERS,
    Severity,
    Terms,
    constant,
    even,
    inner,
    pull,
    ratio_missing,
    unbounded,
)
from quatrain.objective.terms import AnyTerm, PartitionLoss, Term, ValueLoss
from quatrain.types import Origin

if TYPE_CHECKING:
    from quatrain.objective.method import Method


@dataclass(frozen=True)
class Finding:
    """What a rule has to say of a term."""

    rule: str
    severity: Severity
    term: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.term}: {self.message} [{self.rule}]"


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


# --- what it comes to ----------------------------------------------------------------------------------------------------------

Verdict = Literal["unbiased", "biased", "not judged"]


@dataclass(frozen=True)
class Meaning:
    """Whether a method's expected gradient is a multiple of ∇E[R], whatever the rewards, the answers and their lengths are."""

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
    terms = [term for term in method.active if not isinstance(term, ValueLoss | PartitionLoss)]
    on_policy = "biased" if fresh else "unbiased" if all(map(_exact, terms)) else "not judged"
    stale = "biased" if found else "unbiased" if all(map(_exact_from_stale, terms)) else "not judged"
    return Meaning(on_policy, stale, tuple(dict.fromkeys(found)))


def _exact(term: AnyTerm) -> bool:
    """Whether a term is known to be a multiple of ∇E[R], or 0, in expectation over the current policy's answers."""
    if not isinstance(term, Term) or isinstance(term.mask, ByOrigin) or isinstance(term.denominator, ByOrigin):
        return False
    kl = pull(term)
    if kl is not None and kl.to == "old" and (kl is term.advantage or isinstance(term.advantage, Priced)):
        return True  # at π_old it is 0
    known = isinstance(term.denominator, SAMPLERS) and even(term.mask) and isinstance(term.likelihood, Token | Sequence)
    fixed = isinstance(term.reduce, Constant | SumPerGroup)
    return known and (fixed or (isinstance(term.reduce, BY_LENGTH) and isinstance(term.likelihood, Sequence))) and _fair(term)


def _fair(term: Term) -> bool:
    """Whether an advantage is the reward but for what does not depend on the answer."""
    advantage = term.advantage
    if isinstance(advantage, Relative):
        return advantage.scale == "none" and advantage.baseline != "length_weighted"
    if isinstance(advantage, GAE):
        return (advantage.gamma, advantage.lam) == (1, 1)
    if isinstance(advantage, ReturnToGo):
        return advantage.kl == 0
    return constant(advantage) or isinstance(advantage, OverGreedy)


def _exact_from_stale(term: AnyTerm) -> bool:
    """The same of an earlier policy's answers, the engine having computed as the learner does."""
    if not _exact(term) or not isinstance(term, Term) or pull(term):
        return False
    whole = isinstance(term.likelihood, Sequence) and isinstance(term.denominator, Old | Rollout | GeometricMean)
    return whole and unbounded(term.mask) and not isinstance(term.mask, Corrected | Agreeing)


# --- what a run must give ----------------------------------------------------------------------------------------------------

Given = Literal[
    "reference", "critic", "partition", "teacher", "answers", "groups", "demonstrations", "rated", "pairs", "mismatched"
]
"""What a run may lack; all else every run has."""

_GIVE: dict[str, tuple[Given, str, str]] = {
    "logp_ref": ("reference", "a reference policy", "leave reference.model at start"),
    "values": ("critic", "a critic", "train one with ValueLoss()"),
    "log_z": ("partition", "a learned log Z of each prompt", "train one with PartitionLoss()"),
    "logp_teacher": ("teacher", "a teacher", "name a model of the same vocabulary with --teacher"),
    "potential": ("answers", "the right answer to each prompt", "set task.answer_column and labels=learn"),
}
"""By the field of a batch: what has to be given, in words, and the way out."""
_GIVE_ORIGIN: dict[Origin, tuple[Given, str, str]] = {
    Origin.DEMONSTRATION: ("demonstrations", "worked answers", "set task.answer_column or task.demonstration_column"),
    Origin.RATED: (
        "rated",
        "answers with rewards",
        "set task.chosen_column and task.rejected_column, or task.completion_column and task.label_column",
    ),
    Origin.MISMATCHED: ("mismatched", "other prompts' answers", "set prompts_per_step=2 or more"),
}


def missing(method: Method, given: Collection[Given], steps_per_batch: int = 1) -> tuple[Finding, ...]:
    """What `method` needs that a run does not give it, and whether it takes more steps on a batch than it corrects for."""
    found = []
    for term in method.active:
        for what, words, way in _needed(term):
            if what not in given:
                drop = f", or set method.{term.name}.coefficient=0 to drop the term" if term is not method.terms[0] else ""
                found.append(Finding("missing", "error", term.name, f"it needs {words}, and the run gives none: {way}{drop}"))
        if steps_per_batch > 1 and ratio_missing(term, method.active):
            words = f"{steps_per_batch} steps on each batch, and Current corrects for the first alone"
            found.append(Finding("ratio-missing", "warning", term.name, f"{words}: take one step, or denominator=Old()"))
    return tuple(found)


def _needed(term: AnyTerm) -> Iterator[tuple[Given, str, str]]:
    parts = list(term.parts.values())
    fields = frozenset[str]().union(*(part.needs for part in parts)) | ({"values"} if isinstance(term, ValueLoss) else set())
    yield from (_GIVE[name] for name in sorted(fields & set(_GIVE)))
    made_of = [part for line in parts for part in inner(line)]
    origins = {*term.on, *(origin for part in made_of for origin in getattr(part, "reads", ()))}
    yield from (_GIVE_ORIGIN[origin] for origin in Origin if origin in origins and origin in _GIVE_ORIGIN)
    if Origin.RATED in term.on and any(isinstance(part, Preferred) for part in made_of):
        yield (
            "pairs",
            "answers to one prompt with different rewards",
            "give each prompt a chosen and a rejected one, or choose a method that takes single answers, see `quatrain methods`",
        )
    if isinstance(term, Term) and term.on == (Origin.POLICY,):
        compares = any("prompt_id" in getattr(part, "needs", ()) and not hasattr(part, "of") for part in inner(term.advantage))
        if compares:
            yield "groups", "two answers or more to each prompt, to compare them", "set group_size=2 or more"
