"""Measure claims about mechanisms and write what was found; what has a result is left alone unless it is named."""

from __future__ import annotations

import argparse
import json
import time

import torch
from rich.console import Console

from quatrain.claims import together
from quatrain.config import nearest
from quatrain.diagnostics.records import describe_environment, write_atomic
from reproductions.mechanisms.results import MECHANISMS, RESULTS, read


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reproductions.mechanisms", description="Measure what mechanisms are said to do."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="claims to measure anew; without one, all that have no result")
    names = parser.parse_args().names
    unknown = [name for name in names if name not in MECHANISMS]
    if unknown:
        parser.error(f"there is no claim {unknown[0]!r}: {nearest(unknown[0], MECHANISMS)}")
    torch.set_num_threads(1)
    console = Console(highlight=False)
    for name in names or [name for name in MECHANISMS if name not in read()["mechanisms"]]:
        claim, began = MECHANISMS[name], time.process_time()
        samples = [claim.sample(seed) for seed in range(claim.seeds)]
        keep(name, {"seconds": round(time.process_time() - began), "samples": samples})
        verdicts = claim.judge(samples)
        console.print(f"{name}: {together(verdicts)}", markup=False)
        for verdict in verdicts:
            console.print(f"  {verdict.judgement}: {verdict}", markup=False, soft_wrap=True)


def keep(name: str, found: dict) -> None:
    """Write what was found beside what was before."""
    every = {**read()["mechanisms"], name: found}
    ordered = {name: every[name] for name in MECHANISMS if name in every}
    write_atomic(
        RESULTS,
        json.dumps({"made_with": describe_environment(), "mechanisms": _short(ordered)}, indent=1, ensure_ascii=False) + "\n",
    )


def _short(value: object) -> object:
    """With six digits of each number."""
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
