"""Rewards by name: found and checked before a run starts."""

import pytest

from quatrain.config import ConfigError, RewardConfig
from quatrain.rewards import check_rewards, load_reward

FACTS = {
    "completion": "12",
    "answer": "12",
    "question": "?",
    "info": {},
    "tokens": 9,
    "truncated": False,
    "max_answer_tokens": 10,
}


def load(name, **options):
    return load_reward(RewardConfig(name=name, options=options))


def refused(name, **options):
    with pytest.raises(ConfigError) as caught:
        check_rewards([RewardConfig(name="correct"), RewardConfig(name=name, options=options)])
    return str(caught.value)


class TestBuiltin:
    @pytest.mark.parametrize(
        ("name", "options", "expected"),
        [
            ("correct", {}, 1.0),
            ("correct", {"compare": "text"}, 1.0),
            ("math", {}, 1.0),
            ("format", {"pattern": r"\d+"}, 1.0),
            ("length", {"target_tokens": 4, "per_token": 0.5}, -2.5),
            ("overlong", {"buffer_tokens": 5}, -0.8),
        ],
    )
    def test_is_told_what_it_wants(self, name, options, expected):
        assert load(name, **options)(FACTS) == pytest.approx(expected)

    def test_unknown_name(self):
        assert "did you mean correct" in refused("corect")

    def test_unknown_option(self):
        assert "did you mean target_tokens" in refused("length", target=3)

    def test_missing_option(self):
        assert "needs its parameter 'target_tokens'" in refused("length")

    @pytest.mark.parametrize(
        ("name", "option", "value"),
        [
            ("length", "target_tokens", "many"),
            ("length", "target_tokens", 0),
            ("format", "pattern", "("),
            ("correct", "compare", "mth"),
        ],
    )
    def test_invalid_option(self, name, option, value):
        assert f"{option} = {value!r} is not allowed" in refused(name, **{option: value})


class TestOfAllAnswers:
    ALL = FACTS | {"completions": ["12", "13", "12"]}

    def test_takes_the_answers_and_what_they_share(self, write_reward):
        source = "def reward(completions, question, *, unit=1): return [unit * (c == completions[0]) for c in completions]"
        reward = load(write_reward(source), unit=0.5)
        assert reward.of_all
        assert reward.wants == {"completions", "question"}
        assert reward(self.ALL) == [0.5, 0.0, 0.5]

    def test_may_take_all_that_they_share_and_nothing_about_one(self, write_reward):
        source = "def reward(completions, **facts): return [len(facts)] * (1 if {*facts} & {'completion', 'tokens'} else 3)"
        assert load(write_reward(source))(self.ALL) == [4, 4, 4]

    def test_the_builtin_one(self):
        assert load("majority", compare="text")(self.ALL) == [1, 0, 1]
        assert "compare = 'txt' is not allowed" in refused("majority", compare="txt")

    @pytest.mark.parametrize("fact", ["completion", "tokens", "truncated"])
    def test_is_about_one_answer_or_about_all(self, write_reward, fact):
        message = refused(write_reward(f"def reward(completions, {fact}): return []"))
        assert f"takes completions, all answers to a prompt, and {fact}, which is about one of them" in message

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            ("[1, 0]", "2 numbers for 3 answers"),
            ("1.0", "1.0, not a list with a number for each of 3 answers"),
            ("'110'", "'110', not a list"),
            ("{'12': 1}", "not a list"),
            ("[1, 0, float('nan')]", "nan, not a finite number"),
            ("[1, 0, None]", "None, not a number"),
        ],
    )
    def test_must_return_a_finite_number_for_each(self, write_reward, value, why):
        with pytest.raises((TypeError, ValueError), match=why):
            load(write_reward(f"def reward(completions): return {value}"))(self.ALL)


class TestOfAUser:
    def test_takes_the_facts_that_it_names(self, write_reward):
        name = write_reward("def reward(completion, *, tokens, bonus=0.0): return len(completion) + tokens + bonus")
        reward = load(name, bonus=0.5)
        assert reward.wants == {"completion", "tokens"}
        assert reward(FACTS) == 11.5

    def test_may_take_all(self, write_reward):
        name = write_reward("def reward(completion, answer=None, **facts): return len(facts)")
        assert load(name)(FACTS) == 5
        assert load(name, anything=1)(FACTS) == 6

    def test_may_define_dataclasses(self, write_reward):
        source = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
        assert load(write_reward(source + "def reward(): return A(3).x"))(FACTS) == 3

    def test_no_file(self, write_reward):
        name = write_reward("def reward(): return 1")
        assert "mine.py" in refused(name.replace("mine", "mne"))

    def test_no_function(self, write_reward):
        name = write_reward("def reward(): return 1", function="rewrd")
        assert "has no function 'rewrd': did you mean reward?" in refused(name)

    def test_a_path_without_function(self):
        assert "path/to/module.py:function" in refused("mine.py")

    def test_a_file_that_fails(self, write_reward):
        assert "cannot be imported: ModuleNotFoundError" in refused(write_reward("import nothing_like_this"))

    def test_unknown_option(self, write_reward):
        assert "did you mean bonus" in refused(write_reward("def reward(completion, bonus=0): return 1"), bonsu=1)

    def test_a_parameter_that_nobody_gives(self, write_reward):
        message = refused(write_reward("def reward(completion, gold): return 1"))
        assert "'gold', which is none of the facts (completion, answer," in message

    def test_a_fact_is_no_option(self, write_reward):
        assert "told 'tokens' by the run" in refused(write_reward("def reward(tokens): return 1"), tokens=3)

    @pytest.mark.parametrize("value", ["None", "'1'", "float('nan')", "float('inf')"])
    def test_must_return_a_finite_number(self, write_reward, value):
        with pytest.raises((TypeError, ValueError), match="it returned"):
            load(write_reward(f"def reward(): return {value}"))(FACTS)


def test_a_reward_may_import_what_lies_beside_it(write_reward, tmp_path):
    (tmp_path / "beside_the_reward.py").write_text("VALUE = 3.0\n")
    name = write_reward("from beside_the_reward import VALUE\ndef reward(): return VALUE\n")
    assert load_reward(RewardConfig(name=name))({}) == 3.0
