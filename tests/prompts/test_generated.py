"""Tasks of reasoning-gym: names, options and streams."""

import itertools
import json

import pytest

from quatrain.config import ConfigError, TaskConfig
from quatrain.prompts import describe, open_task, task_names
from quatrain.prompts.reasoning import BLOCK, Generated, as_json


def first(task, count, seed=0, start=0):
    return list(itertools.islice(task.problems(seed, start), count))


def refused(name, **options):
    with pytest.raises(ConfigError) as caught:
        open_task(TaskConfig(name=name, options=options))
    return str(caught.value)


class TestOpening:
    def test_options_in_the_name_win_over_those_of_the_config(self):
        config = TaskConfig(name="reasoning_gym:chain_sum?min_terms=2&max_terms=2", options={"max_terms": 5, "max_digits": 1})
        task = open_task(config)
        assert task.options == {"min_terms": 2, "max_terms": 2, "max_digits": 1}
        assert task.name == "reasoning_gym:chain_sum"
        assert task.size is None

    def test_values_in_the_name_are_yaml(self):
        task = open_task(TaskConfig(name="reasoning_gym:chain_sum?allow_negation=true"))
        assert task.options == {"allow_negation": True}

    def test_unknown_data_set(self):
        assert "did you mean chain_sum" in refused("reasoning_gym:chainsum")

    def test_composite_is_no_task(self):
        assert "no data set 'composite'" in refused("reasoning_gym:composite")

    def test_a_bare_data_set_name_is_told_its_prefix(self):
        assert "write reasoning_gym:chain_sum" in refused("chain_sum")

    def test_unknown_option(self):
        message = refused("reasoning_gym:chain_sum", max_term=3)
        assert "'max_term'" in message
        assert "did you mean max_terms" in message

    def test_invalid_value(self):
        message = refused("reasoning_gym:chain_sum", min_terms=5, max_terms=2)
        assert "min_terms=5, max_terms=2: max_terms must be >= min_terms" in message

    def test_value_of_a_wrong_type(self):
        assert "min_terms='two'" in refused("reasoning_gym:chain_sum", min_terms="two")

    @pytest.mark.parametrize("option", ["seed", "size"])
    def test_what_the_run_decides_is_no_option(self, option):
        assert f"{option} = 3" in refused("reasoning_gym:chain_sum", **{option: 3})

    def test_malformed_options_in_the_name(self):
        assert "'max_terms' is not OPTION=VALUE" in refused("reasoning_gym:chain_sum?max_terms")

    def test_problems_that_depend_on_string_hashes_are_warned_of(self, monkeypatch):
        monkeypatch.delenv("PYTHONHASHSEED", raising=False)
        with pytest.warns(UserWarning, match="PYTHONHASHSEED=0"):
            open_task(TaskConfig(name="reasoning_gym:ransom_note"))
        monkeypatch.setenv("PYTHONHASHSEED", "0")
        open_task(TaskConfig(name="reasoning_gym:ransom_note"))


class TestStream:
    task = Generated("chain_sum", {"max_terms": 3})

    def test_is_reproducible(self):
        assert first(self.task, 5, seed=3) == first(self.task, 5, seed=3)

    @pytest.mark.parametrize("data_set", ["chain_sum", "acre"])
    def test_can_be_entered_anywhere(self, data_set):
        task = Generated(data_set, {})
        whole = first(task, 2 * 4, start=BLOCK - 4)
        assert first(task, 4, start=BLOCK) == whole[4:]

    def test_goes_on_beyond_a_block_without_repeating(self):
        questions = [p.question for p in first(Generated("chain_sum", {"min_terms": 6}), BLOCK + 50)]
        assert len(set(questions[BLOCK:]) & set(questions[:BLOCK])) == 0

    def test_neighbouring_seeds_share_nothing(self):
        long = Generated("chain_sum", {"min_terms": 6, "min_digits": 4})
        a, b = ({p.question for p in first(long, 100, seed)} for seed in (0, 1))
        assert len(a) == len(b) == 100
        assert not a & b

    def test_info_is_json(self):
        for problem in first(self.task, 3):
            assert json.loads(json.dumps(problem.info)) == problem.info

    def test_a_problem_that_cannot_be_made_is_replaced(self):
        class GivesUp:
            seed = 5

            def __getitem__(self, place):
                raise RuntimeError("no suitable path")

        problem = self.task._problem(GivesUp(), 3)
        assert problem.question
        assert problem == self.task._problem(GivesUp(), 3)


def test_json_keeps_what_json_lacks():
    assert as_json({1: (2, [3, None])}) == {"__items__": [[1, {"__tuple__": [2, [3, None]]}]]}


def test_every_data_set_is_listed_with_its_options():
    listed = {d.name: d for d in task_names()}
    assert len(listed) >= 105
    assert "composite" not in listed
    assert listed["chain_sum"].category == "arithmetic"
    assert dict(describe("chain_sum").options) == {
        "min_terms": 2,
        "max_terms": 6,
        "min_digits": 1,
        "max_digits": 4,
        "allow_negation": False,
    }
