"""Train rows, several at once, and write what became of them; every finished run is kept, so the command goes on where it was."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import shutil
from pathlib import Path

import torch
from rich.console import Console

from quatrain.experiment import carry_out
from reproductions.rows.experiment import SEEDS, Place, arms, digits_of
from reproductions.rows.results import RESULTS, read, summary


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reproductions.rows", description="Train every row on a task it can learn.")
    parser.add_argument("arms", nargs="*", help="methods' ids, with settings if in quotes; those trained before are trained anew")
    parser.add_argument("--folder", default="runs/rows", type=Path, help="where the runs go")
    parser.add_argument("--workers", default=os.cpu_count() or 1, type=int, help="runs at once, a thread each")
    given = parser.parse_args()
    place, console = Place(given.folder), Console(highlight=False)
    order = arms()
    done = [r for r in read()["runs"] if r["row"] in order and r["row"] not in given.arms]
    known = {(r["row"], r["seed"]) for r in done}
    wanted = [(name, seed) for seed in SEEDS for name in given.arms or order if (name, seed) not in known]
    for arm, seed in itertools.product(given.arms, SEEDS):
        shutil.rmtree(place.out(arm, seed), ignore_errors=True)
    place.prepare(given.workers)
    trials = [place.trial(*pair) for pair in wanted]
    for trial, failure in carry_out(trials, given.workers, f"{len(wanted)} runs → {given.folder}"):
        if failure:
            console.print(f"{trial.arm.name} seed {trial.seed} has no result: {failure}", markup=False)
        else:
            done.append(digits_of(trial))
            done.sort(key=lambda r: (order.index(r["row"]), r["seed"]))
            write(done)
    for row in summary(read()["runs"]):
        console.print(f"{row.name:<28}{row.gain:+.2f}  {row.verdict}")


def write(runs: list[dict]) -> None:
    made = {"torch": torch.__version__, "python": platform.python_version(), "processor": platform.machine()}
    lines = ",\n".join("  " + json.dumps(run) for run in runs)
    RESULTS.write_text(f'{{"made_with": {json.dumps(made)}, "runs": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
