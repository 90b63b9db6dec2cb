"""Published losses: what they make of answers that another engine gave, or another policy."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.reference.answers import (
    Answer,
    Answers,
    clipped,
    mean,
    mean_of_tokens,
    ratio,
    sampled,
    z_score,
)


def _gap(answer: Answer) -> Tensor:
    """π_old(yₜ)/π_rollout(yₜ): of the learner and of the engine, at the start of the update."""
    return torch.exp(answer.logp_old - answer.logp_rollout)


def tis_sequence(answers: Answers, cap: float = 2.0, low: float = 0.2, high: float = 0.28) -> Tensor:
    """E[min(π_learner(y)/π_sampler(y), C) · min(ρ Â, clip(ρ) Â)]: https://richardli.xyz/rl-collapse; the rest as in `tis`."""
    answers = sampled(answers)
    return -mean_of_tokens(_gap(a).prod().clamp(max=cap) * clipped(ratio(a), z_score(a, answers), low, high) for a in answers)


def mis(answers: Answers, cap: float = 2.0, low: float = 0.2, high: float = 0.28) -> Tensor:
    """E[κ 1(κ ≤ C) · min(ρ Â, clip(ρ) Â)], κ = π_learner(yₜ)/π_sampler(yₜ): https://richardli.xyz/rl-collapse."""
    return _masked(answers, _gap, cap, low, high)


def mis_sequence(answers: Answers, cap: float = 2.0, low: float = 0.2, high: float = 0.28) -> Tensor:
    """The same with κ = π_learner(y)/π_sampler(y) of the whole answer."""
    return _masked(answers, lambda a: _gap(a).prod(), cap, low, high)


def _masked(answers: Answers, gap: Callable[[Answer], Tensor], cap: float, low: float, high: float) -> Tensor:
    answers = sampled(answers)
    return -mean_of_tokens(
        torch.where(gap(a) <= cap, gap(a), 0.0) * clipped(ratio(a), z_score(a, answers), low, high) for a in answers
    )


def icepop(answers: Answers, low: float = 0.5, high: float = 5.0, eps: float = 0.2) -> Tensor:
    """1/G Σᵢ 1/|yᵢ| Σₜ M(κ) min(r Â, clip(r) Â), M(κ) = κ if α ≤ κ ≤ β else 0: arXiv:2510.18855; no KL."""
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        gap = _gap(answer)
        weight = torch.where((gap >= low) & (gap <= high), gap, 0.0)
        return (weight * clipped(ratio(answer), z_score(answer, answers), eps, eps)).mean()

    return -mean(objective(a) for a in answers)
