"""What a step of GRPO must compute and read at the least, and so the time that it takes at the least.

A pass of N tokens, of which R are asked for the next one, over A pairs of a token and a token that it sees, S of them stored:

    operations = 2·(W·N + V·D·R) + 4·L·H·d·A
    bytes      = b·(W + V·D) + 2·b·L·K·d·S
    seconds    ≥ max(operations / rate, bytes / bandwidth)

W are the weights of the linear layers, V·D those of the head, L layers, H heads of d numbers, K of them for keys and values, each
number of b bytes: 4 on a CPU and 2 on a GPU. What answers share of their prompt is computed, stored and read once. A gradient is
twice the operations of its forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Those of a decoder with gated feed-forward layers, whose head is its table of tokens."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    vocabulary: int
    number: int = 4
    """Bytes of one."""

    @classmethod
    def of(cls, config: Any, number: int = 4) -> Sizes:
        """Those that a configuration of transformers says, with numbers of so many bytes."""
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.intermediate_size,
            config.vocab_size,
            number,
        )

    @property
    def linear(self) -> int:
        """W, the weights of all linear layers between the table of tokens and the head."""
        attention = 2 * self.width * self.head_width * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def head(self) -> int:
        """V·D."""
        return self.vocabulary * self.width


SMOLLM2 = Sizes(layers=30, width=576, heads=9, kv_heads=3, head_width=64, inner=1536, vocabulary=49152)


@dataclass(frozen=True)
class Shape:
    """A step: so many prompts, so many answers to each, and the tokens of one prompt and of one answer."""

    prompts: int
    group: int
    prompt_tokens: int
    answer_tokens: int

    @property
    def answers(self) -> int:
        return self.prompts * self.group

    def __str__(self) -> str:
        return f"{self.prompts} × {self.group}, {self.prompt_tokens} + {self.answer_tokens}"


SHAPES = {"short": Shape(8, 8, 50, 16), "long-prompt": Shape(4, 16, 400, 32), "long-answers": Shape(4, 8, 50, 256)}
"""Those that are measured."""


@dataclass(frozen=True)
class Limit:
    """What the machine can do."""

    rate: float
    """Operations of a matrix product a second."""
    bandwidth: float
    """Bytes read a second."""


@dataclass(frozen=True)
class Work:
    """What must be done before what comes next can begin."""

    operations: float
    bytes: float

    def seconds(self, limit: Limit) -> float:
        """The least."""
        return max(self.operations / limit.rate, self.bytes / limit.bandwidth)


def forward(sizes: Sizes, tokens: int, rows: int, pairs: int, keys: int = 0) -> Work:
    """One pass."""
    operations = 2 * (sizes.linear * tokens + sizes.head * rows) + 4 * sizes.layers * sizes.heads * sizes.head_width * pairs
    stored = 2 * sizes.layers * sizes.kv_heads * sizes.head_width * keys
    return Work(operations, sizes.number * (sizes.linear + sizes.head + stored))


def prefill(sizes: Sizes, shape: Shape) -> Work:
    """Each prompt once, of which the last token is asked for the first one of all its answers."""
    tokens = shape.prompts * shape.prompt_tokens
    return forward(sizes, tokens, shape.prompts, shape.prompts * _triangle(shape.prompt_tokens), tokens)


def decode(sizes: Sizes, shape: Shape) -> list[Work]:
    """A pass for each further token of all answers: it reads the prompts' keys and values once, and those of every answer."""
    stored = shape.prompts * shape.prompt_tokens
    return [
        forward(
            sizes, shape.answers, shape.answers, shape.answers * (shape.prompt_tokens + written), stored + shape.answers * written
        )
        for written in range(1, shape.answer_tokens)
    ]


def gradient(sizes: Sizes, shape: Shape) -> Work:
    """Prompts once, and of answers all tokens but the last, which nothing is predicted from: forward, and backward twice that."""
    written = shape.answer_tokens - 1
    tokens = shape.prompts * shape.prompt_tokens + shape.answers * written
    rows = shape.prompts + shape.answers * written
    answers = shape.answers * (written * shape.prompt_tokens + _triangle(written))
    once = forward(sizes, tokens, rows, shape.prompts * _triangle(shape.prompt_tokens) + answers)
    return Work(3 * once.operations, 3 * once.bytes)


def optimizer(sizes: Sizes) -> Work:
    """The gradient's norm reads it; AdamW reads weights, gradient and two moments, and writes all but the gradient."""
    return Work(0, 8 * sizes.number * (sizes.linear + sizes.head))


def floor(works: Iterable[Work], limit: Limit) -> float:
    """Seconds of works that wait for each other, at the least."""
    return sum(work.seconds(limit) for work in works)


def _triangle(n: int) -> int:
    return n * (n + 1) // 2
