"""Run the lab, several runs at once, and write the map; every finished run is kept, so the command goes on where it was."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from quatrain import tunnel
from quatrain.claims import Expectation, Verdict
from quatrain.config import TunnelConfig
from quatrain.diagnostics.evaluation import Estimate
from quatrain.diagnostics.records import describe_environment, plain
from quatrain.diagnostics.statistics import paired
from quatrain.stress import LAB, Lab, Square
from reproductions.stability import warning
from reproductions.stability.results import CLAIMS, DEAR, DIALS, EARLY, EFFECT, FEW, MAP, METHODS, MORE, SEEDS, THAN, Published


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reproductions.stability", description="Map methods × stresses.")
    parser.add_argument("--folder", default="runs/stability", type=Path, help="where the runs go")
    parser.add_argument("--workers", type=int, help="runs at once, a thread each; default one a core")
    parser.add_argument("--only-read", action="store_true", help="run nothing, and map what is there")
    given = parser.parse_args()
    most = Lab.of(METHODS, [*DIALS, f"reference={reference(given.folder)}"], LAB, [], MORE, given.folder)
    few = Lab.of(FEW, DEAR, LAB, [], SEEDS, given.folder)
    lab = Lab(few.trials | most.trials, few.impossible | most.impossible)
    claimed = {(method, claim.cell) for claim in CLAIMS for method in (claim.method, THAN)}
    lab = replace(lab, trials={key: some if key in claimed else some[:SEEDS] for key, some in lab.trials.items()})
    lost = {} if given.only_read else lab.carry_out(given.workers, f"{len(lab.trials)} cells → {given.folder}")
    console = Console(highlight=False)
    for (method, cell), why in lost.items():
        console.print(f"{method} {cell} lacks a result: {why}", markup=False, soft_wrap=True)
    for cell, why in {cell: why for (_, cell), why in few.impossible.items()}.items():
        console.print(f"{cell} stays as it was: {why}", markup=False, soft_wrap=True)
    write(dict(lab.squares()), few.impossible)
    warning.write([warning.Course.of(trial, *key) for key, some in lab.trials.items() for trial in some if trial.is_over])


def write(squares: Mapping[tuple[str, str], Square], absent: Collection[tuple[str, str]]) -> None:
    """Keep the map by method and cell, a cell a line, and what became of the claims; cells that are `absent` stay."""
    found = {key: against(square, squares.get((THAN, key[1]))) for key, square in squares.items()}
    claims = [asdict(claim) | judged(claim, found.get((claim.method, claim.cell))) for claim in CLAIMS]
    cells = [
        {"method": method, "cell": cell, "difference": _plain(found[method, cell])} | square.to_json()
        for (method, cell), square in squares.items()
    ]
    if MAP.exists():
        cells += [cell for cell in json.loads(MAP.read_text())["cells"] if (cell["method"], cell["cell"]) in absent]
    parts = {"made_with": [describe_environment()], "claims": claims, "cells": cells}
    told = (f'"{name}": [\n' + ",\n".join(json.dumps(plain(one)) for one in some) + "\n]" for name, some in parts.items())
    MAP.write_text("{" + ",\n".join(told) + "}\n")


def against(square: Square, than: Square | None) -> Estimate | None:
    """By how much one is more accurate than the other, over the seeds that both have."""
    first, second = ({run.seed: run.accuracy for run in one.runs} if one else {} for one in (square, than))
    seeds = sorted(first.keys() & second.keys())
    return paired([first[seed] for seed in seeds], [second[seed] for seed in seeds]) if seeds else None


def judged(claim: Published, found: Estimate | None) -> dict[str, Any]:
    """What a difference makes of a claim, which stays open until all runs are there."""
    expected = Expectation(better=claim.method, than=THAN, smallest_effect=EFFECT)
    missing = MORE - (found.n if found else 0)
    return {"difference": _plain(found), "verdict": Verdict(expected, found, missing).judgement}


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return vars(found) if found else None


def reference(folder: Path) -> Path:
    """A policy far from the start, in the folder of the runs: it has read less."""
    there = folder / "early"
    if not there.exists():
        shutil.copytree(tunnel.make(TunnelConfig(steps=EARLY)), there)
    return there


if __name__ == "__main__":
    main()
