"""The map as it is shown, and whether collapses are foreseen: bounds fitted on some runs, tried on others."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from quatrain.diagnostics.health import SIGNS, Collapse
from quatrain.stress import Found, Square
from reproductions.stability import __main__ as command
from reproductions.stability import page, warning
from reproductions.stability.results import WARNING
from reproductions.stability.warning import Course

REWARD = [sign.metric for sign in SIGNS].index("reward/mean")


def course(lowest: float, *, collapsed: int | None = None, at: int = 40, method: str = "a", cell: str = "plain") -> Course:
    """A run whose reward, as a share of its best, is `lowest` from step `at` on; all other signs are quiet."""
    values = [np.full(90, 1.0) for _ in SIGNS]
    values[REWARD] = np.where(np.arange(11, 101) >= at, lowest, 1.0)
    return Course(method, cell, collapsed, values)


def test_a_bound_is_what_one_healthy_run_in_fifty_leaves():
    healthy = [course(low) for low in np.linspace(0.5, 1, 51)]
    bounds = warning.fit([*healthy, course(0.1, collapsed=60)])
    assert bounds[REWARD] == pytest.approx(0.51)
    assert sum(run.first(bounds) is not None for run in healthy) == 1
    told = warning.score((run, bounds) for run in [*healthy, course(0.1, collapsed=60), course(0.9, collapsed=60)])
    assert told["foreseen"]["value"] == 0.5
    assert told["steps_ahead"] == [20, 20, 20]
    assert told["false"]["value"] == pytest.approx(1 / 51)


def test_what_is_seen_with_the_collapse_is_not_foreseen():
    bounds = warning.fit([course(0.8), course(0.9)])
    told = warning.score([(course(0.1, collapsed=40), bounds)])
    assert (told["foreseen"]["value"], told["steps_ahead"], told["false"]) == (0, None, None)


def test_runs_are_held_against_bounds_of_runs_they_have_nothing_in_common_with():
    runs = [course(0.8, method="a"), course(0.4, method="b"), course(0.6, method="c", cell="lr=4")]
    bounds = {run.method: own[REWARD] for run, own in warning.across(runs, "other methods")}
    assert bounds == pytest.approx({"a": 0.404, "b": 0.604, "c": 0.408})
    bounds = {run.method: own[REWARD] for run, own in warning.across(runs, "other methods under other stresses")}
    assert bounds == pytest.approx({"a": 0.6, "b": 0.6, "c": 0.408})


def test_the_signs_have_the_bounds_that_were_measured():
    """To two figures; until they are measured, those by rule of thumb."""
    measured = [told["bound"] for told in json.loads(WARNING.read_text())["signs"]] if WARNING.exists() else warning.THUMB
    assert [sign.limit for sign in SIGNS] == [float(f"{bound:.2g}") for bound in measured]


def run(seed: int, accuracy: float, *, fell: bool = False) -> Found:
    collapse = Collapse(50, "reward", "it fell") if fell else None
    return Found("", "", seed, accuracy, {"pass@1": 0.1}, collapse, 100, 60.0)


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of two methods under two stresses, one of which one method cannot be run under."""
    for module, name in ((command, "MAP"), (page, "MAP"), (warning, "WARNING"), (page, "WARNING")):
        monkeypatch.setattr(module, name, tmp_path / name)
    accuracies = {
        ("grpo", "plain"): (0.8, 0.8, 0.8),
        ("tis", "plain"): (0.4, 0.4, 0.42),
        ("grpo", "mismatch=int4"): (0.2, 0.3),
        ("tis", "mismatch=int4"): (0.5, 0.62),
        ("tis", "lr=4"): (0.0,),
    }
    command.write(
        {key: Square(tuple(run(seed, one, fell=not one) for seed, one in enumerate(some))) for key, some in accuracies.items()},
        absent=[],
    )


def test_a_map_shows_every_cell_and_marks_those_of_claims(found: None):
    accuracy, fell = page.accuracy_map(), page.collapse_map()
    assert re.findall(r"<td.*?>([\d.]*)(?:<sub>(\d+)</sub>)?</td>", accuracy) == [
        ("0.80", "3"), ("0.25", "2"), ("", ""), ("0.41", "3"), ("0.56", "2"), ("0.00", "1"),
    ]  # fmt: skip
    (claimed,) = re.findall(r'class="claimed" style="--heat: ([\d.]+)" title="(tis, mismatch=int4: 0.56 .*?)"', accuracy)
    assert claimed[0] == "0.70"
    assert claimed[1].endswith("2 runs")
    assert re.findall(r"--heat: ([\d.]+)", fell) == ["0.00", "0.00", "0.00", "0.00", "1.00"]


def test_cells_that_cannot_be_run_here_stay(found: None):
    """The map is made twice more, by an environment that lacks what one of its cells needs and has no runs of another."""
    kept, lost = ("grpo", "mismatch=int4"), ("tis", "lr=4")
    before = {(c["method"], c["cell"]): c for c in json.loads(command.MAP.read_text())["cells"]}
    for _ in range(2):
        command.write({("grpo", "plain"): Square((run(0, 0.7),))}, absent=[kept, ("tis", "steps=9")])
        after = {(c["method"], c["cell"]): c for c in json.loads(command.MAP.read_text())["cells"]}
        assert after.keys() == {("grpo", "plain"), kept}
        assert after[kept] == before[kept]
        assert lost in before


def test_methods_are_told_apart_by_the_whole_interval(found: None):
    """−0.393 ± 4.30 · 0.0115/√3 is all below −0.05; 0.31 ± 12.7 · 0.0141/√2 is all above 0.05; one seed says nothing."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.which().splitlines()[2:]]
    assert rows == [
        ["`plain`", "0.80 [0.80, 0.80]", "none", "`tis` -0.39 [-0.42, -0.36]", "none"],
        ["`mismatch=int4`", "0.25 [0.20, 0.30]", "`tis` +0.31 [+0.18, +0.44]", "none", "none"],
        ["`lr=4`", "–", "none", "none", "`tis` 1 of 1"],
    ]
    assert page.made().startswith("11 runs, 1,100 steps and 0.2 hours")
    assert "| `tis` | mismatch=int4 |" in page.published()
    assert "+0.31 [+0.18, +0.44] | 2 | **undecided** |" in page.published(), "eight seeds are missing"


def test_signs_are_shown_with_what_they_foresaw(found: None):
    warning.write([course(0.6), course(0.8, method="b", cell="lr=4"), course(0.1, collapsed=60, method="c", cell="x")])
    assert "| `reward/mean` | below 0.6 × the best mean | 1 of 1: 1.00 [0.21, 1.00] | 20 (20 to 20) |" in page.signs()
    assert len(page.tried().splitlines()) == 2 + 3 * 3 + 1


def test_what_has_not_been_run_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(page, "MAP", tmp_path / "map.json")
    monkeypatch.setattr(page, "WARNING", tmp_path / "warning.json")
    shown = (page.made, page.accuracy_map, page.collapse_map, page.published, page.which, page.cells, page.signs, page.tried)
    assert {show() for show in shown} == {"Not run yet."}
