"""What a run does where it has collapsed: say so, end itself, or go back."""

import json
from pathlib import Path

import pytest

from quatrain.diagnostics.health import Collapse, Watch
from quatrain.run import Run
from tests.command_line import PARITY, quatrain, records, settings, sums

__all__ = ["sums"]

CHANGES = {
    "steps": 7,
    "method": "dapo",
    "update.lr": 1e-2,
    "rewards": [{"name": PARITY}],
    "checkpoint": {"every": 1, "keep": 1},
    "evaluate.problems": 0,
}


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every watch sees, with its fourth record, a collapse since the third."""

    def seen(self: Watch) -> Collapse | None:
        return Collapse(3, "reward", "it fell") if len(self._records) == 4 else None

    monkeypatch.setattr(Watch, "collapse", property(seen))


def train(out: Path, task: Path, wanted: str, **more: object):
    return quatrain("train", "--task", task, "--out", out, "--on-collapse", wanted, *settings(CHANGES | more))


def test_a_run_may_only_say_so(fourth: None, tmp_path: Path, sums: Path):
    done = train(tmp_path / "run", sums, "warn")
    assert (done.code, done.err) == (0, "")
    assert "step 4: it has collapsed, seen by its reward: it fell; `quatrain doctor " in done.out
    assert len(records(tmp_path / "run/metrics.jsonl")) == 7


def test_a_run_may_end_itself(fourth: None, tmp_path: Path, sums: Path):
    done = train(tmp_path / "run", sums, "stop")
    assert done.code == 1
    assert "it has collapsed, seen by its reward: it fell" in done.err
    assert len(records(tmp_path / "run/metrics.jsonl")) == 4
    assert (tmp_path / "run/checkpoints/step-000004").is_dir()
    assert (tmp_path / "run/report.html").is_file()


def test_a_run_may_go_back(fourth: None, tmp_path: Path, sums: Path):
    run = tmp_path / "run"
    done = train(run, sums, "rollback")
    assert (done.code, done.err) == (0, "")
    assert "back to the weights of step 2, the learning rate is 0.005 now" in done.out
    found = records(run / "metrics.jsonl")
    assert [record.get("rolled_back_to") for record in found] == [None, None, None, 2, None, None, None]
    assert [record["update/lr"] for record in found] == [0.01] * 4 + [0.005] * 3
    assert [record["version"] for record in found] == [1, 2, 3, 4, 5, 6, 7]
    manifest = json.loads((run / "checkpoints/step-000007/checkpoint.json").read_text())
    assert manifest["learner"]["slowed"] == 0.5
    again = quatrain("replay", run, "--step", 7)
    assert again.code == 0, again.err


def test_what_went_back_and_was_interrupted_goes_on_to_the_same_bits(
    fourth: None, tmp_path: Path, sums: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", Run.log
    assert train(whole, sums, "rollback").code == 0

    def interrupted(self: Run, step: int, *rest: object) -> None:
        log(self, step, *rest)  # type: ignore[arg-type]
        if step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "log", interrupted)
        assert train(broken, sums, "rollback").code == 1
    done = quatrain("train", "--resume", broken)
    assert (done.code, done.err) == (0, "")
    prints = [[record["fingerprint"] for record in records(run / "metrics.jsonl")] for run in (whole, broken)]
    assert prints[0] == prints[1]


def test_without_a_checkpoint_from_before_a_run_ends_itself(fourth: None, tmp_path: Path, sums: Path):
    done = train(tmp_path / "run", sums, "rollback", checkpoint={"every": 3})
    assert done.code == 1
    assert "it fell, and there is no checkpoint from before" in done.err
