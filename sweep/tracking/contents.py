"""What a study's events amount to in MLflow: the name, parameters, tags, metrics and status of each run.

Many events of one trial become one `Contents`, so that a few requests carry them, and a later reading of the journal
says what MLflow must hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

STATUS = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "timed_out": "KILLED",
}
_GROUPS = {  # MLflow draws the metrics of a prefix together
    "epsilon": "schedule/epsilon",
    "alpha": "schedule/alpha",
    "learning_rate": "schedule/learning_rate",
    "gradient_evaluations": "cost/gradient_evaluations",
    "seconds": "cost/seconds",
    "peak_memory_mb": "cost/peak_memory_mb",
    "validation/gradient_evaluations": "cost/validation_gradient_evaluations",
    "validation/seconds": "cost/validation_seconds",
    "overhead/gradient_evaluations": "cost/overhead",
}
_LEFT_OUT = ("confidence_right", "confidence_wrong", "clean_loss")  # of best and last figures: the journal has them
_LONGEST_VALUE = 500  # characters of a parameter or tag; MLflow itself allows 6000


class Point(NamedTuple):
    """One value of a metric, at a time in milliseconds since 1970."""

    name: str
    value: float
    time: int
    step: int


@dataclass
class Contents:
    """What events add to a run. `began` and `ended` are milliseconds since 1970; None: these events do not tell."""

    name: str | None = None
    began: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: str | None = None
    ended: int | None = None
    begins_session: bool = False


def run_of(event: Mapping[str, Any]) -> int | None:
    """The trial whose run the event belongs to; None: the parent, which is the sweep's own."""
    return event.get("trial")


def contents(events: Iterable[Mapping[str, Any]]) -> Contents:
    """What the events of one run, in their order, amount to; an event of an unknown name has nothing to show."""
    found = Contents()
    for event in events:
        if add := _ADDERS.get(event["event"]):
            add(found, event)
    return found


def shortened(text: str, longest: int = _LONGEST_VALUE) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def milliseconds(event: Mapping[str, Any]) -> int:
    return round(1000 * float(event["time"]))


def _session(run: Contents, event: Mapping[str, Any]) -> None:
    run.begins_session = True
    versions = {f"version.{name}": version for name, version in event["versions"].items()}
    _tag(run, {"session": event["session"], "host": event["host"], **versions})
    run.status, run.ended = "RUNNING", None  # again, after an earlier session was closed


def _asked(run: Contents, event: Mapping[str, Any]) -> None:
    defense = event["config"]["defense"]["name"]
    run.name, run.began = f"trial {event['trial']:04d} {defense}", milliseconds(event)
    run.params.update((name, shortened(text)) for name, text in _flat(event["config"]))
    _tag(run, {"sweep.trial": event["trial"], "defense": defense, "origin": event["origin"]})
    if event.get("whole") is not None:  # params tell the epochs of this training
        _tag(run, {"whole_epochs": event["whole"]})
    if event.get("promoted_from") is not None:
        _tag(run, {"promoted_from": f"trial {event['promoted_from']:04d}"})


def _started(run: Contents, event: Mapping[str, Any]) -> None:
    _tag(run, {"attempt": event["attempt"], "node": event["node"]})


def _reported(run: Contents, event: Mapping[str, Any]) -> None:
    run.points += _points(event, event["metrics"], event["epoch"])


def _lost(run: Contents, event: Mapping[str, Any]) -> None:
    error = event["error"]
    _tag(run, {f"lost.{event['attempt']}": f"{error['class']}: {error['message']}"})


def _ended(run: Contents, event: Mapping[str, Any]) -> None:
    best, final, error = event["best"] or {}, event["final"] or {}, event["error"] or {}
    run.points += _best(event, best) if best else []
    kept = {name: value for name, value in final.items() if not name.endswith(_LEFT_OUT)}
    run.points += _points(event, kept, prefix="final/")
    validity = event.get("validity") or {"verdict": "unchecked", "figures": {}}
    _tag(run, {"end": event["end"], "validity": validity["verdict"]})
    if figures := validity["figures"]:  # a tag: twenty columns of metrics would hide the few that are compared
        _tag(run, {"validity.figures": ", ".join(f"{id} {figure:.3g}" for id, figure in figures.items())})
    found = {outcome: validity[outcome] for outcome in ("suspect", "investigate") if validity.get(outcome)}
    _tag(run, {f"validity.{outcome}": ", ".join(ids) for outcome, ids in found.items()})
    _tag(run, {f"error.{name}": text for name, text in error.items()})
    run.status, run.ended = STATUS[event["end"]], milliseconds(event)


def _reopened(run: Contents, event: Mapping[str, Any]) -> None:
    _tag(run, {"end": "reopened", "error.class": "", "error.message": ""})
    run.status, run.ended = "RUNNING", None


def _closed(run: Contents, event: Mapping[str, Any]) -> None:
    _tag(run, {"closed": event["reason"]})
    if event["reason"] != "interrupted":
        run.status, run.ended = "FINISHED", milliseconds(event)


_ADDERS = {
    "session": _session,
    "asked": _asked,
    "started": _started,
    "reported": _reported,
    "lost": _lost,
    "ended": _ended,
    "reopened": _reopened,
    "closed": _closed,
}


def _tag(run: Contents, tags: Mapping[str, Any]) -> None:
    run.tags.update((name, shortened(str(value))) for name, value in tags.items())


def _best(event: Mapping[str, Any], best: Mapping[str, Any]) -> list[Point]:
    """What the epoch that counts, which is their step, was judged by: the columns to sort trials by."""
    judged = {name: value for name, value in best["metrics"].items() if name.startswith("validation/")}
    shown = {name: value for name, value in judged.items() if name not in _GROUPS and not name.endswith(_LEFT_OUT)}
    return _points(event, shown, best["epoch"], prefix="best/")


def _points(event: Mapping[str, Any], values: Mapping[str, float], step: int = 0, prefix: str = "") -> list[Point]:
    time = milliseconds(event)
    return [Point(_GROUPS.get(name, prefix + name), float(value), time, step) for name, value in values.items()]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as pairs of dotted key and text."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)
