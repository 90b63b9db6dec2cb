"""A reward by name: one that ships, or a function in a user's file.

A reward is a function of facts about one answer, taken by name; it declares those that it wants:

=====================  ====================================================
``completion``         the answer's text
``answer``             the reference answer, or None
``question``           the problem as the task states it
``info``               what the task says beside (the other columns of a file)
``tokens``             number of tokens that the policy wrote
``truncated``          whether the answer was cut at the limit of tokens
``max_answer_tokens``  that limit
=====================  ====================================================

A function that takes ``completions``, the texts of all answers to a prompt, in the place of facts about one of them judges them
together and returns a list with a number for each.

Every other parameter is an option, set by ``options`` of its configuration. It returns a finite number::

    def short_and_right(completion: str, answer: str, *, tokens: int, limit: int = 20) -> float:
        return float(completion.strip() == answer and tokens <= limit)

which ``rewards: [{name: path/to/module.py:short_and_right, options: {limit: 10}}]`` uses.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quatrain.config import ConfigError, RewardConfig, nearest
from quatrain.rewards.builtin import BUILTIN

OF_ONE = ("completion", "tokens", "truncated")
"""Facts about one answer."""
OF_PROMPT = ("answer", "question", "info", "max_answer_tokens")
"""Facts that all answers to a prompt share."""
OF_ALL = "completions"
"""The fact that makes a reward one of all answers to a prompt together."""
FACTS = ("completion", "answer", "question", "info", "tokens", "truncated", "max_answer_tokens", OF_ALL)


@dataclass(frozen=True)
class Reward:
    """A reward function with its options bound."""

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    wants: frozenset[str]
    """The facts that the function takes."""

    @property
    def of_all(self) -> bool:
        """Whether it judges all answers to a prompt together."""
        return OF_ALL in self.wants

    def __call__(self, facts: Mapping[str, Any]) -> float | list[float]:
        """The reward of an answer, or those of all. Raises TypeError or ValueError if one is not a finite number."""
        value = self.function(**{name: facts[name] for name in self.wants}, **self.options)
        if not self.of_all:
            return _finite(value)
        count = len(facts[OF_ALL])
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise TypeError(f"it returned {value!r:.60}, not a list with a number for each of {count} answers")
        numbers = [_finite(number) for number in value]
        if len(numbers) != count:
            raise ValueError(f"it returned {len(numbers)} numbers for {count} answers")
        return numbers


def load_reward(config: RewardConfig) -> Reward:
    """The reward that `config` names, its function found and its options checked.

    Raises:
        ConfigError: there is no such reward, file or function, or an option is unknown, missing or of the wrong kind.
    """
    function = BUILTIN.get(config.name) or _import(config.name)
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    known = [name for name in named if name not in FACTS]
    for option in config.options:
        if option in FACTS:
            raise ConfigError(f"the reward {config.name} is told {option!r} by the run: take it out of its options")
        if option not in named and not takes_any:
            raise ConfigError(f"the reward {config.name} has no option {option!r}: {nearest(option, known)}")
    for name in known:
        if named[name].default is inspect.Parameter.empty and name not in config.options:
            raise ConfigError(
                f"the reward {config.name} needs its parameter {name!r}, which is none of the facts ({', '.join(FACTS)}): "
                f"give it in the reward's options, as in options: {{{name}: …}}"
            )
    options = _checked_options(config, function) if config.name in BUILTIN else dict(config.options)
    wants = named.keys() & set(FACTS)
    of_one = [name for name in OF_ONE if name in wants]
    if OF_ALL in wants and of_one:
        raise ConfigError(
            f"the reward {config.name} takes {OF_ALL}, all answers to a prompt, and {of_one[0]}, which is about one of them: "
            "leave one of the two out"
        )
    rest = {*OF_PROMPT, *(() if OF_ALL in wants else OF_ONE)} if takes_any else set[str]()
    return Reward(config.name, function, options, frozenset(wants | rest))


def check_rewards(configs: Sequence[RewardConfig]) -> None:
    """Raise ConfigError for the first of `configs` that :func:`load_reward` cannot load."""
    for config in configs:
        load_reward(config)


def _finite(value: Any) -> float:
    if value is None or isinstance(value, str):
        raise TypeError(f"it returned {value!r:.60}, not a number")
    if not math.isfinite(number := float(value)):
        raise ValueError(f"it returned {number}, not a finite number")
    return number


def _checked_options(config: RewardConfig, function: Callable[..., Any]) -> dict[str, Any]:
    """The options as the annotations of `function` want them."""
    hints, options = typing.get_type_hints(function, include_extras=True), {}
    for name, value in config.options.items():
        try:
            options[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise ConfigError(f"the reward {config.name}: {name} = {value!r} is not allowed: {message}") from None
    return options


def _import(name: str) -> Callable[..., Any]:
    """The function of ``path/to/module.py:function``."""
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise ConfigError(
            f"there is no reward {name!r}: {nearest(name, BUILTIN)}; for one of your own give path/to/module.py:function"
        )
    if not Path(path).is_file():
        raise ConfigError(
            f"the reward {name}: there is no file {path}: {nearest(path, map(str, Path(path).parent.glob('*.py')))}"
        )
    spec = importlib.util.spec_from_file_location(f"quatrain_reward_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # what the file defines (dataclasses, say) looks for its module there
    if str(Path(path).parent) not in sys.path:
        sys.path.append(str(Path(path).parent))  # it may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"the reward {name}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(f"the reward {name}: {path} has no function {function!r}: {nearest(function, functions)}")
    return found
