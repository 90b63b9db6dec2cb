"""The engine against transformers' own generation, the definition of sampling, and its promises about work and memory."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast

from quatrain.policies import CausalLM, plant
from quatrain.rollouts import Completion, Request, Sampling, TorchEngine, rows
from tests.policies.families import FAMILIES, TOKENIZER, VOCABULARY, build, family, sequences

SOME = ["llama", "mistral", "qwen2, mixed", "gemma3", "gpt2", "opt", "phi", "qwen3_moe", "deepseek_v3"]
"""Of each kind of attention and position one."""


def requests(prompts: Sequence[Tensor], samples: int = 1) -> list[Request]:
    return [Request(p, (7, i, j)) for i, p in enumerate(prompts) for j in range(samples)]


def assert_same(left: Sequence[Completion], right: Sequence[Completion]) -> None:
    """The same texts; log-probabilities to the rounding of float32, as they are stored."""
    assert [(c.tokens.tolist(), c.text, c.finish) for c in left] == [(c.tokens.tolist(), c.text, c.finish) for c in right]
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a.logp, b.logp, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def plain_logp(model: Any, prompt: Tensor, completion: Completion, sampling: Sampling) -> Tensor:
    """The log-probability of each token of an answer by one plain forward pass, renormalized over what could be drawn."""
    logits = model(torch.cat([prompt, completion.tokens])[None]).logits[0, len(prompt) - 1 : -1].double()
    logp = torch.stack([_renormalized(row, sampling) for row in logits])
    return logp.gather(-1, completion.tokens[:, None])[:, 0]


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_is_transformers_generate(name: str):
    model = family(name)
    prompts = sequences()
    expected = [
        model.generate(p[None], attention_mask=torch.ones_like(p[None]), max_new_tokens=20, do_sample=False)[0, len(p) :].tolist()
        for p in prompts
    ]
    assert len({tuple(e) for e in expected}) > 3
    policy = CausalLM(model, TOKENIZER)
    written = TorchEngine(policy, max_sequences=3, tokens_per_pass=8).generate(requests(prompts), Sampling(20, temperature=0))
    assert [c.tokens.tolist() for c in written] == expected


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize(
    "sampling",
    [Sampling(12), Sampling(12, temperature=0.6), Sampling(12, temperature=1.5, top_k=9, top_p=0.8), Sampling(12, temperature=0)],
    ids=["plain", "colder", "truncated", "greedy"],
)
def test_log_probabilities_are_those_of_a_plain_pass(name: str, sampling: Sampling):
    """A greedy answer's are those at temperature 1."""
    model = family(name)
    prompts = sequences()
    own = family(name)
    written = TorchEngine(CausalLM(model, TOKENIZER), max_sequences=3).generate(requests(prompts), sampling)
    for prompt, completion in zip(prompts, written, strict=True):
        expected = plain_logp(own, prompt, completion, sampling)
        assert expected.isfinite().all()
        assert (completion.logp - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize(("max_sequences", "tokens_per_pass"), [(1, 1), (2, 5), (5, 1000), (64, 7), (64, 2048)])
def test_answers_do_not_depend_on_how_they_are_batched(name: str, max_sequences: int, tokens_per_pass: int):
    policy = CausalLM(family(name, torch.float64), TOKENIZER)
    wanted = requests(sequences(), samples=3)
    alone = [TorchEngine(policy).generate([request], Sampling(10))[0] for request in wanted]
    together = TorchEngine(policy, max_sequences=max_sequences, tokens_per_pass=tokens_per_pass).generate(wanted, Sampling(10))
    assert_same(together, alone)
    assert len({tuple(c.tokens.tolist()) for c in alone}) > len(wanted) // 2


def test_answers_depend_on_seed_and_prompt_alone():
    policy = CausalLM(family("llama", torch.float64), TOKENIZER)
    wanted = requests(sequences(), samples=2)
    written = TorchEngine(policy).generate(wanted, Sampling(10))
    backwards = TorchEngine(policy, max_sequences=4).generate(wanted[::-1], Sampling(10))
    assert_same(backwards[::-1], written)
    assert_same(TorchEngine(policy).generate([wanted[0]] * 3, Sampling(10)), [written[0]] * 3)
    reseeded = TorchEngine(policy).generate([Request(r.tokens, (8, *r.seed[1:])) for r in wanted], Sampling(10))
    assert all(a.tokens.tolist() != b.tokens.tolist() for a, b in zip(reseeded, written, strict=True))


def test_a_longer_limit_only_adds():
    policy = CausalLM(family("llama", torch.float64), TOKENIZER)
    short, long = (TorchEngine(policy).generate(requests(sequences()), Sampling(n)) for n in (4, 9))
    assert [c.tokens[:4].tolist() for c in long] == [c.tokens.tolist() for c in short]


@pytest.mark.parametrize("sampling", [Sampling(2), Sampling(2, temperature=0.7, top_p=0.8)], ids=["plain", "truncated"])
def test_frequencies_are_those_of_the_distribution(sampling: Sampling):
    """χ² of the first and of the second token, over answers with seeds as a run has them."""
    model = build(LlamaConfig(**FAMILIES["llama"]().to_dict() | {"vocab_size": 6, "eos_token_id": None}))
    prompt, samples = torch.tensor([3, 5, 1, 4]), 3000
    policy = CausalLM(model, words(*"abcdef"))
    written = TorchEngine(policy, max_sequences=1000).generate([Request(prompt, (0, 1, 5, j)) for j in range(samples)], sampling)
    answers = torch.stack([c.tokens for c in written])
    common = int(answers[:, 0].mode().values)
    for context, drawn in [
        (prompt, answers[:, 0]),
        (torch.cat([prompt, torch.tensor([common])]), answers[answers[:, 0] == common, 1]),
    ]:
        with torch.no_grad():
            expected = _renormalized(model(context[None]).logits[0, -1].double(), sampling).exp()
        counts = torch.bincount(drawn, minlength=6)
        kept = expected > 0
        assert len(drawn) > 500
        assert (kept.sum() < 6) == (sampling.top_p < 1)
        assert kept.sum() > 1
        assert counts[~kept].sum() == 0
        assert chisquare(counts[kept].numpy(), (expected[kept] * len(drawn)).numpy()).pvalue > 1e-3


def _renormalized(logits: Tensor, sampling: Sampling) -> Tensor:
    """log softmax(logits/τ), renormalized over what top-k and then top-p leave."""
    logp = torch.log_softmax(logits / (sampling.temperature or 1.0), -1)
    if sampling.top_k:
        logp[logp.argsort(descending=True)[sampling.top_k :]] = -torch.inf
        logp = logp - logp.logsumexp(-1)
    order = logp.argsort(descending=True)
    before = logp[order].exp().cumsum(-1) - logp[order].exp()
    logp[order[before >= sampling.top_p]] = -torch.inf
    return logp - logp.logsumexp(-1)


# How an answer ends


class Scripted(CausalLM):
    """A policy that writes given tokens after a prompt of one, whatever it is."""

    def __init__(self, script: Sequence[int], tokenizer: Any, ends: frozenset[int] = frozenset()) -> None:
        self.script, self.tokenizer, self.ends, self.base = list(script), tokenizer, ends, torch.nn.Module()

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def keeps_latents(self) -> bool:
        return False

    @property
    def context(self) -> int:
        return 99

    @property
    def end_tokens(self) -> frozenset[int]:
        return self.ends

    def hidden(self, tokens: Tensor, position: Tensor, views: Any, cache: Any = None) -> Tensor:
        return position[:, None].float()

    def logits(self, hidden: Tensor) -> Tensor:
        token = torch.tensor(self.script + [0] * 99)[hidden[:, 0].long()]
        return 20.0 * torch.nn.functional.one_hot(token, max(self.script) + 1).float()


def words(*vocabulary: str) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel(dict(zip(vocabulary, range(len(vocabulary)), strict=True)), unk_token=vocabulary[0]))
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def byte_tokens() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


WORDS = ("a", "b", "\n", "\n\n", "b\nQ", "ues", "</s>")


@pytest.mark.parametrize(
    ("script", "stop", "written", "text", "finish"),
    [
        ("a b a", (), 5, "abaaa", "length"),
        ("a </s> b", (), 2, "a", "end"),
        ("</s>", (), 1, "", "end"),
        ("a \n b", ("\n",), 2, "a", "stop"),
        ("a \n\n b", ("\n",), 2, "a", "stop"),
        ("a \n \n b", ("\n\n",), 3, "a", "stop"),
        ("a b\nQ ues b", ("\nQues",), 3, "ab", "stop"),
        ("b\nQ a", ("\n",), 1, "b", "stop"),
        ("\n a", ("\n",), 1, "", "stop"),
        ("a b \n", ("Q", "b\n", "\n"), 3, "a", "stop"),
        ("a b a b \n", ("\n",), 5, "abab", "stop"),
        ("a </s>", ("</s>",), 2, "a", "end"),
        ("a b\nQ b b ues", ("\nQues",), 5, "ab\nQbbues", "length"),
    ],
)
def test_how_an_answer_ends(script: str, stop: tuple[str, ...], written: int, text: str, finish: str):
    ids = [WORDS.index(word) for word in script.split(" ")]
    policy = Scripted(ids, words(*WORDS), frozenset({WORDS.index("</s>")}))
    (answer,) = TorchEngine(policy).generate([Request(torch.tensor([0]), (0,))], Sampling(5, temperature=0, stop=stop))
    assert answer.tokens.tolist() == [*ids, 0, 0, 0, 0][:written]
    assert (answer.text, answer.finish) == (text, finish)
    assert len(answer.logp) == written


@pytest.mark.parametrize("answer", ["ab🙂🙂", "Grüße — 终于。完"])
@pytest.mark.parametrize("stop", ["🙂🙂", "终于。完"])
def test_stop_strings_of_many_bytes(answer: str, stop: str):
    """A tokenizer may give a single byte to a token."""
    tokenizer = byte_tokens()
    ids = tokenizer(answer + "!!!", add_special_tokens=False)["input_ids"]
    assert len(ids) == len((answer + "!!!").encode())
    request = Request(torch.tensor([0]), (0,))
    (written,) = TorchEngine(Scripted(ids, tokenizer)).generate([request], Sampling(len(ids), temperature=0, stop=(stop,)))
    assert written.text == (answer.removesuffix(stop) if stop in answer else answer + "!!!")
    assert written.finish == ("stop" if stop in answer else "length")


def test_stop_tokens_end_an_answer_besides_the_models_own():
    policy = Scripted([0, 1, 2], words("a", "b", "c"))
    (answer,) = TorchEngine(policy).generate([Request(torch.tensor([0]), (0,))], Sampling(9, temperature=0, stop_tokens=(1,)))
    assert (answer.tokens.tolist(), answer.text, answer.finish) == ([0, 1], "a", "end")


# Work and memory


def count_tokens(policy: CausalLM) -> list[int]:
    """Sizes of the passes through the decoder's embedding."""
    passes: list[int] = []
    policy.base.get_input_embeddings().register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].numel()))
    return passes


def test_results_come_in_the_order_of_the_requests():
    """Answers of very different lengths, more of them than places."""
    policy = CausalLM(family("llama", torch.float64), TOKENIZER)
    policy.base.generation_config.eos_token_id = list(range(3, 15))
    wanted = requests(sequences(), samples=6)
    written = TorchEngine(policy, max_sequences=4).generate(wanted, Sampling(20))
    lengths = [len(c.tokens) for c in written]
    assert min(lengths) < 4 < 12 < max(lengths)
    assert {c.finish for c in written} == {"end", "length"}
    assert_same(written, [TorchEngine(policy).generate([request], Sampling(20))[0] for request in wanted])


def test_a_prompt_is_computed_once_for_its_group():
    policy = CausalLM(family("llama"), TOKENIZER)
    passes = count_tokens(policy)
    prompt = sequences()[0]
    written = TorchEngine(policy).generate(requests([prompt], samples=10), Sampling(6))
    assert sum(passes) == len(prompt) + sum(len(c.tokens) - 1 for c in written)


@pytest.mark.parametrize("max_sequences", [2, 64])
def test_a_shared_beginning_is_computed_once_for_all(max_sequences: int):
    policy = CausalLM(family("llama"), TOKENIZER)
    beginning = torch.arange(10, 40)
    prompts = [torch.cat([beginning, torch.tensor([50 + i, 60 + i])]) for i in range(6)] + [beginning, beginning[:20]]
    passes = count_tokens(policy)
    written = TorchEngine(policy, max_sequences=max_sequences).generate(requests(prompts, samples=2), Sampling(4))
    assert sum(passes) == len(beginning) + 6 * 2 + sum(len(c.tokens) - 1 for c in written)


def test_prefill_passes_stay_within_their_budget():
    policy = CausalLM(family("llama"), TOKENIZER)
    passes = count_tokens(policy)
    TorchEngine(policy, max_sequences=4, tokens_per_pass=8).generate(requests(sequences()), Sampling(4))
    assert max(passes) <= 8 + 4


def test_places_are_taken_as_they_become_free():
    policy = CausalLM(family("llama"), TOKENIZER)
    passes = count_tokens(policy)
    TorchEngine(policy, max_sequences=5).generate(requests([torch.tensor([9])], samples=20), Sampling(7, stop=(), top_k=1))
    assert passes.count(5) >= 20 // 5 * 5
    assert max(passes) <= 6


def test_memory_does_not_grow_with_the_number_of_requests(monkeypatch: pytest.MonkeyPatch):
    kept: list[Any] = []
    monkeypatch.setattr(rows.Prompts, "GROWTH", 4)
    made = rows.Kept.__init__
    monkeypatch.setattr(rows.Kept, "__init__", lambda self: (kept.append(self), made(self))[1])
    policy = CausalLM(family("llama"), TOKENIZER)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, VOCABULARY, (9,), generator=generator) for _ in range(40)]
    for count in (4, 40):
        TorchEngine(policy, max_sequences=2).generate(requests(prompts[:count], samples=2), Sampling(6))
    few, few_rows, many, many_rows = kept
    assert len(few.node) <= len(many.node) <= 2 * 9 + 4
    assert few_rows.stored[0][0].shape[:3] == many_rows.stored[0][0].shape[:3] == (2, 2, rows.Rows.GROWTH)
    for prompts_kept in (few, many):
        assert len(set(prompts_kept.unused)) == len(prompts_kept.unused) == len(prompts_kept.node)
        assert prompts_kept.slot_of == {}


def test_nothing_asked_nothing_done():
    policy = CausalLM(family("llama"), TOKENIZER)
    passes = count_tokens(policy)
    assert TorchEngine(policy).generate([], Sampling(5)) == []
    assert passes == []


def test_a_prompt_without_tokens_is_refused():
    policy = CausalLM(family("llama"), TOKENIZER)
    wanted = [*requests(sequences()), Request(torch.zeros(0, dtype=torch.int64), (0,))]
    with pytest.raises(ValueError, match=r"a request has no tokens.*give a prompt of at least one token"):
        TorchEngine(policy).generate(wanted, Sampling(5))


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2"])
def test_a_policy_that_trains_with_checkpointing_acts_alike(name: str):
    """Between two backward passes as well."""
    written = []
    for checkpointing in (False, True):
        policy = CausalLM(family(name), TOKENIZER, gradient_checkpointing=checkpointing)
        policy.hidden_of(plant(sequences())).sum().backward()
        written.append(TorchEngine(policy).generate(requests(sequences(), samples=2), Sampling(10)))
    assert_same(*written)


def test_it_acts_with_the_weights_of_the_moment():
    policy = CausalLM(family("llama"), TOKENIZER)
    acting = TorchEngine(policy)
    before = acting.generate(requests(sequences()), Sampling(10))
    with torch.no_grad():
        for _, p in policy.named_parameters():
            p.mul_(1.1)
    after = acting.generate(requests(sequences()), Sampling(10))
    assert after[0].logp.tolist() != before[0].logp.tolist()
    assert_same(after, TorchEngine(policy).generate(requests(sequences()), Sampling(10)))
