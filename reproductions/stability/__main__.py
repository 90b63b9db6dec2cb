"""Run the lab, several runs at once, and write the map; every finished run is kept, so the command goes on where it was."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from rich.console import Console

from quatrain import tunnel
from quatrain.config import TunnelConfig
from quatrain.diagnostics.records import describe_environment, plain
from quatrain.stress import LAB, Lab
from reproductions.stability import warning
from reproductions.stability.results import DIALS, EARLY, MAP, METHODS, SEEDS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reproductions.stability", description="Map methods × stresses.")
    parser.add_argument("--folder", default="runs/stability", type=Path, help="where the runs go")
    parser.add_argument("--workers", type=int, help="runs at once, a thread each; default one a core")
    given = parser.parse_args()
    lab = Lab.of(METHODS, [*DIALS, f"reference={reference(given.folder)}"], LAB, [], SEEDS, given.folder)
    lost = lab.carry_out(given.workers, f"{len(lab.trials)} cells × {SEEDS} seeds → {given.folder}")
    console = Console(highlight=False)
    for (method, cell), why in lost.items():
        console.print(f"{method} {cell} lacks a result: {why}", markup=False, soft_wrap=True)
    cells = [{"method": method, "cell": cell, **square.to_json()} for (method, cell), square in lab.squares()]
    warning.write([warning.Course.of(trial, *key) for key, some in lab.trials.items() for trial in some if trial.is_over])
    MAP.write_text(json.dumps(plain({"cells": cells} | describe_environment()), indent=1) + "\n")


def reference(folder: Path) -> Path:
    """A policy far from the start, in the folder of the runs: it has read less."""
    there = folder / "early"
    if not there.exists():
        shutil.copytree(tunnel.make(TunnelConfig(steps=EARLY)), there)
    return there


if __name__ == "__main__":
    main()
