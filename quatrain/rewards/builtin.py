"""The rewards that ship. Each is a plain function of facts about answers, as a user's own reward is; see :mod:`.reward`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import expm1
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from quatrain.rewards.verifiers import (
    by_last_word,
    by_mathematics,
    by_text,
    is_mathematics,
    reasoning_gym_score,
    same_mathematics,
    same_text,
    written_score,
)

ONE_LINE_OR_BOXED = re.compile(r"[^\n]+|(?s:.*\\boxed\{.+\}.*)")


def correct(
    completion: str, answer: str | None, *, info: Mapping[str, Any], compare: Literal["auto", "math", "text"] = "auto"
) -> float:
    """1 for a right answer, 0 for a wrong one, between for partial credit: the task's own verifier.

    A reasoning-gym problem is scored by its data set, on what stands in the last ``<answer>…</answer>`` or else the whole answer.
    A written problem is right if its last word is, as the problem's own rule has it, whatever stands before.
    Any other is compared with its reference answer as ``compare`` says: ``math`` by math-verify; ``text`` by equality up to case
    and white space; ``auto`` by ``math`` where math-verify finds a number or LaTeX in the reference answer, else by ``text``.
    """
    if "reasoning_gym" in info:
        return reasoning_gym_score(completion, info["reasoning_gym"])
    if "written" in info:
        return written_score(completion, info["written"])
    gold = _required(answer)
    by_math = compare == "math" or (compare == "auto" and is_mathematics(gold))
    return float(same_mathematics(completion, gold) if by_math else same_text(completion, gold))


def math(completion: str, answer: str | None) -> float:
    """1 if the last expression of the answer equals the reference answer, else 0: github.com/huggingface/Math-Verify."""
    return float(same_mathematics(completion, _required(answer)))


def majority(completions: list[str], *, compare: Literal["auto", "math", "text", "last_word"] = "auto") -> list[float]:
    """1 for the answers that agree with the most frequent one, 0 for the others: the vote of TTRL (arXiv:2504.16084), eq. 2.

    They agree as an answer agrees with its reference in :func:`correct`, by ``math``, by ``text``, or by their ``last_word`` as
    the written tasks are judged; ``auto`` is ``math`` where math-verify finds a number or LaTeX in more than half of those that
    are not empty, else ``text``. Where two are as frequent, the one that
    came first wins. An answer in which nothing can be read has no vote and gets 0.
    """
    written = [text for text in completions if text.strip()]
    by_math = compare == "math" or (compare == "auto" and 2 * sum(map(is_mathematics, written)) > len(written))
    classes = (by_last_word if compare == "last_word" else by_mathematics if by_math else by_text)(completions)
    votes = Counter(kind for kind in classes if kind is not None)
    winner = max(votes, key=votes.__getitem__, default=-1)  # the first of the most frequent: keys stand in their order
    return [float(kind == winner) for kind in classes]


def format(completion: str, *, pattern: re.Pattern[str] = ONE_LINE_OR_BOXED) -> float:
    """1 if the stripped answer as a whole matches the regular expression ``pattern``, else 0.

    The default wants one line that is not empty, or a ``\\boxed{…}`` anywhere.
    """
    return float(pattern.fullmatch(completion.strip()) is not None)


def length(*, tokens: int, target_tokens: PositiveInt, per_token: PositiveFloat = 0.01) -> float:
    """−per_token · max(0, |y| − target): a penalty for each token above a target."""
    return -per_token * max(0, tokens - target_tokens)


def overlong(*, tokens: int, max_answer_tokens: int, buffer_tokens: PositiveInt | None = None) -> float:
    """max(−1, min(0, (L − B − |y|) / B)): soft over-long punishment, DAPO (arXiv:2503.14476) eq. 13.

    0 up to L − B tokens, falling to −1 at L. L is ``max_answer_tokens`` of the run, B is ``buffer_tokens``; without it a fifth
    of L, as in the paper (4096 of 20480).
    """
    buffer = buffer_tokens or max(1, max_answer_tokens // 5)
    return max(-1.0, min(0.0, (max_answer_tokens - buffer - tokens) / buffer))


@dataclass(frozen=True)
class Criterion:
    """What an answer should hold, or should not: one line of a rubric."""

    pattern: re.Pattern[str]
    """The regular expression that is looked for."""
    weight: PositiveFloat = 1.0
    """How much it counts."""
    full: PositiveInt = 1
    """How often it is to be found for the whole score; less often is a share of it."""
    absent: bool = False
    """Whether the whole score is for not finding it, and any find is 0."""
    veto: bool = False
    """Whether a score of 0 here makes the reward 0."""

    def score(self, completion: str) -> float:
        found = sum(1 for _ in self.pattern.finditer(completion))
        return float(found == 0) if self.absent else min(found, self.full) / self.full


def rubric(
    completion: str, *, criteria: Annotated[list[Criterion], Field(min_length=1)], saturation: PositiveFloat | None = None
) -> float:
    """1[no veto] · Σ w·sat(s) / Σ w over the ``criteria``;  sat(s) = (1 − e^(−s/saturation)) / (1 − e^(−1/saturation)).

    An answer earns more by doing something for each criterion than everything for one: the smaller ``saturation`` is, the more;
    without it sat(s) = s. Weights, veto and saturation are those of rubric anchors (arXiv:2508.12790), which prints no formula:
    this one is ours, and so is that a program scores, and not a model.
    """
    scores = [criterion.score(completion) for criterion in criteria]
    if any(criterion.veto and score == 0 for criterion, score in zip(criteria, scores, strict=True)):
        return 0.0
    felt = scores if saturation is None else [expm1(-score / saturation) / expm1(-1 / saturation) for score in scores]
    weights = [criterion.weight for criterion in criteria]
    return sum(weight * score for weight, score in zip(weights, felt, strict=True)) / sum(weights)


def _required(answer: str | None) -> str:
    if answer is None:
        raise ValueError(
            "this problem has no reference answer to compare with: give task.answer_column, or judge with another reward"
        )
    return answer


BUILTIN = {function.__name__: function for function in (correct, math, majority, format, length, overlong, rubric)}
