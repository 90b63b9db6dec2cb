"""Whether collapses are foreseen: bounds fitted on some runs, tried on others."""

import numpy as np
import pytest

from quatrain.diagnostics.health import SIGNS
from reproductions.stability import warning
from reproductions.stability.warning import Course

REWARD = [sign.metric for sign in SIGNS].index("reward/mean")


def course(lowest: float, *, collapsed: int | None = None, at: int = 40, method: str = "a", cell: str = "plain") -> Course:
    """A run whose reward, as a share of its best, is `lowest` from step `at` on; all other signs are quiet."""
    values = [np.full(90, 1.0) for _ in SIGNS]
    values[REWARD] = np.where(np.arange(11, 101) >= at, lowest, 1.0)
    return Course(method, cell, collapsed, values)


def test_a_bound_is_what_one_healthy_run_in_fifty_leaves():
    healthy = [course(low) for low in np.linspace(0.5, 1, 51)]
    bounds = warning.fit([*healthy, course(0.1, collapsed=60)])
    assert bounds[REWARD] == pytest.approx(0.51)
    assert sum(run.first(bounds) is not None for run in healthy) == 1
    told = warning.score((run, bounds) for run in [*healthy, course(0.1, collapsed=60), course(0.9, collapsed=60)])
    assert told["foreseen"]["value"] == 0.5
    assert told["steps_ahead"] == [20, 20, 20]
    assert told["false"]["value"] == pytest.approx(1 / 51)


def test_what_is_seen_with_the_collapse_is_not_foreseen():
    bounds = warning.fit([course(0.8), course(0.9)])
    told = warning.score([(course(0.1, collapsed=40), bounds)])
    assert (told["foreseen"]["value"], told["steps_ahead"], told["false"]) == (0, None, None)


def test_runs_are_held_against_bounds_of_other_methods():
    runs = [course(0.8, method="a"), course(0.4, method="b"), course(0.6, method="c")]
    bounds = {run.method: own[REWARD] for run, own in warning.across(runs, lambda run: run.method)}
    assert bounds["a"] == bounds["c"] == pytest.approx(0.4)
    assert bounds["b"] == pytest.approx(0.604)
