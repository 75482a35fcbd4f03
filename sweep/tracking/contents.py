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


def _started(run: Contents, event: Mapping[str, Any]) -> None:
    _tag(run, {"attempt": event["attempt"], "node": event["node"]})


def _reported(run: Contents, event: Mapping[str, Any]) -> None:
    run.points += _points(event, event["metrics"], event["epoch"])


def _lost(run: Contents, event: Mapping[str, Any]) -> None:
    error = event["error"]
    _tag(run, {f"lost.{event['attempt']}": f"{error['class']}: {error['message']}"})


def _ended(run: Contents, event: Mapping[str, Any]) -> None:
    best, final, error = event["best"] or {}, event["final"] or {}, event["error"] or {}
    run.points += _points(event, best.get("metrics", {}), best.get("epoch", 0), prefix="best/")
    run.points += _points(event, final, prefix="final/")
    validity = event.get("validity") or {"verdict": "unchecked", "figures": {}}
    run.points += _points(event, validity["figures"], prefix="validity/")
    _tag(run, {"end": event["end"], "validity": validity["verdict"]})
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


def _points(event: Mapping[str, Any], values: Mapping[str, float], step: int = 0, prefix: str = "") -> list[Point]:
    return [Point(prefix + name, float(value), milliseconds(event), step) for name, value in values.items()]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as pairs of dotted key and text."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)
