"""vLLM as the engine: its kernels and its scheduler, in this process, on a copy of the policy's weights."""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

import numpy as np
import torch

from quatrain.config import ConfigError, RunConfig
from quatrain.policies import CausalLM, plant
from quatrain.rollouts.ending import Ending
from quatrain.rollouts.engine import Completion, Request
from quatrain.rollouts.sampling import Sampling

AGREEMENT = {torch.float32: 1e-3}
"""How far its log-probabilities may be from the policy's own at the start; in half precision 0.1."""
COLDEST = 0.01
"""Below it, vLLM takes this temperature."""


def check(config: RunConfig) -> None:
    """Raise ConfigError if vLLM cannot act in such a run, before anything is loaded."""
    if find_spec("vllm") is None:
        raise ConfigError(
            "the engine vllm is not installed: pip install 'quatrain[vllm]', or for a CPU as docs/vllm.md says; "
            "or leave engine.name at torch"
        )
    lacking = (
        ("engine.weights", config.engine.weights, ("bfloat16", "int8", "int4"), "same"),
        ("update.routing", config.update.routing, ("rollout",), "none"),
        ("model.dtype", config.model.dtype, ("float64",), "auto"),
    )
    for name, value, lacks, instead in lacking:
        if value in lacks:
            raise ConfigError(
                f"{name} is {value}, which the engine vllm does not have: set it to {instead}, or engine.name=torch"
            )
    for name, value in (("sampling", config.sampling.temperature), ("evaluate", config.evaluate.temperature or 0)):
        if 0 < value < COLDEST:
            raise ConfigError(f"{name}.temperature is {value}, and vLLM draws at {COLDEST} or above: raise it, or set it to 0")


class VLLMEngine:
    """vLLM, with the weights that the policy has at each call. A process has one at a time: a ``with`` block ends with it."""

    def __init__(
        self, policy: CausalLM, *, max_sequences: int = 64, tokens_per_pass: int = 2048, memory_gib: float = 2.0
    ) -> None:
        """Start it. `memory_gib` is for keys and values, and must hold one sequence of the policy's context.

        Raises:
            ConfigError: it does not start, or computes other probabilities than the policy.
        """
        self.policy = policy
        name = f"the model {policy.base.config.name_or_path!r} ({type(policy.base).__name__})"
        try:
            self._vllm, self._engine = _started(
                policy,
                max_model_len=policy.context,
                max_num_seqs=max_sequences,
                max_num_batched_tokens=max(tokens_per_pass, max_sequences, policy.context if _on_cpu(policy) else 0),
                enable_chunked_prefill=not _on_cpu(policy),  # whose generators cannot take back what half a prompt drew
                kv_cache_memory_bytes=int(memory_gib * 2**30),
            )
        except Exception as error:  # whatever another program may raise
            raise ConfigError(
                f"vLLM does not start with {name} ({' '.join(str(error).split())}): set engine.name=torch, "
                "or engine.memory_gib if it is short of memory"
            ) from error
        try:
            self._check(name)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it, and give its memory back."""
        self._engine.engine_core.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Write an answer to each request. What a seed draws is vLLM's own, and after a pause it is drawn from anew."""
        if not requests:
            return []
        self.publish()
        ending = Ending(self.policy, sampling)
        for number, request in enumerate(requests):
            self._ask(str(number), request, sampling, ending)
        tokens: list[list[int]] = [[] for _ in requests]
        logp: list[list[float]] = [[] for _ in requests]
        done: dict[int, Completion] = {}
        while self._engine.has_unfinished_requests():
            for told in self._step():
                number = int(told.request_id)
                request, (new,) = requests[number], told.outputs
                for token, known in zip(new.token_ids, new.logprobs, strict=True):
                    tokens[number].append(token)
                    logp[number].append(known[token].logprob)
                written = [*request.tokens[len(request.tokens) - request.written :].tolist(), *tokens[number]]
                pauses = request.most is not None and len(tokens[number]) >= request.most
                finish = ending.of(written, pauses=pauses) or ("length" if told.finished else None)  # the context is full
                if finish is None:
                    continue
                if not told.finished:
                    self._engine.abort_request([told.request_id])
                text = ending.text(written, finish)
                done[number] = Completion(torch.tensor(tokens[number]), torch.tensor(logp[number]), text, finish)
        return [done[number] for number in range(len(requests))]

    def publish(self) -> None:
        """Take over the policy's weights as they are now, and forget what was computed with others.

        Tied weights are sent under each of their names: an output head is a copy, and one that is not sent stays as it was.
        """
        weights = iter(self.policy.weights().items())
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        forgot = self._engine.reset_prefix_cache()
        assert forgot, "keys and values of other weights are in use"

    def _ask(self, name: str, request: Request, sampling: Sampling, ending: Ending) -> None:
        left = sampling.max_tokens - request.written
        state = np.random.SeedSequence((*request.seed, request.written)).generate_state(1, np.uint64)
        drawing = self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            seed=int(state[0] >> np.uint64(1)),
            max_tokens=left if request.most is None else min(left, request.most),
            stop_token_ids=sorted(ending.tokens),
            ignore_eos=True,  # what ends an answer is the line above
            logprobs=0,
            detokenize=False,
            output_kind=self._vllm.sampling_params.RequestOutputKind.DELTA,
        )
        self._engine.add_request(name, {"prompt_token_ids": request.tokens.tolist()}, drawing)

    def _step(self) -> list[Any]:
        """One token more for each answer that is being written."""
        with torch.compiler.set_stance("force_eager") if _on_cpu(self.policy) else contextlib.nullcontext():
            return self._engine.step()

    @torch.no_grad()
    def _check(self, name: str) -> None:
        """Compare some log-probabilities with the policy's own: a weight that was not taken over would make them others."""
        prompt = torch.arange(3, 11) % self.policy.base.get_input_embeddings().weight.shape[0]
        (answer,) = self.generate([Request(prompt, (0,))], Sampling(4, temperature=0))
        sequence = torch.cat([prompt, answer.tokens])
        logits = self.policy.logits(self.policy.hidden_of(plant([sequence]))[len(prompt) - 1 : -1]).cpu()
        own = torch.log_softmax(logits, -1).gather(-1, answer.tokens[:, None])[:, 0]
        error, limit = (own - answer.logp).abs().max().item(), AGREEMENT.get(self.policy.base.dtype, 0.1)
        if not error <= limit:
            raise ConfigError(
                f"vLLM gives other probabilities than {name} has (log-probabilities differ by {error:.2g}, allowed {limit:g}): "
                "set engine.name=torch"
            )


def _on_cpu(policy: CausalLM) -> bool:
    """Whether nothing is compiled, which would take a compiler there, and longer than it saves."""
    return policy.device.type == "cpu"


def _started(policy: CausalLM, **sizes: int) -> tuple[Any, Any]:
    """The module and its engine for models like the policy, in this process, where it can be handed weights."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    set_num_threads = torch.set_num_threads
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = copy.deepcopy(policy.base.config)
        config.architectures = [type(policy.base).__name__]
        config.save_pretrained(folder)
        try:
            vllm: Any = import_module("vllm")
            settings = vllm.EngineArgs(
                model=folder,
                skip_tokenizer_init=True,
                load_format="dummy",  # of weights there is only what is published
                dtype=str(policy.base.dtype).removeprefix("torch."),
                enforce_eager=_on_cpu(policy),
                logprobs_mode="processed_logprobs",  # of what is drawn from
                generation_config="vllm",
                **sizes,
            ).create_engine_config()
            if settings.model_config.using_transformers_backend():  # which changes the class that the policy is of
                raise ValueError(f"it has no code of its own for {config.architectures[0]}")
            return vllm, vllm.LLMEngine.from_vllm_config(settings, disable_log_stats=True)
        finally:
            torch.set_num_threads = set_num_threads  # which it makes do nothing
