"""Arms with several seeds from the command line: what is done is read, what was begun goes on, what fails is told and counted."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from quatrain.claims import Claim, Expectation, Quick, Verdict, judge, together
from quatrain.diagnostics.comparison import Comparison, Metric, Outcome
from quatrain.diagnostics.evaluation import Estimate
from tests.command_line import PARITY, jsonl, quatrain, records, settings
from tests.diagnostics.synthetic import make_run

SMALL = settings({"rewards": [{"name": PARITY}], "evaluate.problems": 6, "evaluate.every": 1})


def compare(out: Path, task: Path, *arguments: object, arms: tuple[str, ...] = ("rloo", "grpo,method.kl.coefficient=0")):
    return quatrain("compare", *arms, "--task", task, "--seeds", 2, "--out", out, *SMALL, *arguments)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jsonl(
        tmp_path_factory.mktemp("task") / "sums.jsonl", [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(24)]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, task: Path) -> Path:
    """Two arms with two seeds of two steps."""
    out = tmp_path_factory.mktemp("experiment") / "out"
    done = compare(out, task)
    assert (done.code, done.err) == (0, ""), done.out
    return out


def test_all_runs_are_there_and_so_are_their_figures(finished: Path):
    runs = [finished / arm / f"seed-{seed}" for arm in ("rloo", "grpo-method.kl.coefficient=0") for seed in (0, 1)]
    assert all(len(records(run / "metrics.jsonl")) == 2 and (run / "model").is_dir() for run in runs)
    assert all("step 2/2" in run.with_suffix(".log").read_text() for run in runs)
    found = json.loads((finished / "results.json").read_text())
    assert list(found["arms"]) == ["rloo", "grpo,method.kl.coefficient=0"]
    for run, told in zip(runs, [one for arm in found["arms"].values() for one in arm["runs"]], strict=True):
        assert told["value"] == records(run / "evaluations.jsonl")[-1]["estimates"]["pass@1"]["value"]
        assert told["failure"] == ""
    (pair,) = found["pairs"]
    values = [[one["value"] for one in arm["runs"]] for arm in found["arms"].values()]
    assert pair["difference"]["value"] == pytest.approx(sum(a - b for a, b in zip(*values, strict=True)) / 2)
    assert found["made_with"]["rliable"] == "1.2.0"
    page = (finished / "report.html").read_text()
    assert all(text in page for text in ("Performance profile", "Held-out accuracy", "Reward", "method.settings.kl.coefficient"))


def test_the_same_seed_measures_all_arms_on_the_same_problems_before_training(finished: Path):
    for seed in (0, 1):
        starts = [records(path)[0]["scores"] for path in sorted(finished.glob(f"*/seed-{seed}/evaluations.jsonl"))]
        assert len(starts) == 2
        assert starts[0] == starts[1]


def test_what_is_done_is_read_and_what_was_begun_goes_on(finished: Path, task: Path):
    run = finished / "rloo/seed-1"
    wanted = [record["fingerprint"] for record in records(run / "metrics.jsonl")]
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/seed-*/metrics.jsonl")}
    (run / "report.html").unlink()
    for checkpoint in (run / "checkpoints").iterdir():  # as if it was killed before its first one
        checkpoint.rename(run / f"checkpoints/.{checkpoint.name}.partial")
    done = compare(finished, task)
    assert (done.code, done.err) == (0, "")
    assert "3 of 4 runs were there" in done.out
    assert [record["fingerprint"] for record in records(run / "metrics.jsonl")] == wanted
    assert {path for path, at in before.items() if path.stat().st_mtime_ns != at} == {run / "metrics.jsonl"}


def test_other_settings_do_not_go_into_the_same_folder(finished: Path, task: Path):
    done = compare(finished, task, "--set", "update.lr=1e-3")
    assert done.code == 2
    assert re.fullmatch(
        r"quatrain: \S+/rloo/seed-0 holds a run with update.lr = 1e-05, not 0.001: choose another --out\n", done.err
    )


def test_a_run_that_ends_itself_or_fails_is_told_and_counted(tmp_path: Path, task: Path):
    diverging = "sft,update.lr=1e30,update.max_bad_steps=1"
    given = [*SMALL, "--budget", "steps=3", "--seeds", 2, "--out", tmp_path / "out"]
    done = quatrain("compare", "rloo", diverging, "--task", task, *given)
    assert done.code == 1
    assert re.search(r"sft,update.lr=1e30\S* seed 0 has no result: ended itself: ", done.out)
    found = json.loads((tmp_path / "out/results.json").read_text())
    ended = found["arms"][diverging]
    assert ended["iqm"] is None and [run["value"] for run in ended["runs"]] == [None, None]
    assert found["pairs"][0]["difference"] is None
    assert found["arms"]["rloo"]["iqm"]["n"] == 2
    assert "has no result" in (tmp_path / "out/report.html").read_text()
    again = quatrain("compare", "rloo", diverging, "--task", task, *given)
    assert again.code == 1
    assert "2 arms × 2 seeds" not in again.out, "nothing is left to do: what ended itself is over"


@contextmanager
def begun(words: list[object], first: Path, said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process of its own, from when the run in the folder `first` has done a step; it writes to `said`."""
    command = [sys.executable, "-m", "quatrain", *map(str, words)]
    with said.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            # tests that run in a shell's background inherit that Ctrl-C is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        end = time.monotonic() + 600
        while not (first / "metrics.jsonl").exists():
            assert process.poll() is None and time.monotonic() < end, said.read_text()
            time.sleep(0.01)
        yield process


def test_a_killed_process_takes_no_other_run_along(tmp_path: Path, task: Path):
    out, said = tmp_path / "out", tmp_path / "said.txt"
    words = ["compare", "rloo", "opo", "--task", task, "--seeds", 2, "--out", out, "--budget", "steps=6", "--workers", 1, *SMALL]
    with begun(words, out / "rloo/seed-0", said) as process:
        os.kill(holder(out / "rloo/seed-0/.lock"), signal.SIGKILL)
        assert process.wait(600) == 1
    text = said.read_text()
    assert "rloo seed 0 has no result: its process was ended from outside, exit code -9" in text
    assert text.count("has no result") == 1
    done = quatrain(*words)
    assert (done.code, done.err) == (0, ""), done.out
    assert "3 of 4 runs were there" in done.out


def test_ctrl_c_ends_all_runs_and_the_same_command_goes_on(tmp_path: Path, task: Path):
    out, said = tmp_path / "out", tmp_path / "said.txt"
    words = ["compare", "rloo", "opo", "--task", task, "--seeds", 2, "--out", out, "--budget", "steps=9", "--workers", 2, *SMALL]
    with begun(words, out / "rloo/seed-0", said) as process:
        worker = holder(out / "rloo/seed-0/.lock")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
    assert "quatrain: interrupted: " in said.read_text()
    assert "Traceback" not in said.read_text()
    end = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert not Path(f"/proc/{worker}").exists(), "a run went on by itself"
    assert not (out / "results.json").exists()
    done = quatrain(*words)
    assert (done.code, done.err) == (0, ""), done.out
    found = json.loads((out / "results.json").read_text())
    assert [len(arm["runs"]) for arm in found["arms"].values()] == [2, 2]


def holder(lock: Path) -> int:
    """The process that has this file open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.readlink() == lock:
                return int(descriptor.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody holds {lock}")


def outcomes(place: Path, arms: dict[str, float]) -> list[Outcome]:
    """Invented runs of two seeds; an arm's number is how fast it learns."""
    found = []
    for name in arms:
        for seed in (0, 1):
            found.append(Outcome.of(name, seed, make_run(place / name / str(seed), seed=seed, steps=20)))
    return found


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [("entropy", "last"), ("entropy:start", "start"), ("entropy:mean", "mean"), ("entropy:slope", "slope")],
)
def test_metrics_are_the_last_value_the_first_the_mean_or_the_slope(tmp_path: Path, metric: str, wanted: str):
    (outcome, *_) = outcomes(tmp_path, {"a": 1})
    values = [record["entropy"] for record in outcome.run.metrics]
    n = len(values)
    steps = [i - (n - 1) / 2 for i in range(n)]
    slope = sum(s * v for s, v in zip(steps, values, strict=True)) / sum(s * s for s in steps)
    by_hand = {"last": values[-1], "start": values[0], "mean": sum(values) / n, "slope": slope}
    assert Metric.parse(metric).value(outcome.run) == pytest.approx(by_hand[wanted])


def test_accuracy_is_that_of_the_last_evaluation(tmp_path: Path):
    (outcome, *_) = outcomes(tmp_path, {"a": 1})
    assert Metric().value(outcome.run) == outcome.run.evaluations[-1][1].accuracy.value
    assert Metric.parse("accuracy:start").value(outcome.run) == outcome.run.evaluations[0][1].accuracy.value
    assert Metric("pass@4").value(outcome.run) == outcome.run.evaluations[-1][1].estimates["pass@4"].value
    comparison = Comparison(outcomes(tmp_path / "more", {"a": 1, "b": 1}), Metric())
    assert comparison.pairs[0].difference is not None
    assert comparison.pairs[0].difference.value == 0


def test_a_claim_may_hold_an_arm_against_its_own_start(tmp_path: Path):
    found = outcomes(tmp_path, {"a": 1, "b": 1})
    expected = Expectation(better="a", metric="entropy:start", than="a", than_metric="entropy", smallest_effect=0.1)
    claim = Claim(claim="", paper="", seeds=2, quick=Quick(seeds=2, steps=1), arms={"a": {}, "b": {}}, comparisons=[expected])
    (verdict,) = judge(claim, Comparison(found, Metric()))
    run = found[0].run
    series = [record["entropy"] for record in run.metrics]
    assert verdict.difference is not None
    assert verdict.difference.value == pytest.approx(
        sum(outcome.run.metrics[0]["entropy"] - outcome.run.metrics[-1]["entropy"] for outcome in found[:2]) / 2
    )
    assert len(series) == 20
    assert str(verdict).startswith("a (entropy:start) better than a (entropy) by ")


@pytest.mark.parametrize("turned", [False, True])
def test_two_metrics_of_which_one_has_no_score_by_problem(tmp_path: Path, turned: bool):
    """Accuracy against what four answers reach together, at the start: both are of the same arm, and pair by seed alone."""
    found = outcomes(tmp_path, {"a": 1, "b": 1})
    sides = ["accuracy", "pass@4:start"]
    better, than = reversed(sides) if turned else sides
    expected = Expectation(better="a", metric=better, than="a", than_metric=than, smallest_effect=0.1)
    claim = Claim(claim="", paper="", seeds=2, quick=Quick(seeds=2, steps=1), arms={"a": {}, "b": {}}, comparisons=[expected])
    (verdict,) = judge(claim, Comparison(found, Metric()))
    by_hand = [[Metric.parse(metric).value(outcome.run) for outcome in found[:2]] for metric in (better, than)]
    assert verdict.difference is not None
    assert verdict.difference.value == pytest.approx(sum(by_hand[0]) / 2 - sum(by_hand[1]) / 2)


EXPECTED = Expectation(better="a", than="b", smallest_effect=0.1)


@pytest.mark.parametrize(
    ("low", "high", "judgement"),
    [(0.1, 0.3, "held"), (0.0, 0.09, "not held"), (-0.2, -0.1, "not held"), (0.05, 0.3, "undecided"), (0.05, 0.1, "undecided")],
)
def test_a_verdict_follows_from_the_interval_alone(low: float, high: float, judgement: str):
    for value in (low, high):
        verdict = Verdict(EXPECTED, Estimate(value, low, high, 5), 0)
        assert verdict.judgement == judgement
        assert Verdict(EXPECTED, verdict.difference, 1).judgement == "undecided", "a run failed"
    assert Verdict(EXPECTED, None, 0).judgement == "undecided"


def test_a_claim_holds_where_all_of_it_does():
    held, lost, unclear = (Verdict(EXPECTED, Estimate(x, x, y, 5), 0) for x, y in ((0.1, 0.2), (0.0, 0.05), (0.0, 0.2)))
    assert together([held, held]) == "held"
    assert together([held, unclear]) == "undecided"
    assert together([unclear, lost, held]) == "not held"


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    """A folder with one claim."""
    place = tmp_path / "claims/small"
    place.mkdir(parents=True)
    jsonl(place / "sums.jsonl", [{"prompt": f"{n} + 1 =", "answer": str(n + 1)} for n in range(24)])
    (place / "mine.py").write_text("def mine(completion):\n    return sum(map(ord, completion)) % 2\n")
    shared = {"model": "tiny", "task": "sums.jsonl", "rewards": [{"name": "mine.py:mine"}], "steps": 2, "prompts_per_step": 2}
    shared |= {"group_size": 4, "max_answer_tokens": 4, "evaluate": {"problems": 6}, "checkpoint": {"every": 0}}
    write(
        place,
        claim="One is no worse than the other.",
        paper="arXiv:2402.14740",
        seeds=2,
        quick={"seeds": 2, "steps": 1, "settings": {"evaluate.problems": 5}},
        settings=shared,
        arms={"one": {"method": "rloo"}, "other": {"method": "rloo", "update.lr": 1e-9}},
        comparisons=[{"better": "one", "than": "other", "smallest_effect": -2.0}],
    )
    return place.parent


def write(place: Path, **changes: Any) -> None:
    file = place / "claim.yaml"
    tree = yaml.safe_load(file.read_text()) if file.exists() else {}
    file.write_text(yaml.safe_dump({**tree, **changes}, sort_keys=False))


def test_a_claim_is_run_and_its_full_run_kept(tmp_path: Path, claims: Path):
    place, out = claims / "small", tmp_path / "out"
    quick = quatrain("reproduce", "small", "--quick", "--claims", claims, "--out", tmp_path / "quick")
    assert (quick.code, quick.err) == (0, ""), quick.out
    assert "verdict    held (quick)" in quick.out
    assert not (place / "results.json").exists()
    (config,) = {
        path.read_text().partition("evaluate:")[2].partition("problems:")[2].split()[0]
        for path in (tmp_path / "quick").rglob("config.yaml")
    }
    assert config == "5"
    assert "not run" in quatrain("reproduce", "--claims", claims).out
    done = quatrain("reproduce", "small", "--claims", claims, "--out", out)
    assert (done.code, done.err) == (0, ""), done.out
    assert f"verdict    held, kept in {place / 'results.json'}" in done.out
    assert "held" in quatrain("reproduce", "--claims", claims).out
    found = json.loads((place / "results.json").read_text())
    assert (found["verdict"], found["steps"], len(found["arms"]["one"]["runs"])) == ("held", 2, 2)
    config = yaml.safe_load((out / "other/seed-1/config.yaml").read_text())
    assert (config["seed"], config["update"]["lr"], config["threads"]) == (1, 1e-9, 1)
    write(place, seeds=3)
    assert "not run" in quatrain("reproduce", "--claims", claims).out, "the results are another claim's"


def test_an_arm_may_go_on_from_another_runs_model(claims: Path, tmp_path: Path):
    """Imitation and then reinforcement, each a run with a folder of its own, against as many steps of one of them."""
    small = yaml.safe_load((claims / "small/claim.yaml").read_text())["settings"]
    two = {"method": "grpo", "method.kl.coefficient": 0, "steps": 2, "first": {"method": "sft", "steps": 3}}
    write(
        claims / "small",
        settings=small | {"task": "written:addition?digits=2"},
        arms={"one": {"method": "rloo", "steps": 5}, "two": two},
        comparisons=[{"better": "two", "than": "one", "smallest_effect": -2.0}],
        quick={"seeds": 2, "steps": 3},
    )
    out = tmp_path / "out"
    done = quatrain("reproduce", "small", "--claims", claims, "--out", out)
    assert (done.code, done.err) == (0, ""), done.out
    before, after = out / "two/seed-1-first", out / "two/seed-1"
    assert [len(records(run / "metrics.jsonl")) for run in (before, after)] == [3, 2]
    config = yaml.safe_load((after / "config.yaml").read_text())
    assert config["model"]["name"] == str(before / "model")
    found = json.loads((claims / "small/results.json").read_text())
    assert found["steps"] == 5
    run = Outcome.of("two", 1, after, first=before).run
    assert (run.planned_steps, [record["step"] for record in run.metrics]) == (5, [1, 2, 3, 4, 5])
    assert found["arms"]["two"]["runs"][1]["seconds"] == pytest.approx(run.seconds)
    started = [
        evaluations[0]["scores"]
        for evaluations in (records(out / f"{arm}/evaluations.jsonl") for arm in ("one/seed-1", "two/seed-1-first"))
    ]
    assert started[0] == started[1], "both arms start from one model"
    tensors = [load_file(run / "model/model.safetensors") for run in (before, after)]
    assert not all(torch.equal(old, new) for old, new in zip(*(t.values() for t in tensors), strict=True))
    (after / "report.html").unlink()
    again = quatrain("reproduce", "small", "--claims", claims, "--out", out)
    assert again.code == 0 and "3 of 4 runs were there" in again.out
    quick = quatrain("reproduce", "small", "--quick", "--claims", claims, "--out", tmp_path / "quick")
    assert quick.code == 0, quick.out + quick.err
    assert [len(records(tmp_path / f"quick/two/{name}/metrics.jsonl")) for name in ("seed-0-first", "seed-0")] == [2, 1]
    write(claims / "small", quick={"seeds": 2, "steps": 1})
    short = quatrain("reproduce", "small", "--quick", "--claims", claims, "--out", tmp_path / "short")
    assert (short.code, short.err) == (2, "quatrain: arm two: two runs need two steps or more, not 1\n")


@pytest.mark.parametrize(
    ("changes", "fault", "way_out"),
    [
        ({"seedz": 3}, "no setting 'seedz'", "did you mean seeds?"),
        ({"seeds": 1}, "seeds = 1", "greater than or equal to 2"),
        ({"metric": "entropy:first"}, "'entropy:first' is not NAME or NAME:KIND", "last"),
        ({"comparisons": []}, "comparisons = []", "at least 1 item"),
        (
            {"comparisons": [{"better": "one", "than": "otter", "smallest_effect": 0}]},
            "an arm 'otter'",
            "did you mean other or one?",
        ),
        ({"arms": {"one": {"method": "rloo"}, "other": {"method": "rlo"}}}, "arm other: ", "rloo"),
        ({"arms": {"one": {"steps": 2}, "other": {"stepz": 2}}}, "arm other: ", "did you mean steps"),
    ],
)
def test_a_wrong_claim_is_told_in_one_line(claims: Path, tmp_path: Path, changes: dict[str, Any], fault: str, way_out: str):
    write(claims / "small", **changes)
    done = quatrain("reproduce", "small", "--claims", claims, "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err.startswith("quatrain: ") and done.err.count("\n") == 1
    assert fault in done.err and way_out in done.err
    assert not (tmp_path / "out").exists()


def test_every_committed_claim_can_be_read():
    assert Claim.model_fields
    for file in (Path(__file__).parent.parent / "reproductions").glob("*/claim.yaml"):
        done = quatrain("reproduce", "--claims", file.parent.parent)
        assert (done.code, file.parent.name in done.out) == (0, True)
