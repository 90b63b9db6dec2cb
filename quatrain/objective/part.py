"""What a part is, and what it reads."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

from quatrain.tensors import Bool, Float, Int, Tensor, torch
from quatrain.types import Batch, Origin

Scope = Literal["token", "sequence", "group", "batch"]
SCOPES: tuple[Scope, ...] = ("token", "sequence", "group", "batch")
"""From the narrowest to the widest."""

Memory = Mapping[str, tuple[float, ...]]
"""By the signature of a part, what it carries from one update to the next."""

MAX_LOG_RATIO = 60.0
"""Log-ratios are bounded here, far outside of what any mask lets pass, so that no ratio overflows in float32."""


@dataclass(frozen=True)
class View:
    """What a part reads: the rows of a batch that its term is about, and the current log-probabilities.

    Rows that the term is not about have no actions here.
    """

    batch: Batch
    action: Bool[Tensor, "B T"]
    """True where the term counts an action."""
    logp: Float[Tensor, "B T"] | None
    """log π_θ without gradient; None while the parts that do not read it are evaluated."""
    advantage: Float[Tensor, "B T"] | None = None
    """What the term computed once for the whole minibatch, for a reduction that counts by it; None elsewhere."""
    memory: Memory = field(default_factory=dict)
    """What parts remember of the updates before."""

    @property
    def length(self) -> Float[Tensor, "B 1"]:
        """Number of actions of each sequence, at least 1 so that one may divide by it."""
        return self.action.sum(1, keepdim=True).clamp(min=1).to(torch.float64)

    @property
    def included(self) -> Bool[Tensor, "B"]:
        """True for the sequences with an action."""
        return self.action.any(1)

    def recall(self, part: Remembering) -> tuple[float, ...]:
        """What `part` remembers."""
        return self.memory.get(signature(part), part.start)

    def current(self) -> Float[Tensor, "B T"]:
        """log π_θ, for a part that reads it."""
        assert self.logp is not None, "a part that reads log π_θ must say live = True"
        return self.logp

    def group(self) -> tuple[Int[Tensor, "B"], int]:
        """The number of each sequence's group, from 0 and without gaps, and how many groups have an action."""
        assert self.batch.prompt_id is not None
        _, index = torch.unique(self.batch.prompt_id, return_inverse=True)
        return index, len(index[self.included].unique())

    def rows_of(self, *origins: Origin) -> Bool[Tensor, "B"]:
        """True for the sequences with an action and one of `origins`, whether or not the term is about them."""
        assert self.batch.action is not None
        if self.batch.origin is None and Origin.POLICY not in origins:
            return torch.zeros_like(self.included)
        return of_origins(self.batch, origins).any(1)

    def over(self, *origins: Origin) -> View:
        """The same with all sequences of `origins`, whether or not the term is about them."""
        assert self.batch.action is not None
        return replace(self, action=self.batch.action & self.rows_of(*origins)[:, None])

    def turn(self) -> Int[Tensor, "B T"]:
        """The number of each token's turn among those of all sequences; there may be gaps."""
        assert self.batch.turn is not None
        numbers, index = torch.unique(self.batch.turn, return_inverse=True)
        return index + len(numbers) * torch.arange(len(index), device=index.device)[:, None]

    def over_turn(self, value: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The sum of `value` over the actions of each token's turn."""
        turn = self.turn()
        sums = value.new_zeros(int(turn.max()) + 1 if turn.numel() else 0)
        return sums.index_add(0, turn.flatten(), value.where(self.action, 0).flatten())[turn]

    def mean(self, value: Float[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
        """The mean of `value` over the actions of each sequence."""
        return value.where(self.action, 0).sum(1, keepdim=True) / self.length.to(value.dtype)


def of_origins(batch: Batch, origins: Iterable[Origin]) -> Bool[Tensor, "B T"]:
    """The actions of the sequences whose origin is among `origins`; a batch that does not say holds the policy's own."""
    assert batch.action is not None
    if batch.origin is None:
        return batch.action
    codes = torch.tensor([origin.code for origin in origins], device=batch.action.device)
    return batch.action & torch.isin(batch.origin, codes)[:, None]


@runtime_checkable
class Part(Protocol):
    """A frozen dataclass whose fields are its hyper-parameters and whose ``__call__`` is its equation."""

    needs: ClassVar[frozenset[str]]
    """Fields of the Batch that it reads besides ``action``."""
    scope: ClassVar[Scope]
    """How much of a batch one value depends on; a batch is only cut between such units."""


@runtime_checkable
class Remembering(Protocol):
    """A part that carries numbers from one update to the next: a switch, a dual variable. Two equal ones carry the same."""

    @property
    def start(self) -> tuple[float, ...]:
        """What it begins with."""
        ...

    def remember(self, view: View) -> tuple[float, ...]:
        """What it carries on from a whole minibatch, at the log π_θ that its update began with."""
        ...


def remembering(part: Any) -> Iterator[Remembering]:
    """The parts within `part`, itself included, that remember."""
    if is_dataclass(part):
        yield from (inner for f in fields(part) for inner in remembering(getattr(part, f.name)))
        if isinstance(part, Remembering):
            yield part


def signature(part: Any) -> str:
    """``Clip(low=0.2, high=0.28)``: a part with all its numbers."""
    if not is_dataclass(part):
        return repr(part)
    inner = ", ".join(f"{f.name}={_show(getattr(part, f.name))}" for f in fields(part))
    return f"{type(part).__name__}({inner})"


def _show(value: Any) -> str:
    return signature(value) if is_dataclass(value) else number(value) if isinstance(value, float) else repr(value)


def number(value: float) -> str:
    """A number as short as it can be written without being another one."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


UNPRINTED = frozenset({"eps", "floor", "correction"})
"""Fields that papers do not print: short forms leave them out where they are what they are by default."""


def brief(value: Any) -> str:
    """``Clip(0.2, 0.28)``: a part by its numbers in their order, or a number or choice as settings write it."""
    if not is_dataclass(value):
        return value if isinstance(value, str) else number(value)
    inner: list[str] = []
    for item in fields(value):
        own = getattr(value, item.name)
        if item.name not in UNPRINTED:
            inner.append(brief(own))
        elif own != item.default:
            inner.append(f"{item.name}={brief(own)}")
    return type(value).__name__ + (f"({', '.join(inner)})" if inner else "")


@dataclass(frozen=True)
class Description:
    """A part's docstring, taken apart."""

    summary: str
    formula: str
    source: str


def describe(part: Any) -> Description:
    """The first paragraph, the indented formula and the ``Source:`` line of a part's docstring."""
    summary: list[str] = []
    formula: list[str] = []
    source: list[str] = []
    taking = summary
    for line in (inspect.getdoc(type(part)) or "").splitlines():
        if line.startswith("Source:"):
            taking = source
            line = line.removeprefix("Source:")
        elif line.startswith("    ") and taking is not source:
            taking = formula
        elif not line.strip():
            taking = summary if taking is summary and not summary else []
            continue
        taking.append(line.strip())
    return Description(" ".join(summary), "\n".join(formula), " ".join(source).strip())


def meanings(kind: type) -> dict[str, str]:
    """What the string under each field of a class says of it, and what may be chosen; nothing of a class that has no file."""
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except (OSError, TypeError):
        return {}
    assert isinstance(node, ast.ClassDef)
    types = get_type_hints(kind)
    told: dict[str, str] = {}
    for item, text in itertools.pairwise(node.body):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and isinstance(text, ast.Expr):
            choices = get_args(types[item.target.id]) if get_origin(types[item.target.id]) is Literal else ()
            said = [ast.literal_eval(text.value), f"One of: {', '.join(map(str, choices))}." if choices else ""]
            told[item.target.id] = " ".join(" ".join(said).split())
    return told


def numbers(part: Any) -> Iterator[tuple[str, Any]]:
    """Every hyper-parameter of a part by dotted name, those of nested parts included."""
    for item in fields(part):
        value = getattr(part, item.name)
        if is_dataclass(value):
            yield from ((f"{item.name}.{name}", inner) for name, inner in numbers(value))
        else:
            yield item.name, value
