"""Checkpoints: whole or not there, checked when read, and enough to go on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from quatrain.update.learner import PROCESS, Learner

MANIFEST = "checkpoint.json"
UNDER_WAY = "under_way.safetensors"
ROLLED_BACK = "rolled_back_to"
"""In the metrics of a step after which the weights of an earlier one were taken up again: of which one."""


@dataclass(frozen=True)
class Checkpoints:
    """The folder of a run's checkpoints: ``step-000020/`` with ``model/``, ``optimizer.safetensors`` and ``checkpoint.json``."""

    folder: Path
    keep: int = 2

    def save(
        self,
        step: int,
        learner: Learner,
        state: dict[str, Any],
        under_way: dict[str, torch.Tensor] | None = None,
        *,
        spare: int | None = None,
    ) -> Path:
        """Write the checkpoint of `step` (steps 1 to `step` are done), then remove the oldest beyond `keep`, but not `spare`.

        It is written beside its place and renamed when it is whole. `state` holds JSON values, and
        `under_way` the tensors of answers that are not learned from yet.
        """
        place = self.folder / f"step-{step:06d}"
        work = self.folder / f".{place.name}.partial"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        learner.policy.save(work / "model")
        if learner.process is not None:
            learner.process.policy.save(work / PROCESS)
        tensors, counters = learner.state()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work / "optimizer.safetensors")
        if under_way:
            save_file(under_way, work / UNDER_WAY)
        files = sorted(path for path in work.rglob("*") if path.is_file())
        manifest = {
            "step": step,
            "learner": counters,
            "fingerprint": learner.fingerprint(),
            "state": state,
            "sha256": {str(path.relative_to(work)): _digest(path) for path in files},
        }
        (work / MANIFEST).write_text(json.dumps(manifest | {"self": _seal(manifest)}, indent=1))
        for path in [*files, work / MANIFEST, *{path.parent for path in files}]:
            _sync(path)
        shutil.rmtree(place, ignore_errors=True)
        work.rename(place)
        _sync(self.folder)
        for old in [s for s in self.steps() if s <= step][: -self.keep]:  # later ones were found damaged, and count for nothing
            if old != spare:
                shutil.rmtree(self.path(old))
        return place

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, damaged or not, oldest first."""
        names = (re.fullmatch(r"step-(\d+)", path.name) for path in self.folder.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def newest(self, warn: Callable[[str], object], *, at_most: int | None = None) -> tuple[int, dict[str, Any]] | None:
        """The newest whole checkpoint (of a step ≤ `at_most`) and its manifest; None where there is none.

        A damaged one is refused by name through `warn`, and the one before it is looked at.
        """
        for step in reversed(self.steps()):
            if at_most is not None and step > at_most:
                continue
            fault = damage(self.path(step))
            if fault is None:
                return step, json.loads((self.path(step) / MANIFEST).read_text())
            warn(f"the checkpoint {self.path(step)} is damaged ({fault}) and is not used")
        return None

    def restore(self, step: int, manifest: dict[str, Any], learner: Learner) -> None:
        """Bring the policy, the process reward model and the optimizers back to `step`, to the bit."""
        learner.policy.load(self.path(step) / "model")
        if learner.process is not None:
            learner.process.policy.load(self.path(step) / PROCESS)
        tensors = load_file(self.path(step) / "optimizer.safetensors")
        learner.load_state({name: tensor.clone() for name, tensor in tensors.items()}, manifest["learner"])

    def go_back(self, step: int, learner: Learner) -> None:
        """Give the learner the weights and the optimizer of `step` and half its learning rate; updates are counted on.

        Raises:
            FileNotFoundError: that checkpoint is not kept any more.
        """
        updates, slowed = learner.updates, learner.slowed
        self.restore(step, json.loads((self.path(step) / MANIFEST).read_text()), learner)
        learner.updates, learner.slowed = updates, slowed / 2

    def tensors(self, step: int) -> dict[str, torch.Tensor]:
        """Those of answers that were under way."""
        file = self.path(step) / UNDER_WAY
        return load_file(file) if file.exists() else {}


def damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        if manifest.pop("self") != _seal(manifest):
            return f"{MANIFEST} is not what was written"
        for name, digest in manifest["sha256"].items():
            if not (checkpoint / name).is_file():
                return f"{name} is missing"
            if _digest(checkpoint / name) != digest:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file that is whole or not there."""
    work = path.with_name(f".{path.name}.partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work)
    _sync(work)
    work.rename(path)


def _seal(manifest: dict[str, Any]) -> str:
    """The checksum of a manifest, as it is read back."""
    content = json.loads(json.dumps(manifest))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
