"""What every registered component promises, whatever its kind: adding one adds its tests."""

from __future__ import annotations

import json
import pkgutil
from importlib import import_module
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

import sweep.configuration  # noqa: F401  # importing it registers every component
from sweep.registry import KINDS, Component, build, named

FOLDERS = {
    "alpha_rule": "alpha_rules",
    "attack": "attacks",
    "dataset": "datasets",
    "defense": "defenses",
    "model": "models",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "threat_model": "threat_models",
}
# What a component's own validator requires beside the fields without a default.
BESIDE: dict[str, dict[str, Any]] = {"image_parquet": {"test_size": 100}}
ALL = [(kind, name) for kind in sorted(KINDS) for name in sorted(KINDS[kind])]
every_component = pytest.mark.parametrize(("kind", "name"), ALL)


def required(kind: str, name: str) -> dict[str, Any]:
    """Something for each field without a default; numbers differ, as two ends of a ramp must."""
    fields = KINDS[kind][name].model_fields.items()
    wanted = [(key, field.annotation) for key, field in fields if field.is_required()]
    given = {key: 0.1 * (place + 1) if type_ is float else "some/path" for place, (key, type_) in enumerate(wanted)}
    return given | BESIDE.get(name, {})


def example(kind: str, name: str) -> Component:
    found: Component = build(kind, {"name": name, **required(kind, name)})
    return found


def test_every_kind_has_its_folder() -> None:
    assert set(FOLDERS) == set(KINDS)


@every_component
def test_it_is_built_from_its_name_and_its_required_parameters(kind: str, name: str) -> None:
    component = example(kind, name)
    assert type(component) is KINDS[kind][name]
    assert (component.kind, component.name) == (kind, name)
    if not required(kind, name):
        assert build(kind, name) == component
    assert build(kind, component) is component


@every_component
def test_its_json_is_the_whole_of_it(kind: str, name: str) -> None:
    """Defaults are written out, and so are checked against their own ranges on the way back."""
    component = example(kind, name)
    text = json.dumps(component.model_dump(mode="json"), allow_nan=False)
    assert json.loads(text).keys() == {"name", *type(component).model_fields}
    assert build(kind, json.loads(text)) == component
    held = TypeAdapter(named_field(kind)).validate_python(json.loads(text))
    assert held == component


def named_field(kind: str) -> Any:
    return Annotated[Any, named(kind)]


@every_component
def test_it_lives_in_the_file_of_its_name(kind: str, name: str) -> None:
    assert KINDS[kind][name].__module__ == f"sweep.{FOLDERS[kind]}.{name}"


@every_component
def test_it_says_what_it_is(kind: str, name: str) -> None:
    text = vars(KINDS[kind][name]).get("__doc__") or ""
    first = text.strip().splitlines()[0] if text.strip() else ""
    assert len(first) > 20, "a docstring of its own: its source (paper, equation), or what it is for"


@every_component
def test_every_field_says_what_it_means(kind: str, name: str) -> None:
    fields = KINDS[kind][name].model_fields
    assert [key for key, field in fields.items() if not (field.description or "").strip()] == []


@every_component
def test_every_number_has_a_bound(kind: str, name: str) -> None:
    fields = KINDS[kind][name].model_fields.items()
    numbers = {key: field.metadata for key, field in fields if field.annotation in (int, float)}
    limits = ("ge", "gt", "le", "lt")
    unbounded = [
        key for key, found in numbers.items() if not any(hasattr(part, limit) for part in found for limit in limits)
    ]
    assert unbounded == []


@every_component
def test_an_unknown_parameter_names_the_nearest_right_one(kind: str, name: str) -> None:
    given = {"name": name, **required(kind, name)}
    for key in KINDS[kind][name].model_fields:
        with pytest.raises(ValidationError, match=f"unknown parameter '{key}x'; did you mean '{key}'"):
            build(kind, {**given, f"{key}x": 1})
    with pytest.raises(ValidationError, match=r"unknown parameter 'zzzzzzzz' \(allowed: "):
        build(kind, {**given, "zzzzzzzz": 1})


@every_component
def test_text_is_not_a_number(kind: str, name: str) -> None:
    """A configuration file that says "8/255" or "1e-3" is told so, rather than read as something else."""
    given = {"name": name, **required(kind, name)}
    for key, field in KINDS[kind][name].model_fields.items():
        if field.annotation in (int, float):
            with pytest.raises(ValidationError, match=f"{key}\n.*valid"):
                build(kind, {**given, key: "1"})


@every_component
def test_it_cannot_be_changed(kind: str, name: str) -> None:
    component = example(kind, name)
    for key in type(component).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(component, key, getattr(component, key))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_is_answered_with_the_nearest_one(kind: str) -> None:
    name = max(KINDS[kind], key=len)
    with pytest.raises(ValueError, match=f"unknown {kind.replace('_', ' ')} '{name}s'; did you mean '{name}'"):
        build(kind, f"{name}s")
    with pytest.raises(ValueError, match=r"needs the name of an? "):
        build(kind, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_of_another_kind_is_refused(kind: str) -> None:
    other = "schedule" if kind != "schedule" else "attack"
    with pytest.raises(ValidationError, match=f"not a {other}|not an {other}"):
        TypeAdapter(named_field(kind)).validate_python(example(other, sorted(KINDS[other])[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_the_folder_that_registers_something_registers_one(kind: str) -> None:
    package = import_module(f"sweep.{FOLDERS[kind]}")
    files = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert set(KINDS[kind]) <= files
    places = [component.__module__ for component in KINDS[kind].values()]
    assert len(set(places)) == len(places)
