"""Is there an MLflow at a tracking URI? Looked at before a sweep starts, within seconds.

What no waiting would mend (a web page, a password that is wrong, a database of something else) is refused. A server
that is away is not: the sweep runs, and the mirror sends everything when it is back.
"""

from __future__ import annotations

import re
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sweep.errors import StudyError
from sweep.tracking.address import is_database, redacted
from sweep.tracking.store import client_of, experiment_of, explained, set_environment

_STILL_SECONDS = 5.0  # a database whose tables have not changed for so long is not being made
_ALWAYS_WRONG = ("BadStatusLine", "SSLError", "InvalidURL", "Invalid url", "InvalidSchema")
_MAY_PASS = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "RetryError")  # names of what `requests` raises


def probe(tracking_uri: str, study: str) -> str | None:
    """None: MLflow is there. A sentence: it cannot be reached at the moment.

    Raises StudyError, with a remedy, where it never will be.
    """
    set_environment()
    return _probe_database(tracking_uri) if is_database(tracking_uri) else _probe_server(tracking_uri, study)


def _probe_server(tracking_uri: str, study: str) -> str | None:
    try:
        experiment_of(client_of(tracking_uri), study)
    except StudyError:
        raise
    except Exception as error:
        reason = explained(error, tracking_uri)
        if _may_pass(error):
            return reason
        raise StudyError(f"--tracking-uri {redacted(tracking_uri)}: {_remedied(error, reason)}") from error
    return None


def _may_pass(error: Exception) -> bool:
    if any(sign in str(error) for sign in _ALWAYS_WRONG):
        return False
    origin = type(error.__context__).__name__
    status = re.search(r"error code (\d+) !=", str(error))
    return origin in _MAY_PASS or (status is not None and int(status[1]) >= 500)


def _remedied(error: Exception, reason: str) -> str:
    text = str(error)
    if "BadStatusLine" in text:
        return "whatever answers there is no web server; give the address that shows MLflow's page in a browser"
    if "SSLError" in text:
        return f"no safe connection ({reason}); is it http:// rather than https://, or is its certificate your own?"
    if "answers with a web page" in reason:
        return "a web page answers, not MLflow; give the address of MLflow's page in a browser, up to the '#'"
    if re.search(r"error code 40[13] ", text) or getattr(error, "error_code", "") in (
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    ):
        return (
            f"it wants another user or password ({reason}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return f"no MLflow answers there ({reason})"


def _probe_database(tracking_uri: str) -> str | None:
    import sqlalchemy  # noqa: PLC0415  # comes with MLflow, and takes a while

    path = Path(tracking_uri.partition("sqlite:///")[2]) if tracking_uri.startswith("sqlite") else None
    if path is not None and not path.exists():
        return None  # MLflow makes it, and the folders above it
    try:
        problem = _settled_problem(tracking_uri)
    except (ModuleNotFoundError, sqlalchemy.exc.ArgumentError) as error:  # no driver is an ArgumentError as well
        raise _refused(tracking_uri, f"the database cannot be opened from here ({_first_line(error)})") from error
    except sqlalchemy.exc.DatabaseError as error:
        if path is None or "locked" in str(error):
            return f"{redacted(tracking_uri)} cannot be reached: {_first_line(error)}"
        raise _refused(tracking_uri, f"{path} cannot be used as a database ({_first_line(error)})") from error
    if problem:
        raise _refused(tracking_uri, problem)
    return None


def _settled_problem(tracking_uri: str) -> str | None:
    """What is wrong with the database's tables; one that another process is making is waited for.

    MLflow makes them version by version (2 s; a minute on a busy machine), and every one of them would look old.
    """
    schema = _schema(tracking_uri)
    seen = time.monotonic()
    while problem := _schema_problem(*schema, tracking_uri):
        time.sleep(_STILL_SECONDS / 20)
        before, schema = schema, _schema(tracking_uri)
        if schema != before:
            seen = time.monotonic()
        elif time.monotonic() - seen > _STILL_SECONDS:
            return problem
    return None


def _schema(tracking_uri: str) -> tuple[set[str], str | None]:
    """The names of the database's tables, and the version of MLflow's."""
    import sqlalchemy  # noqa: PLC0415

    engine = sqlalchemy.create_engine(tracking_uri, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
        found = sqlalchemy.text("SELECT version_num FROM alembic_version")
        return tables, connection.scalar(found) if "alembic_version" in tables else None


def _schema_problem(tables: set[str], revision: str | None, tracking_uri: str) -> str | None:
    if not tables:
        return None
    if revision is None and "experiments" in tables:
        return "MLflow's tables in it are half made: let the process that makes them end, or name a new one"
    if revision is None or "experiments" not in tables:
        names = ", ".join(sorted(tables)[:3])
        return f"a database of something else (it holds {names}); name a new one, and MLflow makes it"
    known, latest = _revisions()
    if revision not in known:
        ours = version("mlflow")
        return (
            f"made by a newer MLflow than {ours}, which is installed here (schema {revision}): `pip install -U mlflow`"
        )
    if revision != latest:
        how = f"`mlflow db upgrade {redacted(tracking_uri)}`"
        return f"made by an older MLflow (schema {revision}): copy the database to be safe, then {how}"
    return None


def _revisions() -> tuple[set[str], str]:
    """Every version of MLflow's tables that is known here, and the latest; from its files, which name each other."""
    package = find_spec("mlflow")
    assert package is not None and package.origin is not None
    texts = [path.read_text() for path in (Path(package.origin).parent / "store/db_migrations/versions").glob("*.py")]
    names, before = (
        {found[1] for text in texts if (found := re.search(rf"^{field} = [\"'](\w+)", text, re.MULTILINE))}
        for field in ("revision", "down_revision")
    )
    (latest,) = names - before
    return names, latest


def _first_line(error: Any) -> str:
    return redacted(str(getattr(error, "orig", None) or error).split("\n")[0])


def _refused(tracking_uri: str, reason: str) -> StudyError:
    return StudyError(f"--tracking-uri {redacted(tracking_uri)}: {reason}")
