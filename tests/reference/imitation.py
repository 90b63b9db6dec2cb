"""Published losses: imitation, and demonstrations beside reinforcement; entropies are constants in them."""

import math

import torch
from torch import Tensor

from quatrain.types import Origin
from tests.reference.answers import (
    Answer,
    Answers,
    centred,
    clipped,
    group,
    groups,
    mean,
    mean_of_tokens,
    of,
    rated,
    ratio,
    rewards,
    sampled,
    shown,
    z_score,
)


def sft(answers: Answers) -> Tensor:
    """The negative log-likelihood of the demonstrated tokens, as a mean: arXiv:2203.02155, which prints no equation."""
    return -mean_of_tokens(a.logp for a in shown(answers))


def dft(answers: Answers) -> Tensor:
    """−sg(π_θ(yₜ)) log π_θ(yₜ): arXiv:2508.05629, eq. 9, over the tokens of the minibatch, as in its code."""
    return -mean_of_tokens(a.logp.exp().detach() * a.logp for a in shown(answers))


def rft(answers: Answers) -> Tensor:
    """The loss of `sft` on the sampled answers that are correct, and on nothing else: arXiv:2308.01825, section 3.3."""
    return -mean_of_tokens(a.logp for a in sampled(answers) if a.reward >= 1)


def implicit_prm(answers: Answers, beta: float = 0.05) -> Tensor:
    """−[R log σ(r_φ(y)) + (1 − R) log(1 − σ(r_φ(y)))], r_φ = β log π_φ/π_ref: arXiv:2412.01981, eq. 5; π_φ is what is trained."""

    def loss(answer: Answer) -> Tensor:
        logit = beta * (answer.logp - answer.logp_ref).sum()
        right, wrong = torch.nn.functional.logsigmoid(torch.stack([logit, -logit]))
        return -(answer.reward * right + (1 - answer.reward) * wrong)

    return mean(loss(a) for a in sampled(answers))


def _shaped(answer: Answer, gamma: float) -> Tensor:
    """f(r̂) = r̂/(r̂ + γ), r̂ = π_θ: arXiv:2504.14945, eq. 6 with π_φ = 1."""
    probability = answer.logp.exp()
    return probability / (probability + gamma)


def luffy(answers: Answers, gamma: float = 0.1, eps: float = 0.2) -> Tensor:
    """1/Z [Σⱼ Σₜ f(r̂) Âⱼ + Σᵢ Σₜ min(r Â, clip(r) Â)], statistics and Z over both of a prompt: arXiv:2504.14945, eq. 4 and 6."""

    def objective(answer: Answer, own: Answers) -> Tensor:
        advantage = z_score(answer, own)
        if answer.origin is Origin.DEMONSTRATION:
            return _shaped(answer, gamma) * advantage
        return clipped(ratio(answer), advantage, eps, eps)

    both = of(answers, Origin.POLICY, Origin.DEMONSTRATION)
    return -mean(mean_of_tokens(objective(a, own) for a in own) for own in groups(both))


def luffy_code(answers: Answers, gamma: float = 0.1, tokens: float = 8192, entropy: float = 0.001) -> Tensor:
    """No clip, no deviation, Σ over tokens / 8192, an entropy bonus: the authors' scripts, with one answer in a micro-batch."""
    both = of(answers, Origin.POLICY, Origin.DEMONSTRATION)

    def objective(answer: Answer) -> Tensor:
        surrogate = _shaped(answer, gamma) if answer.origin is Origin.DEMONSTRATION else ratio(answer)
        return (surrogate * centred(answer, both)).sum() / tokens

    return -mean(objective(a) for a in both) - entropy * mean_of_tokens(a.entropy for a in both)


def _imitated(answer: Answer, weight: float) -> Tensor:
    """w · sg(exp(−H)): arXiv:2506.19767, eq. 8, H the mean over the answer, as in arXiv:2509.04419's code."""
    return weight * torch.exp(-answer.entropy.mean()).detach()


def _reinforced(answer: Answer, weight: float) -> Tensor:
    """What log π(y) of a sampled answer is weighed by: w · sg(exp(H)) if it is right, −1 if it is wrong: eq. 12."""
    return weight * torch.exp(answer.entropy.mean()).detach() if answer.reward >= 1 else torch.tensor(-1.0)


def srft(answers: Answers, imitated: float = 0.5, reinforced: float = 0.1) -> Tensor:
    """L_SFT^demo + L_RL^demo + L_RL^self: arXiv:2506.19767, eq. 7, 8, 10 (with π_β = 1 and no clip), 12 and 13."""
    both = of(answers, Origin.POLICY, Origin.DEMONSTRATION)
    sft_demo = mean(-_imitated(a, imitated) * a.logp.sum() for a in shown(answers))
    rl_demo = -mean((a.logp.exp() * z_score(a, both)).sum() for a in shown(answers))
    rl_self = -mean(_reinforced(a, reinforced) * a.logp.sum() for a in sampled(answers))
    return sft_demo + rl_demo + rl_self


def _solved(answer: Answer, answers: Answers, rate: float) -> bool:
    """P > γ, P the mean reward of the policy's answers to the prompt; without any, P is 0."""
    own = group(answer, sampled(answers))
    return bool(rewards(own).mean() > rate) if own else rate < 0


def hpt(answers: Answers, rate: float = 0.0, eps: float = 0.2) -> Tensor:
    """α L_RL + β L_SFT, α = 1[P > γ], β = 1[P ≤ γ] of each prompt: arXiv:2509.04419, section 4.1; L_RL is GRPO's without KL."""

    def surrogate(answer: Answer) -> Tensor:
        return _solved(answer, answers, rate) * clipped(ratio(answer), z_score(answer, sampled(answers)), eps, eps).mean()

    nll = mean(-(not _solved(a, answers, rate)) * a.logp.mean() for a in shown(answers))
    return nll - mean(surrogate(a) for a in sampled(answers))


def hpt_soft(answers: Answers, full: int = 4, eps: float = 0.2) -> Tensor:
    """α L_RL + β L_SFT with (α, β) = (0, 1), (1/8, 1/2), (1/4, 1/4), (1/2, 1/8), (1, 0) for 0, …, 3, and 4 or more right answers.

    A table of the code of arXiv:2509.04419; for another `full` it is (2^(c − full), 2^−c) between its ends.
    """

    def right(answer: Answer) -> int:
        return max(0, math.floor(sum(a.reward.item() for a in group(answer, sampled(answers)))))

    def surrogate(answer: Answer) -> Tensor:
        count = min(right(answer), full)
        alpha = 2.0 ** (count - full) if count > 0 else 0.0
        return alpha * clipped(ratio(answer), z_score(answer, sampled(answers)), eps, eps).mean()

    def imitation(answer: Answer) -> Tensor:
        return (2.0 ** -right(answer) if right(answer) < full else 0.0) * answer.logp.mean()

    return -mean(imitation(a) for a in shown(answers)) - mean(surrogate(a) for a in sampled(answers))


def hpt_code(answers: Answers, rate: float = 0.0, tokens: float = 8192, entropy: float = 0.001) -> Tensor:
    """No clip, no deviation, Σ over tokens / 8192 with one answer in a micro-batch; the SFT loss is per imitated token."""
    both = of(answers, Origin.POLICY, Origin.DEMONSTRATION)

    def surrogate(answer: Answer) -> Tensor:
        advantage = centred(answer, sampled(answers)) * _solved(answer, answers, rate)
        return (ratio(answer) * advantage).sum() / tokens

    nll = -mean_of_tokens(a.logp for a in shown(answers) if not _solved(a, answers, rate))
    return nll - mean(surrogate(a) for a in sampled(answers)) - entropy * mean_of_tokens(a.entropy for a in both)


def a_lol(answers: Answers, low: float = 0.1, high: float = 1.9) -> Tensor:
    """E_{A>0}[A r ∇log π(y)], A = R − V(x), r = clip(π_θ(y)/π_ref(y), 1 ± 0.9), a constant: arXiv:2305.14718, section 2.2.

    V(x) is the critic's value at the start of the update; it is learned along, by ½ (V − R)² in the states of all answers.
    """
    answers = rated(answers)

    def objective(answer: Answer) -> Tensor:
        weight = torch.exp((answer.logp - answer.logp_ref).sum()).clamp(low, high).detach()
        return (answer.reward - answer.value_old[0]) * weight * answer.logp.sum()

    value_loss = mean(((a.value - a.reward) ** 2).mean() / 2 for a in answers)
    return value_loss - mean(objective(a) for a in answers if a.reward > a.value_old[0])
