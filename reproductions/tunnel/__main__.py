"""Measure the start on every family at every level, then the speed of a run on one core, and write both."""

from __future__ import annotations

import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console

import quatrain
from quatrain import tunnel
from quatrain.config import TunnelConfig, load
from quatrain.diagnostics.progress import Progress
from quatrain.diagnostics.records import read_metrics
from quatrain.prompts import FAMILIES
from quatrain.review import measure_model
from reproductions.tunnel.results import LEVELS, METHODS, PROBLEMS, RESULTS, SAMPLES, SPEED, STEPS


def main() -> None:
    torch.set_num_threads(1)
    seconds = made_in()
    start = {name: [accuracy(name, level) for level in LEVELS] for name in FAMILIES}
    speeds = [speed(method) for method in METHODS]
    made = {"torch": torch.__version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    RESULTS.write_text(json.dumps({"made_with": made, "made_in": seconds, "start": start, "speed": speeds}, indent=1) + "\n")


def made_in() -> float:
    """Seconds of one core that pre-training takes; it is done anew."""
    began = time.process_time()
    tunnel.pretrain(TunnelConfig())
    return time.process_time() - began


def accuracy(family: str, level: int) -> list[float]:
    """The share of right answers drawn at temperature 1, and its 95 % interval."""
    settings = [f"evaluate.problems={PROBLEMS[level]}", f"evaluate.samples={SAMPLES}", "engine.max_sequences=256", "threads=1"]
    found = measure_model("tunnel", f"written:{family}?{FAMILIES[family].dial}={level}", settings).accuracy
    return [found.value, found.low, found.high]


def speed(method: str) -> dict[str, float | str]:
    """Medians over the steps of a run, and the seconds of processor time that one step takes, rewards included."""
    with tempfile.TemporaryDirectory() as folder, Progress(STEPS, method, console=Console(quiet=True)) as progress:
        config = load(SPEED | {"method": method, "steps": STEPS, "out": str(Path(folder) / "run")})
        began = _processor_seconds()
        quatrain.train(config, progress=progress)
        ended = _processor_seconds()
        records = read_metrics(Path(folder) / "run")
    stages = {
        stage: median(record[f"seconds/{stage}"] for record in records) for stage in ("rollout", "reward", "update", "total")
    }
    return {"method": method, **stages, "processor": (ended - began) / STEPS}


def _processor_seconds() -> float:
    """Of this process, and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


if __name__ == "__main__":
    main()
