"""Commands that train many runs to say one thing: compare, reproduce."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from quatrain.claims import Place, find_claims, judge, together
from quatrain.commands.running import asked, recipe
from quatrain.config import ConfigError, nearest
from quatrain.diagnostics.comparison import ACCURACY, Comparison, Metric, Outcome
from quatrain.diagnostics.evaluation import Estimate
from quatrain.diagnostics.records import plain, write_atomic
from quatrain.experiment import Arm, Experiment
from quatrain.recipes import RECIPES


def compare(given: Namespace) -> bool:
    """Train all arms with all seeds and show how they stand; whether a run failed."""
    metric = Metric.parse(given.metric)
    budget = _budget(given.budget)
    arms = [_arm(text, given, budget) for text in given.arms]
    if given.teacher and not any(run.teacher.model for arm in arms for run in arm.runs):
        raise ConfigError(f"--teacher {given.teacher}: no arm learns from a teacher; leave it out, or add one that does")
    steps = {arm.name: arm.steps for arm in arms}
    if len(set(steps.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in steps.items())
        raise ConfigError(f"the arms have not the same steps ({told}): write --budget steps={max(steps.values())}")
    task = Path(arms[0].config.task.name.rpartition(":")[2]).stem
    default = Path("runs/compare") / "-".join(re.sub(r"[^\w.=]+", "-", part) for part in (*(arm.name for arm in arms), task))
    experiment = Experiment(tuple(arms), tuple(range(given.seeds)), Path(given.out) if given.out else default)
    comparison = _carried_out(experiment, metric, given.workers)
    comparison.write(experiment.folder / "report.html", " · ".join(arm.name for arm in arms))
    write_atomic(experiment.folder / "results.json", json.dumps(plain(comparison.to_json()), indent=1) + "\n")
    _show(comparison).print(f"report     {experiment.folder / 'report.html'}", markup=False, soft_wrap=True)
    return bool(comparison.failed)


def reproduce(given: Namespace) -> bool:
    """Run a claim and say whether it held, or list all; whether a run failed."""
    claims = find_claims(Path(given.claims))
    if not given.name:
        _list(claims)
        return False
    if given.name not in claims:
        raise ConfigError(f"there is no claim {given.name!r} in {given.claims}: {nearest(given.name, claims)}")
    place = claims[given.name]
    claim = place.read()
    default = Path("runs/reproduce") / (given.name + ("-quick" if given.quick else ""))
    experiment = place.experiment(Path(given.out) if given.out else default, quick=given.quick)
    comparison = _carried_out(experiment, Metric.parse(claim.metric), given.workers)
    verdicts = judge(claim, comparison)
    told = [{"verdict": verdict.judgement, "text": str(verdict)} for verdict in verdicts]
    comparison.write(experiment.folder / "report.html", claim.claim, told)
    if not given.quick:
        place.write(comparison, verdicts)
    console = _show(comparison)
    console.print(f"{claim.claim} ({claim.paper})", markup=False)
    for verdict in verdicts:
        console.print(f"  {verdict.judgement}: {verdict}", markup=False)
    kept = " (quick)" if given.quick else f", kept in {place.results}"
    console.print(f"verdict    {together(verdicts)}{kept}", markup=False, soft_wrap=True)
    console.print(f"report     {experiment.folder / 'report.html'}", markup=False, soft_wrap=True)
    return bool(comparison.failed)


def _arm(text: str, given: Namespace, budget: int | None) -> Arm:
    """``NAME,key=value,…`` with the options that all arms share; its own settings come last, and then the budget."""
    name, *own = re.split(r",(?=[\w.]+=)", text)
    tree, settings = asked(recipe(name) if name in RECIPES or name.endswith((".yaml", ".yml")) else {"method": name}, given)
    arm = Arm.of(text, tree, [*settings, *own])
    if budget is not None:
        arm = arm.within(budget)
    return arm.without_idle(given.teacher)


def _budget(text: str | None) -> int | None:
    """The steps that all arms have."""
    if text is None:
        return None
    name, _, count = text.partition("=")
    if name != "steps" or not count.isdigit() or int(count) < 1:
        raise ConfigError(
            f"--budget {text} is not steps=N: arms get equal steps, and the table shows what those cost in tokens and seconds"
        )
    return int(count)


def _carried_out(experiment: Experiment, metric: Metric, workers: int | None) -> Comparison:
    """All runs of `experiment`, as measured by `metric`."""
    for planned in experiment.check():
        if metric.name == ACCURACY and not (planned.is_verifiable and planned.held_out):
            raise ConfigError(
                f"{planned.task.name} has no held-out accuracy: set evaluate.problems, or measure by another --metric"
            )
    ended = experiment.carry_out(workers)
    outcomes = [
        Outcome.of(trial.arm.name, trial.seed, trial.path, failure, trial.first and trial.first.path)
        for trial, failure in ended.items()
    ]
    return Comparison(outcomes, metric)


def _show(comparison: Comparison) -> Console:
    """Tables of the arms and of their pairs."""
    console = Console(highlight=False)
    console.width = max(console.width, 120)  # numbers that are cut are of no use
    arms = Table(title=f"{comparison.metric}, {len(comparison.seeds)} seeds, 95 % intervals", title_justify="left")
    for column in ("arm", "interquartile mean", "mean", "by seed", "tokens", "seconds", "failed"):
        arms.add_column(column, justify="left" if column == "arm" else "right")
    for arm in comparison.arms.values():
        v = arm.values.values()
        figures = (
            [f"{arm.mean:.3g}", f"{min(v):.3g} … {max(v):.3g}", f"{arm.tokens:,.0f}", f"{arm.seconds:.0f}"] if v else ["–"] * 4
        )
        arms.add_row(arm.name, _told(arm.iqm, ".3g"), *figures, f"{len(arm.failed)} of {len(arm.outcomes)}")
    console.print(arms)
    pairs = Table("first − second", "difference, paired", "P(first above)")
    for pair in comparison.pairs:
        pairs.add_row(f"{pair.first.name} − {pair.second.name}", _told(pair.difference, "+.3g"), _told(pair.above, ".2f"))
    console.print(pairs)
    for outcome in comparison.failed:
        console.print(f"{outcome.arm} seed {outcome.seed} has no result: {outcome.failure}", markup=False, soft_wrap=True)
    return console


def _told(estimate: Estimate | None, form: str) -> str:
    return "–" if estimate is None else format(estimate, form)


def _list(claims: Mapping[str, Place]) -> None:
    """All claims, and what the last full run of each came to."""
    table = Table("claim", "says", "verdict")
    for name, place in claims.items():
        last = place.last()
        table.add_row(name, place.read().claim, last["verdict"] if last else "not run")
    Console(highlight=False).print(table)
