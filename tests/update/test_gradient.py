"""The gradient of every row, over forests, in passes and in goes of the head, against the plain way."""

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from quatrain.config import LoraConfig
from quatrain.methods import METHODS
from quatrain.objective import EntropyBonus, Method
from quatrain.types import Batch
from tests.update import plain
from tests.update.plain import HUGE, Plain, batch, error, gradient_of, heads, learner, policy, with_policies

TOLERANCE = 2e-6
"""Relative. In most families normalization rounds to float32, whatever the model's dtype is."""

EXACT = {"gpt_neox", "gpt2", "opt"}
"""Families in which nothing does."""

SPLITS = [(HUGE, HUGE), (HUGE, 7), (30, HUGE), (23, 5), (1, 1)]
"""(tokens_per_pass, head_rows)."""
OF_EVERY_ROW = [(HUGE, 7), (23, 5), (1, 1)]
"""Those that every row is tried in."""


@pytest.mark.parametrize("name", METHODS)
def test_gradient_is_that_of_the_published_loss(name: str):
    """Away from all other policies and from the old values, in several splits into passes."""
    ours = policy(**heads(name))
    theirs = Plain.of(ours)
    whole = with_policies(batch(), theirs)
    expected = theirs.gradient(name, whole)
    for tokens_per_pass, head_rows in OF_EVERY_ROW:
        learning = learner(ours, name, epochs=2, tokens_per_pass=tokens_per_pass, head_rows=head_rows)
        assert error(gradient_of(learning, whole), expected) < TOLERANCE, (tokens_per_pass, head_rows)


ALONE = [name for name in METHODS if not learner(policy(**heads(name)), name).scores_old]
"""The rows of which a single update can tell the old policy by itself."""


@pytest.mark.parametrize("name", ALONE)
def test_a_single_update_is_measured_against_itself(name: str):
    """Nobody scores the old policy beforehand: the update's own forward pass is it."""
    ours = policy(**heads(name))
    theirs = Plain.of(ours)
    whole = with_policies(batch(), theirs)
    garbage = whole.replace(logp_old=torch.full_like(whole.logp_old, 7.0), values=None)
    learning = learner(ours, name, tokens_per_pass=23, head_rows=5)
    assert error(gradient_of(learning, garbage), theirs.gradient(name, whole, on_policy=True)) < TOLERANCE


@pytest.mark.parametrize("name", ["gemma3", "mistral", "gpt_neox", "gpt2", "opt", "qwen3_moe", "deepseek_v3", "llama, tied"])
@pytest.mark.parametrize("row", ["grpo", "ppo", "flowrl"])
def test_gradient_of_other_families(name: str, row: str):
    ours = policy(name, **heads(row))
    theirs = Plain.of(ours)
    whole = with_policies(batch(), theirs)
    learning = learner(ours, row, epochs=2, tokens_per_pass=40, head_rows=9)
    assert error(gradient_of(learning, whole), theirs.gradient(row, whole)) < (1e-12 if name in EXACT else TOLERANCE)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("row", ["grpo", "ppo", "flowrl"])
def test_gradient_of_adapters(row: str, checkpointing: bool):
    ours = policy(lora=LoraConfig(rank=3), **heads(row), gradient_checkpointing=checkpointing)
    theirs = Plain.of(ours)
    whole = with_policies(batch(), theirs)
    learning = learner(ours, row, epochs=2, tokens_per_pass=40, head_rows=9)
    gradient = gradient_of(learning, whole)
    assert all(".lora_" in key or key.startswith(("critic.", "partition.")) for key in gradient)
    assert error(gradient, theirs.gradient(row, whole)) < TOLERANCE


@pytest.mark.parametrize(("tokens_per_pass", "head_rows"), SPLITS[:4])
@pytest.mark.parametrize("coefficient", [0.3, -0.3])
def test_gradient_of_the_entropy_alone(tokens_per_pass: int, head_rows: int, coefficient: float):
    ours = policy(critic=False)
    theirs = Plain.of(ours)
    whole = batch()
    _, entropy, _ = theirs.scores(whole)
    own = whole.action & (whole.origin == 0)[:, None]
    theirs_named = theirs.named_parameters()
    expected = torch.autograd.grad(-coefficient * entropy[own].mean(), list(theirs_named.values()))
    bonus = Method(EntropyBonus(coefficient=coefficient))
    learning = learner(ours, bonus, tokens_per_pass=tokens_per_pass, head_rows=head_rows)
    assert error(gradient_of(learning, whole), dict(zip(theirs_named, expected, strict=True))) < TOLERANCE


def test_gradient_in_float32():
    ours = policy(dtype=torch.float32, critic=False)
    theirs = Plain.of(ours)
    whole = with_policies(batch(), theirs)
    learning = learner(ours, "grpo", epochs=2, tokens_per_pass=40, head_rows=9)
    assert error(gradient_of(learning, whole), theirs.gradient("grpo", whole)) < 1e-5


@pytest.mark.parametrize(("tokens_per_pass", "head_rows"), SPLITS)
def test_scores_are_those_of_a_plain_pass(tokens_per_pass: int, head_rows: int):
    ours = policy()
    whole = batch()
    with torch.no_grad():
        logp, entropy, value = (x.where(whole.action, 0).float() for x in Plain.of(ours).scores(whole))
    found = learner(ours, "ppo", tokens_per_pass=tokens_per_pass, head_rows=head_rows).score(whole, ours)
    torch.testing.assert_close(found.logp, logp, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.entropy, entropy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.value, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("tokens_per_pass", "head_rows"), SPLITS)
def test_what_the_policy_says_of_its_answers_is_that_of_a_plain_pass(tokens_per_pass: int, head_rows: int):
    """KL(U‖π) = Σ 1/V·(log 1/V − log π), and the entropy, at the start of the update."""
    ours = policy(critic=False)
    theirs, whole = Plain.of(ours), batch()
    with torch.no_grad():
        out = theirs.base(input_ids=whole.tokens, attention_mask=torch.ones_like(whole.tokens))
        policies = Categorical(logits=out.logits[:, :-1] / theirs.temperature)
        uniform = Categorical(logits=torch.zeros_like(out.logits[:, :-1]))
        expected = {"certainty": kl_divergence(uniform, policies), "entropy_old": policies.entropy()}
    for row, name in (("intuitor", "certainty"), ("em_rl", "entropy_old")):
        learning = learner(ours, row, tokens_per_pass=tokens_per_pass, head_rows=head_rows)
        found = learning.prepare(whole.replace(logp_ref=torch.zeros(whole.tokens.shape)))
        padded = torch.nn.functional.pad(expected[name], (1, 0)).where(whole.action, 0).float()
        torch.testing.assert_close(getattr(found, name), padded, rtol=1e-5, atol=1e-5)
        assert (found.certainty is None) == (name != "certainty"), "what nobody reads is not computed"


@pytest.mark.parametrize(("tokens_per_pass", "head_rows"), SPLITS)
def test_gradients_of_the_head_are_as_long_as_autograd_has_them(tokens_per_pass: int, head_rows: int):
    """‖∂ log π(y)/∂W‖² of each action by itself, W the head's weight, at the start of the update."""
    ours = policy(critic=False)
    theirs, whole = Plain.of(ours), batch()
    weight = theirs.base.get_output_embeddings().weight.detach().clone().requires_grad_()
    with torch.no_grad():
        hidden = theirs.base(input_ids=whole.tokens, output_hidden_states=True).hidden_states[-1]
    expected = torch.zeros(whole.action.shape)
    for row, t in whole.action.nonzero().tolist():
        logp = (weight @ hidden[row, t - 1] / theirs.temperature).log_softmax(0)[whole.tokens[row, t]]
        expected[row, t] = torch.autograd.grad(logp, weight)[0].square().sum()
    learning = learner(ours, "oblr_po", tokens_per_pass=tokens_per_pass, head_rows=head_rows)
    found = learning.prepare(whole)
    torch.testing.assert_close(found.grad_norm_sq, expected, rtol=1e-5, atol=1e-5)
    assert found.certainty is None


def test_what_is_not_an_action_and_the_order_of_rows_do_not_matter():
    ours = policy()
    whole = with_policies(batch(), Plain.of(ours))
    learning = learner(ours, "ppo", epochs=2, tokens_per_pass=40)
    expected = gradient_of(learning, whole)
    behind = whole.action.flip(1).cumsum(1).flip(1) == 0  # after the last action
    garbled = whole.replace(tokens=torch.where(behind, 50, whole.tokens))
    assert error(gradient_of(learning, garbled), expected) < 1e-12
    order = torch.randperm(whole.size, generator=torch.Generator().manual_seed(0))
    assert error(gradient_of(learning, whole.rows(order)), expected) < TOLERANCE


def test_rewards_without_contrast_have_no_gradient_and_are_scored_all_the_same():
    ours = policy(critic=False)
    whole = batch().replace(reward=torch.ones(batch().size))
    learning = learner(ours, "dapo", epochs=2)
    whole = with_policies(whole, Plain.of(ours))
    metrics, _ = learning.gradient(learning.method.bind(whole))
    assert all(p.grad is None or not p.grad.any() for _, p in ours.named_parameters())
    with_contrast, _ = learning.gradient(learning.method.bind(whole.replace(reward=batch().reward)))
    for key in ("entropy", "ratio/p50", "ratio/max", "kl/rollout"):
        assert metrics[key] == pytest.approx(with_contrast[key], rel=1e-5)
    learning.optimizer.zero_grad()


@pytest.mark.parametrize("tokens_per_pass", [HUGE, 25])
def test_metrics_are_those_of_the_batch(tokens_per_pass: int):
    """Entropy, distance to the engine and the critic's loss, against their definitions."""
    ours = policy()
    theirs = Plain.of(ours)
    sampled = batch().rows((batch().origin == 0).nonzero()[:, 0])
    whole = with_policies(sampled, theirs)
    act = whole.action
    with torch.no_grad():
        logp, entropy, value = theirs.scores(whole)
    engine = (logp + 0.1 * torch.randn(logp.shape, generator=torch.Generator().manual_seed(0))).float()
    learning = learner(ours, "ppo", epochs=2, tokens_per_pass=tokens_per_pass)
    bound = learning.method.bind(whole.replace(logp_rollout=engine, values=whole.values.where(act, 0)))
    found, _ = learning.gradient(bound)
    gap = (logp - engine)[act]
    returns = next(prepared for term, prepared, _ in bound.terms() if term.target == "value")
    assert found["entropy"] == pytest.approx(entropy[act].mean().item(), rel=1e-5)
    assert found["kl/rollout"] == pytest.approx((gap.exp() - 1 - gap).mean().item(), rel=1e-3)
    assert found["value/loss"] == pytest.approx((value - returns)[act].square().mean().item() / 2, rel=1e-5)


@pytest.mark.parametrize("tokens_per_pass", [HUGE, 25])
def test_metrics_of_a_flow_are_those_of_the_batch(tokens_per_pass: int):
    """The mean square of log Z + mean log π_θ/π_ref − 15·z, and the mean of log Z, over the answers."""
    ours = policy(**heads("flowrl"))
    theirs = Plain.of(ours)
    whole = with_policies(batch().rows((batch().origin == 0).nonzero()[:, 0]), theirs)
    with torch.no_grad():
        logp, _, _, log_z = theirs.all_scores(whole)
    own = whole.action.any(1)
    ratio = torch.stack([(row[act]).mean() for row, act in zip(logp - whole.logp_ref, whole.action, strict=True)])
    score = torch.zeros_like(log_z)
    for prompt in whole.prompt_id.unique():
        rows = own & (whole.prompt_id == prompt)
        score[rows] = (whole.reward[rows] - whole.reward[rows].mean()) / (whole.reward[rows].std() + 1e-6)
    learning = learner(ours, "flowrl", epochs=2, tokens_per_pass=tokens_per_pass)
    found, _ = learning.gradient(learning.method.bind(whole))
    assert found["flow/residual"] == pytest.approx((log_z + ratio - 15 * score)[own].square().mean().item(), rel=1e-5)
    assert found["flow/log_z"] == pytest.approx(log_z[own].mean().item(), rel=1e-5)


@pytest.mark.parametrize(("name", "once"), [("grpo", True), ("rloo", True), ("dpo", False)])
def test_how_often_a_state_meets_the_vocabulary(name: str, once: bool, monkeypatch: pytest.MonkeyPatch):
    """Once if weights are those of a token or of a sequence, and the longest has room; again if they are those of a group."""
    ours = policy(critic=False)
    whole = with_policies(batch(), Plain.of(ours))
    whole = whole.replace(reward=torch.arange(whole.size).float())
    kept: list[bool] = []
    logits = ours.logits
    monkeypatch.setattr(ours, "logits", lambda hidden: kept.append(torch.is_grad_enabled()) or logits(hidden))
    learning = learner(ours, name, epochs=2, head_rows=int(whole.action.sum(1).max()))
    bound = learning.method.bind(whole)
    learning.gradient(bound.rows((~bound.silent()).nonzero()[:, 0]))
    assert kept
    assert all(kept) == once


def test_log_z_of_a_prompt_is_computed_once():
    """However many answers it has; prompts of which one is the beginning of another are two."""
    ours = policy(**heads("flowrl"))
    learning = learner(ours, "flowrl", epochs=2)
    whole = with_policies(batch(), Plain.of(ours))
    seen: list[int] = []
    assert ours.partition is not None
    with ours.partition.register_forward_hook(lambda _module, _given, out: seen.append(len(out))):
        learning.gradient(learning.method.bind(whole.rows((whole.origin == 0).nonzero()[:, 0])))
    assert seen == [3]


def test_sensitivity_is_the_norm_of_the_slope_at_the_hidden_state():
    ours = policy(critic=False)
    whole = batch()
    found = learner(ours, "grpo", tokens_per_pass=30, head_rows=4).sensitivity(whole)
    theirs = Plain.of(ours)
    hidden = theirs.base.model(input_ids=whole.tokens).last_hidden_state[:, :-1].detach().requires_grad_()
    logits = theirs.base.lm_head(hidden) / theirs.temperature
    logp = torch.log_softmax(logits, -1).gather(-1, whole.tokens[:, 1:, None])
    (slope,) = torch.autograd.grad(logp.sum(), hidden)
    expected = torch.nn.functional.pad(slope.norm(dim=-1), (1, 0)).where(whole.action, 0).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_an_action_without_a_past_is_refused():
    whole = Batch(tokens=torch.tensor([[5, 6]]), action=torch.tensor([[True, True]]), origin=torch.tensor([1]))
    with pytest.raises(ValueError, match="the first token of a sequence is an action"):
        learner(policy(critic=False), plain.method("sft")).learn(whole, 1)
