"""The map and the signs as the documentation shows them; each says so where nothing has been run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reproductions.stability.results import CLAIMS, EFFECT, MAP, THAN, WARNING
from tools.markdown import table

Told = Mapping[str, Any]
"""A value with its interval and its number of runs, as JSON holds an estimate."""
Cell = Mapping[str, Any]

NOTHING = "Not run yet."
CLAIMED = {(claim.method, claim.cell) for claim in CLAIMS}
UNITS = {
    "nothing": "",
    "first": " × the first mean",
    "before": " × the mean ten steps ago",
    "best": " × the best mean",
    "median": " × the median mean",
}
TRIED = ("collapses foreseen", "steps ahead", "false alarms")


def made() -> str:
    """What the map took."""
    if not (found := _read(MAP)):
        return NOTHING
    runs, (where,) = [run for cell in found["cells"] for run in cell["runs"]], found["made_with"]
    steps, hours = sum(run["steps"] for run in runs), sum(run["seconds"] for run in runs) / 3600
    return (
        f"{len(runs)} runs, {steps:,} steps and {hours:.1f} hours of one thread each, "
        f"with torch {where['torch']} and Python {where['python']} on {where['cpus']} CPUs."
    )


def accuracy_map() -> str:
    """Held-out accuracy at the end, the darker the higher."""
    found = [cell["accuracy"]["value"] for cell in (_read(MAP) or {"cells": []})["cells"]]
    low, reach = (min(found), max(found) - min(found)) if found else (0.0, 0.0)
    return _heat("accuracy", lambda value: (value - low) / reach if reach else 0.0)


def collapse_map() -> str:
    """The share of runs that collapsed, the darker the more."""
    return _heat("collapsed", lambda value: value)


def published() -> str:
    """What became of each claim."""
    if not (found := _read(MAP)):
        return NOTHING
    rows = [
        [
            f"`{c['method']}`",
            c["cell"],
            c["says"],
            _estimate(c["difference"], "+.2f"),
            _runs(c["difference"]),
            f"**{c['verdict']}**",
        ]
        for c in found["claims"]
    ]
    return table(["method", "under", "says", f"more accurate than `{THAN}` by", "seeds", "verdict"], rows)


def which() -> str:
    """For each stress, which methods are more and which less accurate than the one that all are held against."""
    if not (found := _read(MAP)):
        return NOTHING
    rows = []
    for stress, cells in _by(found, "cell").items():
        plain = next((_estimate(cell["accuracy"], ".2f") for cell in cells if cell["method"] == THAN), "–")
        known = [cell for cell in cells if cell["difference"] and None not in cell["difference"].values()]
        better = [cell for cell in known if cell["difference"]["low"] >= EFFECT]
        worse = [cell for cell in known if cell["difference"]["high"] <= -EFFECT]
        fell = [f"`{cell['method']}` {_share(cell)}" for cell in cells if cell["collapsed"]["value"]]
        rows.append([f"`{stress}`", plain, _by_how_much(better), _by_how_much(worse), ", ".join(fell) or "none"])
    return table(["under", f"`{THAN}`", "more accurate", "less accurate", "runs that collapsed"], rows)


def cells() -> str:
    """Every cell with its intervals, stress by stress."""
    if not (found := _read(MAP)):
        return NOTHING
    head = ["method", "accuracy", f"more than `{THAN}` by", "runs that collapsed"]
    tables = []
    for stress, some in _by(found, "cell").items():
        rows = [
            [
                f"`{cell['method']}`",
                _estimate(cell["accuracy"], ".2f"),
                "" if cell["method"] == THAN else _estimate(cell["difference"], "+.2f"),
                f"{_share(cell)}: {_estimate(cell['collapsed'], '.2f')}",
            ]
            for cell in some
        ]
        tables.append(f"### {stress}\n\n{table(head, rows)}")
    return "\n\n".join(tables)


def signs() -> str:
    """The bound that the lab's runs give each sign, and what it foresees alone."""
    if not (found := _read(WARNING)):
        return NOTHING
    rows = [
        [
            f"`{sign['metric']}`",
            f"{'above' if sign['above'] else 'below'} {sign['bound']:.2g}{UNITS[sign['against']]}",
            *_tried(sign),
        ]
        for sign in found["signs"]
    ]
    return table(["the mean of", "is", *TRIED], rows)


def tried() -> str:
    """All signs together: bounds fitted on other methods, on other stresses, on neither, and by rule of thumb."""
    if not (found := _read(WARNING)):
        return NOTHING
    rows = [[f"fitted on {one['on']}", f"{one['rate']:.0%}", *_tried(one)] for one in found["tried"]]
    return table(["bounds", "of healthy runs leave each", *TRIED], [*rows, ["by rule of thumb", "", *_tried(found["thumb"])]])


def _heat(name: str, heat: Callable[[float], float]) -> str:
    """A table of methods × stresses by one figure of their cells, with its number of runs; cells of claims are marked."""
    if not (found := _read(MAP)):
        return NOTHING
    known = {(cell["method"], cell["cell"]): cell for cell in found["cells"]}
    stresses = list(_by(found, "cell"))
    head = "".join(f"<th>{stress.replace('=', '<br>')}</th>" for stress in stresses)
    lines = [f'<table class="heat {name}">', f"<tr><th></th>{head}</tr>"]
    for method in _by(found, "method"):
        row = (_square(known.get((method, stress)), name, heat) for stress in stresses)
        lines.append(f"<tr><th>{method}</th>{''.join(row)}</tr>")
    return "\n".join([*lines, "</table>"])


def _square(cell: Cell | None, name: str, heat: Callable[[float], float]) -> str:
    if cell is None:
        return "<td></td>"
    told, runs = cell[name], len(cell["runs"])
    marked = ' class="claimed"' if (cell["method"], cell["cell"]) in CLAIMED else ""
    title = f"{cell['method']}, {cell['cell']}: {_estimate(told, '.2f')}, {runs} run{'s' * (runs != 1)}"
    return f'<td{marked} style="--heat: {heat(told["value"]):.2f}" title="{title}">{told["value"]:.2f}<sub>{runs}</sub></td>'


def _by(found: Mapping[str, Any], name: str) -> dict[str, list[Cell]]:
    """The cells by their method, or by what is done to it."""
    return {key: [cell for cell in found["cells"] if cell[name] == key] for key in dict.fromkeys(c[name] for c in found["cells"])}


def _by_how_much(some: list[Cell]) -> str:
    ordered = sorted(some, key=lambda cell: -abs(cell["difference"]["value"]))
    return ", ".join(f"`{cell['method']}` {_estimate(cell['difference'], '+.2f')}" for cell in ordered) or "none"


def _share(cell: Cell) -> str:
    return f"{sum(bool(run['collapse']) for run in cell['runs'])} of {len(cell['runs'])}"


def _tried(found: Mapping[str, Any]) -> list[str]:
    ahead = found["steps_ahead"]
    steps = "{1:.0f} ({0:.0f} to {2:.0f})".format(*ahead) if ahead else "–"
    return [_counted(found["foreseen"]), steps, _counted(found["false"])]


def _counted(found: Told | None) -> str:
    return f"{round(found['value'] * found['n'])} of {found['n']}: {_estimate(found, '.2f')}" if found else "–"


def _runs(found: Told | None) -> str:
    return str(found["n"]) if found else "0"


def _estimate(found: Told | None, form: str) -> str:
    """A value with its interval, which a single run does not have."""
    if found is None:
        return "–"
    value, *ends = (found[name] if found[name] is None else format(found[name], form) for name in ("value", "low", "high"))
    return value if None in ends else f"{value} [{', '.join(ends)}]"


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None
