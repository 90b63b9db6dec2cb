"""Problems whose solutions are written out in a few characters and end in ``: answer``: the tasks ``written:NAME``."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quatrain.config import ConfigError, nearest
from quatrain.prompts.problem import Problem

DIFFERENT = "different"
"""The option that all families share."""
LETTERS = "abcdefghij"
"""The circle of ``cipher``."""


@dataclass(frozen=True)
class Family:
    """Problems of one kind. One dial, from 1 on, says how hard they are."""

    about: str
    dial: str
    default: int
    most: int
    """The greatest value of the dial."""
    make: Callable[[random.Random, int], Problem]
    """A problem at a value of the dial."""


@dataclass(frozen=True)
class Written:
    """The task of one family at one value of its dial, or at all values between two."""

    family: str
    levels: tuple[int, int]
    """The least and the greatest value."""
    different: int | None = None
    """How many problems a stream has before it begins again; None is no end."""

    @property
    def name(self) -> str:
        return f"written:{self.family}"

    @property
    def size(self) -> None:
        return None

    def problems(self, seed: int, start: int = 0) -> Iterator[Problem]:
        make, (least, most) = FAMILIES[self.family].make, self.levels
        name = str(least) if least == most else f"{least}-{most}"
        for index in itertools.count(start):
            number = index % self.different if self.different else index
            draw = random.Random(f"{self.family}/{name}/{seed}/{number}")
            yield make(draw, least if least == most else draw.randint(least, most))


def addition(draw: random.Random, digits: int) -> Problem:
    """Two numbers are added digit by digit from the right, with carries: ``47+85`` is ``7+5+0=12 4+8+1=13: 132``."""
    a, b = (draw.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits) for _ in range(2))
    steps, carry = [], 0
    for x, y in zip(reversed(str(a)), reversed(str(b)), strict=True):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}+{carry}={total:02d}")
        carry = total // 10
    return _solved(f"{a}+{b}", steps, str(a + b))


def chain(draw: random.Random, steps: int) -> Problem:
    """Steps are taken from right to left, modulo 10: ``7+ 5* 3`` is ``5*3=5 7+5=2: 2``."""
    value = draw.randrange(10)
    question, done = [str(value)], []
    for _ in range(steps):
        operation, number = draw.choice("+-*"), draw.randrange(1, 10)
        after = {"+": number + value, "-": number - value, "*": number * value}[operation] % 10
        question.append(f"{number}{operation}")
        done.append(f"{number}{operation}{value}={after}")
        value = after
    return _solved(" ".join(reversed(question)), done, str(value))


def cipher(draw: random.Random, letters: int) -> Problem:
    """Letters are moved on in the circle from a to j, from right to left: ``hid 4`` is ``d+4=h i+4=c h+4=b: bch``."""
    word, shift = draw.choices(LETTERS, k=letters), draw.randrange(1, len(LETTERS))
    moved = [LETTERS[(LETTERS.index(letter) + shift) % len(LETTERS)] for letter in word]
    steps = [f"{letter}+{shift}={after}" for letter, after in zip(reversed(word), reversed(moved), strict=True)]
    return _solved(f"{''.join(word)} {shift}", steps, "".join(moved))


def sum_to(draw: random.Random, digits: int) -> Problem:
    """Any two numbers that add up are right: ``57=?`` is ``7=3+4 5=2+3: 23+34``, among others."""
    total = draw.randrange(10 ** (digits - 1), 10**digits)
    parts = [(int(digit), draw.randint(0, int(digit))) for digit in reversed(str(total))]
    steps = [f"{digit}={part}+{digit - part}" for digit, part in parts]
    one = "".join(str(part) for _, part in reversed(parts))
    other = "".join(str(digit - part) for digit, part in reversed(parts))
    return _solved(f"{total}=?", steps, f"{one}+{other}", {"sum": total})


def _solved(question: str, steps: list[str], answer: str, rule: Mapping[str, Any] | None = None) -> Problem:
    """`rule` is what makes an answer right where several are; without it the answer is the only one."""
    return Problem(question, answer, f"{' '.join(steps)}: {answer}", info={"written": rule or {"is": answer}})


FAMILIES = {
    make.__name__: Family(str(make.__doc__), dial, default, most, make)
    for make, dial, default, most in (
        (addition, "digits", 3, 20),
        (chain, "steps", 4, 20),
        (cipher, "letters", 4, 20),
        (sum_to, "digits", 3, 20),
    )
}


def find_family(name: str) -> Family:
    """The family `name`. Raises ConfigError if there is none."""
    if name not in FAMILIES:
        raise ConfigError(f"there is no task written:{name}: {nearest(name, FAMILIES, 'written:')}")
    return FAMILIES[name]


def open_written(name: str, options: Mapping[str, Any]) -> Written:
    """The task of the family `name` with its options. Raises ConfigError if they cannot be.

    Besides the dial, which may be a list of the least and the greatest value, there is ``different``, how many problems there
    are to train on.
    """
    family = find_family(name)
    most = {family.dial: family.most, DIFFERENT: None}
    for option, value in options.items():
        if option not in most:
            raise ConfigError(f"written:{name} has no option {option!r}: {nearest(option, most)}")
        top = most[option]
        given = value if top and isinstance(value, list) and len(value) == 2 else [value]
        if any(type(x) is not int or x < 1 or (top and x > top) for x in given) or given != sorted(given):
            allowed = f"from 1 to {top}, or a list of the least and the greatest" if top else "above 0"
            raise ConfigError(f"written:{name}: {option} = {value!r} is not allowed: give a whole number {allowed}")
    dial = options.get(family.dial, family.default)
    return Written(name, tuple(dial) if isinstance(dial, list) else (dial, dial), options.get(DIFFERENT))
