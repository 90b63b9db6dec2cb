"""Steps without a look in between: repeated by what was recorded of one, as a graph of CUDA kernels is."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quatrain.policies import CausalLM
from quatrain.rollouts import Completion, Request, Sampling, TorchEngine
from tests.policies.families import TOKENIZER, family, sequences
from tests.rollouts.test_engine import assert_same, requests

ASKING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal")
"""Operations that wait for what a device has computed."""


class Recorder(TorchDispatchMode):
    """Notes each operation with the memory it reads and writes; what it changed on the way is put back."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        assert name not in ASKING, f"{name} waits for the device"
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write and isinstance(value, Tensor):
                with torch.utils._python_dispatch._disable_current_modes():
                    whole = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
                    self.before.setdefault(value.untyped_storage().data_ptr(), (whole, whole.clone()))
        out = func(*args, **kwargs)
        self.done.append((func, args, kwargs, out))
        return out

    def repeat(self) -> None:
        """The same operations on the same memory."""
        for func, args, kwargs, out in self.done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def recorded(step: Callable[[], object]) -> Callable[[], object]:
    """A step that repeats what this one does, which is not carried out."""
    with Recorder() as recorder:
        step()
    for whole, old in recorder.before.values():
        whole.copy_(old)
    return recorder.repeat


def written(
    policy: CausalLM, asked: list[Request], sampling: Sampling, *, stride: int, capture: Any = None, **more: int
) -> list[Completion]:
    engine = TorchEngine(policy, **more)
    engine.stride, engine.capture = stride, capture
    return engine.generate(asked, sampling)


def rather_short(name: str) -> CausalLM:
    """A policy whose answers end at very different lengths."""
    policy = CausalLM(family(name, torch.float64), TOKENIZER)
    policy.base.generation_config.eos_token_id = list(range(3, 8))
    return policy


@pytest.mark.parametrize("max_sequences", [6, 64])
@pytest.mark.parametrize(
    ("name", "capture"),
    [*product(["llama", "mistral", "gemma3", "gpt2"], [None, recorded]), ("deepseek_v3", None)],
    ids=lambda value: value if isinstance(value, str) else "anew" if value is None else "repeated",
)
def test_what_is_written_does_not_depend_on_when_it_is_looked_at(
    name: str, max_sequences: int, capture: Any, monkeypatch: pytest.MonkeyPatch
):
    """Answers are cut where they end; with fewer places than answers, and with rows that grow while some have ended."""
    monkeypatch.setattr("quatrain.rollouts.rows.Rows.GROWTH", 8)
    policy, sampling = rather_short(name), Sampling(23, temperature=0.9, top_p=0.95, top_k=40)
    expected = written(policy, requests(sequences(), samples=5), sampling, stride=1, max_sequences=max_sequences)
    lengths = [len(c.tokens) for c in expected]
    assert min(lengths) < 5 < 20 < max(lengths)
    assert_same(
        written(policy, requests(sequences(), samples=5), sampling, stride=6, capture=capture, max_sequences=max_sequences),
        expected,
    )


def test_steps_are_repeated_and_not_taken_anew(monkeypatch: pytest.MonkeyPatch):
    """One step and one recording for each arrangement and each growth of the rows."""
    policy = CausalLM(family("llama"), TOKENIZER)
    policy.base.generation_config.eos_token_id = []
    passes: list[int] = []
    policy.base.get_input_embeddings().register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].numel()))
    monkeypatch.setattr("quatrain.rollouts.rows.Rows.GROWTH", 8)
    asked = [Request(torch.tensor([9, 8]), (7, i)) for i in range(4)]
    written(policy, asked, Sampling(24), stride=4, capture=recorded)
    assert passes == [2] + [4, 4] * 3


def test_a_row_whose_answer_has_ended_does_not_draw_beyond_its_memory():
    """The last answer is begun first, beside seven short ones, and ends where those behind these go on for long."""
    policy, sampling = CausalLM(family("llama", torch.float64), TOKENIZER), Sampling(23)
    policy.base.generation_config.eos_token_id = []
    asked = [Request(torch.tensor([9, 8]), (7, i), most=2 if 7 <= i < 14 else None) for i in range(15)]
    found = written(policy, asked, sampling, stride=6, capture=recorded, max_sequences=8)
    assert_same(found, written(policy, asked, sampling, stride=1, max_sequences=8))


def test_a_stop_string_and_a_pause_are_found_inside_a_stride():
    policy, sampling = rather_short("llama"), Sampling(23, stop=(TOKENIZER.decode([20]), TOKENIZER.decode([31])))
    asked = [Request(r.tokens, r.seed, most=n % 7 + 1) for n, r in enumerate(requests(sequences(), samples=5))]
    expected = written(policy, asked, sampling, stride=1)
    assert {c.finish for c in expected} == {"end", "stop", "pause"}
    assert_same(written(policy, asked, sampling, stride=5), expected)
    assert_same(written(policy, asked, sampling, stride=5, capture=recorded), expected)


def test_experts_are_told_for_what_is_kept():
    policy = rather_short("qwen3_moe")
    (expected, found) = (
        written(policy, requests(sequences(), samples=5), Sampling(12), stride=stride, tells_experts=True) for stride in (1, 5)
    )
    assert_same(found, expected)
    for a, b in zip(found, expected, strict=True):
        assert a.experts is not None and b.experts is not None and torch.equal(a.experts, b.experts)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_context_may_end_inside_a_stride(name: str):
    """Positions beyond it are computed for nobody."""
    policy = CausalLM(family(name, torch.float64), TOKENIZER)
    policy.base.generation_config.eos_token_id = []
    prompt = torch.arange(10, 20)
    sampling = Sampling(policy.context - len(prompt))
    asked = [Request(prompt, (1, j)) for j in range(3)]
    expected = written(policy, asked, sampling, stride=1)
    assert {len(c.tokens) for c in expected} == {sampling.max_tokens}
    assert_same(written(policy, asked, sampling, stride=7, capture=recorded), expected)


def test_the_recorder_knows_a_step_that_is_not_repeatable():
    """One that depends on a number of Python's, and one that asks."""
    tokens, steps = torch.zeros(4, dtype=torch.int64), iter(range(4))

    def counted() -> None:
        tokens[next(steps)] = 1

    again = recorded(counted)
    assert tokens.tolist() == [0, 0, 0, 0]
    for _ in range(2):
        again()
    assert tokens.tolist() == [1, 0, 0, 0]
    with pytest.raises(AssertionError, match="waits for the device"):
        recorded(lambda: tokens.sum().item())
