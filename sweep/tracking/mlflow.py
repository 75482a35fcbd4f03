"""MLflow shows a study: one experiment, one parent run for a sweep, one child run for a trial.

MLflow is a mirror of the journal (see `sweep.tracking.mirror`), written one request a report. Sending twice doubles
nothing: a run is found again by its tags, its SQL store keeps one of several equal metric values (equal in step and
timestamp too, and both are the journal's), and a parameter or tag set again to what it was is as it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep.errors import StudyError
from sweep.tracking.journal import read
from sweep.tracking.mirror import Destination, JournalMirror, RefusalError

_STATUS = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "timed_out": "KILLED",
}
_LONGEST_VALUE = 500  # characters of a parameter or tag; MLflow itself allows 6000
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")

# No HTTP retries: our own come later and look first whether the lost answer's request had made its run after all.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Mirror(JournalMirror):
    """Mirrors the journal in a study's folder to the MLflow at `tracking_uri`, in the experiment named `study`."""

    def __init__(self, folder: Path, tracking_uri: str, study: str) -> None:
        super().__init__(folder, redacted(tracking_uri))
        self._tracking_uri = tracking_uri
        self._study = study
        # Never taken back, because another thread may be copying the environment; what the user has set, stays.
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)

    def _connect(self) -> Destination:
        mlflow = _mlflow()
        client = mlflow.MlflowClient(self._tracking_uri)
        first_event, _ = next(read(self.journal))
        database = self._tracking_uri.partition(":")[0].partition("+")[0] in _DATABASES
        artifacts = str(self.folder.absolute() / "mlartifacts") if database else None
        experiment = _experiment(client, self._study, artifacts)
        return _Runs(client, experiment, self._study, self.folder / "study.json", first_event)

    def _explain(self, error: Exception) -> str:
        text = " ".join(str(error).split()).replace(self._tracking_uri.rstrip("/"), self._address.rstrip("/"))
        if re.search(r"<!doctype|<html", text, re.IGNORECASE):
            text = f"{self._address} answers with a web page: is it the address of an MLflow server?"
        elif cause := re.search(r"Caused by .*?\): (.+?)[\"')]*$", text):
            text = f"{self._address} cannot be reached: {cause[1]}"
        return f"{type(error).__name__}: {_shortened(redacted(text), 300)}"


class _Runs:
    """The runs of one journal: the parent, and the children by the number of their trial."""

    def __init__(self, client: Any, experiment: str, study: str, study_file: Path, first_event: dict[str, Any]) -> None:
        self._client = client
        self._experiment = experiment
        self._study_file = study_file
        # Two sweeps of one name share an experiment; their journals' first events (host, process, time) differ.
        journal = hashlib.sha256(json.dumps(first_event, sort_keys=True).encode()).hexdigest()[:16]
        self._identity = {"sweep.study": study, "sweep.journal": journal}
        found = dict(_find(client, experiment, journal))
        parent = found.pop(None, None)
        self.is_new = parent is None
        self._parent = parent or ""
        self._children = found
        self._takers: dict[str, Callable[[dict[str, Any]], None]] = {
            "session": self._session,
            "asked": self._asked,
            "started": self._started,
            "lost": self._lost,
            "reopened": self._reopened,
            "reported": self._reported,
            "ended": self._ended,
            "closed": self._closed,
        }

    def send(self, event: dict[str, Any]) -> None:
        """Mirror one event, the first one by making the parent; an event of an unknown name has nothing to show."""
        self._parent = self._parent or self._create(event, f"sweep {self._identity['sweep.study']}", {})
        take = self._takers.get(event["event"])
        if take is not None:
            take(event)

    def _session(self, event: dict[str, Any]) -> None:
        not_copied = self._copy_study_file()
        versions = {f"version.{name}": version for name, version in event["versions"].items()}
        self._log(event, self._parent, tags={"session": event["session"], "host": event["host"], **versions})
        with _refusals(event):
            self._client.update_run(self._parent, status="RUNNING")  # again, after an earlier session was closed
        if not_copied is not None:
            raise RefusalError(f"{_title(event)}: {self._study_file.name} was not copied ({not_copied})")

    def _asked(self, event: dict[str, Any]) -> None:
        trial, defense = event["trial"], event["config"]["defense"]["name"]
        if trial not in self._children:
            tags = {"mlflow.parentRunId": self._parent, "sweep.trial": str(trial)}
            tags |= {"defense": defense, "origin": event["origin"]}
            self._children[trial] = self._create(event, f"trial {trial:04d} {defense}", tags)
        self._log(event, self._children[trial], params=dict(_flat(event["config"])))

    def _started(self, event: dict[str, Any]) -> None:
        self._log(event, self._child(event), tags={"attempt": event["attempt"], "node": event["node"]})

    def _lost(self, event: dict[str, Any]) -> None:
        error = event["error"]
        self._log(event, self._child(event), tags={f"lost.{event['attempt']}": f"{error['class']}: {error['message']}"})

    def _reopened(self, event: dict[str, Any]) -> None:
        with _refusals(event):
            self._client.update_run(self._child(event), status="RUNNING")

    def _reported(self, event: dict[str, Any]) -> None:
        self._log(event, self._child(event), metrics=_metrics(event, event["metrics"], event["epoch"]))

    def _ended(self, event: dict[str, Any]) -> None:
        best, final, error = event["best"] or {}, event["final"] or {}, event["error"] or {}
        metrics = _metrics(event, best.get("metrics", {}), best.get("epoch", 0), prefix="best/")
        metrics += _metrics(event, final, prefix="final/")
        tags = {"end": event["end"], "validity": event.get("validity", "unchecked")}
        tags |= {f"error.{name}": text for name, text in error.items()}
        self._log(event, self._child(event), metrics=metrics, tags=tags)
        self._terminate(event, self._child(event), _STATUS[event["end"]])

    def _closed(self, event: dict[str, Any]) -> None:
        self._log(event, self._parent, tags={"closed": event["reason"]})
        if event["reason"] != "interrupted":
            self._terminate(event, self._parent, "FINISHED")

    def _child(self, event: dict[str, Any]) -> str:
        trial = event["trial"]
        if trial not in self._children:
            raise RefusalError(f"{_title(event)}: MLflow has no run of this trial; it was deleted there for good")
        return self._children[trial]

    def _create(self, event: dict[str, Any], name: str, tags: dict[str, str]) -> str:
        run = self._client.create_run(
            self._experiment, start_time=_milliseconds(event), run_name=name, tags=self._identity | tags
        )
        return str(run.info.run_id)

    def _log(
        self,
        event: dict[str, Any],
        run: str,
        metrics: Sequence[Any] = (),
        params: dict[str, str] | None = None,
        tags: dict[str, Any] | None = None,
    ) -> None:
        """One request."""
        entities = _mlflow().entities
        with _refusals(event):
            self._client.log_batch(
                run,
                metrics=metrics,
                params=[entities.Param(name, _shortened(value)) for name, value in (params or {}).items()],
                tags=[entities.RunTag(name, _shortened(str(value))) for name, value in (tags or {}).items()],
                synchronous=True,
            )

    def _terminate(self, event: dict[str, Any], run: str, status: str) -> None:
        with _refusals(event):
            self._client.set_terminated(run, status, end_time=_milliseconds(event))

    def _copy_study_file(self) -> str | None:
        """Best effort: returns what went wrong, since metrics shall not wait for an artifact store that refuses us.

        Should MLflow itself be away, then the next request fails as well, and the whole event is sent again.
        """
        if self._study_file.exists():
            try:
                self._client.log_artifact(self._parent, str(self._study_file))
            except Exception as error:
                return type(error).__name__
        return None


def redacted(text: str) -> str:
    """The text (an address, a message) with the user and password of every ``scheme://user:password@host`` left out."""
    return re.sub(r"://[^\s'\"]*@", "://***@", text)


def local_uri(folder: Path) -> str:
    """The tracking URI of a study that names none: a database in its own folder."""
    return f"sqlite:///{folder.absolute()}/mlflow.db"


def _mlflow() -> Any:
    """MLflow, imported by the thread that needs it: it takes seconds."""
    import mlflow  # noqa: PLC0415

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells the terminal of each table it creates
    return mlflow


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """The experiment's identifier; made if absent, with its files in `artifacts` or where the server likes (None)."""
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=artifacts))
    if found.lifecycle_stage != "active":
        how = f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        raise StudyError(f"the MLflow experiment '{name}' was deleted there: bring it back with {how}")
    return str(found.experiment_id)


def _find(client: Any, experiment: str, journal: str) -> Iterator[tuple[int | None, str]]:
    """(trial, run) of a journal's runs, also of those deleted in MLflow; the parent's trial is None."""
    page = None
    while page is None or page.token:
        page = client.search_runs(
            [experiment],
            f"tags.`sweep.journal` = '{journal}'",
            run_view_type=_mlflow().entities.ViewType.ALL,
            max_results=500,
            page_token=page.token if page else None,
        )
        for run in page:
            trial = run.data.tags.get("sweep.trial")
            yield (None if trial is None else int(trial)), run.info.run_id


@contextmanager
def _refusals(event: dict[str, Any]) -> Iterator[None]:
    """An answer that no repetition would change (a deleted run, a name with a strange letter) as `RefusalError`."""
    try:
        yield
    except _mlflow().exceptions.MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise RefusalError(f"{_title(event)}: {_shortened(redacted(' '.join(str(error).split())), 300)}") from error


def _metrics(event: dict[str, Any], values: dict[str, float], step: int = 0, prefix: str = "") -> list[Any]:
    metric = _mlflow().entities.Metric
    return [metric(prefix + name, value, _milliseconds(event), step) for name, value in values.items()]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as pairs of dotted key and text."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else name)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)


def _title(event: dict[str, Any]) -> str:
    return f"event '{event['event']}'" + (f" of trial {event['trial']}" if "trial" in event else "")


def _milliseconds(event: dict[str, Any]) -> int:
    return round(1000 * float(event["time"]))


def _shortened(text: str, longest: int = _LONGEST_VALUE) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
