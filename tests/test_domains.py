"""Domains: what is in them, what stands for them, what they refuse."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sweep.domains import Choice, Domain, Integer, LogUniform, Uniform
from sweep.search_space import DOMAINS, OneOf

finite = st.floats(-1e9, 1e9, allow_nan=False)


@settings(deadline=None)
@given(finite, finite, finite)
def test_an_interval_holds_exactly_the_numbers_between_its_ends(low: float, high: float, value: float) -> None:
    if low >= high:
        with pytest.raises(ValidationError, match="low < high must hold"):
            Uniform(low, high)
        return
    assert (value in Uniform(low, high)) == (low <= value <= high)
    assert low in Uniform(low, high) and high in Uniform(low, high)
    assert Uniform(low, high).representatives() == [low, high]


def test_only_numbers_are_in_an_interval() -> None:
    for value in (True, "0.5", None, [0.5], math.nan, math.inf):
        assert value not in Uniform(0, 1), value
        assert value not in Integer(0, 1), value
    assert 1 in Uniform(0, 1)  # a whole number is a real one
    assert 1.0 not in Integer(0, 3)  # and not the other way round


def test_a_logarithmic_scale_begins_above_zero() -> None:
    for build in (lambda: LogUniform(0, 1), lambda: LogUniform(-1, 1), lambda: Integer(0, 8, log=True)):
        with pytest.raises(ValidationError, match="begins above 0"):
            build()
    assert LogUniform(1e-3, 0.3).log and Integer(1, 8, log=True).log and not Uniform(0, 1).log


@pytest.mark.parametrize(
    "build",
    [
        lambda: Uniform(math.nan, 1),
        lambda: Uniform(0, math.inf),
        lambda: Uniform("0", 1),  # type: ignore[arg-type]  # what a user may write
        lambda: Integer(0.5, 2),  # type: ignore[arg-type]  # what a user may write
        lambda: Uniform(0, 1, step=0.1),
        Choice,
        lambda: Choice(1),
        lambda: Choice(3, 3),
        lambda: Choice(1, math.nan),
        lambda: Choice([1], [2]),  # type: ignore[arg-type]  # what a user may write
    ],
)
def test_what_is_no_domain_is_refused(build: Any) -> None:
    with pytest.raises(ValidationError):
        build()


def test_a_choice_tells_values_apart_that_python_calls_equal() -> None:
    assert Choice(1, True, 1.0).representatives() == [1, True, 1.0]
    assert [type(value) for value in Choice(1, True, 1.0).representatives()] == [int, bool, float]


DOMAIN_EXAMPLES: list[Domain] = [
    Uniform(0, 1),
    LogUniform(1e-3, 0.3),
    Integer(1, 20),
    Integer(1, 1024, log=True),
    Choice(None, True, 2, 0.5, "many"),
    OneOf(standard={}, trades={"beta": LogUniform(1, 10), "attack": OneOf(pgd={"num_steps": Integer(1, 9)}, fgsm={})}),
]


@pytest.mark.parametrize("domain", DOMAIN_EXAMPLES, ids=str)
def test_json_and_back(domain: Domain) -> None:
    read = json.loads(domain.model_dump_json())
    again = DOMAINS[read["domain"]](**read)
    assert again == domain and type(again) is type(domain)
    assert json.loads(again.model_dump_json()) == read


def test_every_kind_of_domain_has_an_example_here() -> None:
    assert {type(domain) for domain in DOMAIN_EXAMPLES} == set(DOMAINS.values())


def test_domains_describe_themselves_in_words() -> None:
    described = [domain.describe() for domain in DOMAIN_EXAMPLES]
    assert described == [
        "0 to 1",
        "0.001 to 0.3, log scale",
        "1 to 20",
        "1 to 1024, log scale",
        "None, True, 2, 0.5, many",
        "standard, trades",
    ]


def test_a_branch_cannot_hold_another_name_than_its_own() -> None:
    with pytest.raises(ValidationError, match=r"branch 'pgd'.*cannot hold another, 'fgsm'"):
        OneOf(pgd={"name": "fgsm"}, fgsm={})
    with pytest.raises(ValidationError, match="at least one branch"):
        OneOf()
