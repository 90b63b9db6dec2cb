"""Runs whose rewards read no label: what is trained on, that no label can be read, and what labels measure."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from quatrain.recipes import RECIPES
from quatrain.types import Origin
from tests.command_line import DIGITS, JUDGING, jsonl, quatrain, records, settings, sums, train

__all__ = ["sums"]

PEEKING = f"{JUDGING}:peeking"

LABELLESS = {"method": "grpo", "labels": "measure", "update__lr": 1e-3, "update__minibatches": 2}


def task(path: Path, answer: str, **columns: str) -> Path:
    return jsonl(path, [{"prompt": f"{n} + 1 = ?", "answer": answer.format(n=n + 1), **columns} for n in range(24)])


def same_bits(a: Path, b: Path) -> bool:
    steps = [[r["fingerprint"] for r in records(run / "metrics.jsonl")] for run in (a, b)]
    batches = [[path.read_bytes() for path in sorted((run / "rollouts").iterdir())] for run in (a, b)]
    models = [(run / "model" / "model.safetensors").read_bytes() for run in (a, b)]
    return (steps[0], batches[0], models[0]) == (steps[1], batches[1], models[1])


@pytest.mark.parametrize("rewards", [["majority"], ["majority", DIGITS], ["format"], [PEEKING, DIGITS]], ids=str)
def test_other_labels_give_the_same_bits(tmp_path: Path, rewards: list[str]):
    chosen = [part for name in rewards for part in ("--reward", name)]
    votes = {"votes": 6} if "majority" in rewards else {}
    runs = []
    for name, answer, columns in (("right", "{n}", {}), ("wrong", "{n}0\nor so", {"note": "a hint"}), ("one", "7", {})):
        labels = task(tmp_path / f"{name}.jsonl", answer, **columns)
        runs.append(train(tmp_path / name, labels, *chosen, **LABELLESS, **votes, evaluate__problems=4, steps=3))
    assert same_bits(runs[0], runs[1])
    assert same_bits(runs[0], runs[2])
    told = [{r["answer"] for r in records(run / "rollouts.jsonl")} for run in runs]
    assert told[2] == {"7"}, "what people read has the labels"
    assert not told[0] & told[1]


def test_a_reward_that_asks_for_the_label_gets_none(tmp_path: Path):
    labels = task(tmp_path / "sums.jsonl", "{n}", note="a hint")
    for use, told in (("measure", 0.0), ("learn", 2.0)):
        run = train(tmp_path / use, labels, "--reward", PEEKING, method="reinforce", labels=use, steps=1)
        assert records(run / "metrics.jsonl")[0]["reward/mean"] == told


def test_voters_vote_and_are_recorded_and_are_not_trained_on(tmp_path: Path, sums: Path):
    run = train(tmp_path / "run", sums, "--reward", "majority", **LABELLESS, votes=7, steps=1, sample_rollouts=14)
    texts = records(run / "rollouts.jsonl")
    assert [sum(r["origin"] == origin for r in texts) for origin in ("policy", "voter")] == [8, 6]
    assert all(r["rewards"] == {"majority": r["reward"]} for r in texts)
    batch = load_file(run / "rollouts" / "step-000001.safetensors")
    assert batch["origin"].tolist() == [Origin.POLICY.code] * 8
    (record,) = records(run / "metrics.jsonl")
    groups = {prompt: [r["reward"] for r in texts if r["prompt"] == prompt] for prompt in {r["prompt"] for r in texts}}
    assert record["vote/share"] == pytest.approx(sum(sum(rewards) / 7 for rewards in groups.values()) / 2)
    assert record["rollout/tokens"] == sum(r["tokens"] for r in texts)


def test_labels_measure_what_no_reward_reads(tmp_path: Path):
    """Where the labels are the majorities of an earlier run, these are all right, and so are the rewards; else none is."""
    names = ("rollout/accuracy", "vote/label_accuracy", "vote/reward_accuracy")
    given = {**LABELLESS, "steps": 1, "sample_rollouts": 8}
    wrong = train(tmp_path / "wrong", task(tmp_path / "wrong.jsonl", "nobody writes this"), "--reward", "majority", **given)
    (record,) = records(wrong / "metrics.jsonl")
    assert [record[name] for name in names] == [0, 0, 1 - record["reward/mean"]]
    answers = {r["prompt"]: r["text"] for r in records(wrong / "rollouts.jsonl") if r["reward"] == 1}
    rows = [{"prompt": q, "answer": answers.get(f"Question: {q}\nAnswer:", "?")} for q in (f"{n} + 1 = ?" for n in range(24))]
    right = train(tmp_path / "right", jsonl(tmp_path / "right.jsonl", rows), "--reward", "majority", **given)
    assert same_bits(wrong, right)
    (record,) = records(right / "metrics.jsonl")
    assert [record[name] for name in names] == [record["reward/mean"], 1, 1]


def test_where_a_reward_reads_labels_nothing_is_measured_twice(tmp_path: Path, sums: Path):
    run = train(tmp_path / "run", sums, "--reward", "correct", "--reward", "majority", method="grpo", steps=1)
    (record,) = records(run / "metrics.jsonl")
    assert {"reward/correct", "vote/share"} <= record.keys()
    assert not {"rollout/accuracy", "seconds/measure"} & record.keys()


def test_without_labels_there_is_a_vote_and_no_accuracy(tmp_path: Path):
    questions = jsonl(tmp_path / "q.jsonl", [{"prompt": f"{n} + 1 = ?"} for n in range(8)])
    out = tmp_path / "run"
    given = settings({"method": "grpo", "labels": "measure", "task.answer_column": None, "evaluate.problems": 4})
    done = quatrain("train", "--task", questions, "--out", out, "--reward", "majority", *given)
    assert (done.code, done.err) == (0, "")
    assert "has no reference answers: what the policy writes is judged by no reference" in done.out
    assert records(out / "metrics.jsonl")[0].keys() & {"vote/share", "vote/label_accuracy", "held_out/accuracy"} == {"vote/share"}


def test_worked_examples_are_labels_and_are_shown_only_if_they_are_asked_for(tmp_path: Path, sums: Path):
    given = {"method": "grpo", "labels": "measure", "steps": 1}
    none = train(tmp_path / "none", sums, "--reward", "majority", **given)
    assert all(r["prompt"].count("Question:") == 1 for r in records(none / "rollouts.jsonl"))
    done = quatrain(
        "train", "--task", sums, "--out", tmp_path / "two", "--reward", "majority", *settings(given | {"task.examples": 2})
    )
    assert "the answers of 2 problems, which are not trained on, stand in each prompt" in done.out
    assert all(r["prompt"].count("Question:") == 3 for r in records(tmp_path / "two" / "rollouts.jsonl"))


def test_the_recipe_runs_by_its_name(tmp_path: Path, sums: Path):
    small = {"steps": 1, "group_size": 3, "votes": 5, "max_answer_tokens": 4, "evaluate.problems": 4, "threads": 1}
    given = [part for key, value in small.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    done = quatrain("train", "ttrl", "--task", sums, "--model", "tiny", "--out", tmp_path / "run", *given)
    assert (done.code, done.err) == (0, "")
    tree, recipe = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()), RECIPES["ttrl"].config
    assert tree["method"] == recipe["method"]
    assert (tree["labels"], tree["votes"]) == ("measure", 5)
    (record,) = records(tmp_path / "run" / "metrics.jsonl")
    assert {"vote/share", "vote/label_accuracy", "vote/reward_accuracy", "rollout/accuracy", "held_out/accuracy"} <= record.keys()
    assert record["version"] == recipe["update"]["minibatches"]
