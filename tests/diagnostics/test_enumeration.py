"""The oracle: its enumeration is complete, it tells unbiased from biased, and it finds fixed points."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quatrain import cli
from quatrain.commands.exactness import BETA, WAYS, measure_row, unfollowed
from quatrain.diagnostics.enumeration import (
    ONE_TOKEN,
    TINY,
    Fold,
    World,
    distance,
    estimate,
    estimates,
    fixed_point,
    pair_estimates,
    unfit,
)
from quatrain.methods import METHODS
from quatrain.objective import (
    Cap,
    Constant,
    Current,
    EntropyBonus,
    FlowBalance,
    Method,
    Old,
    PartitionLoss,
    PerSequence,
    Relative,
    ReturnToGo,
    Sequence,
    StayClose,
    Term,
    View,
)
from quatrain.types import Batch, Origin
from tools.generate import EXACTNESS

ONE = TINY.of(0)
SHORT = World(ONE.logits[:, :2], ONE.reference[:, :2], ONE.reward[:, :3], longest=2)
"""The same with answers that are cut after two tokens."""


def draw(vocabulary: int, longest: int, seed: int = 0) -> World:
    """Two prompts with random policies, references and rewards."""
    generator = torch.Generator().manual_seed(seed)
    states = sum((vocabulary - 1) ** t for t in range(longest))
    logits, reference = torch.randn(2, 2, states, vocabulary, generator=generator, dtype=torch.float64)
    empty = World(logits, reference, torch.zeros(2, 0, dtype=torch.float64), longest)
    return replace(empty, reward=torch.rand(2, len(empty.answers), generator=generator, dtype=torch.float64))


def by_autograd(world: World, quantity) -> Tensor:
    """The derivative of quantity(policy) by the logits."""
    return torch.autograd.functional.jacobian(lambda logits: quantity(world.at(logits)), world.logits)


@pytest.mark.parametrize(("vocabulary", "longest", "answers"), [(2, 3, 4), (3, 3, 15), (4, 1, 4), (3, 2, 7)])
def test_the_enumeration_is_complete(vocabulary: int, longest: int, answers: int):
    world = draw(vocabulary, longest)
    assert len(set(world.answers)) == answers
    assert [len(a) for a in world.answers] == world.action.sum(1).tolist()
    torch.testing.assert_close(world.probability.sum(1), torch.ones(2).double())
    torch.testing.assert_close(world.visits[:, 0].sum(1), torch.ones(2).double())


def test_every_batch_is_enumerated():
    """Those that differ only in their order count as one, as often as there are orders."""
    _, probability = estimates(METHODS["reinforce"], TINY, TINY, group=2)
    assert len(probability) == math.comb(4 + 2 - 1, 2) ** 2
    assert probability.sum().item() == pytest.approx(1, abs=1e-14)


def test_derivatives_are_those_of_autograd():
    world = draw(3, 3)
    mean = by_autograd(world, lambda policy: (policy.probability * policy.reward).sum(1).mean())
    torch.testing.assert_close(world.gradient, mean)
    for scores, quantity in ((world.scores, lambda p: p.logp), (world.entropy_scores, lambda p: p.entropy * p.action)):
        exact = by_autograd(world, quantity)
        for prompt in (0, 1):
            torch.testing.assert_close(scores[prompt], exact[prompt, :, :, prompt])
            assert not exact[prompt, :, :, 1 - prompt].any()


def test_values_are_expectations_of_what_comes():
    world = draw(2, 2)
    end, cut = world.probability[:, 0], world.probability[:, 1:]
    first = end * world.reward[:, 0] + (cut * world.reward[:, 1:]).sum(1)
    after = (cut * world.reward[:, 1:]).sum(1) / cut.sum(1)
    torch.testing.assert_close(world.values[:, 1], torch.stack([first, after], 1))


def test_updates_climb():
    returns = [(world.probability * world.reward).sum().item() for world in (TINY, TINY.after(1), TINY.after(4))]
    assert returns == sorted(returns) and returns[0] + 0.1 < returns[2]


def test_a_biased_estimate_has_its_scale_and_its_angle():
    """The group's mean holds the sample itself and shrinks by a half; lengths turn."""
    shrunk, turned = (estimate(METHODS[name], group=2) for name in ("dr_grpo", "gspo"))
    assert (shrunk.scale, shrunk.bias, shrunk.angle) == pytest.approx((1 / 2, 1 / 2, 0), abs=1e-6)
    assert turned.bias > 0.1 and turned.angle > 10


@pytest.mark.parametrize("name", ["reinforce", "rloo", "reinforce_is"])
def test_unbiased_on_policy(name: str):
    found = estimate(METHODS[name], group=2)
    assert found.bias < 1e-10 and found.angle < 1e-6
    assert found.scale == pytest.approx(1, abs=1e-10)
    assert found.mse == pytest.approx(found.variance, abs=1e-10) and found.variance > 0.1


def test_only_the_ratio_of_the_whole_answer_corrects_for_staleness():
    reward = Relative(baseline="none")
    whole = Method(Term(denominator=Old(), advantage=reward, likelihood=Sequence(), reduce=PerSequence()))
    single = Method(Term(denominator=Old(), advantage=reward, reduce=Constant()))
    assert estimate(whole, staleness=4, group=1).bias < 1e-10
    assert estimate(single, group=1).bias < 1e-10
    assert estimate(single, staleness=4, group=1).bias > 0.1
    assert estimate(METHODS["reinforce"], staleness=4, group=1).bias > 0.1


def test_entropy_is_a_part_of_the_gradient():
    """The sum over an answer's tokens of what a bonus adds is ∇ Σ H at states that stay as they are."""
    bonus = Method(EntropyBonus(coefficient=0.3, reduce=Constant()))
    found, probability = estimates(bonus, ONE, ONE, group=1)
    visited = ONE.visits.sum(2, keepdim=True)
    slope = by_autograd(ONE, lambda policy: torch.special.entr(policy.logits.softmax(2)).sum(2))[0, :, 0].sum(0)
    torch.testing.assert_close(torch.tensordot(probability, found, 1)[0], 0.3 * visited[0] * slope)


def test_batches_know_the_policy_that_sampled_them():
    ratio = Method(Term(denominator=Old(), advantage=Relative(baseline="none"), likelihood=Sequence(), reduce=PerSequence()))
    stale = TINY.after(2)
    found, probability = estimates(ratio, TINY, stale, group=1)
    torch.testing.assert_close(torch.tensordot(probability, found, 1), stale.gradient)


def test_what_is_no_estimate_of_the_gradient_is_told_with_its_reason():
    reward = Relative(baseline="none")
    assert unfit(METHODS["rloo"]) == ""
    assert unfit(METHODS["sft"]) == "learns from demonstration trajectories"
    assert unfit(Method(Term(advantage=reward, on=(Origin.REPLAY, Origin.POLICY)))) == "learns from replay trajectories"
    assert unfit(Method(Term(denominator=Current(), advantage=StayClose(), reduce=Constant()))) == "reads no reward"
    lacking = METHODS["opd"]
    assert unfit(lacking) == "needs logp_teacher, which no enumerated batch holds"
    with pytest.raises(ValueError, match="needs logp_teacher"):
        estimate(lacking)
    with pytest.raises(ValueError, match=r"\d+ batches; at most"):
        estimate(METHODS["rloo"], group=20)


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if not unfit(row)])
def test_every_fit_row_is_estimated(name: str):
    """The mean squared error is what it is by its definition, for a batch that is two updates old."""
    current = ONE.after(2)
    found, probability = estimates(METHODS[name], ONE, current, group=2)
    error = probability @ (found - current.gradient).flatten(1).square().sum(1)
    mse = (error / current.gradient.square().sum()).item()
    assert estimate(METHODS[name], ONE, staleness=2, group=2).mse == pytest.approx(mse, rel=1e-9, abs=1e-12)


def penalized(*estimators: str) -> Method:
    """The reward of an answer, with KL estimates as further losses; one answer is a batch."""
    pull = (Term(name=k, coefficient=BETA, denominator=Current(), advantage=StayClose(k), reduce=Constant()) for k in estimators)
    return Method(Term(denominator=Current(), advantage=Relative(baseline="none"), reduce=Constant()), *pull)


def at(world: World, probability: Tensor) -> World:
    """With the policy that gives each answer this probability."""
    return world.at(torch.einsum("pn,ntsv->psv", probability, world.path).log())


def rest(method: Method, world: World) -> float:
    """The size of the expected gradient."""
    found, probability = estimates(method, world, world, group=1)
    return torch.tensordot(probability, found, 1).norm().item()


def test_the_posterior_is_the_reference_reweighted():
    weight = TINY.logp_ref.sum(2).exp() * (TINY.reward / BETA).exp()
    torch.testing.assert_close(TINY.posterior(BETA), weight / weight.sum(1, keepdim=True))


@pytest.mark.parametrize("world", [SHORT, ONE_TOKEN], ids=["of up to two tokens", "of one token"])
def test_a_kl_penalty_in_the_reward_has_the_posterior_as_its_fixed_point(world: World):
    """Reached from where the policy stands; there all answers have the same reward with its penalty, β·log Z."""
    posterior = world.posterior(BETA)
    assert distance(world.probability, posterior) > 0.1
    assert distance(fixed_point(penalized(), world, group=1, folded=Fold(BETA)).probability, posterior) < 1e-6
    there = at(world, posterior).fold(Fold(BETA))
    assert there.reward.std().item() < 1e-12
    assert rest(penalized(), there) < 1e-12


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_a_penalty_in_the_reward_is_what_all_tokens_cost(estimator: str):
    """The reward that an answer's first token sees ahead of it."""
    fields = SHORT.fields(SHORT)
    batch = Batch(**{name: fields[name][0] for name in ("action", "logp_old", "logp_ref", "reward")})
    assert batch.action is not None
    ahead = ReturnToGo(BETA, estimator)(View(batch, batch.action, None))  # type: ignore[arg-type]
    torch.testing.assert_close(SHORT.fold(Fold(BETA, estimator)).reward[0], ahead[:, 0])  # type: ignore[arg-type]


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_cost_that_does_not_change_its_sign_drives_the_policy_to_one_answer(estimator: str):
    """The rarer an answer has become, the more it costs: the policy that has left the reference is pushed on."""
    best = SHORT.reward[0].argmax()
    folded = Fold(BETA, estimator)  # type: ignore[arg-type]
    assert fixed_point(penalized(), SHORT, group=1, folded=folded).probability[0, best].item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("estimator", "tokens", "far"), [("k1", 2, True), ("k2", 1, False), ("k2", 2, True), ("k3", 1, True)])
def test_a_kl_estimate_as_a_loss_has_another_fixed_point(estimator: str, tokens: int, far: bool):
    """But for k2, where an answer is one token: with several, none feels what it costs those after it."""
    world = at(ONE_TOKEN, ONE_TOKEN.posterior(BETA)) if tokens == 1 else at(SHORT, SHORT.posterior(BETA))
    assert rest(penalized(estimator), world) > 1e-3 if far else rest(penalized(estimator), world) < 1e-12


def test_k1_as_a_loss_is_no_penalty():
    best = SHORT.reward[0].argmax()
    assert fixed_point(penalized("k1"), SHORT, group=1).probability[0, best].item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("world", [SHORT, ONE_TOKEN], ids=["of up to two tokens", "of one token"])
def test_classified_pairs_have_the_posterior_as_their_fixed_point(world: World):
    """If preferences follow Bradley and Terry: the reward that they imply is the one they are drawn by."""
    method = METHODS["dpo"].with_settings({"advantage.loss.beta": BETA})
    _, probability = pair_estimates(method, world.at(world.reference), world)
    assert probability.sum().item() == pytest.approx(1, abs=1e-14)
    assert distance(fixed_point(method, world).probability, world.posterior(BETA)) < 1e-6
    elsewhere = fixed_point(METHODS["ipo"].with_settings({"advantage.loss.tau": BETA}), world).probability
    assert distance(elsewhere, world.posterior(BETA)) > 0.1


FLOWING = pytest.mark.parametrize("world", [SHORT.flowing(), ONE_TOKEN.flowing(), ONE.flowing()], ids=["two", "one", "three"])


def flow(pool: str, of: Relative) -> Method:
    """A flow balance whose reward is weighed as the posterior weighs it."""
    balance = FlowBalance(1 / BETA, pool, of)  # type: ignore[arg-type]
    term = Term(mask=Cap(0.8, 1.2), denominator=Old(), advantage=balance, likelihood=Sequence(), reduce=PerSequence())
    return Method(term, PartitionLoss(mask=Cap(0.8, 1.2), advantage=balance))


@FLOWING
def test_a_balanced_flow_is_the_posterior(world: World):
    """And log Z is what it is by its definition: the logarithm of the sum of π_ref·exp(r/β)."""
    assert distance(world.probability, world.posterior(BETA)) > 0.1
    end = fixed_point(flow("sum", Relative(baseline="none")), world, group=1)
    assert end.log_z is not None
    assert distance(end.probability, world.posterior(BETA)) < 1e-3
    assert (end.log_z - world.log_partition(BETA)).abs().max() < 1e-3


@FLOWING
def test_where_log_ratios_are_averaged_long_answers_weigh_a_reward_more(world: World):
    """π_ref·exp(|y|·(r/β − log Z)), which is the posterior where all answers are of one token, and only there."""
    end = fixed_point(flow("mean", Relative(baseline="none")), world, group=1)
    assert end.log_z is not None
    length = world.action.sum(1)
    closed = world.logp_ref.sum(2).exp() * (length * (world.reward / BETA - end.log_z[:, None])).exp()
    assert closed.sum().item() == pytest.approx(1, abs=1e-3)
    assert distance(end.probability, closed) < 1e-3
    assert (distance(end.probability, world.posterior(BETA)) > 0.05) == (world.longest > 1)


@FLOWING
def test_where_rewards_are_normalized_by_group_the_posterior_is_another(world: World):
    """That of the reward that an answer has on average against three others, at the very policy that this makes."""
    end = fixed_point(flow("sum", Relative(scale="group")), world, group=4)
    assert end.log_z is not None
    assert distance(end.probability, world.posterior(BETA)) > 0.1
    implied = BETA * ((end.probability / world.logp_ref.sum(2).exp()).log() + end.log_z[:, None])[0]
    chance, reward = end.probability[0], world.reward[0]
    others = torch.cartesian_prod(*[torch.arange(len(reward))] * 3)
    for answer in range(len(reward)):
        group = torch.cat([reward[answer].expand(len(others), 1), reward[others]], 1)
        score = (group[:, 0] - group.mean(1)) / (group.std(1) + 1e-6)
        assert (chance[others].prod(1) @ score).item() == pytest.approx(implied[answer].item(), abs=1e-3)


def test_the_command_measures_what_is_asked(capsys: pytest.CaptureFixture[str], tmp_path):
    out = tmp_path / "found.json"
    assert cli.main(["oracle", "reinforce", "sft", "--staleness", "0", "--json", str(out)]) == 0
    told = capsys.readouterr().out
    assert "reinforce" in told and "sft is not measured: learns from demonstration trajectories" in told
    found = json.loads(out.read_text())
    assert list(found["rows"]) == ["reinforce"]
    assert found["rows"]["reinforce"]["estimates"]["0"] | {"variance": 0, "mse": 0} == {
        "bias": 0, "angle": 0, "scale": 1, "variance": 0, "mse": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--staleness", "1,x"], "write --staleness 0,1,4"),
        (["--json", "nowhere/found.json"], "there is no folder nowhere"),
        (["rlo"], "no method 'rlo'"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["oracle", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_the_documented_tables_are_of_this_catalogue():
    """Of the same rows with the same numbers; one of them is measured again."""
    found = json.loads(EXACTNESS.read_text())
    again = "run `make exactness`"
    assert {n: row["lines"] for n, row in found["rows"].items()} == {
        n: dict(r.lines()) for n, r in METHODS.items() if not unfit(r)
    }, again
    followed = [name for name, row in METHODS.items() if "logp_ref" in row.needs and not unfollowed(row)]
    assert list(found["fixed_points"]) == [*WAYS, *followed], again
    assert found["unfit"] == {name: unfit(row) for name, row in METHODS.items() if unfit(row)}, again
    assert measure_row(METHODS["reinforce"], 1) == pytest.approx(found["rows"]["reinforce"]["estimates"]["1"], rel=1e-4), again
