"""The algorithms of the table in section 3.2 of arXiv:2509.08827, a survey of RL for large reasoning models, are all here."""

import re
from pathlib import Path

import pytest

from quatrain.methods import METHODS, method
from quatrain.objective import (
    GAE,
    Cap,
    Clip,
    Corrected,
    Filtered,
    GeometricClip,
    GeometricMean,
    ImplicitProcess,
    LengthAdaptiveGAE,
    OverGreedy,
    PerSequence,
    Relative,
    ReturnToGo,
    Sequence,
    Whitened,
)

SURVEY = {
    "PPO": "ppo",
    "ReMax": "remax",
    "RLOO": "rloo",
    "REINFORCE++": "reinforce_pp",
    "GRPO": "grpo",
    "PRIME": "prime",
    "VAPO": "vapo",
    "Dr.GRPO": "dr_grpo",
    "DAPO": "dapo",
    "Clip-Cov": "clip_cov",
    "KL-Cov": "kl_cov",
    "CISPO": "cispo",
    "GSPO": "gspo",
    "GMPO": "gmpo",
    "GFPO": "gfpo",
    "LitePPO": "lite_ppo",
    "FlashRL": "tis",
    "HPT": "hpt",
    "UPGE": "hpt",
}
"""The survey's name of each algorithm, and its row."""

ADVANTAGES = {
    "PPO": GAE(),  # GAE by a critic
    "ReMax": OverGreedy(),
    "RLOO": Relative("leave_one_out"),
    "REINFORCE++": Whitened(ReturnToGo()),  # negative KL and relative to the batch
    "GRPO": Relative(scale="group"),
    "PRIME": ImplicitProcess(),  # outcome and implicit process reward
    "VAPO": LengthAdaptiveGAE(),
    "Dr.GRPO": Relative(),
    "DAPO": Relative(scale="group"),
    "Clip-Cov": Relative(scale="group"),
    "KL-Cov": Relative(scale="group"),
    "CISPO": Relative(scale="group"),
    "GSPO": Relative(scale="group"),
    "GMPO": Relative(scale="group"),
    "GFPO": Filtered(),  # filtered, then relative to the group
    "LitePPO": Relative(scale="batch"),
    "FlashRL": Relative(scale="group"),
}
"""The survey's column on advantages, as parts."""


@pytest.mark.parametrize(("name", "row"), SURVEY.items())
def test_each_name_of_the_survey_finds_its_row(name: str, row: str):
    assert method(name) is METHODS[row]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_the_advantage_is_what_the_survey_says(name: str):
    assert method(name).terms[0].parts["advantage"] == ADVANTAGES[name]


def test_the_importance_sampling_is_what_the_survey_says():
    def mask(name: str) -> object:
        return method(name).terms[0].parts["mask"]

    for name in ("PPO", "REINFORCE++", "GRPO", "PRIME", "Dr.GRPO", "GFPO", "LitePPO"):
        assert mask(name) == Clip(0.2, 0.2)
    for name in ("VAPO", "DAPO"):
        assert mask(name) == Clip(0.2, 0.28)
    assert isinstance(mask("CISPO"), Cap)
    assert isinstance(mask("FlashRL"), Corrected)
    assert isinstance(mask("GMPO"), GeometricClip)
    assert method("GSPO").terms[0].parts["denominator"] == GeometricMean()
    for name in ("ReMax", "RLOO"):
        assert method(name).terms[0].parts["likelihood"] == Sequence(), "without ratio"


def test_only_those_weigh_by_sequence_of_which_the_survey_says_so():
    by_sequence = {name for name in ADVANTAGES if isinstance(method(name).terms[0].parts["reduce"], PerSequence)}
    by_sequence -= {"ReMax", "RLOO"}  # the action is the sequence, whose log-probability is a sum over tokens
    assert by_sequence == {"REINFORCE++", "GRPO", "GSPO", "GMPO"}


def test_the_page_on_methods_lists_them():
    page = (Path(__file__).parents[2] / "docs/methods.md").read_text().rpartition("\n## ")[2]
    listed = dict(re.findall(r"^\| ([^|]+?) +\| `(\w+)` \|", page, re.MULTILINE))
    assert {name for name in SURVEY if name != "UPGE"} | {"HPT (UPGE)"} == {name.replace("Dr. ", "Dr.") for name in listed} | {
        "HPT"
    }
    assert all(method(name.partition(" (")[0].replace("Dr. ", "Dr.")) is METHODS[row] for name, row in listed.items())
