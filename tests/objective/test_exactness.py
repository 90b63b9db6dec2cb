"""Estimators against the exact gradient: a softmax policy so small that every answer it can give is enumerated."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from quatrain.diagnostics.enumeration import TINY, Estimate, World, estimate, estimates
from quatrain.methods import METHODS
from quatrain.objective import GAE, Constant, Current, Method, Old, PerSequence, Relative, ReturnToGo, Sequence, StayClose, Term
from quatrain.objective.part import Scope, View
from quatrain.types import Batch

VOCABULARY, LONGEST = 3, 3


class Misjudged(World):
    """With a critic that knows nothing."""

    @property
    def values(self) -> Tensor:
        return torch.cos(self.state.double())[None]


def draw(seed: int) -> World:
    """A random policy of one prompt's 15 answers, their rewards between 1 and 2."""
    logits = torch.randn(1, 7, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    reward = 1 + torch.rand(1, 15, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return World(logits, logits, reward, LONGEST)


POLICY, OLD = draw(0), draw(1)


def expectation(method: Method, group: int = 2, sampler: World = POLICY) -> Tensor:
    gradients, probability = estimates(method, sampler, POLICY, group)
    return torch.tensordot(probability, gradients, 1)


def error(estimate: Tensor) -> float:
    return ((estimate - POLICY.gradient).norm() / POLICY.gradient.norm()).item()


@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_unbiased(name: str):
    assert error(expectation(METHODS[name])) < 1e-10


def test_group_mean_as_baseline_shrinks_the_gradient():
    """The mean holds the sample itself: what is left in expectation is (G − 1)/G of the gradient, here a half."""
    torch.testing.assert_close(expectation(METHODS["dr_grpo"]), POLICY.gradient / 2, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "scale", "residual"),
    [
        ("grpo", 1.971, 0.334),
        ("gspo", 1.971, 0.334),
        ("dapo", 1.324, 0.263),
        ("cispo", 1.324, 0.263),
        ("rft", 0.858, 0.525),
    ],
)
def test_measured_bias(name: str, scale: float, residual: float):
    """Deviations and lengths that the estimate divides by turn it: no multiple of the gradient is equal to it."""
    found = estimate(METHODS[name], POLICY, group=2)
    assert (found.scale, math.sin(math.radians(found.angle))) == pytest.approx((scale, residual), abs=5e-4)


def test_leaving_one_out_reduces_the_variance():
    """The trace of the covariance: 1.612 without a baseline, 0.0446 with it, for rewards between 1 and 2."""

    bare, left_out = (estimate(METHODS[name], POLICY, group=2).variance for name in ("reinforce", "rloo"))
    size = POLICY.gradient.square().sum().item()
    assert bare * size == pytest.approx(1.612, abs=1e-3)
    assert left_out * size == pytest.approx(0.0446, abs=1e-4)


@pytest.mark.parametrize(("world", "plain", "weighted"), [(TINY, 1.047, 0.996), (POLICY, 4.022, 4.484)], ids=["tiny", "policy"])
def test_weighing_the_others_by_gradients_gains_what_the_group_can_tell(world: World, plain: float, weighted: float):
    """Of three answers two give the baseline: a gain where rewards are 0 to 1, and too rough a guess where they are 1 to 2."""

    def found(baseline: Any, group: int) -> Estimate:
        return estimate(Method(replace(METHODS["rloo"].terms[0], advantage=Relative(baseline=baseline))), world, group=group)

    for baseline, variance in (("leave_one_out", plain), ("gradient_weighted", weighted)):
        assert found(baseline, 3).bias < 1e-10
        assert found(baseline, 3).variance == pytest.approx(variance, abs=1e-3)
    assert found("gradient_weighted", 2).variance == pytest.approx(found("leave_one_out", 2).variance, rel=1e-12), "no choice"


@dataclass(frozen=True)
class Above:
    """The reward above a number."""

    baseline: float
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Tensor:
        assert view.batch.reward is not None
        return (view.batch.reward - self.baseline)[:, None].expand(view.action.shape)


def test_no_number_is_a_better_baseline_than_the_mean_weighted_by_gradients():
    """E[‖∇log π‖² R] / E[‖∇log π‖²] with the gradient of the answer, whose length is what its tokens' lengths add up to."""
    known = POLICY.fields(POLICY)["grad_norm_sq"]
    length = POLICY.scores.sum(2).square().sum((2, 3))
    torch.testing.assert_close(known.sum(2), length, rtol=1e-12, atol=0)
    weight = POLICY.probability * length
    best = ((weight * POLICY.reward).sum() / weight.sum()).item()
    mean = (POLICY.probability * POLICY.reward).sum().item()
    assert abs(best - mean) > 0.01

    def variance(baseline: float) -> float:
        return estimate(Method(replace(METHODS["rloo"].terms[0], advantage=Above(baseline))), POLICY, group=1).variance

    least = variance(best)
    for other in (mean, best - 0.05, best - 1e-3, best + 1e-3, best + 0.05):
        assert least < variance(other)


def test_ratio_of_the_whole_answer_corrects_for_another_sampler():
    """With ratios of single tokens, what came before a token stays distributed as in the sampler."""
    reward = Relative(baseline="none")
    whole = Method(Term(denominator=Old(), advantage=reward, likelihood=Sequence(), reduce=PerSequence()))
    single = Method(Term(denominator=Old(), advantage=reward, reduce=Constant()))
    assert error(expectation(whole, sampler=OLD)) < 1e-10
    for method in (single, METHODS["reinforce"]):
        found = expectation(method, sampler=OLD)
        assert torch.cosine_similarity(found.flatten(), POLICY.gradient.flatten(), 0) < 0.99


@pytest.mark.parametrize(
    ("lam", "exact_critic", "unbiased"), [(1.0, False, True), (0.5, True, True), (0.0, True, True), (0.5, False, False)]
)
def test_gae_needs_either_the_return_or_an_exact_critic(lam: float, exact_critic: bool, unbiased: bool):
    method = Method(Term(denominator=Current(), advantage=GAE(gamma=1.0, lam=lam), reduce=Constant()))
    world = POLICY if exact_critic else Misjudged(POLICY.logits, POLICY.reference, POLICY.reward, LONGEST)
    wrong = error(expectation(method, group=1, sampler=world))
    assert wrong < 1e-10 if unbiased else wrong > 0.1


@pytest.mark.parametrize(
    ("estimator", "divergence"),
    [
        ("k1", lambda p, q: (p * 0).sum()),
        ("k2", lambda p, q: (p * (p / q).log()).sum()),
        ("k3", lambda p, q: (q * (q / p).log()).sum()),
        ("weighted", lambda p, q: (q * (q / p).log() ** 2).sum() / 2),
    ],
)
def test_what_each_kl_estimate_descends(estimator: str, divergence):
    """As a loss: k2 the KL from θ, k3 the KL from the reference, k1 nothing at all; a mean that is a KL need not descend it."""
    descends(StayClose(estimator), divergence)


@pytest.mark.parametrize(
    ("estimator", "divergence"),
    [
        ("k1", lambda p, q: (p * (p / q).log()).sum()),
        ("k2", lambda p, q: (p * (p / q).log() ** 2).sum() / 2 - (p * (p / q).log()).sum()),
        ("k3", lambda p, q: (p * (p / q).log()).sum() - (q * (q / p).log()).sum()),
    ],
)
def test_what_each_kl_estimate_in_the_reward_descends(estimator: str, divergence):
    """k1 the KL from θ; k2 and k3 differences of divergences, which have no slope to first order around the reference."""
    descends(ReturnToGo(1.0, estimator), divergence)


def descends(advantage: Any, divergence: Callable[[Tensor, Tensor], Tensor]) -> None:
    """In one state, expected over its actions, `advantage` descends `divergence` of the policy and the reference."""
    logits, reference = (draw(seed).logits[0, 0] for seed in (3, 4))
    logits.requires_grad_()
    logp = logits.log_softmax(0)
    (exact,) = torch.autograd.grad(divergence(logp.exp(), reference.softmax(0)), logits, retain_graph=True)

    pull = Method(Term(denominator=Current(), advantage=advantage, reduce=Constant()))
    now = logp.detach()[:, None]
    batch = Batch(logp_ref=reference.log_softmax(0)[:, None], logp_old=now, reward=torch.zeros(VOCABULARY))
    weights = VOCABULARY * pull.weights(batch, now)[:, 0]  # of one action, not of the mean over all
    (descent,) = torch.autograd.grad((logp.detach().exp() * weights * logp).sum(), logits)
    torch.testing.assert_close(descent, -exact, rtol=1e-10, atol=1e-10)
