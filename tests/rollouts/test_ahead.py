"""Acting ahead of learning: whose versions write what, and going on after a break."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import pytest
import torch

from quatrain.policies import CausalLM
from quatrain.policies.routing import NONE
from quatrain.rollouts import Ahead, Completion, Request, Rollout, Sampling, TorchEngine
from quatrain.types import Group, Prompt
from tests.policies.families import TOKENIZER, family


@dataclass
class Steady:
    """An engine whose answers all have so many tokens, each the number of its place.

    The expert of what it reads is the number of tokens that were written before, in each of its parts another one.
    """

    length: int

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        return [self._go_on(r, sampling) for r in requests]

    def _go_on(self, request: Request, sampling: Sampling) -> Completion:
        size = min(self.length - request.written, request.most or self.length)
        places = torch.arange(request.written, request.written + size)
        done = request.written + size == self.length
        experts = torch.full((len(request.tokens) + size, 1, 1), request.written, dtype=torch.int16)
        experts[-1] = NONE
        return Completion(places, -places.float(), "x" * (request.written + size), "stop" if done else "pause", experts)


def prompt(number: int) -> Prompt:
    return Prompt(id=number, question="", text="ab")


def ahead(steps: int, *, partial: bool, length: int = 6, engine: object | None = None) -> Ahead:
    numbers = count(1)
    rollout = Rollout(
        engine or Steady(length), Sampling(6), 2, encode=lambda text: [ord(c) % 32 for c in text], encode_answer=list, context=99
    )  # type: ignore[arg-type]
    take = lambda size: [prompt(next(numbers)) for _ in range(size)]  # noqa: E731
    return Ahead(rollout, steps, partial=partial, take=take, again=prompt)


def versions(groups: Sequence[Group]) -> list[int]:
    (first, second) = groups[0].trajectories
    assert torch.equal(first.version, second.version)
    return first.version[first.action].tolist()


def calls(acting: Ahead, versions_: Sequence[int]) -> list[list[Group]]:
    """One call for each version, as a loop makes them, with one prompt; the first prompt is 0."""
    out = []
    for version in versions_:
        prompts = [prompt(0)] if not out else acting._take(1)
        out.append(acting(prompts, version=version))
    return out


def test_whole_answers_are_by_the_version_so_many_steps_before():
    found = calls(ahead(2, partial=False), [0, 10, 20, 30, 40])
    assert [groups[0].prompt.id for groups in found] == [0, 1, 2, 3, 4]
    assert [versions(groups) for groups in found] == [[0] * 6, [0] * 6, [0] * 6, [10] * 6, [20] * 6]


def test_parts_are_by_all_versions_in_between():
    found = calls(ahead(2, partial=True), [0, 10, 20, 30, 40])
    assert [versions(groups) for groups in found] == [
        [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 10, 10], [0, 0, 10, 10, 20, 20], [10, 10, 20, 20, 30, 30], [20, 20, 30, 30, 40, 40],
    ]  # fmt: skip
    (answer, _) = found[4][0].trajectories
    assert answer.tokens[answer.action].tolist() == [0, 1, 2, 3, 4, 5]
    assert answer.logp_rollout[answer.action].tolist() == [0, -1, -2, -3, -4, -5]
    assert answer.experts is not None
    assert answer.experts.flatten().tolist() == [0, 0, 0, 2, 2, 4, 4, NONE]
    assert (answer.text, answer.info["finish"]) == ("xxxxxx", "stop")


def test_what_ends_early_is_left_as_it_is():
    found = calls(ahead(2, partial=True, length=3), [0, 10, 20, 30])
    assert [versions(groups) for groups in found] == [[0, 0, 0], [0, 0, 0], [0, 0, 10], [10, 10, 20]]


@pytest.mark.parametrize("partial", [False, True])
def test_what_was_under_way_goes_on_after_a_break(partial: bool):
    through = ahead(2, partial=partial)
    calls(through, [0, 10, 20])
    resumed = ahead(2, partial=partial)
    resumed.load_state(*through.state())
    resumed._take = through._take
    for version in (30, 40, 50):
        next_one = through._take(1)
        ours, theirs = (one(next_one, version=version) for one in (resumed, through))
        assert versions(ours) == versions(theirs)
        for left, right in zip(ours[0].trajectories, theirs[0].trajectories, strict=True):
            for name in ("tokens", "logp_rollout", "experts"):
                assert torch.equal(getattr(left, name), getattr(right, name))
            assert (left.text, left.info, left.prompt_id) == (right.text, right.info, right.prompt_id)


def test_an_answer_in_parts_is_the_one_in_a_piece():
    """By one policy, a paused answer goes on to the same tokens, and has the same experts."""
    engine = TorchEngine(CausalLM(family("qwen3_moe", torch.float64), TOKENIZER), tells_experts=True)
    whole, parts = (calls(ahead(2, partial=p, engine=engine), [0] * 4) for p in (False, True))
    for left, right in zip(whole, parts, strict=True):
        for one, other in zip(left[0].trajectories, right[0].trajectories, strict=True):
            assert torch.equal(one.tokens, other.tokens)
            assert one.experts is not None and other.experts is not None
            assert torch.equal(one.experts.sort(-1).values, other.experts.sort(-1).values)
            assert one.text == other.text and one.info == other.info
            torch.testing.assert_close(one.logp_rollout, other.logp_rollout)
