"""Published losses: policy gradients without a trust region."""

from dataclasses import replace

import torch
from torch import Tensor

from tests.reference.answers import (
    Answer,
    Answers,
    centred,
    clipped,
    group,
    groups,
    mean,
    mean_of_tokens,
    ratio,
    rewards,
    sampled,
    z_score,
)


def reinforce(answers: Answers) -> Tensor:
    """R Σₜ ∇log π(yₜ): Williams 1992, doi:10.1007/BF00992696, the episodic REINFORCE rule with baseline 0."""
    return -mean(a.reward * a.logp.sum() for a in sampled(answers))


def reinforce_is(answers: Answers) -> Tensor:
    """1/N Σᵢ R(hᵢ) P(hᵢ|π)/P(hᵢ|π′), π′ the policy that acted: arXiv:cs/0204043, the estimate that is not normalized."""
    return -mean(a.reward * torch.exp((a.logp - a.logp_rollout).sum()) for a in sampled(answers))


def rloo(answers: Answers) -> Tensor:
    """1/k Σᵢ [R(yᵢ) − 1/(k−1) Σ_{j≠i} R(yⱼ)] ∇log π(yᵢ): arXiv:2402.14740, RLOO. One sample has no others, and A = 0."""
    answers = sampled(answers)

    def advantage(answer: Answer) -> Tensor:
        others = [a for a in group(answer, answers) if a is not answer]
        return answer.reward - rewards(others).mean() if others else torch.zeros_like(answer.reward)

    return -mean(advantage(a) * a.logp.sum() for a in answers)


def em_rl(answers: Answers) -> Tensor:
    """RLOO on r(y) = −Σₜ H(π(·|y_{<t})): arXiv:2505.15134, EM-RL by token."""
    return rloo([replace(a, reward=-a.entropy_old.sum()) for a in sampled(answers)])


def remax(answers: Answers) -> Tensor:
    """1/N Σᵢ Σₜ ∇log π(yₜ) (r(y) − r(ȳ)), ȳ greedy: arXiv:2310.10505. Where r(ȳ) is not known, the answer teaches nothing."""
    return -mean((a.reward - a.reward_greedy).nan_to_num(0.0) * a.logp.sum() for a in sampled(answers))


def _above_optimal_baseline(answer: Answer, answers: Answers) -> Tensor:
    """R − Σ l R / Σ l: arXiv:2505.23585."""
    own = group(answer, answers)
    return answer.reward - sum(len(a.logp) * a.reward for a in own) / sum(len(a.logp) for a in own)


def opo(answers: Answers) -> Tensor:
    """∇log π(y) (R − Σ l R / Σ l): arXiv:2505.23585. ∇log π(y) is the sum over tokens, of which the baseline is derived."""
    answers = sampled(answers)
    return -mean(_above_optimal_baseline(a, answers) * a.logp.sum() for a in answers)


def opo_code(answers: Answers) -> Tensor:
    """The same advantage in the mean over tokens of the library that the authors' code runs in."""
    answers = sampled(answers)
    return -mean_of_tokens(_above_optimal_baseline(a, answers) * a.logp for a in answers)


def oblr_po(answers: Answers, eps: float = 0.2) -> Tensor:
    """∇log π(y) (R − b), b = Σ ‖∇log π‖² R / Σ ‖∇log π‖²: arXiv:2511.23310; b is taken of the other answers.

    ‖∇log π(y)‖² is the sum of its tokens', which are numbers; the ratio is clipped as PPO's. Alone, an answer has R − b = 0.
    """
    answers = sampled(answers)

    def advantage(answer: Answer) -> Tensor:
        own = group(answer, answers)
        weighted = [(a.grad_norm_sq.sum(), a.reward) for a in own if a is not answer]
        if all(a.reward == own[0].reward for a in own):
            return torch.zeros_like(answer.reward)
        return answer.reward - sum(w * r for w, r in weighted) / sum(w for w, _ in weighted)

    return -mean(clipped(ratio(a), advantage(a), eps, eps).sum() for a in answers)


def _made_up(answers: Answers) -> float:
    """α = B/(B − M), M of the B groups having no contrast; without any contrast there is no gradient, whatever α."""
    found = groups(answers)
    valid = sum(bool((rewards(g) != rewards(g)[0]).any()) for g in found)
    return len(found) / max(valid, 1)


def gpg(answers: Answers) -> Tensor:
    """α · 1/Σ|oᵢ| Σᵢ Σₜ −log π (R − mean R), 1/Σ|oᵢ| of a group: arXiv:2504.02546, eq. 5 with F_norm = 1, and eq. 7."""
    answers = sampled(answers)
    return _made_up(answers) * mean(mean_of_tokens(-a.logp * centred(a, g) for a in g) for g in groups(answers))


def gpg_code(answers: Answers) -> Tensor:
    """The same with 1/Σ|oᵢ| of the minibatch, as in the authors' code."""
    answers = sampled(answers)
    return _made_up(answers) * mean_of_tokens(-a.logp * centred(a, answers) for a in answers)


def max_rl(answers: Answers, eps: float = 1e-6) -> Tensor:
    """1/N Σᵢ (Rᵢ − R̄)/R̄ ∇log π(yᵢ), 0 where R̄ = 0: arXiv:2602.02710, algorithm 1; eps as in its code, and 0 where R̄ < 0."""
    answers = sampled(answers)

    def advantage(answer: Answer) -> Tensor:
        average = rewards(group(answer, answers)).mean()
        return (answer.reward - average) / (average + eps) if average > 0 else torch.zeros_like(average)

    return -mean(advantage(a) * a.logp.sum() for a in answers)


def opd(answers: Answers) -> Tensor:
    """−1/N Σₜ r A, r = π_θ/π_sampler, A = −(log π_sampler − log π_teacher): doi:10.64434/tml.20251026 and its code."""
    return -mean_of_tokens(torch.exp(a.logp - a.logp_rollout) * -(a.logp_rollout - a.logp_teacher) for a in sampled(answers))


def kepo(answers: Answers, beta: float = 0.5, tau: float = 1.0) -> Tensor:
    """1/G Σᵢ 1/|oᵢ| Σₜ π_θ/sg(π_θ) Â, and JSD_β(π_teacher‖π_θ) by token where R ≥ τ: arXiv:2602.00400 and its code.

    JSD_β = β KL(π_teacher‖m) + (1 − β) KL(π_θ‖m), m = β π_teacher + (1 − β) π_θ, has the slope (1 − β) log(π_θ/m) at each entry
    of the vocabulary; here is that of the token drawn, in the place of Σ_v. Its mean is over the tokens of answers with R ≥ τ.
    """
    answers = sampled(answers)

    def distilled(answer: Answer) -> Tensor:
        mixture = beta * answer.logp_teacher.exp() + (1 - beta) * answer.logp.exp()
        return ((1 - beta) * (answer.logp - mixture.log())).detach() * answer.logp

    surrogate = mean((torch.exp(a.logp - a.logp.detach()) * z_score(a, answers)).mean() for a in answers)
    return mean_of_tokens(distilled(a) for a in answers if a.reward >= tau) - surrogate


def topr(answers: Answers, low: float = 0.0, high: float = 1.0, good_low: float = 1.0, good_high: float = 1.0) -> Tensor:
    """Σ_{R≥0} R ∇log π(y) + Σ_{R<0} [π(y)/μ(y)]₀¹ R ∇log π(y): arXiv:2503.14286, eq. 7 and 8; R is 1 if right, −1 if wrong."""

    def objective(answer: Answer) -> Tensor:
        ratio = torch.exp((answer.logp - answer.logp_rollout).sum()).detach()
        if answer.reward >= 1:
            return ratio.clamp(good_low, good_high) * answer.logp.sum()
        return -ratio.clamp(low, high) * answer.logp.sum()

    return -mean(objective(a) for a in sampled(answers))
