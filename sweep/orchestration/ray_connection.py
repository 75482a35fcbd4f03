"""A connection to Ray, which reads how it is to behave when it is imported: who imports it, imports this file first."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sweep
from sweep import disk
from sweep.errors import DiskFullError, StudyError
from sweep.orchestration.watchdog import in_rays_folder

# Whoever set one already knows why.
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
WAITING = "16"  # trials that wait for a place on a cluster: demand that its autoscaler sees, and starts nodes for
for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)

import ray  # noqa: E402
from ray._private import ray_constants  # noqa: E402


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


def rays_folder() -> Path:
    """Where Ray writes on this machine, and Tune as well."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())


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
    if shortage := disk.shortage(rays_folder()):
        raise DiskFullError(in_rays_folder(shortage))
