"""Problems read from JSONL and Parquet files and from Hugging Face data-set folders."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from quatrain.config import ConfigError, TaskConfig, nearest
from quatrain.prompts.problem import Problem

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, for errors, and its columns."""


@dataclass(frozen=True)
class Rows:
    """The task of a file: all its rows, epoch after epoch, each epoch in an order of its own."""

    name: str
    rows: tuple[Problem, ...] = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.rows)

    def problems(self, seed: int, start: int = 0) -> Iterator[Problem]:
        shuffled, order = -1, list(range(self.size))
        for index in itertools.count(start):
            epoch, place = divmod(index, self.size)
            if epoch != shuffled:
                shuffled, order = epoch, list(range(self.size))
                random.Random(f"{seed}/{epoch}").shuffle(order)
            yield self.rows[order[place]]


def open_rows(config: TaskConfig) -> Rows:
    """The task of the file or folder `config.name`.

    Raises:
        ConfigError: it is missing, empty, malformed, or lacks a column.
    """
    for option in config.options:
        if option != "split":
            raise ConfigError(f"a task read from files has no option {option!r}: {nearest(option, ['split'])}")
    path, split = Path(config.name).expanduser(), config.options.get("split")
    if path.is_dir():
        rows = _read_folder(path, split)
    elif split is not None:
        raise ConfigError(f"the task option split = {split!r} has no meaning for the single file {path}: leave it out")
    else:
        rows = _read_file(path)
    problems = tuple(_problem(where, row, config) for where, row in rows)
    if not problems:
        raise ConfigError(f"{config.name} holds no rows: give a file with at least one problem")
    return Rows(config.name, problems)


def _problem(where: str, row: Mapping[str, Any], config: TaskConfig) -> Problem:
    rated = _rated(where, row, config)
    taken = {"prompt": config.prompt_column, "answer": config.answer_column, "demonstration": config.demonstration_column}
    texts: dict[str, str | None] = {}
    for role, column in taken.items():
        if not column:
            texts[role] = None
            continue
        if column not in row:
            if role == "answer" and rated:
                texts[role] = None
                continue
            way_out = " (or answer_column='' if there are no reference answers)" if role == "answer" else ""
            raise ConfigError(
                f"{where} has no column {column!r}, only {', '.join(map(repr, row)) or 'none'}: set task.{role}_column{way_out}"
            )
        texts[role] = None if row[column] is None else _text(where, row, column)
    if not (texts["prompt"] or "").strip():
        raise ConfigError(f"{where}: {config.prompt_column} is empty: every row needs a question")
    rating = {config.chosen_column, config.rejected_column, config.completion_column, config.label_column} if rated else set()
    rest = {key: value for key, value in row.items() if key not in rating.union(taken.values())}
    info = json.loads(json.dumps(rest, default=str))
    return Problem(texts["prompt"] or "", texts["answer"], texts["demonstration"], rated, info)


def _rated(where: str, row: Mapping[str, Any], config: TaskConfig) -> tuple[tuple[str, float], ...]:
    """A row's preferred answer and the other one, or its single answer with the label; none where it has no such columns."""
    pair, single = (config.chosen_column, config.rejected_column), (config.completion_column, config.label_column)
    here = [column for column in pair if column in row]
    if len(here) == 1:
        missing = next(column for column in pair if column not in row)
        raise ConfigError(f"{where} has {here[0]!r} and no {missing!r}: set task.chosen_column and task.rejected_column")
    if here:
        chosen, rejected = (_text(where, row, column) for column in pair)
        if chosen == rejected:
            raise ConfigError(f"{where}: {pair[0]} and {pair[1]} are the same text, so that none is preferred: take the row out")
        return (chosen, 1.0), (rejected, 0.0)
    if not all(column in row for column in single):
        return ()
    label = row[single[1]]
    if not isinstance(label, int | float) or not math.isfinite(label):
        raise ConfigError(f"{where}: {single[1]} must be true, false or a number, got {label!r:.60}: set task.label_column")
    return ((_text(where, row, single[0]), float(label)),)


def _text(where: str, row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        way_out = ": of a conversation give one message's content" if isinstance(value, list) else ""
        raise ConfigError(f"{where}: {column} must be text, got {type(value).__name__} {str(value)[:60]!r}{way_out}")
    return str(value)


def _read_file(path: Path) -> Iterator[Row]:
    readers = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise ConfigError(
            f"{path} is neither JSONL nor Parquet: give a file that ends in .jsonl or .parquet, or a data-set folder"
        )
    if not path.is_file():
        raise ConfigError(f"there is no file {path}: {nearest(path.name, [p.name for p in path.parent.glob('*' + path.suffix)])}")
    return readers[path.suffix](path)


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ConfigError(f"{path}:{number} is not valid JSON: {error.msg} at column {error.colno}") from None
                if not isinstance(row, dict):
                    raise ConfigError(f"{path}:{number} holds a {type(row).__name__}, not an object: write one {{...}} per line")
                yield f"{path}:{number}", row
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ConfigError(f"{path} is not a Parquet file: {' '.join(str(error).split())}") from None
    return _table_rows(path, table)


def _read_arrow(path: Path) -> Iterator[Row]:
    try:
        with pyarrow.memory_map(str(path)) as file:
            table = pyarrow.ipc.open_stream(file).read_all()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path} is not an Arrow stream: {' '.join(str(error).split())}") from None
    return _table_rows(path, table)


def _table_rows(path: Path, table: pyarrow.Table) -> Iterator[Row]:
    numbers = itertools.count(1)
    return ((f"{path} row {next(numbers)}", row) for batch in table.to_batches() for row in batch.to_pylist())


def _read_folder(folder: Path, split: str | None) -> Iterator[Row]:
    """What `save_to_disk` wrote, or the Parquet or JSONL files below `folder` that belong to `split`."""
    if (folder / "dataset_dict.json").is_file():
        splits = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        if (split or "train") not in splits:
            raise ConfigError(f"{folder} has no split {split or 'train'!r}, only {', '.join(splits)}: set task.options.split")
        folder, split = folder / (split or "train"), None
    if (folder / "state.json").is_file():
        if split is not None:
            raise ConfigError(f"{folder} is a single data set, without the split {split!r}: leave task.options.split out")
        parts = json.loads((folder / "state.json").read_text())["_data_files"]
        return itertools.chain.from_iterable(_read_arrow(folder / part["filename"]) for part in parts)
    files = sorted(folder.rglob("*.parquet")) or sorted(folder.rglob("*.jsonl"))
    if not files:
        raise ConfigError(
            f"the folder {folder} holds no data set: no state.json of save_to_disk, no .parquet and no .jsonl files"
        )
    files = _of_split(folder, files, split)
    parents = sorted({str(f.parent) for f in files})
    if len(parents) > 1:
        raise ConfigError(f"{folder} holds several data sets: give one of {', '.join(parents)}")
    return itertools.chain.from_iterable(map(_read_file, files))


def _of_split(folder: Path, files: list[Path], split: str | None) -> list[Path]:
    """The files like ``train.parquet``, ``train-00000-of-00002.parquet`` or ``train/0000.parquet``; all if none names a split."""

    def belongs(file: Path) -> bool:
        return (split or "train") in (file.stem.split("-")[0], file.parent.name)

    chosen = [file for file in files if belongs(file)]
    if not chosen and split is not None:
        raise ConfigError(f"{folder} has no files of the split {split!r}: {', '.join(f.name for f in files[:6])}")
    return chosen or files
