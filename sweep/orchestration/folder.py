"""The study folder: the resolved study, its journal, its trials; one owner at a time.

Where machines share no disk, a store holds it as well (see keeper.py), and the trials' folders in place of this one: a
trial's is brought here when somebody asks for it.

studies/digits/
    study.json     the study in full, its fingerprint, versions and commit; what its budget was before
    journal.log    every event: the truth
    lock           who runs it now
    trials/0007/   config.json; checkpoint.pt until the trial ends; once it completed metrics.json, best.safetensors and
                   last.safetensors; error.txt where it failed
    optuna.log     the Optuna study, rebuilt from the journal (for optuna-dashboard)
    mlflow.db      the MLflow mirror of the journal, where no other was named
    mirror.json    where that is, and how much of the journal it has acknowledged
    storage.json   the store that holds the study as well, if one does
    results.parquet
    report.html    what came out; its pictures, and what it measured, are in report/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from sweep.checkpoint import discard, folder_atomically, write_json
from sweep.errors import StorageError, StudyError, unknown
from sweep.orchestration import lease, lock
from sweep.orchestration.keeper import Keeper, catch_up, kept
from sweep.orchestration.lock import RunsHereError, locked
from sweep.orchestration.provenance import commit, timestamp, versions
from sweep.orchestration.storage import Storage, is_uri
from sweep.study import Budget, Study, study_from
from sweep.tracking import journal
from sweep.tracking.ledger import STRANGE, Ledger, TrialRecord, strange
from sweep.tracking.plausible import contradicted, impossible
from sweep.trial import CHECKPOINT, METRICS

STORAGE = "storage.json"


class StudyFolder:
    """A study on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path / journal.FILE_NAME
        self.keeper: Keeper | None = None  # while this process owns a study that a store holds as well

    @classmethod
    def create(
        cls, root: Path, study: Study, inherited: Mapping[str, Any] | None = None, storage: Storage | None = None
    ) -> StudyFolder:
        """A new folder for `study`, its resolved form written. Refuses to touch a study that is there already.

        `inherited` is what the journal begins with where the study learns from another one (see warm_start.py). With
        `storage`, which holds studies as `root` does, that one will hold it as well.
        """
        folder = cls(root / study.name)
        folder._refuse_taken(study)
        if storage is not None:
            storage = storage / study.name
            if storage.read("study.json") is not None:
                raise StudyError(
                    f"{storage} already holds a study: `sweep resume {storage}` goes on with it; "
                    "to start anew give the study another name, or choose another --storage"
                )
            write_json(folder.path / STORAGE, {"uri": storage.uri})
        else:
            (folder.path / STORAGE).unlink(missing_ok=True)  # of one that was killed here
        record = {
            "fingerprint": study.fingerprint,
            "created": timestamp(),
            "commit": commit(),
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
        if self.exists():
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
        """The folder of a study, by its name under `root`, by its path, or by the URI of a store, which has it brought
        to `root`. One that a store holds as well has what that has, unless the study is being run from here."""
        if is_uri(name):
            return brought(root / (storage := Storage(name)).name, storage)
        for folder in (cls(root / name), cls(Path(name))):
            if folder.exists():
                return brought(folder.path, folder.storage) if folder.storage else folder
        if Path(name).is_dir():
            raise StudyError(f"{name} is a folder without a study: no study.json is in it")
        known = sorted(path.parent.name for path in root.glob("*/study.json"))
        raise StudyError(
            f"{unknown('study', name, known)} in {root}/; `sweep run` starts one, --studies says where they are"
        )

    def exists(self) -> bool:
        return (self.path / "study.json").exists()

    @cached_property
    def storage(self) -> Storage | None:
        """The store that holds this study as well; None where none does."""
        path = self.path / STORAGE
        try:
            return Storage(json.loads(path.read_text())["uri"]) if path.exists() else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{path} cannot be read ({error}); restore it from a copy") from None

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
            was, now = record.get("commit"), commit()
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
            past = {"until": timestamp(), **record["study"]["budget"]}
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
        if owner := lock.runner(self.path):
            return owner
        with suppress(StorageError):
            return lease.runner(self.storage) if self.storage else None
        return None

    def ledger(self) -> Ledger:
        """What the journal says, summed up; empty where nothing was run yet. Raises JournalError where it cannot be.

        A session that was not closed goes on where its owner lives.
        """
        ledger = Ledger()
        if self.journal.exists():
            study = self.study()
            for line, (event, _) in enumerate(journal.read(self.journal), start=1):
                try:
                    if reason := impossible(event, study, ledger):
                        raise contradicted(self.journal, line, reason)
                    ledger.apply(event)
                except STRANGE as error:
                    raise strange(self.journal, line, error) from error
        ledger.is_running = ledger.is_running and self.runner() is not None
        return ledger

    def trial(self, number: int) -> Path:
        """A trial's folder; where a store holds it, what the trial left when it completed, brought here."""
        folder = self.path / _place(number)
        if self.storage and not (folder / METRICS).exists():
            there = self.storage / _place(number)
            if there.read(METRICS) is not None:
                with folder_atomically(folder) as new:
                    there.fetch(new, without=(CHECKPOINT,))
        return folder

    def assigned(self, number: int) -> str:
        """Where a trial's folder is for the machine that runs it: a path, or a store's URI."""
        return (self.storage / _place(number)).uri if self.storage else str((self.path / _place(number)).absolute())

    def clear(self, trial: TrialRecord) -> None:
        """Delete the checkpoint of a trial that is over: on a large network, most of what a sweep writes. A failed one
        keeps it: it may be taken up again."""
        if trial.end in (None, "failed"):
            return
        if self.keeper:
            self.keeper.discard(f"{_place(trial.number)}/{CHECKPOINT}")
        else:
            discard(self.path / _place(trial.number) / CHECKPOINT)

    @contextmanager
    def owned(self, say: Callable[[str], None] = print) -> Iterator[str | None]:
        """Be the only sweep on this study. Gives a sentence where a dead owner's lock was taken over, else None.

        Where a store holds it as well, that is kept abreast until the end; `say` hears when it is away.
        """
        with locked(self.path) as before:
            if self.storage is None:
                yield _taken_over(before)
                return
            with kept(self.path, self.storage, say) as (keeper, owner):
                self.keeper = keeper
                try:
                    yield _taken_over(owner or before)
                finally:
                    self.keeper = None


def brought(path: Path, storage: Storage) -> StudyFolder:
    """The study of a store, in the folder at `path`, which then has what the store has more of it, and beside it the
    studies that it confirms or that confirm it."""
    folder = _copied(path, storage)
    if folder is None:
        raise StudyError(f"{unknown('study', storage.name, storage.parent.folders())} in {storage.parent}")
    confirms = folder.study().confirms
    others = [confirms.study] if confirms else [opening["name"] for opening in folder.ledger().confirmations]
    for name in others:
        _copied(path.parent / name, storage.parent / name)
    return folder


def _copied(path: Path, storage: Storage) -> StudyFolder | None:
    """A study of the store in a folder here; None where there is none."""
    folder = StudyFolder(path)
    if not folder.exists():
        if storage.read("study.json") is None:
            return None
        write_json(path / STORAGE, {"uri": storage.uri})
    elif folder.storage is None or folder.storage.uri != storage.uri:
        raise StudyError(
            f"{path} holds a study of {folder.storage or 'this machine alone'}: choose another --studies folder for "
            f"that of {storage}, or move this one away"
        )
    with suppress(RunsHereError), locked(path):  # where it is run from here, nothing is newer than the folder
        catch_up(path, storage)
    return folder


def _place(number: int) -> str:
    """A trial's folder in that of its study."""
    return f"trials/{number:04d}"


def _taken_over(owner: str | None) -> str | None:
    return f"took over the lock of {owner}, which is gone" if owner else None
