"""MLflow shows a study: one experiment, one parent run for a sweep, one child run for a trial.

MLflow is a mirror of the journal (see `sweep.tracking.mirror`), and a few requests carry many of its events. Sending
twice doubles nothing: a run is found again by its tags, its SQL store keeps one of several equal metric values (equal
in step and timestamp too, and both are the journal's), and a parameter or tag set again to what it was is as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sweep.errors import JournalError, SweepError
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking import models
from sweep.tracking.address import is_database, redacted
from sweep.tracking.contents import Contents, contents, milliseconds, run_of, shortened
from sweep.tracking.description import description, welcome
from sweep.tracking.home import address_of
from sweep.tracking.mirror import Destination, JournalMirror
from sweep.tracking.store import (
    client_of,
    experiment_of,
    explained,
    found_runs,
    identity,
    library,
    set_environment,
)
from sweep.tracking.view import OURS, view

_NOTE = "mlflow.note.content"


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
        self._folder = folder
        self._identity = {"sweep.study": study, "sweep.journal": identity(folder)}
        self._known: dict[int | None, str] = {}
        for number, (chosen, *twins) in found_runs(client, experiment, self._identity["sweep.journal"]).items():
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
        with _refusals():
            tags = added.tags
            if added.name is not None and number not in self._known:
                tags = {}  # it is made with them: one transaction less
                parent = {"mlflow.parentRunId": self._known[None], "sweep.trial": str(number)}
                self._known[number] = self._create(added.name, added.began, added.tags | parent)
            if number not in self._known:
                raise _RefusedError("MLflow has no run of this trial; it was deleted there for good")
            run = self._known[number]
            self._log(run, added, tags)
            if added.status is not None and added.ended is not None:
                self._client.set_terminated(run, added.status, end_time=added.ended)
            elif added.status is not None:
                self._client.update_run(run, status=added.status)
        if number is None:
            self._describe(run, added)
        if added.begins_session:
            self._copy_study_file(run)
        if self._under is not None and number is not None and added.tags.get("end") == "completed":
            self._log_model(run, number, added.tags)

    def _create_parent(self, began: int | None) -> str:
        name = self._identity["sweep.study"]
        if self._under is None:
            return self._create(f"sweep {name}", began)
        searched = None
        with suppress(JournalError):  # a copy may have come without the study that it confirms: it stands alone
            searched = found_runs(self._client, self._experiment, identity(self._under)).get(None)
        return self._create(f"confirm {name}", began, {"mlflow.parentRunId": searched[0].run} if searched else None)

    def _create(self, name: str, began: int | None, tags: dict[str, str] | None = None) -> str:
        tags = self._identity | (tags or {})
        run = self._client.create_run(self._experiment, start_time=began, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _log(self, run: str, added: Contents, tags: Mapping[str, str]) -> None:
        entities = library().entities
        self._client.log_batch(
            run,
            metrics=[entities.Metric(*point) for point in added.points],
            params=[entities.Param(name, value) for name, value in added.params.items()],
            tags=[entities.RunTag(name, value) for name, value in tags.items()],
            synchronous=True,
        )

    def _copy_study_file(self, run: str) -> None:
        """Best effort: metrics shall not wait for an artifact store that refuses us.

        Should MLflow itself be away, then the next request fails as well, and the whole event is sent again.
        """
        study_file = self._folder / "study.json"
        if study_file.exists():
            self._refuse_absent_place(study_file.name)
            try:
                self._client.log_artifact(run, str(study_file))
            except Exception as error:
                raise _RefusedError(f"{study_file.name} was not copied ({type(error).__name__})") from error

    def _refuse_absent_place(self, what: str) -> None:
        """Raise where MLflow would put files into a folder that was moved, which would make it again."""
        place = Path(self._client.get_experiment(self._experiment).artifact_location.removeprefix("file://"))
        if place.is_absolute() and not place.parent.exists():
            raise _RefusedError(f"{what} was not copied: its place, {place}, is not here (any more)")

    def _describe(self, run: str, added: Contents) -> None:
        """What people read first, and the columns that they see, where there is a study to tell of."""
        is_over = "closed" in added.tags
        if not added.begins_session and not is_over:
            return
        with suppress(SweepError), _refusals():
            folder = StudyFolder(self._folder)
            text = description(folder, run, self._experiment, is_over=is_over)
            self._client.set_tag(run, _NOTE, text)
            if added.begins_session:
                self._show(folder.study(), run)

    def _show(self, study: Study, run: str) -> None:
        """The experiment's view of the study, and a way to it in the experiment's note, unless somebody wrote that."""
        journal = self._identity["sweep.journal"]
        self._client.set_experiment_tag(self._experiment, *view(study, journal))
        written = self._client.get_experiment(self._experiment).tags.get(_NOTE, OURS)
        if not study.confirms and OURS in written:
            self._client.set_experiment_tag(self._experiment, _NOTE, welcome(study, run, self._experiment, journal))

    def _log_model(self, run: str, number: int, tags: Mapping[str, str]) -> None:
        """Best effort as well: `sweep sync` looks for the models that are missing, and sends them."""
        self._refuse_absent_place("its model")
        told = {name: tags[name] for name in ("defense", "validity") if name in tags}
        try:
            models.log(self._client, self._experiment, run, StudyFolder(self._folder), number, told)
        except Exception as error:
            reason = shortened(redacted(f"{type(error).__name__}: {error}"), 300)
            raise _RefusedError(f"its model was not logged ({reason})") from error


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
    except library().exceptions.MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise _RefusedError(shortened(redacted(" ".join(str(error).split())), 300)) from error


def _title(event: dict[str, Any]) -> str:
    return f"event '{event['event']}'" + (f" of trial {event['trial']}" if "trial" in event else "")
