"""The study folder: the resolved study, its journal, its trials; one owner at a time.

studies/digits/
    study.json     the study in full, its fingerprint, versions and commit; what its budget was before
    journal.log    every event: the truth
    lock           who runs it now
    trials/0007/   config.json; checkpoint.pt until the trial ends; once it completed metrics.json, best.safetensors and
                   last.safetensors; error.txt where it failed
    optuna.log     the Optuna study, rebuilt from the journal (for optuna-dashboard)
    mlflow.db      the MLflow mirror of the journal, where no other was named
    mirror.json    where that is, and how much of the journal it has acknowledged
    results.parquet
    report.html    what came out; its pictures, and what it measured, are in report/
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

from sweep.checkpoint import discard, write_json
from sweep.errors import StudyError, unknown
from sweep.resources import is_alive
from sweep.study import Budget, Study, study_from
from sweep.tracking import journal
from sweep.tracking.ledger import STRANGE, Ledger, TrialRecord, strange
from sweep.trial import CHECKPOINT

PACKAGES = ("robust-sweep", "torch", "torchvision", "ray", "optuna", "mlflow", "numpy", "pyarrow")


class StudyFolder:
    """A study on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / journal.FILE_NAME

    @classmethod
    def create(cls, root: Path, study: Study, inherited: Mapping[str, Any] | None = None) -> StudyFolder:
        """A new folder for `study`, its resolved form written. Refuses to touch a study that is there already.

        `inherited` is what the journal begins with where the study learns from another one (see warm_start.py).
        """
        folder = cls(root / study.name)
        folder._refuse_taken(study)
        record = {
            "fingerprint": study.fingerprint,
            "created": _now(),
            "commit": _commit(),
            "versions": versions(),
            "study": study.to_json(),
        }
        folder.path.mkdir(parents=True, exist_ok=True)
        with folder.owned():
            folder._refuse_taken(study)  # somebody else may have been quicker
            folder.journal.unlink(missing_ok=True)  # of one that was killed here
            if inherited:
                with closing(journal.Journal(folder.journal)) as new:
                    new.append("inherited", **inherited)
            write_json(folder.path / "study.json", record)
        return folder

    def _refuse_taken(self, study: Study) -> None:
        """Raise StudyError where a study is here already, or something of one."""
        if (self.path / "study.json").exists():
            known = self.record()["fingerprint"]
            same = "this very study" if known == study.fingerprint else f"another study (fingerprint {known})"
            raise StudyError(
                f"{self.path} already holds {same}: `sweep resume {study.name}` goes on with it; "
                "to start anew give the study another name, choose another --studies folder, or move this one away"
            )
        events = journal.read(self.journal) if self.journal.exists() else ()
        if any(event["event"] != "inherited" for event, _ in events):
            raise StudyError(
                f"{self.path} holds a journal but no study.json; restore that from a copy, or move this folder away"
            )

    @classmethod
    def find(cls, root: Path, name: str) -> StudyFolder:
        """The folder of a study, by its name under `root` or by its path."""
        for path in (root / name, Path(name)):
            if (path / "study.json").exists():
                return cls(path)
        known = sorted(path.parent.name for path in root.glob("*/study.json"))
        raise StudyError(
            f"{unknown('study', name, known)} in {root}/; `sweep run` starts one, --studies says where they are"
        )

    def record(self) -> dict[str, Any]:
        """What `study.json` holds."""
        path = self.path / "study.json"
        try:
            record = json.loads(path.read_text())
            if not isinstance(record, dict) or not {"study", "fingerprint"} <= record.keys():
                raise ValueError("it has no study and fingerprint in it")
        except (OSError, ValueError) as error:
            raise StudyError(f"{path} cannot be read ({error}); restore it from a copy") from None
        return record

    def study(self) -> Study:
        """The resolved study. Refuses a file whose fingerprint is not that of its content."""
        record = self.record()
        study = study_from(record["study"], str(self.path / "study.json"))
        if study.fingerprint != record["fingerprint"]:
            was, now = record.get("commit"), _commit()
            other = "" if was == now else f", or go on with the sweep that wrote it (commit {was}; this is {now})"
            raise StudyError(
                f"{self.path / 'study.json'} was changed: its content's fingerprint is {study.fingerprint}, it says "
                f"{record['fingerprint']}; restore it, or start another study{other}"
            )
        return study

    def extend(self, **more: float | None) -> tuple[Budget, Budget]:
        """Add to the budget's limits, each named as in `Budget`; gives it as it was and as it is.

        `study.json` is replaced at once, and keeps what the budget was before under "budgets". Raises StudyError where
        a sweep runs here, and where there is no such limit to add to.
        """
        with self.owned():
            before = self.study().budget
            limits = before.model_dump()
            for name, addition in more.items():
                if addition is None:
                    continue
                if limits[name] is None:
                    raise StudyError(f"{self.path}: its budget sets no limit of {name.replace('_', ' ')} to add to")
                limits[name] += addition
            record = self.record()
            extended = record["study"] | {"budget": limits}
            after = study_from(extended, f"the extended budget of {self.path}").budget
            past = {"until": _now(), **record["study"]["budget"]}
            record["budgets"] = [*record.get("budgets", []), past]
            record["study"]["budget"] = after.model_dump(mode="json")
            write_json(self.path / "study.json", record)
        return before, after

    def searched(self) -> Path | None:
        """The folder, beside this one, of the study that this one confirms; None where it confirms nothing."""
        confirms = self.study().confirms
        return self.path.parent / confirms.study if confirms else None

    def runner(self) -> str | None:
        """The process that runs a sweep here, as far as its lock's file tells; None where it is gone. Takes no lock."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            owner = json.loads((self.path / "lock").read_text())
            if owner["host"] != socket.gethostname() or is_alive(owner["pid"]):
                return f"process {owner['pid']} on {owner['host']}"
        return None

    def ledger(self) -> Ledger:
        """What the journal says, summed up; empty where nothing was run yet."""
        ledger = Ledger()
        if self.journal.exists():
            for line, (event, _) in enumerate(journal.read(self.journal), start=1):
                try:
                    ledger.apply(event)
                except STRANGE as error:
                    raise strange(self.journal, line, error) from error
        return ledger

    def trial(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}"

    def clear(self, trial: TrialRecord) -> None:
        """Delete the checkpoint of a trial that is over: on a large network, most of what a sweep writes. A failed one
        keeps it: it may be taken up again."""
        if trial.end not in (None, "failed"):
            discard(self.trial(trial.number) / CHECKPOINT)

    @contextmanager
    def owned(self) -> Iterator[str | None]:
        """Be the only sweep on this folder. Gives a sentence where a dead owner's lock was taken over, else None."""
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StudyError(
                    f"{self.path} is being run by {_owner(file) or 'another process'}; wait for it or stop it"
                ) from None
            except OSError as error:
                raise StudyError(
                    f"{self.path} is on a file system without locks ({error.strerror}): choose another --studies folder"
                ) from None
            before = _owner(file)
            _write(file, json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}))
            try:
                yield f"took over the lock of {before}, which is gone" if before else None
            finally:
                _write(file, "")


def versions() -> dict[str, str]:
    """Of Python and of every package that figures may depend on, where installed."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _commit() -> str | None:
    """The commit of the code that runs, with a plus where it was changed; None outside a repository."""
    here = Path(sys.modules["sweep"].__file__ or ".").parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _owner(file: TextIO) -> str:
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):
        return ""


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
