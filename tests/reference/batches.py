"""Random minibatches that hold every oddity at once, and the same as a list of answers."""

import math
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor

from quatrain.objective import View
from quatrain.objective.masks import lottery
from quatrain.types import Batch, Origin
from tests.reference.answers import Answer

GARBAGE = torch.tensor([math.nan, math.inf, -math.inf, 1e30], dtype=torch.float64)
"""What stands where nobody acted."""


@dataclass(frozen=True)
class Shape:
    """What a minibatch looks like; `seed` decides the rest."""

    seed: int = 0
    groups: tuple[int, ...] = (4, 3)
    """Sampled answers of each prompt."""
    rated: tuple[int, ...] = (2, 3)
    """Answers of the data set's to each prompt, from the front again where prompts are more."""
    demonstrations: int = 1
    mismatched: int = 1
    replayed: int = 0
    longest: int = 5
    """Actions of the longest answer; the shortest may have one."""
    padding: int = 3
    """Columns more than that; they lie anywhere."""
    spread: float = 0.5
    """Largest log-ratio of θ and another policy at any action, and half of the largest of a whole answer."""
    rewards: Literal["real", "binary", "equal"] = "real"
    span: tuple[float, float] = (-1.0, 2.0)
    """Where real rewards lie."""
    judged: bool = False
    """Whether demonstrations have a reward, too, or NaN."""


@dataclass(frozen=True)
class Case:
    """A minibatch and what the policy and the critic say of it now."""

    batch: Batch
    logp: Tensor
    values: Tensor

    def rows(self, index: Tensor) -> "Case":
        return Case(self.batch.rows(index), self.logp[index], self.values[index])

    def on_policy(self) -> "Case":
        """The policy at the start of the update, the one that acted and the current one are the same."""
        return replace(self, batch=self.batch.replace(logp_old=self.logp, logp_rollout=self.logp))

    def widened(self, positions: set[int]) -> tuple["Case", Tensor]:
        """With columns of garbage inserted at `positions`, and where the old columns are now."""
        old = torch.tensor([t not in positions for t in range(self.logp.shape[1] + len(positions))])

        def widen(x: Tensor) -> Tensor:
            if x.ndim == 1:
                return x
            out = torch.zeros(len(x), len(old), dtype=x.dtype)
            if x.is_floating_point():
                out = GARBAGE.to(x)[torch.arange(out.numel()) % len(GARBAGE)].view_as(out)
            out[:, old] = x
            return out

        parts = {name: getattr(self.batch, name) for name in ("rewards", "reward_weights")}
        batch = self.batch.replace(**dict.fromkeys(parts)).map(widen).replace(**parts)
        return Case(batch, widen(self.logp), widen(self.values)), old

    def answers(self, entropy: Tensor) -> list[Answer]:
        """What the published losses read; autograd goes back to `logp`, `values`, `entropy` and the batch's `log_z`."""
        batch = self.batch
        lots = lottery(View(batch, batch.action, None)).view(batch.action.shape)
        return [
            Answer(
                prompt=int(batch.prompt_id[row]),
                task=int(batch.task[row]),
                origin=list(Origin)[batch.origin[row]],
                reward=batch.reward[row],
                turn=batch.turn[row][acts],
                turn_reward=batch.turn_reward[row][acts],
                step=batch.step[row][acts],
                potential=batch.potential[row][acts],
                parts=batch.rewards[row],
                part_weights=batch.reward_weights[row],
                reward_greedy=batch.reward_greedy[row],
                logp=self.logp[row][acts],
                logp_old=batch.logp_old[row][acts],
                logp_rollout=batch.logp_rollout[row][acts],
                logp_ref=batch.logp_ref[row][acts],
                logp_teacher=batch.logp_teacher[row][acts],
                logp_process=batch.logp_process[row][acts],
                value=self.values[row][acts],
                value_old=batch.values[row][acts],
                entropy=entropy[row][acts],
                entropy_old=batch.entropy_old[row][acts],
                certainty=batch.certainty[row][acts],
                grad_norm_sq=batch.grad_norm_sq[row][acts],
                log_z=batch.log_z[row],
                lot=lots[row][acts],
            )
            for row, acts in enumerate(batch.action)
        ]


@st.composite
def shapes(draw: st.DrawFn, **fixed: object) -> Shape:
    """Any Shape: ragged groups, groups of one, one-token answers, rewards without contrast, ratios from tame to absurd."""
    drawn = {
        "seed": draw(st.integers(0, 2**31 - 1)),
        "groups": tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))),
        "rated": tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))),
        "demonstrations": draw(st.integers(1, 2)),
        "mismatched": draw(st.integers(0, 2)),
        "longest": draw(st.integers(1, 6)),
        "padding": draw(st.integers(0, 3)),
        "spread": draw(st.sampled_from([3e-4, 3e-3, 0.5, 25.0])),
        "rewards": draw(st.sampled_from(["real", "binary", "equal"])),
    }
    return Shape(**(drawn | fixed))


def draw(shape: Shape) -> Case:
    """The minibatch of `shape`, in float64."""
    generator = torch.Generator().manual_seed(shape.seed)
    prompts = len(shape.groups)
    rated = tuple(islice(cycle(shape.rated), prompts))
    counts = {
        Origin.POLICY: sum(shape.groups),
        Origin.RATED: sum(rated),
        Origin.DEMONSTRATION: shape.demonstrations,
        Origin.MISMATCHED: shape.mismatched,
        Origin.REPLAY: shape.replayed,
    }
    rows, width = sum(counts.values()), shape.longest + shape.padding
    origin = torch.repeat_interleave(torch.tensor([o.code for o in counts]), torch.tensor(list(counts.values())))

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, width, generator=generator, dtype=torch.float64)

    def integers(high: int, count: int = rows) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    lengths = 1 + integers(shape.longest)
    action = torch.rand(rows, width, generator=generator).argsort(1) < lengths[:, None]
    garbage = GARBAGE[torch.randint(len(GARBAGE), (rows, width), generator=generator)]
    logp, value_old = -uniform(0.01, 4), uniform(-1, 1)

    def policy() -> Tensor:
        """The log-probabilities of another one."""
        log_ratio = uniform(-shape.spread, shape.spread)
        whole = (log_ratio * action).sum(1, keepdim=True).abs()
        return (logp - log_ratio / (whole / (2 * shape.spread)).clamp(min=1)).where(action, garbage)

    def graded() -> Tensor:
        match shape.rewards:
            case "real":
                return uniform(*shape.span)[:, 0]
            case "binary":
                return integers(2).double()
            case "equal":
                return torch.full((rows,), 1.0, dtype=torch.float64)

    reward = graded()
    unjudged = [Origin.MISMATCHED] if shape.judged else [Origin.MISMATCHED, Origin.DEMONSTRATION]
    reward = reward.where(~torch.isin(origin, torch.tensor([o.code for o in unjudged])), math.nan)
    prompt_id = torch.cat(
        [
            torch.repeat_interleave(torch.arange(prompts), torch.tensor(shape.groups)),
            torch.repeat_interleave(torch.arange(prompts), torch.tensor(rated)),
            integers(prompts, shape.demonstrations + shape.mismatched + shape.replayed),
        ]
    )
    reward_greedy = uniform(*shape.span)[:prompts, 0].where(integers(4, prompts) > 0, math.nan)
    log_z = uniform(-2, 2)[:prompts, 0]

    batch = Batch(
        action=action,
        logp_old=policy(),
        logp_rollout=policy(),
        logp_ref=policy(),
        logp_teacher=policy(),
        logp_process=policy(),
        entropy=uniform(0, 2).where(action, garbage),
        values=value_old.where(action, garbage),
        log_z=log_z[prompt_id],
        reward=reward,
        reward_greedy=reward_greedy[prompt_id],
        prompt_id=prompt_id,
        origin=origin,
    )
    values = value_old + uniform(-0.5, 0.5)
    batch = batch.replace(**{name: uniform(0, 2).where(action, garbage) for name in ("entropy_old", "certainty")})
    turn = (torch.rand(rows, width, generator=generator) < 0.4).cumsum(1)
    of_turns = torch.stack([graded() for _ in range(width + 1)], 1)
    batch = batch.replace(
        turn=turn,
        turn_reward=of_turns.gather(1, turn).where(action, garbage),
        task=integers(2, prompts)[prompt_id],
        rewards=torch.stack([graded(), graded()], 1),
        reward_weights=torch.tensor([1.0, 0.5], dtype=torch.float64).expand(rows, 2),
        grad_norm_sq=uniform(0, 2).where(action, garbage),
    )
    step = (torch.rand(rows, width, generator=generator) < 0.4).cumsum(1)
    of_steps = 1 - 2 * torch.rand(rows, width + 1, generator=generator, dtype=torch.float64) ** 3  # often near 1
    batch = batch.replace(step=step, potential=of_steps.gather(1, step).where(action, garbage))
    case = Case(batch, logp.where(action, garbage), values.where(action, garbage))
    return case.rows(torch.randperm(rows, generator=generator))
