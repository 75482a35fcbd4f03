"""Search spaces: trial configurations in which some values are domains. Conditions are structure.

A space is a nested mapping of constants, domains, and `OneOf` branches; a branch's parameters exist only inside it:

    SearchSpace(dataset="digits", epochs=30, defense=OneOf(standard={}, trades=dict(beta=LogUniform(1, 10))))

A parameter's name is its path, branch included: ``defense``, ``defense.trades.beta``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_serializer, model_validator

from sweep.domains import Choice, Domain, Integer, Interval, LogUniform, Uniform
from sweep.errors import unknown
from sweep.registry import problems, short

_KEYED = re.compile(r"[\w.\[\]-]+: ")
Pick = Callable[[str, Domain], Any]


class OneOf(Domain):
    """One of several components, each with its own parameters: ``OneOf(standard={}, trades=dict(beta=...))``."""

    domain: Literal["one_of"] = "one_of"
    branches: dict[str, dict[str, Any]]

    def __init__(self, /, **branches: Any) -> None:
        written = branches.get("domain") == "one_of" and set(branches) == {"domain", "branches"}
        trees: Any = branches["branches"] if written else branches
        if not isinstance(trees, dict):
            raise ValueError(f"branches: must be a mapping of names to parameters, got {short(trees)}")
        parsed: dict[str, Any] = {"branches": {name: _parsed(tree, name) for name, tree in trees.items()}}
        super().__init__(**parsed)

    @model_validator(mode="after")
    def _has_branches(self) -> OneOf:
        if not self.branches:
            raise ValueError("needs at least one branch")
        for name, tree in self.branches.items():
            if "name" in tree:
                raise ValueError(f"branch '{name}' is its component's name: it cannot hold another, {tree['name']!r}")
        return self

    def representatives(self) -> list[Any]:
        return list(self.branches)

    @model_serializer
    def _as_json(self) -> dict[str, Any]:
        return {"domain": self.domain, "branches": {name: _json(tree) for name, tree in self.branches.items()}}


class SearchSpace(BaseModel):
    """A trial configuration in which some values are domains."""

    model_config = ConfigDict(frozen=True)
    tree: dict[str, Any]

    def __init__(self, /, **tree: Any) -> None:
        super().__init__(tree=_parsed(tree))

    @model_validator(mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        if isinstance(value, dict) and set(value) != {"tree"}:
            return {"tree": _parsed(value)}
        return value

    @model_serializer
    def _as_json(self) -> dict[str, Any]:
        return dict(_json(self.tree))

    def resolve(self, pick: Pick) -> dict[str, Any]:
        """The configuration that results where `pick(name, domain)` chooses each value, outermost first."""
        resolved = _resolve(self.tree, "", pick)
        assert isinstance(resolved, dict)
        return resolved

    def constrain(self, partial: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a partial configuration fixes: parameters by name, and constants that it replaces, as a tree.

        Raises ValueError, naming the key, where a value lies outside its domain.
        """
        parameters: dict[str, Any] = {}
        return parameters, _constrain(self.tree, "", partial, parameters)

    def corners(self) -> Iterator[dict[str, Any]]:
        """Configurations that together show every end of every domain, in every branch."""
        return (config for config, _ in self._explore())

    def domains(self) -> dict[str, Domain]:
        """Every parameter by name, those of all branches included."""
        return {name: domain for _, found in self._explore() for name, domain in found.items()}

    def alternatives(self, key: str) -> list[str]:
        """The components that a choice at the top of the space is made from; none where there is no choice."""
        choice = self.tree.get(key)
        return list(choice.branches) if isinstance(choice, OneOf) else []

    def _explore(self) -> Iterator[tuple[dict[str, Any], dict[str, Domain]]]:
        """Each corner with the domains met there: one value is changed at a time, in the branches that lead to it."""
        queue: list[dict[str, Any]] = [{}]
        seen: set[str] = set()
        while queue:
            picks, found = queue.pop(0), dict[str, Domain]()

            def pick(name: str, domain: Domain, picks: dict[str, Any] = picks, found: dict[str, Domain] = found) -> Any:
                found[name] = domain
                return picks.get(name, domain.representatives()[0])

            yield self.resolve(pick), found
            for name in [name for name in found if name not in seen]:
                branches = {key: value for key, value in picks.items() if name.startswith(key)}
                queue += [{**branches, name: value} for value in found[name].representatives()[1:]]
            seen |= found.keys()

    @property
    def size(self) -> float:
        """How many configurations there are: infinite as soon as one parameter is real."""
        return _size(self.tree)


DOMAINS: dict[str, type[Domain]] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "integer": Integer,
    "choice": Choice,
    "one_of": OneOf,
}


def _resolve(node: Any, path: str, pick: Pick) -> Any:
    if isinstance(node, OneOf):
        name = pick(path, node)
        return {"name": name, **_resolve(node.branches[name], f"{path}.{name}", pick)}
    if isinstance(node, Domain):
        return pick(path, node)
    if isinstance(node, dict):
        return {key: _resolve(child, f"{path}.{key}" if path else key, pick) for key, child in node.items()}
    return node


def merged(config: dict[str, Any], replacements: Mapping[str, Any]) -> dict[str, Any]:
    """`config` with the leaves of a tree of replacements in place of its own."""
    result = dict(config)
    for key, value in replacements.items():
        old = result.get(key)
        # Another component takes the old one's place whole: the old one's parameters mean nothing to it.
        if (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            result[key] = merged(old, value)
        else:
            result[key] = value
    return result


def _constrain(node: Any, path: str, given: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    """The replacements within `node` (a branch or mapping) that `given` asks for; its parameters go to `parameters`."""
    replacements: dict[str, Any] = {}
    for key, value in given.items():
        here, child = f"{path}.{key}" if path else key, node.get(key)
        if isinstance(child, OneOf):
            if not isinstance(value, str | Mapping):
                raise ValueError(f"{here}: {value!r} names no branch (allowed: {child.describe()})")
            inner = {"name": value} if isinstance(value, str) else dict(value)
            name = inner.pop("name", None)
            if name is None:
                raise ValueError(f"{here}: {short(value)} has no 'name' of a branch (allowed: {child.describe()})")
            if not isinstance(name, str) or name not in child.branches:
                raise ValueError(f"{here}: {unknown('branch', name, child.branches)}")
            parameters[here] = name
            nested = _constrain(child.branches[name], f"{here}.{name}", inner, parameters)
        elif isinstance(child, Domain):
            if value not in child:
                raise ValueError(f"{here}: {value!r} is not in the space ({child.describe()})")
            parameters[here] = value
            continue
        elif isinstance(child, dict) and isinstance(value, Mapping):
            nested = _constrain(child, here, value, parameters)
        else:
            nested = value
        if nested not in ({}, child):
            replacements[key] = nested
    return replacements


def _parsed(node: Any, key: str = "") -> Any:
    """A tree in which JSON's descriptions of domains have become domains. Raises ValueError, a line a mistake, each
    with the keys that lead to it."""
    if not isinstance(node, dict):
        return node
    try:
        if isinstance(node.get("domain"), str) and node["domain"] in DOMAINS:
            domain = DOMAINS[node["domain"]]
            return domain.model_validate(node) if issubclass(domain, Interval) else domain(**node)
        return {name: _parsed(child, str(name)) for name, child in node.items()}
    except ValidationError as error:
        lines = problems(error)
    except TypeError as error:  # a key that is no key, such as self
        lines = [f"{short(node)} is no domain: {error}"]
    except ValueError as error:
        lines = str(error).split("\n")
    # What is said of a part of this node begins with its key.
    raise ValueError("\n".join(f"{key}{'.' if _KEYED.match(line) else ': '}{line}" if key else line for line in lines))


def _json(node: Any) -> Any:
    if isinstance(node, BaseModel):
        return node.model_dump(mode="json")
    if isinstance(node, dict):
        return {key: _json(child) for key, child in node.items()}
    return node


def _size(node: Any) -> float:
    if isinstance(node, OneOf):
        return sum(_size(tree) for tree in node.branches.values())
    if isinstance(node, Choice):
        return len(node.options)
    if isinstance(node, Integer):
        return node.high - node.low + 1
    if isinstance(node, Domain):
        return math.inf
    if isinstance(node, dict):
        return math.prod(_size(child) for child in node.values())
    return 1
