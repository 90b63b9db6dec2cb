"""Rewards as a user writes them, each for what a test wants to see."""

import os
import time


def parity(completion: str) -> float:
    """1 for about half of all answers, so that every kind of method has something to learn."""
    return float(ord(completion[:1] or "a") % 2)


def digits(completion: str) -> float:
    """The share of digits."""
    return sum(c.isdigit() for c in completion) / max(1, len(completion))


def equal(completion: str, *, value: float = 0.5) -> float:
    """The same for all."""
    return value


def unruly(completion: str, *, question: str) -> float:
    """Does what the question says."""
    if question == "raise":
        raise KeyError("a bug")
    if question == "hang":
        time.sleep(60)
    if question == "die":
        os._exit(3)
    return float("nan") if question == "nan" else 1.0


def peeking(completion: str, answer: str | None, info: dict[str, object]) -> float:
    """How many kinds of label it is told, whatever the answer."""
    return float(answer is not None) + float(bool(info))
