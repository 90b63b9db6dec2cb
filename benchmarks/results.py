"""Where what was measured lies, on which machine it was, and how two sides compare."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from quatrain.diagnostics.evaluation import Estimate
from quatrain.diagnostics.records import describe_environment, plain, write_atomic
from quatrain.diagnostics.statistics import paired

RESULTS = Path(__file__).with_name("results")
QUICK = Path("runs/benchmarks")
"""Where a quick try writes."""
REST = ("others", "outside")
"""What a profile has beside the operations that it names: those that it does not, and what is none."""


def arguments(name: str, about: str) -> argparse.ArgumentParser:
    """Those that all benchmarks have."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--quick", action="store_true", help=f"show that it works, on next to nothing; writes into {QUICK}")
    parser.add_argument("--threads", default=os.cpu_count() or 1, type=int, help="of PyTorch")
    parser.add_argument("--results", type=Path, help=f"the folder to write into, {RESULTS.parent.name}/{RESULTS.name} by default")
    return parser


def place(given: argparse.Namespace, name: str) -> Path:
    """The file that a command writes."""
    folder = given.results or (QUICK if given.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.json"


def read(path: Path) -> dict[str, Any]:
    """What was measured; nothing before that."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, found: dict[str, Any]) -> None:
    """Leave it whole."""
    write_atomic(path, json.dumps(plain(found), indent=1, ensure_ascii=False) + "\n")


def machine(threads: int) -> dict[str, str]:
    """The machine and the versions of what computes."""
    return describe_environment() | hardware(threads)


def hardware(threads: int) -> dict[str, str]:
    """The machine, and how much of it is used."""
    found = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    cpu = {key.strip(): value.strip() for key, value in found.items()}
    known = [cpu.get("model name", "unknown"), f"family {cpu.get('cpu family')}", f"model {cpu.get('model')}"]
    vectors = next((name for name in ("avx512f", "avx2", "asimd") if name in cpu.get("flags", "").split()), "")
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    processor = ", ".join([*known, *filter(None, [vectors, gpu])])
    return {"processor": processor, "memory_gib": f"{size / 2**30:.1f}", "threads": str(threads)}


def ratio(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """median(first) / median(second), with the 95 % interval of the ratio of a pair.

    exp(mean(log a − log b) ± t(0.975, n − 1)·s/√n)
    """
    logs = paired(np.log(first), np.log(second))
    low, high = (math.exp(bound) if bound < math.inf else math.inf for bound in (logs.low, logs.high))
    return Estimate(median(first) / median(second), low, high, logs.n)
