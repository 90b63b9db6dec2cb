"""What was measured as the tables and the figure of docs/speed.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.counting import SHAPES, SMOLLM2, Limit, Shape, Sizes, decode, floor, gradient, optimizer, prefill
from benchmarks.drawing import Panel, drawing
from benchmarks.results import REST, RESULTS, ratio, read
from quatrain.diagnostics.evaluation import Estimate
from quatrain.diagnostics.statistics import paired
from tools.markdown import table

Found = dict[str, Any]
"""A file of results; empty before the first run."""

FASTER = {"short": 4.0, "long-prompt": 10.0, "long-answers": 3.0}
"""How many times TRL's speed a step is to have at the least."""
MEMORY, GENERATION, DECODING, UPDATE, SWITCH = 0.5, 3.0, 0.6, 0.75, 0.03
"""At most this share of TRL's peak; at least so many times transformers' speed, this share of the floor's, and of the rate of
matrix products; at most this change of a step."""
UNITS = {
    "answer_tokens": "tokens of an answer",
    "group_size": "answers to a prompt",
    "prompts": "prompts",
    "vocabulary": "tokens of the vocabulary",
    "methods": "methods that take turns",
}


def block(name: str, how: str = "") -> Callable[[Callable[[Found], str]], Callable[[], str]]:
    """A block of the page about one file of results, which may not be there."""

    def of(told: Callable[[Found], str]) -> Callable[[], str]:
        @wraps(told)
        def text() -> str:
            found = _read(name)
            return f"{told(found)}\n\n{_made(found)}" if found else f"Not measured yet: `python -m benchmarks.{how or name}`."

        return text

    return of


def targets() -> str:
    """What was to be reached, and how close it came."""
    head = ["", "wanted", "measured", "reached"]
    return table(head, [*_peer_targets(_read("peers").get("pairs", {})), *_stage_targets(_read("stages"))])


def _peer_targets(pairs: Found) -> Iterator[list[str]]:
    for name, times in FASTER.items():
        done = pairs.get(name, [])
        faster, share = (compared(done, "seconds"), compared(done, "peak_gib", inverse=True)) if done else (None, None)
        yield [f"a step, {_title(name)}: times TRL's speed", f"≥ {times:g}", *_reached(faster, lambda x, n=times: x >= n)]
        yield [f"a step, {_title(name)}: share of TRL's peak", f"≤ {MEMORY:g}", *_reached(share, lambda x: x <= MEMORY)]


def _stage_targets(found: Found) -> Iterator[list[str]]:
    times, share, change = (generation(found), of_floor(found), max(map(abs, switch(found).values()))) if found else (None,) * 3
    yield ["generation: times transformers' speed", f"≥ {GENERATION:g}", *_reached(times, lambda x: x >= GENERATION)]
    yield ["generation: share of the floor's speed", f"≥ {DECODING:.0%}", *_reached(share, lambda x: x >= DECODING)]
    for name in SHAPES:
        part = useful(found, name) if found else None
        what = f"update, {_title(name)}: share of the rate of matrix products"
        yield [what, f"≥ {UPDATE:.0%}", *_reached(part, lambda x: x >= UPDATE)]
    yield ["another method: change of a step", f"< {SWITCH:.0%}", *_reached(change, lambda x: x < SWITCH)]


def _reached(value: Estimate | float | None, enough: Callable[[float], bool]) -> tuple[str, str]:
    if value is None:
        return "–", ""
    number = value.value if isinstance(value, Estimate) else value
    return _shown(value) if isinstance(value, Estimate) else f"{value:.1%}", "yes" if enough(number) else "**no**"


@block("machine")
def machine(found: Found) -> str:
    """What the machine can do, and the floors that follow."""
    limit = Limit(found["rate"]["median"], found["bandwidth"]["median"])
    rows = [[name, " · ".join(map(str, p["shape"])), f"{p['rate'] / 1e9:.0f}"] for name, p in found["products"].items()]
    rate, reading = (
        "{:.0f}·10⁹ a second ({:.0f} to {:.0f} in the run)".format(*_billions(found[k])) for k in ("rate", "bandwidth")
    )
    floors = []
    for name, shape in SHAPES.items():
        first, last = {"prefill": [prefill(SMOLLM2, shape)], "decoding": decode(SMOLLM2, shape)}, [optimizer(SMOLLM2)]
        for stage, works in (first | {"gradient": [gradient(SMOLLM2, shape)], "AdamW": last}).items():
            counts = (f"{sum(getattr(w, kind) for w in works) / 1e9:,.0f}" for kind in ("operations", "bytes"))
            floors.append([_title(name), stage, *counts, f"{floor(works, limit):.2f}"])
    products = table(["matrix product", "m · k · n", "10⁹ operations a second"], rows)
    least = table(["step", "stage", "10⁹ operations", "10⁹ bytes", "seconds at the least"], floors)
    return "\n\n".join([f"Operations of a matrix product: {rate}. Bytes read from memory: {reading}.", products, least])


def _billions(spread: dict[str, float]) -> list[float]:
    return [value / 1e9 for value in spread.values()]


def _stages(found: Found) -> str:
    """Generation, update and methods."""
    shape, n = Shape(**found["generation"]), len(found["rounds"])
    ours, theirs = (_median(found, f"generation/{side}") for side in ("quatrain", "transformers"))
    sides = {"`quatrain`": ours, "`transformers.generate`": theirs, "the floor": ours * of_floor(found)}
    written = shape.answers * shape.answer_tokens
    writing = [[side, f"{s:.2f}", f"{written / s:.0f}", f"{sides['the floor'] / s:.0%}"] for side, s in sides.items()]
    updates, sizes = [], Sizes(**found["sizes"])
    for name, step in ((name, Shape(**sides)) for name, sides in found["shapes"].items()):
        operations, seconds = gradient(sizes, step).operations / 1e9, _median(found, f"update/{name}")
        speeds = (f"{operations:,.0f}", f"{seconds:.2f}", f"{operations / seconds:.0f}", f"{useful(found, name):.0%}")
        updates.append([_title(name, step), *speeds])
    methods = [[f"`{name}`", f"{_median(found, f'method/{name}'):.2f}", f"{more:+.1%}"] for name, more in switch(found).items()]
    rate = f"{_limit(found).rate / 1e9:.0f}·10⁹ operations a second"
    return "\n\n".join(
        [
            f"Generation, {shape}; medians of {n} rounds, as all that follows:",
            table(["side", "seconds", "tokens a second", "of the floor's speed"], writing),
            f"{GENERATION:g} times transformers' speed would be {GENERATION * sides['the floor'] / theirs:.0%} of the floor's.",
            f"Update, while matrix products ran at {rate}:",
            table(["step", "10⁹ useful operations", "seconds", "10⁹ a second", "of the rate of matrix products"], updates),
            "Methods: the update of the short step, and by how much the whole step is longer than with the first.",
            table(["method", "update, seconds", "a step"], methods),
            *_profile(found),
        ]
    )


def _profile(found: Found) -> Iterator[str]:
    """Where the time of each stage goes."""
    rows = []
    for stage, taken in found.get("profile", {}).items():
        whole, shape = sum(taken.values()), stage.removeprefix("update/")
        title = f"update, {_title(shape, Shape(**found['shapes'][shape]))}" if shape in found["shapes"] else stage
        shares = (f"{name if name in REST else f'`{name}`'} {seconds / whole:.0%}" for name, seconds in taken.items())
        rows.append([title, f"{whole:.2f}", ", ".join(shares)])
    if rows:
        yield "Where the time goes, under PyTorch's profiler:"
        yield table(["", "seconds", "operations of PyTorch, and what is outside of any"], rows)


stages, gpu = block("stages")(_stages), block("gpu", how="stages")(_stages)


@block("peers")
def peers(found: Found) -> str:
    """Steps by turns, and what was tried for TRL."""
    rows, tried = [], []
    keys = {"rollout": ".2f", "update": ".2f", "seconds": ".2f", "speed": ".0f", "peak_gib": ".2f"}
    for name, pairs in found["pairs"].items():
        for side in ("quatrain", "trl"):
            told = [pair[side] | {"speed": pair[side]["tokens"] / pair[side]["seconds"]} for pair in pairs]
            figures = (f"{median(step[key] for step in told):{form}}" for key, form in keys.items())
            rows.append([f"{_title(name)}: `{side}`", *figures])
        each = {key: _shown(compared(pairs, key)) if key != "speed" else "" for key in keys}
        rows.append([f"TRL's over ours, {len(pairs)} pairs", *each.values()])
    for name, steps in found["tried"].items():
        for title, step in steps.items():
            failed = step.get("failure", "").replace("|", "/")
            figures = [failed, ""] if failed else [f"{step['seconds']:.2f}", f"{step['peak_gib']:.2f}"]
            tried.append([f"{_title(name)}: {title}", *figures])
    head = ["", "generation, s", "update, s", "a step, s", "tokens/s", "peak, GiB"]
    told = ["What was tried for TRL, one first step of each:", table(["settings", "a step, s", "peak, GiB"], tried)]
    return "\n\n".join([table(head, rows), *(told if tried else [])])


@block("peers")
def learning(found: Found) -> str:
    """What both sides learned from the same prompts: mean rewards of ten steps each."""
    runs, settings, rows = found["learning"]["runs"], found["learning"]["settings"], []
    if not runs:
        return "Not measured yet."
    for first in range(0, settings["steps"], 10):
        ours, theirs = ([fmean(run[side][first : first + 10]) for run in runs] for side in ("quatrain", "trl"))
        steps = f"{first + 1} to {min(first + 10, settings['steps'])}"
        rows.append([steps, f"{fmean(ours):.3f}", f"{fmean(theirs):.3f}", _shown(paired(ours, theirs), "+.3f")])
    batch = f"{settings['prompts_per_step']} × {settings['group_size']} answers a step, learning rate {settings['lr']:g}"
    said = f"Mean rewards of `{settings['model']}` on `{settings['task']}`, {batch}; over {len(runs)} seeds."
    return "\n\n".join([said, table(["steps", "`quatrain`", "`trl`", "difference"], rows)])


@block("growth")
def growth(found: Found) -> str:
    """By how much time and memory grow, in a table."""
    rows, base = [], found["base"]
    for name, points in grown(found).items():
        x = [point["value"] for point in points]
        cells = [f"{x[0]:,} to {x[-1]:,}"]
        for key, unit, factor in (("seconds", "ms", 1e3), ("peak_gib", "MiB", 2**10)):
            y = [point[key] for point in points]
            cells += [f"{y[0]:.2f} to {y[-1]:.2f}", f"{np.polyfit(x, y, 1)[0] * factor:.3g} {unit}", f"{exponent(x, y):.2f}"]
        rows.append([UNITS[name], *cells])
    said = (
        f"A step of {base['prompts']} prompts × {base['group_size']} answers of {base['answer_tokens']} tokens, a vocabulary of "
        f"{base['vocabulary']:,} and one method, of which one number grows. *Each* is what one more costs, by a straight line "
        "through the points, and *power* that with which the whole grows, by a straight line through their logarithms."
    )
    head = ["what grows", "from, to", "seconds", "each", "power", "peak, GiB", "each", "power"]
    return "\n\n".join([said, table(head, rows)])


def growth_curves() -> str:
    """The same as curves: time above, memory below."""
    lines, panels = grown(_read("growth")), []
    for key, what in (("seconds", "seconds"), ("peak_gib", "GiB")):
        for name, points in lines.items():
            x, y = ([point[which] for point in points] for which in ("value", key))
            panels.append(Panel(f"{what}, power {exponent(x, y):.2f}", UNITS[name], x, y))
    return drawing(panels, max(1, len(lines)))


def grown(found: Found) -> dict[str, list[dict[str, Any]]]:
    """The points by what grows; one alone has no slope."""
    by_name = {name: [point for point in found.get("points", []) if point["grows"] == name] for name in UNITS}
    return {name: points for name, points in by_name.items() if len(points) > 1}


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The power of x that y grows with."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def compared(pairs: Sequence[dict[str, Any]], key: str, *, inverse: bool = False) -> Estimate:
    """TRL's over ours, or ours over TRL's."""
    theirs, ours = ([pair[side][key] for pair in pairs] for side in ("trl", "quatrain"))
    return ratio(ours, theirs) if inverse else ratio(theirs, ours)


def generation(found: Found) -> Estimate:
    """How many times transformers' speed generation has."""
    return ratio(*([each[f"generation/{side}"] for each in found["rounds"]] for side in ("transformers", "quatrain")))


def of_floor(found: Found) -> float:
    """The share of the floor's speed that generation has."""
    shape, sizes = Shape(**found["generation"]), Sizes(**found["sizes"])
    return floor([prefill(sizes, shape), *decode(sizes, shape)], _limit(found)) / _median(found, "generation/quatrain")


def useful(found: Found, name: str) -> float:
    """The share of the rate of matrix products that an update's useful operations come to."""
    operations = gradient(Sizes(**found["sizes"]), Shape(**found["shapes"][name])).operations
    return operations / _median(found, f"update/{name}") / _limit(found).rate


def switch(found: Found) -> dict[str, float]:
    """By how much a step with each method is longer than with the first: what changes is the update, round by round."""
    names = [key.removeprefix("method/") for key in found["rounds"][0] if key.startswith("method/")]
    step = _median(found, "generation/quatrain") + _median(found, f"method/{names[0]}")
    return {
        name: median(each[f"method/{name}"] - each[f"method/{names[0]}"] for each in found["rounds"]) / step for name in names
    }


def _limit(found: Found) -> Limit:
    return Limit(_median(found, "rate"), _median(found, "bandwidth"))


def _median(found: Found, name: str) -> float:
    return median(each[name] for each in found["rounds"])


def _read(name: str) -> Found:
    return read(RESULTS / f"{name}.json")


def _title(name: str, shape: Shape | None = None) -> str:
    return f"{name.replace('-', ' ')} ({shape or SHAPES[name]})"


def _shown(value: Estimate, form: str = ".2f") -> str:
    """A value with its interval, if it has one."""
    return format(value, form) if math.isfinite(value.high) else f"{value.value:{form}}"


def _made(found: Found) -> str:
    made = found["made_with"]
    versions = ", ".join(f"{name} {made[name]}" for name in ("torch", "transformers", "trl") if name in made)
    hardware = f"{made['processor']}; {made['cpus']} cores, {made['threads']} threads, {made['memory_gib']} GiB"
    return f"{hardware}; {versions}, Python {made['python']}."
