import math
import re
from dataclasses import dataclass, replace

import pytest
import torch

from quatrain.config import ConfigError
from quatrain.methods import METHODS
from quatrain.objective import (
    Clip,
    Corrected,
    Current,
    Desirable,
    EntropyBonus,
    Everywhere,
    Filtered,
    Gated,
    ImplicitProcess,
    Method,
    Old,
    One,
    OverGreedy,
    PerSequence,
    Reference,
    Relative,
    StayClose,
    TeacherGap,
    Term,
    ValueLoss,
    difference,
)
from quatrain.objective.part import brief, describe
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


NESTED = Method(
    Term(mask=Corrected(2.0, of=Clip()), advantage=Gated(Filtered(0.5, "length", Relative(scale="group")), "upto")),
    Term(name="shown", advantage=Gated(One()), on=(Origin.DEMONSTRATION,)),
)


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"mask.of.high": 0.28}, NESTED.replace(mask=Corrected(2.0, of=Clip(0.2, 0.28)))),
        ({"mask.high": math.inf}, NESTED.replace(mask=Corrected(math.inf, of=Clip()))),
        ({"mask.high": "inf"}, NESTED.replace(mask=Corrected(math.inf, of=Clip()))),
        ({"advantage.of.of.scale": "none"}, NESTED.replace(advantage=Gated(Filtered(0.5, "length", Relative()), "upto"))),
        ({"shown.advantage.rate": 0.5}, Method(NESTED.terms[0], replace(NESTED.terms[1], advantage=Gated(One(), rate=0.5)))),
    ],
)
def test_settings_reach_parts_of_parts(settings: dict, changed: Method):
    assert NESTED.with_settings(settings) == changed
    ((name, value),) = settings.items()
    (row,) = difference(NESTED, changed)
    assert row[0] == name
    assert row[2] == str(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask.of": 0.5}, "there is no setting 'method.mask.of': did you mean mask.of.low"),
        ({"mask.of.of.high": 0.5}, "there is no setting 'method.mask.of.of.high': did you mean mask.of.high"),
        ({"advantage.of.of.scale": "all"}, "method.advantage.of.of.scale = 'all' is not allowed: it should be 'none', 'group'"),
        ({"advantage.of.share": 1.5}, "method.advantage.of.share = 1.5 is not allowed: it should be less than or equal to 1"),
        ({"mask.high": 0.0}, "method.mask.high = 0.0 is not allowed: it should be greater than 0"),
        ({"shown.advantage.rate": math.nan}, "method.shown.advantage.rate = nan is not allowed: it should be a number"),
    ],
)
def test_bad_settings_of_parts_of_parts_are_explained(settings: dict, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        NESTED.with_settings(settings)


def test_explains_the_parts_of_parts_and_every_number_as_it_is_set():
    text = NESTED.explain()
    for part in (Corrected(), Clip(), Gated(), Filtered(), Relative(), One()):
        about = describe(part)
        assert all(said in text for said in (about.summary, about.source, *about.formula.splitlines()))
    for name, value in NESTED.numbers():
        (line,) = (line for line in text.splitlines() if line.split() and line.split()[0] == f"method.{name}={brief(value)}")
        assert re.search(r"   [A-Z`].*\.$", line), f"{name} has no meaning"
    assert "learns from   the policy's answers, demonstrations\n" in text
    assert "needs         a reward, several answers to each prompt\n" in text


def test_rated_answers_bring_their_reward():
    text = Method(Term(denominator=Current(), advantage=Desirable(), on=(Origin.RATED,))).explain()
    assert "needs         a reference policy\n" in text


def test_explains_a_part_that_was_not_read_from_a_file():
    home = {"dataclass": dataclass, "__name__": "typed_in"}
    exec('@dataclass(frozen=True)\nclass Mine(Base):\n    extra: float = 0.5\n    """More."""', home | {"Base": Clip}, home)
    text = Method(Term(mask=home["Mine"]())).explain()
    assert "  mask        Mine(low=0.2, high=0.2, extra=0.5)\n" in text
    assert "              method.mask.extra=0.5\n" in text


def test_explains_what_a_run_must_have():
    method = Method(
        Term(denominator=Current(), advantage=OverGreedy()),
        Term(name="close", denominator=Reference(), advantage=TeacherGap()),
        Term(name="process", advantage=ImplicitProcess()),
        Term(name="liked", advantage=Desirable(), on=(Origin.RATED,)),
        ValueLoss(),
        paper="doi:10.1/2",
        aka=("much", "more"),
        status="reproduced",
    )
    lines = method.explain().splitlines()
    assert "paper         https://doi.org/10.1/2" in lines
    assert "also called   much, more" in lines
    assert "status        reproduced: it equals the published loss, and logged runs show the claim" in lines
    assert "learns from   the policy's answers, rated answers of the data set, such as pairs" in lines
    assert "compares with the policy's greedy answer to each prompt, other prompts' answers" in lines
    assert (
        "needs         a reward, several answers to each prompt, a critic, a reference policy, a teacher, a process reward model"
        in lines
    )


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
            "method.advantage.scale = 'galaxy' is not allowed: it should be 'none', 'group', 'task', 'batch' or 'group_mean'",
        ),
    ],
)
def test_bad_settings_are_explained(settings: dict, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        TWO.with_settings(settings)


def test_difference_shows_only_what_differs():
    other = TWO.replace(denominator=Current()).with_settings({"mask.high": 0.2})
    assert difference(TWO, TWO) == []
    assert difference(TWO, other) == [("mask.high", "0.3", "0.2"), ("denominator", "Old", "Current")]
    assert difference(TWO, TWO.replace(on=(Origin.REPLAY, Origin.POLICY))) == [("on", "policy", "replay, policy")]
    assert difference(Method(ValueLoss()), Method(ValueLoss(clip=1))) == [("clip", "0.2", "1")]


def test_difference_goes_into_the_parts_of_parts_as_far_as_they_are_of_one_kind():
    one, other = (Method(PLAIN).replace(mask=Corrected(high, of=of)) for high, of in ((2.0, Clip(0.2, 0.28)), (math.inf, Clip())))
    assert difference(one, other) == [("mask.high", "2", "inf"), ("mask.of.high", "0.28", "0.2")]
    assert difference(one, one.replace(mask=Corrected(2.0, of=Everywhere()))) == [("mask.of", "Clip(0.2, 0.28)", "Everywhere")]
    assert difference(one, one.with_settings({"mask.high": 2.0000001})) == [("mask.high", "2", "2.0000001")]


def test_difference_shows_a_further_term_whole():
    further = [
        (EntropyBonus(coefficient=0.5, on=(Origin.RATED,)), "0.5 · PerToken · on rated"),
        (ValueLoss(coefficient=1.0), "clip 0.2 · GAE(1, 0.95) · PerToken"),
        (Term(name="kl", denominator=Current()), "Everywhere · Current · One · Token · PerToken"),
    ]
    for term, told in further:
        assert difference(Method(PLAIN), Method(PLAIN, term)) == [(term.name, "—", told)]
        assert difference(Method(PLAIN, term), Method(PLAIN)) == [(term.name, told, "—")]
    penalty, bonus = (Method(PLAIN, term) for term in (further[2][0], EntropyBonus(name="kl", coefficient=1.0)))
    assert difference(penalty, bonus) == [("kl", further[2][1], "PerToken")]
    assert difference(Method(PLAIN), Method(EntropyBonus()))[0][0] == "the first term"


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


def test_how_many_demonstrations_are_learned_from():
    """Of two prompts the policy solves one: there HPT has no use for the demonstration, SFT always has, and GRPO never looks."""
    one = [Origin.POLICY, Origin.POLICY, Origin.DEMONSTRATION]
    batch = Batch(
        action=torch.ones(6, 1, dtype=torch.bool),
        logp_old=torch.zeros(6, 1),
        reward=torch.tensor([1.0, 0.0, math.nan, 0.0, 0.0, math.nan]),
        prompt_id=torch.tensor([3, 3, 3, 8, 8, 8]),
        origin=torch.tensor([origin.code for origin in one * 2]),
    )
    for name, share in (("hpt", 0.5), ("sft", 1.0), ("dr_grpo", None)):
        assert METHODS[name].bind(batch).metrics(torch.zeros(6, 1)).get("demonstration/share") == share
