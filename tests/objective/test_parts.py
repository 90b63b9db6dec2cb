"""Every exported part is a frozen dataclass that documents its numbers and cites its source."""

import ast
import inspect
import itertools
import math
import re
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import get_args

import pytest

import quatrain.objective
from quatrain.objective import EntropyBonus, Hinge, Logistic, Squared, Term, ValueLoss
from quatrain.objective.part import Part, Scope, describe, signature
from quatrain.types import Batch

EXPORTED = [getattr(quatrain.objective, name) for name in quatrain.objective.__all__]
TERMS = [Term, EntropyBonus, ValueLoss]
PARTS = [x for x in EXPORTED if isinstance(x, type) and is_dataclass(x) and hasattr(x, "scope")]
MARGIN_LOSSES = [Logistic, Squared, Hinge]


def test_the_parts_are_found():
    assert {"Clip", "Old", "Relative", "Token", "PerToken"} <= {part.__name__ for part in PARTS}
    assert len(PARTS) >= 50


def documented(part: type) -> set[str]:
    """The fields that a string stands under."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(part)).body if isinstance(node, ast.ClassDef))
    pairs = itertools.pairwise(body)
    return {
        a.target.id
        for a, b in pairs
        if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant)
    }


@pytest.mark.parametrize("part", [*PARTS, *TERMS, *MARGIN_LOSSES], ids=lambda part: part.__name__)
def test_says_what_it_is_by_which_formula_and_from_where(part: type):
    about = describe(part())
    assert re.fullmatch(r"[A-Z].*\.", about.summary)
    assert re.search(r"[=∇]", about.formula)
    assert re.search(r"arXiv:(\d{4}\.\d{5}|cs/\d{7})|doi:|https?://", about.source)


@pytest.mark.parametrize("part", [*PARTS, *MARGIN_LOSSES], ids=lambda part: part.__name__)
def test_documents_each_of_its_numbers(part: type):
    assert documented(part) == {field.name for field in fields(part)}


@pytest.mark.parametrize("part", [*PARTS, *MARGIN_LOSSES], ids=lambda part: part.__name__)
def test_is_data(part: type):
    assert isinstance(part(), Part) or part in MARGIN_LOSSES
    assert part() == part()
    assert hash(part()) == hash(part())
    assert eval(signature(part()), vars(quatrain.objective) | {"inf": math.inf}) == part()
    with pytest.raises(FrozenInstanceError):
        part().anything = 1


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_declares_what_it_reads_and_how_far_it_looks(part: type):
    assert part().needs <= {field.name for field in fields(Batch)}
    assert part().scope in get_args(Scope)
