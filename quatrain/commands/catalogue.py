"""The command that looks into the catalogue."""

from __future__ import annotations

import re
from argparse import Namespace

from rich.console import Console
from rich.table import Table

from quatrain.config import ConfigError
from quatrain.methods import METHODS, method
from quatrain.objective import difference

WIDE = 150
"""Columns that the whole table needs."""


def methods(given: Namespace) -> None:
    """List the catalogue, show one row, or print where two differ."""
    wanted = {"list": 0, "show": 1, "diff": 2}[given.what]
    if len(given.names) != wanted:
        usage = {"list": "quatrain methods", "show": "quatrain methods show ID", "diff": "quatrain methods diff ID ID"}[
            given.what
        ]
        raise ConfigError(f"`methods {given.what}` takes {wanted} ids and got {len(given.names)}: write {usage}")
    rows = [method(name) for name in given.names]
    console = Console(highlight=False)
    if given.what == "list":
        if not console.is_terminal:
            console.width = WIDE
        console.print(table(whole=console.width >= WIDE))
    elif given.what == "show":
        console.print(rows[0].explain(), markup=False, soft_wrap=True)
    else:
        differing = Table("line", *given.names)
        for line, left, right in difference(*rows):
            differing.add_row(line, left, right)
        console.print(differing if differing.row_count else "they are the same method")


def table(whole: bool = True) -> Table:
    """The catalogue by its lines; what fits into 80 columns are the parts that differ most, without their numbers."""
    if not whole:
        out = Table("method", "mask", "advantage", "reduce", "paper", caption=f"all lines: in {WIDE} columns, or methods show ID")
        for name, row in METHODS.items():
            lines = dict(row.lines())
            out.add_row(name, *(lines[line].partition("(")[0] for line in ("mask", "advantage", "reduce")), row.paper)
        return out
    out = Table()
    for column in ("method", "mask", "denominator", "advantage", "likelihood", "reduce", "further terms", "paper"):
        out.add_column(column, overflow="fold", no_wrap=column in ("method", "paper"))
    for name, row in METHODS.items():
        lines = dict(row.lines())
        further = ", ".join(term.name for term in row.terms[1:] if term.coefficient)
        parts = (lines[line] for line in ("mask", "denominator", "advantage", "likelihood", "reduce"))
        out.add_row(name, *parts, further, row.paper)
    return out


def markdown() -> str:
    """The catalogue as a table for the README and the documentation."""
    head = "| method | mask | denominator | advantage | likelihood | reduce | further terms |\n|---|---|---|---|---|---|---|"
    body = []
    for name, row in METHODS.items():
        lines = dict(row.lines())
        cells = [f"`{_short(lines[line])}`" for line in ("mask", "denominator", "advantage", "likelihood", "reduce")]
        further = ", ".join(f"{term.name} {term.coefficient:g}" for term in row.terms[1:] if term.coefficient)
        body.append(f"| [`{name}`]({_link(row.paper)}) | {' | '.join(cells)} | {further} |")
    return "\n".join([head, *body])


def _short(part: str) -> str:
    """A part's signature without the eps that no paper prints, and without empty brackets."""
    return re.sub(r", eps=[^,)]+", "", part).removesuffix("()")


def _link(paper: str) -> str:
    kind, _, number = paper.partition(":")
    place = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}[kind]
    return place + number
