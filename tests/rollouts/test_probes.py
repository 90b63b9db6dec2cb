"""What the policy says its answer is at the end of each step: where it is asked, and what its potential is there."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from quatrain.policies import CausalLM
from quatrain.rollouts import Completion, Probed, Request, Sampling, TorchEngine
from quatrain.types import Batch, Group, Origin, Prompt, Trajectory, collate
from tests.policies.families import TOKENIZER, family

SAMPLES, OPENER = 3, "=>"


def encode(text: str) -> list[int]:
    return [ord(c) for c in text]


def answer(text: str, origin: Origin = Origin.POLICY, prompt: str = "ab") -> Trajectory:
    tokens = torch.tensor(encode(prompt + text))
    action = torch.arange(len(tokens)) >= len(prompt)
    nothing = torch.zeros(len(tokens))
    return Trajectory(
        tokens, action, nothing, action.long() - 1, nothing.long(), prompt_id=4, text=text, origin=origin, reward=1.0
    )


@dataclass
class Scripted:
    """An engine that says `!` twice, and a policy whose log-probabilities and entropies are given."""

    logp: float = 0.0
    entropy: float = 0.0
    asked: list[Request] = field(default_factory=list)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        assert sampling.max_tokens == 2
        self.asked += requests
        return [Completion(torch.tensor(encode("!!")), torch.zeros(2), "!!", "length") for _ in requests]

    def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.action is not None
        return torch.full(batch.action.shape, self.logp), torch.full(batch.action.shape, self.entropy)


def probed(groups: list[Group], scripted: Scripted, *, step: str = ";", context: int = 99) -> list[Group]:
    acting = Probed(
        lambda prompts, version: groups,
        scripted,
        Sampling(2),
        SAMPLES,
        step,
        OPENER,
        encode=encode,
        decode=lambda tokens: "".join(map(chr, tokens.tolist())),
        score=scripted.score,
        context=context,
        seed=8,
    )
    return acting([], version=0)


def group(*trajectories: Trajectory) -> Group:
    return Group(Prompt(id=4, question="", text="ab", answer="7"), trajectories)


@pytest.mark.parametrize(
    ("logp", "entropy", "potential"),
    [(-99.0, 99.0, 0.0), (0.0, 0.0, 1.0), (-99.0, 0.0, -1.0), (0.0, 99.0, 0.5), (-0.6931472, 0.6931472, 0.125)],
)
def test_the_potential_of_what_is_right_and_what_is_sure(logp: float, entropy: float, potential: float):
    """(Acc, Conf) = (0, 0), (1, 1), (0, 1), (1, 0) and (½, ½): 1.5/4 + 0.5/2 − 1/2 = 1/8."""
    ((told,),) = (g.trajectories for g in probed([group(answer("1;2"))], Scripted(logp, entropy)))
    assert told.potential is not None
    torch.testing.assert_close(told.potential, torch.full((5,), potential))


@pytest.mark.parametrize(
    ("text", "end", "steps", "asked"),
    [
        ("12;3;4", ";", [0, 0, 0, 1, 1, 2], ["12;", "12;3;"]),
        ("1;", ";", [0, 0], ["1;"]),
        (";;1", ";", [0, 1, 2], [";", ";;"]),
        ("1..2..", "..", [0, 0, 0, 1, 1, 1], ["1..", "1..2.."]),
        ("123", ";", [0, 0, 0], []),
    ],
)
def test_steps_end_where_their_text_does(text: str, end: str, steps: list[int], asked: list[str]):
    scripted = Scripted()
    ((told,),) = (g.trajectories for g in probed([group(answer(text))], scripted, step=end))
    assert told.step is not None
    assert told.step.tolist() == [0, 0, *steps]
    places = ["".join(map(chr, request.tokens.tolist())) for request in scripted.asked]
    assert places == [f"ab{before}{OPENER}" for before in asked for _ in range(SAMPLES)]
    assert len({request.seed for request in scripted.asked}) == len(places)


def test_what_comes_after_the_last_probe_keeps_its_potential():
    class Growing(Scripted):
        def score(self, batch: Batch) -> tuple[Tensor, Tensor]:
            """The more the policy has read, the surer it is, and always wrong."""
            assert batch.action is not None
            return torch.full(batch.action.shape, -99.0), torch.ones(batch.action.shape) / batch.action.int().argmax(1)[:, None]

    ((told, none),) = (g.trajectories for g in probed([group(answer("1;2;3"), answer("4"))], Growing()))
    assert told.potential is not None and none.potential is not None
    first, second = (-torch.tensor(-1 / n).exp() for n in (2 + 2 + 2, 2 + 4 + 2))
    torch.testing.assert_close(told.potential[2:], torch.stack([first, first, second, second, second]))
    assert none.potential.tolist() == [0, 0, 0]


def test_only_the_policys_own_answers_to_known_questions_are_probed():
    scripted = Scripted()
    others = [answer("1;2", origin) for origin in (Origin.DEMONSTRATION, Origin.VOTER, Origin.GREEDY)]
    wordless = replace(answer(""), error="too long")
    unknown = replace(group(answer("1;2")), prompt=Prompt(id=5, question="", text="ab"))
    first, second = probed([group(answer("1;2"), *others, wordless), unknown], scripted)
    assert [t.potential is not None and bool(t.potential.any()) for t in first.trajectories] == [True, *[False] * 4]
    assert not any(t.potential is not None and t.potential.any() for t in second.trajectories)
    assert len(scripted.asked) == SAMPLES
    batch = collate([first])
    assert batch.step is not None and batch.potential is not None
    assert batch.step[0].tolist() == [0, 0, 0, 0, 1]
    assert batch.potential[0].tolist() == [1.0] * 5
    assert collate([group(answer("1;2"))]).potential is None


@pytest.mark.parametrize(("context", "asked"), [(9, 2), (8, 1), (5, 0)])
def test_a_place_without_room_is_not_probed(context: int, asked: int):
    """Two tokens of prompt and two of opener, of the answer 2 and 4 at its places, and one or two to be said."""
    scripted = Scripted()
    ((told,),) = (g.trajectories for g in probed([group(answer("1;2;3"))], scripted, context=context + 1))
    assert len(scripted.asked) == asked * SAMPLES
    assert told.step is not None and told.step.max() == asked


def test_it_is_what_a_plain_forward_pass_says():
    """Of a model with random weights: log-softmax of its logits after the opener, on padded rows of one each."""
    policy = CausalLM(family("llama", torch.float64), TOKENIZER)

    def plain(tokens: Tensor) -> Tensor:
        return torch.log_softmax(policy.base(input_ids=tokens[None]).logits[0, :-1], -1)

    @torch.no_grad()
    def score(batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.tokens is not None
        rows = [plain(row) for row in batch.tokens]
        taken = [logp.gather(1, row[1:, None])[:, 0] for logp, row in zip(rows, batch.tokens, strict=True)]
        entropy = [torch.special.entr(logp.exp()).sum(1) for logp in rows]
        return tuple(torch.nn.functional.pad(torch.stack(x), (1, 0)) for x in (taken, entropy))  # type: ignore[return-value]

    engine, sampling = TorchEngine(policy), Sampling(4)
    further = lambda text: TOKENIZER(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    prompt, right = torch.tensor(further("1+2")), torch.tensor(further(" 33"))
    said = torch.tensor(further("5 6 7"))
    tokens = torch.cat([prompt, said])
    told = Trajectory(
        tokens, torch.arange(len(tokens)) >= len(prompt), torch.zeros(len(tokens)), tokens, tokens, prompt_id=3, text="5 6 7"
    )
    asked = Group(Prompt(id=3, question="", answer=" 33"), (told, told))
    acting = Probed(
        lambda prompts, version: [asked], engine, sampling, SAMPLES, " ", "=", further, TOKENIZER.decode, score, 64, seed=2
    )
    ((first, second),) = (g.trajectories for g in acting([], version=0))
    assert first.step is not None and first.potential is not None and second.potential is not None
    ends = [
        n for n in range(1, len(said) + 1) if TOKENIZER.decode(said[:n]).count(" ") > TOKENIZER.decode(said[: n - 1]).count(" ")
    ]
    assert len(ends) == 2
    for number, potential in ((0, first.potential), (1, second.potential)):
        for step, end in enumerate(ends):
            place = torch.cat([prompt, said[:end], torch.tensor(further("="))])
            requests = [Request(place, (2, 5, 3, number, end, n)) for n in range(SAMPLES)]
            samples = [torch.cat([place, done.tokens]) for done in engine.generate(requests, sampling)]
            with torch.no_grad():
                entropies = [torch.special.entr(plain(s).exp()).sum(1)[len(place) - 1 :].mean() for s in samples]
                sure = torch.stack(entropies).neg().exp().mean()
                logp = plain(torch.cat([place, right]))[len(place) - 1 :].gather(1, right[:, None])
            near = logp.exp().mean()
            expected = (1.5 * near * sure + 0.5 * near - sure).item()
            assert potential[first.step == step][-1].item() == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(first.potential, second.potential), "each answer has samples of its own"
