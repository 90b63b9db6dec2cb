"""Every row of the catalogue × every property. A new row is tested by being there, and fails until it has its published loss."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import Phase, given
from hypothesis import settings as given_with
from hypothesis import strategies as st

from quatrain.config import ConfigError
from quatrain.methods import METHODS
from quatrain.objective import Current, Everywhere, Method, Weights, describe, difference, signature
from quatrain.types import Batch
from tests.reference import LOSSES, Case, Shape, draw, shapes
from tests.reference.batches import SEQUENCE_KINKS, TOKEN_KINKS, VALUE_KINKS

EXEMPT: dict[str, dict[str, str]] = {
    "collapses on policy": {
        "sft": "measured against θ itself and unmasked: nothing is left to collapse",
        "rft": "measured against θ itself and unmasked: nothing is left to collapse",
        "reinforce": "it is what the others collapse to",
        "rloo": "measured against θ itself and unmasked: nothing is left to collapse",
    },
    "centred": {
        "sft": "every demonstration is worth the same",
        "rft": "accepted answers are imitated and the others ignored: no baseline",
        "reinforce": "no baseline",
        "ppo": "its baseline is the critic, not the group",
    },
    "silent without contrast": {
        "sft": "imitation needs no contrast",
        "rft": "imitation needs no contrast",
        "reinforce": "no baseline",
        "ppo": "its baseline is the critic, not the group",
    },
    "names what it lacks": {
        "sft": "it reads nothing but which tokens are actions",
    },
}
"""By property, the rows that cannot have it, and why. They are run all the same, and must fail."""

EQUAL_NUMBERS = [
    ("grpo", {"mask.low": 0.1, "mask.high": 0.1, "kl.coefficient": 0.5}, {"eps": 0.1, "beta": 0.5}),
    ("grpo", {"kl.coefficient": 0.0}, {"beta": 0.0}),
    ("dr_grpo", {"mask.low": 0.1, "mask.high": 0.1}, {"eps": 0.1}),
    ("dapo", {"mask.low": 0.1, "mask.high": 0.4}, {"low": 0.1, "high": 0.4}),
    ("gspo", {"mask.low": 0.1, "mask.high": 0.2}, {"low": 0.1, "high": 0.2}),
    ("cispo", {"mask.low": 0.5, "mask.high": 2.0}, {"low": 0.5, "high": 2.0}),
    ("ppo", {"mask.low": 0.1, "mask.high": 0.1}, {"eps": 0.1}),
    ("ppo", {"value.coefficient": 0.1, "value.clip": 0.05}, {"value_coefficient": 0.1, "value_eps": 0.05}),
    ("ppo", {"entropy.coefficient": 0.01}, {"entropy_coefficient": 0.01}),
    ("ppo", {"advantage.gamma": 0.9, "value.advantage.gamma": 0.9}, {"gamma": 0.9}),
    ("ppo", {"advantage.lam": 0.5, "value.advantage.lam": 0.5}, {"lam": 0.5}),
]
"""(row, its settings, the same numbers as the published loss calls them)."""


FIRST_FAILURE = given_with(phases=[Phase.explicit, Phase.generate])
"""For tests that exempt rows must fail: no search for the simplest failure."""


def every_row(property_: str = "", among: dict[str, Method] = METHODS) -> pytest.MarkDecorator:
    """Parametrizes a test by row; the exempt ones are expected to fail it."""
    exempt = EXEMPT.get(property_, {})

    def row(name: str):
        marks = [pytest.mark.xfail(strict=True, raises=AssertionError, reason=exempt[name])] if name in exempt else []
        return pytest.param(name, id=name, marks=marks)

    return pytest.mark.parametrize("name", [row(name) for name in among])


def all_weights(method: Method, case: Case) -> Weights:
    return method.bind(case.batch).weights(case.logp, case.values)


def minus_gradient(name: str, case: Case, **numbers: float) -> Weights:
    """−∂L/∂x of the published loss, by autograd."""
    variables = [x.clone().requires_grad_() for x in (case.logp, torch.ones_like(case.logp), case.values)]
    logp, entropy, values = variables
    loss = LOSSES[name](replace(case, logp=logp, values=values).answers(entropy), **numbers)
    if not loss.requires_grad:  # no answer takes part
        return Weights()
    gradients = torch.autograd.grad(loss, variables, allow_unused=True)
    return Weights(*(None if g is None else -g for g in gradients))


def assert_same(ours: Weights, theirs: Weights, at=..., rtol: float = 1e-12, atol: float = 1e-14) -> None:
    """`ours` equals `theirs`[at] for each thing that a loss may depend on; where it does not, the weight is 0."""
    for field in fields(Weights):
        left, right = getattr(ours, field.name), getattr(theirs, field.name)
        if left is not None or right is not None:
            right = torch.zeros_like(left) if right is None else right[at]
            left = torch.zeros_like(right) if left is None else left
            torch.testing.assert_close(left, right, rtol=rtol, atol=atol, msg=lambda text, of=field.name: f"{of}: {text}")


def test_every_row_has_its_published_loss():
    assert set(LOSSES) == set(METHODS), "each row of METHODS has its loss in tests/reference/losses.py, under the same id"


def test_exemptions_are_of_rows():
    assert {name for exempt in EXEMPT.values() for name in exempt} <= set(METHODS)


@every_row()
@given(shape=shapes())
def test_equals_published_loss(name: str, shape: Shape):
    case = draw(shape)
    assert_same(all_weights(METHODS[name], case), minus_gradient(name, case), rtol=1e-8, atol=1e-12)


@every_row()
def test_bounds_are_those_of_the_paper(name: str):
    """A good and a bad answer of one token just below and just above each, and critics likewise."""
    kinks = torch.tensor([*TOKEN_KINKS, *SEQUENCE_KINKS], dtype=torch.float64)
    logp = torch.cat([kinks - 1e-5, kinks + 1e-5]).repeat_interleave(2)[:, None]
    moved = torch.tensor([kink + side for kink in VALUE_KINKS for side in (-1e-5, 1e-5)], dtype=torch.float64)
    (origin,) = METHODS[name].origins
    batch = Batch(
        action=torch.ones_like(logp, dtype=torch.bool),
        logp_old=torch.zeros_like(logp),
        logp_ref=torch.zeros_like(logp),
        values=torch.zeros_like(logp),
        reward=torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(len(logp) // 2),
        prompt_id=torch.arange(len(logp)) // 2,
        origin=torch.full((len(logp),), origin.code),
    )
    case = Case(batch, logp, moved.repeat_interleave(2).repeat(len(logp) // 8)[:, None])
    assert_same(all_weights(METHODS[name], case), minus_gradient(name, case), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("name", "settings", "numbers"), EQUAL_NUMBERS, ids=lambda x: x if isinstance(x, str) else ",".join(x))
def test_numbers_mean_what_the_paper_means(name: str, settings: dict, numbers: dict):
    case = draw(Shape(seed=3, groups=(4,) * 8, longest=8, spread=1.0))
    ours = all_weights(METHODS[name].with_settings(settings), case)
    assert_same(ours, minus_gradient(name, case, **numbers), rtol=1e-8, atol=1e-12)
    with pytest.raises(AssertionError):  # the case tells these numbers from the default ones
        assert_same(ours, minus_gradient(name, case), rtol=1e-6, atol=1e-12)


@every_row("collapses on policy")
@FIRST_FAILURE
@given(shape=shapes())
def test_collapses_on_policy(name: str, shape: Shape):
    """At π_θ = π_old the ratio is 1 and no mask acts: what is left is REINFORCE with the row's own advantage."""
    case = draw(shape).on_policy()
    collapsed = METHODS[name].replace(mask=Everywhere(), denominator=Current())
    assert collapsed != METHODS[name]
    assert_same(all_weights(METHODS[name], case), all_weights(collapsed, case))


@every_row("centred")
@FIRST_FAILURE
@given(shape=shapes(rewards="real"))
def test_advantages_sum_to_zero_in_each_group(name: str, shape: Shape):
    case = draw(shape)
    factors = METHODS[name].bind(case.batch).factors(case.logp)[METHODS[name].terms[0].name]
    of_answer = factors.advantage.sum(1) / factors.advantage.ne(0).sum(1).clamp(min=1)
    for prompt in case.batch.prompt_id.unique():
        assert of_answer[case.batch.prompt_id == prompt].sum().abs() < 1e-12


@every_row("silent without contrast")
@FIRST_FAILURE
@given(shape=shapes(rewards="equal"), groups_of_one=st.booleans())
def test_no_contrast_no_weight(name: str, shape: Shape, groups_of_one: bool):
    if groups_of_one:
        shape = replace(shape, groups=(1,) * len(shape.groups), rewards="real")
    case = draw(shape)
    factors = METHODS[name].bind(case.batch).factors(case.logp)[METHODS[name].terms[0].name]
    assert (factors.weight == 0).all()


@every_row()
@given(shape=shapes())
def test_order_of_rows_does_not_matter(name: str, shape: Shape):
    case = draw(shape)
    order = torch.randperm(case.batch.size, generator=torch.Generator().manual_seed(shape.seed))
    assert_same(all_weights(METHODS[name], case.rows(order)), all_weights(METHODS[name], case), at=order)


@every_row()
@given(shape=shapes(), data=st.data())
def test_padding_does_not_matter(name: str, shape: Shape, data: st.DataObject):
    case = draw(shape)
    extra = data.draw(st.integers(1, 3))
    columns = st.integers(0, case.logp.shape[1] + extra - 1)
    wider, old = case.widened(data.draw(st.sets(columns, min_size=extra, max_size=extra)))
    assert_same(all_weights(METHODS[name], case), all_weights(METHODS[name], wider), at=(slice(None), old))


@every_row()
@given(shape=shapes(), base=st.sampled_from([-3, -1, 10**12]))
def test_names_of_prompts_do_not_matter(name: str, shape: Shape, base: int):
    case = draw(shape)
    renamed = replace(case, batch=case.batch.replace(prompt_id=base - 7 * case.batch.prompt_id))
    assert_same(all_weights(METHODS[name], renamed), all_weights(METHODS[name], case))


@every_row()
@given(shape=shapes(), parts=st.integers(1, 4))
def test_micro_batches_change_nothing(name: str, shape: Shape, parts: int):
    """Not even the last bit."""
    case = draw(shape)
    bound = METHODS[name].bind(case.batch)
    order = torch.randperm(case.batch.size, generator=torch.Generator().manual_seed(shape.seed))
    for index in order.chunk(parts):
        assert_same(
            bound.rows(index).weights(case.logp[index], case.values[index]),
            bound.weights(case.logp, case.values),
            at=index,
            rtol=0,
            atol=0,
        )


@every_row()
@given(shape=shapes())
def test_only_own_actions_have_weight(name: str, shape: Shape):
    """Exactly 0, whatever garbage the padding holds, and for every row that the method is not about."""
    case = draw(shape)
    codes = torch.tensor([origin.code for origin in METHODS[name].origins])
    counted = case.batch.action & torch.isin(case.batch.origin, codes)[:, None]
    weights = all_weights(METHODS[name], case)
    for field in fields(Weights):
        weight = getattr(weights, field.name)
        if weight is not None:
            assert (weight[~counted] == 0).all()
            assert weight[counted].isfinite().all()


@every_row()
def test_without_origins_all_rows_are_its_own(name: str):
    case = draw(Shape(seed=5, demonstrations=2))
    case = replace(case, batch=case.batch.replace(reward=torch.linspace(0, 2, case.batch.size, dtype=torch.float64)))
    (code,) = {origin.code for origin in METHODS[name].origins}
    owned = replace(case, batch=case.batch.replace(origin=torch.full_like(case.batch.origin, code)))
    unsaid = replace(case, batch=case.batch.replace(origin=None))
    assert_same(all_weights(METHODS[name], unsaid), all_weights(METHODS[name], owned), rtol=0, atol=0)


@every_row("names what it lacks")
def test_names_what_it_lacks_and_the_way_out(name: str):
    case = draw(Shape())
    assert METHODS[name].needs
    for needed in METHODS[name].needs:
        with pytest.raises(ValueError, match=rf"needs {needed}, .*pass {needed}=… to Batch\(\.\.\.\)"):
            METHODS[name].weights(case.batch.replace(**{needed: None}), case.logp)


@every_row()
def test_reads_nothing_else(name: str):
    case = draw(Shape(seed=1))
    kept = METHODS[name].needs | {"action", "origin"}
    bare = Batch(**{key: getattr(case.batch, key) for key in kept})
    assert_same(all_weights(METHODS[name], replace(case, batch=bare)), all_weights(METHODS[name], case), rtol=0, atol=0)


@every_row()
def test_logp_of_another_shape_is_refused(name: str):
    case = draw(Shape())
    with pytest.raises(ValueError, match=r"logp has shape .*: they must be equal"):
        METHODS[name].weights(case.batch, case.logp[:, 1:])


@every_row()
@pytest.mark.parametrize("batch_dtype", [torch.float32, torch.float64], ids=["float32 batch", "float64 batch"])
@given(shape=shapes(), spread=st.sampled_from([0.5, 25.0, 1e3]))
def test_float32_in_float32_out(name: str, batch_dtype: torch.dtype, shape: Shape, spread: float):
    """Finite, however far apart the policies are."""
    case = draw(replace(shape, spread=spread))
    batch = case.batch.map(lambda x: x.to(batch_dtype) if x.is_floating_point() else x)
    weights = all_weights(METHODS[name], Case(batch, case.logp.float(), case.values.float()))
    for weight in (getattr(weights, field.name) for field in fields(Weights)):
        assert weight is None or (weight.dtype == torch.float32 and weight.isfinite().all())


@every_row()
def test_weights_carry_no_gradient(name: str):
    """Whatever of what they are computed from does."""
    case = draw(Shape(seed=2))
    batch = case.batch.map(lambda x: x.clone().requires_grad_() if x.is_floating_point() else x)
    case = Case(batch, case.logp.requires_grad_(), case.values.requires_grad_())
    weights = all_weights(METHODS[name].with_settings({"entropy.coefficient": 0.1} if name == "ppo" else {}), case)
    for weight in (getattr(weights, field.name) for field in fields(Weights)):
        assert weight is None or not weight.requires_grad
    assert not any(f.requires_grad for f in vars(METHODS[name].bind(batch).factors(case.logp)["policy"]).values())


@every_row()
def test_metrics_are_numbers_under_one_scheme(name: str):
    case = draw(Shape(seed=4, groups=(4, 4)))
    metrics = METHODS[name].bind(case.batch).metrics(case.logp)
    assert {"mask/passed", "ratio/p01", "ratio/p50", "ratio/p99", "ratio/max", "advantage/std"} <= set(metrics)
    assert all(isinstance(value, float) and value == value for value in metrics.values())
    assert 0 <= metrics["mask/passed"] <= 1
    assert metrics["ratio/p01"] <= metrics["ratio/p50"] <= metrics["ratio/p99"] <= metrics["ratio/max"] + 1e-6


OTHER = {"none": "group", "group": "batch", "leave_one_out": "batch", "batch": "none", "k1": "k2", "k2": "k3", "k3": "k1"}
"""For each choice that a number may be, another one."""


@every_row()
def test_every_number_can_be_set(name: str):
    row = METHODS[name]
    for path, value in row.numbers():
        other = OTHER[value] if isinstance(value, str) else abs(value - 0.125)
        changed = row.with_settings({path: other})
        assert dict(changed.numbers()) == dict(row.numbers()) | {path: other}
        assert changed != row
        assert len(difference(row, changed)) == 1
        assert (changed.paper, changed.claim, changed.aka, changed.status) == (row.paper, row.claim, row.aka, row.status)
        assert changed.with_settings({path: value}) == row
        with pytest.raises(ConfigError, match=rf"method\.{path} = 'much' is not allowed"):
            row.with_settings({path: "much"})
        with pytest.raises(ConfigError, match=rf"there is no setting 'method\.{path}x': did you mean .*{path}"):
            row.with_settings({f"{path}x": value})


@every_row()
def test_explains_all_that_it_is_made_of(name: str):
    row, text = METHODS[name], METHODS[name].explain()
    assert row.paper in text
    assert row.claim in text
    for term in row.terms:
        for part in term.parts.values():
            about = describe(part)
            assert signature(part) in text
            assert about.summary in text
            assert about.source in text
            assert all(line in text for line in about.formula.splitlines())


@every_row()
def test_lines_tell_it_from_every_other_row(name: str):
    row = METHODS[name]
    assert dict(row.lines())["reduce"] == signature(row.terms[0].reduce)
    for other in METHODS.values():
        assert bool(difference(row, other)) == (row != other)
        assert set(difference(row, other)) == {(line, ours, theirs) for line, theirs, ours in difference(other, row)}
