"""A recorded step, run again: the same bits, and what its gradient was made of."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quatrain.review import Replayed, replay
from tests.command_line import PARITY, jsonl, quatrain, records, train

RUNS = {
    "one term, one update": {"method": "dr_grpo"},
    "one term, four updates": {"method": "dapo", "update__epochs": 2, "update__minibatches": 2},
    "a reference, its weights on disk": {"method": "grpo", "reference__placement": "swap"},
    "a critic": {"method": "ppo", "method.entropy.coefficient": 0.01},
    "a learned log Z": {"method": "flowrl"},
    "LoRA": {"method": "grpo", "model": {"name": "tiny", "lora": {"rank": 4}}},
    "demonstrations": {"method": "sft"},
}
STEPS = 3


@pytest.fixture(scope="module", params=RUNS, ids=list(RUNS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with a checkpoint in its middle."""
    here = tmp_path_factory.mktemp("replay")
    task = jsonl(here / "sums.jsonl", [{"prompt": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(24)])
    settings = {"steps": STEPS, "checkpoint.every": 2, "update.lr": 1e-2, "update.max_grad_norm": 0.1} | RUNS[request.param]
    return train(here / "run", task, "--reward", PARITY, **settings)


@pytest.fixture(scope="module")
def replayed(run: Path) -> list[Replayed]:
    return [replay(run, step, tokens=1000) for step in range(1, STEPS + 1)]


def test_every_step_comes_out_to_the_same_bits(run: Path, replayed: list[Replayed]):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    fingerprints = [record["fingerprint"] for record in records(run / "metrics.jsonl")]
    assert len(set(fingerprints)) == STEPS
    origins = ["the start", "the start", "the checkpoint of step 2"]
    for step, (again, fingerprint, origin) in enumerate(zip(replayed, fingerprints, origins, strict=True), 1):
        assert again.same
        verdict = f"step {step}, from {origin}: the weights after it are the recorded ones, to the bit ({fingerprint})"
        assert again.verdict == verdict
    done = quatrain("replay", run, "--step", 3)
    assert (done.code, done.err) == (0, "")
    assert replayed[2].verdict in done.out
    assert all(term.name in done.out for term in replayed[2].terms)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before, "nothing is changed"


def test_the_terms_add_up_to_the_gradient_that_was_recorded(run: Path, replayed: list[Replayed]):
    metrics = records(run / "metrics.jsonl")
    for again, record in zip(replayed, metrics, strict=True):
        assert again.terms
        for term in again.terms:
            assert term.norm >= 0
            assert -1 - 1e-6 <= term.cosine <= 1 + 1e-6
            assert 0 <= term.passed <= 1
            assert 0 < term.ratio[0] <= term.ratio[1]
        if "mask/passed" in record and record["version"] == record["step"]:  # one update a step
            length = sum(term.norm * term.cosine for term in again.terms)  # the parts of the terms along their sum
            assert length == pytest.approx(record["update/grad_norm"], rel=1e-4)


def test_the_factors_multiply_to_the_weight(run: Path, replayed: list[Replayed]):
    for step, again in enumerate(replayed, 1):
        batch = load_file(run / "rollouts" / f"step-{step:06d}.safetensors")
        assert 0 < len(again.tokens) <= int(batch["action"].sum())
        pulls = [token.pull for token in again.tokens]
        assert pulls == sorted(pulls, reverse=True)
        moves = any(term.norm for term in again.terms if term.name not in ("value", "entropy", "partition"))
        assert sum(pulls) == pytest.approx(float(moves), abs=1e-4)
        for token in again.tokens:
            share, mask, advantage, ratio = token.factors
            assert token.logp < 0
            assert 0 < share < 1
            assert (mask, ratio) == (1, pytest.approx(1, abs=1e-3)), "before its update a policy is where it was"
            if len(again.terms) == 1 or again.terms[1].norm == 0 or again.terms[1].name in ("value", "entropy", "partition"):
                assert token.weight == pytest.approx(share * mask * advantage * ratio, rel=1e-4, abs=1e-9)


def test_at_the_start_the_policy_is_its_own_reference(run: Path, replayed: list[Replayed]):
    kl = [term for term in replayed[0].terms if term.name == "kl"]
    later = [term for term in replayed[2].terms if term.name == "kl"]
    assert all(term.norm == pytest.approx(0, abs=1e-6) for term in kl)
    assert all(term.norm > 1e-6 for term in later)
    assert bool(kl) == bool(later) == ("name: grpo\n" in (run / "config.yaml").read_text())


def test_rollouts_that_were_changed_are_noticed(run: Path, tmp_path: Path):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    file = copy / "rollouts" / "step-000002.safetensors"
    batch = load_file(file)
    last = batch["action"].nonzero()[-1]
    batch["tokens"][last[0], last[1]] = (batch["tokens"][last[0], last[1]] + 1) % 90 + 4
    batch["reward"] = batch["reward"].flip(0) + torch.arange(len(batch["reward"]))
    save_file(batch, file)
    done = quatrain("replay", copy, "--step", 2)
    assert done.code == 1
    assert "the weights after it DIFFER from the recorded ones" in done.out
    assert re.fullmatch(r"quatrain: the step did not come out the same: .*environment\.json\?\n", done.err)
    assert quatrain("replay", copy, "--step", 1).code == 0
    assert quatrain("replay", copy, "--step", 3).code == 0, "which begins at the checkpoint of step 2"
    shutil.rmtree(copy / "checkpoints")
    assert quatrain("replay", copy, "--step", 3).code == 1


def test_a_step_that_there_is_not_is_wrong_usage(run: Path):
    for step in (0, STEPS + 1, -1):
        done = quatrain("replay", run, "--step", step)
        assert done.code == 2
        assert done.err == f"quatrain: the run {run} has no recorded step {step}: it has steps 1 to {STEPS}\n"
