"""The model card: what it is, against whom it was judged, how it did, whether to believe it, how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sweep.analysis.confirm import spread, verdict
from sweep.analysis.export.account import Figures, attacks
from sweep.analysis.export.chosen import Chosen
from sweep.analysis.export.robustbench import radius
from sweep.analysis.findings import explained
from sweep.configuration import TrialConfig
from sweep.datasets import ImageShape
from sweep.errors import counted
from sweep.registry import Component
from sweep.validity import CHECKS

_ENVIRONMENT = Environment(
    loader=PackageLoader("sweep.analysis.export", "."),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def card(
    chosen: Chosen,
    config: TrialConfig,
    shape: ImageShape,
    own: Sequence[Figures],
    seeds: Figures | None,
    *,
    name: str,
    onnx: str | None,
) -> str:
    """The card as Markdown. `own` are this network's figures, `seeds` those of its configuration's fresh seeds; `name`
    is the folder's, and `onnx` a sentence on model.onnx, where there is one."""
    record, trial = chosen.folder.record(), chosen.trial
    confirmation, candidate = chosen.confirmation, chosen.candidate
    return _ENVIRONMENT.get_template("card.md.j2").render(
        study=chosen.study,
        trial=trial,
        title=chosen.title,
        config=config,
        shape=shape,
        name=name,
        onnx=onnx,
        counted=counted,
        standing=chosen.standing,
        model=_text(config.model),
        defense=_text(config.defense),
        optimizer=_text(config.optimizer),
        radius=radius(config.threat_model.epsilon),
        epoch=(trial.best or {})["epoch"],
        own=[(figures, _rows(figures)) for figures in own],
        seeds=seeds,
        claimed=_rows(seeds) if seeds else [],
        confirmation=confirmation if candidate else None,
        candidate=candidate,
        is_confirmed=chosen.is_confirmed,
        is_first=confirmation is not None and confirmation.openings[0] == confirmation.folder.path.name,
        is_only=confirmation is None or len(confirmation.openings) == 1,
        disbelieved=chosen.disbelieved,
        diverged=candidate.ends.count("diverged") if candidate else 0,
        verdict=verdict(confirmation.folder.study(), confirmation.found) if confirmation and candidate else [],
        naive={name: value for name, value in trial.final.items() if "_naive/" in name},
        attacks=[(attack.label, _text(attack, whole=True)) for attack in attacks(config)],
        validity=trial.validity,
        checks=_checks(trial.validity),
        doubts=explained(trial.validity) if trial.validity else [],
        data=_text(config.dataset),
        record=record,
    )


def _rows(figures: Figures) -> list[tuple[str, str]]:
    """(attack, accuracy with its interval)."""
    return [(what, spread(interval)) for what, interval in figures.accuracies.items()]


def _text(component: Component, *, whole: bool = False) -> str:
    """A component as its name and those of its parameters that are not the defaults, or the `whole` of them."""
    return _short(component.model_dump(mode="json", exclude_defaults=not whole))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        rest = ", ".join(f"{key} {_short(item)}" for key, item in value.items() if key != "name")
        return f"{value['name']} ({rest})" if rest else str(value["name"])
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _checks(validity: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """(identifier, title, outcome) of every check that was asked."""
    if validity is None:
        return []
    outcomes = {id: outcome for outcome in ("suspect", "investigate") for id in validity[outcome]}
    return [
        (id, CHECKS[id].title if id in CHECKS else "not known to this version", outcomes.get(id, "pass"))
        for id in validity["figures"]
    ]
