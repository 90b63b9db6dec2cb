"""From prompts to groups: order, origins, failures."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import torch

from quatrain.policies import CausalLM
from quatrain.rollouts import Completion, Request, Rollout, Sampling, TorchEngine
from quatrain.types import Group, Origin, Prompt, collate
from tests.policies.families import TOKENIZER, family

BOTH = frozenset({Origin.POLICY, Origin.DEMONSTRATION})


@dataclass
class Echo:
    """An engine that answers with the prompt's length and the request's seed."""

    asked: list[Request] = field(default_factory=list)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        self.asked += requests
        return [
            Completion(
                torch.tensor([len(r.tokens), r.seed[-1]]),
                torch.tensor([-0.5, -1.0]),
                text=" ".join(map(str, r.seed)),
                finish="stop" if r.seed[-1] else "end",
            )
            for r in requests
        ]


def rollout(**changes) -> Rollout:
    given = {
        "engine": Echo(),
        "sampling": Sampling(4),
        "group_size": 3,
        "encode": lambda text: [ord(c) for c in text],
        "encode_answer": lambda text: [1000 + ord(c) for c in text],
        "context": 10,
        "seed": 5,
    }
    return Rollout(**(given | changes))


def prompt(number: int, text: str, demonstration: str | None = None) -> Prompt:
    return Prompt(id=number, question="", text=text, demonstration=demonstration)


def test_groups_keep_the_order_of_prompts_and_members():
    prompts = [prompt(7, "abc"), prompt(3, "a"), prompt(5, "ab")]
    groups = rollout()(prompts, version=2)
    assert [g.prompt for g in groups] == prompts
    assert [[t.text for t in g.trajectories] for g in groups] == [[f"5 1 {p.id} {j}" for j in range(3)] for p in prompts]
    assert [{int(t.tokens[-2]) for t in g.trajectories} for g in groups] == [{3}, {1}, {2}]


def test_a_trajectory_is_its_prompt_and_its_answer():
    (group,) = rollout(group_size=1)([prompt(7, "abc")], version=2)
    (t,) = group.trajectories
    assert t.tokens.tolist() == [97, 98, 99, 3, 0]
    assert t.action.tolist() == [False, False, False, True, True]
    assert t.logp_rollout.tolist() == [0, 0, 0, -0.5, -1.0]
    assert t.version.tolist() == [-1, -1, -1, 2, 2]
    assert t.turn.tolist() == [0] * 5
    assert (t.prompt_id, t.episode_id, t.origin, t.error, t.reward) == (7, 7, Origin.POLICY, None, None)
    assert t.info["finish"] == "end"
    assert t.length == 2


@pytest.mark.parametrize("origins", [frozenset({Origin.POLICY}), BOTH])
@pytest.mark.parametrize(("text", "reason"), [("abcdefg", "7 prompt tokens and 4 for the answer"), ("", "0 prompt tokens")])
def test_a_prompt_that_does_not_fit_fails_and_the_others_go_on(origins: frozenset[Origin], text: str, reason: str):
    acting = rollout(origins=origins)
    prompts = [prompt(1, "abcdef", "x"), prompt(2, text, "x" * 9), prompt(3, "a", "x")]
    first, failed, last = acting(prompts, version=0)
    assert all(t.error is None for group in (first, last) for t in group.trajectories)
    assert [t.text for t in last.trajectories][:3] == ["5 1 3 0", "5 1 3 1", "5 1 3 2"]
    assert len(failed.trajectories) == len(first.trajectories)
    assert failed.trainable == ()
    for t in failed.trajectories:
        assert t.error
        assert t.length == 0
        assert t.prompt_id == 2
    assert reason in failed.trajectories[0].error
    assert {r.seed[2] for r in acting.engine.asked} == {1, 3}


def test_the_longest_prompt_that_fits():
    for length, fits in ((6, True), (7, False)):
        (group,) = rollout(context=10, sampling=Sampling(4))([prompt(1, "a" * length)], version=0)
        assert all((t.error is None) == fits for t in group.trajectories)


def test_demonstrations_are_laid_beside():
    (group,) = rollout(origins=BOTH)([prompt(7, "ab", "xyz")], version=4)
    *sampled, shown = group.trajectories
    assert [t.origin for t in sampled] == [Origin.POLICY] * 3
    assert shown.origin is Origin.DEMONSTRATION
    assert shown.tokens.tolist() == [97, 98, 1120, 1121, 1122]
    assert shown.action.tolist() == [False, False, True, True, True]
    assert shown.text == "xyz"
    assert shown.logp_rollout.tolist() == [0] * 5
    assert shown.version.tolist() == [-1] * 5
    assert shown.reward is None
    assert group.trainable == (shown,)


def test_demonstrations_alone_ask_nothing_of_the_engine():
    acting = rollout(origins=frozenset({Origin.DEMONSTRATION}))
    groups = acting([prompt(1, "ab", "x"), prompt(2, "c", "y")], version=0)
    assert acting.engine.asked == []
    assert [[t.text for t in g.trajectories] for g in groups] == [["x"], ["y"]]


@pytest.mark.parametrize(
    ("text", "demonstration", "error"),
    [("ab", None, "the task has no demonstration"), ("ab", "x" * 9, "do not fit into the context"), ("", "x", "do not fit")],
)
def test_demonstrations_that_cannot_be_are_failures(text: str, demonstration: str | None, error: str):
    (group,) = rollout(origins=frozenset({Origin.DEMONSTRATION}))([prompt(1, text, demonstration)], version=0)
    (shown,) = group.trajectories
    assert error in shown.error
    assert shown.origin is Origin.DEMONSTRATION
    assert group.trainable == ()


def test_a_demonstration_may_fill_the_context():
    (group,) = rollout(origins=frozenset({Origin.DEMONSTRATION}))([prompt(1, "ab", "x" * 8)], version=0)
    assert group.trajectories[0].error is None


def test_no_prompts_no_groups():
    assert rollout()([], version=0) == []


def test_a_sample_depends_on_nothing_beside_it():
    """Neither on which prompts are answered with it, nor on their order, nor on how many samples a group has."""
    policy = CausalLM(family("llama", torch.float64), TOKENIZER)
    prompts = [prompt(i, text) for i, text in enumerate(["12+3=", "12+4=", "7", "12"])]

    def act(some: Sequence[Prompt], **changes) -> list[Group]:
        encode = {"encode": lambda text: TOKENIZER(text)["input_ids"], "context": 64, "engine": TorchEngine(policy)}
        return rollout(**(encode | changes))(some, version=0)

    def written(group: Group) -> list[list[int]]:
        return [t.tokens.tolist() for t in group.trajectories]

    whole = act(prompts)
    assert len({tuple(tokens) for group in whole for tokens in written(group)}) > 6
    for group, alone in zip(whole, [act([p])[0] for p in prompts], strict=True):
        assert written(alone) == written(group)
    assert [written(g) for g in act(prompts[::-1])] == [written(g) for g in whole[::-1]]
    assert [written(g)[:3] for g in act(prompts, group_size=5)] == [written(g) for g in whole]
    assert [written(g) for g in act(prompts, seed=6)] != [written(g) for g in whole]


def test_voters_are_further_samples_and_change_none_of_the_others():
    prompts = [prompt(7, "abc"), prompt(3, "a")]
    alone, with_voters = (rollout(voters=voters)(prompts, version=2) for voters in (0, 2))
    for few, many in zip(alone, with_voters, strict=True):
        assert [t.origin for t in many.trajectories] == [Origin.POLICY] * 3 + [Origin.VOTER] * 2
        assert [t.text for t in many.trajectories[:3]] == [t.text for t in few.trajectories]
        assert len({t.text for t in many.trajectories}) == 5
        judged = Group(many.prompt, tuple(t.replace(reward=1.0) for t in many.trajectories))
        assert judged.trainable == judged.trajectories[:3]
    assert collate([Group(g.prompt, tuple(t.replace(reward=1.0) for t in g.trajectories)) for g in with_voters]).size == 6
