"""Random minibatches for both sides, in float64: answers padded on the right, with finite nonsense where nobody acted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quatrain.types import Batch, Origin

LONGEST = 7
PAIRS = 5


@dataclass(frozen=True)
class Case:
    """A minibatch and what the policy and the critic say of it now."""

    batch: Batch
    logp: Tensor
    """[B, T] log π_θ."""
    values_now: Tensor
    """[B, T] the critic's value of each state."""

    def __getattr__(self, name: str) -> Tensor:
        """A field of the batch that is there."""
        value = getattr(self.batch, name)
        if value is None:
            raise AttributeError(f"this minibatch has no {name}")
        return value

    def rows(self, index: Tensor) -> Case:
        return Case(self.batch.rows(index), self.logp[index], self.values_now[index])

    def with_batch(self, **fields: Tensor) -> Case:
        return replace(self, batch=self.batch.replace(**fields))


def sampled(seed: int, groups: tuple[int, ...] = (4, 4, 4)) -> Case:
    """Answers of the policy's own, `groups` many of each prompt: lengths from 1 to `LONGEST`, ratios near 1 and beyond 5.

    The first prompt's rewards are all equal; the best and the worst answer have an action that became far likelier.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = sum(groups)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*(shape or (rows, LONGEST)), generator=generator, dtype=torch.float64)

    lengths = torch.cat([torch.tensor([LONGEST, 1]), torch.randint(1, LONGEST + 1, (rows - 2,), generator=generator)])
    action = torch.arange(LONGEST) < lengths[torch.randperm(rows, generator=generator)][:, None]
    prompt_id = torch.arange(len(groups)).repeat_interleave(torch.tensor(groups))
    reward = uniform(-1, 2, rows).where(prompt_id != 0, 1.0)
    logp = -uniform(0.05, 4)
    spread = torch.tensor([1e-3, 8e-3, 0.3, 2.0], dtype=torch.float64)[torch.arange(rows) % 4]
    log_ratio = spread[:, None] * uniform(-1, 1)
    log_ratio[torch.stack([reward.argmin(), reward.argmax()]), 0] = torch.tensor([12.0, 6.0], dtype=torch.float64).log()
    values = uniform(-1, 1)
    batch = Batch(
        tokens=torch.ones(rows, LONGEST, dtype=torch.int64),
        action=action,
        logp_old=logp - log_ratio,
        logp_rollout=logp - log_ratio - uniform(-1.2, 1.2),
        logp_ref=logp - uniform(-0.8, 0.8),
        logp_teacher=logp - uniform(-0.8, 0.8),
        values=values,
        reward=reward,
        prompt_id=prompt_id,
    )
    return Case(batch, logp, values + uniform(-0.5, 0.5))


def ragged(seed: int) -> Case:
    """Unequally many answers of each prompt, and the reward of the policy's most probable one."""
    case = sampled(seed, (5, 2, 4))
    greedy = torch.tensor([0.3, -0.2, 1.1], dtype=torch.float64)
    return case.with_batch(reward_greedy=greedy[case.prompt_id])


def failing_greedily(seed: int) -> Case:
    """The same, where the most probable answer has no reward."""
    case = ragged(seed)
    return case.with_batch(reward_greedy=torch.zeros(len(case.logp), dtype=torch.float64))


def with_a_single(seed: int) -> Case:
    """A prompt with a single answer among others."""
    return sampled(seed, (5, 1, 4))


def graded(seed: int) -> Case:
    """Answers that are right or wrong."""
    case = sampled(seed)
    return case.with_batch(reward=(case.reward > 0.5).double())


def graded_twice(seed: int) -> Case:
    """Answers with two rewards of unlike scales."""
    case = sampled(seed)
    rewards = torch.stack([(case.reward > 0.5).double(), 10 * case.reward], 1)
    return case.with_batch(rewards=rewards, reward_weights=torch.tensor([1.0, 0.5], dtype=torch.float64).expand_as(rewards))


def taught(seed: int) -> Case:
    """Answers whose reference policy is the teacher."""
    case = sampled(seed)
    return case.with_batch(logp_ref=case.logp_teacher)


def on_policy(seed: int) -> Case:
    """Answers of the policy as it is now."""
    case = sampled(seed)
    return case.with_batch(logp_old=case.logp)


def demonstrated(seed: int) -> Case:
    """Answers that somebody else wrote."""
    case = sampled(seed)
    return case.with_batch(origin=torch.full((len(case.logp),), Origin.DEMONSTRATION.code))


def pairs(seed: int) -> Case:
    """A better and a worse answer to each of `PAIRS` prompts; the better ones come first."""
    case = sampled(seed, (2 * PAIRS,))
    return case.with_batch(
        prompt_id=torch.arange(PAIRS).repeat(2),
        reward=torch.tensor([1.0, 0.0], dtype=torch.float64).repeat_interleave(PAIRS),
        origin=torch.full((2 * PAIRS,), Origin.RATED.code),
    )


def paired_samples(seed: int) -> Case:
    """The same, of the policy's own answers."""
    case = pairs(seed)
    return case.with_batch(origin=torch.full((2 * PAIRS,), Origin.POLICY.code))


def own_pairs(seed: int) -> Case:
    """The same, where the policy that acted is the reference."""
    case = paired_samples(seed)
    return case.with_batch(logp_rollout=case.logp_ref)


def labelled(seed: int) -> Case:
    """Six good and four bad answers of ten prompts, and for each another prompt's answer, to measure the distance on."""
    case = sampled(seed, (20,))
    return case.with_batch(
        prompt_id=torch.arange(10).repeat(2),
        reward=(torch.arange(20) < 6).double(),
        origin=torch.tensor([Origin.RATED.code, Origin.MISMATCHED.code]).repeat_interleave(10),
    )
