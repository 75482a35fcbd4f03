"""Which MLflow a study goes to, and what its folder may remember of that."""

from __future__ import annotations

from pathlib import Path

from sweep.errors import StudyError
from sweep.tracking.address import checked, local_uri, redacted
from sweep.tracking.mirror import mirrored

_OWN = "mlflow.db"  # the study folder's own database, wherever that folder is moved to


def address_of(folder: Path, tracking_uri: str) -> str:
    """What a study's folder may remember of a tracking URI."""
    return _OWN if tracking_uri == local_uri(folder) else redacted(tracking_uri)


def uri_of(folder: Path, given: str | None) -> str:
    """The tracking URI to use: the one that was given, else the one that the study's sweep used last, else its own.

    Raises StudyError for a URI of no use, and where the last one held credentials, which are kept nowhere.
    """
    if given:
        return checked(given)
    last, _ = mirrored(folder)
    if last is None or last == _OWN:
        return local_uri(folder)
    if "***" in last:
        raise StudyError(
            f"this study goes to {last}, and credentials are kept nowhere: give --tracking-uri again, or set "
            "MLFLOW_TRACKING_URI"
        )
    return last
