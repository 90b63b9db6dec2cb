"""Commands that load a model: train, evaluate, replay, report."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from quatrain.config import ConfigError, load, nearest, read_yaml
from quatrain.diagnostics.records import write_atomic
from quatrain.diagnostics.report import write_report
from quatrain.recipes import RECIPES
from quatrain.review import measure_model
from quatrain.review import replay as replay_run
from quatrain.run import Result, resume
from quatrain.run import train as train_run


def train(given: Namespace) -> None:
    """Post-train, from a recipe and options or from where a run stopped, and say what came of it."""
    if given.resume is not None:
        others = [
            f"--{name.replace('_', '-')}"
            for name in ("method", "task", "model", "teacher", "reward", "seed", "out", "set", "on_collapse")
            if getattr(given, name)
        ]
        others += [given.recipe] if given.recipe else []
        if others:
            raise ConfigError(f"--resume goes on with the run's own settings: leave out {', '.join(others)}")
        _say(resume(Path(given.resume)))
        return
    tree, settings = asked(recipe(given.recipe) if given.recipe else {}, given)
    settings = [f"{name}={json.dumps(getattr(given, name))}" for name in ("method", "out") if getattr(given, name)] + settings
    settings = [f"seed={given.seed}", *settings] if given.seed is not None else settings
    settings = [f"on_collapse={given.on_collapse}", *settings] if given.on_collapse else settings
    if not tree and not settings:
        raise ConfigError("say what to train: a recipe (quatrain train smollm2-chain-sum), or --method, --task and --model")
    _say(train_run(load(tree, settings)))


def asked(tree: Mapping[str, Any], given: Namespace) -> tuple[dict[str, Any], list[str]]:
    """`tree` with the task and the rewards of the command line, and the other options about a run as settings."""
    tree = dict(tree) | ({"task": given.task} if given.task else {})
    tree |= {"rewards": [_reward(text) for text in given.reward]} if given.reward else {}
    settings = [f"model={json.dumps(given.model)}"] if given.model else []
    settings += [f"teacher.model={json.dumps(given.teacher)}"] if given.teacher else []
    return tree, [*settings, *given.set]


def recipe(name: str) -> dict[str, Any]:
    """The settings of a named recipe or of a YAML file."""
    if name in RECIPES:
        return dict(RECIPES[name].config)
    if Path(name).suffix not in (".yaml", ".yml"):
        raise ConfigError(f"there is no recipe {name!r}: {nearest(name, RECIPES)}; a file's name ends in .yaml")
    return read_yaml(Path(name))


def evaluate(given: Namespace) -> None:
    """Measure a model or a run."""
    sizes = given.k or (given.samples if given.samples == "1" else f"1,{given.samples}")
    settings = [f"evaluate.samples={given.samples}", f"evaluate.k=[{sizes}]"]
    settings += [f"evaluate.problems={given.problems}"] if given.problems is not None else []
    settings += [f"seed={given.seed}"] if given.seed is not None else []
    if given.json:
        check_writable(Path(given.json), "--json")
    result = measure_model(given.model, given.task, [*settings, *given.set])
    Console(highlight=False).print("\n".join(result.lines()), markup=False)
    if given.json:
        write_atomic(Path(given.json), json.dumps(result.to_json(), indent=1) + "\n")


def report(given: Namespace) -> None:
    """Write one page about the runs."""
    runs = [Path(run) for run in given.runs]
    out = Path(given.out) if given.out else runs[0] / "report.html"
    if given.out:
        check_writable(out, "--out")
    write_report(runs, out)
    print(out)


def replay(given: Namespace) -> bool:
    """Run a step again and show what its gradient was made of; whether it came out otherwise."""
    again = replay_run(Path(given.run), given.step, tokens=given.tokens)
    console = Console(highlight=False)
    console.width = max(console.width, 120)  # numbers that are cut are of no use
    console.print(again.verdict, markup=False)
    terms = Table(title="the gradient by term", title_justify="left")
    for column in ("term", "norm", "cosine", "actions", "mask", "|Â|", "ratio p01 … p99"):
        terms.add_column(column, justify="left" if column == "term" else "right")
    for term in again.terms:
        low, high = term.ratio
        size = f"{term.norm:.4g}", f"{term.cosine:+.3f}", str(term.actions)
        terms.add_row(term.name, *size, f"{term.passed:.1%}", f"{term.advantage:.3g}", f"{low:.4f} … {high:.4f}")
    console.print(terms)
    pulling = [token for token in again.tokens if token.pull]
    tokens = Table(title=f"the {len(pulling)} tokens that pulled most", title_justify="left")
    for column in ("token", "after", "pull", "weight", "= share", "· mask", "· Â", "· ratio", "log π"):
        tokens.add_column(column, justify="left" if column in ("token", "after") else "right")
    for t in pulling:
        share, mask, advantage, ratio = t.factors
        factors = f"{share:.1e}", f"{mask:.2f}", f"{advantage:+.2f}", f"{ratio:.3f}"
        tokens.add_row(repr(t.text), repr(t.before), f"{t.pull:.1%}", f"{t.weight:+.1e}", *factors, f"{t.logp:.2f}")
    console.print(tokens if pulling else "no token pulled: all weights of this step are 0")
    if not again.same:
        print(
            "quatrain: the step did not come out the same: were its files changed? are versions, threads or the machine others "
            f"than in {Path(given.run) / 'environment.json'}?",
            file=sys.stderr,
        )
    return not again.same


def check_writable(path: Path, option: str) -> None:
    """Raise ConfigError if there is no folder for the file `path`, before anything is computed for it."""
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no folder {path.parent}: make it, or choose another")


def _reward(text: str) -> dict[str, Any]:
    """``my.py:short=0.1`` as a reward's settings."""
    name, equals, weight = text.partition("=")
    try:
        return {"name": name, "weight": float(weight)} if equals else {"name": name}
    except ValueError:
        raise ConfigError(f"--reward {text}: the weight {weight!r} is not a number, write for example {name}=0.2") from None


def _say(result: Result) -> None:
    """The last lines of a run."""
    lines = []
    if result.before is not None and result.after is not None:
        n = result.after.problems
        lines.append(f"accuracy   {result.before.accuracy} → {result.after.accuracy} on {n} held-out problems (95 % intervals)")
        lines.append(f"difference {result.gain:+.2f}")
    folder = result.folder
    lines += [f"run        {folder}", f"report     {folder / 'report.html'}", f"model      {folder / 'model'}"]
    console = Console(highlight=False)
    console.print("\n".join(lines), markup=False, soft_wrap=True)
