"""Runs from the command line to the last file, with the smallest model."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from quatrain.config import RunConfig
from quatrain.policies.loading import tiny
from quatrain.recipes import RECIPES
from quatrain.types import Origin
from tests.command_line import DIGITS, JUDGING, PARITY, UNRULY, jsonl, quatrain, records, settings, sums, train

__all__ = ["sums"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def start(seed: int = 0) -> dict[str, torch.Tensor]:
    return dict(tiny(seed)[0].named_parameters())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a.keys() & b.keys())


def test_lora_trains_an_adapter_and_exports_a_whole_model(tmp_path: Path, sums: Path):
    run = train(
        tmp_path / "run", sums, "--reward", PARITY, method="grpo", model={"name": "tiny", "lora": {"rank": 4}}, update__lr=1e-2
    )
    kept = run / "checkpoints" / "step-000002" / "model"
    adapter = load_file(kept / "adapter_model.safetensors")
    assert {value.shape[i] for name, value in adapter.items() for i in (0,) if "lora_A" in name} == {4}
    assert any(value.abs().sum() > 0 for name, value in adapter.items() if "lora_B" in name)
    whole = weights(run / "model")
    assert not any("lora" in name for name in whole)
    moved = {name for name, value in start().items() if not torch.equal(whole[name], value)}
    assert moved
    assert all("_proj" in name for name in moved), "LoRA trains the linear layers and nothing else"
    loaded = AutoModelForCausalLM.from_pretrained(run / "model")
    assert same(dict(loaded.named_parameters()), whole)


def test_the_reward_is_the_weighted_sum_of_several(tmp_path: Path, sums: Path):
    rewards = ("--reward", f"{DIGITS}=2", "--reward", f"{PARITY}=-0.5", "--reward", "format=0.25")
    run = train(tmp_path / "run", sums, *rewards, method="dr_grpo", sample_rollouts=8, steps=3)
    texts = records(run / "rollouts.jsonl")
    assert len(texts) == 24
    for r in texts:
        parts = r["rewards"]
        assert r["reward"] == pytest.approx(2 * parts[DIGITS] - 0.5 * parts[PARITY] + 0.25 * parts["format"])
    assert {r["rewards"][PARITY] for r in texts} == {0.0, 1.0}
    for record in records(run / "metrics.jsonl"):
        step = [r["reward"] for r in texts if r["step"] == record["step"]]
        assert record["reward/mean"] == pytest.approx(np.mean(step))
        assert record[f"reward/{DIGITS}"] == pytest.approx(
            np.mean([r["rewards"][DIGITS] for r in texts if r["step"] == record["step"]])
        )


def test_a_yaml_file_is_a_recipe_and_options_are_applied_on_top(tmp_path: Path, sums: Path):
    recipe = tmp_path / "mine.yaml"
    tree = {
        "method": {"name": "dapo", "settings": {"mask.high": 0.3}},
        "task": {"name": str(sums), "template": "plain"},
        "model": "tiny",
        "steps": 1,
        "prompts_per_step": 2,
        "group_size": 2,
        "max_answer_tokens": 3,
        "threads": 1,
        "evaluate": {"problems": 0},
        "rewards": [{"name": PARITY, "weight": 2.0}],
    }
    recipe.write_text(yaml.safe_dump(tree))
    out = tmp_path / "2024"
    done = quatrain("train", recipe, "--seed", 3, "--out", out, "--set", "method.mask.low=0.1", "--set", "update.lr=1e-4")
    assert (done.code, done.err) == (0, "")
    config = RunConfig.model_validate(yaml.safe_load((out / "config.yaml").read_text()))
    assert config.method.model_dump() == {"name": "dapo", "settings": {"mask.high": 0.3, "mask.low": 0.1}}
    assert (config.seed, config.update.lr, config.rewards[0].weight) == (3, 1e-4, 2.0)
    assert same(start(3), start(3))
    assert not same(start(3), start(0))


def test_a_recipe_runs_by_its_name(tmp_path: Path):
    small = ("--model", "tiny", "--set", "steps=1", "--set", "prompts_per_step=2", "--set", "evaluate.problems=3")
    done = quatrain("train", "smollm2-chain-sum", *small, "--out", tmp_path / "run", "--set", "threads=1")
    assert (done.code, done.err) == (0, "")
    tree, recipe = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()), RECIPES["smollm2-chain-sum"].config
    assert tree["method"]["name"] == recipe["method"]
    assert tree["group_size"] == recipe["group_size"]
    assert tree["update"].items() >= recipe["update"].items()
    prompt = records(tmp_path / "run" / "rollouts.jsonl")[0]["prompt"]
    assert prompt.count("Question:") == prompt.count("Answer:") == 1 + recipe["task"]["examples"]


def test_without_a_folder_given_runs_are_numbered(tmp_path: Path, sums: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert quatrain("train", "--task", sums, *settings({"steps": 1, "method": "sft"})).code == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert [name.split("-", 3)[3] for name in names] == ["sft-sums-1", "sft-sums-2"]


def test_a_dense_reward_is_learned_within_seconds(tmp_path: Path, sums: Path):
    run = train(
        tmp_path / "run", sums, "--reward", DIGITS, method="dr_grpo", steps=25, prompts_per_step=8, group_size=8,
        max_answer_tokens=8, update__lr=3e-3,
    )  # fmt: skip
    means = np.array([record["reward/mean"] for record in records(run / "metrics.jsonl")])
    before, after = means[:5], means[-5:]
    noise = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / 5)
    assert before.mean() < 0.25
    assert after.mean() - before.mean() > max(0.3, 5 * noise)


def test_imitation_reaches_answers_that_only_mathematics_finds_equal(tmp_path: Path):
    rows = [{"prompt": f"{n} halves of one {n}th?", "answer": "0.5", "how": "1/2"} for n in range(16)]
    task = jsonl(tmp_path / "halves.jsonl", rows)
    run = train(
        tmp_path / "run", task, "--reward", "math", method="sft", steps=30, update__lr=3e-3, evaluate__problems=4,
        evaluate__every=0, task={"name": str(task), "demonstration_column": "how"}, prompts_per_step=4, max_answer_tokens=6,
    )  # fmt: skip
    before, after = (record["estimates"]["pass@1"]["value"] for record in records(run / "evaluations.jsonl"))
    assert (before, after) == (0, 1)


@pytest.mark.parametrize("kind", ["parquet", "folder", "reasoning_gym"])
def test_tasks_of_every_kind_train(tmp_path: Path, kind: str):
    rows = [{"question": f"{n} + 1 = ?", "gold": str(n + 1)} for n in range(8)]
    columns = {"prompt_column": "question", "answer_column": "gold"}
    if kind == "reasoning_gym":
        task: dict[str, Any] = {"name": "reasoning_gym:chain_sum?min_terms=2&max_terms=2"}
    else:
        name = "problems.parquet" if kind == "parquet" else "data/train-00000-of-00001.parquet"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
        task = {"name": str(tmp_path / ("data" if kind == "folder" else name)), **columns}
    run = train(tmp_path / "run", "ignored", method="sft", task=task, steps=1, prompts_per_step=4)
    texts = records(run / "rollouts.jsonl")
    assert len(texts) == 4
    for r in texts:
        question = r["prompt"].removeprefix("Question: ").removesuffix("\nAnswer:")
        terms = question.removesuffix(" = ?").removeprefix("State the final answer to the following arithmetic problem: ")
        assert int(r["answer"]) == eval(terms.removesuffix(" ="), {}), "the prompt and the answer belong to one problem"
        assert r["text"].strip() == r["answer"]


def test_the_models_chat_template_is_what_it_reads_and_ends_an_answer(tmp_path: Path, sums: Path):
    model, tokenizer = tiny(0)
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}[assistant]{% endif %}"
    model.save_pretrained(tmp_path / "chatty")
    tokenizer.save_pretrained(tmp_path / "chatty")
    task = {"name": str(sums), "system": "Be brief."}
    run = train(tmp_path / "run", "ignored", method="sft", model=str(tmp_path / "chatty"), task=task, steps=1)
    for r in records(run / "rollouts.jsonl"):
        assert r["prompt"].startswith("[system]Be brief.<eos>[user]")
        assert r["prompt"].endswith(" + 1 = ?<eos>[assistant]")
        assert r["text"] == r["answer"]
    batch = load_file(run / "rollouts" / "step-000001.safetensors")
    last = [row[action][-1] for row, action in zip(batch["tokens"], batch["action"], strict=True)]
    assert all(token == tokenizer.eos_token_id for token in last), "the end of a turn is one token"
    assert AutoTokenizer.from_pretrained(run / "model").chat_template == tokenizer.chat_template


def test_tensorboard_shows_the_metrics(tmp_path: Path, sums: Path):
    run = train(tmp_path / "run", sums, "--reward", PARITY, method="reinforce", trackers=["tensorboard"])
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    metrics = records(run / "metrics.jsonl")
    for name in ("reward/mean", "entropy", "update/grad_norm"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(r["step"], pytest.approx(r[name])) for r in metrics]


def test_a_reward_that_fails_costs_one_answer_and_is_counted_and_recorded(tmp_path: Path):
    kinds = {"raise": "KeyError", "hang": "longer than 0.3 s", "nan": "finite", "die": "exit code 3", "fine": None}
    task = jsonl(tmp_path / "kinds.jsonl", [{"prompt": kind, "answer": "x"} for kind in kinds])
    run = train(
        tmp_path / "run", task, own_judge=True, method="reinforce", group_size=1, prompts_per_step=5, steps=1,
        sample_rollouts=5, rewards=[{"name": UNRULY, "timeout_seconds": 0.3}],
    )  # fmt: skip
    (record,) = records(run / "metrics.jsonl")
    assert (record["reward/failed"], record["rollout/failed"], record["reward/mean"]) == (4, 0, 1)
    errors = {r["prompt"].removeprefix("Question: ").removesuffix("\nAnswer:"): r for r in records(run / "rollouts.jsonl")}
    assert errors.keys() == kinds.keys()
    for kind, sign in kinds.items():
        r = errors[kind]
        assert r["reward"] == (None if sign else 1.0)
        assert r["error"] is None if sign is None else sign in r["error"]
    assert len(load_file(run / "rollouts" / "step-000001.safetensors")["tokens"]) == 1, "only the judged one is trained on"


def test_a_run_whose_rewards_all_fail_says_so_and_moves_nothing(tmp_path: Path, sums: Path):
    out, broken = tmp_path / "run", {"name": f"{JUDGING}:equal", "options": {"value": "much"}}
    done = quatrain("train", "--task", sums, "--out", out, *settings({"rewards": [broken], "method": "grpo"}))
    assert done.code == 0
    assert "step 1: 8 of 8 answers are left out, the first because: reward" in done.out
    assert [r["reward/failed"] for r in records(out / "metrics.jsonl")] == [8, 8]
    assert same(weights(out / "model"), start())


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "rloo", "dapo", "gspo", "cispo"])
def test_equal_rewards_have_no_gradient(tmp_path: Path, sums: Path, method: str):
    run = train(tmp_path / "run", sums, "--reward", f"{JUDGING}:equal", method=method, update__lr=1.0)
    for record in records(run / "metrics.jsonl"):
        assert record["update/grad_norm"] == 0
        assert record["advantage/zero_groups"] == 1
        assert None not in record.values()
    assert same(weights(run / "model"), start())


def test_good_answers_come_back_as_they_were_written(tmp_path: Path, sums: Path):
    """Each replayed row is one of a step before, of the policy's own and better than its group, and comes back once."""
    changes: dict[str, Any] = {"replay.size": 5, "steps": 6, "max_answer_tokens": 8, "update.lr": 1e-2}
    run = train(tmp_path / "run", sums, "--reward", PARITY, *settings(changes), method="spear")
    batches = [load_file(run / "rollouts" / f"step-{n:06d}.safetensors") for n in range(1, 7)]
    told = [record.get("rollout/replayed", 0.0) for record in records(run / "metrics.jsonl")]
    replayed = [batch["origin"] == Origin.REPLAY.code for batch in batches]
    assert told == [float(rows.sum()) for rows in replayed]
    assert sum(told) > 0 and told[0] == 0

    def written(batch: dict[str, torch.Tensor], row: int) -> tuple[object, ...]:
        acts = batch["action"][row]
        size = int(acts.nonzero().max()) + 1
        kept = [batch[name][row, :size].tolist() for name in ("tokens", "logp_rollout", "version", "action")]
        return (*map(tuple, kept), int(batch["prompt_id"][row]), float(batch["reward"][row]))

    seen: list[tuple[object, ...]] = []
    for batch, rows in zip(batches, replayed, strict=True):
        own, reward, prompt = ~rows, batch["reward"], batch["prompt_id"]
        for row in rows.nonzero()[:, 0].tolist():
            seen.remove(written(batch, row))
        for row in own.nonzero()[:, 0].tolist():
            group = reward[own & (prompt == prompt[row])]
            seen += [written(batch, row)] if reward[row] > group.mean() else []


def test_steps_are_probed_where_they_end(tmp_path: Path, sums: Path):
    """A step ends after each digit 1, which is a token: steps are what a batch's tokens say, and potentials lie in bounds."""
    probe = {"probe": {"step": "1", "opener": "=", "samples": 2, "max_tokens": 3}}
    run = train(tmp_path / "run", sums, "--reward", PARITY, method="spae", max_answer_tokens=48, group_size=8, **probe)
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    several = 0
    for n in (1, 2):
        batch = load_file(run / "rollouts" / f"step-{n:06d}.safetensors")
        for tokens, acts, step, potential in zip(*(batch[k] for k in ("tokens", "action", "step", "potential")), strict=True):
            texts = [tokenizer.decode(token) for token in tokens[acts]]
            assert step[acts].tolist() == [sum("1" in text for text in texts[:t]) for t in range(len(texts))]
            assert (potential.abs() <= 1).all()
            if step.max() > 1:
                several += 1
                assert potential[acts].unique().numel() > 1
            if step.max() == 0:
                assert (potential == 0).all()
    assert several


def test_problems_without_a_demonstration_are_recorded_and_left_out(tmp_path: Path):
    rows = [{"prompt": f"p{n}", "answer": "yes" if n % 2 else None} for n in range(8)]
    task = jsonl(tmp_path / "half.jsonl", rows)
    out = tmp_path / "run"
    done = quatrain(
        "train", "--task", task, "--out", out, *settings({"method": "sft", "prompts_per_step": 8, "sample_rollouts": 8})
    )
    assert done.code == 0
    assert "step 1: 4 of 8 answers are left out, the first because: the task has no demonstration" in done.out
    failed = [r for r in records(out / "rollouts.jsonl") if r["step"] == 1 and r["error"]]
    assert len(failed) == 4
    assert all(r["answer"] is None for r in failed)
    assert len(load_file(out / "rollouts" / "step-000001.safetensors")["tokens"]) == 4


def test_a_run_that_blows_up_ends_itself_and_can_be_looked_into(tmp_path: Path, sums: Path):
    out = tmp_path / "run"
    wild = settings({"method": "reinforce", "update.lr": 1e30, "steps": 12, "checkpoint.every": 1, "update.max_bad_steps": 3})
    done = quatrain("train", "--task", sums, "--out", out, "--reward", PARITY, *wild)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "3 updates in a row had a gradient that is not finite" in done.err
    assert "update.lr" in done.err
    metrics = records(out / "metrics.jsonl")
    last = metrics[-1]["step"]
    assert last < 12
    assert metrics[-1]["update/skipped"] == 2
    assert (out / "checkpoints" / f"step-{last + 1:06d}").is_dir(), "what was learned is saved where it stopped"
    assert (out / "report.html").is_file()
    assert str(out / "report.html") in done.err
    assert not (out / "model").exists()
    assert quatrain("replay", out, "--step", last).code == 0
    again = quatrain("train", "--resume", out)
    assert again.code == 1
    assert "4 updates in a row had a gradient that is not finite" in again.err, "no second chance without a good update"


def test_what_only_the_model_can_tell_leaves_no_folder_behind(tmp_path: Path, sums: Path):
    out = tmp_path / "run"
    done = quatrain("train", "--task", sums, "--out", out, *settings({"method": "sft", "task.template": "chat"}))
    assert done.code == 2
    assert "set task.template=plain" in done.err
    assert not out.exists()
    done = quatrain("train", "--task", sums, "--out", out, *settings({"method": "grpo", "max_answer_tokens": 2048}))
    assert done.code == 2
    assert "tiny holds 2048 tokens" in done.err
    assert not out.exists()
    train(out, sums, method="sft")
    assert json.loads((out / "environment.json").read_text())["torch"]
