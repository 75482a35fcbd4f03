"""Where MLflow is: tracking URIs, and what of them may be shown.

A tracking URI may hold a user and a password. It lives in memory only: whatever is written or printed has gone through
`redacted`, which also takes out the values of MLflow's own variables for credentials.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sweep.errors import StudyError, unknown

SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_IN_QUERY = r"(?i)([?&;][\w.-]*(?:password|passwd|pwd|token|secret|key)[\w.-]*=)[^\s'\"&;]+"
_SHORTEST_SECRET = 4  # characters; anything shorter is left in messages, lest every "a" of them be taken out


def redacted(text: str) -> str:
    """The text (an address, a message) without credentials: ``scheme://user:password@host``, ``?password=...``."""
    text = re.sub(r"://[^\s'\"]*@", "://***@", text)
    text = re.sub(_IN_QUERY, r"\1***", text)
    for secret in _known_secrets():
        text = text.replace(secret, "***")
    return text


def _known_secrets() -> list[str]:
    values = [os.environ.get(name, "") for name in _SECRETS]
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        password = _password(uri)
        values += [password, unquote(password)]
    return [value for value in values if len(value) >= _SHORTEST_SECRET]


def _password(uri: str) -> str:
    try:
        return urlsplit(uri).password or ""
    except ValueError:
        return ""


def local_uri(folder: Path) -> str:
    """The tracking URI of a study that names none: a database in its own folder."""
    return f"sqlite:///{folder.absolute()}/mlflow.db"


def is_database(uri: str) -> bool:
    return _scheme(uri) in DATABASES


def checked(uri: str) -> str:
    """The URI as every process may use it: SQLite's path made absolute. Raises StudyError for what is not MLflow's."""
    scheme, separator, rest = uri.partition("://")
    if not separator or _scheme(uri) not in (*SERVERS, *DATABASES):
        raise StudyError(f"--tracking-uri {redacted(uri)}: {_advice(uri)}")
    if _scheme(uri) == "sqlite" and not rest.startswith("//"):
        path = rest.removeprefix("/")
        if not rest.startswith("/") or path in ("", ":memory:"):
            raise StudyError(f"--tracking-uri {redacted(uri)}: a database in a file is sqlite:///path/to/mlflow.db")
        return f"{scheme}:///{Path(path).absolute()}"
    return uri


def _scheme(uri: str) -> str:
    return uri.partition("://")[0].partition("+")[0].lower()


def _advice(uri: str) -> str:
    if _scheme(uri) == "file" or uri.startswith((".", "/", "~")):
        path = Path(uri.removeprefix("file://")).expanduser().absolute()
        return f"MLflow no longer writes to plain folders; a database there is sqlite:///{path}/mlflow.db"
    if re.match(r"[\w.-]+:\d+(/|$)", uri) or "://" not in uri:
        return f"no scheme; a server's address begins with one, such as http://{uri.removeprefix('http:').strip('/')}"
    return unknown("scheme", uri.partition("://")[0], (*SERVERS, *DATABASES))
