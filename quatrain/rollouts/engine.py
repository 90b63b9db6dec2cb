"""The embedded engine: continuous batching over a forest of prompts, on the policy's own weights.

Prompts are read as a forest: what they share is computed and stored once, in slots, each of which is seen by everything below its
node. An answer has a row of keys and values of its own behind the prompt that it shares with others. Each step computes the last
token of all answers that are being written, and draws the next; a row whose answer has ended is at once another's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from quatrain.policies import CausalLM, Forest, plant
from quatrain.policies.linear import packed
from quatrain.policies.routing import NONE
from quatrain.rollouts.ending import Ending, Finish
from quatrain.rollouts.precision import Precision, Served
from quatrain.rollouts.rows import Capture, Prompts, Rows, captured
from quatrain.rollouts.sampling import Sampling

STRIDE = 16


@dataclass(frozen=True)
class Request:
    """One answer to write, or to go on with. What it says depends on `seed`, and not on what else is being written."""

    tokens: Int[Tensor, "T"]
    """The prompt, at least one token, and what is written of the answer."""
    seed: tuple[int, ...]
    written: int = 0
    """How many of the tokens are the answer's."""
    most: int | None = None
    """After so many further tokens it pauses; None is at its end."""


@dataclass(frozen=True)
class Completion:
    """An answer: what was drawn, and its log-probabilities under the distributions it was drawn from."""

    tokens: Int[Tensor, "A"]
    """Those drawn now."""
    logp: Float[Tensor, "A"]
    text: str
    """The whole answer's, cut before the stop string or the end token."""
    finish: Finish
    """An end token, a stop string, the limit of tokens, or that of this request, after which one may go on."""
    experts: Int[Tensor, "T L K"] | None = None
    """Those that were chosen now, if they were asked for, for the request's tokens and those drawn; -1 for the last token, which
    nothing came after."""


@runtime_checkable
class Engine(Protocol):
    """What writes answers. Results come in the order of the requests."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]: ...


class TorchEngine:
    """The engine that needs nothing but the policy, whose weights it shares, or follows in another precision."""

    def __init__(
        self,
        policy: CausalLM,
        *,
        max_sequences: int = 64,
        tokens_per_pass: int = 2048,
        weights: Literal["same"] | Precision = "same",
        tells_experts: bool = False,
    ) -> None:
        self._served = None if weights == "same" else Served(policy, weights)
        self.policy = self._served.policy if self._served else policy
        self.tells_experts = tells_experts
        self.max_sequences = max_sequences
        self.tokens_per_pass = tokens_per_pass
        on_gpu = policy.device.type == "cuda"
        self.stride = STRIDE if on_gpu else 1
        """Tokens that are drawn in each answer before it is asked whether it has ended: to ask a GPU is to wait for it."""
        self.capture: Capture | None = captured if on_gpu and self.policy.experts is None else None
        """How a step is made repeatable; experts are chosen with a look at the GPU."""

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Write an answer to each request. At most `max_sequences` are written at once; the others wait for a free place."""
        if not requests:
            return []
        if not all(len(request.tokens) for request in requests):
            raise ValueError("a request has no tokens, and nothing to go on from: give a prompt of at least one token")
        if self._served:
            self._served.follow()
        with packed(self.policy.base):
            return _Generation(self, requests, sampling).run()


@dataclass
class _Answer:
    """One answer that is being written."""

    request: int
    leaf: int
    """The node of the prompt's last token."""
    start: int
    """Position of its first token that is drawn now."""
    written: list[int]
    """All its tokens."""
    before: int
    """How many of them were drawn before."""
    most: int
    """How many are drawn now at most."""
    logp: list[float] = field(default_factory=list)
    experts: list[Int[Tensor, "L K"]] = field(default_factory=list)
    """Those of its tokens, if they are asked for."""
    finish: Finish | None = None

    @property
    def drawn(self) -> int:
        """How many of its tokens are drawn now."""
        return len(self.logp)


class _Generation:
    """One call of `generate`: the forest of its prompts, and who is writing."""

    def __init__(self, engine: TorchEngine, requests: Sequence[Request], sampling: Sampling) -> None:
        self.engine, self.policy, self.requests, self.sampling = engine, engine.policy, requests, sampling
        self.forest: Forest = plant([request.tokens for request in requests])
        self.leaf = [int(self.forest.path[i, len(r.tokens) - 1]) for i, r in enumerate(requests)]
        self.waiting = sorted(range(len(requests)), key=lambda i: self.leaf[i], reverse=True)
        self.users = torch.zeros(len(self.forest), dtype=torch.int64)  # unfinished requests below each node
        for path in self.forest.path:
            self.users[path[path >= 0]] += 1
        self.hidden: dict[int, Tensor] = {}  # last hidden state of the leaves that are in use
        self.experts: dict[int, Int[Tensor, "L K"]] = {}  # of the forest's nodes, if they are asked for
        self.prompts = Prompts(self.forest, self.policy.device)
        self.rows = Rows(
            min(engine.max_sequences, len(requests)),
            self.policy,
            sampling,
            spare=engine.stride,
            capture=engine.capture,
            tells_experts=engine.tells_experts,
        )
        self.ending = Ending(self.policy, sampling)
        self.writing: list[_Answer | None] = []
        """Whose each row is; nobody's where an answer has ended, and the row is still computed."""
        self.arranged = False
        """Whether the rows know what they are."""
        self.done: dict[int, Completion] = {}

    def run(self) -> list[Completion]:
        while self.waiting or self.writing:
            while started := self._admit():
                self._look(started, 1)
                self._retire()
            if self.writing:
                if not self.arranged:
                    self._arrange()
                self.rows.write(self.engine.stride)
                self._look(self.writing, self.engine.stride)
                self._retire()
        return [self.done[i] for i in range(len(self.requests))]

    def _admit(self) -> Sequence[_Answer]:
        """Give the free places to waiting requests, neighbours in the forest first, and draw the first token of each."""
        started, drawing = [], []
        while self.waiting and len(self.writing) + len(started) < self.engine.max_sequences:
            index = self.waiting.pop()
            request = self.requests[index]
            uniform = np.random.Generator(np.random.Philox(np.random.SeedSequence(request.seed))).random(self.sampling.max_tokens)
            before = request.tokens[len(request.tokens) - request.written :].tolist()
            most = self.sampling.max_tokens if request.most is None else request.most
            started.append(_Answer(index, self.leaf[index], len(request.tokens), before, request.written, most))
            drawing.append(torch.from_numpy(uniform[request.written :]))
        if started:
            self._read(started)
            hidden = torch.stack([self.hidden[answer.leaf] for answer in started])
            self.rows.add([answer.start for answer in started], drawing, hidden)
            self.writing += started
            self.arranged = False
        return started

    def _read(self, started: Sequence[_Answer]) -> None:
        """Compute the nodes, parents first, that the prompts of `started` need and that are not computed."""
        need: set[int] = set()
        for answer in started:
            need.update(self._path(answer))
        nodes = torch.tensor(sorted(need - self.prompts.slot_of.keys()), dtype=torch.int64)
        leaves = {answer.leaf for answer in started}
        for some in nodes.split(self.engine.tokens_per_pass) if len(nodes) else ():
            view = self.prompts.take(some)
            with self.policy.routed() if self.engine.tells_experts else contextlib.nullcontext() as routing:
                hidden = self.policy.hidden(self.forest.tokens[some], self.forest.position[some], view, self.prompts)
            if routing is not None:
                self.experts.update(zip(some.tolist(), routing.chosen.to("cpu", torch.int16), strict=True))
            self.hidden.update((node, hidden[i]) for i, node in enumerate(some.tolist()) if node in leaves)

    def _look(self, answers: Sequence[_Answer | None], steps: int) -> None:
        """Learn what the last rows drew in the last steps, each for one of `answers`, up to where that ends."""
        tokens, logp, chosen = self.rows.read(len(answers), steps)
        for row, answer in enumerate(answers):
            if answer is None:
                continue
            before = answer.drawn
            for token, own in zip(tokens[row], logp[row], strict=True):
                answer.written.append(token)
                answer.logp.append(own)
                answer.finish = self.ending.of(answer.written, pauses=answer.drawn >= answer.most)
                if answer.finish:
                    break
            answer.experts += [each[row] for each in chosen[: answer.drawn - before]]

    def _retire(self) -> None:
        """Finish the answers that ended, and give up their rows."""
        for row, answer in enumerate(self.writing):
            if answer is not None and answer.finish:
                self._finish(answer, answer.finish)
                self.writing[row] = None
        empty = {row for row, answer in enumerate(self.writing) if answer is None}
        fits = self.rows.longest <= self.sampling.max_tokens  # as who is not looked at draws on like the others
        kept = self.engine.capture is not None and fits and self.arranged and not self.waiting
        if empty and not (kept and 4 * len(empty) < len(self.writing)):
            self.writing = [self.writing[row] for row in self.rows.drop(empty)]
            self.arranged = False

    def _finish(self, answer: _Answer, finish: Finish) -> None:
        path = self._path(answer)
        self.done[answer.request] = Completion(
            torch.tensor(answer.written[answer.before :]),
            torch.tensor(answer.logp),
            self.ending.text(answer.written, finish),
            finish,
            self._experts(answer, path),
        )
        self.users[path] -= 1
        unused = [node for node, users in zip(path, self.users[path].tolist(), strict=True) if not users]
        self.prompts.free(unused)
        if answer.leaf in unused:
            del self.hidden[answer.leaf]

    def _arrange(self) -> None:
        """Tell the rows what they are, once they are others."""
        answers = [answer for answer in self.writing if answer is not None]
        if any(answer.leaf not in self.rows.trunk_of for answer in answers):
            self.rows.stand_on(self.prompts.trunks({answer.leaf: self._path(answer) for answer in answers}))
        self.rows.arrange([answer.leaf for answer in answers], [answer.drawn for answer in answers])
        self.arranged = True

    def _path(self, answer: _Answer) -> list[int]:
        """The nodes of its prompt."""
        return self.forest.path[answer.request, : answer.start].tolist()

    def _experts(self, answer: _Answer, prompt: Sequence[int]) -> Tensor | None:
        if not self.engine.tells_experts:
            return None
        known = [*(self.experts[node] for node in prompt), *answer.experts]
        return torch.stack([*known, torch.full_like(known[0], NONE)])
