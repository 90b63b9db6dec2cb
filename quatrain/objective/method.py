"""Terms, methods and the formula: g = Σ w ∇log π with w = share · mask · Â · π_θ/π_ref."""

# ruff: noqa: RUF009 -- parts are frozen, and one may be the default of many terms

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, Literal, Self, get_type_hints

import torch
from jaxtyping import Bool, Float
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from quatrain.config import ConfigError, nearest
from quatrain.objective.advantages import GAE, One
from quatrain.objective.denominators import Old
from quatrain.objective.likelihoods import Token
from quatrain.objective.masks import Everywhere
from quatrain.objective.part import MAX_LOG_RATIO, Part, View, describe, numbers, signature
from quatrain.objective.reductions import PerToken
from quatrain.types import Batch, Origin

Target = Literal["logp", "entropy", "value"]


@dataclass(frozen=True)
class Factors:
    """What a weight is the product of; all [B, T]."""

    share: Float[Tensor, "B T"]
    mask: Float[Tensor, "B T"]
    advantage: Float[Tensor, "B T"]
    ratio: Float[Tensor, "B T"]

    @property
    def weight(self) -> Float[Tensor, "B T"]:
        return self.share * self.mask * self.advantage * self.ratio


@dataclass(frozen=True, kw_only=True)
class Term:
    """One policy-gradient term of a method: four lines and a reduction.

        w = share · mask · Â · π_θ/π_ref

    Source: arXiv:2509.04419, eq. 6.
    """

    name: str = "policy"
    """What settings and tables call it."""
    mask: Any = Everywhere()
    denominator: Any = Old()
    advantage: Any = One()
    likelihood: Any = Token()
    reduce: Any = PerToken()
    on: tuple[Origin, ...] = (Origin.POLICY,)
    """Whose trajectories it is about."""
    target: ClassVar[Target] = "logp"

    @property
    def parts(self) -> dict[str, Part]:
        """The lines by name, in the order in which they are read."""
        return {line: getattr(self, line) for line in ("mask", "denominator", "advantage", "likelihood", "reduce")}

    @property
    def coefficient(self) -> float:
        """0 where the term is switched off by its numbers."""
        return getattr(self.advantage, "beta", 1.0)

    def prepare(self, view: View) -> Float[Tensor, "B T"] | None:
        """The advantage, once for a whole minibatch, unless it reads log π_θ."""
        return None if self.advantage.live else self.advantage(view)

    def factors(self, view: View, prepared: Tensor | None, share: Tensor) -> Factors:
        """What each action's weight is the product of."""
        logp = view.current()
        advantage = self.advantage(view) if prepared is None else prepared
        pooled = self.likelihood(view, logp) - self.likelihood(view, self.denominator(view))
        ratio = pooled.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp().to(logp)
        advantage, share = advantage.to(logp), share.to(logp).expand(logp.shape)
        none = logp.new_zeros(())
        return Factors(*(x.where(view.action, none) for x in (share, self.mask(view, ratio, advantage), advantage, ratio)))

    def weights(self, view: View, prepared: Tensor | None, share: Tensor, values: Tensor | None) -> Float[Tensor, "B T"]:
        return self.factors(view, prepared, share).weight


@dataclass(frozen=True, kw_only=True)
class EntropyBonus:
    """Rewards an undecided policy; needs the whole distribution, which the fused operation has at hand.

        L = −beta · share · H(π_θ(·|sₜ))

    Source: arXiv:1707.06347, eq. 9.
    """

    name: str = "entropy"
    beta: float = 0.01
    """Weight of the bonus."""
    reduce: Any = PerToken()
    on: tuple[Origin, ...] = (Origin.POLICY,)
    target: ClassVar[Target] = "entropy"
    likelihood: ClassVar[Token] = Token()

    @property
    def parts(self) -> dict[str, Part]:
        return {"reduce": self.reduce}

    @property
    def coefficient(self) -> float:
        return self.beta

    def prepare(self, view: View) -> None:
        return None

    def weights(self, view: View, prepared: Tensor | None, share: Tensor, values: Tensor | None) -> Float[Tensor, "B T"]:
        return (self.beta * share * view.action).to(view.current())


@dataclass(frozen=True, kw_only=True)
class ValueLoss:
    """The critic's squared error against the return, clipped around the value at the start of the update.

        L = beta · share · ½·max((V − R)², (V_old + clip(V − V_old, ±clip) − R)²),  R = Â + V_old

    Source: arXiv:1707.06347, eq. 9; the clipped form: arXiv:2005.12729, section 3, and the maximum of its code.
    """

    name: str = "value"
    beta: float = 0.5
    """Weight of the loss."""
    clip: float = 0.2
    """How far the value may move in one update."""
    advantage: Any = GAE()
    """The estimator whose sum with V_old is the return."""
    reduce: Any = PerToken()
    on: tuple[Origin, ...] = (Origin.POLICY,)
    target: ClassVar[Target] = "value"
    likelihood: ClassVar[Token] = Token()

    @property
    def parts(self) -> dict[str, Part]:
        return {"advantage": self.advantage, "reduce": self.reduce}

    @property
    def coefficient(self) -> float:
        return self.beta

    def prepare(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.values is not None
        return self.advantage(view) + view.batch.values

    def weights(self, view: View, prepared: Tensor | None, share: Tensor, values: Tensor | None) -> Float[Tensor, "B T"]:
        assert prepared is not None
        assert values is not None
        assert view.batch.values is not None
        old, returns = view.batch.values, prepared.to(values)
        moved = values - old
        clipped = old + moved.clamp(-self.clip, self.clip)
        flat = (moved.abs() > self.clip) & (
            (clipped - returns) ** 2 > (values - returns) ** 2
        )  # the clipped branch is the larger
        slope = (values - returns).where(~flat, 0)
        return (-self.beta * share.to(values) * slope).where(view.action, 0)


AnyTerm = Term | EntropyBonus | ValueLoss


@dataclass(frozen=True)
class Weights:
    """−∂L/∂x for each thing x that the loss depends on; all [B, T], None where no term depends on it."""

    logp: Float[Tensor, "B T"] | None = None
    entropy: Float[Tensor, "B T"] | None = None
    value: Float[Tensor, "B T"] | None = None


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

    def __init__(
        self,
        *terms: AnyTerm,
        paper: str = "",
        claim: str = "",
        aka: tuple[str, ...] = (),
        status: Literal["transcribed", "reproduced"] = "transcribed",
    ) -> None:
        if not terms:
            raise ValueError("a Method is a sum of terms and got none: write Method(Term(...))")
        names = [term.name for term in terms]
        if len(set(names)) < len(names):
            raise ValueError(f"the terms of a Method must have different names, got {names}: pass name=… to one of them")
        for name, value in (("terms", terms), ("paper", paper), ("claim", claim), ("aka", aka), ("status", status)):
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
    def targets(self) -> frozenset[Target]:
        """What its loss depends on."""
        return frozenset(term.target for term in self.active)

    @property
    def origins(self) -> frozenset[Origin]:
        """Whose trajectories it learns from."""
        return frozenset(origin for term in self.active for origin in term.on)

    @torch.no_grad()
    def bind(self, batch: Batch) -> Bound:
        """The method on a whole minibatch: everything that does not depend on log π_θ, computed once.

        Raises:
            ValueError: a field that the method needs is missing.
        """
        batch.require(self.needs, "the method")
        terms = [(term, _view(batch, term)) for term in self.active]
        prepared = tuple(term.prepare(view) for term, view in terms)
        views = [dataclasses.replace(view, advantage=known) for (_, view), known in zip(terms, prepared, strict=True)]
        shares = tuple(t.reduce(v, t.likelihood.actions(v)) for t, v in zip(self.active, views, strict=True))
        return Bound(self, batch, prepared, shares)

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
        about = {name: changes.pop(name) for name in ("paper", "claim", "aka", "status") if name in changes}
        named = {term.name: changes.pop(term.name) for term in self.terms if term.name in changes}
        known = {f.name for f in fields(first)} | {term.name for term in self.terms}
        for name in changes:
            if name not in known:
                raise ValueError(f"a method has no line or term {name!r}: {nearest(name, known)}")
        terms = [dataclasses.replace(first, **changes), *rest]
        terms = [named.get(term.name, term) for term in terms]
        kept = {"paper": self.paper, "claim": self.claim, "aka": self.aka, "status": self.status}
        return Method(*(term for term in terms if term is not None), **(kept | about))

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
        return Method(*terms.values(), paper=self.paper, claim=self.claim, aka=self.aka, status=self.status)

    def numbers(self) -> Iterator[tuple[str, Any]]:
        """Every hyper-parameter by the dotted name that `with_settings` takes."""
        for i, term in enumerate(self.terms):
            prefix = "" if i == 0 else f"{term.name}."
            yield from ((prefix + name, value) for name, value in numbers(term) if name not in ("name", "on"))

    def explain(self) -> str:
        """Its lines, formulas and sources, to be read."""
        head = " + ".join(term.name for term in self.terms)
        text = [f"{self.paper}   {head}", *([self.claim] if self.claim else [])]
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
            if not isinstance(term, Term):
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


@dataclass(frozen=True)
class Bound:
    """A method on the rows of one minibatch. Rows may be taken out of it; normalizers stay those of the whole."""

    method: Method
    batch: Batch
    prepared: tuple[Tensor | None, ...]
    """What each term computed once, [B, T]."""
    shares: tuple[Tensor, ...]
    """Each term's reduction, [B, 1]."""

    def rows(self, index: Tensor) -> Self:
        """The sequences at `index` ([K] int64)."""
        return dataclasses.replace(
            self,
            batch=self.batch.rows(index),
            prepared=tuple(None if p is None else p[index] for p in self.prepared),
            shares=tuple(s[index] for s in self.shares),
        )

    def with_old(self, logp: Float[Tensor, "B T"]) -> Self:
        """With `logp` as the policy at the start of the update."""
        return dataclasses.replace(self, batch=self.batch.replace(logp_old=logp))

    def terms(self) -> Iterator[tuple[AnyTerm, Tensor | None, Tensor]]:
        return zip(self.method.active, self.prepared, self.shares, strict=True)

    @torch.no_grad()
    def weights(self, logp: Float[Tensor, "B T"], values: Float[Tensor, "B T"] | None = None) -> Weights:
        """−∂L/∂x at the current log-probabilities and values. The value term is left out without `values`."""
        sums: dict[Target, Tensor] = {}
        for term, prepared, share in self.terms():
            if term.target == "value" and values is None:
                continue
            weight = term.weights(_view(self.batch, term, logp), prepared, share, values)
            sums[term.target] = sums[term.target] + weight if term.target in sums else weight
        return Weights(**sums)

    @torch.no_grad()
    def factors(self, logp: Float[Tensor, "B T"]) -> dict[str, Factors]:
        """For each policy-gradient term by name, what its weights are the product of."""
        return {
            term.name: term.factors(_view(self.batch, term, logp), prepared, share)
            for term, prepared, share in self.terms()
            if isinstance(term, Term)
        }

    @torch.no_grad()
    def silent(self) -> Bool[Tensor, "B"]:
        """True for the sequences whose weights are 0 whatever π_θ is: advantage 0 in every term that is about them."""
        assert self.batch.action is not None
        silent = torch.ones_like(self.batch.action[:, 0])
        for term, prepared, _ in self.terms():
            action = _rows_of(self.batch, term.on, self.batch.action)
            fixed = isinstance(term, Term) and prepared is not None
            silent &= ~(action & (prepared != 0)).any(1) if fixed else ~action.any(1)
        return silent

    def metrics(self, logp: Float[Tensor, "B T"]) -> dict[str, float]:
        """What every run of any method shows of its first term's parts, under one scheme."""
        term, prepared, share = next(self.terms(), (None, None, None))
        if not isinstance(term, Term) or share is None:
            return {}
        view = _view(self.batch, term, logp)
        if not view.action.any():
            return {}
        factors = term.factors(view, prepared, share)
        ratio = factors.ratio[view.action].float()
        quantiles = torch.quantile(
            ratio[:: max(1, len(ratio) // 1_000_000)], torch.tensor([0.01, 0.5, 0.99], device=ratio.device)
        )
        out = {
            "mask/passed": factors.mask[view.action].clamp(max=1).mean().item(),
            **dict(zip(("ratio/p01", "ratio/p50", "ratio/p99"), quantiles.tolist(), strict=True)),
            "ratio/max": ratio.max().item(),
            "advantage/std": factors.advantage[view.action].std(correction=0).item(),
        }
        if self.batch.prompt_id is not None:
            index, groups = view.group()
            size = (factors.advantage * view.action).abs().amax(1)
            peak = torch.zeros(int(index.max()) + 1, dtype=size.dtype, device=size.device).scatter_reduce(0, index, size, "amax")
            out["advantage/zero_groups"] = 1 - (peak > 0).sum().item() / max(groups, 1)
        if self.batch.logp_ref is not None:
            distance = (logp - self.batch.logp_ref)[view.action].double()
            out["kl/ref"] = (torch.exp(-distance) - 1 + distance).mean().item()
        return out


def _view(batch: Batch, term: AnyTerm, logp: Tensor | None = None) -> View:
    assert batch.action is not None, "Method.weights and collate both fill in the actions"
    return View(batch, _rows_of(batch, term.on, batch.action), logp)


def _rows_of(batch: Batch, on: tuple[Origin, ...], action: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """The actions of the rows whose origin is among `on`; of all rows where the batch does not say."""
    if batch.origin is None:
        return action
    codes = torch.tensor([origin.code for origin in on], device=action.device)
    return action & torch.isin(batch.origin, codes)[:, None]


def _set(part: Any, path: list[str], value: Any, name: str) -> Any:
    """`part` with the field at `path` set to `value`, checked against the field's type."""
    head, *rest = path
    if rest:
        return dataclasses.replace(part, **{head: _set(getattr(part, head), rest, value, name)})
    kind = get_type_hints(type(part))[head]
    assert not is_dataclass(getattr(part, head))
    try:
        checked = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        message = re.sub(r"^Input", "it", error.errors()[0]["msg"])
        raise ConfigError(f"{name} = {value!r} is not allowed: {message}") from None
    return dataclasses.replace(part, **{head: checked})
