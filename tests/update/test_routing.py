"""Experts that are chosen again: those of the policy at the start of an update, or those of the engine."""

from typing import Any

import pytest
import torch
from torch import Tensor

from quatrain.assembly import load_policy, make_acting, open_engine
from quatrain.config import ConfigError, load
from quatrain.methods import METHODS
from quatrain.policies import CausalLM, plant
from quatrain.policies.routing import NONE
from quatrain.rollouts import Sampling, TorchEngine
from quatrain.rollouts.precision import Served
from quatrain.rollouts.rollout import Rollout
from quatrain.types import Batch, Prompt, collate
from tests.policies.families import TOKENIZER, family, sequences
from tests.update.plain import HUGE, Plain, batch, error, gradient_of, learner, with_policies
from tests.update.test_learner import assert_same_bits, weights

MIXED = pytest.mark.parametrize("name", ["qwen3_moe", "deepseek_v3"])
FIRST = {"qwen3_moe": 0, "deepseek_v3": 1}
"""The first layer that has experts."""


def mixture(name: str, dtype: torch.dtype = torch.float64, **more) -> CausalLM:
    return CausalLM(family(name, dtype), TOKENIZER, **more)


def shaken(policy: CausalLM, by: float) -> CausalLM:
    """With routers that are some way off, as another engine's would be."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in policy.base.named_parameters():
            if name.endswith("gate.weight"):
                p += by * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return policy


@MIXED
def test_what_is_chosen_is_what_the_router_ranks_first(name: str):
    policy = mixture(name)
    forest = plant(sequences())
    router = policy.layers[-1].mlp.gate
    logits = []
    handle = router.register_forward_hook(lambda _, __, out: logits.append(out[0]))
    with policy.routed() as routing, torch.no_grad():
        policy.hidden_of(forest)
    handle.remove()
    chosen = routing.chosen
    assert chosen.shape == (len(forest), 2, 2)
    assert ((chosen == NONE).all(0).all(1) == (torch.arange(2) < FIRST[name])).all()
    assert torch.equal(chosen[:, -1].sort(1).values, logits[0].topk(2).indices.sort(1).values)
    assert len(chosen[:, -1].unique()) == 4


@MIXED
def test_its_own_choice_changes_not_one_bit(name: str):
    policy = mixture(name)
    forest = plant(sequences())
    with torch.no_grad():
        plain = policy.hidden_of(forest)
        with policy.routed() as routing:
            assert torch.equal(policy.hidden_of(forest), plain)
        with policy.routed(routing.chosen):
            assert torch.equal(policy.hidden_of(forest), plain)
        with policy.routed(torch.full_like(routing.chosen, NONE)):
            assert torch.equal(policy.hidden_of(forest), plain)
        with policy.routed((routing.chosen + 1) % 4) as other:
            assert not torch.allclose(policy.hidden_of(forest), plain)
        assert torch.equal(other.chosen[:, -1], (routing.chosen[:, -1] + 1) % 4)
        assert torch.equal(policy.hidden_of(forest), plain)


@MIXED
@pytest.mark.parametrize("split", [(23, 5), (1, 1)])
def test_a_repeated_choice_is_kept_in_any_split_and_has_a_gradient(name: str, split: tuple[int, int]):
    """The policy has moved since it chose; through the scores of what it chose then, its routers learn."""
    policy = mixture(name)
    before = learner(policy, "grpo", routing="old", epochs=2).prepare(with_policies(batch(), Plain.of(policy)))
    assert before.experts is not None
    assert ((before.experts[:, :, -1, 0] == NONE) == (before.experts[:, :, -1, 1] == NONE)).all()
    shaken(policy, 0.5)
    found = [
        gradient_of(learner(policy, "grpo", routing="old", epochs=2, tokens_per_pass=tokens, head_rows=rows), before)
        for tokens, rows in ((HUGE, HUGE), split)
    ]
    assert error(*found) < 1e-6
    router = next(key for key in found[0] if key.endswith(f"layers.{FIRST[name]}.mlp.gate.weight"))
    assert found[0][router].norm() > 0
    own = gradient_of(learner(policy, "grpo", epochs=2), before)
    assert error(own, found[0]) > 1e-3


@MIXED
def test_a_choice_is_the_same_where_activations_are_computed_again(name: str):
    found = []
    for checkpointing in (False, True):
        policy = mixture(name, gradient_checkpointing=checkpointing)
        learning = learner(policy, "grpo", routing="old", epochs=2)
        prepared = learning.prepare(with_policies(batch(), Plain.of(policy)))
        shaken(policy, 0.5)
        found.append(gradient_of(learning, prepared))
    assert error(*found) < 1e-6


@MIXED
def test_one_update_repeats_nothing(name: str):
    """Its own forward pass is the policy at the start."""
    ours, other = mixture(name, torch.float32), mixture(name, torch.float32)
    metrics = [learner(p, "rloo", routing=routing).learn(batch(), 1) for p, routing in ((ours, "none"), (other, "old"))]
    assert metrics[0] == metrics[1]
    assert_same_bits(weights(ours), weights(other))


def acted(policy: CausalLM, **settings: Any) -> Batch:
    encode = {"encode": lambda text: TOKENIZER(text)["input_ids"], "encode_answer": lambda text: TOKENIZER(text)["input_ids"]}
    engine = TorchEngine(policy, max_sequences=3, tokens_per_pass=5, **settings)
    rollout = Rollout(engine, Sampling(9, temperature=0.7), group_size=3, context=64, **encode)
    prompts = [Prompt(i, text, text) for i, text in enumerate(("1 + 1 =", "1 + 2", "9"))]
    groups = rollout(prompts, version=0)
    return collate([type(g)(g.prompt, tuple(t.replace(reward=float(i)) for i, t in enumerate(g.trajectories))) for g in groups])


def chosen(policy: CausalLM, tokens: Tensor) -> Tensor:
    """The experts of each token in each layer in their order, of all but the last token."""
    with policy.routed() as routing, torch.no_grad():
        policy.hidden_of(plant([tokens]))
    return routing.chosen[:-1].sort(-1).values.to(torch.int16)


@MIXED
def test_the_engine_tells_what_it_chose(name: str):
    """What a forward pass over the whole answer chooses; of the last token, which nothing came after, nothing is known."""
    policy = mixture(name)
    told = acted(policy, tells_experts=True)
    assert told.experts is not None and told.experts.dtype == torch.int16
    assert acted(policy).experts is None
    for tokens, action, experts in zip(told.tokens, told.action, told.experts, strict=True):
        size = int(action.nonzero().max()) + 1
        assert torch.equal(experts[: size - 1].sort(-1).values, chosen(policy, tokens[:size]))
        assert (experts[size - 1 :] == NONE).all()


def test_an_engine_of_another_precision_tells_its_own_choice():
    policy = mixture("qwen3_moe")
    served = Served(policy, "int8")
    served.follow()
    told = acted(policy, tells_experts=True, weights="int8")
    others = 0
    for tokens, action, experts in zip(told.tokens, told.action, told.experts, strict=True):
        size = int(action.nonzero().max()) + 1
        own = experts[: size - 1].sort(-1).values
        assert torch.equal(own, chosen(served.policy, tokens[:size]))
        others += int((own != chosen(policy, tokens[:size])).sum())
    assert others > 0


@MIXED
def test_repeating_the_engines_choice_closes_the_gap_to_it(name: str):
    """Its routers are some way off, and a token whose experts are others is another token."""
    told = acted(shaken(mixture(name), 0.05), tells_experts=True)
    spread = []
    for routing in ("none", "rollout"):
        policy = mixture(name)
        scored = learner(policy, "grpo", routing=routing, epochs=2).score(told, policy, routed=True)
        spread.append((scored.logp - told.logp_rollout)[told.action].abs().mean().item())
    assert spread[1] < 0.6 * spread[0]


def test_nothing_else_is_off_where_only_the_choice_was():
    """A bias on the scores that are ranked, and not on those that are gates."""
    engine = mixture("deepseek_v3")
    for layer in engine.layers[1:]:
        layer.mlp.gate.e_score_correction_bias += torch.tensor([0.2, 0.0, -0.2, 0.0])
    told = acted(engine, tells_experts=True)
    spread = []
    for routing in ("none", "rollout"):
        policy = mixture("deepseek_v3")
        scored = learner(policy, "grpo", routing=routing, epochs=2).score(told, policy, routed=True)
        spread.append((scored.logp - told.logp_rollout)[told.action].abs().max().item())
    assert spread[0] > 0.1
    assert spread[1] < 1e-5


def test_a_batch_without_experts_is_refused():
    with pytest.raises(ValueError, match=r"update\.routing=rollout needs experts"):
        learner(mixture("qwen3_moe"), "rloo", routing="rollout").learn(batch(), 1)


def test_pairs_that_no_engine_wrote_are_ranked_all_the_same():
    policy = mixture("qwen3_moe")
    plain, repeating = (learner(policy, "rloo", routing=routing, epochs=2).margins(batch()) for routing in ("none", "rollout"))
    assert len(plain) > 0
    assert torch.equal(plain, repeating)


def test_experts_are_told_where_an_update_asks_for_them():
    """And not in measuring, which no update follows."""
    own = {"method": {"name": "grpo"}, "task": {"name": "reasoning_gym:chain_sum"}, "model": {"name": "tiny"}}
    policy = mixture("qwen3_moe")
    for routing in ("none", "old", "rollout"):
        config = load(own | {"update": {"routing": routing}})
        with open_engine(config, policy) as measuring:
            acting = make_acting(config, policy, measuring)
        assert isinstance(measuring, TorchEngine) and isinstance(acting, TorchEngine)
        assert [measuring.tells_experts, acting.tells_experts] == [False, routing == "rollout"]


def test_a_dense_model_has_no_experts():
    assert CausalLM(family("llama"), TOKENIZER).experts is None
    config = load(
        {
            "method": {"name": "grpo"},
            "task": {"name": "reasoning_gym:chain_sum"},
            "model": {"name": "tiny"},
            "update": {"routing": "old"},
        }
    )
    with pytest.raises(ConfigError, match=r"update\.routing is old and the model tiny has no experts"):
        load_policy(config, METHODS["grpo"])
