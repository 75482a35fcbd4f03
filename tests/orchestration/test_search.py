"""The search by hand: what is asked, heard, journaled, and known again after a crash. Nothing is trained here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_study import METRIC, asked, complete, cut, events, finish, report, searching, tiny, told

from sweep.domains import Choice, Integer, Uniform
from sweep.errors import JournalError, StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.orchestration.worker import messages
from sweep.search_space import OneOf
from sweep.study import Asha, Budget

PLAIN = {"defense": "standard", "optimizer": {"name": "sgd", "learning_rate": 0.1}}


def test_everything_is_journaled_in_order_before_it_is_acted_on(tmp_path: Path) -> None:
    heard: list[str] = []
    folder = StudyFolder.create(tmp_path, tiny())

    def listen(event: Any) -> None:
        heard.append(event["event"])
        assert events(folder.path)[-1] == event  # it is on disk when anyone hears of it

    with opened(folder, listen) as search:
        assert complete(search, 0.2, 0.4, 0.3) == 0
        assert asked(search).number == 1
    story = [("session", None), ("asked", 0), ("started", 0), *[("reported", 0)] * 3, ("ended", 0), ("asked", 1)]
    assert told(folder.path) == [*story, ("closed", None)]
    assert heard == [name for name, _ in told(folder.path)]
    first, *_, end, _, closed = events(folder.path)
    assert first["pid"] == os.getpid() and first["session"] == 1
    assert end["best"] == {"epoch": 2, "metrics": events(folder.path, "reported")[1]["metrics"]}
    assert end["final"] == {"f": 0.5} and closed["reason"] == "interrupted"


def test_a_message_heard_twice_counts_once(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        number = asked(search).number
        assert report(search, number, 1, 0.5) and report(search, number, 1, 0.7)
        assert search.ledger.trials[number].reports[1][METRIC] == 0.5
        assert not finish(search, number)
        assert not report(search, number, 2, 0.9) and not finish(search, number, "failed")
    assert told(tmp_path / "tiny")[1:-1] == [("asked", 0), ("reported", 0), ("ended", 0)]


def test_after_an_interruption_running_trials_stop_and_none_begins(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        assert report(search, asked(search).number, 1, 0.5)
        search.interrupted = True
        assert not report(search, 0, 2, 0.6)
        assert search.ask() is None
        search.lost(0, {"class": "WorkerDied", "message": "ended with the sweep"})  # which is no failure of the trial
    assert events(tmp_path / "tiny", "ended") == []
    with searching(tmp_path) as search:
        assert search.restored == {"interrupted": 1}
        resumed = asked(search)
        assert (resumed.number, resumed.reported) == (0, 2)
        assert asked(search).number == 1


@pytest.mark.parametrize(
    "rule",
    [
        Asha(resource="epochs", grace_period=1, reduction_factor=2),
        Asha(resource="gradient_evaluations", grace_period=100, reduction_factor=2),
    ],
    ids=lambda rule: str(rule.resource),
)
def test_early_stopping_stops_and_never_at_the_last_epoch(rule: Asha, tmp_path: Path) -> None:
    with searching(tmp_path, tiny(early_stopping=rule)) as search:
        assert complete(search, 0.5, 0.6, 0.7) == 0
        number = asked(search).number
        assert not report(search, number, 1, 0.4)
        assert (
            complete(search, 0.55, 0.6, 0.1) == 2
        )  # at the last epoch nobody is judged: its figures are there already
        assert search.ledger.counts() == {"completed": 2, "stopped": 1}
        level = rule.grace_period
        assert search.rungs is not None and search.rungs.populations() == {level: 3, 2 * level: 2}
    reports = events(tmp_path / "tiny", "reported")
    assert [event["decision"] for event in reports] == [*["continue"] * 3, "stop", *["continue"] * 3]
    assert [event["rungs"] for event in reports[:3]] == [{str(level): 0.5}, {str(2 * level): 0.6}, {}]


def test_an_epoch_that_was_not_validated_is_not_judged(tmp_path: Path) -> None:
    study = tiny(early_stopping=Asha(grace_period=1, reduction_factor=2), space={"validate_every": 2})
    with searching(tmp_path, study) as search:
        for value in (0.5, 0.4):
            number = asked(search).number
            assert search.hear({"trial": number, "epoch": 1, "metrics": {"gradient_evaluations": 100.0}})
            assert report(search, number, 2, value) == (value == 0.5)


def test_a_report_that_could_not_be_written_is_in_nobodys_way(tmp_path: Path) -> None:
    study = tiny(early_stopping=Asha(grace_period=1, reduction_factor=2))
    with searching(tmp_path, study) as search:
        first, second = asked(search).number, asked(search).number
        journal = search.folder.journal
        size = journal.stat().st_size
        with journal.open("ab") as file:
            file.write(b"another writer's")
        with pytest.raises(JournalError, match="another process writes to it"):
            report(search, first, 1, 0.9)
        os.truncate(journal, size)
        assert report(search, second, 1, 0.5)  # the first to be journaled at its rung
    with searching(tmp_path, study) as search:
        assert search.rungs is not None and search.rungs.values == {1: {second: 0.5}}


def test_killed_between_the_verdict_and_the_end_a_trial_stays_stopped(tmp_path: Path) -> None:
    study = tiny(early_stopping=Asha(grace_period=1, reduction_factor=2))
    with searching(tmp_path, study) as search:
        complete(search, 0.5, 0.6, 0.7)
        complete(search, 0.4)
    story = told(tmp_path / "tiny")
    cut(tmp_path / "tiny", story.index(("reported", 1)) + 1)
    with searching(tmp_path, study) as search:
        assert search.ledger.trials[1].end is None
        assert asked(search).number == 2
        assert search.ledger.trials[1].end == "stopped"


def test_opening_it_again_is_resuming_it_whatever_it_was_doing(tmp_path: Path) -> None:
    """Cut the journal after each of its events in turn: the same trials are asked, and the rungs stand."""
    study = tiny(early_stopping=Asha(grace_period=1, reduction_factor=2), budget=Budget(trials=3))
    with searching(tmp_path / "whole", study) as search:
        for values in ((0.5, 0.6, 0.7), (0.6, 0.5, 0.5), (0.4, 0.4, 0.4)):
            complete(search, *values)
        rungs = search.rungs and search.rungs.values
    whole = tmp_path / "whole" / "tiny"
    configs = [event["config"] for event in events(whole, "asked")]
    for left in range(len(told(whole))):
        folder = StudyFolder.create(tmp_path / str(left), study).path
        (folder / "journal.log").write_bytes((whole / "journal.log").read_bytes())
        cut(folder, left)
        before = {event["trial"] for event in events(folder, "ended")}
        with searching(tmp_path / str(left), study) as search:
            while (assignment := search.ask()) is not None:
                assert assignment.number not in before
                values = ((0.5, 0.6, 0.7), (0.6, 0.5, 0.5), (0.4, 0.4, 0.4))[assignment.number]
                known = assignment.reported
                if all(report(search, assignment.number, epoch + 1, values[epoch]) for epoch in range(known, 3)):
                    finish(search, assignment.number)
            assert [trial.config for trial in search.ledger] == configs
            assert [trial.end for trial in search.ledger] == ["completed", "completed", "stopped"]
            assert search.rungs is not None and search.rungs.values == rungs
        keys = [(event["trial"], event["epoch"]) for event in events(folder, "reported")]
        assert len(keys) == len(set(keys)) == 7
        assert len(events(folder, "ended")) == 3
        assert events(folder, "closed")[-1]["reason"] == "finished"


def test_the_budget_of_trials_may_be_extended_later(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(budget=Budget(trials=2))) as search:
        complete(search, 0.1), complete(search, 0.2)
        assert search.ask() is None
    record = json.loads((tmp_path / "tiny" / "study.json").read_text())
    record["study"]["budget"]["trials"] = 3
    (tmp_path / "tiny" / "study.json").write_text(json.dumps(record))
    with searching(tmp_path) as search:
        assert search.restored == {"completed": 2}
        assert asked(search).number == 2 and search.ask() is None


def test_the_budget_of_gradient_evaluations(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(budget=Budget(trials=50, gradient_evaluations=550))) as search:
        complete(search, 0.1, 0.2, 0.3)  # 300
        first, second = asked(search).number, asked(search).number  # two at once: what they will cost is not known yet
        report(search, first, 2, 0.1), report(search, second, 1, 0.1)  # 300 + 200 + 100
        assert search.ask() is None
        assert not finish(search, first) and report(search, second, 2, 0.1)  # those that run are finished
        assert search.ask() is None
    assert events(tmp_path / "tiny", "closed")[-1]["reason"] == "interrupted"  # one of them still runs


def test_the_budget_of_hours(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(budget=Budget(trials=50, hours=1e-9))) as search:
        asked(search)
        assert search.ask() is None


def test_a_grid_ends_with_its_last_point(tmp_path: Path) -> None:
    finite = {**PLAIN, "batch_size": Integer(50, 52), "epochs": Choice(2, 3)}
    study = tiny(sampler="grid", space=finite, budget=Budget(trials=50), enqueue=[{"epochs": 2}, {"epochs": 2}])
    with searching(tmp_path, study) as search:
        while search.ask() is not None:
            pass
        points = [json.dumps(trial.params, sort_keys=True) for trial in search.ledger]
        assert len(set(points)) == 6 <= len(points) <= 7


def test_each_point_of_a_grid_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Any] = []

    def dumps(value: Any, **options: Any) -> str:
        looked.append(value)
        return json.JSONEncoder(**options).encode(value)

    study = tiny(sampler="grid", space={**PLAIN, "batch_size": Integer(1, 9)}, budget=Budget(trials=50))
    with searching(tmp_path, study) as search:
        monkeypatch.setattr("sweep.orchestration.budget.json", SimpleNamespace(dumps=dumps))
        while search.ask() is not None:
            assert not search.is_over
        assert len(looked) == len(search.ledger.trials) == 9


def test_other_samplers_use_their_whole_budget_on_a_finite_space(tmp_path: Path) -> None:
    study = tiny(
        space=PLAIN, budget=Budget(trials=3), enqueue=[{"epochs": 2}, {"batch_size": 25}]
    )  # one point, three seeds
    with searching(tmp_path, study) as search:
        assert [asked(search).config["epochs"] for _ in range(3)] == [2, 3, 3]
        assert search.ask() is None
        assert len({trial.config["seed"] for trial in search.ledger}) == 3
    assert [event["origin"] for event in events(tmp_path / "tiny", "asked")] == ["enqueued", "enqueued", "sampler"]


def test_which_epoch_counts_is_what_the_study_says(tmp_path: Path) -> None:
    for select, epoch in (("best", 2), ("last", 3)):
        with searching(tmp_path / select, tiny(select=select)) as search:
            complete(search, 0.1, 0.9, 0.5)
            best = search.ledger.trials[0].best
            assert best is not None and best["epoch"] == epoch


def test_a_network_that_its_reports_do_not_tell_of_is_none(tmp_path: Path) -> None:
    """Trained again from its checkpoint, where another CPU rounds otherwise."""
    with searching(tmp_path) as search:
        cases: list[tuple[int, dict[str, float]]] = [(2, {}), (2, {"seconds": 9.0}), (2, {METRIC: 0.7}), (1, {})]
        for number, (selected, changes) in enumerate(cases):
            assert asked(search).number == number
            for epoch, value in ((1, 0.5), (2, 0.6)):
                report(search, number, epoch, value)
            left = {"epoch": selected, "metrics": {**search.ledger.trials[number].reports[2], **changes}}
            search.hear({"trial": number, "end": "completed", "selected": left, "final": {"f": 0.5}, "error": None})
        assert [trial.end for trial in search.ledger] == ["completed", "completed", "failed", "failed"]
        error = search.ledger.trials[3].error
        assert error is not None and "its network is that of epoch 1, by its reports epoch 2 counts" in error["message"]


def test_a_diverged_trial_is_told_and_is_never_the_best(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        complete(search, 0.2, 0.3, 0.4)
        report(search, asked(search).number, 1, 0.9)
        finish(search, 1, "diverged")
        assert [trial.number for trial in search.ledger.ranked(search.goal)] == [0]
        assert search.sampler.optuna.trials[1].value == 0.0


def test_values_that_do_not_go_together_fail_their_trial_and_not_the_sweep(tmp_path: Path) -> None:
    """Each end is allowed beside the others' first; only two of them together are not."""
    rule = OneOf(paper_ratio={"minimum": Choice(0.1, 0.6), "maximum": Choice(0.9, 0.5)})
    study = tiny(
        sampler="grid",
        space={**PLAIN, "defense": {"name": "hybrid", "epsilon": 0.05, "alpha_rule": rule}},
        budget=Budget(trials=4),
    )
    with searching(tmp_path, study) as search:
        ends = []
        while (assignment := search.ask()) is not None:
            alpha_rule = assignment.config["defense"]["alpha_rule"]
            if alpha_rule["minimum"] < alpha_rule["maximum"]:
                finish(search, assignment.number)
            else:
                _, message = messages(assignment)
                search.hear(message)
                ends.append(search.ledger.trials[assignment.number])
        (failed,) = ends
        assert failed.end == "failed" and failed.defense == "hybrid" and failed.error is not None
        assert "minimum must lie below maximum" in failed.error["message"]
    with searching(tmp_path, study) as search:
        assert search.restored == {"completed": 3, "failed": 1}


def test_workers_are_given_an_absolute_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with searching(Path("studies")) as search:
        assert asked(search).folder == str(tmp_path / "studies" / "tiny" / "trials" / "0000")


def test_an_exception_of_the_driver_leaves_a_folder_that_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), searching(tmp_path) as search:
        report(search, asked(search).number, 1, 0.5)
        _ = 1 // 0
    assert events(tmp_path / "tiny", "closed")[-1]["reason"] == "interrupted"
    with searching(tmp_path) as search:
        assert asked(search).reported == 1


def test_a_keyboard_interrupt_is_an_orderly_end(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        report(search, asked(search).number, 1, 0.5)
        raise KeyboardInterrupt
    assert search.interrupted
    assert events(tmp_path / "tiny", "closed")[-1]["reason"] == "interrupted"


def test_what_was_put_right_on_opening_is_said(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    with opened(folder) as search:
        asked(search)
    with folder.journal.open("ab") as file:
        file.write(b"half a li")
    (folder.path / "lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": 0}))
    said: list[str] = []
    with opened(folder, say=said.append) as search:
        assert search.restored == {"interrupted": 1}
    assert len(said) == 2
    assert "took over the lock of process 1 on elsewhere" in said[0] and "cut off 9 bytes" in said[1]


def test_a_changed_study_and_a_second_owner_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, tiny())
    with opened(folder):
        before = folder.journal.read_bytes()
        with pytest.raises(StudyError, match="is being run by"), opened(folder):
            raise AssertionError("never reached")
        assert folder.journal.read_bytes() == before
    record = folder.record()
    record["study"]["space"]["epochs"] = Uniform(1, 2).model_dump()
    (folder.path / "study.json").write_text(json.dumps(record))
    before = folder.journal.read_bytes()
    with pytest.raises(Exception, match=r"study\.json"), opened(folder):
        raise AssertionError("never reached")
    assert folder.journal.read_bytes() == before
