"""Where a study stands, from its folder: read without a lock, and so from another terminal while it runs as well."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sweep.analysis.confirm import is_confirmed
from sweep.analysis.opening import newest, reconsidered
from sweep.errors import StudyError
from sweep.orchestration.budget import Spending
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.storage import Storage, is_uri
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

State = Literal["not begun", "running", "interrupted", "finished"]


@dataclass(frozen=True)
class Standing:
    """A study as it stands now."""

    folder: StudyFolder
    study: Study
    ledger: Ledger
    state: State
    runner: str | None  # the process that runs it, on which machine
    age: float  # seconds since it was created
    best: TrialRecord | None  # by the first goal, within its bounds; of a confirmation none
    is_confirmed: bool  # whether every fresh seed of the best was judged on the test split, is believed, within bounds

    def row(self) -> dict[str, Any]:
        """As JSON; docs/json.md says what each key holds."""
        study, ledger, best, metric = self.study, self.ledger, self.best, self.study.objective[0].metric
        return {
            "name": study.name,
            "folder": str(self.folder.path),
            "state": self.state,
            "runner": self.runner,
            "age_seconds": round(self.age, 3),
            "confirms": study.confirms.study if study.confirms else None,
            "trials": len(ledger.trials),
            "ends": dict(ledger.counts()),
            "budget": study.budget.model_dump(mode="json"),
            "gradient_evaluations": ledger.gradient_evaluations,
            "hours": ledger.hours,
            "best": best
            and best.best
            and {
                "trial": best.number,
                "defense": best.defense,
                "metric": metric,
                "value": best.best["metrics"][metric],
                "label": self.label,
            },
        }

    @property
    def label(self) -> str:
        """What the best trial's figure is worth."""
        return "confirmed" if self.is_confirmed else "unconfirmed"


def standing(folder: StudyFolder) -> Standing:
    """Raises StudyError or JournalError where the folder cannot be read."""
    study, ledger, runner = folder.study(), reconsidered(folder), folder.runner()
    best = None if study.confirms else _best(study, ledger)
    return Standing(
        folder=folder,
        study=study,
        ledger=ledger,
        state=_state(study, ledger, runner),
        runner=runner,
        age=_age(folder),
        best=best,
        is_confirmed=best is not None and _is_confirmed(folder, ledger, best.number),
    )


def within(root: str) -> list[str]:
    """Every study in a folder, or in a store (a URI), by name: its path, or its URI.

    Raises StudyError where there is no such folder, and StorageError where the store cannot be read.
    """
    if is_uri(root):
        store = Storage(root)
        return [(store / name).uri for name in store.folders() if (store / name).read("study.json") is not None]
    if not Path(root).is_dir():
        raise StudyError(f"there is no folder {root}; `sweep run` makes one, --studies says where studies are")
    return [str(path.parent) for path in sorted(Path(root).glob("*/study.json"))]


def _state(study: Study, ledger: Ledger, runner: str | None) -> State:
    if runner:
        return "running"
    if not ledger.sessions:
        return "not begun"
    return "finished" if Spending(study, ledger).is_over and not ledger.in_flight else "interrupted"


def _best(study: Study, ledger: Ledger) -> TrialRecord | None:
    goal = study.objective[0]
    return next((trial for trial in ledger.ranked(goal) if trial.rank(goal)[0] == 1), None)


def _is_confirmed(folder: StudyFolder, ledger: Ledger, number: int) -> bool:
    """From the newest confirmation that trained this trial."""
    there = newest(folder, ledger, number)
    return there is not None and is_confirmed(there, number)


def _age(folder: StudyFolder) -> float:
    created = folder.record().get("created", "")
    try:
        return max(time.time() - datetime.fromisoformat(created).timestamp(), 0.0)
    except ValueError:
        return 0.0
