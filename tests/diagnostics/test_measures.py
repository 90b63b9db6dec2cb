"""What a step's groups say, against numbers worked out by hand."""

import pytest

from quatrain.diagnostics.measures import accuracy_metrics, readable, rollout_metrics, sampled, vote_metrics
from quatrain.types import Group, Origin, Prompt
from tests.rewards.conftest import trajectory


def voted(*votes: float | None, voters: int = 0) -> Group:
    """A group whose answers agree with the majority or not, the last ones voters; None where the vote failed."""
    members = []
    for i, vote in enumerate(votes):
        origin = Origin.POLICY if i < len(votes) - voters else Origin.VOTER
        judged = {} if vote is None else {"majority": vote}
        t = trajectory("x", origin=origin, reward=vote, error="reward majority: no" if vote is None else None)
        members.append(t.replace(info={"rewards": judged}))
    return Group(Prompt(0, "?"), tuple(members))


GROUPS = [voted(0.0, 1.0, 0.0, 1.0, 1.0, voters=2), voted(1.0, 0.0, 1.0), voted(0.0, 0.0), voted(None, None)]
SCORES = [[0, 1, 1, 1, 1], [0, 1, 0.5], [1, 0], [1, 1]]


def test_the_share_of_the_majority_counts_those_that_only_vote():
    assert vote_metrics(GROUPS) == {"vote/share": pytest.approx((3 / 5 + 2 / 3 + 0) / 3)}
    assert vote_metrics([voted(None)]) == vote_metrics([]) == {}


def test_accuracies_are_of_the_answers_that_are_trained_on():
    told = accuracy_metrics(GROUPS, SCORES)
    assert told["rollout/accuracy"] == pytest.approx((0 + 1 + 1 + 0 + 1 + 0.5 + 1 + 0 + 1 + 1) / 10)
    assert told["vote/label_accuracy"] == pytest.approx((1 + 0 + 0) / 3), "no majority is no right one"
    assert told["vote/reward_accuracy"] == pytest.approx((2 + 0 + 1) / 8), (
        "1 for right and 0 for wrong answers, partly right ones included"
    )


def test_without_a_vote_there_is_only_the_accuracy():
    assert accuracy_metrics(GROUPS[3:], [[1, 0]]) == {"rollout/accuracy": 0.5}
    assert accuracy_metrics([], []) == {}


def test_what_only_votes_is_written_and_no_more():
    group = voted(0.0, 1.0, 1.0, 1.0, voters=2)
    told = rollout_metrics([group])
    assert (told["rollout/tokens"], told["reward/mean"], told["reward/majority"]) == (4 * 3, 0.5, 0.5)
    assert len(sampled(group)) == 4
    assert [r["advantage"] for r in readable([group], 2)] == [-0.5, 0.5], "against those that are trained on"
