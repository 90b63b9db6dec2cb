"""The records that the stages share: Prompt → Trajectory → Group → Batch.

Legend of axes, used in every shape of this library:

==  ==========================================
P   prompt (one group each)
G   member of a group
B   sequence (one trajectory each), B = Σ G
R   reward, of those that a trajectory's total is made of
T   token of a sequence, prompt tokens included
N   node of a forest: a token computed once for all sequences that share its past
V   entry of the vocabulary
D   hidden width
==  ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Self

from quatrain.tensors import Tensor, torch


class Origin(StrEnum):
    """Where the actions of a trajectory come from."""

    POLICY = "policy"
    DEMONSTRATION = "demonstration"
    REPLAY = "replay"
    TEACHER = "teacher"
    RATED = "rated"
    """An answer of the data set's with the reward that stands there, such as the better and the worse one of a pair."""
    GREEDY = "greedy"
    """The policy's most probable answer, judged to be compared with and never trained on."""
    MISMATCHED = "mismatched"
    """Another prompt's answer, scored to be compared with and never trained on."""
    VOTER = "voter"
    """One more of the policy's own answers, judged so that it has a say in the group's rewards and never trained on."""

    @property
    def code(self) -> int:
        """The integer that stands for this origin in ``Batch.origin``."""
        return list(Origin).index(self)


@dataclass(frozen=True)
class Prompt:
    """One problem to act on."""

    id: int
    """Unique within a run; the group of everything sampled from this prompt."""
    question: str
    """The problem as the task states it."""
    text: str = ""
    """What the policy reads: the question in its template, worked examples and system text included."""
    answer: str | None = None
    """The reference answer that verifiers compare with, or None where there is none."""
    demonstration: str | None = None
    """A full text that continues ``text`` and is worth imitating, or None."""
    rated: tuple[tuple[str, float], ...] = ()
    """Full texts that continue ``text``, each with its reward; a preferred one has 1, the one it is preferred to 0."""
    task: str = ""
    """The name of the task."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Whatever the task's own verifier needs; JSON values only."""


@dataclass(frozen=True)
class Trajectory:
    """What one agent saw and did in one context. All tensors are 1-D, of length T, on the CPU.

    A rollout that failed is a Trajectory too: ``error`` says why, and it is recorded and counted but not trained on.
    """

    tokens: Tensor
    """[T] int64, everything the policy read and wrote."""
    action: Tensor
    """[T] bool, True where the policy acted."""
    logp_rollout: Tensor
    """[T] float32, log-probability of each action under the distribution it was drawn from; 0 elsewhere."""
    version: Tensor
    """[T] int64, how many updates the policy had seen when it wrote the token; -1 where it did not act."""
    turn: Tensor
    """[T] int64, number of the turn; 0 in a single-turn task."""
    prompt_id: int
    step: Tensor | None = None
    """[T] int64, number of the step of the answer, from 0; None where nobody asked where steps end."""
    potential: Tensor | None = None
    """[T] float32, how near to the right answer the policy was at the end of the step; None where nobody asked."""
    experts: Tensor | None = None
    """[T, L, K] int16, the experts that the engine chose for each token in each layer, -1 for none; None where nobody asked."""
    text: str = ""
    """The actions as text, cut at the stop string."""
    reward: float | None = None
    """The total, weighted reward; None until judged, or where judging failed."""
    turn_rewards: tuple[float, ...] = ()
    """Those of single turns, from turn 0 on; empty where turns have none of their own."""
    episode_id: int = 0
    """Trajectories (of several agents, or rewritten contexts) that share an outcome."""
    agent: int = 0
    origin: Origin = Origin.POLICY
    error: str | None = None
    """Why acting or judging failed, or None."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """The reward's breakdown (``rewards`` and their ``weights``), why the text ended (``finish``), and what the task adds; JSON
    values only."""

    @property
    def length(self) -> int:
        """Number of actions."""
        return int(self.action.sum())

    def replace(self, **changes: Any) -> Self:
        return replace(self, **changes)


@dataclass(frozen=True)
class Group:
    """A prompt and everything that was sampled, or is to be imitated, from it."""

    prompt: Prompt
    trajectories: tuple[Trajectory, ...]

    @property
    def trainable(self) -> tuple[Trajectory, ...]:
        """The members that can be trained on, or are scored beside those: acted without error and, where it is needed, judged."""
        return tuple(
            t
            for t in self.trajectories
            if t.error is None and t.length and t.origin not in _BESIDE and (t.reward is not None or t.origin in _UNJUDGED)
        )

    @property
    def greedy_reward(self) -> float:
        """The reward of the policy's most probable answer; NaN where there is none."""
        return next((t.reward for t in self.trajectories if t.origin is Origin.GREEDY and t.reward is not None), math.nan)


_UNJUDGED = frozenset({Origin.DEMONSTRATION, Origin.MISMATCHED})
"""What may be learned from without a reward."""
_BESIDE = frozenset({Origin.GREEDY, Origin.VOTER})
"""What is judged and goes into no batch."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One field per tensor, immutable. Every field is optional: a part declares what it reads, and
    :meth:`require` names what is missing. Tensors are [B, T], [B] or [B, R], ``experts`` has more axes; the padding of a ragged
    batch lies anywhere ``action`` is False.
    """

    tokens: Tensor | None = None
    """[B, T] int64."""
    action: Tensor | None = None
    """[B, T] bool, True where the policy acted; without it every position counts as an action."""
    logp_old: Tensor | None = None
    """[B, T] log-probability under the policy at the start of the update."""
    logp_rollout: Tensor | None = None
    """[B, T] log-probability under the engine that acted, as it computed it."""
    logp_ref: Tensor | None = None
    """[B, T] log-probability under the policy to stay close to."""
    logp_teacher: Tensor | None = None
    """[B, T] log-probability under a teacher."""
    logp_process: Tensor | None = None
    """[B, T] log-probability under a process reward model that is a language model."""
    entropy: Tensor | None = None
    """[B, T] the policy's entropy in the state in which the action was taken, as the current forward pass knows it."""
    entropy_old: Tensor | None = None
    """[B, T] the same entropy at the start of the update."""
    certainty: Tensor | None = None
    """[B, T] KL(U‖π) of the uniform distribution and the policy's at the start of the update, in the state of the action."""
    grad_norm_sq: Tensor | None = None
    """[B, T] ‖∇log π‖² of the action by the weight of the policy's head, at the start of the update."""
    log_z: Tensor | None = None
    """[B] log Z of the sequence's prompt, as the current forward pass knows it."""
    values: Tensor | None = None
    """[B, T] the critic's value of the state in which the action was taken, at the start of the update."""
    experts: Tensor | None = None
    """[B, T, L, K] int16, the K experts that each layer chose for the token and that updates choose again; -1 for none."""
    version: Tensor | None = None
    """[B, T] int64."""
    turn: Tensor | None = None
    """[B, T] int64."""
    step: Tensor | None = None
    """[B, T] int64, the number of the step of the answer."""
    potential: Tensor | None = None
    """[B, T] how near to the right answer the policy was at the end of the step, from -1, sure of a wrong one, to 1."""
    turn_reward: Tensor | None = None
    """[B, T] the reward of the turn that the token is of; the whole reward where turns have none of their own."""
    reward: Tensor | None = None
    """[B]."""
    reward_greedy: Tensor | None = None
    """[B] the reward of the policy's most probable answer to the same prompt; NaN where it is not known."""
    rewards: Tensor | None = None
    """[B, R] the rewards that the total is made of, without their weights; NaN where a sequence has none of a kind."""
    reward_weights: Tensor | None = None
    """[B, R] the weight of each in the total."""
    prompt_id: Tensor | None = None
    """[B] int64, equal within a group."""
    episode_id: Tensor | None = None
    """[B] int64."""
    agent: Tensor | None = None
    """[B] int64."""
    origin: Tensor | None = None
    """[B] int64, the code of an :class:`Origin`; without it every row is the policy's own."""
    task: Tensor | None = None
    """[B] int64."""

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        for name, value in given.items():
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"Batch.{name} must be a tensor, got {type(value).__name__}: wrap it in torch.tensor(...)")
            if value.ndim != len(_axes(name)):
                raise ValueError(f"Batch.{name} has shape {list(value.shape)}; it must be [{', '.join(_axes(name))}]")
        for axis in "BTRLK":
            sizes = {name: value.shape[_axes(name).index(axis)] for name, value in given.items() if axis in _axes(name)}
            if len(set(sizes.values())) > 1:
                raise ValueError(f"the fields of a Batch disagree on {axis}: {sizes}")

    @property
    def size(self) -> int:
        """B, the number of sequences."""
        return next(
            (getattr(self, f.name).shape[0] for f in fields(self) if getattr(self, f.name) is not None),
            0,
        )

    def require(self, names: Collection[str], who: str) -> None:
        """Raise ValueError, naming `who`, if one of the fields `names` is missing."""
        missing = sorted(name for name in names if getattr(self, name) is None)
        if missing:
            raise ValueError(f"{who} needs {', '.join(missing)}, which this batch lacks: pass {missing[0]}=… to Batch(...)")

    def map(self, transform: Callable[[Tensor], Tensor]) -> Self:
        """A batch whose every tensor went through `transform`."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(self, **{name: transform(value) for name, value in given.items()})

    def rows(self, index: Tensor) -> Self:
        """The sequences at `index` ([K] int64), in that order."""
        return self.map(lambda value: value[index.to(value.device)])

    def to(self, device: torch.device | str) -> Self:
        return self.map(lambda value: value.to(device))

    def replace(self, **changes: Tensor | None) -> Self:
        return replace(self, **changes)


_PER_SEQUENCE = frozenset({"log_z", "reward", "reward_greedy", "prompt_id", "episode_id", "agent", "origin", "task"})
_PER_REWARD = frozenset({"rewards", "reward_weights"})


def _axes(name: str) -> str:
    """Those of the field of a batch of this name."""
    return "B" if name in _PER_SEQUENCE else "BR" if name in _PER_REWARD else "BTLK" if name == "experts" else "BT"


def collate(groups: Sequence[Group]) -> Batch:
    """The trainable trajectories of `groups` as one Batch, padded on the right with token 0.

    Order is kept; a group without trainable members contributes nothing. A demonstration that was not judged has reward 0, and so
    has a turn that is beyond those with rewards.
    """
    members = [trajectory for group in groups for trajectory in group.trainable]
    width = max((len(t.tokens) for t in members), default=0)

    def pad(name: str, dtype: torch.dtype, fill: float = 0) -> Tensor:
        out = torch.full((len(members), width), fill, dtype=dtype)
        for row, trajectory in enumerate(members):
            value = getattr(trajectory, name)
            if value is not None:
                out[row, : len(value)] = value
        return out

    def turn_reward() -> Tensor:
        out = torch.zeros(len(members), width)
        for row, t in enumerate(members):
            own = torch.tensor([*t.turn_rewards, 0.0] if t.turn_rewards else [t.reward or 0.0])
            out[row, : len(t.turn)] = own[t.turn.clamp(max=len(own) - 1)]
        return out

    def routed() -> Tensor | None:
        known = [t.experts for t in members if t.experts is not None]
        if not known:
            return None
        out = torch.full((len(members), width, *known[0].shape[1:]), -1, dtype=torch.int16)
        for row, trajectory in enumerate(members):
            if trajectory.experts is not None:
                out[row, : len(trajectory.experts)] = trajectory.experts
        return out

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(t, name) for t in members], dtype=torch.int64)

    kinds = list(dict.fromkeys(kind for t in members for kind in t.info.get("rewards", {})))

    def by_kind(name: str) -> Tensor | None:
        rows = [[t.info.get(name, {}).get(kind, math.nan) for kind in kinds] for t in members]
        return torch.tensor(rows, dtype=torch.float32) if kinds else None

    probed = any(t.potential is not None for t in members)
    tasks = {name: code for code, name in enumerate(sorted({g.prompt.task for g in groups}))}
    greedy = [group.greedy_reward for group in groups for _ in group.trainable]
    compared = any(t.origin is Origin.GREEDY for group in groups for t in group.trajectories)
    task_of = {g.prompt.id: tasks[g.prompt.task] for g in groups}
    return Batch(
        tokens=pad("tokens", torch.int64),
        action=pad("action", torch.bool),
        logp_rollout=pad("logp_rollout", torch.float32),
        experts=routed(),
        version=pad("version", torch.int64, fill=-1),
        turn=pad("turn", torch.int64),
        step=pad("step", torch.int64) if probed else None,
        potential=pad("potential", torch.float32) if probed else None,
        turn_reward=turn_reward(),
        reward=torch.tensor([t.reward or 0.0 for t in members], dtype=torch.float32),
        reward_greedy=torch.tensor(greedy, dtype=torch.float32) if compared else None,
        rewards=by_kind("rewards"),
        reward_weights=by_kind("weights"),
        prompt_id=column("prompt_id"),
        episode_id=column("episode_id"),
        agent=column("agent"),
        origin=torch.tensor([t.origin.code for t in members], dtype=torch.int64),
        task=torch.tensor([task_of[t.prompt_id] for t in members], dtype=torch.int64),
    )
