"""Claims about mechanisms: how they are judged, what is committed, and that no row of the family is without a claim."""

import json
from pathlib import Path

import pytest

from quatrain.claims import Expectation, find_claims
from quatrain.methods import METHODS
from reproductions.mechanisms import __main__ as command
from reproductions.mechanisms import results
from reproductions.mechanisms.mechanism import Measured, mechanism
from reproductions.stability.results import CLAIMS

STABLE = (
    "tis", "seq_tis", "mis", "icepop", "mini_rl", "hispo", "p1_vl", "alp", "areal", "bapo", "minpro", "mhpo", "r2vpo", "c3po",
    "aepo", "oblr_po", "grpo_lambda_length", "gdpo", "rank_grpo", "rapo", "guirlvg", "selective", "spae", "istar",
    "ui_tars_2", "spear", "vpo", "kepo", "qwenlong_l1_5",
)  # fmt: skip
"""The rows of the family whose papers are about stable training."""
BESIDE = {"kl_gradients", "routing_replay", "rubric"}
"""Claims about what is no row: the places of a KL penalty, experts that are chosen again, and a veto of the rubric."""


@mechanism(
    "grpo",
    says="More is more.",
    paper="arXiv:2402.03300",
    measured="a number",
    metric="number",
    expected=[
        Expectation(better="more", than="less", smallest_effect=0.5),
        Expectation(better="more", than="less", metric="other", smallest_effect=0.5),
        Expectation(better="more", than="more", metric="number", than_metric="other", smallest_effect=0.0),
    ],
    seeds=3,
)
def more(seed: int) -> Measured:
    return {"more": {"number": 2.0 + seed / 10, "other": 1.0 + seed}, "less": {"number": 1.0, "other": 1.0}}


def test_a_claim_is_judged_by_the_interval_over_pairs():
    verdicts = more.judge([more.sample(seed) for seed in range(3)])
    assert [verdict.judgement for verdict in verdicts] == ["held", "undecided", "undecided"]
    assert verdicts[0].difference is not None
    assert (verdicts[0].difference.value, verdicts[0].difference.n) == (pytest.approx(1.1), 3)
    assert more.judge([more.sample(0), more.sample(1)])[0].judgement == "undecided"


def test_a_result_is_kept_beside_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in (results, command):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(command, "MECHANISMS", {"more": more, "again": more})
    command.keep("again", {"samples": [{"a": {"b": 1 / 3}}]})
    command.keep("more", {"samples": []})
    kept = json.loads((tmp_path / "results.json").read_text())["mechanisms"]
    assert list(kept) == ["more", "again"]
    assert kept["again"]["samples"] == [{"a": {"b": 0.333333}}]


def test_what_is_committed_is_of_claims_as_they_are():
    for name, found in results.read()["mechanisms"].items():
        claim = results.MECHANISMS[name]
        assert len(found["samples"]) == claim.seeds
        assert all(verdict.difference is not None for verdict in claim.judge(found["samples"]))


def test_a_claim_measures_what_was_committed():
    """The first seed once more."""
    found = results.MECHANISMS["kl_gradients"].sample(0)
    kept = results.read()["mechanisms"]["kl_gradients"]["samples"][0]
    for arm, of in found.items():
        assert of == pytest.approx(kept[arm], rel=1e-4, abs=1e-4)


def test_every_row_of_the_family_has_a_claim(tmp_path: Path):
    places = find_claims(Path(results.__file__).parent.parent)
    trained = {arm.config.method.name for place in places.values() for arm in place.experiment(tmp_path, quick=False).arms}
    measured = {row for claim in results.MECHANISMS.values() for row in claim.rows}
    assert set(STABLE) <= set(METHODS)
    assert set(STABLE) <= trained | measured | {claim.method for claim in CLAIMS}
    assert {*places, *results.MECHANISMS} >= BESIDE
