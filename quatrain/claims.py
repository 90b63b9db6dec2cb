"""What papers claim, as folders: arms, seeds and the smallest effect that counts; and whether it held."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from quatrain.config import ConfigError, Section, merge, nearest, read_yaml, validated
from quatrain.diagnostics.comparison import Comparison, Metric, Pair
from quatrain.diagnostics.evaluation import Estimate
from quatrain.diagnostics.records import plain, write_atomic
from quatrain.experiment import Arm, Experiment

Judgement = Literal["held", "not held", "undecided"]
Seeds = Annotated[int, Field(ge=2)]


class Expectation(Section):
    """One arm above another."""

    says: str = ""
    """One sentence, where it says something else than the claim as a whole."""
    better: str
    """The arm that should come out above."""
    than: str
    """The arm that it is held against; the same one, where two of its metrics are compared."""
    metric: str | None = None
    """What the better arm is measured by; None is the claim's metric."""
    than_metric: str | None = None
    """What the other arm is measured by; None is what the better arm is."""
    smallest_effect: float
    """The smallest difference that counts, in units of the metric; below 0: no worse than by so much."""

    @property
    def sides(self) -> tuple[tuple[str, str | None], tuple[str, str | None]]:
        """The two arms, each with what it is measured by if that is not the claim's metric."""
        return (self.better, self.metric), (self.than, self.than_metric or self.metric)


class Quick(Section):
    """What is less in a quick run."""

    seeds: Seeds
    """Runs of each arm."""
    steps: PositiveInt
    """Of each run."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What else is less, for all arms, as ``evaluate.problems``."""


class Claim(Section):
    """What ``claim.yaml`` holds."""

    claim: str
    """One sentence."""
    paper: str
    """Whose claim it is: ``arXiv:2402.14740``."""
    note: str = ""
    """How the settings were found, what else was tried, and what is to be made of the result; says nothing to the machine."""
    metric: str = "accuracy"
    """What is measured, as for `compare`: ``accuracy``, ``pass@4``, ``reward/mean``, ``entropy:slope``."""
    lower_is_better: bool = False
    """Whether the better arm is the one with the lower value."""
    seeds: Seeds
    """Runs of each arm, with the seeds 0, 1, …"""
    quick: Quick
    """The same, quickly."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """A run's settings, for all arms. Files are looked for in the claim's folder first."""
    arms: dict[str, dict[str, Any]]
    """By name, what an arm has besides or otherwise."""
    comparisons: Annotated[list[Expectation], Field(min_length=1)]
    """All of them have to hold."""


@dataclass(frozen=True)
class Verdict:
    """What became of one comparison of a claim."""

    expected: Expectation
    difference: Estimate | None
    """How much better the arm is, over the seeds that finished in both."""
    failed: int
    """Runs of the two arms without a result."""

    @property
    def judgement(self) -> Judgement:
        """From the whole interval; open where a run failed, for those that are left are a choice of runs."""
        effect, found = self.expected.smallest_effect, self.difference
        if found is None or self.failed:
            return "undecided"
        return "held" if found.low >= effect else "not held" if found.high < effect else "undecided"

    def __str__(self) -> str:
        e = self.expected
        first, second = (f"{arm} ({metric})" if metric else arm for arm, metric in e.sides)
        told = f"{first} better than {second} by {self.difference:+.3g}" if self.difference else f"{first} and {second}"
        lost = f"; {self.failed} runs failed" if self.failed else ""
        says = f"{e.says} " if e.says else ""
        return f"{says}{told}, where {e.smallest_effect:+.3g} is the least that counts{lost}"

    def to_json(self) -> dict[str, Any]:
        found = vars(self.difference) if self.difference else None
        return {**self.expected.model_dump(), "difference": found, "failed": self.failed, "verdict": self.judgement}


@dataclass(frozen=True)
class Place:
    """A claim's folder."""

    path: Path

    @property
    def results(self) -> Path:
        """What the last full run came to."""
        return self.path / "results.json"

    def read(self) -> Claim:
        """The claim, or a ConfigError that says what is wrong in the file."""
        file = self.path / "claim.yaml"
        try:
            claim = validated(Claim, read_yaml(file))
            for name, metric in ((next(iter(claim.arms), ""), claim.metric), *(s for c in claim.comparisons for s in c.sides)):
                Metric.parse(metric or claim.metric)
                if name not in claim.arms:
                    raise ConfigError(f"the comparisons name an arm {name!r}: {nearest(name, claim.arms)}")
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None
        return claim

    def experiment(self, out: Path, *, quick: bool) -> Experiment:
        """The runs of the claim, in the folder `out`."""
        claim = self.read()
        shared = merge(claim.settings, claim.quick.settings) if quick else claim.settings
        arms = [Arm.of(name, self._found(merge(shared, own))) for name, own in claim.arms.items()]
        if quick:
            arms = [arm.within(claim.quick.steps) for arm in arms]
        return Experiment(tuple(arms), tuple(range(claim.quick.seeds if quick else claim.seeds)), out)

    def write(self, comparison: Comparison, verdicts: list[Verdict]) -> None:
        """Keep what a full run came to beside the claim."""
        found = {
            "claim": _decisive(self.read()),
            "verdict": together(verdicts),
            "comparisons": [verdict.to_json() for verdict in verdicts],
            **comparison.to_json(),
        }
        write_atomic(self.results, json.dumps(plain(found), indent=1, ensure_ascii=False) + "\n")

    def last(self) -> dict[str, Any] | None:
        """What the last full run of this very claim came to; None where it was not run, or was changed since."""
        found = json.loads(self.results.read_text()) if self.results.exists() else None
        return found if found and found["claim"] == _decisive(self.read()) else None

    def _found(self, tree: Any) -> Any:
        """`tree` with the names of files of this folder as paths."""
        if isinstance(tree, Mapping):
            return {key: self._found(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self._found(value) for value in tree]
        is_here = isinstance(tree, str) and tree and (self.path / tree.partition(":")[0]).is_file()
        return str(self.path / tree) if is_here else tree


def _decisive(claim: Claim) -> dict[str, Any]:
    """All of `claim` that its results depend on."""
    return claim.model_dump(
        mode="json", exclude={"note": True, "claim": True, "paper": True, "quick": True, "comparisons": {"__all__": {"says"}}}
    )


def find_claims(folder: Path) -> dict[str, Place]:
    """The claims in `folder` by name.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder}: claims live in the repository, run this in a checkout or name one by --claims"
        )
    return {file.parent.name: Place(file.parent) for file in sorted(folder.glob("*/claim.yaml"))}


def judge(claim: Claim, comparison: Comparison) -> list[Verdict]:
    """A verdict on each comparison of `claim`."""
    out = []
    for expected in claim.comparisons:
        arms = [comparison.arms[name].by(Metric.parse(metric or claim.metric)) for name, metric in expected.sides]
        pair = Pair(*reversed(arms)) if claim.lower_is_better else Pair(*arms)
        out.append(Verdict(expected, pair.difference, sum(len(arm.failed) for arm in arms)))
    return out


def together(verdicts: list[Verdict]) -> Judgement:
    """Held where all are; not held where one is not."""
    found = {verdict.judgement for verdict in verdicts}
    return "not held" if "not held" in found else "undecided" if "undecided" in found else "held"
