"""Published losses, one plain function each, to be differentiated by autograd.

A loss reads answers, not padded batches, so that nothing here can get a mask wrong. Where a paper leaves something open, the
docstring says what is taken: expectations are means over the answers of the minibatch, and a standard deviation is the
unbiased one plus `STD_EPS`, which the papers do not print and every implementation adds, as equal rewards would give 0/0.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

STD_EPS = 1e-6


@dataclass(frozen=True)
class Answer:
    """One answer: for each of its own actions, in order, what the policies and the critic said."""

    prompt: int
    reward: Tensor
    """A scalar."""
    logp: Tensor
    """log π_θ, the variable."""
    logp_old: Tensor
    logp_ref: Tensor
    value: Tensor
    """The critic's value of the state before the action, a variable."""
    value_old: Tensor
    """The same at the start of the update."""
    entropy: Tensor
    """The policy's entropy in the state before the action, a variable."""
    demonstrated: bool = False
    """Whether somebody else wrote it."""


Answers = list[Answer]


def sft(answers: Answers) -> Tensor:
    """The negative log-likelihood of the demonstrated tokens, as a mean: arXiv:2109.01652, which prints no equation."""
    return -torch.cat([a.logp for a in answers if a.demonstrated]).mean()


def rft(answers: Answers) -> Tensor:
    """The loss of `sft` on the sampled answers that are correct, and on nothing else: arXiv:2308.01825, section 3.3."""
    accepted = [a.logp for a in _sampled(answers) if a.reward >= 1]
    return -torch.cat(accepted).mean() if accepted else torch.tensor(0.0)


def reinforce(answers: Answers) -> Tensor:
    """R Σₜ ∇log π(yₜ): Williams 1992, doi:10.1007/BF00992696, the episodic REINFORCE rule with baseline 0."""
    return -_mean(a.reward * a.logp.sum() for a in _sampled(answers))


def rloo(answers: Answers) -> Tensor:
    """1/k Σᵢ [R(yᵢ) − 1/(k−1) Σ_{j≠i} R(yⱼ)] ∇log π(yᵢ): arXiv:2402.14740, RLOO. One sample has no others, and A = 0."""
    answers = _sampled(answers)

    def advantage(answer: Answer) -> Tensor:
        others = [a.reward for a in answers if a.prompt == answer.prompt and a is not answer]
        return answer.reward - torch.stack(others).mean() if others else torch.zeros_like(answer.reward)

    return -_mean(advantage(a) * a.logp.sum() for a in answers)


def grpo(answers: Answers, eps: float = 0.2, beta: float = 0.04) -> Tensor:
    """1/G Σᵢ 1/|oᵢ| Σₜ {min[r Â, clip(r, 1−ε, 1+ε) Â] − β D_KL}: arXiv:2402.03300, eq. 3; D_KL is its eq. 4."""
    answers = _sampled(answers)

    def objective(answer: Answer) -> Tensor:
        kl = torch.exp(answer.logp_ref - answer.logp) - (answer.logp_ref - answer.logp) - 1
        return (_clipped(_ratio(answer), _z_score(answer, answers), eps, eps) - beta * kl).mean()

    return -_mean(objective(a) for a in answers)


def dr_grpo(answers: Answers, eps: float = 0.2) -> Tensor:
    """GRPO without 1/|oᵢ|, without std and without KL, Âᵢ = Rᵢ − mean(R): arXiv:2503.20783, section 3.2."""
    answers = _sampled(answers)

    def objective(answer: Answer) -> Tensor:
        advantage = answer.reward - _rewards_of_group(answer, answers).mean()
        return _clipped(_ratio(answer), advantage, eps, eps).sum()

    return -_mean(objective(a) for a in answers)


def dapo(answers: Answers, low: float = 0.2, high: float = 0.28) -> Tensor:
    """Clip-higher and the token-level mean: arXiv:2503.14476, eq. 8; 1/Σ|oᵢ| runs over the minibatch, as in the authors' code."""
    answers = _sampled(answers)
    return -torch.cat([_clipped(_ratio(a), _z_score(a, answers), low, high) for a in answers]).mean()


def dapo_as_printed(answers: Answers, low: float = 0.2, high: float = 0.28) -> Tensor:
    """arXiv:2503.14476, eq. 8 to the letter: 1/Σ|oᵢ| runs over the answers of one prompt, and the expectation is over prompts."""
    answers = _sampled(answers)

    def objective(prompt: int) -> Tensor:
        return torch.cat([_clipped(_ratio(a), _z_score(a, answers), low, high) for a in answers if a.prompt == prompt]).mean()

    return -_mean(objective(prompt) for prompt in {a.prompt for a in answers})


def gspo(answers: Answers, low: float = 3e-4, high: float = 4e-4) -> Tensor:
    """1/G Σᵢ min(sᵢ Âᵢ, clip(sᵢ) Âᵢ), sᵢ = (π_θ(yᵢ)/π_old(yᵢ))^(1/|yᵢ|): arXiv:2507.18071, eq. 5 and 7; range of section 5.1."""
    answers = _sampled(answers)

    def objective(answer: Answer) -> Tensor:
        ratio = torch.exp((answer.logp - answer.logp_old).sum() / len(answer.logp))
        return _clipped(ratio, _z_score(answer, answers), low, high)

    return -_mean(objective(a) for a in answers)


def cispo(answers: Answers, low: float = 0.0, high: float = 5.0) -> Tensor:
    """1/Σ|oᵢ| Σᵢ Σₜ sg(r̂) Â log π_θ with r̂ = clip(r, low, high): arXiv:2506.13585, eq. 4 and 5; 1/Σ|oᵢ| as in `dapo`."""
    answers = _sampled(answers)

    def objective(answer: Answer) -> Tensor:
        weight = _ratio(answer).clamp(low, high).detach()
        return weight * _z_score(answer, answers) * answer.logp

    return -torch.cat([objective(a) for a in answers]).mean()


def ppo(
    answers: Answers,
    eps: float = 0.2,
    value_eps: float = 0.2,
    value_coefficient: float = 0.5,
    entropy_coefficient: float = 0.0,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Tensor:
    """−L_CLIP + c₁ L_VF − c₂ S: arXiv:1707.06347, eq. 7, 9, 11 and 12, the expectation over time steps a mean over tokens.

    The value's loss is ½ max((V − R)², (V_old + clip(V − V_old) − R)²), as in OpenAI Baselines and, but for the ½, in the code of
    arXiv:2005.12729; the reward comes with the last token, after which the episode ends.
    """
    answers = _sampled(answers)
    surrogate, value_loss = [], []
    for answer in answers:
        advantage = _gae(answer, gamma, lam)
        surrogate.append(_clipped(_ratio(answer), advantage, eps, eps))
        target = advantage + answer.value_old
        moved = answer.value_old + (answer.value - answer.value_old).clamp(-value_eps, value_eps)
        value_loss.append(0.5 * torch.maximum((answer.value - target) ** 2, (moved - target) ** 2))
    entropy = torch.cat([a.entropy for a in answers]).mean()
    return -torch.cat(surrogate).mean() + value_coefficient * torch.cat(value_loss).mean() - entropy_coefficient * entropy


def _sampled(answers: Answers) -> Answers:
    return [a for a in answers if not a.demonstrated]


def _mean(terms: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(terms)).mean()


def _rewards_of_group(answer: Answer, answers: Answers) -> Tensor:
    return torch.stack([a.reward for a in answers if a.prompt == answer.prompt])


def _z_score(answer: Answer, answers: Answers) -> Tensor:
    rewards = _rewards_of_group(answer, answers)
    deviation = rewards.std() if len(rewards) > 1 else torch.zeros_like(answer.reward)
    return (answer.reward - rewards.mean()) / (deviation + STD_EPS)


def _ratio(answer: Answer) -> Tensor:
    return torch.exp(answer.logp - answer.logp_old)


def _clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def _gae(answer: Answer, gamma: float, lam: float) -> Tensor:
    """Âₜ = Σₗ (γλ)ˡ δₜ₊ₗ, summed as written."""
    steps = len(answer.value_old)
    reward = torch.zeros_like(answer.value_old)
    reward[-1] = answer.reward
    value_next = torch.cat([answer.value_old[1:], torch.zeros_like(answer.value_old[:1])])
    delta = reward + gamma * value_next - answer.value_old
    return torch.stack([sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, steps)) for t in range(steps)])


LOSSES: dict[str, Callable[[Answers], Tensor]] = {
    "sft": sft,
    "rft": rft,
    "reinforce": reinforce,
    "rloo": rloo,
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "gspo": gspo,
    "cispo": cispo,
    "ppo": ppo,
}
"""The published loss of every row of the catalogue, by its id."""
