"""When an answer is at its end, and what it then says: the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from quatrain.policies import CausalLM
from quatrain.rollouts.sampling import Sampling

Finish = Literal["end", "stop", "length", "pause"]


class Ending:
    """The ends of answers that a policy writes. An end token is part of an answer, and of its text it is not."""

    def __init__(self, policy: CausalLM, sampling: Sampling) -> None:
        self.tokens = policy.end_tokens | set(sampling.stop_tokens)
        """Those that end an answer."""
        self._tokenizer, self._sampling = policy.tokenizer, sampling
        self._longest = max((len(stop.encode()) for stop in sampling.stop), default=0)  # a token may be a single byte
        self._harmless: dict[int, bool] = {}  # tokens that cannot be the last of a stop string

    def of(self, answer: Sequence[int], *, pauses: bool) -> Finish | None:
        """Why an answer ends with the last of its tokens, or pauses, if it is to; None where it goes on."""
        if answer[-1] in self.tokens:
            return "end"
        if self._sampling.stop and not self._is_harmless(answer[-1]):
            tail = self._tokenizer.decode(answer[-self._longest - 4 :])
            if any(stop in tail for stop in self._sampling.stop):
                return "stop"
        if len(answer) >= self._sampling.max_tokens:
            return "length"
        return "pause" if pauses else None

    def text(self, answer: Sequence[int], finish: Finish) -> str:
        """What an answer says, cut before the stop string or the end token."""
        text: str = self._tokenizer.decode(answer[:-1] if finish == "end" else answer)
        cuts = [text.index(stop) for stop in self._sampling.stop if stop in text]
        return text[: min(cuts)] if cuts else text

    def _is_harmless(self, token: int) -> bool:
        """Whether no stop string ends in this token, whatever stands before: it is text that shares no character with any."""
        if token not in self._harmless:
            text = self._tokenizer.decode([token, token])  # a second one shows a space that is dropped at the beginning
            self._harmless[token] = bool(text) and not set(text) & {*"".join(self._sampling.stop), "\N{REPLACEMENT CHARACTER}"}
        return self._harmless[token]
