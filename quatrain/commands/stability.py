"""Commands about what runs stand: stress, doctor."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from quatrain.assembly import open_run
from quatrain.commands.running import asked
from quatrain.diagnostics.health import Watch, collapse
from quatrain.diagnostics.records import describe_environment, plain, write_atomic
from quatrain.stress import LAB, Lab, Square
from quatrain.update.checkpoints import Checkpoints


def stress(given: Namespace) -> bool:
    """Run every method under every stress and map what they came to; whether a run has no result."""
    folder = Path(given.out or "runs/stress")
    tree, settings = asked(LAB, given)
    lab = Lab.of(given.methods, given.dials, tree, settings, given.seeds, folder)
    console = Console(highlight=False)
    for (method, cell), why in lab.impossible.items():
        console.print(f"{method} {cell} is left out: {why}", markup=False, soft_wrap=True)
    runs = sum(len(some) for some in lab.trials.values())
    lost = lab.carry_out(given.workers, f"{len(lab.trials)} cells × {given.seeds} seeds, {runs} runs → {folder}")
    squares = dict(lab.squares())
    found = {"cells": [{"method": m, "cell": c, **square.to_json()} for (m, c), square in squares.items()]}
    write_atomic(folder / "map.json", json.dumps(plain(found | describe_environment()), indent=1) + "\n")
    _show(squares, console)
    for (method, cell), why in lost.items():
        console.print(f"{method} {cell} lacks a result: {why}", markup=False, soft_wrap=True)
    console.print(f"map        {folder / 'map.json'}", markup=False, soft_wrap=True)
    return bool(lost)


def doctor(given: Namespace) -> None:
    """Read a run, finished or dead, and say what happened to it, the first thing first."""
    planned, folder = open_run(Path(given.run))
    records = folder.metrics.read()
    console = Console(highlight=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    ended = "finished" if folder.model.is_dir() else "not finished"
    say(f"run        {folder.path}: {len(records)} of {planned.config.steps} steps, {ended}")
    fell = collapse(records)
    say(f"collapse   {f'from step {fell.step}, by its {fell.sign}: {fell.says}' if fell else 'none'}")
    lost = {name: sum(record.get(name) or 0 for record in records) for name in ("rollout/failed", "reward/failed")}
    lost["update/skipped"] = max((record.get("update/skipped") or 0 for record in records), default=0)
    told = [f"{name} {count:.0f}" for name, count in lost.items() if count]
    say(f"failures   {', '.join(told) or 'none'}")
    seen = Watch(records).seen
    say("signs      in the order in which they came" if seen else "signs      none")
    for one in seen:
        say(f"  {one}")
    whole = [step for step in Checkpoints(folder.checkpoints).steps() if seen and step < seen[0].step]
    if whole:
        say(f"before     the checkpoint of step {max(whole)} is from before the first of them")


def _show(squares: Mapping[tuple[str, str], Square], console: Console) -> None:
    """Held-out accuracy at the end by method and stress, and how many runs collapsed."""
    cells = list(dict.fromkeys(cell for _, cell in squares))
    table = Table(title="accuracy at the end, and runs that collapsed", title_justify="left")
    table.add_column("method")
    for cell in cells:
        table.add_column(cell, justify="right")
    for method in dict.fromkeys(method for method, _ in squares):
        table.add_row(method, *(_told(squares.get((method, cell))) for cell in cells))
    console.width = max(console.width, 24 + 14 * len(cells))
    console.print(table)


def _told(square: Square | None) -> str:
    if square is None:
        return "–"
    fell = sum(run.collapse is not None for run in square.runs)
    return f"{square.accuracy.value:.2f}" + (f"  {fell} of {len(square.runs)}" if fell else "")
