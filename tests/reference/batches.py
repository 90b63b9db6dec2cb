"""Random minibatches that hold every oddity at once, and the same as a list of answers."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor

from quatrain.types import Batch, Origin
from tests.reference.losses import Answer

GARBAGE = torch.tensor([math.nan, math.inf, -math.inf, 1e30], dtype=torch.float64)
"""What stands where nobody acted."""

TOKEN_KINKS = [math.log(bound) for bound in (0.8, 1.2, 1.28, 5.0)]
SEQUENCE_KINKS = [math.log(bound) for bound in (1 - 3e-4, 1 + 4e-4)]
VALUE_KINKS = [-0.2, 0.2]
"""Log-ratios and value changes at which a published loss has no gradient; draws keep away from them."""


@dataclass(frozen=True)
class Shape:
    """What a minibatch looks like; `seed` decides the rest."""

    seed: int = 0
    groups: tuple[int, ...] = (4, 3)
    """Sampled answers of each prompt."""
    demonstrations: int = 1
    longest: int = 5
    """Actions of the longest answer; the shortest may have one."""
    padding: int = 3
    """Columns more than that; they lie anywhere."""
    spread: float = 0.5
    """Largest log-ratio of any two policies at any action."""
    rewards: Literal["real", "binary", "equal"] = "real"


@dataclass(frozen=True)
class Case:
    """A minibatch and what the policy and the critic say of it now."""

    batch: Batch
    logp: Tensor
    values: Tensor

    def rows(self, index: Tensor) -> "Case":
        return Case(self.batch.rows(index), self.logp[index], self.values[index])

    def on_policy(self) -> "Case":
        return replace(self, batch=self.batch.replace(logp_old=self.logp))

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

        return Case(self.batch.map(widen), widen(self.logp), widen(self.values)), old

    def answers(self, entropy: Tensor) -> list[Answer]:
        """What the published losses read; autograd goes back through it to `logp`, `values` and `entropy`."""
        batch = self.batch
        return [
            Answer(
                prompt=int(batch.prompt_id[row]),
                reward=batch.reward[row],
                logp=self.logp[row][acts],
                logp_old=batch.logp_old[row][acts],
                logp_ref=batch.logp_ref[row][acts],
                value=self.values[row][acts],
                value_old=batch.values[row][acts],
                entropy=entropy[row][acts],
                demonstrated=bool(batch.origin[row] == Origin.DEMONSTRATION.code),
            )
            for row, acts in enumerate(batch.action)
        ]


@st.composite
def shapes(draw: st.DrawFn, **fixed: object) -> Shape:
    """Any Shape: ragged groups, groups of one, one-token answers, rewards without contrast, ratios from tame to absurd."""
    drawn = {
        "seed": draw(st.integers(0, 2**31 - 1)),
        "groups": tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))),
        "demonstrations": draw(st.integers(1, 2)),
        "longest": draw(st.integers(1, 6)),
        "padding": draw(st.integers(0, 3)),
        "spread": draw(st.sampled_from([3e-4, 0.5, 25.0])),
        "rewards": draw(st.sampled_from(["real", "binary", "equal"])),
    }
    return Shape(**(drawn | fixed))


def draw(shape: Shape) -> Case:
    """The minibatch of `shape`, in float64."""
    generator = torch.Generator().manual_seed(shape.seed)
    sampled, rows = sum(shape.groups), sum(shape.groups) + shape.demonstrations
    width = shape.longest + shape.padding

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(rows, width, generator=generator, dtype=torch.float64)

    def integers(high: int, count: int = rows) -> Tensor:
        return torch.randint(high, (count,), generator=generator)

    lengths = 1 + integers(shape.longest)
    order = torch.rand(rows, width, generator=generator).argsort(1)
    action = order < lengths[:, None]

    logp = -uniform(0.01, 4)
    log_ratio = _away(uniform(-shape.spread, shape.spread), TOKEN_KINKS, 1e-3)
    mean = (log_ratio * action).sum(1, keepdim=True) / lengths[:, None]
    log_ratio = log_ratio + _away(mean, SEQUENCE_KINKS, 1e-5) - mean
    value_old = uniform(-1, 1)
    values = value_old + _away(uniform(-0.5, 0.5), VALUE_KINKS, 1e-3)

    reward = {
        "real": uniform(-1, 2)[:, 0],
        "binary": integers(2).double(),
        "equal": torch.full((rows,), 1.0, dtype=torch.float64),
    }[shape.rewards]
    prompt_id = torch.repeat_interleave(torch.arange(len(shape.groups)), torch.tensor(shape.groups))
    prompt_id = torch.cat([prompt_id, integers(len(shape.groups), shape.demonstrations)])
    demonstrated = torch.arange(rows) >= sampled
    reward = reward.where(~demonstrated, math.nan)  # nobody judged it
    origin = torch.where(demonstrated, Origin.DEMONSTRATION.code, Origin.POLICY.code)

    garbage = GARBAGE[torch.randint(len(GARBAGE), (rows, width), generator=generator)]
    batch = Batch(
        action=action,
        logp_old=(logp - log_ratio).where(action, garbage),
        logp_ref=(logp - uniform(-shape.spread, shape.spread)).where(action, garbage),
        values=value_old.where(action, garbage),
        reward=reward,
        prompt_id=prompt_id,
        origin=origin,
    )
    case = Case(batch, logp.where(action, garbage), values.where(action, garbage))
    return case.rows(torch.randperm(rows, generator=generator))


def _away(x: Tensor, kinks: list[float], margin: float) -> Tensor:
    """`x`, moved by at most 2 margins so that it is no nearer than a margin to any kink."""
    for kink in kinks:
        x = torch.where((x - kink).abs() < margin, kink + margin, x)
    return x
