"""Runs whose answers vLLM writes, from the command line."""

import json
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch

from quatrain.assembly import recorded_batch
from quatrain.diagnostics.records import RunFolder
from quatrain.policies import CausalLM, plant
from quatrain.types import Batch
from quatrain.update import Learner
from tests.command_line import DIGITS, quatrain, records, settings, sums, train

__all__ = ["sums"]

VLLM = {"engine.name": "vllm", "engine.memory_gib": 1, "max_answer_tokens": 12, "rewards": [{"name": DIGITS}]}


@torch.no_grad()
def off(policy: CausalLM, batch: Batch) -> float:
    """How far the log-probabilities that a batch was written with are from those that `policy` has, at most."""
    found = []
    assert batch.logp_rollout is not None
    for tokens, action, logp in zip(batch.tokens, batch.action, batch.logp_rollout, strict=True):
        tokens = tokens[: int(action.nonzero().max()) + 1]
        hidden = policy.hidden_of(plant([tokens]))
        own = torch.log_softmax(policy.logits(hidden[:-1]), -1).gather(-1, tokens[1:, None])[:, 0]
        found.append((own - logp[1 : len(tokens)])[action[1 : len(tokens)]].abs().max())
    return float(torch.stack(found).max())


@dataclass(frozen=True)
class Trained:
    """A run, and for each step how far the engine was from the learner before its update, and from the learner at the end."""

    folder: RunFolder
    before: list[float]
    at_last: list[float]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """SmolLM2 after three steps."""
    place = tmp_path_factory.mktemp("smollm2")
    task = place / "sums.jsonl"
    task.write_text("".join(json.dumps({"prompt": f"{n} + 1 =", "answer": str(n + 1)}) + "\n" for n in range(24)))
    changes = {"model": "smollm2", "task.examples": 0, "steps": 3, "update.lr": 1e-4}
    given = settings(VLLM | changes | {"evaluate.problems": 4, "evaluate.every": 2})
    before, at_last, learn = [], [], Learner.learn

    def spied(learner: Learner, batch: Batch, step: int) -> dict[str, float]:
        before.append(off(learner.policy, batch))
        metrics = learn(learner, batch, step)
        if step == 3:
            at_last.extend(off(learner.policy, recorded_batch(RunFolder(place / "run"), number)) for number in (1, 2, 3))
        return metrics

    with mock.patch.object(Learner, "learn", spied):
        done = quatrain("train", "--task", task, "--method", "tis", "--out", place / "run", *given)
    assert (done.code, done.err) == (0, ""), done.err
    return Trained(RunFolder(place / "run"), before, at_last)


def test_smollm2_is_trained_on_answers_with_the_learners_log_probabilities(trained: Trained):
    """At the start and after each update, which changes them."""
    assert len(trained.before) == len(trained.at_last) == 3
    assert max(trained.before) < 1e-4
    assert min(trained.at_last) > 1e-2
    assert all(record["rollout/tokens"] > 0 for record in records(trained.folder.metrics.path))
    assert [record["step"] for record in records(trained.folder.evaluations.path)] == [0, 2, 3]


def test_what_was_trained_is_measured_by_either_engine(trained: Trained):
    """Greedily, so that both say the same."""
    told = []
    for name in ("vllm", "torch"):
        done = quatrain(
            "evaluate", trained.folder.path, "--set", f"engine.name={name}", "--json", trained.folder.path / "found.json"
        )
        assert (done.code, done.err) == (0, ""), done.err
        told.append(json.loads((trained.folder.path / "found.json").read_text())["scores"])
    assert told[0] == told[1]


@pytest.mark.parametrize("partial", [False, True])
def test_acting_ahead(tmp_path: Path, sums: Path, partial: bool):
    """Answers by older weights, and such of which each part is by another version."""
    staleness = {"staleness.steps": 2, "staleness.partial": partial, "steps": 4, "update.lr": 1e-2, "method": "tis"}
    run = train(tmp_path / "run", sums, **{k.replace(".", "__"): v for k, v in (VLLM | staleness).items()})
    folder = RunFolder(run)
    assert records(run / "metrics.jsonl")[-1]["rollout/staleness"] > 0
    batch = recorded_batch(folder, 4)
    assert batch.version is not None
    versions = batch.version[batch.action].unique().tolist()
    assert versions == ([1, 2, 3] if partial else [1])


def test_a_run_comes_out_the_same_twice(tmp_path: Path, sums: Path):
    changes = {k.replace(".", "__"): v for k, v in (VLLM | {"steps": 3, "update.lr": 1e-3}).items()}
    first, second = (records(train(tmp_path / name, sums, **changes) / "metrics.jsonl") for name in ("a", "b"))
    assert [r["fingerprint"] for r in first] == [r["fingerprint"] for r in second]


def test_as_a_stress(tmp_path: Path, sums: Path):
    """In processes of their own, as the lab's runs are."""
    given = settings(VLLM | {"engine.name": "torch", "evaluate.problems": 4, "update.minibatches": 1})
    done = quatrain(
        "stress", "--methods", "grpo", "--dials", "mismatch=vllm,int8", "--task", sums, "--seeds", 1, "--workers", 1,
        "--out", tmp_path / "lab", *given,
    )  # fmt: skip
    assert (done.code, done.err) == (0, ""), done.out
    cells = json.loads((tmp_path / "lab/map.json").read_text())["cells"]
    assert [cell["cell"] for cell in cells] == ["plain", "mismatch=vllm", "mismatch=int8"]
    gaps = [records(tmp_path / "lab" / cell["cell"] / "grpo/seed-0/metrics.jsonl")[0]["kl/rollout"] for cell in cells]
    assert min(gaps) >= 0
    assert max(gaps[:2]) < 1e-9 < gaps[2]  # either engine differs from the learner by its rounding
