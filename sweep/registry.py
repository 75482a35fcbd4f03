"""Components: one class, one file, one registration. Everything that enumerates choices reads this registry.

A component is a frozen pydantic model: its fields are its hyperparameters (type, range, default, unit), its methods do
the work. A configuration names it: ``{"name": "pgd", "num_steps": 7}``, or ``"pgd"`` for the defaults.

    @register("pgd")
    class PGD(Attack): ...

Adding a component is adding a file to its folder: `import_all` in the folder's ``__init__`` finds it, and validation,
`sweep components`, the contract tests and the documentation pick it up from here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from sweep.errors import ConfigurationError, unknown

KINDS: dict[str, dict[str, type[Component]]] = {}


class Record(BaseModel):
    """A frozen, strict piece of configuration: text is not a number, and an unknown key names the nearest right one."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, revalidate_instances="never"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(data)
        except ValidationError as error:
            raise ValidationError.from_exception_data(cls.__name__, explained(cls, error)) from None


class Component(Record):
    """Something that a configuration may name. Subclass a kind's base class and decorate with `register`."""

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""

    @model_serializer(mode="wrap")
    def _with_name(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"name": self.name, **handler(self)}


ComponentType = TypeVar("ComponentType", bound=type[Component])


def register(name: str) -> Callable[[ComponentType], ComponentType]:
    """Class decorator: make a component nameable under its kind. Two components of one name are a defect."""

    def decorate(component: ComponentType) -> ComponentType:
        known = KINDS.setdefault(component.kind, {})
        if name in known:
            raise ValueError(f"{component.kind} '{name}' is registered twice: {known[name]} and {component}")
        component.name = name
        known[name] = component
        return component

    return decorate


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a folder, so that each file's registration happens."""
    for module in sorted(pkgutil.iter_modules(path), key=lambda found: found.name):
        importlib.import_module(f"{package}.{module.name}")


def build(kind: str, value: Any) -> Any:
    """The component that `value` names: a name, a mapping with a ``name`` and parameters, or the component itself.

    Raises pydantic's errors, with the key of the mistake, for a validator to collect.
    """
    if isinstance(value, Component):
        if value.kind != kind:
            raise PydanticCustomError("wrong_kind", "{text}", {"text": f"needs {_article(kind)}, not a {value.kind}"})
        return value
    parameters = {"name": value} if isinstance(value, str) else value
    if not isinstance(parameters, dict) or not isinstance(parameters.get("name"), str):
        form = (
            f'needs the name of {_article(kind)}, or a mapping such as {{"name": "{next(iter(sorted(KINDS[kind])))}"}}'
        )
        misspelt = get_close_matches("name", map(str, parameters if isinstance(parameters, dict) else ()), n=1)
        form += "".join(f"; did you mean 'name' by '{key}'?" for key in misspelt if key != "name")
        raise PydanticCustomError("no_name", "{text}", {"text": form})
    name = parameters["name"]
    if name not in KINDS[kind]:
        text = unknown(kind.replace("_", " "), name, KINDS[kind])
        raise PydanticCustomError("unknown_name", "{text}", {"text": text})
    return KINDS[kind][name].model_validate({key: item for key, item in parameters.items() if key != "name"})


def named(kind: str) -> BeforeValidator:
    """Annotation for a field that holds a component: ``attack: Annotated[SerializeAsAny[Attack], named("attack")]``."""
    return BeforeValidator(lambda value: build(kind, value))


def validated(model: type[RecordType], data: Any, subject: str) -> RecordType:
    """`data` as a `model`, or one ConfigurationError with every mistake in it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigurationError(subject, problems(error)) from None


RecordType = TypeVar("RecordType", bound=BaseModel)


def problems(error: ValidationError) -> list[str]:
    """One sentence a mistake: the key, what is wrong, what was given. A message's every line is a mistake."""
    sentences = []
    for line in error.errors(include_url=False):
        key = ".".join(str(part) for part in line["loc"])
        message = line["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        given = "" if line["type"] in _SELF_EXPLAINING else f", got {short(line['input'])}"
        sentences += [f"{key + ': ' if key else ''}{part}{given}" for part in message.split("\n")]
    return sentences


_OURS = ("unknown_name", "unknown_key", "no_name", "wrong_kind", "not_given")
_SELF_EXPLAINING = {*_OURS, "value_error"}


def explained(model: type[BaseModel], error: ValidationError) -> list[InitErrorDetails]:
    """A pydantic error's lines, to be raised again: an unknown key of this very model names the nearest right one, a
    missing one says what it is."""
    return [_explain(model, line) for line in error.errors(include_url=False)]


def _explain(model: type[BaseModel], line: Any) -> InitErrorDetails:
    kind: str | PydanticCustomError = line["type"]
    if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
        text = unknown("parameter", line["loc"][0], model.model_fields)
        kind = PydanticCustomError("unknown_key", "{text}", {"text": text})
    elif line["type"] == "missing":
        meaning = model.model_fields[line["loc"][0]].description if len(line["loc"]) == 1 else None
        text = "must be given" + (f" ({meaning})" if meaning else "")
        kind = PydanticCustomError("not_given", "{text}", {"text": text})
    elif line["type"] in _OURS:
        kind = PydanticCustomError(line["type"], "{text}", line["ctx"])
    return InitErrorDetails(type=kind, loc=line["loc"], input=line["input"], ctx=line.get("ctx", {}))


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind.replace('_', ' ')}"


def short(value: object) -> str:
    """A value as Python writes it, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
