import re

import pytest

from quatrain.config import ConfigError
from quatrain.methods import METHODS, method

NAMES = {name: key for key, row in METHODS.items() for name in (key, *row.aka)}


def test_no_name_means_two_methods():
    assert len(NAMES) == sum(1 + len(row.aka) for row in METHODS.values())


def test_no_two_rows_are_the_same_method():
    assert len(set(METHODS.values())) == len(METHODS)


@pytest.mark.parametrize(("name", "key"), NAMES.items())
def test_every_name_resolves_however_it_is_written(name: str, key: str):
    for written in (name, name.upper(), f" {name} ", name.replace("_", "-"), name.replace("_", " "), name.replace("_", ".")):
        assert method(written) is METHODS[key]


@pytest.mark.parametrize("name", METHODS)
def test_every_row_says_where_it_is_from_and_what_for(name: str):
    row = METHODS[name]
    assert re.fullmatch(r"arXiv:(\d{4}\.\d{5}|[a-z]+/\d{7})|doi:10\.\S+|https://\S+", row.paper)
    assert re.fullmatch(r"[A-Z].+\.", row.claim)
    assert re.fullmatch(r"[a-z][a-z0-9_]*(:[a-z]+)?", name)


def test_a_variant_is_another_form_of_its_row():
    for name, row in METHODS.items():
        base, _, form = name.partition(":")
        if form:
            assert METHODS[base].paper == row.paper
            assert list(METHODS).index(base) < list(METHODS).index(name)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"there is no method 'grppo': did you mean .*grpo"):
        method("grppo")
