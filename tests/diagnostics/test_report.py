"""The report's contents; that a browser draws it is tested in tests/browser."""

import json
import re
from html.parser import HTMLParser

import pytest

from quatrain.config import ConfigError
from quatrain.diagnostics.records import JsonLines, RunFolder
from quatrain.diagnostics.report import write_report
from tests.diagnostics.synthetic import HOSTILE, make_run


class Page(HTMLParser):
    """The tags of a page with their attributes, its visible text, and the data of its plots."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text, self.scripts = [], "", []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag == "td":
            self.text += " "

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem != "style":
            self.text += data

    @property
    def data(self):
        return json.loads(self.scripts[1])

    @property
    def panels(self):
        return {panel["title"]: panel for section in self.data["sections"] for panel in section["panels"]}

    @property
    def words(self):
        return " ".join(self.text.split())


def report(*runs):
    out = runs[0].parent / "report.html"
    write_report(list(runs), out)
    return Page(out.read_text())


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return report(make_run(tmp_path_factory.mktemp("one") / "run"))


def test_the_verdict_names_before_after_and_gain(one):
    assert re.search(
        r"Held-out accuracy \d+\.\d % \[\d+\.\d, \d+\.\d\] → \d+\.\d % \[.*?\] on 100 problems: gain \+\d+\.\d points \[",
        one.words,
    )
    assert "Better: the interval of the gain lies above 0." in one.words
    assert "smollm2 · seed 0 · 100 of 100 steps" in one.words


def test_every_metric_is_in_one_panel(one):
    shown = [name for panel in one.panels.values() for name in panel["metrics"]]
    assert len(shown) == len(set(shown))
    expected = {"reward/mean", "reward/format", "entropy", "kl/rollout", "kl/ref", "ratio/p01", "update/lr", "seconds/update"}
    assert expected <= set(shown)
    assert "dual/price" in one.panels
    assert {line["name"] for line in one.panels["Reward parts"]["lines"]} == {"correct", "format"}
    assert "Value loss" not in one.panels


def test_held_out_accuracy_has_a_band_from_before_the_first_step(one):
    (line,) = one.panels["Held-out accuracy"]["lines"]
    assert line["x"] == list(range(0, 101, 10))
    assert all(low < y < high for low, y, high in zip(line["low"], line["y"], line["high"], strict=True))
    assert [line["name"] for line in one.panels["Several answers"]["lines"]] == ["pass@4", "maj@4", "distinct@4"]


def test_what_was_not_finite_is_a_gap(one):
    (line,) = one.panels["Gradient norm"]["lines"]
    assert line["y"][49] is None
    assert line["smooth"][49] is not None


def test_model_output_is_only_ever_text(one):
    assert HOSTILE in one.text
    assert not [tag for tag, _ in one.tags if tag in ("img", "b")]
    assert len(one.scripts) == 3


def test_the_page_loads_nothing(one):
    for tag, attributes in one.tags:
        assert not {"src", "srcset", "action"} & set(attributes), tag
        assert attributes.get("href", "data:,") == "data:,"
    (policy,) = [a["content"] for tag, a in one.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_configuration_and_versions_are_there(one):
    assert "max_terms: 4" in one.text
    assert "torch" in one.text


def test_several_runs_overlay(tmp_path):
    page = report(make_run(tmp_path / "a" / "run", steps=12), make_run(tmp_path / "b" / "run", method="dapo", seed=1, steps=6))
    assert page.data["labels"] == ["a/run", "b/run"]
    assert [line["run"] for line in page.panels["Reward"]["lines"]] == [0, 1]
    assert "Seconds per stage" not in page.panels
    assert "Seconds per step" in page.panels
    assert "method.name grpo dapo" in page.words
    assert "seed 0 1" in page.words


def test_names_are_escaped_too(tmp_path):
    path = make_run(tmp_path / "run<b>", steps=3, method="'</script><img src=x>'")
    page = report(path)
    assert not [tag for tag, _ in page.tags if tag in ("img", "b")]


def test_a_run_that_has_just_begun(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create("task: chain_sum\n")
    page = report(folder.path)
    assert "Held-out accuracy was not measured." in page.words
    assert "No step is recorded yet" in page.words
    folder.metrics.append({"step": 1, "reward/mean": 0.5})
    folder.rollouts.append({"step": 1, "text": None, "error": "engine stopped"})
    page = report(folder.path)
    assert list(page.panels) == ["Reward"]
    assert "engine stopped" in page.words


def test_a_run_that_was_killed_while_writing(tmp_path):
    path = make_run(tmp_path / "run", steps=5)
    with JsonLines(path / "metrics.jsonl").path.open("a") as file:
        file.write('{"step": 6, "rewa')
    assert report(path).panels["Reward"]["lines"][0]["x"] == [1, 2, 3, 4, 5]


def test_no_clear_change_is_said(tmp_path):
    path = make_run(tmp_path / "run", steps=5)
    first = RunFolder(path).evaluations.read()[0]
    RunFolder(path).evaluations.append({**first, "step": 5})
    assert "No clear change: the interval of the gain holds 0." in report(path).words


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run folder \(no config\.yaml\)"):
        write_report([tmp_path], tmp_path / "report.html")
    with pytest.raises(ConfigError, match="at least one run folder"):
        write_report([], tmp_path / "report.html")
