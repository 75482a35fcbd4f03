"""What is looked at while trials run: their time, the nodes that are left, the room in Ray's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep import disk
from sweep.orchestration.bridge import Bridge
from sweep.provisions import Resources

LOOK_EVERY = 5.0  # seconds between looks at nodes and disks


class Watchdog:
    """Is called from Tune's loop, which turns ten times a second.

    `nodes` gives those that live and stay, `draining` names those that are to go, `kill` ends a process, `folder` is
    where Ray writes.
    """

    def __init__(
        self,
        bridge: Bridge,
        nodes: Callable[[], Sequence[Resources]],
        draining: Callable[[], Collection[str]],
        kill: Callable[[Any], None],
        folder: Path,
    ) -> None:
        self.bridge = bridge
        self._nodes, self._draining, self._kill, self._folder = nodes, draining, kill, folder
        self._leaving: Collection[str] = ()
        self._looked = -math.inf
        self._is_waiting = False

    def look(self, controller: Any) -> None:
        """Look at the trials of Tune's controller."""
        trials = [trial for trial in controller.get_live_trials() if trial.trial_id in self.bridge.live]
        processes = {trial.trial_id: process for trial in trials if (process := _process(controller, trial))}
        for name in processes:
            self.bridge.placed(name)
        for name in self.bridge.overdue() & processes.keys():
            self._kill(processes[name])  # and, where it is stopped, its node does, 5 seconds later
        if time.monotonic() - self._looked >= LOOK_EVERY:
            self._looked = time.monotonic()
            self._look_at_room()
            self._look_at_leaving(controller)
            self._look_at_nodes(controller, [trial for trial in trials if trial.trial_id not in processes])

    def moves(self, trial: Any, result: Mapping[str, Any]) -> bool:
        """Whether a trial that has just said something is to go on elsewhere, because its node is being drained."""
        if result["node_id"] not in self._leaving:
            return False
        number = self.bridge.live[trial.trial_id]
        self.bridge.search.say(f"trial {number:>4}  its node is being drained: goes on elsewhere")
        self.bridge.returned(trial.trial_id)
        return True

    def _look_at_leaving(self, controller: Any) -> None:
        """Ray places nothing on a node that is being drained; nor must Tune, which hands its processes on to trials."""
        self._leaving = self._draining()
        tune = controller._tune_controller
        tune._reuse_actors = not self._leaving
        if self._leaving:
            tune._cleanup_cached_actors(force_all=True)

    def _look_at_room(self) -> None:
        """No process starts, and Tune fails, where Ray can write no more; what runs has time to save."""
        if not self.bridge.search.interrupted and (shortage := disk.shortage(self._folder)):
            self.bridge.search.halt(in_rays_folder(shortage))

    def _look_at_nodes(self, controller: Any, queued: Sequence[Any]) -> None:
        """A trial waits for a place that no node can give any more, now that one has left: with less, or in words."""
        search, nodes, was_waiting = self.bridge.search, self._nodes(), self._is_waiting
        search.attempts.look_at(nodes)
        self._is_waiting = False
        for trial in queued:
            asked, number = Resources(**trial.config["place"]), self.bridge.live[trial.trial_id]
            if any(asked.fit(node) for node in nodes):
                continue
            if asked != search.study.per_trial:
                less = f"{search.attempts.node.amount} are the most that there is"
                search.say(f"trial {number:>4}  was to get {asked}, and no node that is left has them: {less}")
                self.bridge.returned(trial.trial_id)
                controller.stop_trial(trial)
                continue
            if not was_waiting and not self._is_waiting:
                search.say(f"trial {number:>4}  needs {asked}, and no node has them: waiting for one to join")
            self._is_waiting = True


def in_rays_folder(sentence: str) -> str:
    """A sentence about a disk, where it is Ray's."""
    return f"Ray's folder, {sentence} (RAY_TMPDIR names another folder)"


def _process(controller: Any, trial: Any) -> Any:
    """Tune's handle of the process that runs a trial or starts for it; None while the trial waits for its place.

    Tune asks for a process when the place is reserved, and tells nobody before that process has started.
    """
    tune = controller._tune_controller
    actor = tune._trial_to_actor.get(trial)
    process, _ = tune._actor_manager._live_actors_to_ray_actors_resources.get(actor, (None, None))
    return process
