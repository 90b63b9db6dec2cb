"""The policy to stay close to: three ways of having it, one result."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from quatrain.config import ConfigError, LoraConfig
from quatrain.policies import CausalLM
from quatrain.update import Learner, Reference
from tests.policies.families import TOKENIZER, family
from tests.update.plain import batch, learner, policy
from tests.update.test_learner import assert_same_bits, weights

WAYS = ["keep", "swap", "lora"]


def start(way: str, name: str = "llama, tied") -> CausalLM:
    """Every way starts from the same policy."""
    lora = LoraConfig(rank=2) if way == "lora" else None
    return CausalLM(family(name), TOKENIZER, lora=lora, critic=True)


def learning(way: str, folder: Path, name: str = "llama, tied") -> Learner:
    ours = start(way, name)
    return learner(ours, "grpo", reference=Reference(ours, keep=way == "keep", folder=folder), lr=0.01)


def logp_ref(of: Learner) -> torch.Tensor:
    found = of.prepare(batch()).logp_ref
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["llama, tied", "gpt2"])
@pytest.mark.parametrize("way", WAYS)
def test_it_stays_where_the_policy_started(way: str, name: str, tmp_path: Path):
    ours = learning(way, tmp_path, name)
    begun = ours.score(batch(), ours.policy).logp
    assert torch.equal(logp_ref(ours), begun)
    for step in range(1, 4):
        ours.learn(batch(step), step)
    assert torch.equal(logp_ref(ours), begun)
    assert (ours.score(batch(), ours.policy).logp - begun).abs().max() > 0.01


def test_every_way_gives_the_same(tmp_path: Path):
    kept, swapped, switched = (learning(way, tmp_path / way) for way in WAYS if not (tmp_path / way).mkdir())
    assert torch.equal(logp_ref(kept), logp_ref(swapped))
    torch.testing.assert_close(logp_ref(switched), logp_ref(kept), rtol=1e-6, atol=1e-6)
    for step in range(1, 4):
        assert kept.learn(batch(step), step) == swapped.learn(batch(step), step)
    assert_same_bits(weights(kept.policy), weights(swapped.policy))


@pytest.mark.parametrize("way", WAYS)
def test_the_policy_is_the_same_to_the_bit_afterwards(way: str, tmp_path: Path):
    ours = learning(way, tmp_path)
    ours.learn(batch(1), 1)
    before, places = weights(ours.policy), {k: p.data_ptr() for k, p in ours.policy.named_parameters()}
    base = {k: v.clone() for k, v in ours.policy.base.state_dict().items()}
    assert ours.reference is not None
    with ours.reference.active() as reference:
        ours.score(batch(), reference)
    with pytest.raises(KeyError), ours.reference.active():
        raise KeyError
    assert_same_bits(weights(ours.policy), before)
    assert_same_bits(dict(ours.policy.base.state_dict()), base)
    assert {k: p.data_ptr() for k, p in ours.policy.named_parameters()} == places


@pytest.mark.parametrize("way", ["keep", "swap"])
def test_tied_weights_are_tied_in_the_reference(way: str, tmp_path: Path):
    ours = learning(way, tmp_path)
    assert ours.reference is not None
    with ours.reference.active() as reference:
        assert reference.head.weight.data_ptr() == reference.base.get_input_embeddings().weight.data_ptr()


def test_a_resumed_run_keeps_the_reference_it_started_with(tmp_path: Path):
    ours = learning("swap", tmp_path)
    begun = logp_ref(ours)
    ours.learn(batch(1), 1)
    resumed = learner(ours.policy, "grpo", reference=Reference(ours.policy, keep=False, folder=tmp_path))
    assert torch.equal(logp_ref(resumed), begun)
    assert [path.name for path in tmp_path.iterdir()] == ["reference.safetensors"]


def test_a_kept_reference_is_not_trained(tmp_path: Path):
    ours = learning("keep", tmp_path)
    assert ours.reference is not None
    with ours.reference.active() as reference:
        assert list(reference.named_parameters()) == []
    assert len(list(ours.policy.named_parameters())) > 5
    assert ours.policy.critic is not None


def test_another_model_may_be_the_reference(tmp_path: Path):
    ours, other = policy(dtype=torch.float32), CausalLM(family("gemma3"), TOKENIZER)
    expected = learner(ours, "grpo").score(batch(), other).logp
    training = learner(ours, "grpo", reference=Reference(ours, keep=True, folder=tmp_path, other=other))
    assert torch.equal(logp_ref(training), expected)
    assert list(other.named_parameters()) == []


def test_another_vocabulary_is_refused(tmp_path: Path):
    strange = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")))
    other = CausalLM(family("llama"), strange)
    with pytest.raises(ConfigError, match="another vocabulary than the trained one: choose one of the same family"):
        Reference(policy(), keep=True, folder=tmp_path, other=other)
