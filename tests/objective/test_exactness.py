"""Estimators against the exact gradient: a softmax policy so small that every answer it can give is enumerated."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from quatrain.methods import METHODS
from quatrain.objective import GAE, Constant, Current, Method, Old, PerSequence, Relative, Sequence, StayClose, Term
from quatrain.types import Batch

VOCABULARY, LONGEST, END = 3, 3, 2


def answers() -> list[tuple[int, ...]]:
    """All that end with END, or are cut at the greatest length."""
    texts = [text for n in range(1, LONGEST + 1) for text in itertools.product(range(VOCABULARY), repeat=n)]
    return [text for text in texts if END not in text[:-1] and (text[-1] == END or len(text) == LONGEST)]


ANSWERS = answers()
STATES = sorted({text[:t] for text in ANSWERS for t in range(len(text))})
ACTION = torch.tensor([[t < len(text) for t in range(LONGEST)] for text in ANSWERS])
STATE = torch.tensor([[STATES.index(text[:t]) if t < len(text) else 0 for t in range(LONGEST)] for text in ANSWERS])
TOKEN = torch.tensor([[text[t] if t < len(text) else 0 for t in range(LONGEST)] for text in ANSWERS])


@dataclass(frozen=True)
class Tiny:
    """One softmax for each state, by `logits` [S, V]; N is an answer."""

    logits: Tensor

    @classmethod
    def draw(cls, seed: int) -> "Tiny":
        return cls(torch.randn(len(STATES), VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))

    @property
    def logp(self) -> Tensor:
        """[N, T], 0 after the end."""
        return self.logits.log_softmax(1)[STATE, TOKEN].where(ACTION, 0)

    @property
    def probability(self) -> Tensor:
        """[N]."""
        return self.logp.sum(1).exp()

    @property
    def scores(self) -> Tensor:
        """∇log π of each token by the logits, [N, T, S·V]."""
        return torch.autograd.functional.jacobian(lambda x: Tiny(x).logp, self.logits).flatten(2)

    def gradient(self, reward: Tensor) -> Tensor:
        """∇ E[R], exactly."""
        return torch.autograd.functional.jacobian(lambda x: Tiny(x).probability @ reward, self.logits).flatten()

    def values(self, reward: Tensor) -> Tensor:
        """The exact value E[R | state] of each token's state, [N, T]."""
        through = torch.tensor([[text[: len(state)] == state for text in ANSWERS] for state in STATES]).double()
        return ((through @ (self.probability * reward)) / (through @ self.probability))[STATE]


POLICY, OLD = Tiny.draw(0), Tiny.draw(1)
REWARD = 1 + torch.rand(len(ANSWERS), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
EXACT, SCORES = POLICY.gradient(REWARD), POLICY.scores


def estimates(method: Method, group_size: int = 2, sampler: Tiny = POLICY, values: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The gradient that `method` estimates from each group that can be sampled, and the probability of that group."""
    gradients, probabilities = [], []
    for group in itertools.product(range(len(ANSWERS)), repeat=group_size):
        rows = torch.tensor(group)
        batch = Batch(
            action=ACTION[rows],
            logp_old=sampler.logp[rows],
            logp_ref=POLICY.logp[rows],
            reward=REWARD[rows],
            values=None if values is None else values[rows],
            prompt_id=torch.zeros(group_size, dtype=torch.int64),
        )
        weights = method.weights(batch, POLICY.logp[rows])
        gradients.append((weights[..., None] * SCORES[rows]).sum((0, 1)))
        probabilities.append(sampler.probability[rows].prod())
    return torch.stack(gradients), torch.stack(probabilities)


def expectation(method: Method, group_size: int = 2, sampler: Tiny = POLICY, values: Tensor | None = None) -> Tensor:
    gradients, probabilities = estimates(method, group_size, sampler, values)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-12)
    return probabilities @ gradients


def bias(estimate: Tensor) -> tuple[float, float]:
    """By which multiple of the exact gradient `estimate` is nearest to it, and how much of it, relatively, is something else."""
    scale = (estimate @ EXACT / (EXACT @ EXACT)).item()
    return scale, ((estimate - scale * EXACT).norm() / estimate.norm()).item()


def test_the_enumeration_is_complete():
    assert len(ANSWERS) == 1 + 2 + 4 * 3
    assert POLICY.probability.sum().item() == pytest.approx(1, abs=1e-14)
    assert POLICY.values(REWARD)[0, 0].item() == pytest.approx((POLICY.probability @ REWARD).item(), abs=1e-14)


@pytest.mark.parametrize("name", ["reinforce", "rloo"])
def test_unbiased(name: str):
    torch.testing.assert_close(expectation(METHODS[name]), EXACT, rtol=1e-10, atol=1e-10)


def test_group_mean_as_baseline_shrinks_the_gradient():
    """The mean holds the sample itself: what is left in expectation is (G − 1)/G of the gradient, here a half."""
    torch.testing.assert_close(expectation(METHODS["dr_grpo"]), EXACT / 2, rtol=1e-10, atol=1e-10)


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
    assert bias(expectation(METHODS[name])) == pytest.approx((scale, residual), abs=5e-4)


def test_leaving_one_out_reduces_the_variance():
    """The trace of the covariance: 1.612 without a baseline, 0.0446 with it, for rewards between 1 and 2."""

    def variance(name: str) -> float:
        gradients, probabilities = estimates(METHODS[name])
        return (probabilities @ ((gradients - probabilities @ gradients) ** 2).sum(1)).item()

    assert variance("reinforce") == pytest.approx(1.612, abs=1e-3)
    assert variance("rloo") == pytest.approx(0.0446, abs=1e-4)


def test_ratio_of_the_whole_answer_corrects_for_another_sampler():
    """With ratios of single tokens, what came before a token stays distributed as in the sampler."""
    reward = Relative(baseline="none")
    whole = Method(Term(denominator=Old(), advantage=reward, likelihood=Sequence(), reduce=PerSequence()))
    single = Method(Term(denominator=Old(), advantage=reward, reduce=Constant()))
    ignored = METHODS["reinforce"]
    torch.testing.assert_close(expectation(whole, sampler=OLD), EXACT, rtol=1e-10, atol=1e-10)
    assert bias(expectation(single, sampler=OLD))[1] > 0.1
    assert bias(expectation(ignored, sampler=OLD))[1] > 0.1


@pytest.mark.parametrize(
    ("lam", "exact_critic", "unbiased"), [(1.0, False, True), (0.5, True, True), (0.0, True, True), (0.5, False, False)]
)
def test_gae_needs_either_the_return_or_an_exact_critic(lam: float, exact_critic: bool, unbiased: bool):
    method = Method(Term(denominator=Current(), advantage=GAE(gamma=1.0, lam=lam), reduce=Constant()))
    values = POLICY.values(REWARD) if exact_critic else torch.cos(STATE.double())
    estimate = expectation(method, group_size=1, values=values)
    error = (estimate - EXACT).norm() / EXACT.norm()
    assert error < 1e-10 if unbiased else error > 0.1


@pytest.mark.parametrize(
    ("estimator", "divergence"),
    [
        ("k1", lambda p, q: (p * 0).sum()),
        ("k2", lambda p, q: (p * (p / q).log()).sum()),
        ("k3", lambda p, q: (q * (q / p).log()).sum()),
    ],
)
def test_what_each_kl_estimate_descends(estimator: str, divergence):
    """In one state, expected over its actions: k2 the KL from θ, k3 the KL from the reference, k1 nothing at all."""
    logits, reference = (Tiny.draw(seed).logits[0] for seed in (3, 4))
    logits.requires_grad_()
    logp = logits.log_softmax(0)
    (exact,) = torch.autograd.grad(divergence(logp.exp(), reference.softmax(0)), logits, retain_graph=True)

    pull = Method(Term(denominator=Current(), advantage=StayClose(estimator), reduce=Constant()))
    batch = Batch(logp_ref=reference.log_softmax(0)[:, None])
    weights = VOCABULARY * pull.weights(batch, logp.detach()[:, None])[:, 0]  # of one action, not of the mean over all
    (descent,) = torch.autograd.grad((logp.detach().exp() * weights * logp).sum(), logits)
    torch.testing.assert_close(descent, -exact, rtol=1e-10, atol=1e-10)
