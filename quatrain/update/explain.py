"""What a gradient was made of: which terms, which tokens, and which part of the method gave each its weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quatrain.objective import Method
from quatrain.objective.bound import Bound
from quatrain.types import Batch
from quatrain.update.learner import Learner


@dataclass(frozen=True)
class TermShare:
    """One term's gradient beside the whole."""

    name: str
    norm: float
    cosine: float
    """Of the angle between it and the whole gradient."""
    actions: int
    """Actions with a weight that is not 0."""
    passed: float
    """Mean factor of the mask."""
    advantage: float
    """Mean size of the advantage."""
    ratio: tuple[float, float]
    """1st and 99th percentile."""


@dataclass(frozen=True)
class TokenPull:
    """One action's part in the gradient."""

    text: str
    before: str
    """The text just before it."""
    prompt_id: int
    pull: float
    """|w|·‖∂log π/∂h‖ at the last hidden state h, as a share of the sum over all actions."""
    weight: float
    factors: tuple[float, float, float, float]
    """Share, mask, advantage and ratio in the first term; the weight also holds what other terms add."""
    logp: float


@dataclass(frozen=True)
class Explanation:
    """Of the first minibatch of a step, before its update."""

    terms: tuple[TermShare, ...]
    tokens: tuple[TokenPull, ...]


def explain(learner: Learner, batch: Batch, step: int, tokens: int) -> Explanation:
    """What the gradient of `batch` is made of, and the `tokens` actions that pull most. Changes nothing."""
    batch = learner.prepare(batch.to(learner.policy.device))
    bound = learner.method.bind(next(iter(learner.minibatches(batch, step))), learner.memory)
    scores = learner.score(bound.batch, learner.policy, learning=True)
    bound = bound.replace(**scores.told, **({} if learner.scores_old else {"logp_old": scores.logp}))
    return Explanation(_terms(learner, bound, scores.logp), _tokens(learner, bound, scores.logp, tokens))


def _terms(learner: Learner, bound: Bound, logp: Tensor) -> tuple[TermShare, ...]:
    whole = _gradient(learner, bound)
    size = _dot(whole, whole) ** 0.5
    out = []
    for term in learner.method.active:
        alone = Method(term).bind(bound.batch, bound.memory)
        own = _gradient(learner, alone)
        norm = _dot(own, own) ** 0.5
        cosine = _dot(own, whole) / (norm * size) if norm and size else 0.0
        metrics, factors = alone.metrics(logp), alone.factors(logp).get(term.name)
        advantage = factors.advantage[bound.batch.action].abs().mean().item() if factors else float("nan")
        actions = int((factors.weight != 0).sum()) if factors else int(bound.batch.action.sum())  # type: ignore[union-attr]
        ratio = (metrics.get("ratio/p01", 1.0), metrics.get("ratio/p99", 1.0))
        out.append(TermShare(term.name, norm, cosine, actions, metrics.get("mask/passed", 1.0), advantage, ratio))
    return tuple(out)


def _gradient(learner: Learner, bound: Bound) -> list[Tensor | None]:
    learner.optimizer.zero_grad(set_to_none=True)
    learner.gradient(bound)
    gradient = [p.grad for _, p in learner.policy.named_parameters()]
    learner.optimizer.zero_grad(set_to_none=True)
    return gradient


def _dot(a: list[Tensor | None], b: list[Tensor | None]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True) if x is not None and y is not None)


def _tokens(learner: Learner, bound: Bound, logp: Tensor, count: int) -> tuple[TokenPull, ...]:
    batch = bound.batch
    assert batch.action is not None and batch.tokens is not None
    weight = bound.weights(logp).logp
    factors = next(iter(bound.factors(logp).values()), None)
    if weight is None or factors is None:
        return ()
    pull = weight.abs() * learner.sensitivity(batch)
    total = pull.sum().item() or 1.0
    names = torch.stack([factors.share, factors.mask, factors.advantage, factors.ratio], -1)
    out = []
    for place in pull.flatten().argsort(descending=True)[:count].tolist():
        row, t = divmod(place, pull.shape[1])
        if not batch.action[row, t]:
            continue
        decode = learner.policy.tokenizer.decode
        share, mask, advantage, ratio = names[row, t].tolist()
        out.append(
            TokenPull(
                text=decode([int(batch.tokens[row, t])]),
                before=decode(batch.tokens[row, max(0, t - 8) : t].tolist()),
                prompt_id=int(batch.prompt_id[row]) if batch.prompt_id is not None else row,
                pull=pull[row, t].item() / total,
                weight=weight[row, t].item(),
                factors=(share, mask, advantage, ratio),
                logp=logp[row, t].item(),
            )
        )
    return tuple(out)
