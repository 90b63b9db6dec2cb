"""Generation and update of SmolLM2 against the machine's floor, generation against transformers, and methods against each other.

Everything is measured once in each round, so that a drift of the machine is in all of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging

from benchmarks.counting import SHAPES, Shape, Sizes
from benchmarks.growth import METHODS
from benchmarks.machine import Probe
from benchmarks.results import arguments, machine, place, write
from benchmarks.side import texts
from quatrain.config import ModelConfig, UpdateConfig
from quatrain.methods import method
from quatrain.policies import CausalLM, load_model
from quatrain.rollouts import Request, Sampling, TorchEngine
from quatrain.types import Batch
from quatrain.update import Learner

GENERATION = Shape(8, 8, 50, 64)
"""What is written: 64 answers at once."""
SWITCHED = "short"
"""The shape on which methods are held against each other."""
QUICK = Shape(2, 2, 8, 4)


def main() -> None:
    parser = arguments("stages", "Generation and update against the floor, against transformers, and method against method.")
    parser.add_argument("--rounds", default=5, type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    name = "tiny" if given.quick else "smollm2"
    stages = Stages(name, {"short": QUICK} if given.quick else SHAPES, QUICK if given.quick else GENERATION, Probe(given.quick))
    console, rounds = Console(highlight=False), []
    stages.round()  # its first time, nothing is warm
    for number in range(2 if given.quick else given.rounds):
        rounds.append(stages.round())
        console.print(f"round {number + 1}: " + ", ".join(f"{key} {value:.4g}" for key, value in rounds[-1].items()))
        told = {"generation": vars(stages.generation), "sizes": vars(stages.sizes), "rounds": rounds}
        write(place(given, "stages"), {"made_with": machine(given.threads)} | told)


class Stages:
    """Two copies of a model, one as a policy and one as transformers has it, and what is measured of them."""

    def __init__(self, name: str, shapes: dict[str, Shape], generation: Shape, probe: Probe) -> None:
        self.policy = CausalLM(*load_model(ModelConfig(name=name), 0))
        self.policy.base.generation_config.eos_token_id = []  # no token ends an answer
        self.plain: Any = load_model(ModelConfig(name=name), 0)[0].eval()
        self.sizes = Sizes.of(self.policy.base.config)
        self.generation, self.probe = generation, probe
        self.engine = TorchEngine(self.policy, max_sequences=generation.answers)
        prompts = texts(self.policy.tokenizer, generation.prompts, generation.prompt_tokens)
        self.prompts = torch.tensor(self.policy.tokenizer(prompts)["input_ids"])
        self.batches = {key: batch_of(shape, self.sizes.vocabulary) for key, shape in shapes.items()}
        self.learner = Learner(self.policy, method("rloo"), UpdateConfig(lr=1e-6), steps=10**9)

    def round(self) -> dict[str, float]:
        """Everything once: operations and bytes a second, and seconds."""
        out = {"rate": self.probe.rate(), "bandwidth": self.probe.bandwidth()}
        out["generation/quatrain"] = timed(self._write)
        out["generation/transformers"] = timed(self._write_plainly)
        for shape in self.batches:
            out[f"update/{shape}"] = timed(lambda shape=shape: self._learn(METHODS[0], shape))
        return out | {f"method/{name}": timed(lambda name=name: self._learn(name, SWITCHED)) for name in METHODS}

    def _write(self) -> None:
        requests = [
            Request(prompt, (0, number, sample))
            for number, prompt in enumerate(self.prompts)
            for sample in range(self.generation.group)
        ]
        answers = self.engine.generate(requests, Sampling(self.generation.answer_tokens))
        assert all(len(answer.tokens) == self.generation.answer_tokens for answer in answers)

    @torch.inference_mode()
    def _write_plainly(self) -> None:
        rows, size = self.prompts.repeat_interleave(self.generation.group, 0), self.generation.answer_tokens
        counts = {"max_new_tokens": size, "min_new_tokens": size}
        out = self.plain.generate(rows, attention_mask=torch.ones_like(rows), do_sample=True, top_k=0, top_p=1.0, **counts)
        assert out.shape[1] == rows.shape[1] + size

    def _learn(self, name: str, shape: str) -> None:
        self.learner.method = method(name).with_settings({"kl.coefficient": 0} if name == "grpo" else {})
        self.learner.learn(self.batches[shape], 1)


def batch_of(shape: Shape, vocabulary: int) -> Batch:
    """Answers of any tokens to prompts of any, no two of which begin alike, with any rewards."""
    prompts = torch.randint(3, vocabulary, (shape.prompts, shape.prompt_tokens)).repeat_interleave(shape.group, 0)
    answers = torch.randint(3, vocabulary, (shape.answers, shape.answer_tokens))
    prompts[:, 0] = torch.arange(3, 3 + shape.prompts).repeat_interleave(shape.group)
    answers[:, 0] = torch.arange(3, 3 + shape.group).repeat(shape.prompts)
    tokens = torch.cat([prompts, answers], 1)
    return Batch(
        tokens=tokens,
        action=(torch.arange(tokens.shape[1]) >= shape.prompt_tokens).expand(tokens.shape),
        logp_rollout=torch.zeros(tokens.shape),
        reward=torch.rand(shape.answers),
        prompt_id=torch.arange(shape.prompts).repeat_interleave(shape.group),
    )


def timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
