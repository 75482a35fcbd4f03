"""What is looked at while trials run, with a stand-in for Tune's controller; real processes are in tests/faults."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_study import events, searching, tiny

from sweep import disk
from sweep.errors import DiskFullError
from sweep.orchestration import watchdog
from sweep.orchestration.bridge import Bridge
from sweep.orchestration.search import Search
from sweep.orchestration.watchdog import Watchdog
from sweep.study import Budget, Limits, Resources

LARGE, SMALL = Resources(cpus=4), Resources(cpus=1)


class Tune:
    """Tune's controller as far as the watchdog knows it: trials with a place have a process, the others wait."""

    def __init__(self, bridge: Bridge) -> None:
        self.bridge = bridge
        self.trials: list[Any] = []
        self._trial_to_actor: dict[Any, str] = {}
        self._actor_manager = SimpleNamespace(_live_actors_to_ray_actors_resources={})
        self._tune_controller = self

    def get_live_trials(self) -> list[Any]:
        return self.trials

    def stop_trial(self, trial: Any) -> None:
        self.trials.remove(trial)

    def ask(self, name: str) -> dict[str, Any]:
        """As Tune asks its searcher for a trial; its place."""
        assignment = self.bridge.ask(name)
        assert assignment is not None
        place: dict[str, Any] = self.bridge.search.attempts.place(assignment.share).model_dump()
        self.trials.append(_Trial(trial_id=name, config={"place": place}))
        self._trial_to_actor[self.trials[-1]] = name
        return place

    def start(self, name: str) -> None:
        """The trial's place is reserved."""
        self._actor_manager._live_actors_to_ray_actors_resources[name] = (f"process of {name}", "its place")


class _Trial(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]  # as Tune's trials are


def watched(search: Search, nodes: Sequence[Resources], folder: Path) -> tuple[Watchdog, Tune, list[Any], list[str]]:
    """A watchdog, what it watches, whom it killed and what it said."""
    bridge, killed, said = Bridge(search), [], []  # type: ignore[var-annotated]
    search.say = said.append
    return Watchdog(bridge, lambda: nodes, tuple, killed.append, folder), Tune(bridge), killed, said


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY", 0.0)


def test_a_larger_trial_falls_back_when_the_node_that_it_waited_for_has_left(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(budget=Budget(trials=1))) as search:
        nodes = [SMALL, LARGE]
        dog, tune, _, said = watched(search, nodes, tmp_path)
        dog.look(tune)
        assert tune.ask("a") == SMALL.model_dump()
        search.started(0, "here", 1)
        search.lost(0, {"class": "OutOfMemoryError", "message": "no more"}, memory="host")
        tune.trials.clear()
        assert tune.ask("b") == Resources(cpus=2).model_dump()
        dog.look(tune)
        assert len(tune.trials) == 1 and said == []
        nodes.remove(LARGE)
        dog.look(tune)
        assert tune.trials == []
        (sentence,) = said
        assert sentence.startswith("trial    0  was to get 2 CPUs and 0 GPUs, and no node that is left has them: 1 CPU")
        assert tune.ask("c") == SMALL.model_dump()
        search.started(0, "here", 1)
        search.lost(0, {"class": "OutOfMemoryError", "message": "no more"}, memory="host")
        assert search.ledger.trials[0].end == "failed"  # it had all that there is


def test_where_no_node_is_left_for_any_trial_it_says_so_once_and_waits(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(per_trial=Resources(cpus=2))) as search:
        nodes = [LARGE]
        dog, tune, _, said = watched(search, nodes, tmp_path)
        tune.ask("a"), tune.ask("b")
        nodes[:] = [SMALL]
        for _ in range(2):
            dog.look(tune)
        assert said == ["trial    0  needs 2 CPUs and 0 GPUs, and no node has them: waiting for one to join"]
        nodes[:] = [LARGE]
        dog.look(tune)
        nodes[:] = []
        dog.look(tune)
        assert len(said) == 2 and len(tune.trials) == 2 and not search.is_over


def test_a_process_that_does_not_start_is_killed_and_a_trial_without_a_place_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("sweep.orchestration.attempts.time.monotonic", lambda: now)
    with searching(tmp_path, tiny(limits=Limits(epoch_hours=1))) as search:
        dog, tune, killed, said = watched(search, [SMALL], tmp_path)
        tune.ask("a"), tune.ask("b")
        tune.start("a")
        dog.look(tune)
        now = 3601.0
        dog.look(tune)
        assert killed == ["process of a"]
        (sentence,) = said
        assert sentence.startswith("trial    0  its process did not start in 1 hour")


def test_where_rays_folder_has_no_room_the_sweep_halts_and_no_trial_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DiskFullError, match=r"^Ray's folder, .*are free on its disk.*sweep resume.*RAY_TMPDIR"):  # noqa: SIM117
        with searching(tmp_path) as search:
            dog, tune, _, _ = watched(search, [SMALL], tmp_path)
            tune.ask("a")
            dog.look(tune)
            assert not search.is_over
            monkeypatch.setattr(disk, "LEAST", 2**60)
            dog.look(tune)
            assert search.is_over
    assert events(tmp_path / "tiny", "ended", "lost") == []
