"""Updates: epochs, minibatches, schedules, clipping, bad gradients, and going on to the same bits."""

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from quatrain.config import LoraConfig
from quatrain.errors import StoppedRun
from quatrain.methods import METHODS
from quatrain.objective import EntropySwitched, Relative
from quatrain.objective.part import signature
from quatrain.policies import CausalLM
from quatrain.types import Batch
from quatrain.update import Learner, Reference
from tests.update.plain import Plain, batch, error, gradient_of, heads, learner, policy, with_policies


def weights(policy: CausalLM) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


def assert_same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    differing = [k for k in left if not torch.equal(*(x.view(kind[x.element_size()]) for x in (left[k], right[k])))]
    assert differing == []


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    return max((before[k] - after[k]).abs().max().item() for k in before)


# Epochs and minibatches


@pytest.mark.parametrize("name", ["grpo", "ppo", "gspo", "rloo", "sft", "flowrl"])
@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (2, 1), (2, 2), (1, 3)])
def test_a_step_is_that_of_a_plain_loop(name: str, epochs: int, minibatches: int, tmp_path):
    """AdamW on the published loss, with the policies of the start of the step scored once."""
    ours = policy(**heads(name))
    theirs, start = Plain.of(ours), Plain.of(ours)
    whole = batch()
    reference = Reference(ours, keep=True, folder=tmp_path) if "logp_ref" in METHODS[name].needs else None
    settings = {"lr": 0.02, "eps": 1e-2, "weight_decay": 0.1, "max_grad_norm": 0.5}
    learning = learner(
        ours, name, reference=reference, epochs=epochs, minibatches=minibatches, tokens_per_pass=40, head_rows=9, **settings
    )
    with torch.no_grad():
        logp, _, value = start.scores(whole)
    scored = whole.replace(logp_old=logp, logp_ref=logp, values=value)
    named = theirs.named_parameters()
    groups = [
        {"params": [p for p in named.values() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.02, eps=1e-2)
    for part in list(learning.minibatches(scored, step=4)):
        optimizer.zero_grad()
        theirs.loss(name, part).backward()
        torch.nn.utils.clip_grad_norm_(list(named.values()), 0.5)
        optimizer.step()
    before = weights(ours)
    metrics = learning.learn(whole, step=4)
    after = weights(ours)
    assert error({k: after[k] - before[k] for k in after}, {k: named[k].detach() - before[k] for k in after}) < 1e-5
    assert learning.updates == epochs * minibatches == metrics["version"]


@pytest.mark.parametrize(("epochs", "minibatches"), [(1, 1), (3, 1), (2, 2), (2, 3)])
def test_every_epoch_goes_through_every_row_once_and_splits_no_group(epochs: int, minibatches: int):
    learning = learner(policy(critic=False), "grpo", epochs=epochs, minibatches=minibatches)
    whole = batch().replace(turn=torch.arange(batch().size)[:, None].expand_as(batch().tokens))
    parts = list(learning.minibatches(whole, step=1))
    assert len(parts) == epochs * minibatches
    for epoch in range(epochs):
        own = parts[epoch * minibatches : (epoch + 1) * minibatches]
        assert sorted(row for part in own for row in part.turn[:, 0].tolist()) == list(range(whole.size))
        groups = [set(part.prompt_id.tolist()) for part in own]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 3


def test_the_order_of_minibatches_changes_with_epoch_and_step_and_comes_back():
    learning = learner(policy(critic=False), "grpo", epochs=6, minibatches=3)

    def order(step: int) -> list[int]:
        return [int(part.prompt_id[0]) for part in learning.minibatches(batch(), step)]

    epochs = {tuple(order(1)[i : i + 3]) for i in range(0, 18, 3)}
    assert len(epochs) > 1
    assert order(1) == order(1) != order(2)


def test_more_minibatches_than_groups():
    learning = learner(policy(critic=False), "grpo", minibatches=5, epochs=1)
    learning.method = learning.method.with_settings({"kl.coefficient": 0.0})
    before = weights(learning.policy)
    metrics = learning.learn(batch(), 1)
    assert learning.updates == 5
    assert learning.skipped == 0
    assert moved(before, weights(learning.policy)) > 0
    assert all(math.isfinite(value) for value in metrics.values())


# Batches with nothing in them


def test_a_batch_without_actions_changes_nothing_and_is_counted():
    learning = learner(policy(critic=False), "dapo", epochs=2, minibatches=2)
    learning.learn(batch(), 1)
    before, state = weights(learning.policy), learning.state()
    whole = batch()
    nothing = whole.replace(action=torch.zeros_like(whole.action))
    empty = whole.rows(torch.zeros(0, dtype=torch.int64))
    for number, none in enumerate((nothing, empty), 2):
        metrics = learning.learn(none, number)
        assert learning.updates == 4 * number == metrics["version"]
        assert metrics["update/skipped"] == 0
    assert_same_bits(weights(learning.policy), before)
    assert_same_bits(learning.state()[0], state[0])


def test_rows_without_actions_are_as_if_they_were_not_there():
    ours = policy(critic=False)
    whole = with_policies(batch(), Plain.of(ours))
    acting = whole.action.any(1)
    assert not acting.all()
    learning = learner(ours, "grpo", epochs=2)
    gradient = gradient_of(learning, whole)
    assert error(gradient_of(learning, whole.rows(acting.nonzero()[:, 0])), gradient) < 1e-12


# The learning rate


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("constant", 0, [8, 8, 8, 8, 8, 8, 8, 8, 8, 8]),
        ("constant", 2, [2, 4, 6, 8, 8, 8, 8, 8, 8, 8]),
        ("linear", 0, [8, 7.2, 6.4, 5.6, 4.8, 4, 3.2, 2.4, 1.6, 0.8]),
        ("linear", 1, [4, 8, 8, 7, 6, 5, 4, 3, 2, 1]),
        ("cosine", 1, [4, 8, *(4 + 4 * math.cos(math.pi * i / 8) for i in range(8))]),
        ("linear", 5, [0.8, 1.6, 2.4, 3.2, 4, 4.8, 5.6, 6.4, 7.2, 8]),
    ],
)
def test_schedules_by_hand(schedule: Any, warmup: int, rates: list[float]):
    """Five steps of two updates; the rate is the optimizer's, and the one that is logged."""
    learning = learner(policy(critic=False), "dapo", steps=5, lr=8e-3, schedule=schedule, warmup_steps=warmup, minibatches=2)
    used = []
    step = learning.optimizer.step

    def watch(*args: Any, **kwargs: Any) -> Any:
        used.append({group["lr"] for group in learning.optimizer.param_groups})
        return step(*args, **kwargs)

    learning.optimizer.step = watch  # type: ignore[method-assign]
    logged = [learning.learn(batch(), number)["update/lr"] for number in range(1, 6)]
    assert [pytest.approx(1e-3 * rate) for rate in rates] == [rate for (rate,) in used]
    assert logged == [pytest.approx(1e-3 * (a + b) / 2) for a, b in zip(rates[::2], rates[1::2], strict=True)]


def test_cosine_by_hand():
    learning = learner(policy(critic=False), "dapo", steps=4, lr=2.0, schedule="cosine")
    rates = []
    for learning.updates in range(6):
        rates.append(learning.lr())
    half = math.sqrt(0.5)
    assert rates == pytest.approx([2, 1 + half, 1, 1 - half, 0, 0])


# Clipping and bad gradients


@pytest.mark.parametrize("limit", [1e-3, 1e6])
def test_the_gradient_is_scaled_down_to_its_norm(limit: float):
    """Seen through AdamW with an eps so large that the step is the gradient."""
    ours = policy(critic=False)
    whole = with_policies(batch(), Plain.of(ours))
    learning = learner(ours, "dapo", epochs=2, lr=1.0, eps=1e12, betas=(0.0, 0.0), max_grad_norm=limit)
    gradient = gradient_of(learning, whole)
    norm = torch.stack([g.norm() for g in gradient.values()]).norm().item()
    assert 1e-2 < norm < 1e5
    steps: dict[str, Tensor] = {}
    learning.optimizer.step = lambda: steps.update({k: p.grad.clone() for k, p in ours.named_parameters()})  # type: ignore
    metrics = learning.update(learning.method.bind(whole))
    assert metrics["update/grad_norm"] == pytest.approx(norm)
    scale = min(1.0, limit / norm)
    assert error(steps, {k: scale * g for k, g in gradient.items()}) < 1e-5


class Broken:
    """Makes the gradient of one weight something else while `value` is not None."""

    def __init__(self, learning: Learner, value: float | None) -> None:
        self.value = value
        _, p = next(iter(learning.policy.named_parameters()))
        p.register_hook(self)

    def __call__(self, gradient: Tensor) -> Tensor | None:
        if self.value is None:
            return None
        gradient = gradient.clone()
        gradient.view(-1)[-1] = self.value
        return gradient


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["whole", "lora"])
def test_a_bad_gradient_is_skipped_to_the_bit_and_counted(value: float, lora: LoraConfig | None):
    learning = learner(policy(critic=False, lora=lora), "dapo", lr=0.1, weight_decay=0.5, max_bad_steps=2)
    learning.learn(batch(), 1)
    before, (moments, _) = weights(learning.policy), copy.deepcopy(learning.state())
    broken = Broken(learning, value)
    metrics = learning.learn(batch(), 2)
    assert metrics["update/skipped"] == learning.skipped == learning.bad_in_a_row == 1
    assert not math.isfinite(metrics["update/grad_norm"])
    assert learning.updates == 2
    assert_same_bits(weights(learning.policy), before)
    assert_same_bits(learning.state()[0], moments)
    broken.value = None
    metrics = learning.learn(batch(), 3)
    assert (learning.skipped, learning.bad_in_a_row) == (1, 0)
    assert moved(before, weights(learning.policy)) > 0
    broken.value = value
    learning.learn(batch(), 4)
    with pytest.raises(StoppedRun, match=r"2 updates in a row.*Lower update\.lr"):
        learning.learn(batch(), 5)
    assert (learning.updates, learning.skipped) == (5, 3)


def test_a_bad_gradient_leaves_nothing_to_the_next_one():
    learning, control = (learner(policy(critic=False), "dapo", lr=0.1) for _ in range(2))
    broken = Broken(learning, math.nan)
    learning.learn(batch(), 1)
    broken.value = None
    learning.learn(batch(1), 2)
    control.learn(batch(1), 2)
    assert_same_bits(weights(learning.policy), weights(control.policy))


# Going on


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["whole", "lora"])
@pytest.mark.parametrize("name", ["dapo", "ppo", "flowrl"])
def test_what_was_saved_goes_on_to_the_same_bits(name: str, lora: LoraConfig | None):
    def fresh() -> Learner:
        made = policy(dtype=torch.float32, **heads(name), lora=lora)
        return learner(made, name, steps=4, lr=0.05, schedule="cosine", warmup_steps=1, epochs=2, minibatches=2)

    def rollouts(seed: int) -> Batch:
        whole = batch(seed)
        return whole.replace(logp_ref=torch.full(whole.action.shape, -4.0))

    through = fresh()
    through.learn(rollouts(0), 1)
    through.learn(rollouts(1), 2)
    tensors, counters = copy.deepcopy(through.state())
    kept = weights(through.policy)
    resumed = fresh()
    with torch.no_grad():
        for key, p in resumed.policy.named_parameters():
            p.copy_(kept[key])
    resumed.load_state(tensors, counters)
    assert through.learn(rollouts(2), 3) == resumed.learn(rollouts(2), 3)
    assert_same_bits(weights(resumed.policy), weights(through.policy))
    assert_same_bits(resumed.state()[0], through.state()[0])
    assert resumed.state()[1] == through.state()[1]
    forgetful = fresh()
    with torch.no_grad():
        for key, p in forgetful.policy.named_parameters():
            p.copy_(kept[key])
    forgetful.learn(rollouts(2), 3)
    assert moved(weights(forgetful.policy), weights(through.policy)) > 1e-4


def test_the_counters_of_bad_steps_are_kept():
    learning = learner(policy(critic=False), "dapo", max_bad_steps=2)
    Broken(learning, math.nan)
    learning.learn(batch(), 1)
    resumed = learner(policy(critic=False), "dapo", max_bad_steps=2)
    resumed.load_state(*learning.state())
    Broken(resumed, math.nan)
    with pytest.raises(StoppedRun):
        resumed.learn(batch(), 2)


def test_what_a_part_remembers_is_kept():
    """A switch that is on above an entropy of 1, which the second batch is told to be below, but not low enough to go off."""
    part = EntropySwitched(low=0.0, high=1.0, of=Relative())
    method = METHODS["dapo"].replace(advantage=part)
    through, resumed, forgetful = (learner(policy(critic=False), method, lr=0.05) for _ in range(3))
    through.learn(batch(0), 1)
    assert through.memory == {signature(part): (1.0,)}
    resumed.load_state(through.state()[0], json.loads(json.dumps(through.state()[1])))
    assert resumed.memory == through.memory
    calm = batch(1)
    calm = calm.replace(entropy_old=torch.full(calm.action.shape, 0.5), logp_old=torch.zeros(calm.action.shape))
    metrics = [one.gradient(one.method.bind(calm, one.memory))[0]["advantage/switched"] for one in (through, resumed, forgetful)]
    assert metrics == [1.0, 1.0, 0.0]


def test_a_price_goes_on_where_it_was_to_the_bit():
    """Three updates on each of two batches, in one go and with a way through JSON between them."""
    method = METHODS["r2vpo"].with_settings({"variance.advantage.bound": 1e-4})
    through, first = (learner(policy(critic=False), method, lr=0.01, epochs=3) for _ in range(2))
    metrics = [through.learn(batch(seed), seed) for seed in (1, 2)]
    first.learn(batch(1), 1)
    ((price,),) = first.memory.values()
    assert price != 2.5

    resumed = learner(policy(critic=False), method, lr=0.01, epochs=3)
    with torch.no_grad():
        for key, p in resumed.policy.named_parameters():
            p.copy_(weights(first.policy)[key])
    resumed.load_state(first.state()[0], json.loads(json.dumps(first.state()[1])))
    assert resumed.learn(batch(2), 2) == metrics[1]
    assert resumed.memory == through.memory != first.memory
    assert_same_bits(weights(resumed.policy), weights(through.policy))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_bit_of_any_weight_is_in_the_fingerprint(dtype: torch.dtype):
    ours = policy(dtype=dtype)
    learning = learner(ours, "ppo")
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    first = learning.fingerprint()
    assert learning.fingerprint() == first == learner(policy(dtype=dtype), "ppo").fingerprint()
    for _, p in ours.named_parameters():
        bits = p.detach().view(kind[p.element_size()]).view(-1)
        for place, bit in ((0, 0), (-1, 8 * p.element_size() - 1), (len(bits) // 2, 7)):
            flip = torch.tensor(1, dtype=bits.dtype) << bit
            bits[place] ^= flip
            assert learning.fingerprint() != first
            bits[place] ^= flip
        assert learning.fingerprint() == first


# Which policies are scored, and when


@pytest.mark.parametrize(
    ("name", "config", "scored"),
    [
        ("dapo", {}, 0),
        ("reinforce", {"epochs": 2}, 0),
        ("dapo", {"epochs": 2}, 1),
        ("ppo", {}, 1),
        ("grpo", {}, 1),
        ("grpo", {"minibatches": 2}, 2),
        ("grpo", {"kl": 0.0, "epochs": 2}, 1),
    ],
)
def test_nothing_is_computed_for_nobody(name: str, config: dict[str, Any], scored: int, tmp_path, monkeypatch):
    ours = policy(**heads(name))
    config = dict(config)
    row = learner(ours, name).method
    row = row.with_settings({"kl.coefficient": config.pop("kl")}) if "kl" in config else row
    reference = Reference(ours, keep=True, folder=tmp_path) if "logp_ref" in row.needs else None
    learning = learner(ours, row, reference=reference, **config)
    calls: list[CausalLM] = []
    score = learning.score
    monkeypatch.setattr(learning, "score", lambda batch, policy, **more: calls.append(policy) or score(batch, policy, **more))
    learning.learn(batch(), 1)
    assert len(calls) == scored


def test_learning_goes_uphill():
    """The likelihood of demonstrations rises, and that of everything else does not have to."""
    ours = policy(critic=False)
    whole: Batch = batch()
    learning = learner(ours, "sft", lr=3e-3)
    shown = whole.origin == 1
    before = learning.score(whole, ours).logp[shown].sum()
    for step in range(1, 6):
        learning.learn(whole, step)
    assert learning.score(whole, ours).logp[shown].sum() > before + 1


def test_a_batch_without_signal_moves_the_weights_as_a_gradient_of_0_does():
    """Leaving out what has no gradient must not change the optimizer's course: its momentum goes on."""
    ours = policy(critic=False)
    theirs = copy.deepcopy(ours)
    left, right = learner(ours, "dapo"), learner(theirs, "dapo")
    for learning in (left, right):
        learning.learn(batch(), step=1)
    assert_same_bits(weights(ours), weights(theirs))
    before = weights(ours)
    left.learn(batch().replace(reward=torch.ones(batch().size)), step=2)
    for _, p in theirs.named_parameters():
        p.grad = torch.zeros_like(p)
    right.optimizer.step()
    assert moved(before, weights(ours)) > 0
    assert_same_bits(weights(ours), weights(theirs))
