"""MLflow's client, and what it holds, looked up. The only file that imports MLflow."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sweep.errors import JournalError, StudyError, SweepError
from sweep.tracking.address import redacted
from sweep.tracking.contents import Point, shortened
from sweep.tracking.journal import FILE_NAME, read

MOST_POINTS = 25_000  # of a metric that MLflow gives at once
# No HTTP retries: our own come later and look first whether the lost answer's request had made its run after all.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def set_environment() -> None:
    """Tell MLflow how to behave in this process; what the user has set, stays.

    Never taken back, because another thread may be copying the environment.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def client_of(tracking_uri: str) -> Any:
    """MLflow's client."""
    return library().MlflowClient(tracking_uri)


def explained(error: Exception, tracking_uri: str) -> str:
    """One plain sentence without credentials."""
    if isinstance(error, OSError) and error.filename:  # not of MLflow's, but of the study's folder
        return f"{error.filename}: {error.strerror}"
    address = redacted(tracking_uri)
    text = " ".join(str(error).split()).replace(tracking_uri.rstrip("/"), address.rstrip("/"))
    if re.search(r"<!doctype|<html", text, re.IGNORECASE):
        return f"{address} answers with a web page: is it the address of an MLflow server?"
    if "timed out" in text or "timeout exception" in text:
        return f"{address} cannot be reached: it does not answer (timed out)"
    if cause := re.search(r"(?:Caused by .*?\): |ResponseError\(')(.+?)[\"')]*$", text):
        return f"{address} cannot be reached: {redacted(cause[1])}"
    return f"{type(error).__name__}: {shortened(redacted(text), 300)}"


@contextmanager
def explaining(tracking_uri: str, so: str) -> Iterator[None]:
    """Whatever MLflow and its stores raise, as a StudyError: `so`, and why."""
    try:
        yield
    except SweepError:
        raise
    except Exception as error:
        raise StudyError(f"{so}: {explained(error, tracking_uri)}") from error


def identity(folder: Path) -> str:
    """What tells a journal's runs from those of another sweep of that name: its first event (host, process, time)."""
    first, _ = next(read(folder / FILE_NAME), (None, 0))
    if first is None:
        raise JournalError(f"{folder / FILE_NAME}: there is no event in it yet")
    return hashlib.sha256(json.dumps(first, sort_keys=True).encode()).hexdigest()[:16]


def experiment_of(client: Any, name: str) -> Any:
    """The experiment of this name, or None. Raises StudyError for one that was deleted."""
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        how = f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        raise StudyError(f"the MLflow experiment '{name}' was deleted there: bring it back with {how}")
    return found


def runs_of(client: Any, experiment: str, journal: str, at_once: int = 500) -> Iterator[list[Any]]:
    """The runs of a journal, page by page, also those deleted in MLflow."""
    page = None
    while page is None or page.token:
        page = client.search_runs(
            [experiment],
            f"tags.`sweep.journal` = '{journal}'",
            run_view_type=library().entities.ViewType.ALL,
            max_results=at_once,
            order_by=["attributes.run_id"],
            page_token=page.token if page else None,
        )
        yield list(page)


def number_of(run: Any) -> int | None:
    """The trial that a run shows; None: it is the parent."""
    trial = run.data.tags.get("sweep.trial")
    return None if trial is None else int(trial)


def history(client: Any, runs: Sequence[str], metric: str) -> Iterator[tuple[str, Point]]:
    """Every value of a metric in up to a hundred runs, together no more than `MOST_POINTS`, in one request.

    The public client asks for one run and one metric at a time, which takes minutes where this takes seconds.
    """
    store = client._tracking_client.store
    if hasattr(store, "get_metric_history_bulk"):
        values = [value.to_dict() for value in store.get_metric_history_bulk(list(runs), metric, MOST_POINTS)]
    else:
        values = (
            library()
            .utils.rest_utils.http_request(
                host_creds=store.get_host_creds(),
                endpoint="/ajax-api/2.0/mlflow/metrics/get-history-bulk",
                method="GET",
                params=[*(("run_id", run) for run in runs), ("metric_key", metric), ("max_results", str(MOST_POINTS))],
            )
            .json()["metrics"]
        )
    for value in values:
        yield value["run_id"], Point(metric, float(value["value"]), int(value["timestamp"]), int(value["step"]))


class Found(NamedTuple):
    """A run that was found, the one that counts before its twins: neither deleted nor empty."""

    is_deleted: bool
    emptiness: int
    run: str


def found_runs(client: Any, experiment: str, journal: str) -> dict[int | None, list[Found]]:
    found: dict[int | None, list[Found]] = {}
    for page in runs_of(client, experiment, journal):
        for run in page:
            amount = len(run.data.metrics) + len(run.data.params) + len(run.data.tags)
            place = Found(run.info.lifecycle_stage != "active", -amount, run.info.run_id)
            found.setdefault(number_of(run), []).append(place)
    return {number: sorted(runs) for number, runs in found.items()}


def library() -> Any:
    """MLflow, imported by the thread that needs it: it takes seconds."""
    import mlflow  # noqa: PLC0415

    warnings.filterwarnings("ignore", message=".*type hint is inferred as AnyType", category=UserWarning)  # its own
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it tells the terminal of each failure, which is ours to do
    return mlflow
