"""Files beside a study's parent run in MLflow, such as its report: for people, and no part of the mirror."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep.errors import StudyError
from sweep.tracking.address import local_uri, redacted
from sweep.tracking.store import client_of, experiment_of, explaining, identity, number_of, runs_of, set_environment


def attach(folder: Path, tracking_uri: str, study: str, files: Sequence[Path], under: str) -> str:
    """Put files into the artifacts of the study's parent run, below `under`, in place of those of the same names.

    Gives the run. Raises StudyError, with a sentence on what to do, where MLflow cannot be reached or has no such run.
    """
    set_environment()
    with explaining(tracking_uri, "nothing was attached in MLflow"):
        client = client_of(tracking_uri)
        experiment = experiment_of(client, study)
        pages = runs_of(client, experiment.experiment_id, identity(folder)) if experiment else ()
        runs = [run for page in pages for run in page if run.info.lifecycle_stage == "active"]
        parents = [run.info for run in runs if number_of(run) is None]
        if not parents:
            raise StudyError(f"{redacted(tracking_uri)} holds nothing of {study} yet: `sweep sync {study}` sends it")
        if tracking_uri == local_uri(folder) and not _lies_in(folder, parents[0].artifact_uri):
            raise StudyError(f"nothing was attached in MLflow: {folder} was moved, and its artifacts lie where it was")
        for file in files:
            client.log_artifact(parents[0].run_id, str(file), under)
    return str(parents[0].run_id)


def _lies_in(folder: Path, artifacts: str) -> bool:
    """Whether artifacts lie in the folder: its database remembers where it was made, also in a copy."""
    return Path(artifacts.removeprefix("file://")).is_relative_to(folder.absolute())
