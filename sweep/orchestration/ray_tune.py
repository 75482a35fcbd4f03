"""Ray Tune runs the trials.

Tune is used for what it does well: placing trials by their resources, reusing actors, noticing dead ones. It remembers
nothing for us: its snapshots and loggers are off, its searcher and scheduler are thin adaptors of the search, and a
resumed sweep is a new Tune run which begins with the trials that were in flight.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sweep
from sweep import disk
from sweep.errors import DiskFullError, StudyError
from sweep.orchestration.bridge import Bridge
from sweep.orchestration.interrupts import graceful
from sweep.orchestration.search import Search
from sweep.orchestration.watchdog import Watchdog, in_rays_folder
from sweep.orchestration.worker import Assignment, messages
from sweep.provisions import ACCELERATOR, Resources

# Read by ray when it is imported, so they are set first; whoever set one already knows why.
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # our own progress display
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Where Ray's own memory monitor kills a worker, Tune ends, and every trial goes back to its checkpoint. The system
    # kills workers first as well (Ray asks it to), and one that it kills is taken up again like any other.
    "RAY_memory_monitor_refresh_ms": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard cost 7 ms a trial and 500 MB of the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails at once reports no metric
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots: the journal is the record
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # at length; the journal has them as a line
    "TUNE_WARN_THRESHOLD_S": "5",
}
NODE_ID = "ray.io/node-id"  # a label that every node has
WAITING = "16"  # trials that wait for a place on a cluster: demand that its autoscaler sees, and starts nodes for
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray._private import ray_constants  # noqa: E402
from ray._private.state import state  # noqa: E402
from ray.tune.experiment import Trial as TuneTrial  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402


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
        self.watchdog = Watchdog(bridge, _nodes, state.get_draining_nodes, ray.kill, _folder())

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Asked at each turn of Tune's loop, and the only one of our adaptors that is shown Tune's controller then."""
        self.watchdog.look(controller)
        return super().choose_trial_to_run(controller)

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
        bridge.search.halt(in_rays_folder(f"{_folder()}: its disk is full; {disk.REMEDY}"))
    else:
        return False
    return True


def _run(search: Search, bridge: Bridge, at_once: int | None) -> None:
    """One run of Tune, until the search is over, with so many trials at once, or as many as there are places for."""
    with tempfile.TemporaryDirectory(prefix="sweep-tune-", dir=_folder()) as scratch:
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


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to Ray: to the cluster at `address`, or to one that lives as long as the sweep, on loopback."""
    for name in ("SWEEP_DATA_DIR", "SWEEP_CACHE_DIR"):
        if folder := os.environ.get(name):
            os.environ[name] = str(Path(folder).expanduser().resolve())  # workers stand in another folder
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address is None:
        # A single node then binds to 127.0.0.1 only. Ray has read this at its import, before the address was known.
        if os.environ.setdefault(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "0") == "0":
            ray_constants.ENABLE_RAY_CLUSTER = False
        # Where the driver is killed, all of this Ray dies with it; its agents would look for the rest for a minute.
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        _refuse_a_full_disk()
        _init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, **quiet)
    else:
        os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", WAITING)
        is_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # Ray's name; a job (`sweep submit`) has the code already
        _init(address=address, runtime_env=None if is_job else package(), **quiet)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # takes a trial that was taken up again for failed
    try:
        yield
    finally:
        ray.shutdown()


def package() -> dict[str, Any]:
    """What the machines of a cluster are sent: this very code, so that they need not have it, or not of this commit."""
    return {"py_modules": [str(Path(sweep.__path__[0]).resolve())], "excludes": ["__pycache__"]}


def _init(**settings: Any) -> None:
    """Start or join Ray. What it says where it cannot is the first line of its error."""
    try:
        ray.init(**settings)
    except Exception as error:  # a bare one where a busy machine starts it too slowly
        reason = str(error).strip().split("\n")[0]
        address = settings["address"]
        remedy = "; on a crowded machine try again, or give --in-process" if address == "local" else ""
        raise StudyError(f"Ray cannot be used at address '{address}': {reason}{remedy}") from error


def _refuse_a_full_disk() -> None:
    """Ray waits for itself where it cannot write to its own folder."""
    if shortage := disk.shortage(_folder()):
        raise DiskFullError(in_rays_folder(shortage))


def _folder() -> Path:
    """Where Ray writes on this machine, and Tune as well."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


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
