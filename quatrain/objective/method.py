"""Methods as data: sums of terms that can be compared, changed by name, and explained."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_type_hints

import torch
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from quatrain.config import ConfigError, nearest
from quatrain.objective.bound import Bound
from quatrain.objective.part import describe, numbers, signature
from quatrain.objective.terms import AnyTerm, Target, Term
from quatrain.types import Batch, Origin


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
    def origins(self) -> frozenset[Origin]:
        """Whose trajectories it learns from."""
        return frozenset(origin for term in self.active for origin in term.on)

    @property
    def reads(self) -> frozenset[Origin]:
        """Whose trajectories it compares with, besides."""
        parts = (part for term in self.active for part in term.parts.values())
        compared = frozenset[Origin]().union(*(getattr(part, "reads", frozenset()) for part in parts))
        return compared | ({Origin.GREEDY} if "reward_greedy" in self.needs else frozenset())

    def bind(self, batch: Batch) -> Bound:
        """The method on a whole minibatch: everything that does not depend on log π_θ, computed once.

        Raises:
            ValueError: a field that the method needs is missing.
        """
        batch.require(self.needs, "the method")
        return Bound.of(self.active, batch)

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
        """Its lines, formulas and sources, to be read."""
        head = " + ".join(term.name for term in self.terms)
        text = [f"{self.paper}   {head}", *filter(None, (self.claim, self.note))]
        for term in self.terms:
            off = "" if term.coefficient else "   (off: its weight is 0)"
            rows = ", ".join(origin.value for origin in term.on)
            text += ["", f"{term.name}, on the trajectories of: {rows}{off}"]
            if not isinstance(term, Term):
                text += _paragraph(term.target, term)
            for line, part in term.parts.items():
                text += _paragraph(line, part)
        return "\n".join(text)

    def lines(self) -> Iterator[tuple[str, str]]:
        """(``mask``, ``Clip(low=0.2, high=0.2)``), … for the first term, then (``kl.advantage``, …) for the others."""
        for i, term in enumerate(self.terms):
            prefix = "" if i == 0 else f"{term.name}."
            own = (f.name for f in fields(term) if f.name not in ("name", "on", *term.parts))
            yield from ((prefix + name, f"{getattr(term, name):g}") for name in own)
            if term.on != (Origin.POLICY,):
                yield prefix + "on", ", ".join(origin.value for origin in term.on)
            for line, part in term.parts.items():
                yield prefix + line, signature(part)


def _paragraph(line: str, part: Any) -> list[str]:
    about = describe(part)
    label = " " * 14
    formula = [label + row for row in about.formula.splitlines()]
    return [f"  {line:<12}{signature(part)}", label + about.summary, *formula, label + "Source: " + about.source]


def difference(a: Method, b: Method) -> list[tuple[str, str, str]]:
    """(line, in `a`, in `b`) for each line or number that differs; ``—`` where one has no such line."""
    left, right = dict(a.lines()), dict(b.lines())
    names = list(dict.fromkeys([*left, *right]))
    return [(n, left.get(n, "—"), right.get(n, "—")) for n in names if left.get(n) != right.get(n)]


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
    return dataclasses.replace(part, **{head: checked})
