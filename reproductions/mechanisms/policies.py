"""What happens to policies: experts that are chosen again, and the likelihood of preferred answers."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from quatrain.assembly import measure
from quatrain.claims import Expectation
from quatrain.policies import character_tokenizer
from quatrain.run import Run
from quatrain.types import Batch, Group, collate
from reproductions.mechanisms.acting import acted, stages
from reproductions.mechanisms.mechanism import Measured, mechanism

IMITATED = 150
"""Steps for which the mixture of experts imitates solutions before it acts."""
EXTREME = 2.0
"""A ratio above it, or below its inverse, is extreme."""


@mechanism(
    "update.routing",
    says="Repeating the experts that the engine chose (R3) brings engine and learner closer and leaves fewer extreme ratios; "
    "repeating those of the policy at the start of the update (R2) does so between it and the policy that it has become.",
    paper="arXiv:2512.01374",
    measured="a mixture of 8 experts in each of two layers, two of them for a token, that imitated solutions of "
    f"`written:chain` for {IMITATED} steps, with an engine of four bits. `closeness` is 1 − the KL from the engine to the "
    f"learner in units of that without replay, `tame` the same of the share of tokens whose ratio is above {EXTREME:g} or "
    "below its inverse; `moved` is `closeness` between the policy before and after the first of four minibatches, at the "
    "others",
    metric="closeness",
    expected=[
        Expectation(says="R3 brings them closer.", better="R3", than="none", smallest_effect=0.1),
        Expectation(says="R3 leaves fewer extreme ratios.", better="R3", metric="tame", than="none", smallest_effect=0.1),
        Expectation(
            says="R2 keeps what is learned later on-policy.", better="R2", metric="moved", than="none", smallest_effect=0.1
        ),
    ],
    seeds=5,
    note="This is the second try. With an engine of eight bits the KL was 1e-5 and no ratio was extreme, with or without "
    "replay; R3 made the KL less by 0.65 [0.21, 1.1] of it, and R2 that of the update by 0.13 [0.03, 0.23].",
)
def routing_replay(seed: int) -> Measured:
    """One batch, scored with and without replay."""
    gaps: dict[str, tuple[float, float]] = {}
    moved: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = _mixture(Path(folder), seed)
        for name, routing in (("none", "none"), ("R3", "rollout"), ("R2", "old")):
            settings = {"update": {"routing": routing, "minibatches": 4, "lr": 1e-3}, "engine": {"weights": "int4"}}
            with stages(method=_PLAIN, model=str(place), task=_TASK, seed=seed, **settings) as run:
                batch = run.learner.prepare(acted(run, 16))
                gaps[name] = _gap(batch, run.learner.score(batch, run.policy, learning=True).logp, batch.logp_rollout)
                first, *others = run.learner.minibatches(batch, 1)
                run.learner.update(run.learner.method.bind(first))
                found = [_gap(part, run.learner.score(part, run.policy, learning=True).logp, part.logp_old)[0] for part in others]
                moved[name] = sum(found) / len(found)
    plain = gaps["none"]
    return {
        name: {
            "closeness": 1 - kl / plain[0],
            "tame": 1 - extreme / plain[1] if plain[1] else 0.0,
            "moved": 1 - moved[name] / moved["none"],
            "kl": kl,
            "extreme": extreme,
            "kl of the update": moved[name],
        }
        for name, (kl, extreme) in gaps.items()
    }


_TASK = {"name": "written:chain", "template": "plain"}
_PLAIN = {"name": "grpo", "settings": {"kl.coefficient": 0}}


_MIXTURE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "initializer_range": 0.08,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _gap(batch: Batch, logp: Tensor, other: Tensor | None) -> tuple[float, float]:
    """KL(other‖policy) by its estimate k3, and the share of extreme ratios, over actions that `other` took."""
    assert batch.action is not None and other is not None
    distance = (logp - other)[batch.action].double()
    return (distance.exp() - 1 - distance).mean().item(), (distance.abs() > math.log(EXTREME)).double().mean().item()


def _mixture(folder: Path, seed: int) -> Path:
    """A small mixture of experts that has imitated solutions."""
    tokenizer = character_tokenizer(["Question: ", "\nAnswer:"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.Qwen3MoeConfig(vocab_size=len(tokenizer), **_MIXTURE)
        model = transformers.Qwen3MoeForCausalLM(config)
    start, done = folder / "start", folder / "done"
    model.save_pretrained(start)
    tokenizer.save_pretrained(start)
    update = {"lr": 2e-3, "warmup_steps": 10, "schedule": "cosine", "tokens_per_pass": 1024}
    with stages(method="sft", model=str(start), task=_TASK, seed=seed, steps=IMITATED, update=update) as run:
        for step in range(1, IMITATED + 1):
            run.learner.learn(acted(run, 16), step)
        run.policy.save(done)
    return done


TRAINED, HELD_OUT = 40, 64
"""Steps, of eight pairs each, and problems that are looked at after them."""


@mechanism(
    "vpo",
    says="A bias toward the preferred answers keeps their likelihood, which DPO lets fall.",
    paper="arXiv:2405.19320",
    measured="by how much log π of the preferred answers to other problems rises, per token; pairs are a right solution of "
    f"`written:addition` and a wrong answer that `tunnel` drew, eight in each of {TRAINED} steps. `accuracy` is of its "
    "answers, drawn at temperature 1",
    metric="likelihood",
    expected=[
        Expectation(says="It stays above DPO's.", better="vpo", than="dpo", smallest_effect=0.02),
        Expectation(says="Answers are right as often.", better="vpo", metric="accuracy", than="dpo", smallest_effect=-0.05),
    ],
    seeds=5,
)
def preferred_answers(seed: int) -> Measured:
    """The same pairs with both losses."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        with stages(method="rloo", task="written:addition", seed=seed) as run, file.open("w") as pairs:
            for _ in range(6):
                groups = run.judging.judge(run.rollout(run.source.take(128), version=0))
                pairs.writelines(json.dumps(pair) + "\n" for group in groups for pair in _pair(group))
        return {name: _preferring(name, file, seed) for name in ("dpo", "vpo")}


def _pair(group: Group) -> list[dict[str, Any]]:
    """The solution and the first wrong answer; nothing where all answers are right."""
    prompt = group.prompt
    question = prompt.text.removeprefix("Question: ").removesuffix("\nAnswer:")
    wrong = [t.text.strip() for t in group.trajectories if t.reward == 0 and t.text.strip()]
    right = (prompt.demonstration or "").strip()
    about = {"prompt": question, "answer": prompt.answer, "written": prompt.info["written"]}
    return [about | {"chosen": right, "rejected": wrong[0]}] if wrong else []


def _preferring(name: str, file: Path, seed: int) -> dict[str, float]:
    task = {"name": str(file), "template": "plain"}
    asked = {"problems": HELD_OUT, "samples": 8, "temperature": 1.0}
    with stages(method=name, task=task, evaluate=asked, prompts_per_step=8, steps=TRAINED, seed=seed) as run:
        pairs = collate(run.rated(run.source.held_out, version=0))
        assert pairs.reward is not None
        preferred = pairs.rows((pairs.reward == 1).nonzero()[:, 0])
        before = _likelihood(run, preferred)
        for step in range(1, TRAINED + 1):
            run.learner.learn(acted(run, 8), step)
        found = measure(run.config, run.policy, run.template, run.engine, run.judge, run.source.held_out)
        return {"likelihood": _likelihood(run, preferred) - before, "accuracy": found.accuracy.value}


def _likelihood(run: Run, batch: Batch) -> float:
    """The mean of log π over actions."""
    assert batch.action is not None
    return run.learner.score(batch, run.policy).logp[batch.action].mean().item()
