"""A method on a batch: the weights of g = Σ w ∇log π, what they are products of, and the metrics of its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from quatrain.objective.part import SCOPES, Memory, Scope, View, of_origins, remembering, signature
from quatrain.objective.terms import AnyTerm, Factors, Target, Term
from quatrain.tensors import Bool, Float, Tensor, torch
from quatrain.types import Batch, Origin


@dataclass(frozen=True)
class Weights:
    """−∂L/∂x for each thing x that the loss depends on; None where no term depends on it."""

    logp: Float[Tensor, "B T"] | None = None
    entropy: Float[Tensor, "B T"] | None = None
    value: Float[Tensor, "B T"] | None = None
    log_z: Float[Tensor, "B"] | None = None

    def rows(self, index: Tensor) -> Self:
        """Those of the sequences at `index` ([K] int64)."""
        return type(self)(*(None if x is None else x[index] for x in (self.logp, self.entropy, self.value, self.log_z)))


@dataclass(frozen=True)
class Bound:
    """The terms of a method on the rows of one minibatch. Rows may be taken out of it; normalizers stay those of the whole."""

    active: tuple[AnyTerm, ...]
    batch: Batch
    prepared: tuple[Tensor | None, ...]
    """What each term computed once, [B, T]."""
    shares: tuple[Tensor, ...]
    """Each term's coefficient times its reduction, [B, 1] or [B, T]."""
    memory: Memory = dataclasses.field(default_factory=dict)
    """What its parts remember of the updates before."""

    @classmethod
    def of(cls, terms: tuple[AnyTerm, ...], batch: Batch, memory: Memory) -> Self:
        """`terms` on a whole minibatch: everything that does not depend on log π_θ, computed once."""
        with torch.no_grad():
            views = [View(batch, of_origins(batch, term.on), None, memory=memory) for term in terms]
            prepared = tuple(term.prepare(view) for term, view in zip(terms, views, strict=True))
            views = [dataclasses.replace(view, advantage=known) for view, known in zip(views, prepared, strict=True)]
            shares = tuple(t.coefficient * t.reduce(v, t.likelihood.actions(v)) for t, v in zip(terms, views, strict=True))
            return cls(terms, batch, prepared, shares, memory)

    @property
    def targets(self) -> frozenset[Target]:
        """What the loss depends on."""
        return frozenset(term.target for term in self.active)

    def rows(self, index: Tensor) -> Self:
        """The sequences at `index` ([K] int64)."""
        return dataclasses.replace(
            self,
            batch=self.batch.rows(index),
            prepared=tuple(None if p is None else p[index] for p in self.prepared),
            shares=tuple(s[index] for s in self.shares),
        )

    def replace(self, **fields: Tensor) -> Self:
        """With other fields of the batch, for what only a forward pass can tell; what was computed once stays."""
        return dataclasses.replace(self, batch=self.batch.replace(**fields))

    @property
    def reach(self) -> Scope:
        """How many rows must be seen together for their weights: up to a sequence it does not matter which."""
        scopes: tuple[Scope, ...] = ("token", *(part.scope for term in self.active for part in term.live_parts))
        return max(scopes, key=SCOPES.index)

    def terms(self) -> Iterator[tuple[AnyTerm, Tensor | None, Tensor]]:
        return zip(self.active, self.prepared, self.shares, strict=True)

    def weights(self, logp: Float[Tensor, "B T"], values: Float[Tensor, "B T"] | None = None) -> Weights:
        """−∂L/∂x at the current log-probabilities and values. The value term is left out without `values`."""
        with torch.no_grad():
            sums: dict[Target, Tensor] = {}
            for term, prepared, share in self.terms():
                if term.target == "value" and values is None:
                    continue
                weight = term.weights(self._view(term, logp), prepared, share, values)
                sums[term.target] = sums[term.target] + weight if term.target in sums else weight
            return Weights(**sums)

    def factors(self, logp: Float[Tensor, "B T"]) -> dict[str, Factors]:
        """For each policy-gradient term by name, what its weights are the product of."""
        with torch.no_grad():
            return {
                term.name: term.factors(self._view(term, logp), prepared, share)
                for term, prepared, share in self.terms()
                if isinstance(term, Term)
            }

    def remembered(self, logp: Float[Tensor, "B T"]) -> Memory:
        """What the parts carry on, of a whole minibatch at the log π_θ that its update began with."""
        with torch.no_grad():
            views = ((term, self._view(term, logp)) for term in self.active)
            return {signature(part): part.remember(view) for term, view in views for part in remembering(term)}

    def silent(self) -> Bool[Tensor, "B"]:
        """True for the sequences whose weights are 0 whatever π_θ is: advantage 0 in every term that is about them."""
        with torch.no_grad():
            assert self.batch.action is not None
            silent = torch.ones_like(self.batch.action[:, 0])
            for term, prepared, _ in self.terms():
                action = of_origins(self.batch, term.on)
                fixed = isinstance(term, Term) and prepared is not None
                silent &= ~(action & (prepared != 0)).any(1) if fixed else ~action.any(1)
            return silent

    def metrics(self, logp: Float[Tensor, "B T"]) -> dict[str, float]:
        """What every run of any method shows of its first term's parts, of advantages and of demonstrations, under one scheme."""
        out: dict[str, float] = {}
        if any(Origin.DEMONSTRATION in term.on for term in self.active) and self.batch.origin is not None:
            shown = of_origins(self.batch, (Origin.DEMONSTRATION,)).any(1)
            if shown.any():
                out["demonstration/share"] = (~self.silent())[shown].float().mean().item()
        term, prepared, share = next(self.terms(), (None, None, None))
        if not isinstance(term, Term) or share is None:
            return out
        view = self._view(term, logp)
        if not view.action.any():
            return out
        factors = term.factors(view, prepared, share)
        ratio = factors.ratio[view.action].float()
        quantiles = torch.quantile(
            ratio[:: max(1, len(ratio) // 1_000_000)], torch.tensor([0.01, 0.5, 0.99], device=ratio.device)
        )
        out |= {
            "mask/passed": factors.mask[view.action].clamp(max=1).mean().item(),
            **dict(zip(("ratio/p01", "ratio/p50", "ratio/p99"), quantiles.tolist(), strict=True)),
            "ratio/max": ratio.max().item(),
            "advantage/std": factors.advantage[view.action].std(correction=0).item(),
        }
        for other in self.active:
            if isinstance(other, Term) and hasattr(other.advantage, "metrics") and of_origins(self.batch, other.on).any():
                out |= other.advantage.metrics(self._view(other, logp))
        if self.batch.prompt_id is not None:
            index, groups = view.group()
            size = (factors.advantage * view.action).abs().amax(1)
            peak = torch.zeros(int(index.max()) + 1, dtype=size.dtype, device=size.device).scatter_reduce(0, index, size, "amax")
            out["advantage/zero_groups"] = 1 - (peak > 0).sum().item() / max(groups, 1)
        if self.batch.logp_ref is not None:
            distance = (logp - self.batch.logp_ref)[view.action].double()
            out["kl/ref"] = (torch.exp(-distance) - 1 + distance).mean().item()
        return out

    def _view(self, term: AnyTerm, logp: Tensor) -> View:
        return View(self.batch, of_origins(self.batch, term.on), logp, memory=self.memory)
