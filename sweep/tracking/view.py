"""What MLflow's page of runs shows of a study: its best trials first, in the columns that they are compared by.

MLflow's interface keeps such a view as a tag of the experiment, lists it under "Views", and opens it by its key in the
address (`viewStateShareKey`): no part of its API, but what it does with "Save view" (looked at in MLflow 3.17).
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from typing import Any

from sweep.search_space import OneOf, SearchSpace
from sweep.study import Study

_TAG, _KEY = "mlflow.sharedViewState.", "sweep-"
OURS = f"viewStateShareKey={_KEY}"  # in an address: a view of ours
_ADVERSARIAL = "adversarial_accuracy"
_LETTER, _FRAME, _NARROWEST = 6, 60, 100  # pixels, of a column's heading
_RUN, _NAME = "attributes.`Run Name`", 280  # MLflow's first column; pixels for "trial 0000 autoencoder_reconstruction"


def page(experiment: str, journal: str) -> str:
    """The end of the address at which MLflow shows the view of a journal's runs."""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&{OURS}{journal}"


def view(study: Study, journal: str) -> tuple[str, str]:
    """The experiment's tag that holds the view of a journal's runs: key and value."""
    columns, sort = _columns(study)
    widths = {name: max(_NARROWEST, _FRAME + _LETTER * len(name.split("`")[1])) for name in columns}
    state = {
        "searchFilter": f"tags.`sweep.journal` = '{journal}'",
        "orderByKey": sort,
        "orderByAsc": study.confirms is None and study.objective[0].direction == "minimize",
        "selectedColumns": columns,
        "columnOrder": [_RUN, *columns],
        "columnWidths": {_RUN: _NAME, **widths},
    }
    text = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()  # a tag has 5,000 letters
    named = {"name": f"{study.name}: the best first", "createdAt": round(1000 * time.time()), "state": text}
    return f"{_TAG}{_KEY}{journal}", json.dumps(named)


def _columns(study: Study) -> tuple[list[str], str]:
    """The columns, and the one to sort by: of a confirmation, those of the test split."""
    goal = study.objective[0].metric
    if study.confirms:
        split, attacks = "final/test", [attack.label for attack in study.confirms.attacks]
        judged = [f"{split}/{attack}/{_ADVERSARIAL}" for attack in attacks]
        figures = [f"{split}/worst_case/{_ADVERSARIAL}", f"{split}/clean_accuracy", *judged, f"best/{goal}"]
    else:
        figures = [f"best/{goal}", "best/validation/clean_accuracy", f"final/validation/worst_case/{_ADVERSARIAL}"]
    metrics = [_column("metrics", name) for name in (*figures, "cost/gradient_evaluations", "cost/seconds")]
    params = [] if study.confirms else [_column("params", name) for name in _searched(study.space)]
    tags = [_column("tags", name) for name in ("end", "validity")]
    return list(dict.fromkeys([*tags, *metrics, *params])), metrics[0]


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _searched(space: SearchSpace) -> list[str]:
    """The searched parameters as runs name them, where a branch's own lies right below what it is a branch of."""
    domains: dict[str, Any] = space.domains()
    found = []
    for name, domain in domains.items():
        parts = name.split(".")
        kept = [part for place, part in enumerate(parts) if not isinstance(domains.get(".".join(parts[:place])), OneOf)]
        found.append(".".join([*kept, "name"] if isinstance(domain, OneOf) else kept))
    return [name for name in found if name != "defense.name"]  # the run's name tells it
