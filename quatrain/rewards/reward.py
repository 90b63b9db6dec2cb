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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quatrain.config import ConfigError, RewardConfig, nearest
from quatrain.rewards.builtin import BUILTIN

FACTS = ("completion", "answer", "question", "info", "tokens", "truncated", "max_answer_tokens")


@dataclass(frozen=True)
class Reward:
    """A reward function with its options bound."""

    name: str
    function: Callable[..., Any]
    options: Mapping[str, Any]
    wants: frozenset[str]
    """The facts that the function takes."""

    def __call__(self, facts: Mapping[str, Any]) -> float:
        """The reward of an answer. Raises TypeError or ValueError if it is not a finite number."""
        value = self.function(**{name: facts[name] for name in self.wants}, **self.options)
        if value is None or isinstance(value, str):
            raise TypeError(f"it returned {value!r:.60}, not a number")
        if not math.isfinite(number := float(value)):
            raise ValueError(f"it returned {number}, not a finite number")
        return number


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
    return Reward(config.name, function, options, frozenset(FACTS if takes_any else named.keys() & set(FACTS)))


def check_rewards(configs: Sequence[RewardConfig]) -> None:
    """Raise ConfigError for the first of `configs` that :func:`load_reward` cannot load."""
    for config in configs:
        load_reward(config)


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
