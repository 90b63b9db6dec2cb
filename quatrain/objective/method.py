"""Methods as data: sums of terms that can be compared, changed by name, and explained."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_type_hints

from pydantic import TypeAdapter, ValidationError

from quatrain.config import ConfigError, nearest
from quatrain.objective.bound import Bound
from quatrain.objective.composition import check, meaning, refuse
from quatrain.objective.likelihoods import Perturbed
from quatrain.objective.part import Memory, brief, describe, meanings, numbers, signature
from quatrain.objective.terms import AnyTerm, Target, Term
from quatrain.tensors import Float, Tensor, torch
from quatrain.types import Batch, Origin

ADDRESSES = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
"""Where a paper is to be found, by what it is numbered by."""
SAID: dict[Origin, str] = {
    Origin.POLICY: "the policy's answers",
    Origin.DEMONSTRATION: "demonstrations",
    Origin.REPLAY: "replayed answers",
    Origin.TEACHER: "a teacher's answers",
    Origin.RATED: "rated answers of the data set, such as pairs",
    Origin.GREEDY: "the policy's greedy answer to each prompt",
    Origin.MISMATCHED: "other prompts' answers",
}
NEEDED = {
    "reward": "a reward",
    "prompt_id": "several answers to each prompt",
    "values": "a critic",
    "log_z": "a learned log Z of each prompt",
    "logp_ref": "a reference policy",
    "logp_teacher": "a teacher",
    "logp_process": "a process reward model",
    "potential": "the right answer to each prompt, to probe its steps with",
}
"""What a run must have for a field of the batch to be filled; the fields that are missing here always are."""
_GRADED = frozenset({Origin.RATED, Origin.REPLAY})
"""What has a reward when it comes into a run, or into a step."""
STATUSES = {
    "transcribed": "it equals the published loss; no logged run shows the claim yet",
    "reproduced": "it equals the published loss, and logged runs show the claim",
}


@dataclass(frozen=True, init=False)
class Method:
    """A post-training method: a sum of terms, as data."""

    terms: tuple[AnyTerm, ...]
    paper: str = field(default="", compare=False)
    """``arXiv:…`` of the paper that the row is keyed by."""
    claim: str = field(default="", compare=False)
    """What the paper says it is good for, in a sentence."""
    aka: tuple[str, ...] = field(default=(), compare=False)
    """Other names."""
    status: Literal["transcribed", "reproduced"] = field(default="transcribed", compare=False)
    note: str = field(default="", compare=False)
    """Where it is read in one of several ways, and how it differs from the authors' code and from other libraries."""

    def __init__(
        self,
        *terms: AnyTerm,
        paper: str = "",
        claim: str = "",
        aka: tuple[str, ...] = (),
        status: Literal["transcribed", "reproduced"] = "transcribed",
        note: str = "",
    ) -> None:
        if not terms:
            raise ValueError("a Method is a sum of terms and got none: write Method(Term(...))")
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(f"the terms of a Method must have different names, got {names}: pass name=… to one of them")
        about = {"paper": paper, "claim": claim, "aka": aka, "status": status, "note": note}
        for name, value in {"terms": terms, **about}.items():
            object.__setattr__(self, name, value)
        refuse(self.active)

    @property
    def link(self) -> str:
        """The address of its paper."""
        kind, _, number = self.paper.partition(":")
        return ADDRESSES[kind] + number if kind in ADDRESSES else self.paper

    @property
    def active(self) -> tuple[AnyTerm, ...]:
        """The terms that are not switched off by a zero coefficient."""
        return tuple(term for term in self.terms if term.coefficient)

    @property
    def needs(self) -> frozenset[str]:
        """The fields of a Batch that it reads besides ``action``."""
        needs = frozenset[str]().union(*(part.needs for term in self.active for part in term.parts.values()))
        return needs | ({"values"} if "value" in self.targets else frozenset())

    @property
    def needs_first(self) -> frozenset[str]:
        """Those that must be known before the first forward pass of an update, as what reads them is computed once."""
        once = (part for term in self.active for part in term.parts.values() if part not in term.live_parts)
        return frozenset[str]().union(*(part.needs for part in once))

    @property
    def targets(self) -> frozenset[Target]:
        """What its loss depends on."""
        return frozenset(term.target for term in self.active)

    @property
    def perturbation(self) -> Perturbed | None:
        """The noise that its forward passes have, or None."""
        return next((term.likelihood for term in self.active if isinstance(term.likelihood, Perturbed)), None)

    @property
    def origins(self) -> frozenset[Origin]:
        """Whose trajectories it learns from."""
        return frozenset(origin for term in self.active for origin in term.on)

    @property
    def reads(self) -> frozenset[Origin]:
        """Whose trajectories it compares with, besides."""
        parts = (part for term in self.active for part in term.parts.values())
        compared = frozenset[Origin]().union(*(getattr(part, "reads", frozenset()) for part in parts))
        return compared | ({Origin.GREEDY} if "reward_greedy" in self.needs else frozenset())

    @property
    def judged(self) -> frozenset[Origin]:
        """Whose trajectories' rewards it reads, of those that do not bring one with them."""
        terms = (t for t in self.active if any("reward" in part.needs for part in t.parts.values()))
        return (frozenset(origin for term in terms for origin in term.on) | self.reads & {Origin.GREEDY}) - _GRADED

    def bind(self, batch: Batch, memory: Memory | None = None) -> Bound:
        """The method on a whole minibatch: everything that does not depend on log π_θ, computed once.

        `memory` is what :meth:`Bound.remembered` said of the minibatch before; without it, parts that remember begin anew.

        Raises:
            ValueError: a field that the method needs is missing.
        """
        batch.require(self.needs, "the method")
        return Bound.of(self.active, batch, memory or {})

    def weights(self, batch: Batch, logp: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """w = −∂L/∂log π_θ of the method's loss L on `batch` at `logp`; no gradient flows through it.

        Raises:
            ValueError: a field that the method needs is missing, or `logp` has another shape than the batch.
        """
        shape = next((x.shape for x in (batch.action, batch.logp_old, batch.tokens) if x is not None), logp.shape)
        if logp.shape != shape:
            raise ValueError(f"logp has shape {list(logp.shape)}, the batch {list(shape)}: they must be equal")
        if batch.action is None:
            batch = batch.replace(action=torch.ones_like(logp, dtype=torch.bool))
        result = self.bind(batch).weights(logp).logp
        return torch.zeros_like(logp) if result is None else result

    def replace(self, **changes: Any) -> Method:
        """A method with other lines in its first term (``mask=…``), other terms (``kl=…``, None to drop), or another claim."""
        first, *rest = self.terms
        about = {name: changes.pop(name, value) for name, value in self._about().items()}
        named = {term.name: changes.pop(term.name) for term in self.terms if term.name in changes}
        known = {f.name for f in fields(first)} | {term.name for term in self.terms}
        for name in changes:
            if name not in known:
                raise ValueError(f"a method has no line or term {name!r}: {nearest(name, known)}")
        terms = [dataclasses.replace(first, **changes), *rest]
        terms = [named.get(term.name, term) for term in terms]
        return Method(*(term for term in terms if term is not None), **about)

    def _about(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("paper", "claim", "aka", "status", "note")}

    def with_settings(self, settings: Mapping[str, Any]) -> Method:
        """The method with numbers set by dotted name: ``mask.high`` in its first term, ``kl.advantage.beta`` in a named one.

        Raises:
            ConfigError: no such hyper-parameter, or a value of the wrong type.
        """
        terms = {term.name: term for term in self.terms}
        for path, value in settings.items():
            known = [name for name, _ in self.numbers()]
            if path not in known:
                raise ConfigError(f"there is no setting 'method.{path}': {nearest(path, known)}")
            head, *rest = path.split(".")
            name, inner = (head, rest) if head in terms and rest else (self.terms[0].name, [head, *rest])
            terms[name] = _set(terms[name], inner, value, f"method.{path}")
        return Method(*terms.values(), **self._about())

    def numbers(self) -> Iterator[tuple[str, Any]]:
        """Every hyper-parameter by the dotted name that `with_settings` takes."""
        for i, term in enumerate(self.terms):
            prefix = "" if i == 0 else f"{term.name}."
            yield from ((prefix + name, value) for name, value in numbers(term) if name not in ("name", "on"))

    def explain(self) -> str:
        """Its lines, formulas, sources, and numbers by the names that settings have, to be read."""
        head = " + ".join(term.name for term in self.terms)
        text = [f"{self.paper}   {head}", *filter(None, (self.claim, self.note)), ""]
        text += [f"{name:<14}{said}" for name, said in self._facts().items() if said]
        for i, term in enumerate(self.terms):
            off = "" if term.coefficient else "   (off: its weight is 0)"
            text += ["", f"{term.name}, on the trajectories of: {_named(term.on)}{off}"]
            prefix = "" if i == 0 else f"{term.name}."
            text += _paragraph(term.target, term, prefix) if not isinstance(term, Term) else _settings(term, prefix, " " * 14)
            for line, part in term.parts.items():
                text += _paragraph(line, part, f"{prefix}{line}.")
        found = check(self)
        return "\n".join([*text, *([""] if found else []), *map(str, found)])

    def _facts(self) -> dict[str, str]:
        brought = {"reward"} if self.origins == {Origin.RATED} else set[str]()
        needed = [said for name, said in NEEDED.items() if name in self.needs - brought]
        return {
            "paper": self.link,
            "also called": ", ".join(self.aka),
            "status": f"{self.status}: {STATUSES[self.status]}",
            "learns from": ", ".join(said for origin, said in SAID.items() if origin in self.origins),
            "compares with": ", ".join(said for origin, said in SAID.items() if origin in self.reads),
            "needs": ", ".join(needed),
            "gradient": str(meaning(self)),
        }

    def lines(self) -> Iterator[tuple[str, str]]:
        """(``mask``, ``Clip(low=0.2, high=0.2)``), … for the first term, then (``kl.advantage``, …) for the others."""
        for i, term in enumerate(self.terms):
            prefix = "" if i == 0 else f"{term.name}."
            own = (f.name for f in fields(term) if f.name not in ("name", "on", *term.parts))
            yield from ((prefix + name, f"{getattr(term, name):g}") for name in own)
            if term.on != (Origin.POLICY,):
                yield prefix + "on", _named(term.on)
            for line, part in term.parts.items():
                yield prefix + line, signature(part)


def _paragraph(line: str, part: Any, prefix: str, indent: str = "  ") -> list[str]:
    """What a part is, its numbers, and the parts that it is made of in turn."""
    about = describe(part)
    label = indent + " " * 12
    formula = [label + row for row in about.formula.splitlines()]
    lines = getattr(part, "parts", {})  # those of a term have paragraphs of their own
    whole = type(part).__name__ if lines else signature(part)
    text = [f"{indent}{f'{line} ':<12}{whole}", label + about.summary, *formula, label + "Source: " + about.source]
    text += _settings(part, prefix, label)
    for item in fields(part):
        inner = getattr(part, item.name)
        if is_dataclass(inner) and item.name not in lines:
            text += _paragraph(f"· {item.name}", inner, f"{prefix}{item.name}.", indent + "  ")
    return text


def _settings(part: Any, prefix: str, label: str) -> list[str]:
    """The numbers of a part itself as settings have them, with their meanings."""
    values = {item.name: getattr(part, item.name) for item in fields(part) if item.name not in ("name", "on")}
    own = {f"method.{prefix}{name}={brief(value)}": name for name, value in values.items() if not is_dataclass(value)}
    width, told = max(map(len, own), default=0), meanings(type(part))
    rows = (f"{label}{setting:<{width}}   {told.get(name, '').replace('``', '`')}" for setting, name in own.items())
    return [row.rstrip() for row in rows]


def written(term: AnyTerm) -> dict[str, str]:
    """What a term is the product of in short: its lines, and its coefficient and whose trajectories it is about if unusual."""
    own = [f.name for f in fields(term) if f.name not in ("name", "coefficient", "on", *term.parts)]
    cells = {"coefficient": brief(term.coefficient)} if term.coefficient != 1 else {}
    cells |= {"mask": ", ".join(f"{name} {brief(getattr(term, name))}" for name in own)} if own else {}
    cells |= {name: brief(part) for name, part in term.parts.items()}
    return cells | ({"on": f"on {_named(term.on)}"} if term.on != (Origin.POLICY,) else {})


def _named(origins: tuple[Origin, ...]) -> str:
    return ", ".join(origin.value for origin in origins)


def difference(a: Method, b: Method) -> list[tuple[str, str, str]]:
    """(line or number, in `a`, in `b`) for each that differs; ``—`` where one has no such term."""
    left, right = ({"" if i == 0 else term.name: term for i, term in enumerate(method.terms)} for method in (a, b))
    return [row for name in dict.fromkeys([*left, *right]) for row in _differing(name, left.get(name), right.get(name))]


def _differing(name: str, x: Any, y: Any) -> Iterator[tuple[str, str, str]]:
    """What two parts of one kind differ in, down to their numbers; whole parts where they are of two kinds."""
    if is_dataclass(x) and type(x) is type(y):
        for item in fields(x):
            if item.name != "name":
                inner = (getattr(part, item.name) for part in (x, y))
                yield from _differing(f"{name}.{item.name}".removeprefix("."), *inner)
    elif x != y:
        yield name or "the first term", _told(x), _told(y)


def _told(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, tuple):
        return _named(value)
    return " · ".join(written(value).values()) if isinstance(value, AnyTerm) else brief(value)


def _set(part: Any, path: list[str], value: Any, name: str) -> Any:
    """`part` with the field at `path` set to `value`, checked against the field's type."""
    head, *rest = path
    if rest:
        return dataclasses.replace(part, **{head: _set(getattr(part, head), rest, value, name)})
    kind = get_type_hints(type(part), include_extras=True)[head]
    assert not is_dataclass(getattr(part, head))
    try:
        checked = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        message = re.sub(r"^Input", "it", error.errors()[0]["msg"])
        raise ConfigError(f"{name} = {value!r} is not allowed: {message}") from None
    if checked != checked:
        raise ConfigError(f"{name} = {value!r} is not allowed: it should be a number")
    return dataclasses.replace(part, **{head: checked})
