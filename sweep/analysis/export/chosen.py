"""A trial that is to be taken away, and what its figures are worth: a search chose them, or fresh seeds confirm it."""

from __future__ import annotations

from dataclasses import dataclass

from sweep.analysis.confirm import Confirmed, outcome, spread
from sweep.analysis.opening import disbelieved, history, newest
from sweep.errors import counted
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord


@dataclass(frozen=True)
class Confirmation:
    """What fresh seeds found on the test split: the confirming study, and its candidates as far as they are trained."""

    folder: StudyFolder
    found: list[Confirmed]
    openings: tuple[str, ...]  # every confirmation of the searched study, in order, this one included
    history: list[str]  # the same, in sentences
    disbelieved: dict[int, list[str]]  # the validity checks that any of them saw fail, by the trial's number

    @classmethod
    def of(cls, searched: StudyFolder, ledger: Ledger, there: StudyFolder, found: list[Confirmed]) -> Confirmation:
        """A confirmation of the searched study, whose journal knows of all of them."""
        return cls(there, found, openings(ledger), history(ledger), disbelieved(searched, ledger))

    def candidate(self, number: int) -> Confirmed | None:
        """What it says of the searched study's trial `number`."""
        return next((one for one in self.found if one.number == number), None)


@dataclass(frozen=True)
class Chosen:
    """A completed trial to take away, from a search or from the confirmation of one."""

    folder: StudyFolder
    study: Study
    trial: TrialRecord
    confirmation: Confirmation | None  # the newest one of its configuration, whichever of the two the trial belongs to

    @property
    def number(self) -> int:
        """The trial's, or of the one that it confirms, in the search."""
        confirms = self.study.confirms
        return confirms.training(self.trial.number)[0] if confirms else self.trial.number

    @property
    def candidate(self) -> Confirmed | None:
        """What fresh seeds said of the trial's configuration."""
        return self.confirmation.candidate(self.number) if self.confirmation else None

    @property
    def disbelieved(self) -> list[str]:
        """The validity checks that its configuration failed when it was confirmed."""
        if self.confirmation is None:
            return []
        now = self.candidate.suspect if self.candidate else ()
        return sorted({*now, *self.confirmation.disbelieved.get(self.number, ())})

    @property
    def is_suspect(self) -> bool:
        """Whether a validity check disbelieves the trial, or its configuration."""
        return self.trial.is_suspect or bool(self.disbelieved)

    @property
    def is_confirmed(self) -> bool:
        """Whether it is a training of the candidate that the confirmation was made for, and that one is confirmed."""
        if not self.study.confirms or self.confirmation is None or self.candidate is None:
            return False
        first = self.confirmation.found[0]
        return self.candidate is first and not first.is_baseline and not first.lacking

    @property
    def title(self) -> str:
        """The trial by the search's own number, also where it is one of the trainings that confirm it."""
        if confirms := self.study.confirms:
            number, seed = confirms.training(self.trial.number)
            return f"{confirms.study}, trial {number}: {self.trial.defense}, fresh seed {seed} of {confirms.seeds}"
        return f"{self.study.name}, trial {self.trial.number}: {self.trial.defense}"

    @property
    def standing(self) -> str:
        """What the trial's figures are worth, in words."""
        if confirms := self.study.confirms:
            is_confirmed = self.candidate and not self.candidate.lacking
            what = f"trial {self.number} of {confirms.study}"
            if confirms.seeds == 1:
                return f"the one seed that {'confirms' if is_confirmed else 'was to confirm'} {what}"
            return f"one of {confirms.seeds} seeds that {'confirm' if is_confirmed else 'were to confirm'} {what}"
        if self.candidate is None or self.confirmation is None:
            return "unconfirmed"
        seeds = self.candidate.ends.count("completed")
        return (
            f"unconfirmed itself: of {counted(seeds, 'fresh seed')} of its configuration, "
            f"{spread(self.candidate.worst_case)} of the test "
            f"images withstand every attack ({self.confirmation.folder.path.name})"
        )


def confirmation(folder: StudyFolder, ledger: Ledger, number: int | None = None) -> Confirmation | None:
    """The newest confirmation of a searched study that says something: of trial `number`, where given."""
    there = newest(folder, ledger, number)
    return Confirmation.of(folder, ledger, there, outcome(there)) if there else None


def openings(ledger: Ledger) -> tuple[str, ...]:
    """The names of a searched study's confirmations, in order."""
    return tuple(opening["name"] for opening in ledger.confirmations)
