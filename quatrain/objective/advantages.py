"""Line 3, the advantage: how good the action was.

An advantage is called with the view and returns Â [B, T]. One that says ``live`` reads log π_θ and is evaluated at each forward
pass; the others are evaluated once for a whole minibatch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from quatrain.objective.part import MAX_LOG_RATIO, SCOPES, Scope, View
from quatrain.tensors import Float, Int, Tensor, torch
from quatrain.types import Batch, Origin

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class One:
    """Every action is worth the same: imitation.

        Â = 1

    Source: arXiv:2509.04419, table 1 (SFT).
    """

    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return torch.ones(view.action.shape, dtype=torch.float64, device=view.action.device)


@dataclass(frozen=True)
class Accepted:
    """Imitate the answers that are good enough, ignore the rest: rejection sampling.

        Â = 1[R ≥ threshold]

    Source: arXiv:2308.01825 (RFT), section 3.3.
    """

    threshold: float = 1.0
    """Smallest reward of an accepted answer."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        return (view.batch.reward >= self.threshold).double()[:, None].expand(view.action.shape)


@dataclass(frozen=True)
class Rejected:
    """Push away the answers that are not good enough, ignore the rest.

        Â = −1[R < threshold]

    Source: arXiv:2506.19767 (SRFT), eq. 11: what a reward of ±1 is for the wrong answers.
    """

    threshold: float = 1.0
    """Smallest reward of an accepted answer."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return Accepted(self.threshold)(view) - 1


@dataclass(frozen=True)
class Signed:
    """Good answers are worth 1, the others −1.

        Â = 1 if R ≥ threshold else −1

    Source: arXiv:2503.14286 (TOPR), section 4: its rewards.
    """

    threshold: float = 1.0
    """Smallest reward of a good answer."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return 2 * Accepted(self.threshold)(view) - 1


@dataclass(frozen=True)
class Relative:
    """The reward against a baseline, in units of a scale; both are statistics of the rewards of the group or the minibatch.

        Â = (R − b) / (σ + eps);  b = mean, mean of the others, Σ|y|R / Σ|y|, ΣwR / Σw of the others, or 0;
        w = Σₜ‖∇log π_old(yₜ)‖²;  σ = standard deviation, mean, or 1

    Source: group mean and deviation: arXiv:2402.03300 (GRPO), section 4.1.2; without the deviation: arXiv:2503.20783 (Dr. GRPO);
    mean of the others (leave-one-out): arXiv:2402.14740 (RLOO); weighted by length: arXiv:2505.23585 (OPO), by
    gradients: arXiv:2511.23310 (OBLR-PO), those of the head alone; the deviation of the
    minibatch: arXiv:2508.08221 (Lite PPO), of the task's answers in it: arXiv:2512.12967 (QwenLong-L1.5); over the group's mean:
    arXiv:2602.02710 (MaxRL), algorithm 1.

    Where all rewards are equal that a baseline is of, and in a group of one, Â is exactly 0.
    """

    baseline: Literal["none", "group", "leave_one_out", "length_weighted", "gradient_weighted", "batch"] = "group"
    """What is subtracted: a mean over the group, over its other answers, over it weighted by length, over its other answers
    weighted by gradients, or over the minibatch."""
    scale: Literal["none", "group", "task", "batch", "group_mean"] = "none"
    """Whose standard deviation is divided by; ``group_mean`` is the mean itself, and where that is not above 0, Â = 0."""
    eps: NonNegativeFloat = 1e-6
    """Added to what is divided by; the papers leave it out."""
    correction: Literal[0, 1] = 1
    """The standard deviation divides by n − correction."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        whole = {self.baseline, self.scale} <= {"none", "task", "batch"}
        weighing = {"grad_norm_sq"} if self.baseline == "gradient_weighted" else set[str]()
        return frozenset(
            {"reward"} | weighing | (set() if whole else {"prompt_id"}) | ({"task"} if self.scale == "task" else set())
        )

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        reward = view.batch.reward.double()
        advantage, without = reward, torch.zeros_like(view.included)
        if self.baseline != "none":
            of = self._statistics(view, reward, "batch" if self.baseline == "batch" else "group")
            baseline = of.weighted_mean(view.length[:, 0]) if self.baseline == "length_weighted" else of.mean
            advantage, without = reward - baseline, of.constant
            if self.baseline == "gradient_weighted":
                advantage = reward - self._of_others(view, reward, of)
            elif self.baseline == "leave_one_out":
                advantage = advantage * of.count / (of.count - 1).clamp(min=1)
        if self.scale != "none":
            of = self._statistics(view, reward, "group" if self.scale == "group_mean" else self.scale)
            advantage = advantage / ((of.mean if self.scale == "group_mean" else of.deviation(self.correction)) + self.eps)
            without = without | (of.mean <= 0) if self.scale == "group_mean" else without
        advantage = advantage.where(~without, 0)  # last, as 0 / (0 + eps) is NaN for eps = 0
        return advantage[:, None].expand(view.action.shape)

    @staticmethod
    def _of_others(view: View, reward: Tensor, group: Statistics) -> Float[Tensor, "B"]:
        """The mean reward of each answer's group without it, weighted by gradients; 0 where the others have none."""
        assert view.batch.grad_norm_sq is not None
        weight = view.batch.grad_norm_sq.double().where(view.action, 0).sum(1)
        others = (
            (group.key[:, None] == group.key) & group.included & ~torch.eye(len(weight), dtype=torch.bool, device=weight.device)
        )
        weights = weight.where(others, 0)
        total = weights.sum(1)
        return (weights * reward.where(group.included, 0)).sum(1) / total.where(total > 0, 1)

    @staticmethod
    def _statistics(view: View, reward: Tensor, name: Literal["group", "task", "batch"]) -> Statistics:
        match name:
            case "group":
                key = view.group()[0]
            case "task":
                assert view.batch.task is not None
                key = torch.unique(view.batch.task, return_inverse=True)[1]
            case "batch":
                key = torch.zeros_like(view.included, dtype=torch.int64)
        return Statistics(reward, key, view.included)


@dataclass(frozen=True)
class Statistics:
    """Of the included values that share a row's key; each [B]."""

    value: Float[Tensor, "B"]
    key: Int[Tensor, "B"]
    included: Tensor

    def total(self, x: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        sums = torch.zeros(int(self.key.max()) + 1 if self.key.numel() else 0, dtype=x.dtype, device=x.device)
        return sums.index_add(0, self.key, x.where(self.included, 0))[self.key]

    @property
    def count(self) -> Float[Tensor, "B"]:
        return self.total(torch.ones_like(self.value))

    @property
    def mean(self) -> Float[Tensor, "B"]:
        return self.weighted_mean(torch.ones_like(self.value))

    def weighted_mean(self, weight: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        return self.total(weight * self.value) / self.total(weight).clamp(min=1)

    def deviation(self, correction: int = 1) -> Float[Tensor, "B"]:
        """The standard deviation with n − correction; 0 for a single value."""
        return (self.total((self.value - self.mean) ** 2) / (self.count - correction).clamp(min=1)).sqrt()

    @property
    def constant(self) -> Tensor:
        """Whether they are all equal, to the bit."""
        extreme = self.value.new_full((int(self.key.max()) + 1 if self.key.numel() else 0,), torch.inf)
        low = extreme.scatter_reduce(0, self.key, self.value.where(self.included, torch.inf), "amin")
        high = (-extreme).scatter_reduce(0, self.key, self.value.where(self.included, -torch.inf), "amax")
        return (low >= high)[self.key]


@dataclass(frozen=True)
class BetaNormalized:
    """The reward minus the group's mean p, over a Beta density at p that is fitted to how the groups of the minibatch fare.

        Â = (R − p) / f(p; α, β),  α = max(1, 1 + a/3),  β = max(1, 1 + b/3);  Beta(a, b) has the mean and variance of the p

    Source: arXiv:2506.02864 (BNPO), section 4; the bounds on α, β and 1/f ≤ 10⁶ are its code's. Rewards lie in [0, 1],
    and where they do not, p is the nearer end.

    Where the groups are less than two or fare alike, f = 1.
    """

    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "prompt_id"})
    scope: ClassVar[Scope] = "batch"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        index, _ = view.group()
        of = Statistics(view.batch.reward.double(), index, view.included)
        rate = of.mean.clamp(0, 1)
        first = view.included & (torch.arange(len(index), device=index.device) == _first(index, view.included))
        rates = rate[first]  # one for each group
        spread = rates.var() if len(rates) > 1 else rates.new_zeros(())
        shape = rates.new_ones(2)
        if spread > 0:
            mean = rates.mean()
            total = mean * (1 - mean) / spread - 1
            shape = (1 + torch.stack([mean, 1 - mean]) * total / 3).clamp(min=1)
        log_beta = torch.lgamma(shape).sum() - torch.lgamma(shape.sum())
        log_density = torch.special.xlogy(shape[0] - 1, rate) + torch.special.xlogy(shape[1] - 1, 1 - rate) - log_beta
        advantage = (view.batch.reward.double() - rate) * (-log_density).exp().clamp(max=1e6)
        return advantage.where(~of.constant, 0)[:, None].expand(view.action.shape)


def _first(index: Int[Tensor, "B"], included: Tensor) -> Int[Tensor, "B"]:
    """For each sequence the first included one of its group."""
    place = torch.arange(len(index), device=index.device).where(included, len(index))
    return torch.full_like(index, len(index)).scatter_reduce(0, index, place, "amin")[index]


@dataclass(frozen=True)
class OverGreedy:
    """The reward against that of the policy's most probable answer to the same prompt.

        Â = R − R(greedy)

    Source: arXiv:2310.10505 (ReMax), algorithm 1. Where the greedy answer could not be judged, Â = 0.
    """

    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "reward_greedy"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        assert view.batch.reward_greedy is not None
        advantage = (view.batch.reward - view.batch.reward_greedy).double()
        return advantage.nan_to_num(nan=0.0)[:, None].expand(view.action.shape)


@dataclass(frozen=True)
class Intrinsic:
    """Another advantage, of what the policy itself says of its answer in the place of the reward: no label, and no verifier.

        R = 1/|y| Σₜ KL(U‖π_old(·|sₜ)), −Σₜ H(π_old(·|sₜ)), or log π_old(y);  Â = of

    Source: certainty: arXiv:2505.19590 (Intuitor), section 3.2; entropy and likelihood: arXiv:2505.15134 (EM-RL), by token and by
    sequence. π_old is the policy at the start of the update.
    """

    by: Literal["certainty", "entropy", "likelihood"] = "certainty"
    """How far from uniform the distributions are that its tokens came from, how decided they are, or how probable it is."""
    of: Any = Relative(scale="group")
    """The advantage."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs - {"reward"} | {_SIGNALS[self.by]}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        signal = getattr(view.batch, _SIGNALS[self.by])
        assert signal is not None
        signal = signal.double().where(view.action, 0)
        reward = {"certainty": view.mean(signal)[:, 0], "entropy": -signal.sum(1), "likelihood": signal.sum(1)}[self.by]
        return self.of(_rewarded(view, reward))


_SIGNALS = {"certainty": "certainty", "entropy": "entropy_old", "likelihood": "logp_old"}
"""The field of the batch that each is made of."""


@dataclass(frozen=True)
class ReturnToGo:
    """The reward minus what the answer departs from the reference policy from here on: the KL penalty inside of the reward.

        Âₜ = R − kl · Σ_{s≥t} k(dₛ);  d = log π_old − log π_ref;  k1 = d,  k2 = d²/2,  k3 = e⁻ᵈ − 1 + d

    Source: arXiv:2501.03262 (REINFORCE++), eq. 4, with k1; the others: http://joschu.net/blog/kl-approx.html.

    As rewards the three differ: the expected gradient of k1 is that of KL(π_θ‖π_ref), that of k2 is that of E[d²/2] −
    KL(π_θ‖π_ref), and that of k3 is that of KL(π_θ‖π_ref) − KL(π_ref‖π_θ). Close to the reference the latter two pull to nobody.
    """

    kl: NonNegativeFloat = 0.01
    """Weight of the penalty."""
    estimator: Literal["k1", "k2", "k3"] = "k1"
    """The KL estimate that each token costs."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "logp_old", "logp_ref"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        assert view.batch.logp_old is not None
        assert view.batch.logp_ref is not None
        distance = (view.batch.logp_old - view.batch.logp_ref).double().where(view.action, 0)
        match self.estimator:
            case "k1":
                cost = distance
            case "k2":
                cost = distance**2 / 2
            case "k3":
                cost = torch.expm1((-distance).clamp(max=MAX_LOG_RATIO)) + distance
        ahead = cost.flip(1).cumsum(1).flip(1)
        return view.batch.reward.double()[:, None] - self.kl * ahead


@dataclass(frozen=True)
class Whitened:
    """Another advantage, centred and scaled over all actions of the minibatch.

        Â = (A − mean A) / (max(σ_A, floor) + eps)

    Source: arXiv:2501.03262 (REINFORCE++), eq. 5 and 8; the floor is that of its code.
    """

    of: Any = ReturnToGo()
    """The advantage A."""
    eps: NonNegativeFloat = 1e-8
    """Added to the deviation."""
    floor: NonNegativeFloat = 0.0
    """The least that the deviation may be."""
    correction: Literal[0, 1] = 1
    """The deviation divides by n − correction."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        advantage = self.of(view)
        own = advantage[view.action]
        if len(own) < 2 or own.min() == own.max():
            return torch.zeros_like(advantage)
        least = own.min()  # is subtracted first, so that a deviation far smaller than the mean keeps its digits
        own = own - least
        return (advantage - least - own.mean()) / (own.std(correction=self.correction).clamp(min=self.floor) + self.eps)


@dataclass(frozen=True)
class Decoupled:
    """An advantage of each reward by itself; their weighted sum then takes the place of the reward in another one.

        Â = whole(Σₖ wₖ·of(Rₖ));  R = Σₖ wₖ·Rₖ

    Source: arXiv:2601.05242 (GDPO), its eq. 4 to 6.
    """

    of: Any = Relative(scale="group")
    """The advantage of each."""
    whole: Any = Relative(baseline="batch", scale="batch")
    """The advantage of their sum."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | self.whole.needs | {"rewards", "reward_weights"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.rewards is not None
        assert view.batch.reward_weights is not None
        columns = zip(view.batch.rewards.T, view.batch.reward_weights.double().T, strict=True)
        summed = sum((weight[:, None] * self.of(_rewarded(view, reward)) for reward, weight in columns), torch.zeros(()))
        return self.whole(_rewarded(view, view.mean(summed)[:, 0]))


@dataclass(frozen=True)
class ByTurn:
    """An advantage of each turn, from the turns' own rewards: another one, in which each turn stands for an answer of one token.

        Âₜ = of(Rₖ),  k the turn of token t

    Source: arXiv:2510.20150 (Rank-GRPO), where a turn is a rank.
    """

    of: Any = Relative(scale="group")
    """The advantage."""
    among: Literal["same", "all"] = "same"
    """What its groups are: the turns of the same number in a group's answers, or all turns of these."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"turn", "turn_reward", "prompt_id"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.turn_reward is not None
        assert view.batch.turn is not None
        numbers, of_action = torch.unique(view.turn()[view.action], return_inverse=True)
        place = torch.arange(len(of_action), device=of_action.device)
        first = torch.zeros_like(numbers).scatter_reduce(0, of_action, place, "amin", include_self=False)
        row = view.action.nonzero()[first, 0]
        key = view.group()[0][row]
        if self.among == "same":
            kinds, kind = torch.unique(view.batch.turn[view.action][first], return_inverse=True)
            key = len(kinds) * key + kind
        known = {name: getattr(view.batch, name)[row] for name in ("task",) if getattr(view.batch, name) is not None}
        one = torch.ones_like(row, dtype=torch.bool)[:, None]
        turns = Batch(action=one, reward=view.batch.turn_reward[view.action][first], prompt_id=key, **known)
        advantage = torch.zeros(view.action.shape, dtype=torch.float64, device=view.action.device)
        advantage[view.action] = self.of(View(turns, one, None))[:, 0].double()[of_action]
        return advantage


def _rewarded(view: View, reward: Float[Tensor, "B"]) -> View:
    """The same with another reward."""
    return replace(view, batch=view.batch.replace(reward=reward))


@dataclass(frozen=True)
class Filtered:
    """Another advantage among the answers of each group that are best by a measure; the others have none.

        Â = of, among the best; 0 for the rest

    Source: arXiv:2508.09726 (GFPO), eq. 2 and algorithm 1. Answers that are as good as the last one chosen are chosen, too.
    """

    share: Share = 0.5
    """How many of a group are chosen, rounded up."""
    by: Literal["length", "efficiency"] = "length"
    """The fewest tokens, or the most reward per token."""
    of: Any = Relative(scale="group", correction=0)
    """The advantage among the chosen."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward", "prompt_id"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        length, reward = view.length[:, 0], view.batch.reward.double()
        cost = length if self.by == "length" else -reward / length
        index, _ = view.group()
        count = (self.share * Statistics(cost, index, view.included).count).ceil()
        cheaper = (cost[None] < cost[:, None]) & (index[None] == index[:, None]) & view.included[None]
        chosen = view.included & (cheaper.sum(1) < count)
        advantage = self.of(replace(view, action=view.action & chosen[:, None]))
        return advantage.where(chosen[:, None], 0)


@dataclass(frozen=True)
class EntropySwitched:
    """Another advantage, without its negative part from when entropy has risen above a bound until it falls below another one.

        Â = max(0, of) while on, else of;  on from H > high, off from H < low;  H = mean over answers of the mean H(π_old(·|sₜ))

    Source: arXiv:2512.12967 (AEPO), section 4.3; π_old is the policy at the start of the update, and H that of the minibatch.
    """

    low: NonNegativeFloat = 0.1
    """The entropy, in nats, below which bad answers are learned from again. The paper states none: ours."""
    high: NonNegativeFloat = 0.3
    """The entropy, in nats, above which bad answers are no longer learned from. The paper states none: ours."""
    of: Any = Relative()
    """The advantage."""
    scope: ClassVar[Scope] = "batch"

    @property
    def start(self) -> tuple[float, ...]:
        return (0.0,)

    @property
    def live(self) -> bool:
        return self.of.live

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"entropy_old"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        (switched,) = self.remember(view)
        return self.of(view).clamp(min=0) if switched else self.of(view)

    def remember(self, view: View) -> tuple[float, ...]:
        assert view.batch.entropy_old is not None
        entropy = view.mean(view.batch.entropy_old.double())[view.included].mean()
        return (1.0,) if entropy > self.high else (0.0,) if entropy < self.low else view.recall(self)

    def metrics(self, view: View) -> dict[str, float]:
        return {"advantage/switched": self.remember(view)[0]}


@dataclass(frozen=True)
class LengthSwitched:
    """Another advantage, of a reward for being right that also asks for brevity, but only in the groups that are solved best.

        R′ = right·(1 − weight·sigmoid((|y| − mean)/(σ + eps))) in the best ⌈share·P⌉ groups, elsewhere right;  Â = of(R′)

    Source: arXiv:2505.18086 (GRPO-λ). mean and σ are those of the lengths of the group's right answers; groups that are solved as
    often as the last one chosen are chosen, too.
    """

    share: Share = 0.2
    """How many of the minibatch's groups are asked for brevity, rounded up."""
    weight: Share = 0.6
    """The most that a right answer may lose by its length."""
    threshold: float = 1.0
    """Smallest reward of a right answer."""
    of: Any = Relative(scale="group")
    """The advantage."""
    eps: NonNegativeFloat = 1e-6
    """Added to the deviation of the lengths."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward", "prompt_id"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        right = view.batch.reward >= self.threshold
        index, groups = view.group()
        rate = Statistics(right.double(), index, view.included).mean
        each = rate[view.included & (torch.arange(len(index), device=index.device) == _first(index, view.included))]
        chosen = (each[None] > rate[:, None]).sum(1) < math.ceil(self.share * groups)
        length = Statistics(view.length[:, 0], index, view.included & right)
        longer = (length.value - length.mean) / (length.deviation() + self.eps)
        brief = right * (1 - self.weight * torch.sigmoid(longer))
        return self.of(_rewarded(view, torch.where(chosen, brief, right.double())))


@dataclass(frozen=True)
class Pooled:
    """Another advantage whose statistics are over the policy's answers and the demonstrations of a prompt together.

        Â = of, over G_policy ∪ G_demonstration

    Source: arXiv:2506.19767 (SRFT), eq. 7; arXiv:2504.14945 (LUFFY), eq. 4.
    """

    of: Any = Relative(scale="group")
    """The advantage."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return self.of(view.over(Origin.POLICY, Origin.DEMONSTRATION))


@dataclass(frozen=True)
class Gated:
    """Another advantage, for the prompts that the policy solves often enough, or for the others.

        Â = of if P > rate (side = "above") or P ≤ rate (side = "upto") else 0;  P = mean reward of the policy's answers

    Source: arXiv:2509.04419 (HPT), section 4.1.
    """

    of: Any = One()
    """The advantage."""
    side: Literal["above", "upto"] = "above"
    """Which prompts have it."""
    rate: float = 0.0
    """The mean reward γ at which prompts part."""
    scope: ClassVar[Scope] = "group"

    @property
    def live(self) -> bool:
        return self.of.live

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward", "prompt_id"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        index, _ = view.group()
        solved = Statistics(view.batch.reward.double(), index, view.rows_of(Origin.POLICY)).mean
        passes = solved > self.rate if self.side == "above" else solved <= self.rate
        return self.of(view).where(passes[:, None], 0)


@dataclass(frozen=True)
class SoftlyGated:
    """Another advantage, twice as much of it with each further answer that the policy gets right, or half as much.

        side = "above": Â = of · (0 if c = 0 else 2^(min(c, full) − full))
        side = "upto":  Â = of · (0 if c ≥ full else 2^(−c));  c = ⌊sum of the rewards of the policy's answers⌋

    Source: arXiv:2509.04419 (HPT), section 4.1, where α and β are functions of the success rate; the table of its code.
    """

    of: Any = One()
    """The advantage."""
    side: Literal["above", "upto"] = "above"
    """Whether prompts that the policy solves have more of it, or those that it fails."""
    full: PositiveInt = 4
    """The number of right answers from which on the policy learns from itself alone."""
    scope: ClassVar[Scope] = "group"

    @property
    def live(self) -> bool:
        return self.of.live

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward", "prompt_id"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        index, _ = view.group()
        rewards = Statistics(view.batch.reward.double(), index, view.rows_of(Origin.POLICY))
        right = rewards.total(rewards.value).floor().clamp(0, self.full)
        above = self.side == "above"
        share = torch.exp2(right - self.full if above else -right).where(right > 0 if above else right < self.full, 0)
        return self.of(view) * share[:, None]


@dataclass(frozen=True)
class ByEntropy:
    """Another advantage, more or less of it as the policy is undecided.

        Â = of · exp(sign · H),  H = mean of H(π_θ(·|sₜ)) over the sequence

    Source: arXiv:2506.19767 (SRFT), eq. 8 and 12; that H is a mean over the sequence is the reading of arXiv:2509.04419's code.
    """

    sign: Literal[-1, 1] = 1
    """1 is more where it is undecided, −1 less."""
    of: Any = One()
    """The advantage."""
    live: ClassVar[bool] = True
    scope: ClassVar[Scope] = "sequence"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"entropy"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.entropy is not None
        return self.of(view) * (self.sign * view.mean(view.batch.entropy.double())).exp()


@dataclass(frozen=True)
class Unsolved:
    """Another advantage, for the prompts whose most probable answer is not good enough; the others have none.

        Â = 0 if R(greedy) ≥ threshold else of

    Source: arXiv:2510.02230 (SELF), its code. Where the greedy answer could not be judged, the prompt counts as unsolved.
    """

    of: Any = Relative(scale="group")
    """The advantage."""
    threshold: float = 1.0
    """Smallest reward of a greedy answer that solves its prompt."""

    @property
    def live(self) -> bool:
        return self.of.live

    @property
    def scope(self) -> Scope:
        return self.of.scope

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward_greedy"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward_greedy is not None
        return self.of(view).where(~(view.batch.reward_greedy >= self.threshold)[:, None], 0)


@dataclass(frozen=True)
class ImplicitProcess:
    """The outcome against that of the prompt's other answers, and from each token on the same of a learned process reward.

        Âₜ = Σ_{s≥t} (qₛ − mean_{j≠i} q̄ⱼ) + R − mean_{j≠i} Rⱼ;  qₜ = beta·(log π_φ(yₜ) − log π_ref(yₜ)),  q̄ = mean q of an answer

    Source: arXiv:2502.01456 (PRIME), eq. 3 and 5. One answer alone has nothing to be compared with: Â = 0.
    """

    beta: PositiveFloat = 0.05
    """Factor of the process reward."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "prompt_id", "logp_process", "logp_ref"})
    scope: ClassVar[Scope] = "group"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        assert view.batch.logp_process is not None
        assert view.batch.logp_ref is not None
        process = (self.beta * (view.batch.logp_process - view.batch.logp_ref).double()).where(view.action, 0)
        index, _ = view.group()
        average, reward = view.mean(process)[:, 0], view.batch.reward.double()
        count = Statistics(reward, index, view.included).count
        others = [(Statistics(x, index, view.included).total(x) - x) / (count - 1).clamp(min=1) for x in (average, reward)]
        ahead = (process - others[0][:, None]).where(view.action, 0).flip(1).cumsum(1).flip(1)
        return (ahead + (reward - others[1])[:, None]).where((count > 1)[:, None], 0)


@dataclass(frozen=True)
class ImplicitSteps:
    """An advantage of the outcome, and the same of a learned process reward of each turn among all turns of the group.

        Âₜ = of(R) + weight·of(qₖ);  qₖ = beta·Σ_{s in turn k} (log π_φ(yₛ) − log π_old(yₛ)),  k the turn of token t

    Source: arXiv:2509.19199 (iStar).
    """

    beta: PositiveFloat = 0.05
    """Factor of the process reward."""
    weight: NonNegativeFloat = 1.0
    """How much the advantage of the turn counts."""
    of: Any = Relative(baseline="leave_one_out")
    """The advantage."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "group"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward", "prompt_id", "turn", "logp_process", "logp_old"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_process is not None
        assert view.batch.logp_old is not None
        process = self.beta * view.over_turn((view.batch.logp_process - view.batch.logp_old).double())
        turns = replace(view, batch=view.batch.replace(turn_reward=process))
        return self.of(view) + self.weight * ByTurn(self.of, "all")(turns)


@dataclass(frozen=True)
class StepPotential:
    """Another advantage, less of it in steps after the answer was known, and beside it how much nearer to it a step came.

        Âₜ = of·(1 − fade·(1 − e^(−c))) + weight·(e^δ − mean e^δ),  k the step of token t
        c = number of the steps before k with Φ > known;  δ = Φₖ − Φₖ₋₁, scaled to lie from 0 to 1 in the minibatch

    Source: arXiv:2601.03823 (SPAE); known is that of its code, and so is that the first step of an answer comes no nearer.

    That the mean is over the steps of the minibatch is ours; whitening forgets it. Where all differences are equal, δ = 0.
    """

    fade: Share = 0.5
    """The most of the other advantage that is taken away."""
    weight: NonNegativeFloat = 0.5
    """How much the differences count."""
    known: float = 0.9
    """The potential Φ above which the answer is known."""
    of: Any = Relative()
    """The other advantage."""
    live: ClassVar[bool] = False
    scope: ClassVar[Scope] = "batch"

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"step", "potential"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.step is not None
        assert view.batch.potential is not None
        advantage = self.of(view).double().clone()
        answer, step = view.action.nonzero()[:, 0], view.batch.step[view.action]
        if not len(answer):
            return advantage
        first = _differs(answer)
        begins = first | _differs(step)
        opens, potential = first[begins], view.batch.potential[view.action][begins].double()
        gain = (potential - potential.roll(1)).where(~opens, 0)
        sure = (potential > self.known).double()
        before = sure.cumsum(0) - sure
        count = before - before[opens][opens.cumsum(0) - 1]
        kept = 1 - self.fade * (1 - (-count).exp())
        grown = ((gain - gain.min()) / (gain.max() - gain.min())).nan_to_num(nan=0.0).exp()
        of_action = begins.cumsum(0) - 1
        shaping = self.weight * (grown - grown.mean())
        advantage[view.action] = advantage[view.action] * kept[of_action] + shaping[of_action]
        return advantage


def _differs(value: Int[Tensor, "A"]) -> Tensor:
    """Where a number is another one than that before; the first is."""
    return torch.cat([torch.ones_like(value[:1], dtype=torch.bool), value[1:] != value[:-1]])


@dataclass(frozen=True)
class AboveMedian:
    """How much better a replayed answer is than the policy is by now in the median, and nothing where it is worse.

        Â = max(0, R − median m);  m = mean reward of a group of the policy's answers, the last `history` of them

    Source: arXiv:2509.22601 (SPEAR), its recalibrated advantage; that the groups of the minibatch are among them is ours.
    """

    history: PositiveInt = 10_240
    """How many groups are remembered."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "prompt_id"})
    scope: ClassVar[Scope] = "batch"

    @property
    def start(self) -> tuple[float, ...]:
        return ()

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        reward, means = view.batch.reward.double(), self.remember(view)
        median = torch.quantile(reward.new_tensor(means), 0.5) if means else torch.full_like(reward, torch.inf)
        return (reward - median).clamp(min=0)[:, None].expand(view.action.shape)

    def remember(self, view: View) -> tuple[float, ...]:
        assert view.batch.reward is not None
        index, _ = view.group()
        own = view.rows_of(Origin.POLICY)
        mean = Statistics(view.batch.reward.double(), index, own).mean
        first = own & (torch.arange(len(index), device=index.device) == _first(index, own))
        return (*view.recall(self), *mean[first].tolist())[-self.history :]


@dataclass(frozen=True)
class Verified:
    """The gradient of a classifier of right and wrong answers whose logit is a log-ratio of language models.

        Â = beta·(R − sigmoid(beta·log π_θ(y)/π_ref(y)))

    Source: arXiv:2412.01981 (implicit PRM), eq. 5: the cross-entropy with R in [0, 1]; arXiv:2502.01456 (PRIME), algorithm 1.
    """

    beta: PositiveFloat = 0.05
    """Factor of the log-ratio."""
    live: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "logp_ref"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        assert view.batch.logp_ref is not None
        gain = (view.current().double() - view.batch.logp_ref).where(view.action, 0).sum(1, keepdim=True)
        right = view.batch.reward.double()[:, None]
        return (self.beta * (right - torch.sigmoid(self.beta * gain))).expand(view.action.shape)


@dataclass(frozen=True)
class FlowBalance:
    """The slope of a squared residual that is 0 where answers are as probable as the reference and the reward make them.

        Â = −2δ/n;  δ = log Z(x) + s − beta·r̂,  s = 1/n · log π_θ(y)/π_ref(y),  n = |y| or 1

    Source: arXiv:2509.15207 (FlowRL), eq. 6; with the sum: arXiv:2201.13259 (trajectory balance).

    Where δ = 0 for all answers y to x and n = 1, π_θ = π_ref·exp(beta·r̂)/Z. Z is learned, by PartitionLoss.
    """

    beta: PositiveFloat = 15.0
    """How much of a reward goes into the logarithm of an answer's probability."""
    pool: Literal["mean", "sum"] = "mean"
    """Whether an answer's log-ratio is the mean over its tokens, so that n = |y|, or their sum."""
    of: Any = Relative(scale="group")
    """The reward r̂: an advantage, whose mean over the answer's tokens is taken."""
    live: ClassVar[bool] = True

    @property
    def scope(self) -> Scope:
        return self.of.scope

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"logp_ref", "log_z"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return (-2 * self.residual(view) / self.divisor(view)).expand(view.action.shape)

    def divisor(self, view: View) -> Float[Tensor, "B 1"]:
        """n, by which an action's log-probability counts less than log Z does."""
        return view.length if self.pool == "mean" else torch.ones_like(view.length)

    def residual(self, view: View) -> Float[Tensor, "B 1"]:
        """δ."""
        assert view.batch.logp_ref is not None
        assert view.batch.log_z is not None
        log_ratio = view.mean(view.current().double() - view.batch.logp_ref) * (view.length / self.divisor(view))
        return view.batch.log_z.double()[:, None] + log_ratio - self.beta * view.mean(self.of(view).double())

    def metrics(self, view: View) -> dict[str, float]:
        assert view.batch.log_z is not None
        residual = self.residual(view)[view.included]
        return {
            "flow/residual": residual.square().mean().item(),
            "flow/log_z": view.batch.log_z[view.included].mean().item(),
        }


@dataclass(frozen=True)
class TeacherGap:
    """How much likelier a teacher finds the action than the policy that took it did.

        Â = log π_teacher(yₜ) − log π_rollout(yₜ)

    Source: doi:10.64434/tml.20251026 (on-policy distillation): minus one sample of the reverse KL to the teacher, by token.
    """

    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"logp_teacher", "logp_rollout"})
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_teacher is not None
        assert view.batch.logp_rollout is not None
        return (view.batch.logp_teacher - view.batch.logp_rollout).double()


@dataclass(frozen=True)
class TowardTeacher:
    """The pull toward a teacher: minus one sample of the slope of the generalized Jensen–Shannon divergence, by token.

        Â = (1 − beta)·log(beta·π_teacher(yₜ)/π_θ(yₜ) + 1 − beta)

    Source: arXiv:2306.13649 (GKD), its generalized JSD: beta·KL(π_teacher‖m) + (1 − beta)·KL(π_θ‖m), m = beta·π_teacher +
    (1 − beta)·π_θ. Where π_θ drew the token, the expected gradient is that of the divergence over the whole vocabulary.
    """

    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The teacher's part in the mixture."""
    live: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"logp_teacher"})
    scope: ClassVar[Scope] = "token"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.logp_teacher is not None
        gain = view.batch.logp_teacher - view.current()
        small = (-gain.abs()).exp()  # of the two ratios; not by torch.logaddexp, which rounds otherwise at the end of a tensor
        inner = torch.where(gain > 0, self.beta + (1 - self.beta) * small, self.beta * small + 1 - self.beta)
        return (1 - self.beta) * (gain.clamp(min=0) + inner.log())


@dataclass(frozen=True)
class AboveValue:
    """How much better than the critic expects of the prompt, and nothing where it is worse.

        Â = max(0, R − V(x))

    Source: arXiv:2305.14718 (A-LoL), section 2.2.
    """

    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "values"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        assert view.batch.values is not None
        first = view.action.int().argmax(1, keepdim=True)
        value = view.batch.values.double().gather(1, first)
        return (view.batch.reward.double()[:, None] - value).clamp(min=0).expand(view.action.shape)


@dataclass(frozen=True)
class GAE:
    """Generalized advantage estimation over the actions of a sequence; the reward arrives with the last one.

        δₜ = rₜ + γ·V(sₜ₊₁) − V(sₜ);  Âₜ = δₜ + γλ·Âₜ₊₁

    Source: arXiv:1506.02438, eq. 16.
    """

    gamma: Share = 1.0
    """Discount γ per action."""
    lam: Share = 0.95
    """λ: 0 is the one-step residual, 1 the return minus the value."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "values"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return _gae(view, self.gamma, view.length.new_full((len(view.length),), self.lam))


@dataclass(frozen=True)
class LengthAdaptiveGAE:
    """GAE whose λ grows with the answer, so that the reward reaches its beginning.

        λ = 1 − 1/(alpha·|y|), at least 0;  δₜ = rₜ + γ·V(sₜ₊₁) − V(sₜ);  Âₜ = δₜ + γλ·Âₜ₊₁

    Source: arXiv:2504.05118 (VAPO), eq. 4 and 5; the bound at 0, for short answers, is ours.
    """

    alpha: PositiveFloat = 0.05
    """The λ-weights of an answer add up to alpha·|y|."""
    gamma: Share = 1.0
    """Discount γ per action."""
    live: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"reward", "values"})
    scope: ClassVar[Scope] = "sequence"

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        return _gae(view, self.gamma, (1 - 1 / (self.alpha * view.length[:, 0])).clamp(min=0))


def _gae(view: View, gamma: float, lam: Float[Tensor, "B"]) -> Float[Tensor, "B T"]:
    assert view.batch.reward is not None
    assert view.batch.values is not None
    values = view.batch.values.double()
    advantage = torch.zeros_like(values)
    ahead = torch.zeros_like(values[:, 0])  # Âₜ₊₁ and V(sₜ₊₁) of the next action, 0 after the last
    value_ahead = torch.zeros_like(ahead)
    arriving = view.batch.reward.double()
    for t in reversed(range(values.shape[1])):
        acts = view.action[:, t]
        here = arriving + gamma * value_ahead - values[:, t] + gamma * lam * ahead
        advantage[:, t] = here.where(acts, 0)
        ahead = here.where(acts, ahead)
        value_ahead = values[:, t].where(acts, value_ahead)
        arriving = arriving.where(~acts, 0)
    return advantage


@dataclass(frozen=True)
class StayClose:
    """The pull toward another policy: minus the derivative of a KL estimate by log π_θ, so that a term of it descends the KL.

        d = log π_θ − log π_to;  Â = −∂k/∂log π_θ
        k1 = d,  k2 = d²/2,  k3 = e⁻ᵈ − 1 + d,  forward = eᵈ − 1 − d,  weighted = 1 − (1 + d)·e⁻ᵈ,  abs = |d|,
        variance = (eᵈ − 1)²

    Source: http://joschu.net/blog/kl-approx.html; k3 as a loss: arXiv:2402.03300 (GRPO), eq. 4; forward, for KL(π_old‖π_θ) where
    π_old acted: arXiv:2505.22617 (KL-Cov), eq. 14, and abs, its code; weighted, for KL(π_ref‖π_θ) where π_θ acts, by importance:
    arXiv:2510.03865 (RAPO); variance, that of the ratio where π_old acted: arXiv:2601.03320 (R²VPO).

    As losses they differ: the expected gradient of k2 is that of KL(π_θ‖π_ref), that of k3 is that of the forward
    KL(π_ref‖π_θ), that of weighted, although the forward KL is its mean, is that of ½·E_ref[d²], and that of k1 is zero.
    """

    estimator: Literal["k1", "k2", "k3", "forward", "weighted", "abs", "variance"] = "k3"
    """The KL estimate whose derivative is taken."""
    to: Literal["ref", "old"] = "ref"
    """The reference policy, or the policy at the start of the update."""
    live: ClassVar[bool] = True
    scope: ClassVar[Scope] = "token"

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"logp_{self.to}"})

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        distance = self._distance(view)
        match self.estimator:
            case "k1":
                return -torch.ones_like(distance)
            case "k2":
                return -distance
            case "k3":
                return torch.expm1((-distance).clamp(max=MAX_LOG_RATIO))  # e⁻ᵈ − 1, exact for a small d as well
            case "forward":
                return -torch.expm1(distance.clamp(max=MAX_LOG_RATIO))
            case "weighted":
                return -distance * (-distance).clamp(max=MAX_LOG_RATIO).exp()
            case "abs":
                return -distance.sign()
            case "variance":
                distance = distance.clamp(max=MAX_LOG_RATIO / 2)  # as it is squared
                return -2 * distance.exp() * torch.expm1(distance)

    def cost(self, view: View) -> Float[Tensor, "B T"]:
        """k of each action."""
        distance = self._distance(view)
        match self.estimator:
            case "k1":
                return distance
            case "k2":
                return distance**2 / 2
            case "k3":
                return torch.expm1((-distance).clamp(max=MAX_LOG_RATIO)) + distance
            case "forward":
                return torch.expm1(distance.clamp(max=MAX_LOG_RATIO)) - distance
            case "weighted":
                return 1 - (1 + distance) * (-distance).clamp(max=MAX_LOG_RATIO).exp()
            case "abs":
                return distance.abs()
            case "variance":
                return torch.expm1(distance.clamp(max=MAX_LOG_RATIO / 2)) ** 2

    def _distance(self, view: View) -> Float[Tensor, "B T"]:
        other = view.batch.logp_ref if self.to == "ref" else view.batch.logp_old
        assert other is not None
        return view.current() - other


@dataclass(frozen=True)
class Priced:
    """The pull toward another policy, times a price that rises while the distance is above a bound, and falls while it is below.

        Â = λ·of;  λ ← max(0, λ + rate·(E[k] − bound)) after each update;  E[k] = mean over answers of their mean k

    Source: arXiv:2601.03320 (R²VPO): dual ascent on the constraint E[k] ≤ bound; k is the estimate whose pull `of` is.
    """

    bound: NonNegativeFloat = 0.01
    """The distance that is to be kept to; the paper's is not known to us, and this one is ours."""
    rate: NonNegativeFloat = 10.0
    """How fast the price moves, likewise ours; 0 keeps it where it starts."""
    first: NonNegativeFloat = 2.5
    """The price λ before the first update, likewise ours."""
    of: StayClose = StayClose("variance", to="old")
    """The pull."""
    live: ClassVar[bool] = True
    scope: ClassVar[Scope] = "token"

    @property
    def start(self) -> tuple[float, ...]:
        return (self.first,)

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        (price,) = view.recall(self)
        return price * self.of(view)

    def remember(self, view: View) -> tuple[float, ...]:
        (price,) = view.recall(self)
        cost = self._cost(view)
        return (max(0.0, price + self.rate * (cost - self.bound)),) if math.isfinite(cost) else (price,)

    def metrics(self, view: View) -> dict[str, float]:
        return {"price": view.recall(self)[0], "price/cost": self._cost(view)}

    def _cost(self, view: View) -> float:
        """E[k]; NaN where there are no answers."""
        return view.mean(self.of.cost(view).double())[view.included].mean().item()


@dataclass(frozen=True)
class ByReward:
    """Another advantage, as much of it as the answer is rewarded.

        Â = of · R/most

    Source: arXiv:2508.04389 (GuirlVG), its adversarial KL factor α = R/m: what is rewarded most is held most.
    """

    of: Any = StayClose()
    """The advantage."""
    most: PositiveFloat = 1.0
    """The largest reward m that there can be."""

    @property
    def live(self) -> bool:
        return self.of.live

    @property
    def scope(self) -> Scope:
        return max("sequence", self.of.scope, key=SCOPES.index)

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        return self.of(view) * (view.batch.reward.double() / self.most)[:, None]


@dataclass(frozen=True)
class Flattened:
    """Another advantage, with a reference policy that is the flatter, the less the answer is rewarded.

        Â = of, with φ·log π_ref in the place of log π_ref;  φ = least + (1 − least)·min(max(R, 0), 1)

    Source: arXiv:2510.03865 (RAPO): π_ref^φ(R), which is not normalized here; that φ is linear is ours.
    """

    of: Any = StayClose("weighted")
    """The advantage."""
    least: Share = 0.5
    """The exponent φ where the reward is 0: 0 is the uniform policy, 1 the reference itself."""

    @property
    def live(self) -> bool:
        return self.of.live

    @property
    def scope(self) -> Scope:
        return max("sequence", self.of.scope, key=SCOPES.index)

    @property
    def needs(self) -> frozenset[str]:
        return self.of.needs | {"reward", "logp_ref"}

    def __call__(self, view: View) -> Float[Tensor, "B T"]:
        assert view.batch.reward is not None
        assert view.batch.logp_ref is not None
        exponent = self.least + (1 - self.least) * view.batch.reward.double().clamp(0, 1)
        flat = exponent[:, None] * view.batch.logp_ref
        return self.of(replace(view, batch=view.batch.replace(logp_ref=flat)))
