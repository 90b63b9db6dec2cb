"""What a run leaves on disk, so that whatever kills the process, a reader finds whole records and a resumed run repeats none."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from quatrain.config import ConfigError


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder (created, renamed, removed files) survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: scalars of NumPy and torch as Python's, numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "item"):
        return plain(value.item())
    return value


@dataclass(frozen=True)
class JsonLines:
    """Records in a file, one JSON object a line, only ever added to.

    A line counts once its newline is on disk: what a killed process left after the last newline is not read and is cut off by
    the next write.
    """

    path: Path

    def append(self, *records: Mapping[str, Any]) -> None:
        """Add records, on disk when this returns. Numbers that are not finite become null."""
        lines = "".join(json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)
        new = not self.path.exists()
        with self.path.open("ab+") as file:
            file.truncate(_whole(file))
            file.write(lines.encode(errors="replace"))
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync_folder(self.path.parent)

    def read(self) -> list[dict[str, Any]]:
        """All records, oldest first; none where the file does not exist."""
        if not self.path.exists():
            return []
        *whole, _torn = self.path.read_bytes().split(b"\n")
        records = []
        for number, line in enumerate(whole, start=1):
            try:
                records.append(json.loads(line))
            except ValueError:
                raise ConfigError(
                    f"{self.path} is damaged: line {number} is not JSON ({line[:40]!r}); remove that line"
                ) from None
        return records

    def truncate_after(self, step: int) -> None:
        """Forget what was recorded after `step`: a run resumed from the checkpoint of step k has done steps 1 to k."""
        records = self.read()
        kept = [record for record in records if record["step"] <= step]
        if len(kept) < len(records):
            write_atomic(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The metrics of each step, from a run folder or from its metrics.jsonl."""
    return JsonLines(path / "metrics.jsonl" if path.is_dir() else path).read()


@dataclass(frozen=True)
class RunFolder:
    """A run's folder and what is where in it."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """The versions and the machine the run was last started with."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> JsonLines:
        """One record per step."""
        return JsonLines(self.path / "metrics.jsonl")

    @property
    def rollouts(self) -> JsonLines:
        """Some rollouts of each step, as text."""
        return JsonLines(self.path / "rollouts.jsonl")

    @property
    def evaluations(self) -> JsonLines:
        """One record per evaluation; the one before training is of step 0."""
        return JsonLines(self.path / "evaluations.jsonl")

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model, written at the end."""
        return self.path / "model"

    @property
    def is_run(self) -> bool:
        return self.config.is_file()

    def create(self, config: str, *, resume: bool = False) -> None:
        """Make the folder with its config.yaml (the text `config`) and environment.json; with `resume` it must be a run already.

        Raises:
            ConfigError: the folder is taken, or there is no run in it to resume.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is a file, not a folder: choose another --out")
        if resume and not self.is_run:
            raise ConfigError(f"there is no run in {self.path} to resume (no config.yaml): check --out, or leave out --resume")
        if self.is_run and not resume:
            raise ConfigError(f"{self.path} holds a run already: continue it with --resume, or choose another --out")
        if not resume and self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is not empty and not a run: choose another --out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"the folder {self.path} cannot be made ({error.strerror}): choose another --out") from None
        write_atomic(self.config, config)
        write_atomic(self.environment, json.dumps(describe_environment(), indent=2) + "\n")
        self.checkpoints.mkdir(exist_ok=True)

    def truncate_after(self, step: int) -> None:
        """Forget the metrics, rollouts and evaluations recorded after `step`."""
        for records in (self.metrics, self.rollouts, self.evaluations):
            records.truncate_after(step)


def default_run_path(method: str, task: str, root: Path = Path("runs")) -> Path:
    """``runs/<date>-<method>-<task>-<n>``, with the first n that is free."""
    short = Path(task.rpartition(":")[2]).stem
    name = "-".join([date.today().isoformat(), *(re.sub(r"[^\w.]+", "_", part).strip("_.") or "run" for part in (method, short))])
    number = 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"


def describe_environment(*packages: str) -> dict[str, str]:
    """What, besides the configuration, can change a run's numbers: the machine and the versions of what computes.

    `packages` are further ones, for numbers that are made of runs.
    """
    versions = {}
    known = ("quatrain", "torch", "transformers", "peft", "safetensors", "numpy", "reasoning-gym", "math-verify")
    for package in (*known, *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"python": platform.python_version(), "platform": platform.platform(), "cpus": str(os.cpu_count()), **versions}


def _whole(file: Any) -> int:
    """Where the last whole line of an open binary file ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
