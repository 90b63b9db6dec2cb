"""Each reward that ships, against numbers worked out by hand."""

import math
import re
import time

import pytest

from quatrain.config import ConfigError, RewardConfig
from quatrain.rewards import builtin, load_reward


class TestCorrect:
    @pytest.mark.parametrize(
        ("answer", "completion", "score"),
        [
            ("12", " 12\n", 1),
            ("12", "The answer is 12.", 1),
            ("12", "13", 0),
            ("1/2", "0.5", 1),
            (r"\frac{1}{2}", r"\boxed{0.5}", 1),
            ("3 apples and 4 are 7. #### 7", "7", 1),
            ("Paris", " paris ", 1),
            ("blue  whale", "Blue whale", 1),
            ("Paris", "It is Paris", 0),
            ("Paris", "Let me think. <answer>Rome</answer> No: <answer> Paris </answer>", 1),
        ],
    )
    def test_compares_numbers_by_value_and_words_by_letters(self, answer, completion, score):
        assert builtin.correct(completion, answer, info={}) == score

    def test_the_comparison_can_be_chosen(self):
        assert builtin.correct("12.0", "12", info={}, compare="math") == 1
        assert builtin.correct("12.0", "12", info={}, compare="text") == 0

    def test_without_a_reference_answer_there_is_nothing_to_compare_with(self):
        with pytest.raises(ValueError, match=r"no reference answer.*task\.answer_column"):
            builtin.correct("12", None, info={})


class TestMajority:
    @pytest.mark.parametrize(
        ("completions", "rewards"),
        [
            (["12", "13", " 12."], [1, 0, 1]),
            (["0.5", "It is 1/2", r"\boxed{\frac{1}{2}}", "2", "2"], [1, 1, 1, 0, 0]),
            (["13", "12", "12", "13"], [1, 0, 0, 1]),
            (["no idea", "12", "no idea", "13", "12"], [0, 1, 0, 0, 1]),
            (["Paris", "Rome", "<answer>Rome</answer> it is", " paris", "ROME"], [0, 1, 1, 0, 1]),
            (["", "Rome", "", " "], [0, 1, 0, 0]),
            (["It was 1889", "Paris", "Paris"], [0, 1, 1]),
            (["", " "], [0, 0]),
            (["7"], [1]),
        ],
    )
    def test_the_most_frequent_answer_wins_and_the_first_of_several(self, completions, rewards):
        assert builtin.majority(completions) == rewards

    def test_the_comparison_can_be_chosen(self):
        answers = ["12.0", "12", "12", "x", "x", "x"]
        assert builtin.majority(answers, compare="math") == [1, 1, 1, 0, 0, 0]
        assert builtin.majority(answers, compare="text") == [0, 0, 0, 1, 1, 1]
        written = ["1+2=3: 3", "2+1=3: 3", "1+1=3: 2", ""]
        assert builtin.majority(written, compare="last_word") == [1, 1, 0, 0], "however they were arrived at"
        assert builtin.majority(["no", "idea"], compare="math") == [0, 0], "where nothing can be read nobody wins"

    @pytest.mark.parametrize("compare", ["math", "text"])
    def test_it_is_the_verifiers_word_with_the_majority_for_a_reference(self, compare):
        answers = ["4", "<answer>5</answer>", "2+2 = 4", "5", "four", "4", ""]
        rewards = builtin.majority(answers, compare=compare)
        label = answers[rewards.index(1)]
        label = label if compare == "math" else "4"
        assert rewards == [builtin.correct(text, label, info={}, compare=compare) for text in answers]

    def test_64_answers_take_no_time(self):
        answers = [f"so it is {n % 40}/{1 + n % 3}" for n in range(64)]
        began = time.perf_counter()
        builtin.majority(answers)
        assert time.perf_counter() - began < 5


@pytest.mark.parametrize(("completion", "score"), [("x = 2^{3}", 0), ("so it is $8$", 1), ("5 + 3", 1), ("", 0), ("no idea", 0)])
def test_math(completion, score):
    assert builtin.math(completion, "8") == score


@pytest.mark.parametrize(
    ("completion", "score"), [(" 12\n", 1), ("", 0), (" \n", 0), ("a\nb", 0), ("First\nthen \\boxed{12} and\nso on", 1)]
)
def test_format_wants_one_line_or_a_box(completion, score):
    assert builtin.format(completion) == score


def test_format_of_a_pattern_covers_the_whole_answer():
    digits = re.compile(r"\d+")
    assert [builtin.format(text, pattern=digits) for text in (" 12 ", "12 apples")] == [1, 0]


@pytest.mark.parametrize(("tokens", "reward"), [(0, 0), (100, 0), (101, -0.01), (150, -0.5)])
def test_length(tokens, reward):
    assert builtin.length(tokens=tokens, target_tokens=100) == pytest.approx(reward)


class TestOverlong:
    """DAPO's numbers: at most 20480 tokens, of which the last 4096 are the buffer."""

    @pytest.mark.parametrize(
        ("tokens", "reward"), [(0, 0), (16384, 0), (16385, -1 / 4096), (18432, -0.5), (20480, -1), (20481, -1)]
    )
    def test_falls_over_the_buffer(self, tokens, reward):
        assert builtin.overlong(tokens=tokens, max_answer_tokens=20480, buffer_tokens=4096) == pytest.approx(reward)

    def test_the_buffer_is_a_fifth_unless_given(self):
        for tokens in (0, 17000, 19000, 20480):
            default = builtin.overlong(tokens=tokens, max_answer_tokens=20480)
            assert default == builtin.overlong(tokens=tokens, max_answer_tokens=20480, buffer_tokens=4096)
        assert builtin.overlong(tokens=1, max_answer_tokens=1) == -1


class TestRubric:
    CHECKED = builtin.Criterion(re.compile(r"(?m)^Check:"), veto=True)
    REASONED = builtin.Criterion(re.compile("because"), weight=2.0, full=4)
    MODEST = builtin.Criterion(re.compile("great"), weight=3.0, absent=True)

    @pytest.mark.parametrize(
        ("completion", "reward"),
        [
            ("Check: 1 because 2 because 3", (1 + 2 * 2 / 4 + 3) / 6),
            ("Check: " + "because " * 9, 1),
            ("Check: great, great, because", (1 + 2 / 4) / 6),
            ("because because because because", 0),
            ("No Check: because", 0),
        ],
    )
    def test_weighs_scores_and_lets_a_veto_decide(self, completion, reward):
        criteria = [self.CHECKED, self.REASONED, self.MODEST]
        assert builtin.rubric(completion, criteria=criteria) == pytest.approx(reward)

    def test_the_first_finds_count_for_more_where_it_saturates(self):
        found = [builtin.rubric("because " * n, criteria=[self.REASONED], saturation=0.5) for n in range(6)]
        assert found[0] == 0 and found[4:] == [1, 1]
        assert found[2] == pytest.approx((1 - math.exp(-1)) / (1 - math.exp(-2)))
        assert found[1] - found[0] > found[2] - found[1] > found[3] - found[2] > 0.0
        plain = [builtin.rubric("because " * n, criteria=[self.REASONED]) for n in range(6)]
        assert plain == [0, 0.25, 0.5, 0.75, 1, 1]

    def test_one_criterion_in_excess_does_not_make_up_for_the_others(self):
        """What a weighted sum of counts would reward, and neither the cap nor a veto does."""
        criteria = [self.CHECKED, self.REASONED]
        assert builtin.rubric("Check: because", criteria=criteria) > builtin.rubric("because " * 99, criteria=criteria)

    def test_options_are_those_of_a_file(self):
        options = {"criteria": [{"pattern": "a+", "full": 2}, {"pattern": "b", "absent": True}], "saturation": 1}
        assert load_reward(RewardConfig(name="rubric", options=options))({"completion": "aa c a"}) == 1
        for wrong in ({"criteria": []}, {"criteria": [{"pattern": "("}]}, {"criteria": [{"pattern": "a", "weight": -1}]}):
            with pytest.raises(ConfigError, match=r"the reward rubric: criteria = .* is not allowed"):
                load_reward(RewardConfig(name="rubric", options=wrong))
        with pytest.raises(ConfigError, match="the reward rubric needs its parameter 'criteria'"):
            load_reward(RewardConfig(name="rubric"))
