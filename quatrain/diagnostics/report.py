"""One page that shows what runs did: report.html opens anywhere, offline, and holds everything it needs.

What is on the page is decided here, how it looks in ``report.html.j2``. Whatever a model wrote is untrusted: the template escapes
it, and the page forbids itself to load or send anything.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from quatrain.config import ConfigError, MethodConfig, ModelConfig, read_yaml
from quatrain.diagnostics.evaluation import Estimate, Evaluation, difference
from quatrain.diagnostics.records import RunFolder, plain, write_atomic

SMOOTHED_SHARE = 0.05
"""Noisy metrics are also drawn as the mean of the last steps, this share of a run."""
SHOWN_CHARACTERS = 4000
"""Of an example's text; of its prompt the last tenth of that."""


@dataclass(frozen=True)
class Panel:
    """One plot: which metrics it shows, and what a reader looks for in it."""

    title: str
    about: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Metrics by the name they have in the plot."""
    rest: str = ""
    """Metrics that begin so and are in no other panel belong here too."""
    unit: str = ""
    """``share``: percentages; ``log``: a logarithmic axis; ``scientific``: powers of ten; ``stacked``: parts of a whole."""
    smooth: bool = False
    axis: str = "step"
    """What is drawn to the right."""


SECTIONS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Does it learn?",
        (
            Panel("Reward", "Mean over the step's answers.", {"reward/mean": "reward"}, smooth=True),
            Panel("Reward parts", "Each reward on its own: which of them is being learned?", rest="reward/", smooth=True),
            Panel("Reward spread", "Standard deviation; at 0 every answer is as good as every other.", {"reward/std": "std"}),
            Panel(
                "Pairs ranked right",
                "Share of pairs whose better answer is the policy's, too; 1/2 is chance.",
                {"preference/accuracy": "in training", "held_out/preference": "held-out"},
                unit="share",
                smooth=True,
            ),
            Panel(
                "Without labels",
                "By labels that no reward reads: right answers, right majorities, right rewards; and how large majorities are.",
                {
                    "rollout/accuracy": "answers",
                    "vote/label_accuracy": "majorities",
                    "vote/reward_accuracy": "rewards",
                    "vote/share": "share of the majority",
                },
                unit="share",
                smooth=True,
            ),
            Panel(
                "Margin of pairs",
                "How far the better answer is ahead.",
                {"preference/margin": "in training", "held_out/margin": "held-out"},
                smooth=True,
            ),
        ),
    ),
    (
        "How does it act?",
        (
            Panel("Entropy", "Of the next token. Near 0 the policy no longer explores.", {"entropy": "entropy"}, smooth=True),
            Panel("Answer length", "Mean tokens of an answer.", {"rollout/length": "tokens"}, smooth=True),
            Panel("Truncated answers", "Stopped by the token limit.", {"rollout/truncated": "truncated"}, unit="share"),
        ),
    ),
    (
        "Is the update sound?",
        (
            Panel(
                "KL divergence",
                "From the policy that acted, which should stay near 0, from the reference, and from the teacher.",
                {"kl/rollout": "from the rollout", "kl/ref": "from the reference", "kl/teacher": "from the teacher"},
            ),
            Panel("Staleness", "Updates between writing and learning.", {"rollout/staleness": "updates"}),
            Panel(
                "Demonstrations used",
                "Share of those at hand that the update learns from.",
                {"demonstration/share": "learned from"},
                unit="share",
                smooth=True,
            ),
            Panel("Passed by the mask", "Share of actions whose gradient counts.", {"mask/passed": "passed"}, unit="share"),
            Panel(
                "Probability ratio",
                "New over old, at the tails: far from 1, the update leaves what was sampled.",
                {"ratio/max": "max", "ratio/p99": "99 %", "ratio/p50": "median", "ratio/p01": "1 %"},
                unit="log",
            ),
            Panel("Gradient norm", "Before clipping.", {"update/grad_norm": "norm"}, smooth=True),
            Panel("Advantage", "Standard deviation.", {"advantage/std": "std"}),
            Panel(
                "Groups without signal",
                "All answers equally good: nothing to learn from.",
                {"advantage/zero_groups": "groups"},
                unit="share",
                smooth=True,
            ),
            Panel("Learning rate", "", {"update/lr": "lr"}, unit="scientific"),
            Panel("Value loss", "Of the critic.", {"value/loss": "loss"}, smooth=True),
            Panel("Flow balance", "The mean square of what is out of balance.", {"flow/residual": "residual"}, smooth=True),
            Panel("log Z", "What the head says, the mean over prompts.", {"flow/log_z": "log Z"}, smooth=True),
            Panel("Process reward model", "Its gradient before clipping.", {"process/grad_norm": "norm"}, smooth=True),
        ),
    ),
    (
        "What does it cost?",
        (
            Panel("Seconds per stage", "One step's time and what it went to.", rest="seconds/", unit="stacked"),
            Panel("Seconds per step", "", {"seconds/total": "seconds"}),
            Panel("Tokens per second", "", {"tokens_per_second": "tokens/s"}, smooth=True),
            Panel("Tokens per step", "Written by the policy.", {"rollout/tokens": "tokens"}),
            Panel(
                "Failures",
                "Rollouts and rewards that failed, and updates that were skipped.",
                {"rollout/failed": "rollouts", "reward/failed": "rewards", "update/skipped": "updates skipped"},
            ),
        ),
    ),
)
EXAMPLE = dict.fromkeys(("prompt", "answer", "text", "reward", "rewards", "advantage", "finish", "tokens", "error"))
"""What an example may say; whatever a record lacks is None."""
NOT_SHOWN = {"step", "version", "held_out/low", "held_out/high", "held_out/problems", "held_out/accuracy"}


@dataclass(frozen=True)
class Run:
    """A run as the report reads it."""

    folder: RunFolder
    label: str
    first: Run | None = None
    """The run whose model it went on from, if that is part of the story; steps are counted from its first."""

    @cached_property
    def config(self) -> dict[str, Any]:
        return read_yaml(self.folder.config)

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        own = self.folder.metrics.read()
        return [*self.first.metrics, *(r | {"step": r["step"] + self.first.steps} for r in own)] if self.first else own

    @cached_property
    def evaluations(self) -> list[tuple[int, Evaluation]]:
        own = Evaluation.of_records(self.folder.evaluations.read())
        if self.first:
            own = dict(self.first.evaluations) | {step + self.first.steps: found for step, found in own.items()}
        return list(own.items())

    @cached_property
    def environment(self) -> dict[str, str]:
        path = self.folder.environment
        return json.loads(path.read_text()) if path.exists() else {}

    @property
    def method(self) -> str:
        return _name(self.config.get("method", MethodConfig().name))

    @property
    def task(self) -> str:
        return _name(self.config.get("task", "")).rpartition(":")[2]

    @property
    def model(self) -> str:
        return _name(self.config.get("model", ModelConfig().name))

    @property
    def seed(self) -> int:
        return self.config.get("seed", 0)

    @property
    def steps(self) -> int:
        return max((record["step"] for record in self.metrics), default=0)

    @property
    def planned_steps(self) -> int:
        own = self.config.get("steps", self.steps)
        return own + self.first.planned_steps if self.first else own

    @property
    def seconds(self) -> float:
        return sum(record.get("seconds/total") or 0.0 for record in self.metrics)

    @property
    def before(self) -> Estimate | None:
        return self.evaluations[0][1].accuracy if self.evaluations else None

    @property
    def _compared(self) -> tuple[Evaluation, Evaluation] | None:
        """The first evaluation and the last one of the same problems."""
        if not self.evaluations:
            return None
        first = self.evaluations[0][1]
        last = [e for _, e in self.evaluations[1:] if e.problems == first.problems]
        return (first, last[-1]) if last else None

    @property
    def after(self) -> Estimate | None:
        return self._compared[1].accuracy if self._compared else None

    @property
    def gain(self) -> Estimate | None:
        """Accuracy after − before, paired over problems."""
        return difference(*(e.scores for e in self._compared)) if self._compared else None

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``unclear`` (the interval of the gain holds 0) or ``unknown``."""
        if self.gain is None:
            return "unknown"
        return "better" if self.gain.low > 0 else "worse" if self.gain.high < 0 else "unclear"

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Rollouts of the first, the middle and the last step that has any."""
        recorded = self.folder.rollouts.read()
        steps = sorted({record["step"] for record in recorded})
        chosen = sorted({steps[0], steps[len(steps) // 2], steps[-1]}) if steps else []
        return [{"step": step, "rollouts": [EXAMPLE | r for r in recorded if r["step"] == step]} for step in chosen]


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Write the report on the run folders `runs` to the file `out`.

    Raises:
        ConfigError: a folder is not a run.
    """
    opened = _open(runs)
    labels, unequal = [run.label for run in opened], differing([run.config for run in opened])
    write_page("report.html.j2", out, labels, _sections(opened), runs=opened, differing=unequal, shown=SHOWN_CHARACTERS)


def write_page(template: str, out: Path, labels: Sequence[str], sections: Sequence[Mapping[str, Any]], **values: Any) -> None:
    """Write the page that `template` makes of `values` and of the plots in `sections`, whose lines belong to `labels`."""
    here = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = here.get_template(template).render(
        labels=labels,
        sections=sections,
        plotlyjs=Markup(get_plotlyjs()),
        nonce=secrets.token_urlsafe(16),  # only the page's own scripts run
        to_yaml=lambda tree: yaml.safe_dump(tree, sort_keys=False, allow_unicode=True),
        smoothed=SMOOTHED_SHARE,
        **values,
    )
    write_atomic(out, page)


def _open(paths: Sequence[Path]) -> list[Run]:
    """The runs, labelled by as much of their paths as tells them apart."""
    if not paths:
        raise ConfigError("a report needs at least one run folder: give runs/…")
    folders = [RunFolder(path.resolve()) for path in dict.fromkeys(paths)]
    for folder in folders:
        if not folder.is_run:
            raise ConfigError(f"{folder.path} is not a run folder (no config.yaml): give a folder that 'quatrain train' wrote")
    depth = 1
    while len({folder.path.parts[-depth:] for folder in folders}) < len(folders):
        depth += 1
    return [Run(folder, "/".join(folder.path.parts[-depth:])) for folder in folders]


def _sections(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The sections with the panels that have anything to show, every metric in exactly one of them."""
    recorded = {name: None for run in runs for record in run.metrics for name, value in record.items() if _is_number(value)}
    named = {name for _, panels in SECTIONS for panel in panels for name in panel.metrics}
    left = [name for name in recorded if name not in named | NOT_SHOWN]
    sections = []
    for title, panels in SECTIONS:
        drawn = list(_evaluation_panels(runs)) if title == SECTIONS[0][0] else []
        for panel in panels:
            rest = {name: name.removeprefix(panel.rest) for name in left if panel.rest and name.startswith(panel.rest)}
            left = [name for name in left if name not in rest]
            metrics = {name: label for name, label in {**panel.metrics, **rest}.items() if name in recorded}
            if metrics and not (panel.unit == "stacked" and len(runs) > 1):
                drawn.append(_panel(panel, metrics, runs))
        sections.append({"title": title, "panels": drawn})
    others = [_panel(Panel(name), {name: name}, runs) for name in left]
    return [section for section in [*sections, {"title": "Also recorded", "panels": others}] if section["panels"]]


def _panel(panel: Panel, metrics: Mapping[str, str], runs: Sequence[Run]) -> dict[str, Any]:
    lines = [_line(panel, name, label, number, run) for number, run in enumerate(runs) for name, label in metrics.items()]
    return drawn_panel(panel, [line for line in lines if any(y is not None for y in line["y"])], list(metrics))


def _line(panel: Panel, metric: str, label: str, number: int, run: Run) -> dict[str, Any]:
    records = [record for record in run.metrics if metric in record]
    values = [rounded(record[metric]) for record in records]
    window = max(1, round(SMOOTHED_SHARE * len(values)))
    smooth = list(_trailing_mean(values, window)) if panel.smooth and window > 2 else None
    return {"run": number, "name": label, "x": [record["step"] for record in records], "y": values, "smooth": smooth}


def _evaluation_panels(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Held-out accuracy with its band, and the other estimates of the evaluations."""
    accuracy = Panel("Held-out accuracy", "On problems never trained on, with its 95 % interval.", unit="share")
    about = "pass@k: any of k answers is right. maj@k: the most frequent one is. distinct@k: different right ones, of k."
    others = Panel("Several answers", about, unit="share")
    score = Panel("Held-out score", "Mean score, where an answer can be partly right.", unit="share")
    kinds = [
        (accuracy, lambda n: n == "pass@1"),
        (score, lambda n: n == "score"),
        (others, lambda n: n not in ("pass@1", "score")),
    ]
    for panel, wanted in kinds:
        lines = []
        for number, run in enumerate(runs):
            names = {name: None for _, evaluation in run.evaluations for name in evaluation.estimates if wanted(name)}
            for name in names:
                points = [(step, e.estimates[name]) for step, e in run.evaluations if name in e.estimates]
                lines.append(
                    {
                        "run": number,
                        "name": "accuracy" if name == "pass@1" else name,
                        "x": [step for step, _ in points],
                        "y": [rounded(point.value) for _, point in points],
                        "low": [rounded(point.low) for _, point in points],
                        "high": [rounded(point.high) for _, point in points],
                        "notes": [f"on {point.n} problems" for _, point in points],
                    }
                )
        if lines:
            yield drawn_panel(panel, lines, [])


def drawn_panel(panel: Panel, lines: list[dict[str, Any]], metrics: list[str]) -> dict[str, Any]:
    """A panel with its lines, as the page's script reads it."""
    return {
        "title": panel.title,
        "about": panel.about,
        "unit": panel.unit,
        "axis": panel.axis,
        "metrics": [name for name in metrics if name != panel.title],
        "lines": plain(lines),
    }


def _trailing_mean(values: Sequence[float | None], window: int) -> Iterator[float | None]:
    for end in range(1, len(values) + 1):
        known = [value for value in values[max(0, end - window) : end] if value is not None]
        yield rounded(sum(known) / len(known)) if known else None


def differing(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs, with their values."""
    flat = [dict(_flat(config)) for config in configs]
    names = dict.fromkeys(name for config in flat for name in config)
    rows = [(name, ["—" if config.get(name) is None else str(config[name]) for config in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1 and name != "out"]


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _name(section: Any) -> str:
    """A section's name: sections may be given as a bare one."""
    return str(section.get("name", "")) if isinstance(section, Mapping) else str(section)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def rounded(value: Any) -> float | None:
    """Six digits: a plot shows no more, and the page stays small."""
    return float(f"{value:.6g}") if _is_number(value) else None
