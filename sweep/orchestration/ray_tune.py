"""Ray Tune runs the trials.

Tune is used for what it does well: placing trials by their resources, reusing actors, noticing dead ones. It remembers
nothing for us: its snapshots and loggers are off, its searcher and scheduler are thin adaptors of the search, and a
resumed sweep is a new Tune run which begins with the trials that were in flight.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sweep import disk
from sweep.errors import StudyError
from sweep.orchestration.bridge import Bridge
from sweep.orchestration.interrupts import graceful
from sweep.orchestration.ray_connection import connected, rays_folder  # which sets what ray reads when it is imported
from sweep.orchestration.search import Search
from sweep.orchestration.watchdog import Watchdog, in_rays_folder
from sweep.orchestration.worker import Assignment, messages
from sweep.provisions import ACCELERATOR, Resources

# isort: split
import ray
from ray import tune
from ray._private.state import state
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

NODE_ID = "ray.io/node-id"  # a label that every node has


class TrialActor(tune.Trainable):  # type: ignore[misc]  # ray has no types
    """A process that runs one trial after another: importing torch anew for each would cost a second or more."""

    _messages: Iterator[dict[str, Any]]

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self._begin(config)
        return True

    def step(self) -> dict[str, Any]:
        message = next(self._messages)
        last, node = "end" in message, ray.get_runtime_context().get_node_id()
        text = json.dumps(message)  # like the assignment: Tune copies and flattens what is nested, again and again
        return {"message": text, "last": last, "done": last, "node_id": node}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A trial keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """A trial finds its own checkpoints."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._messages = messages(Assignment(**json.loads(config["assignment"])))


class SearchAdaptor(Searcher):  # type: ignore[misc]  # ray has no types
    """Tune's searcher: asks the search for assignments."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        assignment = self.bridge.ask(trial_id)
        if assignment is not None:
            place = self.bridge.search.attempts.place(assignment.share)
            return {"assignment": json.dumps(assignment.to_json()), "place": place.model_dump()}
        return Searcher.FINISHED if self.bridge.is_over else None  # None: Tune asks again

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Told of a process that died after the scheduler's adaptor, which hears all else."""
        if error:
            self.bridge.lost(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the record."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher; a search lives in one process only


class EarlyStoppingAdaptor(FIFOScheduler):  # type: ignore[misc]  # ray has no types
    """Tune's scheduler: brings the search every message and brings back its decision."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.watchdog = Watchdog(bridge, _nodes, state.get_draining_nodes, ray.kill, rays_folder())

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Asked at each turn of Tune's loop, and the only one of our adaptors that is shown Tune's controller then.

        First come, first served, as Tune has it; but it looks at every trial there ever was. And it would write all of
        them down at its end, for nobody.
        """
        self.watchdog.look(controller)
        controller._tune_controller._trials_to_cache.clear()
        waiting = {trial.trial_id: trial for trial in controller.get_live_trials() if trial.status == TuneTrial.PENDING}
        return next((waiting[name] for name in self.bridge.live if name in waiting), None)

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        goes_on = self.bridge.hear(trial.trial_id, result) and not self.watchdog.moves(trial, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """A trial's last message comes here only; the message at which we stopped a trial comes here again."""
        if result.get("last"):
            self.bridge.hear(trial.trial_id, result)

    def on_trial_error(self, controller: Any, trial: TuneTrial) -> None:
        """A process died. Tune calls this also where it then restarts the trial itself, as it does after preemption."""
        self.bridge.died(trial.trial_id, Path(trial.error_file).read_text() if trial.error_file else "")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above


def run(search: Search, address: str | None = None) -> None:
    """Run until no further trial begins, on this machine or on the Ray cluster at `address`."""
    with connected(address), graceful(search):
        search.attempts.look_at(_nodes())
        places = None if address else _capacity(search.study.per_trial)
        bridge = Bridge(search)
        while not search.is_over:
            try:
                _run(search, bridge, search.study.concurrency or places)
            except Exception as error:
                if not any(_is_settled(cause, bridge) for cause in _causes(error)):
                    raise
    if bridge.failure:
        raise bridge.failure


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_settled(error: BaseException, bridge: Bridge) -> bool:
    """Whether what Tune did not survive is known, and the search now knows it."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):  # of a worker that a memory monitor killed
        bridge.lost_for_memory(error)  # the search goes on with another Tune
    elif isinstance(error, ray.exceptions.ObjectStoreFullError | ray.exceptions.OutOfDiskError):
        bridge.no_room()
    elif disk.is_full(error):
        bridge.search.halt(in_rays_folder(f"{rays_folder()}: its disk is full; {disk.REMEDY}"))
    else:
        return False
    return True


def _run(search: Search, bridge: Bridge, at_once: int | None) -> None:
    """One run of Tune, until the search is over, with so many trials at once, or as many as there are places for."""
    with tempfile.TemporaryDirectory(prefix="sweep-tune-", dir=rays_folder()) as scratch:
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, _placement),
            tune_config=tune.TuneConfig(
                search_alg=SearchAdaptor(bridge),
                scheduler=EarlyStoppingAdaptor(bridge),
                num_samples=-1,
                max_concurrent_trials=at_once,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=search.study.name,
                storage_path=scratch,
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_at_end=False
                ),  # of scratch, other machines see nothing
                verbose=0,
            ),
        )
        tuner.fit()


def _placement(config: dict[str, Any]) -> Any:
    """The place that a trial is to get, as Tune asks for it."""
    place = Resources(**config["place"])
    return _place(place.cpus, place.gpus, tuple(sorted(place.selector.items())))


@cache
def _place(cpus: int, gpus: float, labels: tuple[tuple[str, str], ...]) -> Any:
    """One and the same for equal places: Tune compares them again and again, at length."""
    where = {"bundle_label_selector": [dict(labels)]} if labels else {}
    return tune.PlacementGroupFactory([{"CPU": cpus, "GPU": gpus}], **where)


def _nodes() -> list[Resources]:
    """What each living node has in all; a node without a CPU holds no trial, nor one that is drained of what it has."""
    draining = state.get_draining_nodes()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining]
    return [_node(node["Resources"], node["Labels"]) for node in nodes if node["Resources"].get("CPU", 0) >= 1]


def _node(has: Mapping[str, float], labels: Mapping[str, str]) -> Resources:
    gpus = min(int(has.get("GPU", 0)), 64)
    others = {name: value for name, value in labels.items() if value and name not in (ACCELERATOR, NODE_ID)}
    kind = (labels.get(ACCELERATOR) or None) if gpus else None
    return Resources(cpus=min(int(has["CPU"]), 1024), gpus=gpus, accelerator_type=kind, labels=others)


def _capacity(per_trial: Resources) -> int:
    """How many trials this machine holds at once. One that holds none would wait for ever."""
    (machine,) = _nodes()
    if not per_trial.fit(machine):
        raise StudyError(
            f"a trial needs {per_trial}, and this machine has {machine}: lower per_trial, or join a cluster (--address)"
        )
    of_gpus = int(machine.gpus / per_trial.gpus + 1e-9) if per_trial.gpus else machine.cpus
    return min(machine.cpus // per_trial.cpus, of_gpus)
