"""Where a policy's own certainty leads it, in exact expectation over all of its answers: the truth has no say."""

import pytest
import torch
from torch import Tensor

from quatrain.diagnostics.enumeration import World, estimates, fixed_point
from quatrain.methods import METHODS
from quatrain.objective import EntropyBonus, Method

BY_TOKEN = {"em_rl": METHODS["em_rl"], "intuitor": METHODS["intuitor"].replace(kl=None)}
BY_SEQUENCE = {
    "em_rl by sequence": METHODS["em_rl"].with_settings({"advantage.by": "likelihood"}),
    "em_ft": Method(EntropyBonus(coefficient=-1.0)),
}


def world(*states: tuple[float, ...], longest: int) -> World:
    """One prompt, by the probabilities of the choices in each state."""
    logits = torch.tensor([states], dtype=torch.float64).log()
    made = World(logits=logits, reference=logits, reward=torch.zeros(1, 0), longest=longest)
    return World(logits=logits, reference=logits, reward=torch.zeros(1, len(made.answers)).double(), longest=longest)


def expected(method: Method, here: World) -> Tensor:
    found, probability = estimates(method, here, here, 2)
    return torch.einsum("k,ksv->sv", probability, found[:, 0])


@pytest.mark.parametrize("name", BY_SEQUENCE)
@pytest.mark.parametrize(("start", "mode"), [((0.3, 0.45, 0.25), 1), ((0.45, 0.3, 0.25), 0)])
def test_entropy_minimization_makes_the_most_probable_answer_the_only_one(name: str, start: tuple[float, ...], mode: int):
    """As a vote does: right where that is right already, and wrong for good where it is not."""
    end = fixed_point(BY_SEQUENCE[name], world(start, longest=1), group=3).probability[0]
    assert end[mode] > 0.999


@pytest.mark.parametrize("name", BY_TOKEN)
def test_the_distribution_says_nothing_of_the_token_that_is_drawn_from_it(name: str):
    """Answers of one token come from one distribution, and are as certain as each other."""
    assert (expected(BY_TOKEN[name], world((0.3, 0.45, 0.25), longest=1)) == 0).all()


@pytest.mark.parametrize("name", BY_TOKEN)
def test_the_way_is_taken_on_which_what_follows_is_sure(name: str):
    """After 0 all is open, after 1 it is settled: which of the two is right does not matter."""
    here = world((0.6, 0.35, 0.05), (0.3, 0.3, 0.4), (0.02, 0.02, 0.96), longest=2)
    start = expected(BY_TOKEN[name], here)[0]
    assert start[0] < 0 < start[1]


def test_a_mean_grows_with_a_sure_tail_and_a_sum_with_an_early_end():
    """Going on and on, each time surer than at the beginning, or stopping at once."""
    here = world((0.5, 0.5), (0.9, 0.1), (0.95, 0.05), longest=3)
    longer = {name: expected(method, here)[0, 0].item() for name, method in BY_TOKEN.items()}
    assert longer["em_rl"] < 0 < longer["intuitor"]
