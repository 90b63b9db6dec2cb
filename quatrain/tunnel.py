"""The model ``tunnel``: a small character model that has read written-out solutions, made once for each setting and kept."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokenizers
import torch
import transformers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from quatrain.config import TunnelConfig
from quatrain.policies import cache, character_tokenizer
from quatrain.prompts import FAMILIES, Template, templates, written

BATCH = 32
"""Problems of one step."""
LR = 1e-3
WARMUP = 0.05
"""Share of the steps over which the learning rate rises; then it falls to 0 along a cosine."""
PLAIN = Template("plain")
"""How the problems are put."""


def folder(config: TunnelConfig) -> Path:
    """Where the model of these settings lies, or will lie: named by the settings, the code and the versions that make it."""
    sources = [Path(str(module.__file__)).read_text() for module in (templates, written)] + [Path(__file__).read_text()]
    versions = [package.__version__ for package in (torch, transformers, tokenizers)]
    made_of = json.dumps([config.model_dump(mode="json"), sources, versions])
    return cache() / "tunnel" / hashlib.sha256(made_of.encode()).hexdigest()[:16]


def make(config: TunnelConfig) -> Path:
    """Pre-train the model of these settings, unless it is there; who comes second waits for the first."""
    place = folder(config)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            work = Path(tempfile.mkdtemp(dir=place.parent))
            try:
                with _one_thread():
                    model, tokenizer = pretrain(config)
                model.save_pretrained(work)
                tokenizer.save_pretrained(work)
                work.rename(place)
            except BaseException:
                shutil.rmtree(work)
                raise
    return place


def pretrain(config: TunnelConfig) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """Minimize −log π(solution | question) over problems of all families and difficulties, each seen once."""
    # the two words that stand around every question are one token each
    tokenizer = character_tokenizer(["Question: ", "\nAnswer:"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _network(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    draw = random.Random(f"tunnel/{config.seed}")
    for step in range(config.steps):
        rises = min(1.0, (step + 1) / (WARMUP * config.steps))
        optimizer.param_groups[0]["lr"] = LR * rises * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        tokens, solution = _encode(tokenizer, [_shown(config, draw) for _ in range(BATCH)])
        _loss(model, tokens, solution).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model, tokenizer


def _loss(model: LlamaForCausalLM, tokens: Tensor, solution: Tensor) -> Tensor:
    """The mean of −log π over the tokens of solutions."""
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    told = solution[:, 1:]
    return nn.functional.cross_entropy(model.lm_head(hidden[told]), tokens[:, 1:][told])


def _network(vocabulary: int) -> LlamaForCausalLM:
    """0.8 M parameters in two layers: few and wide ones take the least time per token."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=32,
            initializer_range=0.06,  # width^−½; the usual 0.02 is a large network's, and learns this little in as little time
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},  # texts are short: turns of up to 600 tokens
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def _shown(config: TunnelConfig, draw: random.Random) -> tuple[str, str]:
    """A problem as the policy will read it, and what it is to write."""
    family = FAMILIES[draw.choice(sorted(FAMILIES))]
    low, high = config.difficulty
    problem = family.make(draw, min(draw.randint(low, high), family.most))
    solution = str(problem.demonstration)
    if draw.random() < config.wrong:
        solution = solution[:-1] + _off_by_one(solution[-1])
    return PLAIN.render(problem), PLAIN.completion(solution)


def _off_by_one(character: str) -> str:
    """The next digit or letter, so that one problem has one wrong answer."""
    row = written.LETTERS if character in written.LETTERS else "0123456789"
    return row[(row.index(character) + 1) % len(row)]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Tokens, and where they are part of a solution; both [B, T]."""
    asked, told = (tokenizer([pair[i] for pair in texts], add_special_tokens=False)["input_ids"] for i in (0, 1))
    width = max(len(a) + len(t) for a, t in zip(asked, told, strict=True))
    tokens = torch.zeros(len(texts), width, dtype=torch.int64)
    solution = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, (a, t) in enumerate(zip(asked, told, strict=True)):
        tokens[row, : len(a) + len(t)] = torch.tensor([*a, *t])
        solution[row, len(a) : len(a) + len(t)] = True
    return tokens, solution


@contextmanager
def _one_thread() -> Iterator[None]:
    """The number of threads decides in which order numbers are added, and so their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
