"""Estimators against the exact gradient: a softmax policy so small that every batch it can give is enumerated."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from quatrain.types import Batch, Origin

STEP = 0.25
"""How far one update moves the logits, along the exact gradient."""
MOST = 100_000
"""More batches than this are not enumerated."""
PATIENCE = 500
"""Steps after which a search for a fixed point is given up."""
FARTHEST = 3.0
"""Most that one of them moves a logit, so that what is driven away keeps a logarithm."""


@runtime_checkable
class Estimator(Protocol):
    """What is measured: a method, or whatever else binds to a batch and then gives the weights of g = Σ w ∇log π + Σ w ∇H."""

    @property
    def needs(self) -> frozenset[str]: ...

    @property
    def origins(self) -> frozenset[Origin]: ...

    def bind(self, batch: Batch) -> Any: ...


@dataclass(frozen=True)
class Fold:
    """A KL penalty inside of the reward: its weight and the estimate that each token costs, those of ReturnToGo."""

    beta: float
    estimator: Literal["k1", "k2", "k3"] = "k1"


@dataclass(frozen=True)
class World:
    """Prompts whose every answer is known, and a softmax for each prompt and each state that an answer can be in; in float64.

    Axes besides those of :mod:`quatrain.types`: N answer, S state (what was written so far), K possible batch. The last entry of
    the vocabulary ends an answer.
    """

    logits: Float[Tensor, "P S V"]
    """The policy, its parameters."""
    reference: Float[Tensor, "P S V"]
    """The logits of the policy to stay close to."""
    reward: Float[Tensor, "P N"]
    longest: int
    """Tokens of the longest answer; after so many it is cut."""
    log_z: Float[Tensor, "P"] | None = None
    """What was learned of log Z of each prompt; None where nothing is learned of it."""

    @cached_property
    def answers(self) -> tuple[tuple[int, ...], ...]:
        """Every answer."""
        end = self.logits.shape[2] - 1
        texts = (text for n in range(1, self.longest + 1) for text in itertools.product(range(end + 1), repeat=n))
        return tuple(text for text in texts if end not in text[:-1] and (text[-1] == end or len(text) == self.longest))

    @cached_property
    def action(self) -> Bool[Tensor, "N T"]:
        """False after an answer's end."""
        return torch.tensor([[t < len(text) for t in range(self.longest)] for text in self.answers])

    @cached_property
    def tokens(self) -> Int[Tensor, "N T"]:
        """0 after an answer's end."""
        return torch.tensor([[*text, *[0] * (self.longest - len(text))] for text in self.answers])

    @cached_property
    def state(self) -> Int[Tensor, "N T"]:
        """The number of the state in which each token is written, 0 after an answer's end."""
        number = {text: i for i, text in enumerate(sorted({a[:t] for a in self.answers for t in range(len(a))}))}
        return torch.tensor([[number[a[:t]] if t < len(a) else 0 for t in range(self.longest)] for a in self.answers])

    @cached_property
    def path(self) -> Float[Tensor, "N T S V"]:
        """1 where a token of an answer is the choice V in the state S."""
        _, states, vocabulary = self.logits.shape
        taken = one_hot(self.state, states)[..., None] * one_hot(self.tokens, vocabulary)[:, :, None]
        return (taken * self.action[..., None, None]).double()

    @cached_property
    def logp(self) -> Float[Tensor, "P N T"]:
        """log π of each token, 0 after an answer's end."""
        return torch.einsum("psv,ntsv->pnt", self.logits.log_softmax(2), self.path)

    @cached_property
    def logp_ref(self) -> Float[Tensor, "P N T"]:
        """log π_ref of each token, 0 after an answer's end."""
        return torch.einsum("psv,ntsv->pnt", self.reference.log_softmax(2), self.path)

    @cached_property
    def probability(self) -> Float[Tensor, "P N"]:
        """π of each answer."""
        return self.logp.sum(2).exp()

    @cached_property
    def visits(self) -> Float[Tensor, "P S V"]:
        """How probable it is that an answer makes the choice V in the state S."""
        return torch.einsum("pn,ntsv->psv", self.probability, self.path)

    @cached_property
    def values(self) -> Float[Tensor, "P N T"]:
        """E[R | state], exactly, of the state in which each token is written."""
        earned = torch.einsum("pn,ntsv->ps", self.probability * self.reward, self.path)
        return (earned / self.visits.sum(2))[:, self.state]

    @cached_property
    def entropy(self) -> Float[Tensor, "P N T"]:
        """H(π(·|state)) of the state in which each token is written."""
        return torch.special.entr(self.logits.softmax(2)).sum(2)[:, self.state]

    @cached_property
    def certainty(self) -> Float[Tensor, "P N T"]:
        """KL(U‖π(·|state)) of the state in which each token is written."""
        return (-self.logits.log_softmax(2).mean(2) - math.log(self.logits.shape[2]))[:, self.state]

    @cached_property
    def scores(self) -> Float[Tensor, "P N T S V"]:
        """∇log π of each token by the logits of its prompt: 1[V] − π(V) in the token's state."""
        return self.path - self.path.sum(3, keepdim=True) * self.logits.softmax(2)[:, None, None]

    @cached_property
    def entropy_scores(self) -> Float[Tensor, "P N T S V"]:
        """∇H of each token's state by the logits of its prompt: −π(V)·(log π(V) + H)."""
        policy = self.logits.softmax(2)
        minus = torch.special.entr(policy) - policy * torch.special.entr(policy).sum(2, keepdim=True)
        return self.path.sum(3, keepdim=True) * minus[:, None, None]

    @cached_property
    def gradient(self) -> Float[Tensor, "P S V"]:
        """∇J, exactly; J = E[R], the mean over prompts."""
        return torch.einsum("pn,pntsv->psv", self.probability * self.reward, self.scores) / len(self.reward)

    def fields(self, current: World) -> dict[str, Tensor]:
        """What a batch can hold of each answer that was sampled here and is learned from at `current`.

        Each is [P, N, T], [P, N] or [P, N, R]. The critic is exact, the greedy answer is the most probable one, and the engine
        computes as the policy does.
        """
        prompt = torch.arange(len(self.reward))[:, None].expand(self.reward.shape)
        greedy = self.reward.gather(1, self.probability.argmax(1, keepdim=True))
        every_token = torch.zeros_like(self.logp, dtype=torch.int64)
        learned = {} if current.log_z is None else {"log_z": current.log_z[:, None].expand(self.reward.shape)}
        return learned | {
            "tokens": self.tokens.expand(self.logp.shape),
            "action": self.action.expand(self.logp.shape),
            "logp_old": self.logp,
            "logp_rollout": self.logp,
            "logp_ref": self.logp_ref,
            "entropy": current.entropy,
            "entropy_old": self.entropy,
            "certainty": self.certainty,
            "grad_norm_sq": self.scores.square().sum((3, 4)),
            "values": self.values,
            "version": every_token,
            "turn": every_token,
            "reward": self.reward,
            "reward_greedy": greedy.expand(self.reward.shape),
            "rewards": self.reward[..., None],
            "turn_reward": self.reward[..., None].expand(self.logp.shape),
            "reward_weights": torch.ones_like(self.reward)[..., None],
            "prompt_id": prompt,
            "task": prompt,
        }

    def of(self, prompt: int) -> Self:
        """The world of one prompt."""
        one = slice(prompt, prompt + 1)
        log_z = None if self.log_z is None else self.log_z[one]
        return replace(self, logits=self.logits[one], reference=self.reference[one], reward=self.reward[one], log_z=log_z)

    def at(self, logits: Float[Tensor, "P S V"], log_z: Float[Tensor, "P"] | None = None) -> Self:
        """With another policy, and another log Z if one is given."""
        return replace(self, logits=logits, log_z=self.log_z if log_z is None else log_z)

    def flowing(self) -> Self:
        """With a log Z to be learned, 0 at the start."""
        return replace(self, log_z=torch.zeros_like(self.reward[:, 0]))

    def after(self, updates: int) -> Self:
        """With the policy that `updates` steps along the exact gradient lead to."""
        here = self
        for _ in range(updates):
            here = here.at(here.logits + STEP * here.gradient / here.gradient.norm())
        return here

    def fold(self, penalty: Fold) -> Self:
        """With a KL penalty of the policy folded into the reward: r − β·Σₜ k(dₜ), d = log π − log π_ref."""
        distance = self.logp - self.logp_ref
        costs = {"k1": distance, "k2": distance**2 / 2, "k3": torch.expm1(-distance) + distance}
        return replace(self, reward=self.reward - penalty.beta * costs[penalty.estimator].sum(2))

    def posterior(self, beta: float) -> Float[Tensor, "P N"]:
        """π_ref·exp(r/β)/Z of each answer, which maximizes E[R] − β·KL(π‖π_ref) (arXiv:2205.11275)."""
        return (self.logp_ref.sum(2) + self.reward / beta).softmax(1)

    def log_partition(self, beta: float) -> Float[Tensor, "P"]:
        """log Z of the posterior."""
        return (self.logp_ref.sum(2) + self.reward / beta).logsumexp(1)


def _tree(*go_on: tuple[float, ...]) -> Float[Tensor, "P S 2"]:
    """Logits of a vocabulary of two: for each prompt, those of going on after 0, 1, … tokens; ending has 0."""
    logits = torch.tensor(go_on, dtype=torch.float64)
    return torch.stack([logits, torch.zeros_like(logits)], 2)


TINY = World(
    logits=_tree((0.4, 0.2, -0.3), (1.0, 0.5, 0.2)),
    reference=_tree((0.0, 0.5, 0.3), (0.5, -0.2, 0.0)),
    reward=torch.tensor([[1, 0, 0.5, 0], [0, 0, 1, 0]], dtype=torch.float64),
    longest=3,
)
"""Two prompts; to each, four answers of 1, 2, 3 and 3 tokens."""
ONE_TOKEN = World(
    logits=torch.tensor([[[0.4, 0.2, -0.3, 0.0]]], dtype=torch.float64),
    reference=torch.tensor([[[0.0, 0.5, 0.3, 0.0]]], dtype=torch.float64),
    reward=TINY.reward[:1],
    longest=1,
)
"""One prompt with the rewards of the first; each of its four answers is one token."""


@dataclass(frozen=True)
class Estimate:
    """How an estimator g is distributed around the exact gradient ∇J."""

    bias: float
    """‖E[g] − ∇J‖/‖∇J‖."""
    scale: float
    """c of the multiple c·∇J that is nearest to E[g]."""
    angle: float
    """Between E[g] and ∇J, in degrees: what no step size corrects."""
    variance: float
    """The trace of g's covariance, in units of ‖∇J‖²."""

    @property
    def mse(self) -> float:
        """E‖g − ∇J‖², in units of ‖∇J‖²."""
        return self.bias**2 + self.variance


def unfit(method: Estimator, world: World = TINY) -> str:
    """Why `method` is no estimate of ∇J from a policy's own answers, or cannot be measured; empty where it can."""
    others = sorted(origin.value for origin in method.origins - {Origin.POLICY})
    missing = sorted(method.needs - set(world.fields(world)))
    if others:
        return f"learns from {' and '.join(others)} trajectories"
    if missing:
        return f"needs {', '.join(missing)}, which no enumerated batch holds"
    return "" if "reward" in method.needs else "reads no reward"


def estimate(method: Estimator, world: World = TINY, staleness: int = 0, group: int = 4) -> Estimate:
    """What `method` makes of batches of `group` answers to each prompt that were sampled `staleness` updates ago.

    Nothing is drawn: each batch counts with its probability. Batches that differ only in their order are one, so `method` must
    not depend on it.

    Raises:
        ValueError: the method reads what no enumerated batch can hold, or there are too many batches.
    """
    current = world.after(staleness)
    found, probability = estimates(method, world, current, group)
    found, exact = found.flatten(1), current.gradient.flatten()
    mean, size = probability @ found, exact.norm().item()
    scale = (mean @ exact).item() / size**2
    return Estimate(
        bias=(mean - exact).norm().item() / size,
        scale=scale,
        angle=math.degrees(math.atan2((mean - scale * exact).norm().item(), scale * size)),
        variance=(probability @ (found - mean).square().sum(1)).item() / size**2,
    )


def estimates(
    method: Estimator, sampler: World, current: World, group: int
) -> tuple[Float[Tensor, "K P S V"], Float[Tensor, "K"]]:
    """The gradient that `method` estimates at `current` from each batch that `sampler` can give, and the batch's probability."""
    (found, _), probability = _estimates(method, sampler, current, group)
    return found, probability


def _estimates(method: Estimator, sampler: World, current: World, group: int) -> tuple[Gradients, Float[Tensor, "K"]]:
    answer, probability = _batches(sampler.probability, group)
    prompt = torch.arange(len(sampler.reward)).repeat_interleave(group)
    return _gradients(method, sampler, current, prompt, answer, {}), probability


def pair_estimates(method: Estimator, sampler: World, current: World) -> tuple[Float[Tensor, "K P S V"], Float[Tensor, "K"]]:
    """The same from each pair of answers that `sampler` can give to its one prompt, the preferred one first.

    The preferred one has the reward 1, the other 0; the preference is drawn with the probability σ(r⁺ − r⁻) (Bradley–Terry).
    """
    (found, _), probability = _pair_estimates(method, sampler, current)
    return found, probability


def _pair_estimates(method: Estimator, sampler: World, current: World) -> tuple[Gradients, Float[Tensor, "K"]]:
    (chance,), (reward,) = sampler.probability, sampler.reward
    answer = torch.cartesian_prod(*[torch.arange(len(reward))] * 2)
    first, second = answer.T
    probability = 2 * chance[first] * chance[second] * torch.sigmoid(reward[first] - reward[second])
    labels = {"reward": torch.tensor([1.0, 0.0]).double(), "origin": torch.full((2,), Origin.RATED.code)}
    return _gradients(method, sampler, current, torch.zeros(2, dtype=torch.int64), answer, labels), probability


Gradients = tuple[Float[Tensor, "K P S V"], Float[Tensor, "K P"]]
"""By the policy's logits, and by log Z of each prompt; 0 where nothing is learned."""


def _gradients(
    method: Estimator,
    sampler: World,
    current: World,
    prompt: Int[Tensor, "B"],
    answer: Int[Tensor, "K B"],
    labels: dict[str, Float[Tensor, "B"] | Int[Tensor, "B"]],
) -> Gradients:
    """From each batch of answers to `prompt`, all of which have the `labels`."""
    known = sampler.fields(current)
    missing = sorted(method.needs - set(known))
    if missing:
        raise ValueError(f"the method needs {', '.join(missing)}, which no enumerated batch holds")
    fields = {name: known[name][prompt, answer] for name in method.needs | {"action"}}
    fields |= {name: label.expand(answer.shape) for name, label in labels.items()}
    logp = current.logp[prompt, answer]
    gradient = torch.zeros(len(answer), *current.logits.shape, dtype=torch.float64)
    of_log_z = torch.zeros(len(answer), len(current.logits), dtype=torch.float64)
    for k in range(len(answer)):
        weights = method.bind(Batch(**{name: field[k] for name, field in fields.items()})).weights(logp[k])
        for weight, scores in ((weights.logp, current.scores), (weights.entropy, current.entropy_scores)):
            if weight is not None:
                gradient[k].index_add_(0, prompt, torch.einsum("bt,btsv->bsv", weight, scores[prompt, answer[k]]))
        if weights.log_z is not None:
            of_log_z[k].index_add_(0, prompt, weights.log_z)
    return gradient, of_log_z


def _batches(probability: Float[Tensor, "P N"], group: int) -> tuple[Int[Tensor, "K B"], Float[Tensor, "K"]]:
    """Every choice of `group` answers to each prompt, whatever their order, and its probability."""
    prompts, answers = probability.shape
    choices = list(itertools.combinations_with_replacement(range(answers), group))
    if len(choices) ** prompts > MOST:
        raise ValueError(f"there are {len(choices) ** prompts} batches; at most {MOST} are enumerated: take a smaller group")
    orders = [math.factorial(group) // math.prod(math.factorial(c.count(n)) for n in set(c)) for c in choices]
    choice = torch.tensor(choices)
    chance = probability[:, choice].prod(2) * torch.tensor(orders)
    together = torch.tensor(list(itertools.product(range(len(choices)), repeat=prompts)))
    return choice[together].flatten(1), chance[torch.arange(prompts), together].prod(1)


class NoFixedPoint(ValueError):
    """A search for a fixed point was given up."""


def fixed_point(method: Estimator, world: World, group: int = 4, folded: Fold | None = None) -> World:
    """Where `method` comes to stand if it ascends its expected gradient, always on-policy, from `world`.

        θ ← θ + rate · E[g] / visits;  log Z ← log Z + rate · E[g]

    Dividing by how often a choice is made (the natural gradient of a softmax) moves no fixed point and makes all parameters
    equally fast; the rate halves where the gradient turns back. `folded` is a KL penalty in the reward. What learns from rated
    answers is given pairs of the reference policy's. A policy that collapses is returned when one answer has all but a
    trillionth.

    Raises:
        NoFixedPoint: it does not come to stand.
    """
    here, rate, before = world, 0.1, torch.zeros(())
    for _ in range(PATIENCE):
        if method.origins == {Origin.RATED}:
            sampler = world.at(world.reference)
            found, probability = _pair_estimates(method, sampler, here)
        else:
            sampler = here.fold(folded) if folded else here
            found, probability = _estimates(method, sampler, here, group)
        policy, log_z = (torch.tensordot(probability, gradient, 1) for gradient in found)
        policy = policy / sampler.visits
        ascent = torch.cat([policy.flatten(), log_z])
        rate *= 0.5 if (ascent * before).sum() < 0 else 1.2
        before = ascent
        logits = here.logits + (rate * policy).clamp(-FARTHEST, FARTHEST)
        here = here.at(logits, None if here.log_z is None else here.log_z + rate * log_z)
        if (rate * ascent).abs().max() < 1e-10 or here.probability.amax(1).min() > 1 - 1e-12:
            return here
    raise NoFixedPoint(f"the expected gradient does not come to stand in {PATIENCE} steps")


def distance(p: Float[Tensor, "P N"], q: Float[Tensor, "P N"]) -> float:
    """The total variation ½·Σ|p − q|, the largest over prompts."""
    return (p - q).abs().sum(1).max().item() / 2
