"""Time and memory of a step as one thing after the other grows: a small Llama, a process of its own for each point."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from benchmarks.results import arguments, machine, place, write
from benchmarks.side import Job, Side, texts

METHODS = ("grpo", "dapo", "cispo", "gspo", "sapo", "rloo", "dr_grpo", "reinforce")
"""Rows that need answers and their rewards alone."""
STEPS = 5
"""Measured at each point, after one that is not."""


@dataclass(frozen=True)
class Point:
    """A step, of which one number grows at a time."""

    answer_tokens: int = 32
    group_size: int = 8
    prompts: int = 4
    vocabulary: int = 8192
    methods: int = 1
    """That take turns in one run, a step each."""


GROWTH = {
    "answer_tokens": (16, 32, 64, 128, 256, 512),
    "group_size": (2, 4, 8, 16, 32, 64),
    "prompts": (1, 2, 4, 8, 16, 32),
    "vocabulary": (2048, 8192, 32768, 131072),
    "methods": (1, 2, 4, 8),
}
PROMPT_TOKENS = 64


def main() -> None:
    parser = arguments("growth", "Time and memory of a step as it grows.")
    parser.add_argument("--only", nargs="*", choices=GROWTH, default=list(GROWTH), help="what grows")
    given = parser.parse_args()
    logging.disable_progress_bar()
    console, path = Console(highlight=False), place(given, "growth")
    points: list[dict[str, Any]] = []
    for name in given.only:
        for value in GROWTH[name][:2] if given.quick else GROWTH[name]:
            found = measure(replace(Point(), **{name: value}), given.threads, 2 if given.quick else STEPS)
            points.append({"grows": name, "value": value, **found})
            console.print(f"{name} {value}: {found['seconds']:.3f} s, {found['peak_gib']:.2f} GiB")
            write(path, {"made_with": machine(given.threads), "base": asdict(Point()), "points": points})


def measure(point: Point, threads: int, steps: int) -> dict[str, float]:
    """Medians of a few steps; where methods take turns, each has as many."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_model(point.vocabulary, Path(folder))
        prompts = texts(tokenizer, 4 * point.prompts, PROMPT_TOKENS)
        methods = list(METHODS[: point.methods])
        shape = (point.prompts, point.group_size, point.answer_tokens)
        with Side("benchmarks.with_quatrain", Job(folder, prompts, *shape, methods=methods, threads=threads)) as side:
            side.step()
            told = [side.step() for _ in range(steps * point.methods)]
    return {name: median(step[name] for step in told) for name in ("seconds", "rollout", "update")} | {
        "peak_gib": max(step["peak_gib"] for step in told)
    }


def make_model(vocabulary: int, folder: Path) -> PreTrainedTokenizerFast:
    """A Llama of four layers with weights as they are drawn, whose tokens are numbered words."""
    named = ["<pad>", "<end>", *(f"w{i}" for i in range(2, vocabulary))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(named)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>", unk_token="<pad>")
    sizes = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=vocabulary,
        **sizes,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


if __name__ == "__main__":
    main()
