"""Methods under stresses, from the command line: cells, what is left out, and going on."""

import json
import re
from pathlib import Path

import pytest

from quatrain.config import ConfigError, RunConfig, load
from quatrain.stress import LAB, cells
from tests.command_line import quatrain
from tests.diagnostics.synthetic import make_run
from tests.test_experiment import SMALL, task

__all__ = ["task"]


@pytest.fixture
def config() -> RunConfig:
    return load(LAB)


def test_cells_are_one_dial_at_a_time(config: RunConfig):
    found = cells(["staleness=0,4", "mismatch=none,int8,top_p", "difficulty=5,1-8", "wrong=0.1", "lr=4"], config)
    assert found == {
        "plain": {},
        "staleness=4": {"staleness": {"steps": 4}},
        "mismatch=int8": {"engine": {"weights": "int8"}},
        "mismatch=top_p": {"sampling": {"top_p": 0.9}},
        "difficulty=5": {"task": {"options": {"steps": 5}}},
        "difficulty=1-8": {"task": {"options": {"steps": [1, 8]}}},
        "wrong=0.1": {"stress": {"turned": 0.1}},
        "lr=4": {"update": {"lr": 4 * config.update.lr}},
    }


@pytest.mark.parametrize(
    ("dial", "told"),
    [
        ("stalenes=4", "no such dial, or no value: did you mean staleness"),
        ("staleness", "no such dial, or no value"),
        ("staleness=few", "staleness=few: invalid literal"),
        ("mismatch=fp8", "mismatch=fp8: "),
    ],
)
def test_what_is_no_cell(config: RunConfig, dial: str, told: str):
    with pytest.raises(ConfigError, match=told):
        cells([dial], config)


def test_a_map_from_the_command_line(tmp_path: Path, task: Path):
    words = ["stress", "--methods", "grpo", "reinforce", "--dials", "staleness=0,2", "mismatch=int8", "reference=none"]
    words += ["--task", task, "--seeds", 2, "--out", tmp_path / "lab", *SMALL]
    done = quatrain(*words)
    assert (done.code, done.err) == (0, ""), done.out
    assert "grpo reference=none is left out: " in done.out
    assert "reinforce reference=none is left out: it has no reference" in done.out
    found = json.loads((tmp_path / "lab/map.json").read_text())
    squares = {(cell["method"], cell["cell"]): cell for cell in found["cells"]}
    assert list(squares) == [(m, c) for m in ("grpo", "reinforce") for c in ("plain", "staleness=2", "mismatch=int8")]
    for square in squares.values():
        assert [run["seed"] for run in square["runs"]] == [0, 1]
        assert square["collapsed"]["value"] == 0 and square["collapsed"]["high"] > 0.5
        assert square["accuracy"]["n"] == 2
        assert [run["steps"] for run in square["runs"]] == [2, 2]
    again = quatrain(*words)
    assert again.code == 0
    assert "12 of 12 runs were there" in again.out or "runs were there" not in again.out
    assert json.loads((tmp_path / "lab/map.json").read_text()) == found


def test_a_method_that_cannot_be_run_is_told_by_its_name(tmp_path: Path, task: Path):
    done = quatrain("stress", "--methods", "dpo", "--dials", "wrong=0.1", "--task", task, "--out", tmp_path / "lab", *SMALL)
    assert done.code == 2
    assert done.err.startswith("quatrain: dpo: ")


def test_the_doctor_says_what_came_first(tmp_path: Path):
    run = make_run(tmp_path / "run", seed=0, steps=60)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for step, record in enumerate(records):
        record |= {"entropy": 1.0 if step < 30 else 0.01, "reward/mean": 0.7 if step < 45 else 0.1, "advantage/zero_groups": 0.1}
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = quatrain("doctor", run)
    assert (done.code, done.err) == (0, ""), done.err
    lines = done.out.splitlines()
    assert lines[1] == "collapse   from step 51, by its reward: the reward fell from 0.7 to 0.1 and did not come back"
    signs = [
        re.fullmatch(r"  step \d+: .* \((\S+) \S+ is (above|below) .*", line) for line in lines if line.startswith("  step ")
    ]
    assert list(dict.fromkeys(sign and sign.groups() for sign in signs)) == [("entropy", "below"), ("reward/mean", "below")]
    healthy = quatrain("doctor", make_run(tmp_path / "healthy", seed=1, steps=8))
    assert "collapse   none" in healthy.out and "signs      none" in healthy.out
