"""vLLM against the policy's own log-probabilities, the built-in engine, and the definition of sampling."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import transformers as hf
from scipy.stats import chisquare
from torch import Tensor

from quatrain.config import ConfigError, LoraConfig, ModelConfig, TunnelConfig
from quatrain.policies import CausalLM, load_model, plant
from quatrain.rollouts import Completion, Request, Sampling, TorchEngine, VLLMEngine
from quatrain.tunnel import pretrain
from tests.policies.families import TOKENIZER, VOCABULARY, build

CONTEXT = 512
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CLOSE = 1e-4


def tied(**changes: object) -> CausalLM:
    """A policy whose output head is its embedding."""
    return CausalLM(build(hf.LlamaConfig(**SIZE | {"tie_word_embeddings": True} | changes)), TOKENIZER)


@pytest.fixture(scope="module")
def engine() -> Iterator[VLLMEngine]:
    with VLLMEngine(tied(), max_sequences=64, memory_gib=0.25) as started:
        yield started


def prompts(size: int = 24) -> list[Tensor]:
    generator = torch.Generator().manual_seed(size)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator) for n in (size, 5, 1, size + 7)]


def requests(samples: int = 1, size: int = 24) -> list[Request]:
    return [Request(p, (7, i, j)) for i, p in enumerate(prompts(size)) for j in range(samples)]


@torch.no_grad()
def off(policy: CausalLM, asked: list[Request], written: list[Completion], sampling: Sampling) -> float:
    """How far the answers' log-probabilities are from those that the policy has, at most."""
    found = []
    for request, completion in zip(asked, written, strict=True):
        tokens = torch.cat([request.tokens, completion.tokens])
        hidden = policy.hidden_of(plant([tokens]))
        logp = renormalized(policy.logits(hidden)[len(request.tokens) - 1 : -1].double(), sampling)
        found.append((logp.gather(-1, completion.tokens[:, None])[:, 0] - completion.logp).abs().max())
    return float(torch.stack(found).max())


def renormalized(logits: Tensor, sampling: Sampling) -> Tensor:
    """log softmax(logits/τ), renormalized over what top-k and then top-p leave."""
    logp = torch.log_softmax(logits / (sampling.temperature or 1.0), -1)
    if sampling.top_k:
        logp = logp.masked_fill(logp < logp.topk(sampling.top_k, -1).values[:, -1:], -torch.inf).log_softmax(-1)
    order = logp.argsort(-1, descending=True)
    mass = logp.gather(-1, order).exp()
    beyond = torch.zeros_like(logp, dtype=torch.bool).scatter(-1, order, mass.cumsum(-1) - mass >= sampling.top_p)
    return logp.masked_fill(beyond, -torch.inf).log_softmax(-1)


@torch.no_grad()
def move(policy: CausalLM, *names: str) -> None:
    """A step in the parameters whose names hold one of `names`."""
    generator = torch.Generator().manual_seed(1)
    moved = [p for name, p in policy.base.named_parameters() if any(part in name for part in names)]
    assert moved
    for p in moved:
        p.add_(0.02 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize(
    "sampling",
    [Sampling(12), Sampling(12, temperature=0.6), Sampling(12, temperature=1.5, top_k=9, top_p=0.8), Sampling(12, temperature=0)],
    ids=["plain", "colder", "truncated", "greedy"],
)
def test_log_probabilities_are_the_policys(engine: VLLMEngine, sampling: Sampling):
    """Of the distribution that was drawn from; a greedy answer's are those at temperature 1."""
    asked = requests(samples=4)
    assert off(engine.policy, asked, engine.generate(asked, sampling), sampling) < CLOSE


def test_more_prompts_than_are_read_at_once(engine: VLLMEngine):
    """One whose second half had to wait for the next pass would have drawn once too often."""
    generator = torch.Generator().manual_seed(0)
    asked = [Request(torch.randint(3, VOCABULARY, (300,), generator=generator), (7, i)) for i in range(32)]
    assert off(engine.policy, asked, engine.generate(asked, Sampling(4)), Sampling(4)) < CLOSE


@pytest.mark.parametrize("names", [("",), ("embed_tokens",), ("layers.1",)], ids=["all", "the tied embedding", "a layer"])
def test_they_are_the_policys_after_an_update(engine: VLLMEngine, names: tuple[str, ...]):
    """With prompts so long that their keys and values are kept from call to call."""
    asked, sampling = requests(samples=4, size=300), Sampling(12)
    before = engine.generate(asked, sampling)
    move(engine.policy, *names)
    assert off(engine.policy, asked, before, sampling) > 100 * CLOSE
    assert off(engine.policy, asked, engine.generate(asked, sampling), sampling) < CLOSE


def test_an_output_head_that_is_not_sent_stays_as_it_was(engine: VLLMEngine, monkeypatch: pytest.MonkeyPatch):
    """What `CausalLM.weights` is for: among the parameters a tied head is missing."""
    policy, sampling, asked = engine.policy, Sampling(12), requests(samples=4)
    assert "lm_head.weight" in policy.weights()
    monkeypatch.setattr(policy, "weights", lambda: dict(policy.base.named_parameters()))
    move(policy, "embed_tokens")
    assert off(policy, asked, engine.generate(asked, sampling), sampling) > 100 * CLOSE
    monkeypatch.undo()
    assert off(policy, asked, engine.generate(asked, sampling), sampling) < CLOSE


def test_seeds_decide_what_is_drawn(engine: VLLMEngine):
    asked, sampling = requests(samples=8), Sampling(20)
    written = [c.tokens.tolist() for c in engine.generate(asked, sampling)]
    assert [c.tokens.tolist() for c in engine.generate(asked[::-1], sampling)][::-1] == written
    assert len({tuple(tokens) for tokens in written}) == len(written)
    others = engine.generate([replace(r, seed=(8, *r.seed[1:])) for r in asked], sampling)
    assert all(a != b.tokens.tolist() for a, b in zip(written, others, strict=True))


@pytest.mark.parametrize("sampling", [Sampling(1), Sampling(1, temperature=1.3, top_p=0.8)], ids=["plain", "truncated"])
@torch.no_grad()
def test_frequencies_are_those_of_the_distribution(engine: VLLMEngine, sampling: Sampling):
    prompt, samples = prompts()[0], 3000
    written = engine.generate([Request(prompt, (0, 1, 5, j)) for j in range(samples)], sampling)
    hidden = engine.policy.hidden_of(plant([prompt]))
    expected = renormalized(engine.policy.logits(hidden[-1:]).double(), sampling)[0].exp()
    counts = torch.bincount(torch.cat([c.tokens for c in written]), minlength=VOCABULARY)
    assert counts[expected == 0].sum() == 0
    assert (expected == 0).any() == (sampling.top_p < 1)
    common = expected * samples >= 5
    told, wanted = (torch.cat([x[common], x[~common].sum()[None]]) for x in (counts.double(), expected * samples))
    kept = wanted > 0
    assert kept.sum() > 3
    assert chisquare(told[kept].numpy(), wanted[kept].numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("sampling", "finishes"),
    [
        (Sampling(30, temperature=0), {"length"}),
        (Sampling(30, temperature=0, stop_tokens=tuple(range(3, 40))), {"end"}),
        (Sampling(30, temperature=0, stop=tuple("abcdefghijklmnopqrstuvwxyz")), {"stop"}),
        (Sampling(3, temperature=0, stop=tuple("ABCDEFGHIJKLMNOP"), stop_tokens=(70, 71)), None),
    ],
)
def test_greedy_answers_end_as_those_of_the_built_in_engine(engine: VLLMEngine, sampling: Sampling, finishes: set[str] | None):
    """To the token: an end token is part of the answer, a stop string of its tokens and not of its text."""
    asked = requests()
    written, expected = (one.generate(asked, sampling) for one in (engine, TorchEngine(engine.policy)))
    assert finishes is None or finishes <= {c.finish for c in written}
    assert [(c.tokens.tolist(), c.text, c.finish) for c in written] == [(c.tokens.tolist(), c.text, c.finish) for c in expected]
    for ours, theirs in zip(written, expected, strict=True):
        torch.testing.assert_close(ours.logp, theirs.logp, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_is_gone_on_with(engine: VLLMEngine, temperature: float):
    """In parts, by the weights of the moment; what is drawn after a pause is not what was drawn before it."""
    sampling, (prompt, *_) = Sampling(12, temperature=temperature), prompts()
    (whole,) = engine.generate([Request(prompt, (5,))], sampling)
    tokens, finishes = prompt, []
    for written in (0, 5, 10):
        request = Request(tokens, (5,), written=written, most=5)
        (part,) = engine.generate([request], sampling)
        assert off(engine.policy, [request], [part], sampling) < CLOSE
        tokens, finishes = torch.cat([tokens, part.tokens]), [*finishes, part.finish]
    assert finishes == ["pause", "pause", "length"]
    answer = tokens[len(prompt) :]
    assert part.text == TOKENIZER.decode(answer)
    assert len(answer) == 12
    assert answer[:5].tolist() == whole.tokens[:5].tolist()
    assert temperature or answer.tolist() == whole.tokens.tolist()


def test_an_answer_ends_where_the_context_is_full(engine: VLLMEngine):
    prompt = torch.cat(prompts(300))[: CONTEXT - 6]
    (answer,) = engine.generate([Request(prompt, (1,))], Sampling(40))
    assert (len(answer.tokens), answer.finish) == (6, "length")


def test_nothing_asked_is_nothing_written(engine: VLLMEngine):
    assert engine.generate([], Sampling(4)) == []


# What it starts with: each of these is an engine of its own


@pytest.mark.parametrize(
    "config",
    [
        hf.Qwen3Config(**SIZE, head_dim=32, tie_word_embeddings=True),
        hf.Gemma3TextConfig(**SIZE, head_dim=32, sliding_window=5, layer_types=["sliding_attention", "full_attention"]),
    ],
    ids=["qwen3", "gemma3"],
)
def test_other_families(config: hf.PreTrainedConfig):
    policy, asked, sampling = CausalLM(build(config), TOKENIZER), requests(), Sampling(12)
    with VLLMEngine(policy, memory_gib=0.25) as started:
        move(policy, "")
        assert off(policy, asked, started.generate(asked, sampling), sampling) < CLOSE


def test_low_rank_factors_are_merged():
    policy = CausalLM(build(hf.LlamaConfig(**SIZE)), TOKENIZER, lora=LoraConfig(rank=4))
    asked, sampling = requests(), Sampling(12)
    with VLLMEngine(policy, memory_gib=0.25) as started:
        move(policy, "lora_B")
        written = started.generate(asked, sampling)
        assert off(policy, asked, written, sampling) < CLOSE
        with policy.without_adapter():
            assert off(policy, asked, written, sampling) > 100 * CLOSE


def test_the_wind_tunnels_model():
    policy = CausalLM(*pretrain(TunnelConfig(steps=2)))
    asked, sampling = requests(samples=2), Sampling(12)
    threads = torch.get_num_threads()
    with VLLMEngine(policy, memory_gib=0.25) as started:
        assert off(policy, asked, started.generate(asked, sampling), sampling) < CLOSE
    torch.set_num_threads(threads + 1)
    assert torch.get_num_threads() == threads + 1, "vLLM keeps the number of threads as it is"
    torch.set_num_threads(threads)


def test_smollm2():
    policy = CausalLM(*load_model(ModelConfig(name="smollm2"), 0))
    asked, sampling = requests(samples=2, size=200), Sampling(12)
    with VLLMEngine(policy, memory_gib=1) as started:
        for names in (("embed_tokens",), ("layers.7", "norm")):
            move(policy, *names)
            assert off(policy, asked, started.generate(asked, sampling), sampling) < CLOSE


@pytest.mark.parametrize(
    ("policy", "memory_gib", "told"),
    [
        (lambda: tied(max_position_embeddings=1 << 20), 0.25, "short of memory"),
        (lambda: CausalLM(build(hf.SmolLM3Config(**SIZE)), TOKENIZER), 0.25, "no code of its own for SmolLM3ForCausalLM"),
    ],
)
def test_what_it_does_not_start_with(policy, memory_gib: float, told: str):
    with pytest.raises(ConfigError, match=told):
        VLLMEngine(policy(), memory_gib=memory_gib)


def test_weights_that_do_not_arrive_are_refused(monkeypatch: pytest.MonkeyPatch):
    policy = tied()
    monkeypatch.setattr(policy, "weights", lambda: dict(policy.base.named_parameters()))
    with pytest.raises(ConfigError, match="vLLM gives other probabilities than the model"):
        VLLMEngine(policy, memory_gib=0.25)


def test_it_is_not_imported_where_it_is_not_asked_for():
    code = "import sys, quatrain.cli, quatrain.run, quatrain.rollouts; sys.exit('vllm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
