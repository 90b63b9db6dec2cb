"""When a run has collapsed: invented runs, each worked out by hand."""

import numpy as np
import pytest

from quatrain.diagnostics import health
from quatrain.diagnostics.health import SIGNS, Collapse, Sign, Watch, collapse, smooth


def run(reward: list[float], entropy: list[float] | None = None, alike: list[float] | None = None) -> list[dict[str, float]]:
    return [
        {"reward/mean": r, "entropy": e, "advantage/zero_groups": a}
        for r, e, a in zip(reward, entropy or [1.0] * len(reward), alike or [0.0] * len(reward), strict=True)
    ]


def test_a_window_is_ten_steps_and_none_is_shorter():
    found = smooth([{"x": float(n)} for n in range(12)], "x")
    assert found.tolist() == pytest.approx([4.5, 5.5, 6.5])
    assert smooth([*[{"x": 1.0}] * 8, {}, {"x": 4.0}], "x").tolist() == pytest.approx([1.3])
    assert not len(smooth([{}, *[{"x": 1.0}] * 20], "x"))


def test_a_lucky_first_step_is_no_best():
    assert collapse(run([0.9, *[0.3] * 60])) is None


def test_what_learns_has_not_collapsed():
    noise = np.random.default_rng(0).normal(0, 0.03, 200)
    assert collapse(run((np.linspace(0.2, 0.9, 200) + noise).tolist())) is None


def test_what_never_learned_has_nothing_to_lose():
    noise = np.abs(np.random.default_rng(0).normal(0, 0.02, 200))
    assert collapse(run(noise.tolist())) is None


def test_a_lost_reward():
    """The mean of ten falls below half of the best when six of them are 0.1."""
    found = collapse(run([0.8] * 50 + [0.1] * 30))
    assert found is not None
    assert (found.step, found.sign) == (56, "reward")
    assert found.says == "the reward fell from 0.8 to 0.1 and did not come back"


def test_a_bad_time_that_passes_is_no_collapse():
    assert collapse(run([0.8] * 50 + [0.0] * 20 + [0.7] * 30)) is None


def test_a_loss_counts_from_the_last_time_that_it_began():
    found = collapse(run([0.8] * 50 + [0.1] * 20 + [0.8] * 20 + [0.1] * 20))
    assert found is not None
    assert found.step == 96


def test_a_policy_that_repeats_itself_has_collapsed():
    entropy, alike = [1.0] * 40 + [0.01] * 60, [0.2] * 40 + [1.0] * 60
    found = collapse(run([0.5] * 100, entropy, alike))
    assert found is not None
    assert (found.step, found.sign) == (50, "entropy")
    assert collapse(run([0.97] * 100, entropy, alike)) is None, "it is done"
    assert collapse(run([0.5] * 100, entropy, [0.2] * 100)) is None, "its answers differ"


def test_a_run_that_ended_itself_has_collapsed_and_the_first_sign_counts():
    found = collapse(run([0.5] * 30), stopped="5 updates in a row")
    assert found is not None
    assert (found.step, found.sign, found.says) == (31, "gradient", "5 updates in a row")
    found = collapse(run([0.8] * 50 + [0.0] * 30), stopped="5 updates in a row")
    assert found is not None
    assert found.sign == "reward"


def test_without_metrics_nothing_is_said():
    assert collapse([]) is None
    assert collapse([{"step": 1}]) is None


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two signs with bounds of their own."""
    explores = Sign("entropy", 0.3, "first", False, "it explores less", "raise it", unsolved=True)
    monkeypatch.setattr(health, "SIGNS", (explores, Sign("reward/mean", 0.7, "best", False, "it is lost", "go back")))


def test_signs_come_in_the_order_in_which_they_were_seen(two: None):
    """The entropy falls below three tenths of what it was, then the reward below seven tenths of its best."""
    entropy = [1.0] * 20 + [0.0] * 30
    reward = [0.6] * 40 + [0.0] * 10
    found = Watch(run(reward, entropy)).seen
    assert [(one.step, one.sign.metric) for one in found] == [(28, "entropy"), (44, "reward/mean")]
    assert str(found[0]) == "step 28: it explores less (entropy 0.2 is below 0.3); raise it"


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: f"{sign.metric}-{sign.above}")
def test_every_sign_can_be_seen_and_need_not_be(sign):
    good = [{"reward/mean": 0.5, "entropy": 1.0, sign.metric: 0.5 if sign.metric.startswith("rew") else 1.0} for _ in range(30)]
    if sign.against == "nothing":
        good = [record | {sign.metric: 0.9 * sign.limit} for record in good]
    assert sign not in [one.sign for one in Watch(good).seen]
    bad = good[0] | {sign.metric: 20.0 * sign.limit if sign.above else 0.0}
    (seen,) = [one for one in Watch([*good, *[bad] * 10]).seen if one.sign is sign]
    assert 30 < seen.step <= 40
    early = [bad] * 8 + good
    if sign.against == "nothing":
        assert all(one.step > 10 for one in Watch(early).seen)


def test_what_is_solved_need_not_explore():
    entropy = [1.0] * 20 + [0.0] * 30
    assert Watch(run([0.95] * 50, entropy)).seen == []


def test_a_slope_is_against_the_mean_ten_steps_ago():
    """Or against the first one, while there is none as old."""
    slope = Sign("entropy", 0.5, "before", False, "it falls", "")
    assert slope.unit([1.0, 2.0, 3.0]) == 1.0
    assert slope.unit([float(n) for n in range(15)]) == 4.0


def test_a_collapse_is_told_when_it_has_lasted(two: None):
    """The mean falls below half of the best at step 46, and ten steps later that is told, at the next tenth step."""
    watch, told = Watch(), dict[int, Collapse]()
    for step, record in enumerate(run([0.8] * 40 + [0.1] * 40), 1):
        watch.see(record)
        if watch.collapse:
            told[step] = watch.collapse
    assert list(told) == [60, 70, 80]
    assert told[60].step == 46
    assert watch.began == 44


def test_a_bad_batch_is_no_collapse():
    watch = Watch()
    for record in run([0.8] * 40 + [0.0] * 3 + [0.8] * 40):
        watch.see(record)
        assert watch.collapse is None
