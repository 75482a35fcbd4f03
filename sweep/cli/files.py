"""Reading what a command is given: search-space files, figures and settings."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweep.errors import ConfigurationError, StudyError
from sweep.registry import problems, short
from sweep.study import Study


def load_study(path: Path) -> Study:
    """The `STUDY` of a search-space file, its docstring as description; all its mistakes as one ConfigurationError."""
    if not path.is_file():
        here = ", ".join(sorted(str(found) for found in Path("search_spaces").glob("*.py"))) or "none in search_spaces/"
        raise StudyError(f"there is no search-space file {path} (found: {here})")
    sys.dont_write_bytecode = True
    try:
        names = runpy.run_path(str(path))
    except ValidationError as error:
        lines = [line for text in problems(error) for line in text.split("\n")]
        raise ConfigurationError(f"{path}{_line(path, error)}, {error.title}", lines) from error
    except SyntaxError as error:
        raise StudyError(f"{path}, line {error.lineno}: {error.msg}") from error
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:
        raise StudyError(f"{path} cannot be evaluated: {type(error).__name__}: {error}{_line(path, error)}") from error
    study = names.get("STUDY")
    if not isinstance(study, Study):
        found = f"its STUDY is of type {type(study).__name__}" if "STUDY" in names else "it defines no STUDY"
        raise StudyError(f"{path}: {found}, and a search-space file holds one `STUDY = Study(...)`")
    if study.confirms:
        raise StudyError(f"{path}: the test split is closed during a search; `sweep confirm` opens it when one is done")
    return study.model_copy(update={"description": (names.get("__doc__") or "").strip()})


def known_metrics(path: Path) -> dict[str, Any] | None:
    """The `metrics.json` of an exported trial, where there is one."""
    if not path.exists():
        return None
    try:
        known = json.loads(path.read_text())
    except ValueError as error:
        raise StudyError(f"{path} is not JSON that can be read: {error}") from None
    parts = ("fingerprint", "selected", "final")
    if not isinstance(known, dict) or not all(isinstance(known.get(part), str | dict) for part in parts):
        raise StudyError(f"{path} holds no figures of a trial; move it away, or export the trial again")
    return known


def with_settings(config: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """`config` with ``key.path=value`` settings put in; values are JSON, or else text."""
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise StudyError(f"--set {setting}: write key=value, such as --set optimizer.learning_rate=0.05")
        *path, last = key.split(".")
        place: Any = config
        for part in path:
            place = _step_into(place, part, key)
        _put(place, last, json_or_text(text, f"--set {key}"), key)
    return config


def _step_into(place: Any, part: str, key: str) -> Any:
    if isinstance(place, list) and part.isdigit() and int(part) < len(place):
        return place[int(part)]
    if isinstance(place, dict):
        if isinstance(place.get(part), str):
            place[part] = {"name": place[part]}
        return place.setdefault(part, {})
    raise StudyError(f"--set {key}: '{part}' leads nowhere in the configuration")


def _put(place: Any, last: str, value: Any, key: str) -> None:
    if not isinstance(place, dict):
        raise StudyError(f"--set {key}: '{last}' cannot be set inside a {type(place).__name__}")
    place[last] = value


def json_or_text(text: str, option: str) -> Any:
    """What a value given to an option of the command line stands for. Raises StudyError where it begins as JSON, and is
    none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith(("{", "[", '"')):
            return text
        where = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise StudyError(f"{option} {short(text)}: not JSON that can be read ({where})") from None


def _line(path: Path, error: BaseException) -> str:
    """Where in the file the error arose."""
    lines = []
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" (line {lines[-1]})" if lines else ""
