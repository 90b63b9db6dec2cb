"""The update written plainly: padded batches, whole logits, autograd through the published loss."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from quatrain.config import LoraConfig, UpdateConfig
from quatrain.methods import METHODS
from quatrain.objective import Method
from quatrain.policies import CausalLM
from quatrain.types import Batch, Origin
from quatrain.update import Learner, Reference
from tests.policies.families import TOKENIZER, VOCABULARY, family
from tests.reference import LOSSES, Case

HUGE = 1_000_000

SETTINGS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "ppo": ({"entropy.coefficient": 0.03}, {"entropy_coefficient": 0.03}),
    "clip_cov": ({"mask.share": 0.1, "mask.low": 0.02}, {"share": 0.1, "low": 0.02}),
    "clip_cov:code": ({"mask.share": 0.1, "mask.low": 0.02}, {"share": 0.1, "low": 0.02}),
    "kl_cov": ({"kl.mask.share": 0.1}, {"share": 0.1}),
    "kl_cov:code": ({"kl.mask.share": 0.1}, {"share": 0.1}),
    "vapo": ({"advantage.alpha": 0.5}, {"alpha": 0.5}),
    "hispo": ({"mask.low": 0.5, "mask.high": 1.5}, {"of_answer": 0.5}),
    "spear": (
        {f"{half}mask.{k}": v for half in ("", "replay.") for k, v in (("share", 0.1), ("low", 0.02))}
        | {"replay.reduce.updates": 2.0},
        {"share": 0.1, "cov_low": 0.02, "ramp": 2.0},
    ),
    **dict.fromkeys(("alp", "alp:sequence"), ({"likelihood.sigma": 1e-12}, {})),
}
"""Where a row's own numbers would leave a part of it unused, or blur what is compared, others, as settings and as the published
loss calls them."""


def policy(
    name: str = "llama", dtype: torch.dtype = torch.float64, *, lora: LoraConfig | None = None, critic: bool = True, **more: Any
) -> CausalLM:
    """A policy whose heads and adapters are not those of an empty start."""
    made = CausalLM(family(name, dtype), TOKENIZER, lora=lora, critic=critic, **more)
    generator = torch.Generator().manual_seed(9)
    for head in filter(None, (made.critic, made.partition)):
        head.to(dtype)
        *_, (_, last), (_, bias) = head.named_parameters()
        nn.init.normal_(last, std=0.2, generator=generator)
        nn.init.constant_(bias, 0.1)
    if lora is not None:
        with torch.no_grad():
            for _, p in made.named_parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return made


def method(name: str) -> Method:
    return METHODS[name].with_settings(SETTINGS.get(name, ({}, {}))[0])


def heads(name: str) -> dict[str, Any]:
    """What a policy that the row is to train must have."""
    noise = method(name).perturbation
    has = {"critic": "values" in METHODS[name].needs, "partition": "log_z" in METHODS[name].needs}
    return has | {"noise": None if noise is None else noise.sigma}


def learner(of: CausalLM, name: str | Method, *, steps: int = 10, reference: Reference | None = None, **config: Any) -> Learner:
    """A learner at a temperature that is not 1."""
    row = method(name) if isinstance(name, str) else name
    return Learner(of, row, UpdateConfig(**config), steps=steps, temperature=0.7, reference=reference, seed=3)


def batch(seed: int = 0) -> Batch:
    """Rollouts of three prompts that begin alike.

    Answers of one prompt share beginnings, two are equal, one is a single token, one has a gap in which the policy did not act,
    one row has no action at all, each prompt has a demonstration and some rated answers, two answers are another prompt's, and
    behind the last action there is garbage. Nobody judged the mismatched answers; to the last prompt, all sampled ones are wrong.
    """
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()

    begin = tokens(5)
    prompts = [begin + tokens(n) for n in (2, 3, 0)]
    rows: list[tuple[int, list[int], Origin]] = []
    for number, sizes in enumerate([(6, 4, 9), (5, 5, 1, 7), (8, 3)]):
        answers = [tokens(n) for n in sizes]
        answers[1] = answers[0][:2] + answers[1]
        rows += [(number, answer, Origin.POLICY) for answer in answers]
        rows.append((number, tokens(4), Origin.DEMONSTRATION))
        rows += [(number, answer[:2] + tokens(n), Origin.RATED) for answer, n in zip(answers, (1, 4), strict=False)]
    rows += [(0, rows[-1][1], Origin.MISMATCHED), (2, rows[0][1], Origin.MISMATCHED)]
    rows.insert(2, rows[0])
    rows.insert(4, (0, [], Origin.POLICY))
    rows += [(1, rows[0][1], Origin.REPLAY), (2, rows[1][1], Origin.REPLAY)]
    width = max(len(prompts[p]) + len(answer) for p, answer, _ in rows) + 2
    ids = torch.randint(3, VOCABULARY, (len(rows), width), generator=generator)
    action = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, (prompt, answer, _) in enumerate(rows):
        start = len(prompts[prompt])
        ids[row, : start + len(answer)] = torch.tensor(prompts[prompt] + answer)
        action[row, start : start + len(answer)] = True
    gapped = 3
    action[gapped, len(prompts[0]) + 3 : len(prompts[0]) + 6] = False
    prompt = torch.tensor([prompt for prompt, _, _ in rows])
    origin = torch.tensor([origin.code for _, _, origin in rows])
    reward = torch.rand(len(rows), generator=generator, dtype=torch.float64)
    reward[::3] = 1.0
    reward[(prompt == 2) & (origin == Origin.POLICY.code)] = 0.0
    reward[origin == Origin.MISMATCHED.code] = torch.nan
    return Batch(
        tokens=ids,
        action=action,
        logp_rollout=torch.zeros(action.shape),
        reward=reward,
        reward_greedy=torch.tensor([0.5, torch.nan, 0.25], dtype=torch.float64)[prompt],
        prompt_id=10 * (3 - prompt),
        rewards=torch.stack([reward, reward**2 + prompt], 1),
        reward_weights=torch.tensor([1.0, -0.5], dtype=torch.float64).expand(len(rows), 2),
        turn=(torch.arange(width) // 4).expand(action.shape),
        turn_reward=reward[:, None] + torch.arange(width) // 4 * reward.square()[:, None],
        step=(torch.arange(width) // 3).expand(action.shape),
        potential=torch.cos(torch.arange(width) // 3 + prompt[:, None] + reward.nan_to_num()[:, None]),
        task=prompt.clamp(max=1),
        origin=origin,
    )


POLICIES = frozenset({"logp_old", "logp_rollout", "logp_ref", "logp_teacher", "logp_process"})
SIGNALS = frozenset({"values", "entropy_old", "certainty", "grad_norm_sq"})


@dataclass
class Plain:
    """A copy of a policy, run by transformers on padded rows with its own attention."""

    base: Any
    heads: dict[str, nn.Module]
    temperature: float = 0.7

    @staticmethod
    def of(policy: CausalLM) -> "Plain":
        base = copy.deepcopy(policy.base)
        base.set_attn_implementation("sdpa")
        base.eval()
        return Plain(base, copy.deepcopy(policy.heads))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        own = {name: p for name, p in self.base.named_parameters() if p.requires_grad}
        return own | {f"{head}.{name}": p for head, module in self.heads.items() for name, p in module.named_parameters()}

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """log π, entropy and value of every token, [B, T]; of the first one, nothing."""
        return self.all_scores(batch)[:3]

    def all_scores(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """And log Z of every sequence's prompt, [B]: all before its first action."""
        assert batch.tokens is not None and batch.action is not None
        out = self.base(input_ids=batch.tokens, attention_mask=torch.ones_like(batch.tokens), output_hidden_states=True)
        logp = torch.log_softmax(out.logits[:, :-1] / self.temperature, -1)
        taken = logp.gather(-1, batch.tokens[:, 1:, None])[..., 0]
        entropy = -(logp.exp() * logp).sum(-1)
        hidden = out.hidden_states[-1][:, :-1]
        value, log_z = torch.zeros_like(taken), torch.zeros_like(taken[:, 0])
        if "critic" in self.heads:
            value = self.heads["critic"](hidden)[..., 0]
        if "partition" in self.heads:
            read = [row[:first].mean(0) for row, first in zip(hidden, batch.action.int().argmax(1).clamp(min=1), strict=True)]
            log_z = self.heads["partition"](torch.stack(read))[:, 0]
        taken, entropy, value = (torch.nn.functional.pad(x, (1, 0)) for x in (taken, entropy, value))
        return taken, entropy, value, log_z

    def loss(self, name: str, batch: Batch, *, on_policy: bool = False) -> Tensor:
        """The published loss of the rows that have an action. `on_policy` takes the policy as it is for the old one."""
        assert batch.action is not None
        logp, entropy, value, log_z = self.all_scores(batch)
        batch = batch.replace(log_z=log_z, **({"logp_old": logp.detach()} if on_policy else {}))
        blank = {key: torch.zeros_like(logp) for key in POLICIES | SIGNALS if getattr(batch, key) is None}
        rows = batch.action.any(1).nonzero()[:, 0]
        case = Case(batch.replace(**blank), logp, value).rows(rows)
        return LOSSES[name](case.answers(entropy[rows]), **SETTINGS.get(name, ({}, {}))[1])

    def gradient(self, name: str, batch: Batch, **more: bool) -> dict[str, Tensor]:
        named = self.named_parameters()
        found = torch.autograd.grad(self.loss(name, batch, **more), list(named.values()), allow_unused=True)
        return {key: torch.zeros_like(p) if g is None else g for (key, p), g in zip(named.items(), found, strict=True)}


def with_policies(batch: Batch, plain: Plain, seed: int = 1) -> Batch:
    """`batch` with other policies, values and signals some way off; entropy and log Z there nobody should read."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        logp, _, value = plain.scores(batch)

    def near(x: Tensor, spread: float) -> Tensor:
        return x + spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    others = {name: near(logp, 0.3) for name in sorted(POLICIES)}
    signals = {"values": near(value, 0.3)}
    signals |= {name: near(torch.zeros_like(logp), 1.0) for name in sorted(SIGNALS - {"values"})}
    signals["grad_norm_sq"] = signals["grad_norm_sq"].square()
    unread = {"entropy": torch.full_like(logp, torch.nan), "log_z": torch.full_like(logp[:, 0], torch.nan)}
    return batch.replace(**others, **unread, **signals)


def gradient_of(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    """What the learner adds to the gradient of each trained parameter."""
    named = dict(learner.policy.named_parameters())
    learner.optimizer.zero_grad()
    learner.gradient(learner.method.bind(batch))
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in named.items()}
    learner.optimizer.zero_grad()
    return found


def error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest relative error of any tensor, in norm; where a tensor should be almost nothing, of the whole."""
    assert ours.keys() == theirs.keys()
    whole = torch.stack([x.norm() for x in theirs.values()]).norm()
    assert whole > 0
    return max(((ours[k] - theirs[k]).norm() / theirs[k].norm().clamp(min=1e-3 * whole)).item() for k in theirs)
