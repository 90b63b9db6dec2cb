"""Every row of the catalogue, trained from the command line on what it learns from."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from quatrain.config import RunConfig
from quatrain.methods import METHODS
from quatrain.policies.loading import tiny
from quatrain.types import Origin
from tests.command_line import PARITY, jsonl, quatrain, records, train


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions, questions with answers, pairs, and a teacher."""
    here = tmp_path_factory.mktemp("place")
    questions = [{"prompt": f"{n} + 1 = ?"} for n in range(24)]
    jsonl(here / "questions.jsonl", questions)
    jsonl(here / "sums.jsonl", [{**row, "answer": str(n + 1)} for n, row in enumerate(questions)])
    jsonl(here / "pairs.jsonl", [{**row, "chosen": str(n + 1), "rejected": str(n)} for n, row in enumerate(questions)])
    for part in tiny(1):
        part.save_pretrained(here / "teacher")
    return here


def arguments(place: Path, name: str) -> tuple[Path, list[str]]:
    """The least that the row learns from: its task, and what else must be said."""
    row = METHODS[name]
    teacher = ["--teacher", str(place / "teacher")] if "logp_teacher" in row.needs else []
    if teacher and "reward" not in row.needs:
        return place / "questions.jsonl", [*teacher, "--set", "task.answer_column="]
    if Origin.RATED in row.origins:
        return place / "pairs.jsonl", []
    process = ["--set", "process.method=istar_prm"] if name == "istar" else []
    return place / "sums.jsonl", ["--reward", PARITY, *teacher, *process]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a.keys() & b.keys())


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_leaves_a_whole_run_folder(tmp_path: Path, place: Path, method: str):
    row = METHODS[method]
    task, others = arguments(place, method)
    run = train(tmp_path / "run", task, "--method", method, *others, evaluate__problems=3, update__lr=1e-4)

    tree = yaml.safe_load((run / "config.yaml").read_text())
    config = RunConfig.model_validate(tree)
    assert config.model_dump(mode="json") == tree, "whole, with every default"
    assert (config.method.name, config.task.name, config.update.lr) == (method, str(task), 1e-4)

    metrics = records(run / "metrics.jsonl")
    assert [record["step"] for record in metrics] == [1, 2]
    for record in metrics:
        assert not [name for name, value in record.items() if value is None], "a metric was not finite"
        assert record.keys() >= {"entropy", "update/grad_norm", "update/lr", "fingerprint", "seconds/total", "tokens_per_second"}
        assert record["update/grad_norm"] > 0
        assert ("preference/accuracy" in record) == (Origin.RATED in row.origins)
        assert ("process/grad_norm" in record) == ("logp_process" in row.needs)
        assert ("value/loss" in record) == ("value" in row.targets)
        assert ("noise/sigma" in record) == (row.perturbation is not None)
        assert ("flow/residual" in record) == ("flow/log_z" in record) == ("log_z" in row.targets)
    assert metrics[0]["fingerprint"] != metrics[1]["fingerprint"]
    assert ("held_out/accuracy" in metrics[1]) == (task.stem == "sums")
    assert ("held_out/preference" in metrics[1]) == (task.stem == "pairs")

    texts = records(run / "rollouts.jsonl")
    assert {r["step"] for r in texts} == {1, 2}
    assert all(r["text"] and r["error"] is None and " + 1 = ?" in r["prompt"] for r in texts)
    assert (run / "report.html").read_text().startswith("<!doctype html>")

    kept = run / "checkpoints" / "step-000002" / "model"
    assert same(weights(kept), weights(run / "model"))
    assert not same(weights(kept), dict(tiny(0)[0].named_parameters()))
    assert (kept / "critic.safetensors").exists() == ("value" in row.targets)
    assert (kept / "partition.safetensors").exists() == ("log_z" in row.targets)
    assert (kept / "noise.safetensors").exists() == (row.perturbation is not None)
    loaded = AutoModelForCausalLM.from_pretrained(run / "model")
    assert same(dict(loaded.named_parameters()), weights(kept))
    assert AutoTokenizer.from_pretrained(run / "model")("1 + 1")["input_ids"]

    again = quatrain("replay", run, "--step", 2)
    assert (again.code, again.err) == (0, "")
    assert "the weights after it are the recorded ones, to the bit" in re.sub(r"\s+", " ", again.out)
