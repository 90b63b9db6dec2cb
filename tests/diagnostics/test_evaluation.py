"""Statistics of an evaluation against numbers worked out by hand, brute force and simulation."""

import itertools
import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from quatrain.config import ConfigError
from quatrain.diagnostics.evaluation import (
    Estimate,
    Evaluation,
    difference,
    distinct_at_k,
    estimate,
    majority_at_k,
    pass_at_k,
    wilson,
)


def test_pass_at_k_by_hand():
    correct = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    assert pass_at_k(correct, 1) == pytest.approx([1 / 4, 1 / 2, 0, 3 / 4])
    assert pass_at_k(correct, 2) == pytest.approx([1 - 3 / 6, 1 - 1 / 6, 0, 1])
    assert pass_at_k(correct, 4) == pytest.approx([1, 1, 0, 1])


@given(n=st.integers(1, 40), data=st.data())
def test_pass_at_k_is_the_published_formula(n, data):
    right, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k([[1] * right + [0] * (n - right)], k) == pytest.approx([1 - math.comb(n - right, k) / math.comb(n, k)])


def test_pass_at_k_of_more_answers_than_there_are_names_the_setting():
    with pytest.raises(ConfigError, match=r"pass@8 needs 8 answers per problem and there are 4: set evaluate.samples to 8"):
        pass_at_k([[1, 0, 0, 1]], 8)


def test_majority_by_hand():
    answers = [["7", "7", "3"], ["7", "3", "1"], ["3", "3", "7"], [None, None, "7"], [None, None, None]]
    correct = [[a == "7" for a in row] for row in answers]
    assert majority_at_k(answers, correct, 3) == pytest.approx([1, 1 / 3, 0, 1, 0])
    # of the three pairs 77, 73, 73 the first is right and the others are ties
    assert majority_at_k(answers, correct, 2)[0] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_majority_of_one_and_of_two_is_accuracy():
    answers = [["7", "7", "3", "1"]]
    correct = [[True, True, False, False]]
    assert majority_at_k(answers, correct, 1) == pytest.approx([0.5])
    assert majority_at_k(answers, correct, 2) == pytest.approx([0.5])


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(st.sampled_from(["1", "1.0", "2", "3", None]), min_size=1, max_size=7), data=st.data())
def test_majority_is_the_mean_over_all_choices(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    right = {"1", "1.0"}  # two spellings of a right answer do not add up, but either is right

    def vote(chosen):
        votes = [answer for answer in chosen if answer is not None]
        return statistics.mean(answer in right for answer in set(statistics.multimode(votes))) if votes else 0

    brute = statistics.mean(vote(chosen) for chosen in itertools.combinations(answers, k))
    assert majority_at_k([answers], [[a in right for a in answers]], k) == pytest.approx([float(brute)])


def test_distinct_by_hand():
    answers = [["1+2", "2+1", "1+2", "9"], ["1+2", "1+2", "1+2", "1+2"], [None, "9", "9", "9"]]
    correct = [[a in ("1+2", "2+1") for a in row] for row in answers]
    assert distinct_at_k(answers, correct, 4) == pytest.approx([2 / 4, 1 / 4, 0])
    # of the six pairs of the first row two hold two right answers, three one, and one is the same answer twice
    assert distinct_at_k(answers, correct, 2)[0] == pytest.approx((2 * 2 + 4 * 1) / 6 / 2)


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(st.sampled_from(["1", "2", "3", "4", None]), min_size=1, max_size=7), data=st.data())
def test_distinct_is_the_mean_over_all_choices_and_lies_between_what_one_answer_and_all_different_ones_give(answers, data):
    k = data.draw(st.integers(1, len(answers)))
    right = {"1", "2", "3"}
    correct = [[a in right for a in answers]]
    brute = statistics.mean(len({*chosen} & right) / k for chosen in itertools.combinations(answers, k))
    (found,) = distinct_at_k([answers], correct, k)
    assert found == pytest.approx(brute)
    assert pass_at_k(correct, k)[0] / k <= found + 1e-12
    assert found <= pass_at_k(correct, 1)[0] + 1e-12


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_is_scipys(n, data):
    successes = data.draw(st.integers(0, n))
    assert wilson(successes, n) == pytest.approx(tuple(binomtest(successes, n).proportion_ci(method="wilson")), abs=1e-12)


def test_an_interval_always_has_width_and_holds_its_value():
    for values in ([0.0] * 20, [1.0] * 20, [0.25] * 20, [1.0], [0.5]):
        found = estimate(values)
        assert found.low < found.high
        assert found.low <= found.value <= found.high
    assert estimate([0.0] * 20).low == 0.0
    assert estimate([1.0] * 20).high == 1.0


def test_no_change_at_all_is_not_certainty():
    found = difference([0, 1] * 50, [0, 1] * 50)
    assert found.value == 0
    assert found.low == -found.high < 0
    assert found.high < 0.05
    assert difference([0] * 50, [1] * 50).high == 1.0


def test_a_difference_is_paired():
    rng = np.random.default_rng(1)
    before = rng.random(200) < 0.5
    after = before | (rng.random(200) < 0.1)
    paired = difference(before, after)
    assert paired.low > 0
    assert paired.high - paired.low < estimate(before).high - estimate(before).low
    assert paired == difference(before, after)


def test_a_difference_of_several_answers_each():
    assert difference([[0, 0], [1, 0]], [[1, 0], [1, 0]]).value == pytest.approx(0.25)


def test_a_difference_of_other_problems_is_refused():
    with pytest.raises(ValueError, match="3 before and 2 after"):
        difference([0, 1, 0], [0, 1])


def test_scores_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got nan"):
        estimate([0.0, float("nan")])


@pytest.mark.parametrize("samples", [1, 4])
def test_coverage(samples):
    """Of 95 % intervals around the mean of problems that differ in difficulty, about 95 % hold the truth."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        difficulty = rng.beta(1.0, 2.0, size=60)
        found = estimate((rng.random((60, samples)) < difficulty[:, None]).mean(axis=1))
        held.append(found.low <= 1 / 3 <= found.high)
    assert 0.90 <= np.mean(held) <= 0.99


def test_coverage_of_a_difference():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(150):
        before = rng.random(80) < 0.4
        gained, lost = (rng.random(80) < 0.3) & ~before, (rng.random(80) < 0.1) & before
        found = difference(before, (before | gained) & ~lost)
        held.append(found.low <= 0.6 * 0.3 - 0.4 * 0.1 <= found.high)
    assert 0.89 <= np.mean(held) <= 0.99


def test_evaluation_lines():
    one = Evaluation.of("chain_sum", [[1.0]] * 82 + [[0.0]] * 118)
    assert one.lines() == ["accuracy 0.41 [0.34, 0.48] on 200 problems"]
    assert one.accuracy.value == pytest.approx(0.41)

    scores = [[1.0, 0.0, 0.0, 0.1]] * 30 + [[0.0] * 4] * 30
    answers = [["7", "3", "3", "2"]] * 60
    many = Evaluation.of("chain_sum", scores, answers=answers, k=[4], seconds=2.5)
    assert list(many.estimates) == ["pass@1", "pass@4", "maj@4", "distinct@4", "score"]
    assert many.lines()[0].endswith("on 60 problems, 4 answers each")
    assert many.estimates["pass@4"].value == pytest.approx(0.5)
    assert many.estimates["maj@4"].value == 0
    assert many.estimates["score"].value == pytest.approx(1.1 / 8)
    assert many.scores == (0.25,) * 30 + (0.0,) * 30


def test_evaluation_survives_json():
    evaluation = Evaluation.of("chain_sum", [[1.0, 0.0], [0.0, 0.0]], answers=[["7", "3"], ["1", None]], k=[2], seconds=1.5)
    record = json.loads(json.dumps({"step": 10, **evaluation.to_json()}))
    assert Evaluation.from_json(record) == evaluation


def test_estimate_formats_all_three_numbers():
    assert f"{Estimate(0.123, 0.05, 0.19, 60):+.2f}" == "+0.12 [+0.05, +0.19]"
    assert str(Estimate(0.123, 0.05, 0.19, 60)) == "0.12 [0.05, 0.19]"
