"""MLflow shows a study: one experiment, one parent run for a sweep, one child run for a trial.

MLflow is a mirror of the journal (see `sweep.tracking.mirror`), and a few requests carry many of its events. Sending
twice doubles nothing: a run is found again by its tags, its SQL store keeps one of several equal metric values (equal
in step and timestamp too, and both are the journal's), and a parameter or tag set again to what it was is as it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sweep.errors import JournalError, StudyError
from sweep.tracking.address import is_database, redacted
from sweep.tracking.contents import Contents, Point, contents, milliseconds, run_of, shortened
from sweep.tracking.home import address_of
from sweep.tracking.journal import FILE_NAME, read
from sweep.tracking.mirror import Destination, JournalMirror

MOST_POINTS = 25_000  # of a metric that MLflow gives at once
# No HTTP retries: our own come later and look first whether the lost answer's request had made its run after all.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Mirror(JournalMirror):
    """Mirrors the journal in a study's folder to the MLflow at `tracking_uri`, in the experiment named `study`.

    A confirmation's runs lie within those of the study that it confirms, whose folder is `under`, where that is there.
    """

    def __init__(self, folder: Path, tracking_uri: str, study: str, under: Path | None = None) -> None:
        super().__init__(folder, address_of(folder, tracking_uri))
        self._tracking_uri = tracking_uri
        self._study = study
        self._under = under
        set_environment()

    def _connect(self) -> Destination:
        client = client_of(self._tracking_uri)
        artifacts = str(self.folder.absolute() / "mlartifacts") if is_database(self._tracking_uri) else None
        experiment = _experiment(client, self._study, artifacts)
        return Runs(client, experiment, self._study, self.folder, self._under)

    def _explain(self, error: Exception) -> str:
        return explained(error, self._tracking_uri)


class Runs:
    """The runs of one journal: the parent, and the children by the number of their trial."""

    def __init__(self, client: Any, experiment: str, study: str, folder: Path, under: Path | None = None) -> None:
        self._client = client
        self._experiment = experiment
        self._under = under
        self._study_file = folder / "study.json"
        self._identity = {"sweep.study": study, "sweep.journal": identity(folder)}
        self._known: dict[int | None, str] = {}
        for number, (chosen, *twins) in _found(client, experiment, self._identity["sweep.journal"]).items():
            self._known[number] = chosen.run
            for twin in twins:
                if not twin.is_deleted:  # a request made it whose answer was so late that the run was made again
                    client.delete_run(twin.run)
        self.is_new = None not in self._known

    def send(self, events: Sequence[dict[str, Any]]) -> list[str]:
        """Mirror events, those of each run together, the first of all by making the parent."""
        by_run: dict[int | None, list[dict[str, Any]]] = {None: []}
        for event in events:
            by_run.setdefault(run_of(event), []).append(event)
        refusals: list[str] = []
        for number, own in by_run.items():
            if number is None and number not in self._known:
                self._known[number] = self._create_parent(milliseconds(events[0]))
            refusals += self._write(number, own) if own else []
        return refusals

    def _write(self, number: int | None, events: Sequence[dict[str, Any]]) -> list[str]:
        """Write events of one run at once, or where MLflow refuses something of them, one by one."""
        try:
            self._put(number, contents(events))
        except _RefusedError as refusal:
            if len(events) == 1:
                return [f"{_title(events[0])}: {refusal}"]
            return [sentence for event in events for sentence in self._write(number, [event])]
        return []

    def _put(self, number: int | None, added: Contents) -> None:
        if added == Contents():
            return
        if added.name is not None and number not in self._known:
            tags = {"mlflow.parentRunId": self._known[None], "sweep.trial": str(number)}
            self._known[number] = self._create(added.name, added.began, tags)
        if number not in self._known:
            raise _RefusedError("MLflow has no run of this trial; it was deleted there for good")
        run = self._known[number]
        with _refusals():
            self._log(run, added)
            if added.status is not None and added.ended is not None:
                self._client.set_terminated(run, added.status, end_time=added.ended)
            elif added.status is not None:
                self._client.update_run(run, status=added.status)
        if added.begins_session:
            self._copy_study_file(run)

    def _create_parent(self, began: int | None) -> str:
        name = self._identity["sweep.study"]
        if self._under is None:
            return self._create(f"sweep {name}", began)
        searched = None
        with suppress(JournalError):  # a copy may have come without the study that it confirms: it stands alone
            searched = _found(self._client, self._experiment, identity(self._under)).get(None)
        return self._create(f"confirm {name}", began, {"mlflow.parentRunId": searched[0].run} if searched else None)

    def _create(self, name: str, began: int | None, tags: dict[str, str] | None = None) -> str:
        tags = self._identity | (tags or {})
        run = self._client.create_run(self._experiment, start_time=began, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _log(self, run: str, added: Contents) -> None:
        entities = _mlflow().entities
        self._client.log_batch(
            run,
            metrics=[entities.Metric(*point) for point in added.points],
            params=[entities.Param(name, value) for name, value in added.params.items()],
            tags=[entities.RunTag(name, value) for name, value in added.tags.items()],
            synchronous=True,
        )

    def _copy_study_file(self, run: str) -> None:
        """Best effort: metrics shall not wait for an artifact store that refuses us.

        Should MLflow itself be away, then the next request fails as well, and the whole event is sent again.
        """
        if self._study_file.exists():
            place = Path(self._client.get_experiment(self._experiment).artifact_location.removeprefix("file://"))
            if place.is_absolute() and not place.parent.exists():
                where = f"its place, {place}, is not here (any more)"
                raise _RefusedError(f"{self._study_file.name} was not copied: {where}")
            try:
                self._client.log_artifact(run, str(self._study_file))
            except Exception as error:
                raise _RefusedError(f"{self._study_file.name} was not copied ({type(error).__name__})") from error


def set_environment() -> None:
    """Tell MLflow how to behave in this process; what the user has set, stays.

    Never taken back, because another thread may be copying the environment.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def client_of(tracking_uri: str) -> Any:
    """MLflow's client."""
    return _mlflow().MlflowClient(tracking_uri)


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
            run_view_type=_mlflow().entities.ViewType.ALL,
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
            _mlflow()
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


class _Found(NamedTuple):
    """A run that was found, the one that counts before its twins: neither deleted nor empty."""

    is_deleted: bool
    emptiness: int
    run: str


def _found(client: Any, experiment: str, journal: str) -> dict[int | None, list[_Found]]:
    found: dict[int | None, list[_Found]] = {}
    for page in runs_of(client, experiment, journal):
        for run in page:
            amount = len(run.data.metrics) + len(run.data.params) + len(run.data.tags)
            place = _Found(run.info.lifecycle_stage != "active", -amount, run.info.run_id)
            found.setdefault(number_of(run), []).append(place)
    return {number: sorted(runs) for number, runs in found.items()}


def _mlflow() -> Any:
    """MLflow, imported by the thread that needs it: it takes seconds."""
    import mlflow  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it tells the terminal of each failure, which is ours to do
    return mlflow


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """The experiment's identifier; made if absent, with its files in `artifacts` or where the server likes (None)."""
    found = experiment_of(client, name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts))


class _RefusedError(Exception):
    """MLflow understood a request and will never carry it out."""


@contextmanager
def _refusals() -> Iterator[None]:
    """An answer that no repetition would change (a deleted run, a name with a strange letter) as a refusal."""
    try:
        yield
    except _mlflow().exceptions.MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise _RefusedError(shortened(redacted(" ".join(str(error).split())), 300)) from error


def _title(event: dict[str, Any]) -> str:
    return f"event '{event['event']}'" + (f" of trial {event['trial']}" if "trial" in event else "")
