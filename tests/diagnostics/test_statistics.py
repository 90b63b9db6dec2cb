"""Statistics over runs, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from rliable.metrics import probability_of_improvement

from quatrain.diagnostics.statistics import curve, interquartile_mean, paired, probability_above, profile


@pytest.mark.parametrize(
    ("values", "mean"),
    [([1, 2, 9], 4), ([0, 2, 4, 90], 3), ([0, 1, 2, 3, 100], 2), ([0, 0, 1, 2, 3, 4, 90, 100], 2.5)],
    ids=["of three all", "of four two", "of five three", "of eight four"],
)
def test_the_interquartile_mean_is_that_of_the_middle_half(values: list[float], mean: float):
    found = interquartile_mean(values)
    assert (found.value, found.n) == (mean, len(values))
    assert min(values) <= found.low < found.value < found.high <= max(values)


def test_the_probability_is_the_share_of_pairs_and_ties_count_half():
    assert probability_above([1, 2, 3], [2, 0, 0.5]).value == pytest.approx((2 + 2.5 + 3) / 9)
    apart = probability_above([4, 5, 6], [1, 2, 3])
    assert (apart.value, apart.low, apart.high) == (1, 1, 1)


def test_the_probability_is_rliables():
    for first, second in (([1, 2, 3], [2, 0, 0.5]), ([1, 1], [1, 1]), ([0, 3, 3, 1], [3, 1])):
        columns = (np.array(values, dtype=float)[:, None] for values in (first, second))
        assert probability_above(first, second).value == pytest.approx(probability_of_improvement(*columns))


def test_a_profile_is_the_share_of_runs_above():
    found = profile([0.1, 0.2, 0.4], [0.0, 0.1, 0.3, 0.4])
    assert found.value.tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert (found.low <= found.value).all() and (found.value <= found.high).all()
    assert (found.low[0], found.high[-1]) == (1, 0)


def test_a_curve_is_the_interquartile_mean_at_each_point():
    found = curve([[0, 1], [2, 1], [4, 1], [90, 1]])
    assert found.value.tolist() == [3, 1]
    assert (found.low[1], found.high[1]) == (1, 1)
    assert found.low[0] < 3 < found.high[0]


def test_a_paired_difference_has_students_interval():
    """d = 0.1, 0.2, 0.3: mean 0.2, s = 0.1, t(0.975, 2) = 4.302653."""
    found = paired([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - 4.302653 * 0.1 / math.sqrt(3), 0.2 + 4.302653 * 0.1 / math.sqrt(3)))


def test_seeds_that_agree_do_not_make_a_point_of_an_interval_over_problems():
    first, second = [1.0, 0.0] * 10, [0.0, 0.0] * 10
    found = paired([0.5, 0.5], [0.0, 0.0], (first, second))
    assert found.value == 0.5
    assert found.low < 0.4 and found.high > 0.6
    assert paired([0.5, 0.5], [0.0, 0.0]).low == 0.5


def test_one_run_has_no_interval():
    for found in (interquartile_mean([3.0]), paired([3.0], [1.0]), probability_above([3.0], [1.0])):
        assert (found.low, found.high) == (-math.inf, math.inf)


def test_what_is_drawn_is_the_same_each_time_and_leaves_the_global_generator_alone():
    np.random.seed(7)
    before = np.random.get_state()[1].tolist()
    assert interquartile_mean([0.1, 0.5, 0.7]) == interquartile_mean([0.1, 0.5, 0.7])
    assert np.random.get_state()[1].tolist() == before


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf]])
def test_what_is_no_number_is_refused(values: list[float]):
    with pytest.raises(ValueError, match="one finite number per run"):
        interquartile_mean(values)
