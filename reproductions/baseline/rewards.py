"""What is rewarded: answers in digits."""


def digits(completion: str) -> float:
    """The share of the answer's characters that are digits."""
    return sum(c.isdigit() for c in completion) / max(1, len(completion))
