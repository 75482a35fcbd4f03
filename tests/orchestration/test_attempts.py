"""Attempts that are lost, told by hand: what is taken up again, how often, with how much, and what ends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_study import asked, events, finish, report, searching, tiny

from sweep.errors import StudyError
from sweep.orchestration.attempts import Attempts
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import Search
from sweep.study import Budget, Limits, Resources, Study

DEAD = {"class": "WorkerDied", "message": "gone"}
HOUR = 3600.0


def started(search: Search) -> int:
    """The next trial, begun."""
    number = asked(search).number
    assert search.hear({"trial": number, "node": "here", "pid": 1, "log": "worker.err"})
    return number


def test_a_lost_attempt_is_made_again_as_often_as_the_study_says_and_then_the_trial_has_failed(tmp_path: Path) -> None:
    study = tiny(retries=2, budget=Budget(trials=1))
    with searching(tmp_path, study) as search:
        for attempt in range(3):
            assert started(search) == 0
            report(search, 0, attempt + 1, 0.5)
            assert not search.is_over
            search.lost(0, DEAD)
        assert not report(search, 0, 9, 0.5)  # too late
        search.lost(0, DEAD)
        assert search.ask() is None and search.is_over
    folder = tmp_path / "tiny"
    assert [event["attempt"] for event in events(folder, "started")] == [1, 2, 3]
    where = {**DEAD, "node": "here", "log": "worker.err"}
    assert [(event["attempt"], event["error"]) for event in events(folder, "lost")] == [(1, where), (2, where)]
    (end,) = events(folder, "ended")
    assert end["end"] == "failed" and end["error"] == where
    assert [event["epoch"] for event in events(folder, "reported")] == [1, 2, 3]


def test_a_node_that_goes_counts_only_where_the_trial_had_not_come_on(tmp_path: Path) -> None:
    """A machine on spot may be taken away after each epoch; a trial that takes its node down ends."""
    gone = {"class": "NodeDied", "message": "its node was lost"}
    with searching(tmp_path, tiny(retries=1, budget=Budget(trials=1))) as search:
        for epoch in range(1, 5):
            started(search)
            report(search, 0, epoch, 0.5)
            search.lost(0, gone)
        assert len(search.ledger.trials[0].losses) == 4 and search.ledger.trials[0].blamed == 0
        for _ in range(2):
            assert search.ledger.trials[0].end is None
            started(search)
            search.lost(0, gone)
        assert search.ledger.trials[0].end == "failed"


def test_losses_count_across_sessions_and_an_exception_is_never_run_twice(tmp_path: Path) -> None:
    study = tiny(retries=1, budget=Budget(trials=2))
    with searching(tmp_path, study) as search:
        started(search)
        search.lost(0, DEAD)
    with searching(tmp_path, study) as search:
        assert search.ledger.trials[0].losses[0]["class"] == "WorkerDied"
        assert (started(search), started(search)) == (0, 1)
        search.lost(0, DEAD)
        finish(search, 1, "failed")
        assert search.ask() is None
        assert [trial.end for trial in search.ledger] == ["failed", "failed"]
        assert [trial.attempts for trial in search.ledger] == [2, 1]


def exhaust(search: Search, number: int, memory: str) -> None:
    error = {"class": "OutOfMemoryError", "message": "Tried to allocate 2 GiB"}
    assert not search.hear({"trial": number, "end": "out_of_memory", "memory": memory, "final": None, "error": error})


@pytest.mark.parametrize(
    ("per_trial", "node", "memory", "shares"),
    [
        (Resources(cpus=1), Resources(cpus=4), "host", [1, 2, 4]),
        (Resources(cpus=3), Resources(cpus=4), "host", [1, 2]),  # the second time all four
        (
            Resources(cpus=1, gpus=0.3),
            Resources(cpus=64, gpus=8),
            "gpu",
            [1, 2, 4],
        ),  # 0.3, 0.6, one: never a second GPU
        (Resources(cpus=1, gpus=1), Resources(cpus=64, gpus=8), "gpu", [1]),  # it had a whole one: no other outcome
        (Resources(cpus=2), None, "host", [1]),  # without Ray a trial has all that there is
    ],
)
def test_out_of_memory_a_trial_gets_more_of_the_machine_and_the_same_configuration(
    per_trial: Resources, node: Resources | None, memory: Any, shares: list[int], tmp_path: Path
) -> None:
    with searching(tmp_path, tiny(retries=9, per_trial=per_trial, budget=Budget(trials=1))) as search:
        search.attempts.node = node or search.attempts.node
        seen = []
        while (assignment := search.ask()) is not None:
            seen.append(assignment)
            search.started(0, "here", 1)
            exhaust(search, 0, memory)
    assert [assignment.share for assignment in seen] == shares
    assert all(assignment.config == seen[0].config for assignment in seen)
    (end,) = events(tmp_path / "tiny", "ended")
    assert end["end"] == "failed" and end["error"]["class"] == "OutOfMemoryError"
    assert per_trial.times(2**20, Resources(cpus=64, gpus=8)).gpus <= max(per_trial.gpus, 1)


def test_no_trial_takes_the_room_that_a_larger_one_waits_for(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(budget=Budget(trials=4))) as search:
        search.attempts.node = Resources(cpus=2)
        assert (started(search), started(search)) == (0, 1)
        exhaust(search, 0, "host")
        assert asked(search).share == 2
        assert search.ask() is None and not search.is_over
        finish(search, 1)
        assert search.ask() is None
        search.started(0, "here", 1)
        assert asked(search).number == 2


def test_limits_of_time_are_told_once_and_end_or_lose_the_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("sweep.orchestration.attempts.time.monotonic", lambda: now)
    study = tiny(limits=Limits(trial_hours=2, epoch_hours=1), retries=0, budget=Budget(trials=2))
    with searching(tmp_path, study) as search:
        assert (started(search), started(search)) == (0, 1)
        search.ledger.trials[1].seconds = 1.5 * HOUR  # of an earlier attempt
        now = 0.4 * HOUR
        assert search.overdue() == {}
        now = 0.6 * HOUR
        assert list(search.overdue()) == [1] and search.overdue() == {}
        assert search.ledger.trials[1].end == "timed_out"
        search.lost(1, DEAD)  # as its process is killed
        report(search, 0, 1, 0.5)
        now = 1.59 * HOUR
        assert search.overdue() == {}
        now = 1.61 * HOUR
        hung = search.overdue()
        assert list(hung) == [0] and "1 hour " in hung[0]["message"] and "limits.epoch_hours" in hung[0]["message"]
        assert search.ledger.trials[0].end is None
        search.lost(0, hung[0])
    errors = [(event["end"], event["error"]["class"]) for event in events(tmp_path / "tiny", "ended")]
    assert errors == [("timed_out", "TimeLimit"), ("failed", "Hang")]


def test_a_process_that_never_starts_is_over_a_limit_and_waiting_for_a_place_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("sweep.orchestration.attempts.time.monotonic", lambda: now)
    study = tiny(limits=Limits(epoch_hours=1), budget=Budget(trials=3))
    with searching(tmp_path, study) as search:
        assert [asked(search).number for _ in range(3)] == [0, 1, 2]
        search.attempts.placed(0)
        search.attempts.placed(1)
        now = 0.9 * HOUR
        search.attempts.placed(0)
        search.started(1, "here", 1)
        assert search.overdue() == {}
        now = 1.1 * HOUR
        stuck = search.overdue()
        assert list(stuck) == [0] and search.overdue() == {}
        assert stuck[0]["message"] == "its process did not start in 1 hour (limits.epoch_hours) and 600 seconds"
        search.lost(0, stuck[0], began=False)  # as its process is killed
        report(search, 1, 1, 0.5)
        assert asked(search).number == 0
        search.attempts.placed(0)
        now = 1.5 * HOUR  # of which it has had less than half
        assert search.overdue() == {}
        assert search.ledger.trials[0].losses == []


def test_a_trial_can_get_all_of_the_largest_node_that_holds_it(tmp_path: Path) -> None:
    nodes = [Resources(cpus=64), Resources(cpus=8, gpus=2), Resources(cpus=4, gpus=8), Resources(cpus=2, gpus=1)]
    for per_trial, node in (
        (Resources(cpus=2), nodes[0]),
        (Resources(cpus=2, gpus=0.5), nodes[1]),
        (Resources(cpus=4, gpus=4), nodes[2]),
        (Resources(cpus=16, gpus=1), Resources(cpus=16, gpus=1)),  # none holds it: it gets what it needs, once one does
    ):
        attempts = Attempts(tiny(per_trial=per_trial))
        attempts.look_at(nodes)
        assert attempts.node == node and attempts.place(2**9).fit(node)


def test_only_a_node_of_the_right_kind_holds_a_trial_however_large_others_are() -> None:
    needs = Resources(gpus=0.5, accelerator_type="A10G", labels={"pool": "spot"})
    node = Resources(cpus=2, gpus=1, accelerator_type="A10G", labels={"pool": "spot", "zone": "b"})
    changes: list[dict[str, Any]] = [{"labels": {"pool": "demand"}}, {"labels": {}}, {"accelerator_type": "H100"}]
    others = [node.model_copy(update={"cpus": 64, **change}) for change in changes]
    attempts = Attempts(tiny(per_trial=needs))
    attempts.look_at([*others, node])
    assert [needs.fit(other) for other in others] == [False] * 3
    assert attempts.place(4) == needs.model_copy(update={"cpus": 2, "gpus": 1.0})


def test_a_trials_seconds_are_counted_over_its_attempts_and_not_while_it_waits(tmp_path: Path) -> None:
    trial = {"trial": 0, "node": "a", "pid": 1, "metrics": {}, "config": {}, "params": {}, "origin": "sampler"}
    story = [(0, "asked"), (5, "started"), (8, "reported"), (9, "lost"), (50, "started"), (52, "reported")]
    story += [(99, "session"), (100, "started"), (104, "ended")]
    with searching(tmp_path) as search:
        for time, event in story:
            more = {"attempt": 1, "epoch": 1, "session": 2, "share": 1, "error": DEAD, "end": "failed", "best": None}
            search.ledger.apply({"event": event, "time": float(time), **trial, **more, "final": None})
        assert search.ledger.trials[0].seconds == 4 + 2 + 4


def test_workers_that_cannot_start_end_the_sweep_and_no_trial(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no worker can start: ModuleNotFoundError: .*sweep resume"):  # noqa: SIM117
        with searching(tmp_path) as search:
            for _ in range(9):
                number = asked(search).number
                search.lost(number, {"class": "ModuleNotFoundError", "message": "No module"}, began=False)
    assert number == 0
    assert [event["event"] for event in events(tmp_path / "tiny")] == ["session", "asked", "closed"]


def test_where_only_some_workers_cannot_start_the_others_go_on(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(budget=Budget(trials=9))) as search:
        assert started(search) == 0
        for epoch in range(1, 9):
            assert asked(search).number == 1
            search.lost(1, DEAD, began=False)
            assert search.ask() is None  # until somebody says something
            report(search, 0, epoch, 0.5)
        assert search.ledger.trials[1].losses == [] and not search.is_over
        assert started(search) == 1


def test_retries_and_limits_make_no_other_study() -> None:
    plain: Study = tiny()
    assert plain.fingerprint == tiny(retries=0, limits=Limits(trial_hours=1)).fingerprint


def test_a_folder_written_before_there_were_retries_is_still_its_study(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    path = folder.path / "study.json"
    record = json.loads(path.read_text())
    del record["study"]["retries"], record["study"]["limits"]
    path.write_text(json.dumps(record))
    assert folder.study().retries == 2


def test_what_failed_is_taken_up_again_by_request(tmp_path: Path) -> None:
    study = tiny(budget=Budget(trials=3), retries=0)
    with searching(tmp_path, study) as search:
        for number, value in enumerate((0.3, 0.4, 0.5)):
            started(search)
            report(search, number, 1, value)
            finish(search, number, "completed" if number == 1 else "failed")
        assert search.is_over
    with searching(tmp_path, study) as search:
        assert search.ask() is None and search.reopen_failed() == 2 and not search.is_over
        resumed = asked(search)
        assert (resumed.number, resumed.reported) == (0, 1)
        search.started(0, "here", 1)
        report(search, 0, 2, 0.6)
        finish(search, 0)
    with searching(tmp_path, study) as search:  # which proves that Optuna and the journal agree
        assert search.restored == {"completed": 2, "interrupted": 1}
        assert search.ledger.trials[0].attempts == 2 and search.reopen_failed() == 0
        assert asked(search).number == 2
    assert [event["trial"] for event in events(tmp_path / "tiny", "ended")] == [0, 1, 2, 0]
