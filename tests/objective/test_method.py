import re

import pytest
import torch

from quatrain.config import ConfigError
from quatrain.objective import (
    Clip,
    Current,
    EntropyBonus,
    Everywhere,
    Method,
    Old,
    PerSequence,
    Relative,
    StayClose,
    Term,
    ValueLoss,
    difference,
)
from quatrain.types import Batch, Origin
from tests.reference import Shape, draw

PLAIN = Term(mask=Clip(0.2, 0.3), advantage=Relative(), reduce=PerSequence())
PULL = Term(name="kl", denominator=Current(), coefficient=0.1, advantage=StayClose())
TWO = Method(PLAIN, PULL, paper="arXiv:0000.00000", claim="Two terms.", aka=("both",))


def test_replace_a_line_of_the_first_term():
    changed = TWO.replace(mask=Everywhere())
    assert changed.terms == (Term(mask=Everywhere(), advantage=Relative(), reduce=PerSequence()), PULL)
    assert (changed.paper, changed.claim, changed.aka) == (TWO.paper, TWO.claim, TWO.aka)


def test_replace_another_term_or_drop_it():
    weaker = Term(name="kl", denominator=Current(), coefficient=0.01, advantage=StayClose())
    assert TWO.replace(kl=weaker) == Method(PLAIN, weaker)
    assert TWO.replace(kl=None) == Method(PLAIN)
    assert TWO.replace(policy=None) == Method(PULL)


def test_replace_what_is_said_about_it():
    changed = TWO.replace(paper="arXiv:1111.11111", claim="New.", aka=())
    assert (changed.paper, changed.claim, changed.aka) == ("arXiv:1111.11111", "New.", ())
    assert changed == TWO, "a method is its terms"


def test_replace_names_the_nearest_line():
    with pytest.raises(ValueError, match="no line or term 'masks': did you mean mask"):
        TWO.replace(masks=Everywhere())


def test_a_method_without_terms_is_refused():
    for build in (Method, lambda: Method(PLAIN).replace(policy=None)):
        with pytest.raises(ValueError, match=re.escape("write Method(Term(...))")):
            build()


def test_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"different names, got \['policy', 'policy'\]: pass name=…"):
        Method(PLAIN, PLAIN)


def test_settings_reach_the_term_that_they_name():
    changed = TWO.with_settings({"mask.high": 0.5, "kl.coefficient": 1, "kl.advantage.estimator": "k2"})
    assert changed.terms[0].mask == Clip(0.2, 0.5)
    assert changed.terms[1].advantage == StayClose("k2")
    assert changed.terms[1].coefficient == 1.0
    assert TWO.terms[0].mask == Clip(0.2, 0.3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask.hihg": 1.0}, "there is no setting 'method.mask.hihg': did you mean mask.high"),
        ({"mask": 1.0}, "there is no setting 'method.mask'"),
        ({"kl": 1.0}, "there is no setting 'method.kl'"),
        ({"name": "x"}, "there is no setting 'method.name'"),
        ({"mask.high": "wide"}, "method.mask.high = 'wide' is not allowed: it should be a valid number"),
        (
            {"advantage.scale": "galaxy"},
            "method.advantage.scale = 'galaxy' is not allowed: it should be 'none', 'group' or 'batch'",
        ),
    ],
)
def test_bad_settings_are_explained(settings: dict, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TWO.with_settings(settings)


def test_difference_shows_only_what_differs():
    other = TWO.replace(denominator=Current()).with_settings({"mask.high": 0.2})
    assert difference(TWO, other) == [
        ("mask", "Clip(low=0.2, high=0.3)", "Clip(low=0.2, high=0.2)"),
        ("denominator", "Old()", "Current()"),
    ]
    assert ("kl.denominator", "Current()", "—") in difference(TWO, Method(PLAIN))
    assert difference(TWO, TWO.replace(on=(Origin.REPLAY, Origin.POLICY))) == [("on", "—", "replay, policy")]
    assert difference(Method(ValueLoss()), Method(ValueLoss(clip=1))) == [("clip", "0.2", "1")]


def test_a_term_without_weight_is_off():
    off = TWO.with_settings({"kl.coefficient": 0.0})
    assert [term.name for term in off.active] == ["policy"]
    assert off.needs == {"logp_old", "reward", "prompt_id"}
    assert TWO.needs == {"logp_old", "logp_ref", "reward", "prompt_id"}
    assert "off: its weight is 0" in off.explain()
    assert "off: its weight is 0" not in TWO.explain()


def test_a_method_with_every_term_off_says_nothing():
    silent = Method(EntropyBonus(coefficient=0.0))
    case = draw(Shape())
    assert (silent.weights(case.batch, case.logp) == 0).all()
    assert silent.bind(case.batch).metrics(case.logp) == {}
    assert silent.targets == silent.origins == frozenset()


def test_targets_are_what_the_loss_depends_on():
    assert Method(PLAIN, ValueLoss(), EntropyBonus(coefficient=0.1)).targets == {"logp", "value", "entropy"}
    assert Method(PLAIN, ValueLoss(), EntropyBonus(coefficient=0.0)).targets == {"logp", "value"}


def test_without_values_the_value_term_is_left_out():
    case = draw(Shape())
    assert Method(PLAIN, ValueLoss()).bind(case.batch).weights(case.logp).value is None


def test_without_a_mask_of_actions_every_position_counts():
    batch = Batch(logp_old=torch.zeros(2, 3), reward=torch.tensor([0.0, 1.0]), prompt_id=torch.tensor([0, 0]))
    said = batch.replace(action=torch.ones(2, 3, dtype=torch.bool))
    logp = torch.full((2, 3), 0.1)
    assert Method(PLAIN).weights(batch, logp).equal(Method(PLAIN).weights(said, logp))


def test_replace_moves_the_start_of_the_update():
    case = draw(Shape(seed=9))
    moved = Method(PLAIN).bind(case.batch).replace(logp_old=case.logp).weights(case.logp).logp
    direct = Method(PLAIN).bind(case.batch.replace(logp_old=case.logp)).weights(case.logp).logp
    assert moved is not None
    assert moved.equal(direct)
    assert not moved.equal(Method(PLAIN).weights(case.batch, case.logp))


def test_metrics_by_hand():
    """Ratios 2, 1, 1, 1 and advantages ½, ½, −½, −½ in one group; a second group has no contrast."""
    batch = Batch(
        action=torch.tensor([[True, True], [True, True], [True, False]]),
        logp_old=torch.zeros(3, 2),
        logp_ref=torch.zeros(3, 2),
        reward=torch.tensor([1.0, 0.0, 7.0]),
        prompt_id=torch.tensor([3, 3, 8]),
    )
    logp = torch.tensor([[0.6931472, 0.0], [0.0, 0.0], [0.0, 99.0]])
    metrics = Method(Term(mask=Clip(0.2, 0.2), denominator=Old(), advantage=Relative())).bind(batch).metrics(logp)
    expected = {
        "mask/passed": 4 / 5,
        "ratio/p50": 1.0,
        "ratio/max": 2.0,
        "advantage/std": (4 * 0.25 / 5) ** 0.5,
        "advantage/zero_groups": 1 / 2,
        "kl/ref": (0.5 - 1 + 0.6931472) / 5,
    }
    assert metrics == pytest.approx(metrics | expected, rel=1e-5)
