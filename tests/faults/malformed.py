"""Ways to spoil nested data, and what to look for in the complaint. Not a test by itself."""

from __future__ import annotations

import copy
import math
from typing import Any

from hypothesis import strategies as st

Place = tuple[Any, ...]  # keys and indices, from the outside in


def _nested(depth: int) -> list[Any]:
    return [_nested(depth - 1)] if depth else []


GARBAGE = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([math.nan, math.inf, -math.inf, -1, 0, 1e308, -1e-300, 2**63, 10**400, -(10**30)]),
    st.text(max_size=6),
    st.sampled_from(["", "pgd", "nan", "linf ", "8/255", "1e-3", "no", "größe", "\u202e", "\x00", "a\nb"]),
    st.recursive(
        st.none() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["name", "domain", "low", "high", "options", "branches", "tree", "x", "größe", ""]),
                inner,
                max_size=3,
            )
        ),
        max_leaves=5,
    ),
    st.sampled_from([5, 200]).map(_nested),
)


def places(node: Any, path: Place = ()) -> list[Place]:
    """The path of every value in nested dicts and lists, the whole left out."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    below = [place for key, child in items for place in places(child, (*path, key))]
    return below if path == () else [path, *below]


def at(node: Any, path: Place) -> Any:
    for key in path:
        node = node[key]
    return node


@st.composite
def spoiled(draw: st.DrawFn, valid: Any) -> tuple[Any, Place]:
    """`valid` with one place spoiled, and the path of that place."""
    data = copy.deepcopy(valid)
    path = draw(st.sampled_from(places(data)))
    parent, last = at(data, path[:-1]), path[-1]
    match draw(st.sampled_from(["replace", "replace", "drop", "rename", "add"])):
        case "replace":
            parent[last] = draw(GARBAGE)
        case "drop":
            del parent[last]
        case "rename" if isinstance(last, str):
            typo = draw(st.sampled_from([last + last[-1:], last[1:], last[::-1], last.upper(), last + "ß"]))
            path = (*path[:-1], typo)
            parent[typo] = parent.pop(last)
        case "add" if isinstance(parent, dict):
            extra = draw(st.sampled_from(["extra", "näme", "num_step", "", "low", "branches", "a b"]))
            path = (*path[:-1], extra)
            parent[extra] = draw(GARBAGE)
    return data, path
