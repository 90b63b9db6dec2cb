"""Every comparison of the catalogue, and no row without one or a reason."""

import pytest

from oracles.catalogue import COMPARISONS, NO_PEER
from oracles.comparison import SEEDS, TOLERANCE, Comparison
from quatrain.methods import METHODS

PRESENT = [comparison for comparison in COMPARISONS if comparison.row in METHODS]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("comparison", PRESENT, ids=str)
def test_gradients_are_equal_once_the_named_difference_is_made(comparison: Comparison, seed: int):
    assert comparison.gap(comparison.changed, seed) < TOLERANCE


@pytest.mark.parametrize("comparison", [c for c in PRESENT if c.difference], ids=str)
def test_each_named_difference_is_there(comparison: Comparison):
    assert max(comparison.gap(comparison.ours, seed) for seed in SEEDS) > 10 * TOLERANCE


def test_a_difference_is_named_where_a_change_is_made():
    assert all(bool(comparison.difference) == bool(comparison.as_theirs) for comparison in COMPARISONS)


def test_every_row_is_compared_or_has_a_reason():
    compared = {comparison.row for comparison in COMPARISONS}
    assert set(METHODS) <= compared | set(NO_PEER)
    assert not compared & set(NO_PEER)
