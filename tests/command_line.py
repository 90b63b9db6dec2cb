"""The command line, called in this process so that a test costs no start-up, and what its tests have in common."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from quatrain import cli
from quatrain.config import RewardConfig
from quatrain.diagnostics.records import JsonLines
from quatrain.rewards.pool import Pool

JUDGING = Path(__file__).parent / "judging.py"
"""Rewards as a user writes them."""
PARITY, DIGITS, UNRULY = (f"{JUDGING}:{name}" for name in ("parity", "digits", "unruly"))

SMALL = {
    "model": "tiny",
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 4,
    "max_answer_tokens": 4,
    "threads": 1,
    "evaluate.problems": 0,
    "checkpoint.every": 0,
}
"""A run of a fraction of a second."""


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


_pools: dict[str, Pool] = {}


def shared_pool(configs: Sequence[RewardConfig], workers: int | None = None) -> Pool:
    """The processes that already know these rewards: starting some for each run would be most of the time of these tests."""
    key = json.dumps([config.model_dump() for config in configs])
    if key not in _pools:
        _pools[key] = Pool(configs, workers)
        _pools[key].close = lambda: None  # type: ignore[method-assign]
    return _pools[key]


def quatrain(*arguments: object, own_judge: bool = False) -> Done:
    """`quatrain ARGUMENTS`; with `own_judge` its rewards are computed in new processes, as they are for users."""
    out, err = io.StringIO(), io.StringIO()
    judges = contextlib.nullcontext() if own_judge else mock.patch("quatrain.rewards.judge.Pool", shared_pool)
    with judges, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def settings(changes: Mapping[str, Any] | None = None) -> list[str]:
    """`SMALL` with `changes` as arguments."""
    merged = SMALL | dict(changes or {})
    return [part for key, value in merged.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def train(out: Path, task: object, /, *arguments: object, own_judge: bool = False, **changes: Any) -> Path:
    """Train in `out`, which must end well; a setting's dots are written ``__`` here."""
    given = settings({key.replace("__", "."): value for key, value in changes.items()})
    done = quatrain("train", "--task", task, "--out", out, *given, *arguments, own_judge=own_judge)
    assert (done.code, done.err) == (0, ""), done.err
    return out


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return JsonLines(path).read()


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A file of 24 problems with answers."""
    return jsonl(tmp_path / "sums.jsonl", [{"prompt": f"{n} + 1 = ?", "answer": str(n + 1)} for n in range(24)])
