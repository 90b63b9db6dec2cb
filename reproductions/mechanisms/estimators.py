"""What an estimate is of: gradients, their variance, and the advantages that they are made of."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from quatrain.claims import Expectation
from quatrain.diagnostics.enumeration import World, estimates
from quatrain.methods import method
from quatrain.objective import GAE, Constant, Current, LengthAdaptiveGAE, Method, Old, ReturnToGo, StayClose, Term
from quatrain.objective.part import View
from quatrain.run import Run
from quatrain.types import Batch
from quatrain.update import Learner
from reproductions.mechanisms.acting import acted, stages
from reproductions.mechanisms.mechanism import Measured, mechanism

LONGEST = 3
"""Tokens of the longest answer of the enumerated policies, whose vocabulary is two tokens that go on and one that ends."""


@mechanism(
    "k1, k2 and k3 in the reward and in the loss",
    says="A KL penalty has the gradient of the KL as k1 inside of the reward, and the same as k2 in the loss; as k2 or k3 in "
    "the reward and as k1 or k3 in the loss it has another one.",
    paper="arXiv:2510.01555",
    measured="1 − ‖E[g] − ∇KL‖/‖∇KL‖, exactly, where each token is penalized, for policies and references drawn at random "
    f"whose every answer is enumerated: `exactness` of answers of one token, `of {LONGEST} tokens` of longer ones",
    metric="exactness",
    expected=[
        Expectation(better="k1 in the reward", than="k2 in the reward", smallest_effect=0.05),
        Expectation(better="k1 in the reward", than="k3 in the reward", smallest_effect=0.05),
        Expectation(better="k2 in the loss", than="k1 in the loss", smallest_effect=0.05),
        Expectation(better="k2 in the loss", than="k3 in the loss", smallest_effect=0.05),
        Expectation(says="The two are the same.", better="k2 in the loss", than="k1 in the reward", smallest_effect=-0.05),
        Expectation(
            says="They are so for answers of several tokens.",
            better="k2 in the loss",
            metric=f"of {LONGEST} tokens",
            than="k1 in the reward",
            smallest_effect=-0.05,
        ),
    ],
    seeds=20,
    note="The paper's identity is of whole answers. A token's k2 in the loss leaves out what the token does to the tokens "
    "after it, which k1 in the reward counts as their cost.",
)
def kl_gradients(seed: int) -> Measured:
    """Of both places and all three estimates."""
    lengths = {"exactness": 1, f"of {LONGEST} tokens": LONGEST}
    found = {name: _exactness(seed, longest) for name, longest in lengths.items()}
    return {arm: {name: of[arm] for name, of in found.items()} for arm in found["exactness"]}


def _exactness(seed: int, longest: int) -> dict[str, float]:
    draw = torch.Generator().manual_seed(seed)
    states = 2**longest - 1  # in each of which both tokens that go on have been chosen, or none
    policy, reference = torch.randn(2, 1, states, 3, generator=draw, dtype=torch.float64)
    world = World(policy, reference, torch.zeros(1, 2 ** (longest + 1) - 1, dtype=torch.float64), longest)
    exact = _kl_gradient(world)
    out = {}
    kinds: tuple[Literal["k1", "k2", "k3"], ...] = ("k1", "k2", "k3")
    for kind in kinds:
        terms = {
            "reward": Term(denominator=Old(), advantage=ReturnToGo(kl=1.0, estimator=kind), reduce=Constant(tokens=1)),
            "loss": Term(denominator=Current(), advantage=StayClose(kind), reduce=Constant(tokens=1)),
        }
        for place, term in terms.items():
            found, probability = estimates(Method(term), world, world, group=1)
            mean = torch.tensordot(probability, found, 1)
            out[f"{kind} in the {place}"] = 1 - ((mean + exact).norm() / exact.norm()).item()
    return out


def _kl_gradient(world: World) -> Float[Tensor, "P S V"]:
    """∇KL(π‖π_ref) by automatic differentiation."""
    logits = world.logits.clone().requires_grad_()
    moved = world.at(logits)
    (moved.probability * (moved.logp - moved.logp_ref).sum(2)).sum().backward()
    assert logits.grad is not None
    return logits.grad


BATCHES = 16
"""Of which the variance is measured."""


@mechanism(
    "oblr_po",
    says="A baseline that weighs rewards by squared gradients gives the policy gradient the least variance, less than the "
    "mean of the other answers does.",
    paper="arXiv:2511.23310",
    measured=f"1 − Var(g)/Var(g without a baseline) of the gradient of all weights, over {BATCHES} batches of 4 prompts × 16 "
    "answers of `tunnel` to `written:addition`",
    metric="saved",
    expected=[
        Expectation(better="gradient_weighted", than="leave_one_out", smallest_effect=0.01),
        Expectation(better="gradient_weighted", than="none", smallest_effect=0.01),
    ],
    seeds=5,
    note="Wrong answers have by far the larger gradients here, so that the best baseline is close to no baseline, and the "
    "mean of the other answers is worse than none.",
)
def optimal_baseline(seed: int) -> Measured:
    """The same batches with each baseline."""
    baselines = ("none", "leave_one_out", "gradient_weighted")
    methods = {b: method("oblr_po").with_settings({"advantage.baseline": b}) for b in baselines}
    found: dict[str, list[Tensor]] = {b: [] for b in baselines}
    with stages(method="oblr_po", task="written:addition", group_size=16, seed=seed) as run:
        for _ in range(BATCHES):
            batch = run.learner.prepare(acted(run, 4))
            for b, gradients in found.items():
                gradients.append(_gradient(run, methods[b], batch))
    variance = {b: torch.stack(gradients).var(0).sum().item() for b, gradients in found.items()}
    return {b: {"saved": 1 - v / variance["none"]} for b, v in variance.items()}


def _gradient(run: Run, of: Method, batch: Batch) -> Tensor:
    """Of all weights, as the update computes it."""
    learner = Learner(run.policy, of, run.config.update, steps=1)
    learner.optimizer.zero_grad(set_to_none=True)
    learner.gradient(of.bind(batch))
    return torch.cat([p.grad.flatten() for _, p in run.policy.named_parameters() if p.grad is not None]).double()


SHORT, LONG = 100, 1000
ANSWERS, ROUNDS, BIN, RATE = 128, 30, 10, 0.2
"""Answers of a batch, and how the critic learns: from so many batches, a value for so many tokens, by so much of the way."""
FIRST_VALUE = 0.25
"""Of the critic, everywhere."""


@mechanism(
    "ui_tars_2",
    says="In long answers a critic of full returns is nearer to the truth than one of λ = 0.95, and a λ that grows with the "
    "answer tells more at its beginning; in short ones it has less variance.",
    paper="arXiv:2509.02544",
    measured=f"answers of {LONG} or {SHORT} tokens of a process whose values are known: half of them go wrong, at any token. A "
    f"table of values, all {FIRST_VALUE} at first, has learned from {ROUNDS} batches of {ANSWERS}. `accuracy` is 1 − the error "
    "of the values of answers that are right so far; `signal` is the advantage of the first half of the tokens at which "
    "answers go wrong, in units of the true one; `steadiness` is minus the deviation of the advantages of tokens at which "
    "nothing happens",
    metric="accuracy",
    expected=[
        Expectation(says="The critic is nearer to the truth.", better="decoupled", than="coupled", smallest_effect=0.05),
        Expectation(
            says="A step that goes wrong early is told so.",
            better="decoupled",
            metric="signal",
            than="coupled",
            smallest_effect=0.05,
        ),
        Expectation(
            says="With the same critic, the longer λ tells more of it.",
            better="decoupled",
            metric="signal",
            than="fixed λ",
            smallest_effect=0.05,
        ),
        Expectation(
            says="In short answers it is steadier.",
            better="decoupled, short",
            metric="steadiness",
            than="fixed λ, short",
            smallest_effect=0.005,
        ),
    ],
    seeds=6,
    note="This critic sees at once that an answer went wrong, so that no λ has to carry the news back.",
)
def decoupled_gae(seed: int) -> Measured:
    """Critics of either kind, and advantages of either kind with the critic of full returns."""
    adaptive, fixed, whole = LengthAdaptiveGAE(alpha=0.05), GAE(lam=0.95), GAE(lam=1.0)
    decoupled, coupled = (_Critic(seed, LONG, of) for of in (whole, fixed))
    short = _Critic(seed, SHORT, whole)
    return {
        "decoupled": decoupled.measured(adaptive),
        "fixed λ": decoupled.measured(fixed),
        "coupled": coupled.measured(fixed),
        "decoupled, short": short.measured(adaptive),
        "fixed λ, short": short.measured(fixed),
    }


class _Critic:
    """A table of values by place, of answers that went wrong and of those that did not."""

    def __init__(self, seed: int, tokens: int, of: Any) -> None:
        """Learn from returns as `of` estimates them."""
        self.draw, self.tokens, self.stays = torch.Generator().manual_seed(seed), tokens, 0.5 ** (1 / tokens)
        self.place = torch.arange(tokens) // BIN
        self.table = torch.full((2, int(self.place[-1]) + 1), FIRST_VALUE, dtype=torch.float64)
        for _ in range(ROUNDS):
            right, reward = self._answers()
            values = self._values(right)
            key = (right.long() * self.table.shape[1] + self.place).flatten()
            returns = (of(_view(values, reward)) + values).flatten()
            count, total = (
                self.table.new_zeros(self.table.numel()).index_add(0, key, x) for x in (torch.ones_like(returns), returns)
            )
            mean = torch.where(count > 0, total / count.clamp(min=1), self.table.flatten())
            self.table += RATE * (mean.reshape(self.table.shape) - self.table)

    def measured(self, of: Any) -> dict[str, float]:
        """How near the table is to the truth, and what the advantages `of` of fresh answers are."""
        exact = self.stays ** torch.arange(self.tokens, 0, -1, dtype=torch.float64)
        right, reward = self._answers()
        advantage = of(_view(self._values(right), reward))
        after = torch.cat([right[:, 1:], (reward > 0)[:, None]], 1)
        early = right & ~after & (torch.arange(self.tokens) < self.tokens // 2)
        return {
            "accuracy": 1 - (self.table[1, self.place] - exact).square().mean().sqrt().item(),
            "signal": (advantage[early] / -exact.expand_as(advantage)[early]).mean().item(),
            "steadiness": -advantage[right & after].std().item(),
        }

    def _answers(self) -> tuple[Tensor, Tensor]:
        """Which of a batch's answers are right so far before each token, and their rewards at the end."""
        stays = torch.rand(ANSWERS, self.tokens, generator=self.draw, dtype=torch.float64) < self.stays
        fine = stays.cumprod(1).bool()
        return torch.cat([torch.ones(ANSWERS, 1, dtype=torch.bool), fine[:, :-1]], 1), fine[:, -1].double()

    def _values(self, right: Tensor) -> Float[Tensor, "B T"]:
        return self.table[right.long(), self.place]


def _view(values: Float[Tensor, "B T"], reward: Float[Tensor, "B"]) -> View:
    action = torch.ones(values.shape, dtype=torch.bool)
    return View(Batch(action=action, values=values, reward=reward), action, None)
