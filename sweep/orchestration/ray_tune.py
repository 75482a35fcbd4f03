"""Ray Tune runs the trials. This is the only file that imports ray.

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
from pathlib import Path
from typing import Any

from sweep.errors import StudyError
from sweep.orchestration.search import Search
from sweep.orchestration.worker import Assignment, describe, messages
from sweep.study import Resources

# Read by ray when it is imported, so they are set first; whoever set one already knows why.
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # our own progress display
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's own memory monitor ends Tune where it kills a worker; one that the system kills is restarted like any other.
    "RAY_memory_monitor_refresh_ms": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard cost 7 ms a trial and 500 MB of the driver
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that fails at once reports no metric
    "TUNE_FORCE_TRIAL_CLEANUP_S": "30",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's snapshots: the journal is the record
    "TUNE_WARN_THRESHOLD_S": "5",
}
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray._private import ray_constants  # noqa: E402
from ray.tune.experiment import Trial as TuneTrial  # noqa: E402
from ray.tune.schedulers import FIFOScheduler, TrialScheduler  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

RESTARTS = 2  # of a trial whose process or node died, from its checkpoint


class TrialActor(tune.Trainable):  # type: ignore[misc]  # ray has no types
    """A process that runs one trial after another: importing torch anew for each would cost a second or more."""

    _messages: Iterator[dict[str, Any]]
    _first: bool

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self._begin(config)
        return True

    def step(self) -> dict[str, Any]:
        message = next(self._messages)
        # As text: Tune flattens nested results.
        last = "end" in message
        result = {"message": json.dumps(message), "first": self._first, "last": last, "done": last}
        self._first = False
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A trial keeps its own checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """A trial finds its own checkpoints."""

    def _begin(self, config: dict[str, Any]) -> None:
        self._messages = messages(Assignment(**config["assignment"]))
        self._first = True


class Bridge:
    """The search as Tune's adaptors use it.

    What goes wrong in the search itself (a full disk, say) would be wrapped by Tune, or logged and forgotten: it is
    kept as `failure`, lets the running trials finish their epoch as Ctrl-C does, and is raised when Tune is done.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.failure: Exception | None = None
        self._numbers: dict[str, int] = {}
        self._deaths: dict[str, dict[str, str]] = {}

    def ask(self, trial_id: str) -> dict[str, Any] | None:
        with self._kept():
            assignment = self.search.ask()
            if assignment is not None:
                self._numbers[trial_id] = assignment.number
                return assignment.to_json()
        return None

    def hear(self, result: Mapping[str, Any]) -> bool:
        with self._kept():
            message = json.loads(result["message"])
            if result["first"]:
                self.search.started(message["trial"], message["node"], message["pid"])
            return self.search.hear(message)
        return False

    def died(self, trial_id: str, error: BaseException | None) -> None:
        """A trial's process died, perhaps not for the last time."""
        self._deaths[trial_id] = describe(error) if error else {"class": "WorkerDied", "message": "the process is gone"}

    def lost(self, trial_id: str) -> None:
        with self._kept():
            self.search.lost(self._numbers[trial_id], self._deaths[trial_id])

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failure = self.failure or error
            self.search.interrupted = True


class SearchAdaptor(Searcher):  # type: ignore[misc]  # ray has no types
    """Tune's searcher: asks the search for assignments."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        assignment = self.bridge.ask(trial_id)
        return Searcher.FINISHED if assignment is None else {"assignment": assignment}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Told of an error only when Tune restarts the trial no more; all else the scheduler's adaptor hears."""
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

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        return str(TrialScheduler.CONTINUE if self.bridge.hear(result) else TrialScheduler.STOP)

    def on_trial_complete(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """A trial's last message comes here only; the message at which we stopped a trial comes here again."""
        if result.get("last"):
            self.bridge.hear(result)

    def on_trial_error(self, controller: Any, trial: TuneTrial) -> None:
        """A process died. Tune calls this also where it then restarts the trial."""
        self.bridge.died(trial.trial_id, trial.get_error())

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as above


def run(search: Search, address: str | None = None) -> None:
    """Run until no further trial begins, on this machine or on the Ray cluster at `address`."""
    with _cluster(address), search.graceful(), tempfile.TemporaryDirectory(prefix="sweep-tune-") as scratch:
        bridge = Bridge(search)
        per_trial = search.study.per_trial
        resources = tune.PlacementGroupFactory([{"CPU": per_trial.cpus, "GPU": per_trial.gpus}])
        capacity = _capacity(per_trial, may_grow=address is not None)
        tuner = tune.Tuner(
            tune.with_resources(TrialActor, resources),
            tune_config=tune.TuneConfig(
                search_alg=SearchAdaptor(bridge),
                scheduler=EarlyStoppingAdaptor(bridge),
                num_samples=-1,
                max_concurrent_trials=search.study.concurrency or capacity,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=search.study.name,
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
            ),
        )
        with _memory_explained():
            tuner.fit()
    if bridge.failure:
        raise bridge.failure


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """A connection to Ray: to the cluster at `address`, or to one that lives as long as the sweep, on loopback."""
    for name in ("SWEEP_DATA_DIR", "SWEEP_CACHE_DIR"):
        if folder := os.environ.get(name):
            os.environ[name] = str(Path(folder).expanduser().resolve())  # workers stand in another folder
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": True}
    if address is None:
        # A single node then binds to 127.0.0.1 only. Ray has read this at its import, before the address was known.
        if os.environ.setdefault(ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "0") == "0":
            ray_constants.ENABLE_RAY_CLUSTER = False
        ray.init(num_cpus=os.cpu_count(), include_dashboard=False, **quiet)
    else:
        ray.init(address=address, **quiet)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _memory_explained() -> Iterator[None]:
    """Tune does not survive a worker that a cluster's memory monitor killed."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
            raise
        raise StudyError(
            "a node ran out of memory and Ray killed a trial, which ends Ray Tune: give trials more CPUs or set "
            "concurrency lower, or start the nodes with RAY_memory_monitor_refresh_ms=0; `sweep resume` goes on"
        ) from error


def _capacity(per_trial: Resources, may_grow: bool) -> int:
    """How many trials the cluster holds at once. One that holds none, and does not grow, would wait for ever."""
    total = ray.cluster_resources()
    fits = [total.get("CPU", 0) // per_trial.cpus]
    if per_trial.gpus:
        fits.append(total.get("GPU", 0) // per_trial.gpus)
    if min(fits) < 1 and not may_grow:
        has = f"{total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs"
        needs = f"{per_trial.cpus} CPUs and {per_trial.gpus:g} GPUs"
        raise StudyError(
            f"a trial needs {needs}, and this machine has {has}: lower per_trial, or join a cluster (--address)"
        )
    return max(int(min(fits)), 1)
