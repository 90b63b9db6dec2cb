"""What the published losses read: answers, not padded batches, so that nothing here can get a mask wrong."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from quatrain.types import Origin

STD_EPS = 1e-6
"""Added to every standard deviation that a reward is divided by; the papers do not print it, and equal rewards would give 0/0."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer: for each of its own actions, in order, what the policies and the critic said."""

    prompt: int
    task: int
    origin: Origin
    """Who wrote it."""
    reward: Tensor
    """A scalar."""
    parts: Tensor
    """[R] the rewards that the reward is made of in a run with several."""
    part_weights: Tensor
    """[R] their weights."""
    turn: Tensor
    """The number of the turn that each action is of."""
    turn_reward: Tensor
    """The reward of that turn."""
    step: Tensor
    """The number of the step that each action is of."""
    potential: Tensor
    """How near to the right answer the policy was at the end of that step."""
    reward_greedy: Tensor
    """The reward of the policy's most probable answer to the same prompt; NaN where it is not known."""
    logp: Tensor
    """log π_θ, the variable."""
    logp_old: Tensor
    logp_rollout: Tensor
    logp_ref: Tensor
    logp_teacher: Tensor
    logp_process: Tensor
    value: Tensor
    """The critic's value of the state before the action, a variable."""
    value_old: Tensor
    """The same at the start of the update."""
    entropy: Tensor
    """The policy's entropy in the state before the action, a variable."""
    entropy_old: Tensor
    """The same at the start of the update."""
    certainty: Tensor
    """KL(U‖π) of the uniform distribution and the policy's at the start of the update, in the state before the action."""
    grad_norm_sq: Tensor
    """‖∇log π‖² of each action by what the policy's head learns, at the start of the update."""
    log_z: Tensor
    """The learned log Z of the prompt, a scalar and a variable."""
    lot: Tensor
    """A number for each action; where a loss draws at random, the smallest are drawn."""


Answers = list[Answer]


def of(answers: Answers, *origins: Origin) -> Answers:
    return [a for a in answers if a.origin in origins]


def sampled(answers: Answers) -> Answers:
    return of(answers, Origin.POLICY)


def shown(answers: Answers) -> Answers:
    return of(answers, Origin.DEMONSTRATION)


def replayed(answers: Answers) -> Answers:
    return of(answers, Origin.REPLAY)


def rated(answers: Answers) -> Answers:
    return of(answers, Origin.RATED)


def groups(answers: Answers) -> list[Answers]:
    return [[a for a in answers if a.prompt == prompt] for prompt in sorted({a.prompt for a in answers})]


def group(answer: Answer, answers: Answers) -> Answers:
    return [a for a in answers if a.prompt == answer.prompt]


def mean(terms: Iterable[Tensor]) -> Tensor:
    """0 where there are none."""
    found = list(terms)
    return torch.stack(found).mean() if found else torch.tensor(0.0)


def mean_of_tokens(tokens: Iterable[Tensor]) -> Tensor:
    """Over the tokens of all answers at once; 0 where there are none."""
    found = list(tokens)
    return torch.cat(found).mean() if found else torch.tensor(0.0)


def rewards(answers: Answers) -> Tensor:
    return torch.stack([a.reward for a in answers])


def deviation(values: Tensor, correction: int = 1) -> Tensor:
    """The standard deviation; 0 of a single value."""
    return values.std(correction=correction) if len(values) > 1 else torch.zeros_like(values[0])


def centred(answer: Answer, answers: Answers) -> Tensor:
    """R − mean(R) over the answers to the same prompt; exactly 0 where all are equal, which a mean need not be."""
    own = rewards(group(answer, answers))
    return answer.reward - own.mean() if (own != own[0]).any() else torch.zeros_like(own[0])


def z_score(answer: Answer, answers: Answers) -> Tensor:
    """(R − mean(R)) / std(R) over the answers to the same prompt."""
    return centred(answer, answers) / (deviation(rewards(group(answer, answers))) + STD_EPS)


def ratio(answer: Answer) -> Tensor:
    return torch.exp(answer.logp - answer.logp_old)


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """min(r Â, clip(r, 1 − low, 1 + high) Â)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def gae(answer: Answer, gamma: float, lam: float) -> Tensor:
    """Âₜ = Σₗ (γλ)ˡ δₜ₊ₗ, summed as written: arXiv:1506.02438, eq. 16; the reward comes with the last token, then it ends."""
    steps = len(answer.value_old)
    reward = torch.zeros_like(answer.value_old)
    reward[-1] = answer.reward
    value_next = torch.cat([answer.value_old[1:], torch.zeros_like(answer.value_old[:1])])
    delta = reward + gamma * value_next - answer.value_old
    return torch.stack([sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, steps)) for t in range(steps)])
