"""Models of many families against themselves, run plainly by transformers."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, OPTConfig, Phi3Config, PreTrainedModel

from quatrain.config import ConfigError, LoraConfig
from quatrain.policies import CausalLM, plant
from tests.policies.families import FAMILIES, REFUSED, TOKENIZER, VOCABULARY, build, family, sequences

every_family = pytest.mark.parametrize("name", FAMILIES)
LORA = LoraConfig(rank=2, alpha=4.0)
ROUTED_IN_FLOAT32 = {"deepseek_v3"}
"""Families whose router rounds to float32 whatever the model's dtype is."""


@torch.no_grad()
def plain_logits(model: PreTrainedModel, rows: list[Tensor]) -> list[Tensor]:
    return [model(row[None]).logits[0] for row in rows]


@torch.no_grad()
def forest_logits(policy: CausalLM, rows: list[Tensor]) -> list[Tensor]:
    forest = plant(rows)
    logits = policy.logits(policy.hidden_of(forest))
    return [logits[path[: len(row)]] for row, path in zip(rows, forest.path, strict=True)]


def worst(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of two log-probabilities."""
    return max((a.log_softmax(-1) - b.log_softmax(-1)).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def bits(policy: CausalLM) -> dict[str, Tensor]:
    trunk = {name: value.detach().clone() for name, value in policy.base.state_dict().items()}
    return trunk | {f"{h}.{k}": v.detach().clone() for h, head in policy.heads.items() for k, v in head.state_dict().items()}


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def disturb(policy: CausalLM, seed: int = 0) -> None:
    """Move everything that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in policy.named_parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))


@every_family
def test_a_forest_gives_what_each_sequence_gives_alone(name: str):
    model = family(name, torch.float64)
    rows = sequences()
    theirs = plain_logits(model, rows)
    assert worst(forest_logits(CausalLM(model, TOKENIZER), rows), theirs) < (1e-5 if name in ROUTED_IN_FLOAT32 else 1e-8)


@every_family
def test_a_forest_gives_what_each_sequence_gives_alone_in_float32(name: str):
    model = family(name)
    rows = sequences(seed=1)
    theirs = plain_logits(model, rows)
    assert worst(forest_logits(CausalLM(model, TOKENIZER), rows), theirs) < 1e-4


@every_family
def test_a_branch_does_not_see_its_siblings(name: str):
    """Changing the tail of one sequence leaves every other sequence's distributions as they were."""
    policy = CausalLM(family(name, torch.float64), TOKENIZER)
    rows = sequences()
    changed = [rows[0].clone(), *rows[1:4]]
    changed[0][12:] = (changed[0][12:] + 5) % VOCABULARY
    before, after = forest_logits(policy, rows[:4]), forest_logits(policy, changed)
    assert worst(after[1:], before[1:]) < 1e-5
    assert worst(after[:1], before[:1]) > 1e-2


@pytest.mark.parametrize("name", REFUSED)
def test_families_that_cannot_work_are_refused(name: str):
    config, reason = REFUSED[name]
    with pytest.raises(ConfigError, match=reason) as error:
        CausalLM(build(config()), TOKENIZER)
    assert "choose another model" in str(error.value)
    assert "\n" not in str(error.value)


def test_xglm_is_refused_however_small_its_weights_are():
    """It ignores our attention and adds the mask to its scores; with the weights of an empty start the difference hides."""
    model = AutoModelForCausalLM.from_config(REFUSED["xglm"][0]())
    with pytest.raises(ConfigError, match="its attention cannot be chosen"):
        CausalLM(model, TOKENIZER)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_there_is_no_dropout(checkpointing: bool):
    """Neither in modules, nor in numbers that layers keep for themselves, nor as skipped layers."""
    config = FAMILIES["opt"]()
    assert isinstance(config, OPTConfig)
    config.dropout = config.attention_dropout = config.layerdrop = 0.5
    model = build(config)
    policy = CausalLM(model, TOKENIZER, gradient_checkpointing=checkpointing)
    forest = plant(sequences())
    with torch.no_grad():
        expected = policy.hidden_of(forest)
    assert torch.equal(policy.hidden_of(forest), expected)


@every_family
def test_what_was_saved_comes_back_to_the_bit(name: str, tmp_path: Path):
    policy = CausalLM(family(name), TOKENIZER)
    kept = bits(policy)
    policy.save(tmp_path)
    disturb(policy)
    policy.load(tmp_path)
    assert_same_bits(bits(policy), kept)


@every_family
def test_lora_comes_back_to_the_bit(name: str, tmp_path: Path):
    policy = CausalLM(family(name), TOKENIZER, lora=LORA, critic=True)
    disturb(policy)
    kept = bits(policy)
    policy.save(tmp_path)
    disturb(policy, seed=1)
    policy.load(tmp_path)
    assert_same_bits(bits(policy), kept)
    assert not list(tmp_path.glob("model*.safetensors"))


@every_family
@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_an_exported_folder_needs_nothing_else(name: str, lora: LoraConfig | None, tmp_path: Path):
    policy = CausalLM(family(name), TOKENIZER, lora=lora)
    disturb(policy)
    kept = bits(policy)
    policy.export(tmp_path)
    assert_same_bits(bits(policy), kept)
    rows = sequences()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert worst(plain_logits(loaded, rows), forest_logits(policy, rows)) < 3e-4
    assert "quatrain" not in (tmp_path / "config.json").read_text()
    assert not list(tmp_path.glob("adapter*"))
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == TOKENIZER.get_vocab()


def test_an_exported_folder_loads_where_quatrain_is_not(tmp_path: Path):
    policy = CausalLM(family("llama"), TOKENIZER, lora=LORA)
    disturb(policy)
    policy.export(tmp_path)
    rows = sequences()
    script = (
        "import sys, json, torch; from transformers import AutoModelForCausalLM as A, AutoTokenizer as T\n"
        "model, ids = A.from_pretrained(sys.argv[1]), json.loads(sys.argv[2])\n"
        "text = T.from_pretrained(sys.argv[1]).decode(ids)\n"
        "assert not any(name.startswith('quatrain') for name in sys.modules)\n"
        "print(json.dumps([text, model(torch.tensor([ids])).logits[0, -1].tolist()]))"
    )
    ids = rows[0].tolist()
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path), json.dumps(ids)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    text, logits = json.loads(run.stdout.splitlines()[-1])
    assert text == TOKENIZER.decode(ids)
    assert worst([torch.tensor([logits])], [forest_logits(policy, rows)[0][-1:]]) < 1e-4


@pytest.mark.parametrize("head", ["critic", "partition"])
def test_a_head_is_saved(head: str, tmp_path: Path):
    policy = CausalLM(family("llama"), TOKENIZER, **{head: True})
    disturb(policy)
    kept = bits(policy)
    assert any(value.abs().sum() > 0 for name, value in kept.items() if name.startswith(f"{head}."))
    policy.save(tmp_path)
    other = CausalLM(family("llama", seed=1), TOKENIZER, **{head: True}, seed=1)
    other.load(tmp_path)
    assert_same_bits(bits(other), kept)


def test_critic_starts_at_zero_and_reads_hidden_states():
    policy = CausalLM(family("llama"), TOKENIZER, critic=True)
    hidden = policy.hidden_of(plant(sequences()))
    assert (policy.value(hidden) == 0).all()
    disturb(policy)
    assert policy.critic is not None
    torch.testing.assert_close(policy.value(hidden), hidden @ policy.critic.weight[0] + policy.critic.bias)


def test_log_z_starts_at_zero_and_reads_the_mean_over_a_prompt():
    policy = CausalLM(family("llama"), TOKENIZER, partition=True)
    hidden = policy.hidden_of(plant(sequences()))
    prompts = torch.zeros(2, len(hidden), dtype=torch.bool)
    prompts[0, 1:4] = prompts[1, 2] = True
    assert (policy.log_z(hidden, prompts) == 0).all()
    disturb(policy)
    assert policy.partition is not None
    expected = policy.partition(torch.stack([hidden[1:4].mean(0), hidden[2]]))[:, 0]
    torch.testing.assert_close(policy.log_z(hidden, prompts), expected)
    assert expected[0] != expected[1]


def test_log_z_starts_alike_for_one_seed_and_leaves_the_chance_of_others_alone():
    models = [family("llama") for _ in range(3)]
    before = torch.get_rng_state()
    first, again, other = (CausalLM(m, TOKENIZER, partition=True, seed=seed) for m, seed in zip(models, (0, 0, 1), strict=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_bits(bits(first), bits(again))
    assert first.partition is not None and other.partition is not None
    assert not torch.equal(*(next(policy.partition.parameters()) for policy in (first, other)))  # type: ignore[union-attr]


@every_family
def test_lora_trains_only_adapters_and_starts_where_the_model_is(name: str):
    model = family(name)
    theirs = plain_logits(model, sequences())
    policy = CausalLM(model, TOKENIZER, lora=LORA)
    assert worst(forest_logits(policy, sequences()), theirs) < 1e-4
    trained = dict(policy.named_parameters())
    assert trained
    assert all(".lora_" in key for key in trained)
    policy.hidden_of(plant(sequences())).square().sum().backward()
    with_gradient = {key for key, p in policy.base.named_parameters() if p.grad is not None}
    assert with_gradient == set(trained)


def test_lora_is_that_of_its_seed():
    same = [CausalLM(family("llama"), TOKENIZER, lora=LORA, seed=3) for _ in range(2)]
    other = CausalLM(family("llama"), TOKENIZER, lora=LORA, seed=4)
    assert_same_bits(bits(same[0]), bits(same[1]))
    assert any(not torch.equal(a, b) for a, b in zip(bits(same[0]).values(), bits(other).values(), strict=True))


def test_without_its_adapter_a_policy_is_what_it_started_from():
    model = family("llama")
    theirs = plain_logits(model, sequences())
    policy = CausalLM(model, TOKENIZER, lora=LORA)
    disturb(policy)
    moved = forest_logits(policy, sequences())
    assert worst(moved, theirs) > 1e-2
    with policy.without_adapter():
        assert worst(forest_logits(policy, sequences()), theirs) < 1e-4
    assert worst(forest_logits(policy, sequences()), moved) == 0


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "opt", "qwen3_moe"])
def test_gradient_checkpointing_changes_no_gradient(name: str, lora: LoraConfig | None):
    gradients = []
    for checkpointing in (False, True):
        policy = CausalLM(family(name), TOKENIZER, lora=lora, gradient_checkpointing=checkpointing)
        disturb(policy)
        recomputed = _count_layer_runs(policy)
        policy.hidden_of(plant(sequences())).square().sum().backward()
        assert recomputed[0] == (2 if checkpointing else 1)
        gradients.append({key: p.grad for key, p in policy.named_parameters()})
    for key, gradient in gradients[0].items():
        if gradient is None:
            assert gradients[1][key] is None
        else:
            torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-6)


def _count_layer_runs(policy: CausalLM) -> list[int]:
    """How often the last layer began, in a list of one number."""
    count = [0]
    layers = next(m for m in policy.decoder.modules() if isinstance(m, torch.nn.ModuleList))
    inner = next(m for m in layers[-1].modules() if next(m.children(), None) is None)
    inner.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    return count


def test_context_and_end_tokens():
    model = family("llama")
    assert CausalLM(model, TOKENIZER).context == 64
    assert CausalLM(model, TOKENIZER).end_tokens == {2}
    model = copy.deepcopy(model)
    model.generation_config.eos_token_id = [5, 7]
    assert CausalLM(model, TOKENIZER).end_tokens == {5, 7}
    model.generation_config.eos_token_id = None
    assert CausalLM(model, TOKENIZER).end_tokens == {TOKENIZER.eos_token_id}


def test_long_rope_is_kept_to_lengths_at_which_sequences_do_not_change_one_another():
    config = FAMILIES["phi3"]().to_dict() | {"sliding_window": None, "original_max_position_embeddings": 16}
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": 16}
    config["rope_parameters"] = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}
    model = build(Phi3Config(**config), torch.float64)
    theirs = [plain_logits(model, [row[:n]])[0] for row in sequences() for n in (16, 17)]
    policy = CausalLM(model, TOKENIZER)
    assert policy.context == 16
    assert worst(forest_logits(policy, [row[:16] for row in sequences()]), theirs[::2]) < 1e-8
    assert worst(forest_logits(policy, [row[:17] for row in sequences()]), theirs[1::2]) > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_logits_are_in_float32_or_better(dtype: torch.dtype):
    policy = CausalLM(family("llama", dtype), TOKENIZER)
    hidden = policy.hidden_of(plant(sequences()))
    assert hidden.dtype == dtype
    assert policy.logits(hidden).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
