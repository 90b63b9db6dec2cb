"""What a vote does to a policy whose answers are all known: the closed form of its rewards, and where it leads."""

from itertools import product
from math import prod

import numpy as np
import pytest

from quatrain.rewards.builtin import majority

RIGHT = "a"
SCATTERED = {"a": 0.3, "b": 0.25, "c": 0.25, "d": 0.2}
WRONG = {"a": 0.3, "b": 0.6, "c": 0.1}


def votes(policy, count):
    """(probability, answers, rewards) of all that may be voted."""
    for answers in product(policy, repeat=count):
        yield prod(policy[answer] for answer in answers), answers, majority(list(answers), compare="text")


def reward_accuracy(answers, rewards):
    return np.mean([reward == (answer == RIGHT) for answer, reward in zip(answers, rewards, strict=True)])


@pytest.mark.parametrize("policy", [SCATTERED, WRONG])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_a_wrong_majority_costs_the_right_answers_and_its_own(policy, count):
    for _, answers, rewards in votes(policy, count):
        label = answers[rewards.index(1)]
        shares = {answer: answers.count(answer) / count for answer in policy}
        expected = 1 if label == RIGHT else 1 - shares[RIGHT] - shares[label]
        assert reward_accuracy(answers, rewards) == pytest.approx(expected)


@pytest.mark.parametrize("policy", [SCATTERED, WRONG])
def test_those_that_are_trained_on_are_rewarded_as_right_as_all_that_vote(policy):
    """Where one answer alone is the most frequent. Of several it is the first, so that the first answers agree more often."""
    cases = [(chance, a, r) for chance, a, r in votes(policy, 5) if [a.count(x) for x in {*a}].count(max(map(a.count, a))) == 1]
    means = [sum(chance * reward_accuracy(a[:k], r[:k]) for chance, a, r in cases) for k in (1, 3, 5)]
    assert means == pytest.approx([means[0]] * 3)


def test_as_frequent_ones_win_as_often():
    """The first one wins, and answers that come as often come first as often."""
    wins = dict.fromkeys("ab", 0.0)
    for chance, answers, rewards in votes({"a": 0.5, "b": 0.5}, 4):
        wins[answers[rewards.index(1)]] += chance
    assert wins == pytest.approx({"a": 0.5, "b": 0.5})


@pytest.mark.parametrize(("policy", "winner"), [(SCATTERED, "a"), (WRONG, "b"), ({"a": 0.4, "b": 0.42, "c": 0.18}, "b")])
def test_the_vote_makes_the_most_probable_answer_the_only_one(policy, winner):
    """Exact policy gradient with the group's mean for a baseline, from here to the end."""
    names, count = list(policy), 4
    cases = [(answers, np.array(rewards)) for _, answers, rewards in votes(policy, count)]
    chosen = np.array([[names.index(answer) for answer in answers] for answers, _ in cases])
    advantage = np.array([rewards - rewards.mean() for _, rewards in cases])
    counts = np.stack([((chosen == i) * advantage).sum(1) for i in range(len(names))], 1)  # Σ Â ∇logits, as Σ Â is 0
    logits = np.log([policy[name] for name in names])
    for _ in range(400):
        p = np.exp(logits - logits.max())
        p /= p.sum()
        logits = logits + 0.5 * p[chosen].prod(1) @ counts
    assert p[names.index(winner)] > 0.98
