"""What the lab is asked, and what it found."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

MAP = Path(__file__).with_name("map.json")
WARNING = Path(__file__).with_name("warning.json")

METHODS = (
    "reinforce", "grpo", "dapo", "cispo", "sapo", "gspo", "flowrl", "topr", "tis", "seq_tis", "mis", "icepop", "mini_rl", "areal",
    "hispo", "p1_vl", "minpro", "mhpo", "bapo", "c3po", "aepo", "alp",
)  # fmt: skip
"""Rows that need nothing but answers and their rewards."""
DIALS = ("staleness=4,16", "partial=8", "mismatch=int4", "updates=8", "lr=4", "difficulty=6,1-8", "wrong=0.2", "bad_step=30")
EARLY = 150
"""Steps of pre-training of the reference that is far away; the start has had 700."""
SEEDS, MORE = 3, 10
"""Runs in each cell, and in those that a claim rests on."""
THAN = "grpo"
"""What claims hold a method against."""
EFFECT = 0.05
"""The least difference of held-out accuracy that counts."""


@dataclass(frozen=True)
class Published:
    """That a method learns more than GRPO under a stress."""

    method: str
    cell: str
    says: str


CLAIMS = (
    Published("tis", "mismatch=int4", "a token's weight against the engine, truncated, makes up for the gap"),
    Published("seq_tis", "mismatch=int4", "a whole answer's weight does, as what a token leaves out adds up"),
    Published("mis", "mismatch=int4", "tokens far likelier to the learner are better left out"),
    Published("icepop", "mismatch=int4", "tokens that differ much, either way, are better left out"),
    Published("mini_rl", "mismatch=int4", "a weight against the engine, and a clip by what the update changed"),
    Published("hispo", "mismatch=int4", "engine and learner must agree on the answer and on the token"),
    Published("p1_vl", "mismatch=int4", "answers whose mean ratio is too large are left out, the others weigh in full"),
    Published("alp", "mismatch=int4", "noise learned in the layers keeps the ratio to the engine tame"),
    Published("areal", "staleness=16", "old answers are as good as fresh ones where what bounds the step is not what acted"),
    Published("bapo", "staleness=16", "bounds that move until good answers have their part"),
    Published("minpro", "staleness=16", "the least ratio of the prefix makes a stable correction"),
    Published("mhpo", "updates=8", "hazards of rising and of falling bound the gradient without a kink"),
    Published("c3po", "difficulty=1-8", "as many tokens in every update, where lengths vary"),
    Published("aepo", "lr=4", "bad answers are left out while entropy is too high"),
)
"""What the rows' papers claim, where the lab can ask it."""


def accuracy_map() -> str:
    """Accuracy at the end, the darker the higher, with its interval where the pointer rests."""
    return _heat(lambda cell: (cell["accuracy"]["value"], _told(cell["accuracy"])))


def collapse_map() -> str:
    """The share of runs that collapsed, the darker the more."""
    return _heat(lambda cell: (cell["collapsed"]["value"], _told(cell["collapsed"])))


def published() -> str:
    """What became of each claim."""
    head = "| method | under | says | more accurate than GRPO by | verdict |"
    rows = [
        f"| `{c['method']}` | {c['cell']} | {c['says']} | {_counted(c['difference'])} | **{c['verdict']}** |"
        for c in json.loads(MAP.read_text())["claims"]
    ]
    return "\n".join([head, f"|{'---|' * 5}", *rows])


def _heat(value: Any) -> str:
    cells = {(cell["method"], cell["cell"]): cell for cell in json.loads(MAP.read_text())["cells"]}
    stresses, methods = (list(dict.fromkeys(key[n] for key in cells)) for n in (1, 0))
    head = "".join(f"<th>{escape(name).replace('=', '<br>')}</th>" for name in stresses)
    rows = [f"<tr><th>{name}</th>{''.join(_cell(cells.get((name, s)), value) for s in stresses)}</tr>" for name in methods]
    return "\n".join(['<table class="heat">', f"<tr><th></th>{head}</tr>", *rows, "</table>"])


def _cell(cell: dict[str, Any] | None, value: Any) -> str:
    if cell is None:
        return "<td></td>"
    found, told = value(cell)
    seeds = len(cell["runs"])
    return f'<td style="--heat: {found:.2f}" title="{told}, {seeds} runs">{found:.2f}</td>'


def signs() -> str:
    """The bound that the lab's runs give each sign, and what it foresees alone."""
    rows = [
        f"| `{s['metric']}` | {'above' if s['above'] else 'below'} | {s['bound']:.3g} × {UNITS[s['against']]} | {_tried(s)} |"
        for s in json.loads(WARNING.read_text())["signs"]
    ]
    return "\n".join([f"| metric | is | bound | {TRIED} |", f"|{'---|' * 6}", *rows])


def tried() -> str:
    """All signs together: bounds fitted on other methods, on other stresses, and by rule of thumb."""
    found = json.loads(WARNING.read_text())
    names = ("fitted on other methods", "fitted on other stresses", "by rule of thumb")
    return "\n".join([f"| bounds | {TRIED} |", f"|{'---|' * 4}", *(f"| {name} | {_tried(found[name])} |" for name in names)])


TRIED = "collapses foreseen | steps ahead, the middle half | false alarms"
UNITS = {
    "nothing": "1",
    "first": "the first mean",
    "before": "the mean before",
    "best": "the best mean",
    "median": "the median mean",
}


def _tried(found: dict[str, Any]) -> str:
    ahead = found["steps_ahead"]
    steps = "{1:.0f}, {0:.0f} to {2:.0f}".format(*ahead) if ahead else "–"
    return " | ".join([_counted(found["foreseen"]), steps, _counted(found["false"])])


def _counted(found: dict[str, Any] | None) -> str:
    return f"{_told(found)}, {found['n']} runs" if found else "–"


def _told(found: dict[str, float | None]) -> str:
    low, high = (math.nan if bound is None else bound for bound in (found["low"], found["high"]))
    return f"{found['value']:.2f} [{low:.2f}, {high:.2f}]"
