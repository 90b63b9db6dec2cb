"""Runs that are killed, interrupted or damaged go on to the same bits as one that was left alone."""

import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quatrain.run import Run
from tests.command_line import DIGITS, PARITY, jsonl, quatrain, records, settings, train

PATIENCE_SECONDS = 120.0
ORPHAN_SECONDS = 10.0

FULL: dict[str, Any] = {
    "method": "ppo",
    "steps": 14,
    "seed": 5,
    "evaluate.problems": 3,
    "evaluate.every": 3,
    "evaluate.samples": 2,
    "evaluate.k": [1, 2],
    "checkpoint.every": 2,
    "update.lr": 1e-2,
    "update.schedule": "cosine",
    "update.warmup_steps": 3,
    "update.epochs": 2,
    "update.minibatches": 2,
    "rewards": [{"name": PARITY}, {"name": DIGITS, "weight": 0.5}],
}
"""All that a resumed run must bring back: a critic, moments, a schedule, an order of minibatches, a place in the stream."""


def remembered(run: Path) -> dict[str, Any]:
    """What a run leaves behind, without the clock."""

    def without_clock(path: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if not re.match("seconds|tokens_per_second", k)} for r in records(path)]

    return {
        **{name: without_clock(run / f"{name}.jsonl") for name in ("metrics", "evaluations", "rollouts")},
        "model": digest(run / "model" / "model.safetensors"),
        "batches": {path.name: digest(path) for path in (run / "rollouts").iterdir()},
        "checkpoints": {path.parent.name: path.read_text() for path in run.glob("checkpoints/*/checkpoint.json")},
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Process:
    """`quatrain ARGUMENTS` as a process of its own."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.output = (folder / "output.txt").open("w+")
        command = [sys.executable, "-m", "quatrain", *map(str, arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT, env=environment)

    def until(self, happened: Callable[[], Any]) -> None:
        """Wait for something, looking often."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not happened():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.0005)

    def kill(self) -> None:
        """SIGKILL, after which the processes that compute rewards must end by themselves."""
        workers = children(self.process.pid)
        assert workers, "the run has processes for its rewards"
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL
        end = time.monotonic() + ORPHAN_SECONDS
        while left := [pid for pid in workers if is_alive(pid)]:
            assert time.monotonic() < end, f"processes {left} outlived the run"
            time.sleep(0.02)

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()


def children(pid: int) -> list[int]:
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "quatrain.rewards.worker" in Path(f"/proc/{pid}/cmdline").read_text()  # empty for one that is only not yet reaped
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "sums.jsonl", [{"prompt": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(24)])


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at processes through /proc")
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path, sums: Path):
    whole = train(tmp_path / "whole", sums, **FULL)
    broken, rng = tmp_path / "broken", random.Random(0)

    def checkpoints(pattern: str) -> list[str]:
        return sorted(path.name for path in (broken / "checkpoints").glob(pattern))

    # before the first step
    process = Process(tmp_path, "train", "--task", sums, "--out", broken, *settings(FULL))
    process.until((broken / "evaluations.jsonl").exists)
    process.kill()
    assert not checkpoints("step-*")

    # while a checkpoint is being written
    process = Process(tmp_path, "train", "--resume", broken)
    process.until((broken / "metrics.jsonl").exists)
    second = quatrain("train", "--resume", broken)
    assert second.code == 2
    assert second.err == f"quatrain: {broken} is being run by another process: wait for it, or choose another --out\n"
    process.until(lambda: checkpoints(".step-*.partial"))
    process.kill()

    # at some moment
    process = Process(tmp_path, "train", "--resume", broken)
    process.until(lambda: checkpoints("step-*")[-1:] >= ["step-000006"])
    time.sleep(rng.uniform(0, 0.2))
    process.kill()
    assert not (broken / "model").exists(), "it was killed before its end"

    # with a damaged checkpoint, and a record that was cut off
    newest = broken / "checkpoints" / checkpoints("step-*")[-1]
    flip_a_byte(newest / "optimizer.safetensors")
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "reward/me')
    process = Process(tmp_path, "train", "--resume", broken)
    assert process.process.wait() == 0, process.said()
    refusal = f"the checkpoint {newest} is damaged (optimizer.safetensors is not what was written) and is not used"
    assert refusal in process.said()
    assert f"resuming after step {int(newest.name[-6:]) - 2}" in process.said()

    left, right = remembered(whole), remembered(broken)
    assert [record["step"] for record in left["metrics"]] == list(range(1, 15))
    assert [record["step"] for record in left["evaluations"]] == [0, 3, 6, 9, 12, 14]
    assert left["checkpoints"].keys() == {"step-000012", "step-000014"}
    for name in left:
        assert left[name] == right[name], name


VARIANTS: dict[str, dict[str, Any]] = {
    "LoRA": {"method": "grpo", "model": {"name": "tiny", "lora": {"rank": 4}}, "checkpoint.every": 2},
    "a reference on disk": {"method": "grpo", "reference.placement": "swap", "checkpoint.every": 2},
    "a reference in memory": {"method": "grpo", "checkpoint.every": 3, "checkpoint.keep": 1},
    "no checkpoint": {"method": "dapo", "update.minibatches": 2, "evaluate.problems": 2},
    "a learned log Z": {"method": "flowrl", "update.epochs": 2, "checkpoint.every": 2},
    "acting two steps ahead": {"method": "grpo", "staleness.steps": 2, "checkpoint.every": 2},
    "answers by four versions": {"method": "dapo", "staleness": {"steps": 3, "partial": True}, "checkpoint.every": 1},
    "an engine of eight bits": {"method": "tis", "engine.weights": "int8", "checkpoint.every": 3},
    "turned rewards": {"method": "dapo", "stress": {"turned": 0.3, "bad_step": 5}, "checkpoint.every": 3},
    "probed steps": {"method": "spae", "probe": {"step": " ", "opener": "=", "samples": 2}, "checkpoint.every": 2},
    "answers replayed": {"method": "spear", "replay.size": 6, "checkpoint.every": 1, "max_answer_tokens": 8},
    "demonstrations": {"method": "sft", "update.schedule": "linear", "checkpoint.every": 1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path, sums: Path, monkeypatch: pytest.MonkeyPatch, variant: str):
    changes = {"steps": 5, "update.lr": 1e-2, "rewards": [{"name": PARITY}], "seed": 1} | VARIANTS[variant]
    whole, broken = train(tmp_path / "whole", sums, **changes), tmp_path / "broken"
    log = Run.log

    def interrupted(self: Run, step: int, *rest: Any) -> None:
        log(self, step, *rest)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupted)
        done = quatrain("train", "--task", sums, "--out", broken, *settings(changes))
    assert done.code == 1
    assert done.err == "quatrain: interrupted: go on with `quatrain train --resume RUN`\n"
    assert len(records(broken / "metrics.jsonl")) == 4
    done = quatrain("train", "--resume", broken)
    assert (done.code, done.err) == (0, "")
    left, right = remembered(whole), remembered(broken)
    for name in left:
        assert left[name] == right[name], name


def test_where_every_checkpoint_is_damaged_a_run_begins_anew(tmp_path: Path, sums: Path):
    changes = {"method": "reinforce", "steps": 4, "checkpoint.every": 1, "rewards": [{"name": PARITY}], "update.lr": 1e-2}
    run = train(tmp_path / "run", sums, **changes)
    before = remembered(run)
    (run / "report.html").unlink()  # as if it was killed at its very end
    flip_a_byte(run / "checkpoints" / "step-000004" / "model" / "model.safetensors")
    (run / "checkpoints" / "step-000003" / "optimizer.safetensors").unlink()
    done = quatrain("train", "--resume", run)
    assert (done.code, done.err) == (0, "")
    assert f"{run / 'checkpoints' / 'step-000004'} is damaged (model/model.safetensors is not what was written)" in done.out
    assert f"{run / 'checkpoints' / 'step-000003'} is damaged (optimizer.safetensors is missing)" in done.out
    assert "resuming after" not in done.out
    assert remembered(run) == before


def test_a_finished_run_says_so_and_is_left_as_it_is(tmp_path: Path, sums: Path, monkeypatch: pytest.MonkeyPatch):
    run = train(tmp_path / "run", sums, method="sft", evaluate__problems=2)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr("quatrain.assembly.load_model", lambda *_: 1 / 0)
    done = quatrain("train", "--resume", run)
    assert (done.code, done.err) == (0, "")
    assert f"{run} is finished: nothing is left to do" in done.out
    assert "accuracy" in done.out
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()} == before
