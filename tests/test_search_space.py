"""Search spaces: names by structure, `constrain` the inverse of `resolve`, corners that show every end everywhere."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.configuration import fingerprint
from sweep.domains import Choice, Domain, Integer, Interval, LogUniform, Uniform
from sweep.search_space import OneOf, SearchSpace, merged

DEFENSES = SearchSpace(
    epochs=30,
    optimizer={"name": "sgd", "learning_rate": LogUniform(1e-3, 0.3)},
    defense=OneOf(
        standard={},
        trades={"beta": LogUniform(1, 10), "attack": OneOf(pgd={"num_steps": Choice(3, 7)}, fgsm={})},
        hybrid={"alpha_rule": OneOf(fixed={"alpha": Uniform(0, 1)}, paper_ratio={})},
    ),
)

keys = st.sampled_from(["a", "b", "ab", "c", "a_b"])
constants = st.one_of(st.integers(0, 3), st.sampled_from(["x", "y"]), st.booleans(), st.none(), st.just([1, 2]))
numbers = st.tuples(st.integers(1, 5), st.integers(6, 9))
leaves: st.SearchStrategy[Any] = st.one_of(
    constants,
    numbers.map(lambda ends: Uniform(*ends)),
    numbers.map(lambda ends: LogUniform(*ends)),
    numbers.map(lambda ends: Integer(*ends)),
    st.lists(st.integers(0, 9), min_size=2, max_size=4, unique=True).map(lambda options: Choice(*options)),
)


def _nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    mapping = st.dictionaries(keys, children, max_size=3)
    branches = st.dictionaries(st.sampled_from(["p", "q", "pq"]), mapping, min_size=1, max_size=3)
    return mapping | branches.map(lambda found: OneOf(**found))


trees = st.dictionaries(keys, st.recursive(leaves, _nested, max_leaves=8), max_size=4)
spaces = trees.map(lambda tree: SearchSpace(**tree))


@st.composite
def points(draw: st.DrawFn) -> tuple[SearchSpace, dict[str, Any], dict[str, Any]]:
    """A space, a configuration in it, and what was picked for it."""
    space, picked = draw(spaces), dict[str, Any]()

    def pick(name: str, domain: Domain) -> Any:
        if isinstance(domain, Integer):
            picked[name] = draw(st.integers(domain.low, domain.high))
        elif isinstance(domain, Interval):
            picked[name] = draw(st.floats(domain.low, domain.high))
        else:
            picked[name] = draw(st.sampled_from(domain.representatives()))
        return picked[name]

    return space, space.resolve(pick), picked


def domains_by_hand(node: Any, path: str = "") -> Iterator[tuple[str, Domain]]:
    """An independent reading of the tree."""
    if isinstance(node, OneOf):
        yield path, node
        for name, branch in node.branches.items():
            yield from domains_by_hand(branch, f"{path}.{name}")
    elif isinstance(node, Domain):
        yield path, node
    elif isinstance(node, dict):
        for key, child in node.items():
            yield from domains_by_hand(child, f"{path}.{key}" if path else key)


def test_a_parameter_is_named_by_its_path_branch_included() -> None:
    assert set(DEFENSES.domains()) == {
        "optimizer.learning_rate",
        "defense",
        "defense.trades.beta",
        "defense.trades.attack",
        "defense.trades.attack.pgd.num_steps",
        "defense.hybrid.alpha_rule",
        "defense.hybrid.alpha_rule.fixed.alpha",
    }


def test_a_branchs_parameters_exist_only_inside_it() -> None:
    asked: list[str] = []

    def pick(name: str, domain: Domain) -> Any:
        asked.append(name)
        return "trades" if name == "defense" else domain.representatives()[0]

    config = DEFENSES.resolve(pick)
    assert asked == [
        "optimizer.learning_rate",
        "defense",
        "defense.trades.beta",
        "defense.trades.attack",
        "defense.trades.attack.pgd.num_steps",
    ]
    assert config == {
        "epochs": 30,
        "optimizer": {"name": "sgd", "learning_rate": 1e-3},
        "defense": {"name": "trades", "beta": 1, "attack": {"name": "pgd", "num_steps": 3}},
    }


@settings(deadline=None, max_examples=60)
@given(points())
def test_constrain_is_the_inverse_of_resolve(point: tuple[SearchSpace, dict[str, Any], dict[str, Any]]) -> None:
    space, config, picked = point
    parameters, replacements = space.constrain(config)
    assert parameters == picked
    assert replacements == {}
    assert space.resolve(lambda name, _: parameters[name]) == config


@settings(deadline=None, max_examples=60)
@given(points(), st.data())
def test_replaced_constants_come_back_by_merging(
    point: tuple[SearchSpace, dict[str, Any], dict[str, Any]], data: st.DataObject
) -> None:
    space, config, picked = point
    wanted = dict(config)
    for key, value in space.tree.items():
        if not isinstance(value, Domain | dict) and data.draw(st.booleans(), label=f"replace {key}"):
            wanted[key] = "another"
    parameters, replacements = space.constrain(wanted)
    assert merged(space.resolve(lambda name, _: parameters[name]), replacements) == wanted
    assert parameters == picked


@settings(deadline=None, max_examples=60)
@given(spaces)
def test_json_and_back(space: SearchSpace) -> None:
    text = space.model_dump_json()
    again = SearchSpace.model_validate(json.loads(text))
    assert again == space
    assert fingerprint(json.loads(again.model_dump_json())) == fingerprint(json.loads(text))
    assert list(again.corners()) == list(space.corners())


@settings(deadline=None, max_examples=60)
@given(spaces)
def test_corners_show_every_end_of_every_domain_in_every_branch(space: SearchSpace) -> None:
    wanted = dict(domains_by_hand(space.tree))
    assert space.domains() == wanted
    corners = list(space.corners())
    shown = [space.constrain(corner)[0] for corner in corners]
    for name, domain in wanted.items():
        values = [parameters[name] for parameters in shown if name in parameters]
        for value in domain.representatives():
            assert value in values, (name, value)
    # One value is changed at a time: the cost of checking a study is linear in the number of its parameters.
    assert len(corners) == 1 + sum(len(domain.representatives()) - 1 for domain in wanted.values())


def every_configuration(space: SearchSpace) -> list[dict[str, Any]]:
    """All of a finite space, by trying what is left open after each choice: depth first."""
    found: list[dict[str, Any]] = []

    def explore(fixed: dict[str, Any]) -> None:
        opened: list[tuple[str, Domain]] = []

        def pick(name: str, domain: Domain) -> Any:
            if name in fixed:
                return fixed[name]
            opened.append((name, domain))
            return domain.representatives()[0]

        config = space.resolve(pick)
        if not opened:
            found.append(config)
            return
        name, domain = opened[0]
        values = range(domain.low, domain.high + 1) if isinstance(domain, Integer) else domain.representatives()
        for value in values:
            explore(fixed | {name: value})

    explore({})
    return found


@settings(deadline=None, max_examples=60)
@given(spaces)
def test_size_counts_the_configurations(space: SearchSpace) -> None:
    if any(isinstance(domain, Uniform | LogUniform) for domain in space.domains().values()):
        assert space.size == math.inf
    elif space.size < 2000:
        texts = {json.dumps(config, sort_keys=True) for config in every_configuration(space)}
        assert len(texts) <= space.size == len(every_configuration(space))


SHORT = """
import json
from sweep.search_space import *
space = SearchSpace(
    epochs=30, b=Choice("x", "y"), a=Uniform(0, 1),
    defense=OneOf(standard={},
                  trades=dict(beta=LogUniform(1, 10), attack=OneOf(pgd=dict(num_steps=Integer(1, 7)), fgsm={})),
                  hybrid=dict(rule=OneOf(fixed=dict(alpha=Uniform(0, 1)), ratio={}))),
)
print(json.dumps([list(space.corners()), list(space.domains()), space.model_dump(mode="json")]))
"""


def test_the_order_is_the_files_whatever_pythons_hash_seed() -> None:
    outputs = set()
    for seed in ("0", "1", "12345"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", SHORT]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    (output,) = outputs
    corners, names, _ = json.loads(output)
    assert corners[0] == {"epochs": 30, "b": "x", "a": 0.0, "defense": {"name": "standard"}}
    assert names[:3] == ["b", "a", "defense"]


def test_a_partial_configuration_may_name_a_branch_in_short() -> None:
    assert DEFENSES.constrain({"defense": "standard"}) == ({"defense": "standard"}, {})
    assert DEFENSES.constrain({"defense": {"name": "trades", "attack": "fgsm"}, "epochs": 50}) == (
        {"defense": "trades", "defense.trades.attack": "fgsm"},
        {"epochs": 50},
    )


@pytest.mark.parametrize(
    ("partial", "sentence"),
    [
        ({"defense": "tradse"}, "defense: unknown branch 'tradse'; did you mean 'trades'?"),
        ({"defense": {"beta": 3.0}}, "has no 'name' of a branch"),
        ({"defense": 3}, r"defense: 3 names no branch \(allowed: standard, trades, hybrid\)"),
        ({"defense": {"name": ["trades"]}}, r"defense: unknown branch '\['trades'\]'"),
        (
            {"defense": {"name": "trades", "beta": 20}},
            "defense.trades.beta: 20 is not in the space .1 to 10, log scale",
        ),
        ({"defense": {"name": "trades", "attack": {"name": "pgd", "num_steps": 4}}}, r"num_steps: 4 .*\(3, 7\)"),
        ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate: 'fast' is not in the space"),
    ],
)
def test_what_lies_outside_the_space_is_named(partial: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DEFENSES.constrain(partial)


def test_merged_changes_leaves_and_leaves_the_original_alone() -> None:
    config = {"a": {"b": 1, "c": {"d": 2}}, "e": "sgd"}
    assert merged(config, {"a": {"c": {"d": 3, "f": 4}}, "e": {"name": "adamw"}, "g": 5}) == {
        "a": {"b": 1, "c": {"d": 3, "f": 4}},
        "e": {"name": "adamw"},
        "g": 5,
    }
    assert merged(config, {}) == config == {"a": {"b": 1, "c": {"d": 2}}, "e": "sgd"}


@pytest.mark.parametrize(
    "written",
    [{"domain": "uniform", "low": 1}, {"domain": "integer", "low": 1, "high": 2, "middle": 1}, {"domain": "one_of"}],
)
def test_a_damaged_domain_is_an_error_of_the_users(written: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"domain|branch|extra|parameter"):
        SearchSpace.model_validate({"epochs": written})
