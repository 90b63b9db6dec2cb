"""The one fused operation: hidden states → log π, entropy, values and log Z → weights → gradient.

The tokens × vocabulary logits never exist: the head meets at most ``head_rows`` hidden states at once, first to score them, then,
when the weights are known, to take their gradient. If all rows fit in one go, nothing is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from quatrain.policies import CausalLM, Forest


@dataclass(frozen=True)
class Targets:
    """What is scored: K pairs of a node of a forest, and a token that may come next. Sorted by row."""

    rows: Int[Tensor, "R"]
    """The distinct nodes: hidden states that meet the vocabulary."""
    row: Int[Tensor, "K"]
    """The row of each target."""
    before: Int[Tensor, "R1"]
    """How many targets the rows before each row have, and all rows; it stays on the CPU."""
    token: Int[Tensor, "K"]
    index: Int[Tensor, "B T"]
    """The target of each action of each sequence; -1 elsewhere."""
    prompts: Bool[Tensor, "P N"]
    """The nodes of each distinct prompt: what comes before the first action of some sequence."""
    prompt: Int[Tensor, "B"]
    """The prompt of each sequence."""

    @staticmethod
    def of(forest: Forest, tokens: Int[Tensor, "B T"], action: Bool[Tensor, "B T"]) -> Targets:
        """The actions of sequences, whose `forest` need not have what nothing follows; the first token cannot be one."""
        before = pad(forest.path, (1, 0), value=-1)
        before = pad(before, (0, tokens.shape[1] - before.shape[1]), value=-1)
        if (before[action] < 0).any():
            raise ValueError("the first token of a sequence is an action, and nothing comes before it to predict it from")
        pairs, number = torch.unique(before[action] << 32 | tokens[action], return_inverse=True)
        rows, row = torch.unique(pairs >> 32, return_inverse=True)
        index = torch.full_like(tokens, -1)
        index[action] = number
        last = before.gather(1, action.int().argmax(1, keepdim=True))[:, 0]
        ends, prompt = torch.unique(last, return_inverse=True)
        until = torch.searchsorted(row, torch.arange(len(rows) + 1))
        return Targets(rows, row, until, pairs & 0xFFFFFFFF, index, forest.sees(ends), prompt)

    def to(self, device: torch.device) -> Targets:
        moved = {item.name: getattr(self, item.name).to(device) for item in fields(self) if item.name != "before"}
        return replace(self, **moved)

    def spread(self, value: Float[Tensor, "K"]) -> Float[Tensor, "B T"]:
        """Values of targets laid out over sequences, 0 where there is no action."""
        return (
            value[self.index.clamp(min=0)].where(self.index >= 0, 0)
            if len(value)
            else torch.zeros_like(self.index, dtype=value.dtype)
        )

    def gather(self, weight: Float[Tensor, "B T"]) -> Float[Tensor, "K"]:
        """The sum of the weights of all actions that are the same target."""
        acts = self.index >= 0
        return torch.zeros(len(self.token), dtype=weight.dtype, device=weight.device).index_add(0, self.index[acts], weight[acts])


@dataclass(frozen=True)
class Scores:
    """Of each target: log π, the entropy of the distribution it was taken from, and the critic's value of the state."""

    logp: Float[Tensor, "K"]
    entropy: Float[Tensor, "K"]
    value: Float[Tensor, "K"] | None
    log_z: Float[Tensor, "P"] | None
    """Of each prompt."""
    certainty: Float[Tensor, "K"] | None = None
    """KL(U‖π) of the uniform distribution and that same one, if it was asked for."""
    grad_norm_sq: Float[Tensor, "K"] | None = None
    """‖∇log π‖² by the weight of the head, if it was asked for: ‖1[y] − π‖²·‖h‖²/temperature²."""


EXTRA = ("certainty", "grad_norm_sq")
"""Scores that are told to who asks for them."""

Weigh = Callable[[Scores], Scores]
"""From scores without gradient to −∂L/∂score of each, in the same layout."""


def score(
    policy: CausalLM,
    hidden: Float[Tensor, "N D"],
    targets: Targets,
    *,
    temperature: float,
    head_rows: int,
    weigh: Weigh | None = None,
    extra: frozenset[str] = frozenset(),
) -> Scores:
    """The scores of `targets`, without gradient; with `weigh`, Σ w ∇score is also added to the gradients of `hidden` and heads.

    Args:
        hidden: without a graph; a leaf of one, if `weigh` is given.
        temperature: π is the softmax of the logits divided by it.
        head_rows: most hidden states that meet the vocabulary at once.
        extra: which of EXTRA to tell, too.
    """
    chunks = list(_chunks(targets, head_rows))
    keep = weigh is not None and len(chunks) == 1
    parts, met = [], None
    for chunk in chunks:
        with torch.set_grad_enabled(keep):
            met = _meet(policy, hidden, targets, chunk)
        parts.append(_score_chunk(met, targets, chunk, temperature, extra))
    if not parts:
        empty = hidden.new_zeros(0)
        return Scores(empty, empty, empty, None, **dict.fromkeys(extra, empty))
    with torch.set_grad_enabled(weigh is not None):
        log_z = policy.log_z(hidden, targets.prompts) if policy.partition is not None else None

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    value = joined("value") if policy.critic is not None else None
    more = {name: joined(name) for name in extra}
    scores = Scores(joined("logp"), joined("entropy"), value, None if log_z is None else log_z.detach(), **more)
    if weigh is not None:
        weights = weigh(scores)
        if log_z is not None and weights.log_z is not None:
            log_z.backward(-weights.log_z)
        for chunk in chunks:
            again = met if keep and met is not None else _meet(policy, hidden, targets, chunk)
            _backward(again, weights, targets, chunk, temperature)
    return scores


def _chunks(targets: Targets, head_rows: int) -> Iterator[tuple[slice, slice]]:
    """(rows, targets) of each go of the head."""
    for first in range(0, len(targets.rows), head_rows):
        last = min(first + head_rows, len(targets.rows))
        yield slice(first, last), slice(int(targets.before[first]), int(targets.before[last]))


@dataclass(frozen=True)
class _Met:
    """Hidden states of a chunk, and what they are to the vocabulary and to the critic."""

    state: Float[Tensor, "R D"]
    logits: Float[Tensor, "R V"]
    value: Float[Tensor, "K"] | None


def _meet(policy: CausalLM, hidden: Tensor, targets: Targets, chunk: tuple[slice, slice]) -> _Met:
    rows, members = chunk
    state = hidden[targets.rows[rows]]
    value = policy.value(state)[targets.row[members] - rows.start] if policy.critic is not None else None
    return _Met(state, policy.logits(state), value)


@torch.no_grad()
def _score_chunk(met: _Met, targets: Targets, chunk: tuple[slice, slice], temperature: float, extra: frozenset[str]) -> Scores:
    rows, members = chunk
    row = targets.row[members] - rows.start
    logp = torch.log_softmax(_cooled(met.logits, temperature), -1)
    entropy = -torch.linalg.vecdot(logp.exp(), logp)
    taken = logp[row, targets.token[members]]
    more: dict[str, Tensor] = {}
    if "certainty" in extra:
        more["certainty"] = (-math.log(logp.shape[1]) - logp.mean(-1))[row]
    if "grad_norm_sq" in extra:
        others = ((2 * logp).exp().sum(-1)[row] - (2 * taken).exp()).clamp(min=0)
        size = torch.linalg.vector_norm(met.state, dim=-1, dtype=logp.dtype)[row] / temperature
        more["grad_norm_sq"] = (torch.expm1(taken) ** 2 + others) * size**2
    return Scores(taken, entropy[row], met.value if met.value is None else met.value.detach(), None, **more)


def _backward(met: _Met, weights: Scores, targets: Targets, chunk: tuple[slice, slice], temperature: float) -> None:
    """Add the gradient of −Σ w ∇score: with π the softmax of z/τ and H its entropy,

    τ·∂/∂z = Σ w·(π − 1[y]) + Σ w_H·π·(log π + H).
    """
    rows, members = chunk
    row, token = targets.row[members] - rows.start, targets.token[members]
    with torch.no_grad():
        z = _cooled(met.logits.detach(), temperature)
        weight, bonus = weights.logp[members].to(z), weights.entropy[members].to(z)
        total = z.new_zeros(len(z)).index_add(0, row, weight)[:, None]
        if bonus.any():
            logp = torch.log_softmax(z, -1)
            share = logp.exp()
            surprise = logp - torch.linalg.vecdot(share, logp)[:, None]
            grad = share.mul_(surprise.mul_(z.new_zeros(len(z)).index_add(0, row, bonus)[:, None]).add_(total))
        else:
            grad = torch.softmax(z, -1).mul_(total)
        grad.index_put_((row, token), -weight, accumulate=True)
        grad = _cooled(grad, temperature)
    scored, grads = [met.logits], [grad]
    if met.value is not None and weights.value is not None:
        scored.append(met.value)
        grads.append(-weights.value[members].to(met.value))
    torch.autograd.backward(scored, grads)


def _cooled(logits: Tensor, temperature: float) -> Tensor:
    return logits if temperature == 1 else logits / temperature
