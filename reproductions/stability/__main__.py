"""Run the lab, several runs at once, and write the map; every finished run is kept, so the command goes on where it was."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from quatrain import tunnel
from quatrain.claims import Expectation, Verdict
from quatrain.config import TunnelConfig
from quatrain.diagnostics.records import describe_environment, plain
from quatrain.diagnostics.statistics import paired
from quatrain.stress import LAB, Lab, Square
from reproductions.stability import warning
from reproductions.stability.results import CLAIMS, DIALS, EARLY, EFFECT, MAP, METHODS, MORE, SEEDS, THAN


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reproductions.stability", description="Map methods × stresses.")
    parser.add_argument("--folder", default="runs/stability", type=Path, help="where the runs go")
    parser.add_argument("--workers", type=int, help="runs at once, a thread each; default one a core")
    given = parser.parse_args()
    lab = Lab.of(METHODS, [*DIALS, f"reference={reference(given.folder)}"], LAB, [], MORE, given.folder)
    claimed = {(method, claim.cell) for claim in CLAIMS for method in (claim.method, THAN)}
    lab = replace(lab, trials={key: some if key in claimed else some[:SEEDS] for key, some in lab.trials.items()})
    lost = lab.carry_out(given.workers, f"{len(lab.trials)} cells → {given.folder}")
    console = Console(highlight=False)
    for (method, cell), why in lost.items():
        console.print(f"{method} {cell} lacks a result: {why}", markup=False, soft_wrap=True)
    squares = dict(lab.squares())
    claims = [asdict(claim) | judged(squares[claim.method, claim.cell], squares[THAN, claim.cell]) for claim in CLAIMS]
    cells = [{"method": method, "cell": cell, **square.to_json()} for (method, cell), square in squares.items()]
    warning.write([warning.Course.of(trial, *key) for key, some in lab.trials.items() for trial in some if trial.is_over])
    MAP.write_text(json.dumps(plain({"claims": claims, "cells": cells} | describe_environment()), indent=1) + "\n")


def judged(better: Square, than: Square) -> dict[str, Any]:
    """By how much one is more accurate than the other, over the seeds that both have, and what that makes of the claim."""
    first, second = ({run.seed: run.accuracy for run in square.runs} for square in (better, than))
    seeds = sorted(first.keys() & second.keys())
    found = paired([first[seed] for seed in seeds], [second[seed] for seed in seeds])
    expected = Expectation(better=better.runs[0].method, than=than.runs[0].method, smallest_effect=EFFECT)
    return {"difference": vars(found), "verdict": Verdict(expected, found, 0).judgement}


def reference(folder: Path) -> Path:
    """A policy far from the start, in the folder of the runs: it has read less."""
    there = folder / "early"
    if not there.exists():
        shutil.copytree(tunnel.make(TunnelConfig(steps=EARLY)), there)
    return there


if __name__ == "__main__":
    main()
