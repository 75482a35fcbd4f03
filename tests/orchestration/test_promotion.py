"""Promotion by hand and in real sweeps: who is trained again, for how long, once, and only whole trainings win."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import METRIC, asked, cut, events, figures, finish, report, searching, tiny, told

from sweep.configuration import TrialConfig
from sweep.domains import LogUniform
from sweep.errors import JournalError
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import Search, opened
from sweep.orchestration.warm_start import warm_start
from sweep.preview import preview
from sweep.registry import validated
from sweep.search_space import OneOf
from sweep.study import Asha, Budget, Choice, Study
from sweep.tracking.contents import contents
from sweep.tracking.journal import Journal
from sweep.trial import Trial

RULE = Asha(kind="promotion", grace_period=1, reduction_factor=3)
NUMBERS: dict[str, Any] = {  # all that cma_es can search
    "defense": {"name": "trades", "epsilon": 0.05, "beta": LogUniform(1, 10)},
    "optimizer": {"name": "sgd", "learning_rate": LogUniform(1e-3, 0.3)},
}
ADAPTIVE = {"name": "adaptive", "start": 0}


def promoting(**changes: Any) -> Study:
    """Nine epochs, and so rungs at 1, 3 and 9."""
    space = {"epochs": 9, **changes.pop("space", {})}
    return tiny(**{"early_stopping": RULE, "budget": Budget(trials=100), "space": space, **changes})


def trained(search: Search, value: float | Callable[[dict[str, Any]], float]) -> tuple[int | None, int]:
    """The next trial, trained to the end of its schedule: what it was promoted from, and its epochs."""
    assignment = asked(search)
    number, epochs = assignment.number, assignment.config["epochs"]
    result = value(assignment.config) if callable(value) else value
    for epoch in range(assignment.reported + 1, epochs + 1):
        goes_on = report(search, number, epoch, result if epoch == epochs else result / 2)
        assert goes_on == (epoch < epochs or epochs == 9), "a schedule is trained to its end"
    if epochs == 9:
        finish(search, number)
    return search.ledger.trials[number].promoted_from, epochs


# One after another: a value, and what that trial was promoted from, for how many epochs. One in three is promoted.
BY_HAND = [
    (0.30, (None, 1)),
    (0.10, (None, 1)),
    (0.20, (None, 1)),
    (0.50, (0, 3)),  # the best of three
    (0.40, (None, 1)),  # the next is second of three
    (0.45, (4, 3)),  # first of four, though one was promoted before: as they come, a few more are than one in three
    (0.40, (None, 1)),  # as good as trial 4, and later: second of five
    (0.05, (None, 1)),
    (0.60, (6, 3)),  # now second of six
    (0.55, (8, 9)),  # the best of three at the second rung, before anybody at the first
    (0.01, (None, 1)),
]


def test_the_table_by_hand(tmp_path: Path) -> None:
    with searching(tmp_path, promoting()) as search:
        for number, (value, expected) in enumerate(BY_HAND):
            assert trained(search, value) == expected, number
        assert search.rungs is not None and search.rungs.populations() == {1: 7, 3: 3, 9: 1}
        trials = search.ledger.trials
        assert trials[9].config | {"epochs": 1} == trials[6].config, "the same configuration, with its seed"
        assert list(search.ledger.lineage(9)) == [9, 8, 6]
        assert {trial.number: trial.end for trial in trials.values() if trial.end != "stopped"} == {9: "completed"}
        # Trial 8 came to more, in a schedule that was not whole.
        assert [trial.number for trial in search.ledger.ranked(search.goal)] == [9]
        assert trials[3].course == "3/3 of 9" and trials[9].course == "9/9"
    asked_for = events(tmp_path / "tiny", "asked")[9]
    assert contents([asked_for]).tags["promoted_from"] == "trial 0008" and contents([asked_for]).params["epochs"] == "9"


def test_a_configuration_that_is_no_longer_than_the_first_rung_is_whole(tmp_path: Path) -> None:
    rule = Asha(kind="promotion", grace_period=9, reduction_factor=3)
    with searching(tmp_path, promoting(early_stopping=rule)) as search:
        assert [trained(search, 0.5) for _ in range(4)] == [(None, 9)] * 4
        assert search.ledger.counts() == {"completed": 4}


def test_rungs_end_with_the_configurations_own_epochs() -> None:
    assert RULE.ladder(24) == [1, 3, 9, 24] and RULE.ladder(27) == [1, 3, 9, 27] and RULE.ladder(1) == [1]


def test_what_is_searched_or_enqueued_keeps_its_own_number_of_epochs(tmp_path: Path) -> None:
    study = promoting(space={"epochs": Choice(2, 4)}, enqueue=[{"epochs": 4}, {"epochs": 2}])
    with searching(tmp_path, study) as search:
        for value in (0.5, 0.4, 0.3):
            assert not report(search, asked(search).number, 1, value)
        longer = asked(search)
        assert (longer.number, longer.config["epochs"], search.ledger.trials[3].whole) == (3, 3, 4)
        assert [trial.whole for trial in search.ledger][:2] == [4, 2]
        assert search.ledger.trials[3].origin == "enqueued", "who proposed the configuration"


def test_one_that_trains_no_more_is_not_promoted_and_one_that_failed_not_again(tmp_path: Path) -> None:
    with searching(tmp_path, promoting()) as search:
        finish(search, asked(search).number, "diverged")
        assert [trained(search, value) for value in (0.1, 0.2, 0.3)] == [(None, 1)] * 3
        promoted = asked(search)
        assert search.ledger.trials[promoted.number].promoted_from == 3
        finish(search, promoted.number, "failed")
        assert trained(search, 0.05) == (None, 1)


def test_a_suspect_leaves_every_rung_that_led_to_it(tmp_path: Path) -> None:
    with searching(tmp_path, promoting()) as search:
        for value, _ in BY_HAND[:9]:
            trained(search, value)
        number = asked(search).number
        for epoch in range(1, 10):
            report(search, number, epoch, 0.9)
        validity = {"verdict": "suspect", "suspect": ["V8"], "investigate": [], "figures": {}}
        search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": validity})
        assert search.rungs is not None and {level: set(found) for level, found in search.rungs.values.items()} == {
            1: {0, 1, 2, 4, 7},
            3: {3, 5},
            9: set(),
        }
    with searching(tmp_path, promoting()) as search:
        assert search.rungs is not None and search.rungs.populations() == {1: 5, 3: 2, 9: 0}


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "cma_es"])
def test_optuna_holds_every_training_and_learns_of_each_configuration_once(sampler: str, tmp_path: Path) -> None:
    study = promoting(sampler=sampler, startup_trials=3, space=NUMBERS)
    with searching(tmp_path, study) as search:
        for value, expected in BY_HAND:
            assert trained(search, value) == expected
        states = search.sampler.states()
    assert states == {"pruned": 10, "complete": 1}
    with searching(tmp_path, study) as search:  # rebuilt, and compared with the journal
        assert search.sampler.states() == states
        with search.sampler.optuna.thinned(True):
            assert [trial.number for trial in search.sampler.optuna.get_trials()] == [1, 2, 3, 5, 7, 9, 10]
        proposal = search.sampler.optuna.get_trials()[9]
        assert proposal.params == search.ledger.trials[6].params and proposal.value == 0.55


DEFENSES = OneOf(
    standard={},
    adversarial_training={"epsilon": 0.05, "attack": {"name": "pgd", "num_steps": 1}},
)
COSTS = {"standard": 100.0, "adversarial_training": 200.0}  # of an epoch


def play(search: Search) -> None:
    """Run a search to its end, one trial after another."""
    while (assignment := search.ask()) is not None:
        config, number = assignment.config, assignment.number
        value, cost = min(config["optimizer"]["learning_rate"], 0.3), COSTS[config["defense"]["name"]]
        epochs = range(assignment.reported + 1, config["epochs"] + 1)
        if all(report(search, number, epoch, value * epoch, cost) for epoch in epochs):
            finish(search, number)


@pytest.mark.parametrize("compare", [None, "defense"])
def test_killed_after_any_event_it_goes_on_as_it_would_have(compare: str | None, tmp_path: Path) -> None:
    study = promoting(
        compare=compare,
        space={"defense": DEFENSES, "epochs": 4},
        sampler="tpe",
        startup_trials=3,
        early_stopping=Asha(kind="promotion", grace_period=1, reduction_factor=2),
        budget=Budget(trials=24, gradient_evaluations=9_000),
        enqueue=[{"defense": "standard", "optimizer": {"learning_rate": 0.3}}],
    )
    with searching(tmp_path / "whole", study) as search:
        play(search)
        whole = figures(search.folder.path)
        assert search.rungs is not None
        rungs, promoted = search.rungs.values, dict(search.ledger.promoted)
        assert {trial.defense for trial in search.ledger if trial.end == "completed"} == set(COSTS)
        if compare:
            groups = {defense: [t.number for t in search.ledger if t.defense == defense] for defense in COSTS}
            spent = [sum(search.ledger.trials[n].gradient_evaluations for n in own) for own in groups.values()]
            assert max(spent) - min(spent) <= 4 * 200
    lines = told(tmp_path / "whole" / "tiny")
    for left in range(1, len(lines), 13):
        folder = StudyFolder.create(tmp_path / str(left), study)
        folder.journal.write_bytes((tmp_path / "whole" / "tiny" / "journal.log").read_bytes())
        cut(folder.path, left)
        with opened(folder) as search:
            play(search)
            assert search.rungs is not None and search.rungs.values == rungs
            assert search.ledger.promoted == promoted
        assert figures(folder.path) == whole


def test_several_at_once_are_promoted_as_they_come_and_none_twice(tmp_path: Path) -> None:
    with searching(tmp_path, promoting(budget=Budget(trials=40))) as search:
        running: list[Any] = []
        while (assignment := search.ask() if len(running) < 4 else None) or running:
            running += [assignment] if assignment else []
            if len(running) == 4 or assignment is None:
                number, epochs = (one := running.pop(0)).number, one.config["epochs"]
                value = min(one.config["optimizer"]["learning_rate"], 0.3)
                if all(report(search, number, epoch, value) for epoch in range(1, epochs + 1)):
                    finish(search, number)
        sources = [trial.promoted_from for trial in search.ledger if trial.promoted_from is not None]
        assert len(sources) == len(set(sources)) == len(search.ledger.promoted) > 8
        assert search.ledger.counts()["completed"] == sum(trial.is_whole for trial in search.ledger) >= 1


def test_a_promotion_that_is_not_due_is_refused(tmp_path: Path) -> None:
    with searching(tmp_path, promoting()) as search:
        for value, _ in BY_HAND[:4]:
            trained(search, value)
    folder = StudyFolder(tmp_path / "tiny")
    for changes, said in (
        ({"promoted_from": 2}, "trial 2's promotion to 3 epochs, where trial 0's promotion to 3 epochs is due"),
        ({"promoted_from": None}, "no promotion, where trial 0's promotion to 3 epochs is due"),
    ):
        story = events(folder.path)
        next(event for event in story if event["event"] == "asked" and event["trial"] == 3).update(changes)
        before = folder.journal.read_bytes()
        folder.journal.unlink()
        journal = Journal(folder.journal)
        for event in story:
            journal.append(event.pop("event"), **{key: value for key, value in event.items() if key != "time"})
        journal.close()
        with pytest.raises(JournalError, match=said), opened(folder):
            raise AssertionError("never reached")
        folder.journal.write_bytes(before)


def test_another_study_learns_of_each_configuration_once_and_in_whole(tmp_path: Path) -> None:
    with searching(tmp_path, promoting()) as search:
        for value, _ in BY_HAND:
            trained(search, value)
    found = warm_start(promoting(name="next", sampler="tpe"), StudyFolder(tmp_path / "tiny"))
    assert [trial["number"] for trial in found.event["trials"]] == [1, 2, 3, 5, 7, 9, 10]
    assert found.differences == [] and found.left_out == {
        "trained again with a longer schedule, and learnt from there": 4
    }


def test_what_promotion_takes_is_said_before_it_starts() -> None:
    plan = preview(promoting(budget=Budget(trials=13), space={"defense": "standard"}))
    assert [step.epochs for step in plan.steps] == [1, 3, 9]
    assert [step.trials for step in plan.steps] == pytest.approx([9, 3, 1])
    assert [step.cost for step in plan.steps] == pytest.approx([9 * 200, 3 * 600, 1_800])
    assert [(rung.level, rung.epochs) for rung in plan.rungs] == [(1, {"standard": 1}), (3, {"standard": 3})]
    assert plan.doubts == []
    late = {"name": "step", "milestones": [0.5], "gamma": 0.1}
    assert preview(promoting(space={"defense": "standard", "learning_rate_schedule": late})).doubts == []
    stopping = promoting(
        space={"defense": "standard", "learning_rate_schedule": late}, early_stopping=Asha(grace_period=1)
    )
    assert any("kind='promotion'" in doubt for doubt in preview(stopping).doubts) and not preview(stopping).steps


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": Budget(trials=12)}, "the first whole training comes after about 13 trials and 5.4 k"),
        ({"budget": Budget(trials=50, gradient_evaluations=5_000)}, "after about 13 trials and 5.4 k gradient"),
        ({"budget": Budget(trials=20), "compare": "defense"}, "whole training of standard comes after about 13 trials"),
        ({"space": {"epochs": 10}}, "the last promotion is from 9 epochs to 10"),
        (
            {"space": {"defense": {"name": "trades", "epsilon": 0.1, "epsilon_schedule": ADAPTIVE}}},
            "trades may have the epsilon_schedule 'adaptive'",
        ),
    ],
)
def test_what_speaks_against_it_is_said_as_well(changes: dict[str, Any], said: str) -> None:
    doubts = preview(promoting(**changes)).doubts
    assert any(said in doubt for doubt in doubts), doubts


@pytest.mark.slow
def test_a_real_sweep_is_interrupted_in_promoted_trainings_and_comes_to_the_unbroken_ones_figures(
    tmp_path: Path,
) -> None:
    schedule = {"name": "step", "milestones": [0.5], "gamma": 0.1}
    study = promoting(
        space={"epochs": 4, "learning_rate_schedule": schedule},
        early_stopping=Asha(kind="promotion", grace_period=1, reduction_factor=2),
        budget=Budget(trials=8),
    )
    unbroken, broken = StudyFolder.create(tmp_path / "unbroken", study), StudyFolder.create(tmp_path / "broken", study)
    with opened(unbroken) as search:
        in_process.run(search)

    promoted = sorted(unbroken.ledger().promoted.values())[:2]

    def interrupt(event: Any) -> None:
        if event["event"] == "reported" and event["epoch"] == 1 and event["trial"] in promoted:
            os.kill(os.getpid(), signal.SIGINT)

    for reason in ("interrupted", "interrupted", "finished"):
        with opened(broken, interrupt) as search:
            in_process.run(search)
        assert events(broken.path, "closed")[-1]["reason"] == reason
    assert figures(broken.path) == figures(unbroken.path)
    ledger = unbroken.ledger()
    ends = {(trial.config["epochs"], trial.end) for trial in ledger}
    assert ends == {(1, "stopped"), (2, "stopped"), (4, "completed")}
    assert sorted(event["trial"] for event in events(broken.path, "ended")) == list(range(8))
    # A rung's training is that configuration with fewer epochs, alone or in a sweep.
    shorter = next(trial for trial in ledger if trial.config["epochs"] == 2)
    alone = Trial(validated(TrialConfig, shorter.config, "trial"))
    assert [result.metrics[METRIC] for result in alone.run()] == [
        shorter.reports[epoch][METRIC] for epoch in sorted(shorter.reports)
    ]
    rates = [report["learning_rate"] for report in shorter.reports.values()]
    assert rates[1] == pytest.approx(rates[0] / 10), "the learning rate has dropped within the rung's epochs"
