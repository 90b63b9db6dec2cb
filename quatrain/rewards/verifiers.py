"""Whether an answer is right: reasoning-gym's verifiers, math-verify, and plain text. Libraries are imported when they judge."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of every answer that it cannot parse in time


def final_answer(completion: str) -> str:
    """What stands in the last ``<answer>…</answer>``, if there is one, else everything; without surrounding space."""
    tagged = re.findall(r"(?s)<answer>(.*?)</answer>", completion)
    return (tagged[-1] if tagged else completion).strip()


def last_word(completion: str) -> str:
    """What stands after the last white space; empty where nothing is written."""
    return (completion.split() or [""])[-1]


def reading(completion: str, info: Mapping[str, Any]) -> str | None:
    """The answer that `completion` comes to, as text; None where there is none. `info` is the problem's."""
    return (last_word(completion) if "written" in info else _normal(final_answer(completion))) or None


def reasoning_gym_score(completion: str, problem: Mapping[str, Any]) -> float:
    """The score in [0, 1] that the data set's own verifier gives to the final answer; some give partial credit."""
    data_set = _data_set(problem["data_set"], json.dumps(problem["options"], sort_keys=True))
    return float(data_set.score_answer(final_answer(completion), _from_json(problem["entry"])))


def written_score(completion: str, rule: Mapping[str, Any]) -> float:
    """1 if the last word of `completion` is what `rule` wants, else 0: ``is`` a text, or two numbers with this ``sum``."""
    last = last_word(completion)
    if "is" in rule:
        return float(last == rule["is"])
    return float(re.fullmatch(r"[0-9]+\+[0-9]+", last) is not None and sum(map(int, last.split("+"))) == rule["sum"])


def same_mathematics(completion: str, answer: str) -> bool:
    """Whether math-verify finds the expression in `completion` equal to the one in `answer`."""
    return _math().verify(_math().parse(answer), _math().parse(completion))


def is_mathematics(answer: str) -> bool:
    """Whether math-verify finds an expression in `answer`: a number, or LaTeX."""
    return bool(_math().parse(answer))


def same_text(completion: str, answer: str) -> bool:
    """Whether the final answer is `answer`, up to case and white space."""
    return _normal(final_answer(completion)) == _normal(answer)


def by_mathematics(completions: Sequence[str]) -> list[int | None]:
    """The class of each answer, the number of the first answer whose expression math-verify finds equal; None without one."""
    expressions = {text: _math().parse(text) for text in set(completions)}
    first: dict[str, int | None] = {}
    for number, text in enumerate(completions):
        if text not in first:
            classes = dict.fromkeys(kind for kind in first.values() if kind is not None)
            equal = (kind for kind in classes if _math().verify(expressions[completions[kind]], expressions[text]))
            first[text] = next(equal, number) if expressions[text] else None
    return [first[text] for text in completions]


def by_text(completions: Sequence[str]) -> list[int | None]:
    """The class of each answer, the number of the first one whose final answer is the same text; None where that is empty."""
    return _by([_normal(final_answer(text)) for text in completions])


def by_last_word(completions: Sequence[str]) -> list[int | None]:
    """The class of each answer, the number of the first one that ends in the same word; None where nothing is written."""
    return _by([last_word(text) for text in completions])


def _by(texts: Sequence[str]) -> list[int | None]:
    first: dict[str, int] = {}
    return [first.setdefault(text, number) if text else None for number, text in enumerate(texts)]


def load() -> None:
    """Import what else is imported at the first answer."""
    _math()
    _factory()


def _math() -> Any:
    return importlib.import_module("math_verify")


def _factory() -> Any:
    return importlib.import_module("reasoning_gym.factory")


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


@functools.lru_cache(maxsize=64)
def _data_set(name: str, options: str) -> Any:
    return _factory().create_dataset(name, seed=0, size=10, **json.loads(options))


def _from_json(value: Any) -> Any:
    """The inverse of how the task wrote it: lists under ``__tuple__`` are tuples, pairs under ``__items__`` are dictionaries."""
    match value:
        case list():
            return [_from_json(v) for v in value]
        case {"__tuple__": items, **rest} if not rest:
            return tuple(_from_json(v) for v in items)
        case {"__items__": items, **rest} if not rest:
            return {_from_json(k): _from_json(v) for k, v in items}
        case dict():
            return {key: _from_json(v) for key, v in value.items()}
        case _:
            return value
