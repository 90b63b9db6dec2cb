"""A run folder survives whatever kills the process, and refuses to be overwritten."""

import json
import os
from importlib.metadata import version

import numpy as np
import pytest
import torch

from quatrain.config import ConfigError
from quatrain.diagnostics import records
from quatrain.diagnostics.records import JsonLines, RunFolder, default_run_path, read_metrics, write_atomic


@pytest.fixture
def lines(tmp_path):
    return JsonLines(tmp_path / "metrics.jsonl")


def test_records_come_back(lines):
    lines.append({"step": 1, "text": "7 − 3 = 4\u2028\n"}, {"step": 2})
    lines.append({"step": 3})
    assert lines.read() == [{"step": 1, "text": "7 − 3 = 4\u2028\n"}, {"step": 2}, {"step": 3}]
    assert lines.path.read_bytes().count(b"\n") == 3
    assert JsonLines(lines.path.with_name("none.jsonl")).read() == []


def test_numbers_that_are_not_finite_become_null(lines):
    lines.append({"step": 1, "a": float("nan"), "b": [np.float32("inf")], "c": {"d": torch.tensor(2.5)}, "e": np.int64(3)})
    assert lines.read() == [{"step": 1, "a": None, "b": [None], "c": {"d": 2.5}, "e": 3}]


def test_text_that_is_not_unicode_is_still_recorded(lines):
    lines.append({"step": 1, "text": "half a pair \ud83d"})
    assert lines.read()[0]["text"] == "half a pair ?"


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_torn_last_line_is_ignored_and_cut_off(lines, cut):
    lines.append({"step": 1}, {"step": 2})
    data = lines.path.read_bytes()
    lines.path.write_bytes(data[:-cut])
    kept = lines.read()
    assert kept == ([{"step": 1}] if cut <= 12 else [])
    lines.append({"step": 9})
    assert lines.read() == [*kept, {"step": 9}]
    assert [json.loads(line) for line in lines.path.read_text().splitlines()] == [*kept, {"step": 9}]


def test_a_torn_line_longer_than_a_block_is_cut_off(lines):
    lines.append({"step": 1})
    with lines.path.open("ab") as file:
        file.write(b'{"text": "' + b"x" * 200_000)
    lines.append({"step": 2})
    assert lines.read() == [{"step": 1}, {"step": 2}]


def test_a_damaged_line_is_named(lines):
    lines.path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ConfigError, match=r"metrics\.jsonl is damaged: line 2 is not JSON"):
        lines.read()


def test_truncate_after(lines):
    lines.append(*({"step": step} for step in range(5)))
    lines.truncate_after(2)
    assert [record["step"] for record in lines.read()] == [0, 1, 2]
    before = lines.path.stat().st_ino
    lines.truncate_after(2)
    assert lines.path.stat().st_ino == before


def test_write_atomic_keeps_the_old_file_when_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    write_atomic(path, "old")

    def killed(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(records.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_create(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.create("steps: 3\n")
    assert folder.is_run
    assert folder.config.read_text() == "steps: 3\n"
    assert json.loads(folder.environment.read_text())["torch"] == version("torch")
    assert folder.checkpoints.is_dir()


def test_an_existing_run_is_not_overwritten(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create("steps: 3\n")
    with pytest.raises(ConfigError, match=r"holds a run already: continue it with --resume, or choose another --out"):
        folder.create("steps: 3\n")
    folder.create("steps: 5\n", resume=True)
    assert folder.config.read_text() == "steps: 5\n"


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="not empty and not a run: choose another --out"):
        RunFolder(tmp_path).create("")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        RunFolder(tmp_path / "thesis.tex").create("")
    with pytest.raises(ConfigError, match="cannot be made"):
        RunFolder(tmp_path / "thesis.tex" / "run").create("")
    with pytest.raises(ConfigError, match=r"no run in .* to resume"):
        RunFolder(tmp_path).create("", resume=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_folder_truncates_all_records(tmp_path):
    folder = RunFolder(tmp_path)
    for file in (folder.metrics, folder.rollouts, folder.evaluations):
        file.append({"step": 1}, {"step": 2})
    folder.truncate_after(1)
    assert [len(file.read()) for file in (folder.metrics, folder.rollouts, folder.evaluations)] == [1, 1, 1]
    assert read_metrics(tmp_path) == read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}]


def test_default_run_path_counts_up(tmp_path):
    first = default_run_path("grpo", "reasoning_gym:chain_sum", tmp_path)
    assert first.name.endswith("-grpo-chain_sum-1")
    first.mkdir()
    assert default_run_path("grpo", "reasoning_gym:chain_sum", tmp_path).name.endswith("-grpo-chain_sum-2")
    assert default_run_path("dr grpo", "data/../my set.jsonl", tmp_path).name.endswith("-dr_grpo-my_set-1")
