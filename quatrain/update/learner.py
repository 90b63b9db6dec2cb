"""One batch of rollouts into new weights."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from quatrain.config import UpdateConfig
from quatrain.errors import StoppedRun
from quatrain.objective import Method
from quatrain.objective.bound import Bound, Weights
from quatrain.objective.part import Memory
from quatrain.policies import CausalLM, Forest, partition, plant
from quatrain.policies.linear import fast
from quatrain.policies.routing import NONE, Routing
from quatrain.types import Batch, Origin
from quatrain.update.fused import EXTRA, Scores, Targets, score
from quatrain.update.pairs import margins, ranking
from quatrain.update.reference import Reference
from quatrain.update.signal import Signal

PROCESS = "process"
"""What the process reward model is called among settings, metrics and the files of a checkpoint."""


@dataclass(frozen=True)
class BatchScores:
    """Scores of a batch, 0 where there is no action."""

    logp: Float[Tensor, "B T"]
    entropy: Float[Tensor, "B T"]
    value: Float[Tensor, "B T"] | None
    log_z: Float[Tensor, "B"] | None
    certainty: Float[Tensor, "B T"] | None = None
    grad_norm_sq: Float[Tensor, "B T"] | None = None
    experts: Int[Tensor, "B T L K"] | None = None
    """Of all tokens, actions or not; -1 behind the last action."""

    @staticmethod
    def empty(action: Tensor, policy: CausalLM, extra: frozenset[str] = frozenset()) -> BatchScores:
        """Those of a batch of which nothing is scored yet, in float32."""
        zeros = functools.partial(torch.zeros, dtype=torch.float32, device=policy.device)
        value = zeros(action.shape) if policy.critic is not None else None
        log_z = zeros(len(action)) if policy.partition is not None else None
        more = {name: zeros(action.shape) for name in extra}
        return BatchScores(zeros(action.shape), zeros(action.shape), value, log_z, **more)

    @staticmethod
    def of(targets: Targets, scores: Scores) -> BatchScores:
        """Scores of targets and prompts, laid out over sequences."""
        value = None if scores.value is None else targets.spread(scores.value)
        log_z = None if scores.log_z is None else scores.log_z[targets.prompt]
        more = {name: targets.spread(found) for name in EXTRA if (found := getattr(scores, name)) is not None}
        return BatchScores(targets.spread(scores.logp), targets.spread(scores.entropy), value, log_z, **more)

    def put(self, index: Tensor, some: BatchScores) -> None:
        """Fill in those of the sequences at `index`."""
        for item in fields(self):
            whole, part = getattr(self, item.name), getattr(some, item.name)
            if whole is not None and part is not None:
                whole[index] = part.to(whole)

    def routed(self, index: Tensor, chosen: Int[Tensor, "N L K"], forest: Forest) -> BatchScores:
        """With the experts of the nodes of `forest`, whose sequences are those at `index`."""
        whole = self.experts
        if whole is None:
            whole = torch.full((*self.logp.shape, *chosen.shape[1:]), NONE, dtype=torch.int16, device=self.logp.device)
        path = forest.path.to(chosen.device)
        whole[index, : path.shape[1]] = chosen[path.clamp(min=0)].where((path >= 0)[..., None, None], NONE).to(whole)
        return replace(self, experts=whole)

    @property
    def told(self) -> dict[str, Tensor]:
        """The fields of a batch that each forward pass tells anew."""
        return {"entropy": self.entropy} | ({} if self.log_z is None else {"log_z": self.log_z})


class Learner:
    """The policy's weights, their optimizer, and the method that says where they go."""

    def __init__(
        self,
        policy: CausalLM,
        method: Method,
        config: UpdateConfig,
        *,
        steps: int,
        temperature: float = 1.0,
        reference: Reference | None = None,
        teacher: Reference | None = None,
        process: Learner | None = None,
        seed: int = 0,
        section: str = "update",
    ) -> None:
        """Start with nothing learned.

        Args:
            steps: those of the run.
            temperature: that of the rollouts: acting and learning are about one distribution.
            process: a process reward model, which learns from each batch once the batch has been scored with it.
            section: where `config.lr` stands among the settings, and under what name its metrics are told.
        """
        self.policy, self.method, self.config, self.section = policy, method, config, section
        self.reference, self.teacher, self.process = reference, teacher, process
        self.temperature, self.seed = temperature or 1.0, seed
        self.total_updates = steps * config.epochs * config.minibatches
        noise = [] if policy.noise is None else list(policy.noise.parameters())
        own = [p for _, p in policy.named_parameters() if all(p is not other for other in noise)]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in own if p.ndim > 1], "weight_decay": config.weight_decay, "height": config.lr},
            {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0, "height": config.lr},
        ]
        if method.perturbation is not None:
            if not noise:
                raise ValueError("the method's likelihood has noise and the policy none: make it with CausalLM(…, noise=…)")
            groups.append({"params": noise, "weight_decay": 0.0, "height": method.perturbation.lr})
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=True
        )
        self.signal = Signal([p for p in own if p.requires_grad], config.snr_parts) if config.snr_parts else None
        self.updates = 0
        """Optimizer steps taken or skipped so far; the policy's version."""
        self.bad_in_a_row = 0
        self.skipped = 0
        self.slowed = 1.0
        """Factor of the learning rate, below 1 after a way back."""
        self.memory: Memory = {}
        """What parts of the method remember of the updates before."""

    def learn(self, batch: Batch, step: int) -> dict[str, float]:
        """All epochs and minibatches of one batch; returns their mean metrics.

        Raises:
            StoppedRun: after ``max_bad_steps`` skipped updates in a row.
        """
        batch = batch.to(self.policy.device)
        collected: list[dict[str, float]] = []
        acts = batch.action is not None and bool(batch.action.any())
        batch.require({"experts"} if acts and self.config.routing == "rollout" else (), "update.routing=rollout")
        batch = self.prepare(batch) if acts else batch
        beside = {} if self.process is None else self.process.learn(batch, step)
        if acts:
            collected = [self.update(self.method.bind(part, self.memory)) for part in self.minibatches(batch, step)]
        else:
            self.updates += self.config.epochs * self.config.minibatches
        names = dict.fromkeys(name for metrics in collected for name in metrics)
        mean = {name: float(np.mean([m[name] for m in collected if name in m])) for name in names}
        own = {f"{self.section}/lr": self.lr()} | mean | {f"{self.section}/skipped": float(self.skipped)}
        told = {name: value for name, value in beside.items() if name.startswith(f"{PROCESS}/")}
        return own | told | {"version": float(self.updates)}

    def prepare(self, batch: Batch) -> Batch:
        """Fill in what the method needs and only a forward pass can tell, each with one pass; other policies' stay if there."""
        needs = self.method.needs
        changes: dict[str, Tensor | None] = {}
        for name, other in (("logp_ref", self.reference), ("logp_teacher", self.teacher)):
            if name in needs and getattr(batch, name) is None:
                assert other is not None
                with other.active() as policy:
                    changes[name] = self.score(batch, policy).logp
        if "logp_process" in needs:
            assert self.process is not None
            changes["logp_process"] = self.score(batch, self.process.policy).logp
        nothing = torch.zeros(batch.tokens.shape, device=self.policy.device)  # type: ignore[union-attr]
        if self.scores_old:
            scores = self.score(batch, self.policy, extra=needs & set(EXTRA), routed=True)
            changes["experts"] = scores.experts if self.config.routing == "old" else batch.experts
            changes["logp_old"], changes["values"] = scores.logp, scores.value
            changes |= {name: getattr(scores, name) for name in EXTRA}
            changes["entropy_old"] = scores.entropy if "entropy_old" in needs else None
        elif "logp_old" in needs:  # a single update: its own forward pass tells, and replaces this
            changes["logp_old"] = nothing
        changes |= {name: zeros for name, zeros in (("entropy", nothing), ("log_z", nothing[:, 0])) if name in needs}  # likewise
        return batch.replace(**changes)

    def minibatches(self, batch: Batch, step: int) -> Iterator[Batch]:
        """Each epoch goes through the groups in another order; a group is never split."""
        config = self.config
        if config.minibatches == 1:
            yield from [batch] * config.epochs
            return
        assert batch.prompt_id is not None
        groups = torch.unique(batch.prompt_id).cpu()
        for epoch in range(config.epochs):
            order = np.random.default_rng([self.seed, 3, step, epoch]).permutation(len(groups))
            for part in np.array_split(order, config.minibatches):
                chosen = groups[torch.from_numpy(part)].to(batch.prompt_id.device)
                yield batch.rows(torch.isin(batch.prompt_id, chosen).nonzero()[:, 0])

    def update(self, bound: Bound) -> dict[str, float]:
        """One optimizer step on one minibatch, unless its gradient is not finite; returns its metrics."""
        self.optimizer.zero_grad(set_to_none=True)
        metrics, self.memory = self.gradient(bound, self.signal)
        every = [p for _, p in self.policy.named_parameters()]
        acts = bound.batch.action is not None and bool(bound.batch.action.any())
        if acts and all(p.grad is None for p in every):  # nothing has a weight; AdamW steps with a gradient of 0, too
            for p in every:
                p.grad = torch.zeros_like(p)
        norm = nn.utils.clip_grad_norm_([p for p in every if p.grad is not None], self.config.max_grad_norm)
        finite = math.isfinite(norm.item())
        lr = self.lr()
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(group["height"])
        if finite and acts:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self.skipped += not finite
        self.bad_in_a_row = 0 if finite else self.bad_in_a_row + 1
        if self.bad_in_a_row >= self.config.max_bad_steps:
            raise StoppedRun(
                f"{self.bad_in_a_row} updates in a row had a gradient that is not finite (norm {norm.item()}) and were skipped. "
                f"Lower {self.section}.lr, or look at ratio/max and entropy before that point"
            )
        metrics |= {f"{self.section}/signal": self.signal.share} if self.signal else {}
        return metrics | {f"{self.section}/grad_norm": norm.item(), f"{self.section}/lr": lr}

    def gradient(self, bound: Bound, signal: Signal | None = None) -> tuple[dict[str, float], Memory]:
        """Add the gradient of the method's loss on a minibatch to the parameters; returns its parts' metrics and memory.

        Shared beginnings are computed once in each pass; what the passes are never changes the gradient but for rounding: where
        weights depend on the whole minibatch, and one pass does not hold it, it is scored first.
        Sequences whose weights are 0 whatever the policy says, as in a group of equal rewards, are scored and no more.

        Args:
            signal: what is to learn how much of the gradient is noise; the parameters have none before.
        """
        batch = bound.batch
        assert batch.tokens is not None and batch.action is not None
        old_is_now = "logp_old" in self.method.needs and not self.scores_old
        scored = BatchScores.empty(batch.action, self.policy)
        error, count = 0.0, int(batch.action.sum())
        silent = bound.silent()
        masks = [~silent] if signal is None else [~silent & own for own in signal.divide(batch)]
        parts = [self._passes(batch, mask, whole_groups=bound.reach == "group") for mask in masks]
        rest = self._passes(batch, silent)
        known = self._weights(bound, old_is_now) if bound.reach == "batch" and sum(map(len, parts)) + len(rest) > 1 else None
        learning = chain(*parts) if signal is None else signal.through(parts)
        for learns, index in chain(((True, i) for i in learning), ((False, i) for i in rest)):
            part = bound.rows(index)
            for rows, scores in self._pass(part, None if known is None else known.rows(index), old_is_now, learns):
                scored.put(index[rows], scores)
                if scores.value is not None and batch.values is not None and "value" in bound.targets:
                    change = scores.value - _returns(part)[rows]
                    error += change.square().sum().item()  # both are 0 where there is no action
        logp = scored.logp
        whole = bound.replace(**scored.told, **({"logp_old": logp} if old_is_now else {}))
        metrics = whole.metrics(logp)
        acted = batch.action if batch.origin is None else batch.action & (batch.origin == Origin.POLICY.code)[:, None]
        distances = {
            "kl/rollout": None if batch.logp_rollout is None else logp - batch.logp_rollout,
            "kl/teacher": None if batch.logp_teacher is None else batch.logp_teacher - logp,
        }
        for name, distance in distances.items():
            if distance is not None and acted.any():
                gap = distance[acted].double()
                metrics[name] = (torch.exp(gap) - 1 - gap).mean().item()
        margin = margins(batch, logp)
        if len(margin):
            metrics |= {"preference/accuracy": ranking(margin).mean().item(), "preference/margin": margin.mean().item()}
        metrics["entropy"] = scored.entropy.sum().item() / max(count, 1)
        if self.policy.noise is not None:
            metrics["noise/sigma"] = self.policy.noise.log_sigma.detach().exp().mean().item()
        metrics |= {"value/loss": error / 2 / max(count, 1)} if "value" in bound.targets else {}
        return metrics, whole.remembered(logp)

    def _pass(
        self, part: Bound, known: Weights | None, old_is_now: bool, learns: bool
    ) -> Iterator[tuple[Int[Tensor, "K"], BatchScores]]:
        """Scores of what one pass computes, of some rows at a time; if it `learns`, its gradient is added to the parameters.

        Rows whose weights do not depend on each other meet the vocabulary in turns, and each meets it only once if `head_rows`
        has room for one of them.
        """
        batch = part.batch
        forest = self._plant(batch)
        alone = known is not None or part.reach in ("token", "sequence")
        turns = _turns(batch, self.config.head_rows) if learns and alone else [torch.arange(batch.size)]
        with fast(self.policy.base), self._as_learned(forest, batch):
            with torch.set_grad_enabled(learns):
                hidden = self.policy.hidden_of(forest)
            leaf = hidden.detach().requires_grad_(learns)
            for rows in turns:
                index = rows.to(self.policy.device)
                some, targets = part.rows(index), self._targets(forest.of(rows), batch.rows(index))

                def weigh(scores: Scores, some: Bound = some, targets: Targets = targets, index: Tensor = index) -> Scores:
                    if known is not None:
                        return _gather(targets, known.rows(index), scores)
                    now = BatchScores.of(targets, scores)
                    told = now.told | ({"logp_old": now.logp} if old_is_now else {})
                    return _gather(targets, some.replace(**told).weights(now.logp, now.value), scores)

                found = score(self.policy, leaf, targets, **self._fused(), weigh=weigh if learns else None)
                yield index, BatchScores.of(targets, found)
            if leaf.grad is not None:
                hidden.backward(leaf.grad)

    def _weights(self, bound: Bound, old_is_now: bool) -> Weights:
        """Those of the whole minibatch, known before its passes."""
        scores = self.score(bound.batch, self.policy, learning=True)
        told = scores.told | ({"logp_old": scores.logp} if old_is_now else {})
        return bound.replace(**told).weights(scores.logp, scores.value)

    @torch.no_grad()
    def margins(self, batch: Batch) -> Float[Tensor, "K"]:
        """By how much each pair of rated answers in a batch is ranked right."""
        batch = self.prepare(batch.to(self.policy.device))
        return margins(batch, self.score(batch, self.policy).logp)

    @torch.no_grad()
    def score(
        self,
        batch: Batch,
        policy: CausalLM,
        *,
        extra: frozenset[str] = frozenset(),
        learning: bool = False,
        routed: bool = False,
    ) -> BatchScores:
        """Log-probabilities, entropies, values and log Z of a batch under `policy`, no gradient.

        Args:
            extra: which of the fused operation's EXTRA to tell, too.
            learning: with what the policy has only in the forward passes of an update: noise, and the experts of the batch.
            routed: with the experts that are repeated or will be, and telling them; the policy at the start of the update.
        """
        assert batch.action is not None
        out = BatchScores.empty(batch.action, policy, extra)
        for index in self._passes(batch):
            part = batch.rows(index)
            forest = self._plant(part)
            targets = self._targets(forest, part)
            under = self._as_learned(forest, part) if learning else self._routed(forest, part) if routed else None
            with fast(policy.base), under or contextlib.nullcontext() as routing:
                hidden = policy.hidden_of(forest)
                scores = score(policy, hidden, targets, extra=extra, **self._fused())
            out.put(index, BatchScores.of(targets, scores))
            if isinstance(routing, Routing):
                out = out.routed(index, routing.chosen, forest)
        return out

    def sensitivity(self, batch: Batch) -> Float[Tensor, "B T"]:
        """‖∂log π/∂h‖ of each action at the last hidden state h it is predicted from."""
        assert batch.action is not None
        out = torch.zeros(batch.action.shape, dtype=torch.float32, device=self.policy.device)
        for index in self._passes(batch):
            forest = self._plant(batch.rows(index))
            targets = self._targets(forest, batch.rows(index))
            with torch.no_grad():
                hidden = self.policy.hidden_of(forest)
            norms = []
            for some in torch.arange(len(targets.token), device=hidden.device).split(self.config.head_rows):
                state = hidden[targets.rows[targets.row[some]]].requires_grad_()
                logp = torch.log_softmax(self.policy.logits(state) / self.temperature, -1).gather(-1, targets.token[some, None])
                norms.append(torch.autograd.grad(logp.sum(), state)[0].norm(dim=-1))
            out[index] = targets.spread(torch.cat(norms)).to(out)
        return out

    def lr(self, height: float | None = None) -> float:
        """The learning rate of the current update: a linear warm-up to `height`, that of the settings, then the schedule.

        Times the share of the gradient that is signal, with ``snr_parts``.
        """
        warmup = self.config.warmup_steps * self.config.epochs * self.config.minibatches
        top: float = (self.config.lr if height is None else height) * self.slowed * (self.signal.share if self.signal else 1.0)
        if self.updates < warmup:
            return top * (self.updates + 1) / warmup
        done = min(1.0, (self.updates - warmup) / max(1, self.total_updates - warmup))
        factor = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[self.config.schedule]
        return top * factor

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The optimizer's tensors by parameter, and the counters; the process reward model's beside them."""
        names = [name for name, _ in self._ordered()]
        tensors = {
            f"{names[i]}/{key}": value
            for i, entry in self.optimizer.state_dict()["state"].items()
            for key, value in entry.items()
        }
        counters: dict[str, Any] = {name: getattr(self, name) for name in ("updates", "skipped", "bad_in_a_row", "slowed")}
        counters["signal"] = [self.signal.power, self.signal.variance] if self.signal else []
        counters["memory"] = {part: list(numbers) for part, numbers in self.memory.items()}
        if self.process is not None:
            inner, counters[PROCESS] = self.process.state()
            tensors |= {f"{PROCESS}/{name}": value for name, value in inner.items()}
        return tensors, counters

    def load_state(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        if self.process is not None:
            inner = {name.removeprefix(f"{PROCESS}/"): x for name, x in tensors.items() if name.startswith(f"{PROCESS}/")}
            tensors = {name: x for name, x in tensors.items() if not name.startswith(f"{PROCESS}/")}
            self.process.load_state(inner, counters[PROCESS])
        number = {name: i for i, (name, _) in enumerate(self._ordered())}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, _, kind = key.rpartition("/")
            state.setdefault(number[name], {})[kind] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.updates, self.skipped, self.bad_in_a_row = (counters[k] for k in ("updates", "skipped", "bad_in_a_row"))
        self.slowed = counters["slowed"]
        if self.signal:
            self.signal.power, self.signal.variance = counters["signal"]
        self.memory = {part: tuple(numbers) for part, numbers in counters["memory"].items()}

    def fingerprint(self) -> str:
        """A checksum of all trained weights, to the bit."""
        total = 0
        every = [*self.policy.named_parameters(), *(self.process.policy.named_parameters() if self.process else ())]
        for position, (_, p) in enumerate(every, 1):
            flat = p.detach().flatten()
            wide = flat.numel() * flat.element_size() % 8 == 0  # eight bytes at a time are read much faster
            bits = flat.view(torch.int64 if wide else {4: torch.int32, 2: torch.int16}[flat.element_size()])
            total += (2 * position - 1) * int(bits.sum(dtype=torch.int64))  # odd, so that not even the highest bit is lost
        return f"{total % (1 << 64):016x}"

    def _ordered(self) -> list[tuple[str, nn.Parameter]]:
        """Parameters in the optimizer's order."""
        names = {id(p): name for name, p in self.policy.named_parameters()}
        return [(names[id(p)], p) for group in self.optimizer.param_groups for p in group["params"]]

    @contextlib.contextmanager
    def _as_learned(self, forest: Forest, batch: Batch) -> Iterator[None]:
        """With what the policy has in the forward passes of an update: noise, and the experts of the batch."""
        with self.policy.noisy(forest, (self.seed, 4, self.updates)), self._routed(forest, batch):
            yield

    @contextlib.contextmanager
    def _routed(self, forest: Forest, batch: Batch) -> Iterator[Routing | None]:
        """With the experts that the batch has, if those are repeated."""
        if self.config.routing == "none":
            yield None
            return
        with self.policy.routed(None if batch.experts is None else forest.at(batch.experts)) as routing:
            yield routing

    def _fused(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "head_rows": self.config.head_rows}

    @property
    def scores_old(self) -> bool:
        """Whether `prepare` scores the policy at the start of the update; otherwise the update's own forward pass tells."""
        several = self.config.epochs * self.config.minibatches > 1 or self.method.perturbation is not None
        first = self.method.needs_first | (self.method.needs if several else set())
        return (
            "logp_old" in first
            or (several and self.config.routing == "old")
            or bool(self.method.needs & {"values", "entropy_old", *EXTRA})
        )

    def _passes(self, batch: Batch, among: Tensor | None = None, *, whole_groups: bool = False) -> list[Tensor]:
        """Rows (`among` some, [B] bool) that are computed together within the token budget; none without an action."""
        acts = batch.action.any(1)  # type: ignore[union-attr]
        rows = (acts if among is None else acts & among).nonzero()[:, 0].cpu()
        sequences = [self._sequence(batch, int(row)) for row in rows]
        groups = (
            batch.prompt_id[rows.to(batch.prompt_id.device)].tolist() if whole_groups and batch.prompt_id is not None else None
        )
        parts = partition(sequences, self.config.tokens_per_pass, groups)
        return [rows[part].to(self.policy.device) for part in parts]

    def _plant(self, batch: Batch) -> Forest:
        """The forest of what is read: of each sequence's tokens all but the last, which nothing follows."""
        return plant([self._sequence(batch, row)[:-1] for row in range(batch.size)])

    def _targets(self, forest: Forest, batch: Batch) -> Targets:
        """What is scored of a batch whose sequences are the paths of `forest`."""
        assert batch.tokens is not None and batch.action is not None
        return Targets.of(forest, batch.tokens.cpu(), batch.action.cpu()).to(self.policy.device)

    @staticmethod
    def _sequence(batch: Batch, row: int) -> Tensor:
        """The tokens up to the last action: what follows it changes nothing."""
        assert batch.tokens is not None and batch.action is not None
        last = int(batch.action[row].nonzero().max())
        return batch.tokens[row, : last + 1].cpu()


def _turns(batch: Batch, most: int) -> list[Int[Tensor, "K"]]:
    """Rows next to each other, with at most so many actions together; one that has more is alone."""
    assert batch.action is not None
    turns: list[list[int]] = []
    used = most + 1
    for row, count in enumerate(batch.action.sum(1).tolist()):
        if used + count > most:
            turns.append([])
            used = 0
        turns[-1].append(row)
        used += count
    return [torch.tensor(turn) for turn in turns]


def _gather(targets: Targets, weights: Weights, scores: Scores) -> Scores:
    """Weights of actions as weights of targets, those of sequences as weights of prompts."""

    def of(weight: Tensor | None, like: Tensor) -> Tensor:
        return torch.zeros_like(like) if weight is None else targets.gather(weight).to(like)

    value, log_z = (None if scores.value is None else of(weights.value, scores.value)), None
    if scores.log_z is not None and weights.log_z is not None:
        log_z = torch.zeros_like(scores.log_z).index_add(0, targets.prompt, weights.log_z.to(scores.log_z))
    return Scores(of(weights.logp, scores.logp), of(weights.entropy, scores.entropy), value, log_z)


def _returns(bound: Bound) -> Tensor:
    """What the critic of the method is trained toward."""
    return next(prepared for term, prepared, _ in bound.terms() if term.target == "value" and prepared is not None)
