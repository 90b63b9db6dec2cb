"""Tasks by name: ``written:addition``, ``reasoning_gym:chain_sum?max_terms=3``, ``problems.jsonl``, or a data-set folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from quatrain.config import ConfigError, TaskConfig
from quatrain.prompts.files import open_rows
from quatrain.prompts.problem import Task
from quatrain.prompts.reasoning import known, open_generated
from quatrain.prompts.written import FAMILIES, open_written

PREFIX = "reasoning_gym:"
GENERATED = {PREFIX: open_generated, "written:": open_written}
"""Who opens a generated task, by what its name begins with."""


def open_task(config: TaskConfig) -> Task:
    """The task that `config` names, checked: what it reads is there and makes problems.

    Options of a generated task may stand in its name, ``reasoning_gym:chain_sum?min_terms=2&max_terms=3``, and win over
    ``config.options``.

    Raises:
        ConfigError: the data set, an option, a file, a column or a row is not as it must be.
    """
    for prefix, opens in GENERATED.items():
        if config.name.startswith(prefix):
            name, _, query = config.name.removeprefix(prefix).partition("?")
            return opens(name, {**config.options, **_parse_query(query)})
    bare = config.name.partition("?")[0]
    if bare in FAMILIES and not Path(config.name).exists():
        raise ConfigError(f"there is no task {config.name!r}: write written:{config.name}")
    if not Path(config.name).exists() and bare in known():
        raise ConfigError(f"there is no task {config.name!r}: for the reasoning-gym data set write {PREFIX}{config.name}")
    return open_rows(config)


def _parse_query(query: str) -> dict[str, Any]:
    """``min_terms=2&allow_negation=true`` as a mapping; values are read as YAML."""
    options = {}
    for setting in filter(None, query.split("&")):
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"the task option {setting!r} is not OPTION=VALUE: write for example ?min_terms=2&max_terms=3")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"the task option {key} = {value!r} is not valid YAML") from None
    return options
