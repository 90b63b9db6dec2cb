"""Models by name, and names that are wrong."""

import string
from pathlib import Path

import pytest
import torch

from quatrain.config import ConfigError, ModelConfig
from quatrain.policies import advice, check, load_model
from tests.policies.families import TOKENIZER, family


def test_tiny_is_that_of_its_seed_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    models = [load_model(ModelConfig(name="tiny"), seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    first, again, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("text", [string.printable[:95] + "\n", "12 + 3 = 15\n", "  two  blanks ", "a"])
def test_tiny_reads_and_writes_every_printable_character(text: str):
    ids = TOKENIZER(text)["input_ids"]
    assert len(ids) == len(text)
    assert TOKENIZER.unk_token_id not in ids
    assert TOKENIZER.decode(ids) == text


def test_tiny_marks_what_it_does_not_know():
    assert TOKENIZER("aé")["input_ids"][1] == TOKENIZER.unk_token_id


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_dtype_that_was_asked_for(dtype: str):
    model, _ = load_model(ModelConfig(name="tiny", dtype=dtype, device="cpu"), 0)
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}


def test_a_cpu_gets_float32():
    assert load_model(ModelConfig(name="tiny", device="cpu"), 0)[0].dtype == torch.float32


def test_a_folder_is_read_as_it_was_written(tmp_path: Path):
    model = family("gemma3")
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    config = ModelConfig(name=str(tmp_path), device="cpu")
    check(config)
    loaded, tokenizer = load_model(config, 0)
    assert type(loaded) is type(model)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    assert advice(config).template == "auto"


def test_only_safetensors_are_read(tmp_path: Path):
    model = family("llama")
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        load_model(ModelConfig(name=str(tmp_path), device="cpu"), 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere/model", "there is no such folder, nor a model of that name on the hub"),
        ("tinny", "did you mean tiny"),
        ("smolm2", "did you mean smollm2"),
    ],
)
def test_a_wrong_name_is_refused_without_asking_the_network(name: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("quatrain.policies.loading.HfApi", lambda: pytest.fail("asked"))
    with pytest.raises(ConfigError, match=f"cannot find the model .*{message}"):
        check(ModelConfig(name=name))


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"has no config\.json: give a folder that save_pretrained wrote"):
        check(ModelConfig(name=str(tmp_path)))


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_refused(device: str):
    with pytest.raises(ConfigError, match=f"model.device = '{device}' is not on this machine: choose cpu or auto"):
        check(ModelConfig(name="tiny", device=device))
    check(ModelConfig(name="tiny", device="cpu"))
