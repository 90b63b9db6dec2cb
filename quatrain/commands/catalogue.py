"""The command that looks into the catalogue."""

from __future__ import annotations

import re
import textwrap
from argparse import Namespace
from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from quatrain.config import ConfigError
from quatrain.methods import METHODS, id_of, method
from quatrain.methods.families import FAMILIES, base, by_family
from quatrain.methods.papers import bibtex
from quatrain.objective import Method, difference
from quatrain.objective.method import written

LINES = ("mask", "denominator", "advantage", "likelihood", "reduce")
TAKES = {"list": 0, "table": 0, "show": 1, "diff": 2, "cite": 1}
"""What `methods` can be asked for, and how many ids that takes; to be cited there may be more."""
PAPERS_FROM, LINES_FROM = 120, 190
"""Columns from which on papers are listed, too, and the lines of a term stand side by side."""
PIPED = 400
"""Columns where no terminal reads: each row is one line."""


def methods(given: Namespace) -> None:
    """List the catalogue, show its rows by their lines, explain one, print where two differ, or cite some."""
    wanted, got = TAKES[given.what], len(given.names)
    if got < wanted or (got > wanted and given.what != "cite"):
        usage = " ".join(["quatrain methods", given.what, *["ID"] * wanted])
        raise ConfigError(f"`methods {given.what}` takes {wanted} ids and got {got}: write {usage}")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED
    rows = [method(name) for name in given.names]
    match given.what:
        case "list":
            console.print(listing(console.width))
        case "table":
            console.print(table(console.width))
        case "show":
            text = shown(rows[0])
            console.print(_wrapped(text, console.width) if console.is_terminal else text, markup=False, soft_wrap=True)
        case "diff":
            differing = Table("", *map(id_of, rows))
            for row in difference(*rows):
                differing.add_row(*row)
            console.print(differing if differing.row_count else "they are the same method")
        case "cite":
            entries = dict.fromkeys(bibtex(row.paper) for row in rows)  # two rows may be of one paper
            console.print("\n\n".join(entries), markup=False, soft_wrap=True)


def listing(width: int) -> Table:
    """Every method and what its paper claims, by family."""
    papers = width >= PAPERS_FROM
    out = Table("method", "claim", box=SIMPLE, pad_edge=False)
    out.columns[0].no_wrap = True
    if papers:
        out.add_column("paper", overflow="fold", max_width=None if width == PIPED else 24)
        out.add_column("status", no_wrap=True)
    else:
        out.caption = f"papers and status: in {PAPERS_FROM} columns, or `methods show ID`"
    for home, names in by_family(METHODS).items():
        out.add_row(Text(home, "bold"), Text(FAMILIES[home], "italic"))
        for name in names:
            row = METHODS[name]
            out.add_row(_indented(name), row.claim, *([row.paper, row.status] if papers else []))
        out.add_section()
    return out


def table(width: int) -> Table:
    """Every method by its lines and reduction, a term a row, by family; in a narrow terminal the lines are a product."""
    side_by_side = width >= LINES_FROM
    heads = (*LINES, "on") if side_by_side else (" · ".join(LINES),)
    out = Table("method", *(Column(head, overflow="fold") for head in heads), box=SIMPLE, pad_edge=False)
    out.columns[0].no_wrap = True
    for home, names in by_family(METHODS).items():
        out.add_row(Text(home, "bold"))
        for name in names:
            for label, lines in terms(name):
                cells = (
                    (lines.get(line, "").removeprefix("on ") for line in heads) if side_by_side else (" · ".join(lines.values()),)
                )
                out.add_row(label, *cells)
        out.add_section()
    return out


def _indented(name: str) -> str:
    return name if base(name) == name else f"  {name}"


def terms(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(how the sum goes on, lines in short) for each term of a row that is not off."""
    indent = " " * (len(_indented(name)) - len(name))
    for i, term in enumerate(METHODS[name].active):
        lines = written(term)
        called = " ".join(filter(None, [lines.pop("coefficient", ""), term.name]))
        if i == 0:
            yield _indented(name) + (f" = {called}" if called != "policy" else ""), lines
        else:
            yield f"{indent}  + {called}", lines


def shown(row: Method) -> str:
    """What a method says of itself, and how it differs from the other forms of the same method."""
    name = id_of(row)
    text = [f"{name}   {row.explain()}"]
    if base(name) != name:
        changes = difference(METHODS[base(name)], row)
        text += ["", f"differs from {base(name)} in", *(f"  {line:<12}{ours} → {theirs}" for line, ours, theirs in changes)]
    others = [other for other in METHODS if other != name and base(other) == name]
    if others:
        text += ["", "other forms", *(f"  {other}: {METHODS[other].claim}" for other in others)]
    return "\n".join(text)


def _wrapped(text: str, width: int) -> str:
    """`text` broken between words; what goes on in the next line stands under what the line says, not under its label."""
    out: list[str] = []
    for line in text.splitlines():
        label = re.match(r"(\s*)(method\.\S+ +|[a-z·]([a-z ·]{12}|[a-z ·]{10}) (?=\S))?", line)
        assert label is not None
        indent = " " * (len(label[0]) if len(label[0]) <= width * 3 // 5 else len(label[1]) + 4)
        out += textwrap.wrap(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(out)
