"""What a gate between imitation and reinforcement comes to at its ends."""

import pytest
import torch
from hypothesis import given

from quatrain.methods import METHODS
from quatrain.objective import Current, Method, One, PerSequence, Relative, Term
from quatrain.types import Origin
from tests.reference import Shape, draw, shapes

NAMES = ("hpt", "hpt:code")


def gated(name: str, rate: float) -> Method:
    return METHODS[name].with_settings({"advantage.rate": rate, "sft.advantage.rate": rate})


def ungated(name: str, kept: str) -> Method:
    """The method without its gate, and without the other one of its two losses."""
    row = METHODS[name]
    terms = {term.name: term for term in row.terms}
    alone = {"policy": row.terms[0], "sft": terms["sft"]}[kept]
    others = [term for term in row.terms if term.name not in ("policy", "sft")]
    return Method(Term(**{**vars(alone), "advantage": alone.advantage.of}), *others)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rate", "kept"), [(-1.0, "policy"), (1.0, "sft")])
@given(shape=shapes(rewards="binary"))
def test_at_its_ends_a_gate_leaves_one_loss_alone(name: str, rate: float, kept: str, shape: Shape):
    """γ = −1 is reinforcement and γ = 1 imitation, to the bit; whatever stands beside them stays."""
    case = draw(shape)
    ours, theirs = (m.bind(case.batch).weights(case.logp) for m in (gated(name, rate), ungated(name, kept)))
    assert torch.equal(ours.logp, theirs.logp)


def test_the_losses_at_the_ends_are_known_ones():
    assert ungated("hpt", "policy").terms[0] == METHODS["grpo"].terms[0], "GRPO without its KL"
    shown = (Origin.DEMONSTRATION,)
    assert ungated("hpt", "sft") == Method(
        Term(name="sft", denominator=Current(), advantage=One(), reduce=PerSequence(), on=shown)
    )
    assert ungated("hpt:code", "policy").terms[0].advantage == Relative()
