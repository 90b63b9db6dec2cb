"""Updates with noise in the layers: the gradient of its deviation, splits, checkpointing, and going on to the same bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quatrain.methods import METHODS
from quatrain.objective import Clip, Old
from quatrain.update import Reference
from quatrain.update.checkpoints import Checkpoints
from tests.update.plain import HUGE, Plain, batch, error, gradient_of, learner, policy, with_policies
from tests.update.test_learner import assert_same_bits, weights

SIGMA = 0.05
ROW = METHODS["alp"]
"""The policy's noise is as large as the policy says, and not as the row starts with."""


def noisy(sigma: float = SIGMA, **more):
    return policy(critic=False, noise=sigma, **more)


@pytest.mark.parametrize("name", ["alp", "alp:sequence", "batch-wide"])
@pytest.mark.parametrize("split", [(HUGE, 7), (23, 5), (1, 1)])
def test_passes_do_not_change_the_noise(name: str, split: tuple[int, int]):
    """Nor where the whole minibatch is scored first."""
    row = METHODS["clip_cov"].replace(likelihood=ROW.terms[0].likelihood) if name == "batch-wide" else METHODS[name]
    ours = noisy()
    whole = with_policies(batch(), Plain.of(ours))
    found = [
        gradient_of(learner(ours, row, tokens_per_pass=tokens, head_rows=rows), whole) for tokens, rows in ((HUGE, HUGE), split)
    ]
    assert error(*found) < 1e-5
    assert (found[0]["noise.log_sigma"] != 0).all()


def test_the_deviation_has_the_gradient_of_the_loss():
    """By differences: a step of log σ changes the loss as its gradient says, in float64 and with the same noise."""
    ours = noisy()
    whole = with_policies(batch(), Plain.of(ours))
    learning = learner(ours, ROW.replace(mask=Clip(9.0, 9.0)))
    gradient = gradient_of(learning, whole)["noise.log_sigma"]

    def gain() -> float:
        """Minus the loss: without a clip, the sum of what each ratio weighs."""
        bound = learning.method.bind(whole)
        logp = learning.score(whole, ours, learning=True).logp.double()
        factors = bound.factors(logp)["policy"]
        return (factors.share * factors.advantage * factors.ratio).sum().item()

    assert ours.noise is not None
    for layer in range(2):
        sides = []
        for step in (0.02, -0.02):
            with torch.no_grad():
                ours.noise.log_sigma[layer] += step
            sides.append(gain())
            with torch.no_grad():
                ours.noise.log_sigma[layer] -= step
        assert (sides[1] - sides[0]) / 0.04 == pytest.approx(gradient[layer].item(), rel=2e-2, abs=1e-6)


def test_checkpointed_activations_have_the_same_noise():
    ours, other = noisy(), noisy(gradient_checkpointing=True)
    whole = with_policies(batch(), Plain.of(ours))
    assert error(gradient_of(learner(other, ROW), whole), gradient_of(learner(ours, ROW), whole)) < 1e-7


def test_without_noise_it_is_the_plain_gradient():
    ours = noisy(1e-12)
    plain = Plain.of(ours)
    whole = with_policies(batch(), plain)
    assert error(gradient_of(learner(ours, ROW), whole), plain.gradient("alp", whole)) < 2e-6


def test_each_update_has_its_own_noise_and_a_replay_the_same():
    ours = noisy()
    whole = with_policies(batch(), Plain.of(ours))
    learning = learner(ours, ROW)
    first = gradient_of(learning, whole)
    assert_same_bits(gradient_of(learning, whole), first)
    learning.updates += 1
    assert error(gradient_of(learning, whole), first) > 1e-3


def test_what_is_scored_has_no_noise(tmp_path: Path):
    """The old policy and the reference are scored as they act, also where a single update could tell the old one."""
    ours = noisy()
    logp, *_ = Plain.of(ours).scores(batch())
    row = METHODS["grpo"].replace(likelihood=ROW.terms[0].likelihood)
    learning = learner(ours, row, reference=Reference(ours, keep=True, folder=tmp_path))
    prepared = learning.prepare(batch())
    acts = prepared.action
    for scored in (prepared.logp_old, prepared.logp_ref):
        torch.testing.assert_close(scored[acts].double(), logp[acts].detach(), rtol=1e-5, atol=1e-5)
    noisy_logp = learning.score(prepared, ours, learning=True).logp
    assert (noisy_logp - prepared.logp_old)[acts].abs().max() > 1e-3


def test_the_deviation_learns_at_its_own_rate():
    ours = noisy(dtype=torch.float32)
    row = ROW.with_settings({"likelihood.lr": 0.25})
    before = weights(ours)
    metrics = learner(ours, row, lr=1e-4, warmup_steps=2).learn(with_policies(batch(), Plain.of(ours)), 1)
    steps = {name: (now - before[name]).abs().max().item() for name, now in weights(ours).items()}
    assert steps.pop("noise.log_sigma") == pytest.approx(0.125, rel=1e-2)
    assert max(steps.values()) == pytest.approx(0.5e-4, rel=1e-2)
    assert metrics["noise/sigma"] == pytest.approx(SIGMA)


def test_a_policy_without_noise_is_refused():
    with pytest.raises(ValueError, match="the method's likelihood has noise and the policy none"):
        learner(policy(critic=False), ROW)


def test_a_restored_learner_goes_on_to_the_same_bits(tmp_path: Path):
    made, checkpoints = learner(noisy(dtype=torch.float32), ROW, lr=0.02), Checkpoints(tmp_path)
    made.learn(batch(), 1)
    checkpoints.save(1, made, {})
    expected = made.learn(batch(1), 2)
    other = learner(noisy(1.0, dtype=torch.float32), ROW, lr=0.02)
    step, manifest = checkpoints.newest(pytest.fail) or (0, {})
    checkpoints.restore(step, manifest, other)
    assert other.fingerprint() == manifest["fingerprint"]
    assert other.learn(batch(1), 2) == expected
    assert_same_bits(weights(other.policy), weights(made.policy))
    assert_same_bits(other.state()[0], made.state()[0])


def test_two_kinds_of_noise_are_refused():
    other = ROW.with_settings({"likelihood.sigma": 0.5}).terms[0].likelihood
    with pytest.raises(ValueError, match="its noise is Perturbed"):
        METHODS["grpo"].replace(
            denominator=Old(), likelihood=ROW.terms[0].likelihood, kl=replace(METHODS["grpo"].terms[1], likelihood=other)
        )
