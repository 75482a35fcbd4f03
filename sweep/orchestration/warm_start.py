"""A new study learns from another one's finished trials, as far as they are points of its own space.

They go to the sampler and nowhere else: none of them is ever among the new study's results. What is taken is the first
event of its journal, so that a resumed study knows it without the other one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweep.errors import StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.soundness import DECIDED_BY_STUDY
from sweep.study import Study
from sweep.tracking.ledger import TrialRecord

SAME = ("objective", "search_attack", "select")  # of both studies, beside what `_fixed` names: or figures mean nothing
LEARNERS = ("tpe", "gp")  # nsga2 and cma_es look at the generations that they bred themselves, and at nothing else
TAUGHT_BY = ("completed", "stopped", "diverged")  # a failure of the machine says nothing about a configuration


@dataclass(frozen=True)
class WarmStart:
    """What a study takes from another one."""

    event: dict[str, Any]  # the fields of the journal's first event
    differences: list[str]  # between the two spaces, a line each
    left_out: Counter[str]  # reasons


def warm_start(study: Study, source: StudyFolder) -> WarmStart:
    """What `study` can learn from the study in `source`. Raises StudyError where their figures cannot be compared."""
    other = source.study()
    _refuse_incomparable(study, other)
    taken, constants, left_out = [], dict[str, None](), Counter[str]()
    ledger = source.ledger()
    superseded = {shorter for shorter, longer in ledger.promoted.items() if ledger.trials[longer].end in TAUGHT_BY}
    for trial in ledger:
        if trial.end not in TAUGHT_BY:
            left_out["not finished, or failed"] += 1
            continue
        if trial.number in superseded:
            left_out["trained again with a longer schedule, and learnt from there"] += 1
            continue
        try:
            params = _params(study, trial)
        except ValueError as error:
            left_out[str(error)] += 1
            continue
        constants |= dict.fromkeys(_constants(study, params, trial))
        taken.append(_kept(study, trial, params))
    if not taken:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in left_out.most_common(5)) or "it has none"
        raise StudyError(f"none of the trials of {source.path} can be learnt from ({reasons})")
    event = {"study": other.name, "fingerprint": other.fingerprint, "trials": taken}
    return WarmStart(event, [*_domains(study, other), *constants], left_out)


def _refuse_incomparable(study: Study, other: Study) -> None:
    if study.compare:
        raise StudyError(
            f"'{study.name}' compares its defenses at equal budget, of which what '{other.name}' spent on each is no "
            "part: a comparison has no warm start"
        )
    if study.sampler not in LEARNERS:
        known = " and ".join(LEARNERS)
        raise StudyError(
            f"the sampler '{study.sampler}' learns from no trial of another study; warm starts are for {known}"
        )
    if parts := differing(study, other):
        raise StudyError(
            f"'{other.name}' cannot teach '{study.name}': they differ in {', '.join(parts)}, so that the one's "
            "figures mean nothing for the other"
        )


def differing(study: Study, other: Study) -> list[str]:
    """In what two studies judge differently, by name; none where their figures may stand side by side."""
    ours, theirs = study.to_json(), other.to_json()
    parts = [name for name in SAME if ours[name] != theirs[name]]
    return parts + [name for name in ("threat_model", "dataset") if _fixed(study, name) != _fixed(other, name)]


def _fixed(study: Study, name: str) -> Any:
    return study.trial_config(next(study.space.corners()), 0).to_json()[name]


def _params(study: Study, trial: TrialRecord) -> dict[str, Any]:
    """The trial's point in the study's space. Raises ValueError, naming the parameter, where it is none."""
    given = {key: value for key, value in _in_whole(trial).items() if key in study.space.tree}
    found, _ = study.space.constrain(given)

    def pick(name: str, domain: Any) -> Any:
        if name not in found:
            raise ValueError(f"{name}: the trial has no value for it")
        return found[name]

    study.space.resolve(pick)
    return found


def _in_whole(trial: TrialRecord) -> dict[str, Any]:
    """The trial's configuration, as the other study proposed it."""
    return trial.config | ({} if trial.whole is None else {"epochs": trial.whole})


def _constants(study: Study, params: Mapping[str, Any], trial: TrialRecord) -> Iterator[str]:
    """What is fixed in both, and differs."""
    config = study.space.resolve(lambda name, _: params[name])
    ours = dict(_flat(study.trial_config(config, trial.number).to_json()))
    theirs = dict(_flat(_in_whole(trial)))
    for name in sorted(ours.keys() | theirs.keys()):
        if name.split(".")[0] not in DECIDED_BY_STUDY and ours.get(name) != theirs.get(name):
            yield f"constant {name}: {theirs.get(name)} there, {ours.get(name)} here"


def _domains(study: Study, other: Study) -> Iterator[str]:
    ours, theirs = study.space.domains(), other.space.domains()
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"added {name}: {ours[name].describe()}"
        elif name not in ours:
            yield f"removed {name}: {theirs[name].describe()}"
        elif ours[name].describe() != theirs[name].describe():
            yield f"changed {name}: {theirs[name].describe()} there, {ours[name].describe()} here"


def _kept(study: Study, trial: TrialRecord, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the sampler is told of it, as a `TrialRecord` in JSON."""
    names = {name for goal in study.objective for name in (goal.metric, *goal.subject_to)}

    def told(metrics: Mapping[str, float]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if name in names}

    return {
        "number": trial.number,
        "config": {},
        "params": dict(params),
        "origin": "inherited",
        "attributes": {},
        "end": trial.end,
        "reports": {epoch: told(metrics) for epoch, metrics in trial.reports.items()},
        "best": trial.best and {"epoch": trial.best["epoch"], "metrics": told(trial.best["metrics"])},
        "validity": trial.validity and {"verdict": trial.validity["verdict"]},
    }


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    else:
        yield key, value
