"""Whatever a study.json may hold, reading it gives a study or a ConfigurationError and nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_study import valid

from sweep.errors import ConfigurationError
from sweep.study import study_from

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.floats()
    | st.sampled_from(["", "pgd", "x", "uniform", "tree"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "domain", "low", "branches", "tree", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)
WRITTEN: dict[str, Any] = study_from(valid(), "x").to_json()


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in nested dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, child in items for place in places(child, (*path, key)))]


@st.composite
def malformed(draw: st.DrawFn) -> Any:
    """The study with one to three places replaced, taken away, or given a key too many."""
    data: Any = copy.deepcopy(WRITTEN)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(data)))
        if not path:
            continue
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "replace", "drop", "add"])):
            case "replace":
                parent[path[-1]] = draw(JSON)
            case "drop":
                del parent[path[-1]]
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["name", "domain", "extra", "low", "branches"]))] = draw(JSON)
    return data


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(malformed() | JSON)
def test_a_malformed_study_is_a_configuration_error_or_a_study(data: Any) -> None:
    try:
        study = study_from(data, "study.json")
    except ConfigurationError as error:
        assert error.problems
        assert all(text.strip() and "\n" not in text for text in error.problems)
    else:  # what was changed was allowed to be: then it is a study like any other
        again = study_from(json.loads(json.dumps(study.to_json())), "study.json")
        assert again.fingerprint == study.fingerprint
