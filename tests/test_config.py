"""The tree of settings: what is put where, what wins, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quatrain.config import ConfigError, RunConfig, load, parse_setting, read_yaml

TASK = {"task": "reasoning_gym:chain_sum"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=1e-5", 1e-5),
        ("a=-2.5E3", -2500.0),
        ("a=true", True),
        ("a=null", None),
        ("a=", None),
        ("a=text", "text"),
        ("a='1e-5'", "1e-5"),
        ('a="2024"', "2024"),
        ("a='nan'", "nan"),
        ("a=b=c", "b=c"),
        ("a=[1, x]", [1, "x"]),
        ("a={b: 1}", {"b": 1}),
    ],
)
def test_values_are_yaml_and_numbers_are_numbers_unless_quoted(text: str, value: Any):
    key, parsed = parse_setting(text)
    assert key == "a"
    assert parsed == value
    assert type(parsed) is type(value)


def test_later_settings_win_over_earlier_ones_and_over_the_recipe():
    tree = {**TASK, "steps": 3, "update": {"lr": 1e-3, "epochs": 2}}
    config = load(tree, ["steps=4", "update.lr=1e-4", "update.lr=1e-6"])
    assert (config.steps, config.update.lr, config.update.epochs) == (4, 1e-6, 2)
    assert tree == {**TASK, "steps": 3, "update": {"lr": 1e-3, "epochs": 2}}, "what is given is left as it was"


@pytest.mark.parametrize("section", ["method", "task", "model"])
def test_a_bare_name_is_a_section(section: str):
    short = load({**TASK, section: "reasoning_gym:basic_arithmetic"})
    assert short == load({**TASK, section: {"name": "reasoning_gym:basic_arithmetic"}})


def test_a_name_that_is_set_leaves_the_rest_of_its_section():
    tree = {"task": {"name": "a.jsonl", "system": "Be brief."}, "model": {"name": "m", "lora": {"rank": 2}}}
    config = load(tree, ["task=b.jsonl", "model=n", "model.lora.alpha=8"])
    assert (config.task.name, config.task.system) == ("b.jsonl", "Be brief.")
    assert config.model.lora is not None
    assert (config.model.name, config.model.lora.rank, config.model.lora.alpha) == ("n", 2, 8)


def test_a_methods_numbers_keep_their_dotted_names():
    short = load(TASK, ["method=grpo", "method.mask.high=0.3", "method.kl.coefficient=0"])
    long = load({**TASK, "method": "grpo"}, ["method.settings.mask.high=0.3", "method.settings.kl.coefficient=0"])
    assert short == long
    assert short.method.settings == {"mask.high": 0.3, "kl.coefficient": 0}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "steps": st.integers(1, 10**6),
            "seed": st.integers(0, 2**40),
            "out": st.text("ae1.-/ é'\":#", min_size=1, max_size=8),
            "update": st.fixed_dictionaries(
                {}, optional={"lr": st.floats(1e-12, 1e3), "schedule": st.sampled_from(["cosine", "linear"])}
            ),
            "sampling": st.fixed_dictionaries({}, optional={"stop": st.none() | st.lists(st.text(max_size=4), max_size=3)}),
            "model": st.fixed_dictionaries({}, optional={"lora": st.none() | st.builds(dict, rank=st.integers(1, 64))}),
        },
    )
)
def test_what_a_run_folder_keeps_is_the_same_configuration(tree: dict[str, Any]):
    config = load({**TASK, **tree})
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    assert load(yaml.safe_load(text)) == config


def test_a_configuration_cannot_be_changed():
    config = load(TASK)
    with pytest.raises(ValueError, match="frozen"):
        config.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "the setting 'task' is missing: give it with --task or in the recipe"),
        ({**TASK, "rewards": [{"weight": 1}]}, "the setting 'rewards.0.name' is missing: give it in the recipe"),
        (
            {**TASK, "rewards": [{"name": "correct", "wieght": 1}]},
            "there is no setting 'rewards.0.wieght': did you mean rewards.0.weight?",
        ),
        ({**TASK, "epochs": 2}, "there is no setting 'epochs': did you mean update.epochs?"),
        ({**TASK, "temperature": 1}, "'temperature': did you mean sampling.temperature or evaluate.temperature?"),
        ({**TASK, "update": {"betas": [0.9, "x"]}}, "update.betas.1 = 'x' is not allowed"),
        ({**TASK, "update": 3}, "update = 3 is not allowed"),
        ({**TASK, "update": {"lr": float("inf")}}, "update.lr = inf is not allowed"),
    ],
)
def test_what_is_wrong_is_one_line(tree: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        load(tree)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path):
    file = tmp_path / "a.yaml"
    for text in ("", "3", "- a", "a: [", "\ta: 1"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=re.escape(str(file))) as error:
            read_yaml(file)
        assert "\n" not in str(error.value)


def test_a_missing_answer_column_can_be_said_on_the_command_line():
    assert load(TASK, ["task.answer_column="]).task.answer_column is None
    assert RunConfig(task="a").task.answer_column == "answer"  # type: ignore[arg-type]
