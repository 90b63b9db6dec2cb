"""The logits of all tokens never exist: seen in every tensor that is made, and in the peak of what is allocated."""

from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig

from quatrain.policies import CausalLM
from quatrain.types import Batch
from quatrain.update import Learner
from tests.policies.families import FAMILIES, TOKENIZER, build
from tests.update.plain import HUGE, heads, learner

V, WIDTH, ROWS = 5003, 8, 16
"""A vocabulary of a size that no other axis has, so wide that its weights are smaller than the logits of one go."""


class Largest(TorchDispatchMode):
    """The most entries along other axes of any tensor with an axis of length V."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and V in x.shape:
                self.rows = max(self.rows, x.numel() // V)
        return out


def large_vocabulary(head_rows: int, name: str, tokens_per_pass: int = HUGE) -> Learner:
    sizes = {
        "vocab_size": V,
        "hidden_size": WIDTH,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "max_position_embeddings": 999,
    }
    model = build(LlamaConfig(**FAMILIES["llama"]().to_dict() | sizes | {"head_dim": 4}))
    policy = CausalLM(model, TOKENIZER, **heads(name))
    return learner(policy, name, head_rows=head_rows, tokens_per_pass=tokens_per_pass, epochs=2)


def long_answers(length: int, rows: int = 4) -> Batch:
    tokens = torch.randint(3, V, (rows, length + 1), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 5
    action = torch.ones_like(tokens, dtype=torch.bool)
    action[:, 0] = False
    return Batch(
        tokens=tokens,
        logp_ref=torch.zeros(tokens.shape),
        action=action,
        reward=torch.arange(rows, dtype=torch.float32),
        prompt_id=torch.zeros(rows, dtype=torch.int64),
        origin=torch.zeros(rows, dtype=torch.int64),
    )


@pytest.mark.parametrize("name", ["dapo", "ppo", "flowrl"])
@pytest.mark.parametrize("head_rows", [ROWS, 24])
def test_no_tensor_has_more_rows_of_the_vocabulary_than_the_head_may_see(name: str, head_rows: int):
    """800 actions; the embedding and the head themselves have WIDTH rows, fewer than a go of the head."""
    learning = large_vocabulary(head_rows, name)
    with Largest() as seen:
        learning.learn(long_answers(200), 1)
    assert seen.rows == head_rows


def test_the_engine_side_scores_alike():
    learning = large_vocabulary(ROWS, "dapo")
    with Largest() as seen:
        learning.score(long_answers(200), learning.policy)
        learning.sensitivity(long_answers(200))
    assert seen.rows == ROWS


def peak_rows(head_rows: int, length: int) -> float:
    """The most that an update allocates at once beyond what was there before, as so many rows of logits."""
    learning, batch = large_vocabulary(head_rows, "dapo", tokens_per_pass=1), long_answers(length)
    learning.learn(batch.rows(torch.arange(1)), 1)  # moments and caches of the first time
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        learning.learn(batch, 2)
    events = [(e.start_ns(), e.nbytes()) for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for _, change in sorted(events, key=lambda event: event[0]):
        now += change
        peak = max(peak, now)
    return peak / (4 * V)


def test_the_peak_is_below_the_logits_and_does_not_grow_with_them():
    """Sequences of 100 and of 400 tokens, each in a pass of its own. What still grows is attention."""
    short, long = (peak_rows(ROWS, length) for length in (100, 400))
    assert long < 300
    assert long - short < 100
    short, long = (peak_rows(HUGE, length) for length in (100, 400))
    assert long > 1200
    assert long - short > 900
