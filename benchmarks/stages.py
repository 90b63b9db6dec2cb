"""Generation and update against the machine's floor, generation against transformers, and methods against each other.

With SmolLM2 on a CPU; where there is a GPU, there, with a Llama of 1.2·10⁹ weights as they are drawn, in bfloat16. Everything is
measured once in each round, so that a drift of the machine is in all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging

from benchmarks.counting import SHAPES, Shape, Sizes
from benchmarks.growth import METHODS
from benchmarks.machine import Probe, timed
from benchmarks.results import REST, arguments, machine, place, write
from benchmarks.side import texts
from quatrain.config import ModelConfig, UpdateConfig
from quatrain.methods import method
from quatrain.policies import CausalLM, load_model
from quatrain.rollouts import Request, Sampling, TorchEngine
from quatrain.types import Batch
from quatrain.update import Learner

GENERATION = Shape(8, 8, 50, 64)
"""What is written: 64 answers at once."""
ON_GPU = Shape(8, 8, 512, 256)
GPU_SHAPES = {"short": Shape(16, 8, 128, 256), "long-prompt": Shape(8, 16, 2048, 256), "long-answers": Shape(8, 8, 256, 1024)}
LLAMA = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
SWITCHED = "short"
"""The shape on which methods are held against each other."""
QUICK = Shape(2, 2, 8, 4)
OPERATIONS = 8
"""Those that a profile names."""


def main() -> None:
    parser = arguments("stages", "Generation and update against the floor, against transformers, and method against method.")
    parser.add_argument("--rounds", default=5, type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    logging.disable_progress_bar()
    gpu = torch.cuda.is_available() and not given.quick
    if given.quick:
        models, shapes, generation, probe = _loaded("tiny"), {"short": QUICK}, QUICK, Probe(quick=True)
    elif gpu:
        kind = {"device": torch.device("cuda"), "dtype": torch.bfloat16}
        models, shapes, generation, probe = _drawn(**kind), GPU_SHAPES, ON_GPU, Probe(**kind)
    else:
        models, shapes, generation, probe = _loaded("smollm2"), SHAPES, GENERATION, Probe()
    stages = Stages(*models, shapes, generation, probe)
    console, rounds = Console(highlight=False), []
    told = {"made_with": machine(given.threads), "generation": vars(generation), "sizes": vars(stages.sizes), "rounds": rounds}
    told["shapes"] = {key: vars(shape) for key, shape in shapes.items()}
    file = place(given, "gpu" if gpu else "stages")
    stages.round()  # its first time, nothing is warm
    for number in range(2 if given.quick else given.rounds):
        rounds.append(stages.round())
        console.print(f"round {number + 1}: " + ", ".join(f"{key} {value:.4g}" for key, value in rounds[-1].items()))
        write(file, told)
    write(file, told | {"profile": stages.profile()})


class Stages:
    """Two copies of a model, one as a policy and one as transformers has it, and what is measured of them."""

    def __init__(self, policy: CausalLM, plain: Any, shapes: dict[str, Shape], generation: Shape, probe: Probe) -> None:
        self.policy, self.plain = policy, plain
        self.policy.base.generation_config.eos_token_id = []  # no token ends an answer
        self.sizes = Sizes.of(policy.base.config, policy.base.dtype.itemsize)
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

    def profile(self) -> dict[str, dict[str, float]]:
        """Of generation and of each update: the seconds of each operation of PyTorch that takes the most, and of all others."""
        works = {"generation": self._write} | {
            f"update/{shape}": lambda shape=shape: self._learn(METHODS[0], shape) for shape in self.batches
        }
        return {stage: _profiled(work) for stage, work in works.items()}

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
        rows = self.prompts.repeat_interleave(self.generation.group, 0).to(self.plain.device)
        size = self.generation.answer_tokens
        counts = {"max_new_tokens": size, "min_new_tokens": size}
        out = self.plain.generate(rows, attention_mask=torch.ones_like(rows), do_sample=True, top_k=0, top_p=1.0, **counts)
        assert out.shape[1] == rows.shape[1] + size

    def _learn(self, name: str, shape: str) -> None:
        self.learner.method = method(name).with_settings({"kl.coefficient": 0} if name == "grpo" else {})
        self.learner.learn(self.batches[shape], 1)


def _profiled(work: Callable[[], object]) -> dict[str, float]:
    """Seconds of each of the OPERATIONS that take the most, of the other ones, and of what is none."""
    with torch.profiler.profile() as profile:
        whole = timed(work)
    on_gpu = torch.cuda.is_available()
    taken = {e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1e6 for e in profile.key_averages()}
    most = dict(sorted(taken.items(), key=lambda item: -item[1])[:OPERATIONS])
    others = sum(taken.values()) - sum(most.values())
    return most | dict(zip(REST, (others, max(0.0, whole - sum(taken.values()))), strict=True))


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


def _loaded(name: str) -> tuple[CausalLM, Any]:
    """A model that the library knows, as a policy and as transformers has it."""
    return CausalLM(*load_model(ModelConfig(name=name), 0)), load_model(ModelConfig(name=name), 0)[0].eval()


def _drawn(**kind: Any) -> tuple[CausalLM, Any]:
    """The same of a Llama with weights as they are drawn, made where it is to be."""
    tokenizer = load_model(ModelConfig(name="tiny"), 0)[1]
    ours, plain = (LlamaForCausalLM(LlamaConfig(**LLAMA)).to(**kind).eval() for _ in range(2))
    return CausalLM(ours, tokenizer), plain


if __name__ == "__main__":
    main()
