"""The ledger: the journal's events summed up, the same live and after a crash."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.objective import WORST, AtLeast, Maximize, Minimize
from sweep.tracking.ledger import ENDS, Ledger

GOAL = Maximize("accuracy", subject_to={"clean": AtLeast(0.5)})


def asked(trial: int, time: float = 0.0, **config: Any) -> dict[str, Any]:
    config = {"defense": {"name": "trades"}, "epochs": 3, **config}
    return {
        "event": "asked",
        "time": time,
        "trial": trial,
        "config": config,
        "params": {"x": trial},
        "origin": "sampler",
        "attributes": {"note": 1},
    }


def reported(trial: int, epoch: int, accuracy: float, decision: str = "continue", time: float = 0.0) -> dict[str, Any]:
    metrics = {"accuracy": accuracy, "clean": 0.9, "gradient_evaluations": 100.0 * epoch}
    return {
        "event": "reported",
        "time": time,
        "trial": trial,
        "epoch": epoch,
        "metrics": metrics,
        "rungs": {},
        "decision": decision,
    }


def ended(trial: int, end: str, accuracy: float | None = None, time: float = 0.0) -> dict[str, Any]:
    best = None if accuracy is None else {"epoch": 2, "metrics": {"accuracy": accuracy, "clean": 0.9}}
    return {
        "event": "ended",
        "time": time,
        "trial": trial,
        "end": end,
        "best": best,
        "final": {"f": 1.0},
        "error": None,
    }


def ledger(*events: dict[str, Any]) -> Ledger:
    found = Ledger()
    for event in events:
        found.apply(event)
    return found


def test_a_trials_story() -> None:
    started = {"event": "started", "time": 0.0, "trial": 0, "attempt": 2, "node": "a", "pid": 1}
    trial = ledger(asked(0), started, reported(0, 1, 0.4), reported(0, 2, 0.6), reported(0, 3, 0.6)).trials[0]
    assert (trial.defense, trial.epoch, trial.attempts, trial.end, trial.params) == ("trades", 3, 2, None, {"x": 0})
    assert trial.gradient_evaluations == 300.0
    assert trial.best_report(GOAL) == (2, trial.reports[2])  # the earlier of two equals, as the trial itself keeps it
    trial = ledger(asked(0), reported(0, 1, 0.4), ended(0, "completed", 0.4)).trials[0]
    assert trial.end == "completed" and trial.final == {"f": 1.0} and trial.attributes == {"note": 1}


def test_before_its_first_report_a_trial_is_nowhere() -> None:
    trial = ledger(asked(0)).trials[0]
    assert trial.epoch == 0 and trial.gradient_evaluations == 0 and trial.best_report(GOAL) is None
    assert trial.rank(GOAL) == WORST


@pytest.mark.parametrize("end", [end for end in ENDS if end != "completed"])
def test_only_a_completed_trial_can_be_best(end: str) -> None:
    found = ledger(asked(0), asked(1), ended(0, end, 0.99), ended(1, "completed", 0.2))
    assert [trial.number for trial in found.ranked(GOAL)] == [1]
    assert found.trials[0].rank(GOAL) == WORST


def test_the_feasible_and_the_earlier_come_first() -> None:
    events = [asked(number) for number in range(4)]
    events += [ended(number, "completed", value) for number, value in enumerate([0.5, 0.7, 0.7])]
    bad = ended(3, "completed", 0.9)
    bad["best"]["metrics"]["clean"] = 0.1
    found = ledger(*events, bad)
    assert [trial.number for trial in found.ranked(GOAL)] == [1, 2, 0, 3]
    assert [trial.number for trial in found.ranked(Minimize("accuracy"))] == [0, 1, 2, 3]


def test_a_suspect_trial_has_no_place_unless_asked_for() -> None:
    doubted = ended(0, "completed", 0.99) | {"validity": {"verdict": "suspect", "suspect": ["V4"]}}
    believed = ended(1, "completed", 0.2) | {"validity": {"verdict": "valid", "suspect": []}}
    found = ledger(asked(0), asked(1), asked(2), doubted, believed, ended(2, "completed", 0.1))
    assert [trial.number for trial in found.ranked(GOAL)] == [1, 2], "a journal of before the checks is believed"
    assert [trial.number for trial in found.ranked(GOAL, include_suspect=True)] == [0, 1, 2]
    assert [trial.number for trial in found.suspects] == [0]


def test_counts_and_who_is_in_flight() -> None:
    found = ledger(asked(0), asked(1), asked(2), ended(1, "diverged"), reported(2, 1, 0.3))
    assert found.counts() == {"interrupted": 2, "diverged": 1}
    found.apply({"event": "session", "session": 2, "time": 0.0})
    assert found.counts() == {"running": 2, "diverged": 1}
    found.apply({"event": "closed", "reason": "interrupted", "time": 0.0})
    assert found.counts() == {"interrupted": 2, "diverged": 1}
    assert [trial.number for trial in found.in_flight] == [0, 2]
    assert found.gradient_evaluations == 100.0
    assert [trial.number for trial in found] == [0, 1, 2]


def test_a_trial_told_to_stop_is_known_as_such() -> None:
    found = ledger(asked(0), reported(0, 1, 0.3, decision="stop"), asked(1), reported(1, 1, 0.3))
    assert [trial.is_condemned for trial in found] == [True, False]


def test_the_time_between_sessions_does_not_count() -> None:
    def session(number: int, time: float) -> dict[str, Any]:
        return {"event": "session", "time": time, "session": number}

    found = ledger(session(1, 0.0), asked(0, 1800.0), session(2, 90_000.0), reported(0, 1, 0.1, time=91_800.0))
    assert found.hours == pytest.approx(1.0) and found.sessions == 2
    found = ledger(session(1, 100.0), asked(0, 40.0))  # a clock that was set back takes nothing away
    assert found.hours == 0.0


def test_events_of_other_kinds_are_for_other_readers() -> None:
    assert ledger({"event": "painted", "time": 1.0}, {"event": "closed", "time": 2.0}).trials == {}
