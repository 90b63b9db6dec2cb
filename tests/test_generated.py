"""What is written about the code is true of it: generated text is current, examples run, commands and settings exist."""

import ast
import doctest
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml

import quatrain
from quatrain.cli import parser
from quatrain.config import load
from quatrain.methods import METHODS
from quatrain.recipes import RECIPES
from tools import generate

ROOT = generate.ROOT
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE)


def named(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths])


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """(language, title, text) of each fenced block of a page."""
    return ((found["language"], found["title"] or "", found["text"]) for found in BLOCK.finditer(page.read_text()))


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command of a page's bash blocks."""
    for language, _, text in blocks(page):
        for line in text.replace("\\\n", " ").splitlines() if language == "bash" else []:
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                yield words[:end]
                words = words[end + 1 :]


def test_generated_text_is_current():
    stale = list(generate.stale())
    assert not stale, "run `python -m tools.generate`\n" + "\n".join(stale)


def test_all_that_is_generated_is_shown():
    text = "\n".join(page.read_text() for page in PAGES)
    assert {found["name"] for found in generate.MARKED.finditer(text)} == set(generate.BLOCKS)
    assert text.count("<!-- generated:") == text.count("<!-- end -->") == len(generate.MARKED.findall(text))


@named([page for page in PAGES if any(language in ("python", "pycon") for language, _, _ in blocks(page))])
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From top to bottom in one empty folder. A block whose title is a file of this repository runs as the end of that file."""
    monkeypatch.chdir(tmp_path)
    seen: dict[str, object] = {"__name__": "example"}
    with mock.patch.dict(METHODS):
        for language, title, text in blocks(page):
            if language == "pycon":
                doctest_of(text, seen)
            elif title and not (ROOT / title).exists():
                (tmp_path / title).write_text(text)
            elif language == "python":
                run(text, title, seen)


def run(text: str, title: str, seen: dict[str, object]) -> None:
    if title == "quatrain/methods/catalogue.py":
        home = vars(importlib.import_module("quatrain.methods.catalogue"))
        METHODS.update(eval("{" + text.strip() + "}", {**home, **seen}))
        seen["METHODS"] = METHODS
    elif title:
        home = dict(vars(importlib.import_module(title.removesuffix(".py").replace("/", "."))))
        exec(compile(text, title, "exec", dont_inherit=True), home)
        defined = (node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef | ast.FunctionDef))
        seen.update((name, home[name]) for name in defined)
    else:
        exec(compile(text, "example", "exec", dont_inherit=True), seen)


def doctest_of(text: str, seen: dict[str, object]) -> None:
    if "runs/first" in text:  # a page on a run shows one of two steps
        Path("runs/first").mkdir(parents=True)
        Path("runs/first/metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    example = doctest.DocTestParser().get_doctest(text, seen, "example", None, None)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=report.append, clear_globs=False)
    seen.update(example.globs)
    assert not report, "".join(report)


@named([page for page in PAGES if any(words[0] == "quatrain" for words in commands(page))])
def test_commands_exist(page: Path):
    """Down to each setting that they name."""
    for words in commands(page):
        if words[0] != "quatrain":
            continue
        given = parser().parse_args(words[1:])
        recipes = {title: yaml.safe_load(text) for path in PAGES for _, title, text in blocks(path) if title.endswith(".yaml")}
        if given.body == "train" and given.resume is None:
            assert given.recipe is None or given.recipe in RECIPES or given.recipe.endswith(".yaml")
            tree = dict(RECIPES[given.recipe].config) if given.recipe in RECIPES else recipes.get(given.recipe or "", {})
            tree = {"task": given.task or "problems.jsonl", **tree} | ({"method": given.method} if given.method else {})
            config = load(tree, given.set)
            METHODS[config.method.name].with_settings(config.method.settings)
        elif given.body == "evaluate":
            load({"task": given.task or "problems.jsonl"}, given.set)
        elif given.body == "compare":
            assert all(arm.split(",")[0] in {*METHODS, *RECIPES} or ".yaml" in arm for arm in given.arms)
            load({"task": given.task or "problems.jsonl"}, given.set)
        elif given.body == "reproduce":
            assert given.name is None or (ROOT / "reproductions" / given.name / "claim.yaml").is_file()
        elif given.body == "methods":
            assert set(given.names) <= set(METHODS) | {"ID"}


@named([page for page in PAGES if any(title.endswith(".yaml") for _, title, _ in blocks(page))])
def test_recipes_are_allowed(page: Path):
    for _, title, text in blocks(page):
        if title.endswith(".yaml"):
            config = load(yaml.safe_load(text))
            METHODS[config.method.name].with_settings(config.method.settings)


@named(PAGES)
def test_other_commands_are_there(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets
        elif words[:2] == ["python", "-m"]:
            runs = ("reproductions.rows", "reproductions.stability", "reproductions.mechanisms")
            known = ("tools.generate", "pytest", "quatrain", *runs)
            assert words[2] in known or (ROOT / words[2].replace(".", "/")).with_suffix(".py").is_file()


@named(PAGES)
def test_settings_exist(page: Path):
    """Those that the text puts in code, as in `update.lr` or `evaluate.k=[1]`."""
    sections = "engine|update|reference|checkpoint|evaluate|sampling|task|model"
    for name in re.findall(rf"`(?:--set )?((?:{sections})\.[\w.]+)(?:=[^`]*)?`", page.read_text()):
        if not name.endswith((".py", ".json", ".jsonl", ".safetensors")):
            fields: dict[str, Any] | None = quatrain.RunConfig.model_fields
            for part in name.split("."):
                if fields is None:
                    break  # what is below is the task's own
                assert part in fields, f"{page.name} names a setting {name!r} that does not exist"
                annotation = fields[part].annotation
                kinds = (annotation, *getattr(annotation, "__args__", ()))
                fields = next((kind.model_fields for kind in kinds if hasattr(kind, "model_fields")), None)


@named(PAGES)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_metric_has_its_meaning(tmp_path: Path):
    """Of a run whose method has every kind of term."""
    kl = METHODS["grpo"].terms[1]
    wanted = {"method": "whole", "task": "reasoning_gym:chain_sum", "model": "tiny", "max_answer_tokens": 3, "group_size": 2}
    small = {"steps": 1, "prompts_per_step": 2, "evaluate": {"problems": 2, "every": 1}, "out": str(tmp_path / "run")}
    with mock.patch.dict(METHODS, whole=quatrain.Method(*METHODS["ppo"].terms, kl)):
        quatrain.train(quatrain.load_config(wanted | small))
    told = (ROOT / "docs/metrics.md").read_text()
    (record,) = (json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert {"kl/ref", "value/loss", "held_out/accuracy"} <= set(record)
    assert not [name for name in record if f"`{name}`" not in told and name != "step"]


@pytest.mark.parametrize("page", ["peers.md", "rows.md", "choosing-a-method.md"])
def test_pages_that_a_new_row_must_reach_have_all_rows(page: str):
    """Commands write the first two, and people the third, who may leave out what code does otherwise."""
    text = (ROOT / "docs" / page).read_text()
    assert not [name for name in METHODS if f"`{name}`" not in text and (":" not in name or page != "choosing-a-method.md")]


def test_the_public_face_is_whole():
    assert {"train", "Method", "SoftGate", "__version__"} <= set(dir(quatrain))
    assert all(getattr(quatrain, name) is not None for name in dir(quatrain))
    assert quatrain.SoftGate is quatrain.objective.SoftGate
    with pytest.raises(AttributeError, match="no attribute 'Clap'"):
        _ = quatrain.Clap  # type: ignore[attr-defined]


def test_every_public_name_is_documented():
    text = "\n".join(page.read_text() for page in PAGES if page.is_relative_to(ROOT / "docs"))
    said = set(re.findall(r"^::: quatrain\.(?:\w+\.)*(\w+)$|^## (\w+)$", text, re.MULTILINE))
    words = {word for pair in said for word in pair} | set(re.findall(r"`quatrain\.(\w+)`", text))
    assert not set(dir(quatrain)) - words - {"__version__"}


def test_importing_brings_no_tensors():
    """The processes that compute rewards import quatrain too."""
    program = "import sys, quatrain; quatrain.__version__, quatrain.ConfigError; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=ROOT)
