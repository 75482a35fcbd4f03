"""Defenses compared at equal budget: whose turn it is, a sampler and rungs each, and all of it known after a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sampler import told
from tiny_study import METRIC, complete, cut, events, finish, record, report, searching, tiny
from tiny_study import told as story

from sweep.analysis.opening import select
from sweep.domains import LogUniform
from sweep.errors import JournalError
from sweep.orchestration.budget import Spending
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.sampler import Sampler
from sweep.orchestration.turns import Turn, accounts, enqueued, next_turn
from sweep.preview import preview
from sweep.search_space import OneOf
from sweep.study import Asha, Budget, Study
from sweep.tracking.journal import Journal
from sweep.tracking.ledger import Ledger

DEFENSES: dict[str, Any] = {
    "standard": {},
    "adversarial_training": {"epsilon": 0.05, "attack": {"name": "pgd", "num_steps": 1}},
    "trades": {"epsilon": 0.05, "beta": LogUniform(1, 10)},
}
COSTS = {"standard": 100.0, "adversarial_training": 200.0, "trades": 300.0}  # of an epoch


def compared(*names: str, **changes: Any) -> Study:
    """A study that compares these defenses, or all three."""
    space = {"defense": OneOf(**{name: DEFENSES[name] for name in names or DEFENSES})}
    settings = {"compare": "defense", "space": space, "sampler": "tpe", "startup_trials": 3}
    return tiny(**{**settings, "budget": Budget(trials=100, gradient_evaluations=9_000), **changes})


class Story:
    """A ledger to which trials happen, without a search."""

    def __init__(self, study: Study) -> None:
        self.study, self.ledger = study, Ledger()
        self.spending = Spending(study, self.ledger)

    def ask(self) -> int:
        number = len(self.ledger.trials)
        config = {"defense": {"name": next_turn(self.study, self.ledger).branch}, "epochs": 3}
        self._apply("asked", number, config=config, params={}, origin="sampler")
        return number

    def report(self, number: int, cost: float) -> None:
        trial = self.ledger.trials[number]
        spent = {"gradient_evaluations": trial.gradient_evaluations + cost}
        self._apply("reported", number, epoch=trial.epoch + 1, metrics=spent)

    def end(self, number: int, end: str) -> None:
        self._apply("ended", number, end=end, best=None, final=None, error=None)

    @property
    def spent(self) -> dict[str, float]:
        found = dict.fromkeys(self.study.space.alternatives("defense"), 0.0)
        for trial in self.ledger:
            found[trial.defense] += trial.gradient_evaluations
        return found

    def _apply(self, event: str, number: int, **fields: Any) -> None:
        self.ledger.apply({"event": event, "time": 0.0, "trial": number, **fields})


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.floats(1, 500)), min_size=1, max_size=40))
def test_what_they_have_spent_is_never_further_apart_than_one_trial(trials: list[tuple[int, float]]) -> None:
    told, dearest = Story(compared()), 0.0
    for epochs, cost in trials:
        number = told.ask()
        for _ in range(epochs):
            told.report(number, cost)
        told.end(number, "completed" if epochs == 3 else "stopped")
        dearest = max(dearest, epochs * cost)
        assert max(told.spent.values()) - min(told.spent.values()) <= dearest * (1 + 1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.lists(st.integers(1, 3), min_size=20, max_size=20), st.randoms(use_true_random=False))
def test_with_several_at_once_each_gets_its_share_and_at_most_a_trial_more(
    at_once: int, lengths: list[int], chance: Any
) -> None:
    """Whichever of those that run reports next, and wherever early stopping ends it."""
    told = Story(compared())
    while not told.spending.is_over or told.ledger.in_flight:
        while len(told.ledger.in_flight) < at_once and not told.spending.is_over:
            told.ask()
        trial = chance.choice(told.ledger.in_flight)
        told.report(trial.number, COSTS[trial.defense])
        if trial.epoch == lengths[trial.number % len(lengths)]:
            told.end(trial.number, "completed" if trial.epoch == 3 else "stopped")
    for name, spent in told.spent.items():
        assert 3_000 <= spent < 3_000 + 3 * COSTS[name]


@pytest.mark.parametrize("end", ["failed", "diverged", "timed_out"])
def test_a_defense_that_ends_at_once_does_not_have_every_turn(end: str) -> None:
    told = Story(compared())
    for _ in range(30):
        number = told.ask()
        name = told.ledger.trials[number].defense
        if name == "trades":
            told.end(number, end)
            continue
        for _ in range(3):
            told.report(number, COSTS[name])
        told.end(number, "completed")
    turns = [trial.defense for trial in told.ledger].count("trades")
    assert turns <= (9 if end == "failed" else 21), "one that diverges in its first epoch pays for that epoch only"
    assert accounts(told.study, told.ledger)["trades"] > 0 == told.spent["trades"]


def test_each_is_proposed_for_by_what_its_own_trials_said(tmp_path: Path) -> None:
    """More trials of the others, or none, and other ends of theirs: the same proposals."""
    found = []
    for others in ([], ["completed"], ["completed", "stopped", "diverged"]):
        folder = tmp_path / str(len(others))
        folder.mkdir()
        sampler, number, params = Sampler(compared(), folder), 0, []
        for turn in range(8):
            turns = [("trades", turn, "completed")]
            turns += [("standard", len(others) * turn + place, end) for place, end in enumerate(others)]
            for name, place, end in turns:
                asked = sampler.ask(number, Turn(name, place))
                assert asked[0]["defense"]["name"] == name
                assert (place < 3) == ("tpe:relative_params:0" not in asked[2]), "its own first three are random"
                trial = told(record(number, asked), end)
                sampler.tell(trial)
                number += 1
                params += [trial.params] if name == "trades" else []
        found.append(params)
    assert found[0] == found[1] == found[2]
    assert len({json.dumps(one) for one in found[0]}) == 8


def test_each_is_stopped_by_its_own(tmp_path: Path) -> None:
    study = compared(early_stopping=Asha(grace_period=1, reduction_factor=2))
    with searching(tmp_path, study) as search:
        assert complete(search, 0.9, 0.9, 0.9) == 0
        for number, value in ((1, 0.1), (2, 0.2)):  # far worse, and the first of their kind
            assert complete(search, value, value, value) == number
        assert [trial.end for trial in search.ledger] == ["completed"] * 3
        assert complete(search, 0.8, 0.9, 0.9) == 3
        assert search.ledger.trials[3].defense == "standard" and search.ledger.trials[3].end == "stopped"
        assert search.rungs is not None and search.rungs.populations() == {1: 4, 2: 3}


def play(search: Any) -> Iterator[str]:
    """Run a search to its end, one trial after another; each trial's defense as it is asked."""
    while (assignment := search.ask()) is not None:
        name = assignment.config["defense"]["name"]
        yield name
        rate = assignment.config["optimizer"]["learning_rate"]
        number = assignment.number
        if all(
            report(search, number, epoch, min(rate, 0.3) * epoch, COSTS[name])
            for epoch in range(assignment.reported + 1, 4)
        ):
            finish(search, number)


def test_killed_after_any_event_it_goes_on_as_it_would_have(tmp_path: Path) -> None:
    study = compared(
        early_stopping=Asha(grace_period=1, reduction_factor=2),
        budget=Budget(trials=100, gradient_evaluations=5_400),
        enqueue=[{"defense": "trades", "optimizer": {"learning_rate": 0.1}}, {"defense": {"name": "trades"}}],
    )
    with searching(tmp_path / "whole", study) as search:
        names = list(play(search))
        whole = {trial.number: (trial.config, trial.params, trial.end) for trial in search.ledger}
        rungs = search.rungs and search.rungs.values
        spent = accounts(study, search.ledger)
    assert set(names) == set(DEFENSES) and {end for _, _, end in whole.values()} == {"completed", "stopped"}
    assert all(1_800 <= value < 1_800 + 3 * COSTS[name] for name, value in spent.items()), spent
    origins = [event["origin"] for event in events(tmp_path / "whole" / "tiny", "asked")]
    assert [names[place] for place, origin in enumerate(origins) if origin == "enqueued"] == ["trades"] * 2
    journal = (tmp_path / "whole" / "tiny" / "journal.log").read_bytes()
    for left in range(1, len(story(tmp_path / "whole" / "tiny")), 5):
        folder = StudyFolder.create(tmp_path / str(left), study).path
        (folder / "journal.log").write_bytes(journal)
        cut(folder, left)
        with searching(tmp_path / str(left), study) as search:
            list(play(search))
            assert {trial.number: (trial.config, trial.params, trial.end) for trial in search.ledger} == whole
            assert search.rungs is not None and search.rungs.values == rungs


def test_a_confirmation_takes_each_defenses_best_first(tmp_path: Path) -> None:
    with searching(tmp_path, compared()) as search:
        for value in (0.9, 0.2, 0.4, 0.8, 0.3, 0.7):  # standard, adversarial_training, trades, standard, ...
            complete(search, value, value, value)
        defenses = [trial.defense for trial in search.ledger]
    chosen = select(StudyFolder(tmp_path / "tiny"), top=4, seeds=1, attacks=["fgsm"], baselines=False)
    assert [defenses[number] for number in chosen.trials[:3]] == ["standard", "trades", "adversarial_training"]
    assert defenses[chosen.trials[3]] == "standard" and chosen.values == (0.9, 0.7, 0.3, 0.8)


def test_a_trial_out_of_turn_is_refused(tmp_path: Path) -> None:
    study = compared()
    with searching(tmp_path, study) as search:
        complete(search, 0.5, 0.5, 0.5), complete(search, 0.5, 0.5, 0.5)
    folder = StudyFolder(tmp_path / "tiny")
    told = events(folder.path)
    folder.journal.unlink()
    journal = Journal(folder.journal)
    second = next(event for event in told if event["event"] == "asked" and event["trial"] == 1)
    second["params"] = {**second["params"], "defense": "trades"}
    for event in told:
        journal.append(event.pop("event"), **{name: value for name, value in event.items() if name != "time"})
    journal.close()
    with pytest.raises(JournalError, match="asks a trial of trades, where it is the turn of adversarial_training"):
        searching(tmp_path, study).__enter__()


def test_what_is_enqueued_is_its_own_defenses_first() -> None:
    study = compared(enqueue=[{"defense": "trades", "epochs": 2}, {"defense": "standard"}, {"defense": "trades"}])
    assert enqueued(study, Turn("trades", 0)) == {"defense": "trades", "epochs": 2}
    assert enqueued(study, Turn("trades", 1)) == {"defense": "trades"}
    assert enqueued(study, Turn("trades", 2)) is None
    assert enqueued(study, Turn("adversarial_training", 0)) is None
    assert enqueued(study, Turn("standard", 0)) == {"defense": "standard"}


def test_what_each_gets_is_said_before_it_starts() -> None:
    plan = preview(compared(budget=Budget(trials=6, gradient_evaluations=3_000)))
    assert plan.share == 1_000 and preview(compared(budget=Budget(trials=6))).share is None
    costly = [f"compare: one trial of {name} may cost " for name in ("adversarial_training", "trades")]
    assert [doubt for doubt in plan.doubts if doubt.startswith("compare: ")] == [
        f"{costly[0]}1.2 k gradient evaluations, and its defense's share is 1 k",
        f"{costly[1]}7.2 k gradient evaluations, and its defense's share is 1 k",
    ]
    few = preview(compared(budget=Budget(trials=6, gradient_evaluations=30_000)))
    assert any(
        doubt.startswith("budget: it ends after 6 trials, before") and "takes 28 or more" in doubt
        for doubt in few.doubts
    )


def test_no_limit_of_gradient_evaluations_is_needed(tmp_path: Path) -> None:
    with searching(tmp_path, compared(budget=Budget(trials=11))) as search:
        list(play(search))
        spent = accounts(search.study, search.ledger)
        assert len(search.ledger.trials) == 11
        assert max(spent.values()) - min(spent.values()) <= 3 * max(COSTS.values())
        assert METRIC in search.ledger.trials[0].reports[1]
