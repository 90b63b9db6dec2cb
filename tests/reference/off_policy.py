"""Published losses: what they make of answers that another engine gave, or another policy."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.reference.answers import (
    Answer,
    Answers,
    centred,
    clipped,
    deviation,
    groups,
    mean,
    mean_of_tokens,
    ratio,
    sampled,
    z_score,
)


def _gap(answer: Answer) -> Tensor:
    """π_old(yₜ)/π_rollout(yₜ): of the learner and of the engine, at the start of the update."""
    return torch.exp(answer.logp_old - answer.logp_rollout)


def seq_tis(answers: Answers, cap: float = 2.0, low: float = 0.2, high: float = 0.28) -> Tensor:
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


def areal(answers: Answers, eps: float = 0.2, std_eps: float = 1e-8) -> Tensor:
    """E[π_prox/π_behav · min(u Â, clip(u) Â)], u = π_θ/π_prox: arXiv:2505.24298; Â is the reward, normalized over the batch.

    With γ = λ = 1 and no critic each token's advantage is the reward; mean and deviation are over the minibatch's tokens.
    """
    answers = sampled(answers)
    whole = torch.cat([a.reward.expand(len(a.logp)) for a in answers])
    equal = bool((whole == whole[0]).all())

    def objective(answer: Answer) -> Tensor:
        advantage = (answer.reward - whole.mean()) / (deviation(whole) + std_eps)
        return _gap(answer) * clipped(ratio(answer), torch.zeros_like(advantage) if equal else advantage, eps, eps)

    return -mean_of_tokens(objective(a) for a in answers)


def mini_rl(answers: Answers, low: float = 0.2, high: float = 0.27, cap: float = 5.0) -> Tensor:
    """E[Σₜ Mₜ sg[min(π_θ/μ_old, C)] (R − mean R) log π_θ]: arXiv:2512.01374.

    Mₜ = 0 where A > 0 and π_θ/π_old > 1 + ε_high, or A < 0 and π_θ/π_old < 1 − ε_low, else 1; μ_old is the engine.
    """
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        advantage, step = centred(answer, answers), ratio(answer)
        stopped = ((advantage > 0) & (step > 1 + high)) | ((advantage < 0) & (step < 1 - low))
        weight = torch.exp(answer.logp - answer.logp_rollout).clamp(max=cap).detach()
        return ((~stopped) * weight * advantage * answer.logp).sum()

    return -mean(objective(a) for a in answers)


def hispo(
    answers: Answers,
    of_answer: float = 0.01,
    of_token: float = 0.5,
    low: float = 0.2,
    high: float = 0.28,
    bound: float = 3.0,
    longest: float = 8192,
) -> Tensor:
    """1/(G·max|y|) Σᵢ Σₜ Hᵢₜ min(r Â, clip(r) Â), r = π_θ/μ_old: arXiv:2603.21065.

    H = 1(|exp(mean log κ) − 1| < δ_seq) · 1(|κₜ − 1| < δ_tok), κ = π_old/μ_old. The ratio of a bad action is at least
    1 − low and at most `bound`, that of a good one at most 1 + high.
    """
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        gap, advantage = _gap(answer), z_score(answer, answers)
        whole = torch.exp(gap.log().mean())
        passed = ((whole - 1).abs() < of_answer) & ((gap - 1).abs() < of_token)
        step = torch.exp(answer.logp - answer.logp_rollout)
        bounded = step.clamp(max=1 + high) if advantage > 0 else step.clamp(1 - low, bound)
        return (passed * bounded * advantage).sum() / longest

    return -mean(objective(a) for a in answers)


def p1_vl(answers: Answers, cap: float = 1.01, low: float = 3e-4, high: float = 4e-4) -> Tensor:
    """1/G Σᵢ 1(ρ^(1/T) ≤ C) ρ · min(sᵢ Âᵢ, clip(sᵢ) Âᵢ), ρ = Πₜ π_old/π_rollout: arXiv:2602.09443; sᵢ is GSPO's ratio."""
    answers = sampled(answers)

    def objective(answer: Answer) -> Tensor:
        gap = _gap(answer).prod()
        kept = gap ** (1 / len(answer.logp)) <= cap
        whole = torch.exp((answer.logp - answer.logp_old).mean())
        return kept * gap * clipped(whole, z_score(answer, answers), low, high)

    return -mean(objective(a) for a in answers)


def minpro(answers: Answers, low: float = 0.0, high: float = 5.0) -> Tensor:
    """1/Σ|oᵢ| Σᵢ Σₜ sg[clip(mₜ ρₜ)] Âₜ log π_θ, mₜ = min_{s<t} ρₛ and m₁ = 1: arXiv:2601.22718; 1/Σ|oᵢ| of a group."""

    def objective(answer: Answer, own: Answers) -> Tensor:
        rho = ratio(answer).detach()
        least = torch.stack([rho[:t].min() if t else torch.ones_like(rho[0]) for t in range(len(rho))])
        return (least * rho).clamp(low, high) * z_score(answer, own) * answer.logp

    return -mean(mean_of_tokens(objective(a, own) for a in own) for own in groups(sampled(answers)))


_HAIR = 1e-9
"""So that as many steps fit as would without rounding."""


def bapo(
    answers: Answers,
    low: tuple[float, float, float] = (0.6, 0.9, 0.02),
    high: tuple[float, float, float] = (1.2, 3.0, 0.05),
    target: float = 0.4,
) -> Tensor:
    """E[Σₜ min(r Â, clip(r, c_low, c_high) Â)], r = π_θ/π_rollout: arXiv:2510.18927; `low` and `high` are (a, b, δ).

    From c_low = a⁻ and c_high = a⁺, while |Σ_{Â>0} π_rollout min(r Â, clip(r, 0, c_high) Â)| is less than ρ₀ times
    |Σ π_rollout min(r Â, clip(r, c_low, c_high) Â)| and c_low has room, c_high rises if it has room, and else c_low.
    """
    answers = sampled(answers)
    r = torch.cat([torch.exp(a.logp - a.logp_rollout) for a in answers])
    acted = torch.cat([a.logp_rollout.exp() for a in answers])
    value = torch.cat([z_score(a, answers).expand(len(a.logp)) for a in answers])
    c_low, c_high = low[0], high[0]

    def reached() -> bool:
        good = (acted * torch.minimum(r * value, r.clamp(0, c_high) * value))[value > 0].sum()
        whole = (acted * torch.minimum(r * value, r.clamp(c_low, c_high) * value)).sum()
        return bool(good.abs() >= target * whole.abs())

    while not reached() and c_low + low[2] <= low[1] + _HAIR:
        if c_high + high[2] <= high[1] + _HAIR:
            c_high += high[2]
        else:
            c_low += low[2]
    return -torch.minimum(r * value, r.clamp(c_low, c_high) * value).sum() / len(answers)


def bapo_code(
    answers: Answers,
    low: tuple[float, float, float] = (0.8, 0.95, 0.05),
    high: tuple[float, float, float] = (1.2, 2.0, 0.1),
    target: float = 0.5,
    bound: float = 3.0,
) -> Tensor:
    """The authors' code: good over bad at least `target`, the lower bound first, then a dual clip; a mean over tokens.

    What is clipped counts at its bound, and r is π_θ/π_old.
    """
    answers = sampled(answers)
    r = torch.cat([ratio(a) for a in answers])
    value = torch.cat([z_score(a, answers).expand(len(a.logp)) for a in answers])
    c_low, c_high = low[0], high[0]

    def reached() -> bool:
        good = (r.clamp(max=c_high) * value)[value >= 0].sum()
        bad = -(r.clamp(min=c_low) * value)[value < 0].sum()
        return bool(bad <= 0 or good / bad >= target)

    while not reached() and c_low < low[1] - _HAIR:
        c_low = min(c_low + low[2], low[1])
    while not reached() and c_high < high[1] - _HAIR:
        c_high = min(c_high + high[2], high[1])
    surrogate = torch.minimum(r * value, r.clamp(c_low, c_high) * value)
    return -torch.where(value < 0, torch.maximum(surrogate, bound * value), surrogate).mean()
