"""A trial that is to be taken away, and what its figures are worth: a search chose them, or fresh seeds confirm it."""

from __future__ import annotations

from dataclasses import dataclass

from sweep.analysis.confirm import Confirmed, outcome, spread
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord


@dataclass(frozen=True)
class Confirmation:
    """What fresh seeds found on the test split: the confirming study, and its candidates as far as they are trained."""

    folder: StudyFolder
    found: list[Confirmed]
    openings: int  # of the test split, this one included

    def candidate(self, number: int) -> Confirmed | None:
        """What it says of the searched study's trial `number`."""
        return next((one for one in self.found if one.number == number), None)


@dataclass(frozen=True)
class Chosen:
    """A completed trial to take away, from a search or from the confirmation of one."""

    folder: StudyFolder
    study: Study
    trial: TrialRecord
    confirmation: Confirmation | None  # the newest one of the search, whichever of the two the trial belongs to

    @property
    def candidate(self) -> Confirmed | None:
        """What fresh seeds said of the trial's configuration."""
        if self.confirmation is None:
            return None
        confirms = self.study.confirms
        number = confirms.trials[self.trial.number % len(confirms.trials)] if confirms else self.trial.number
        return self.confirmation.candidate(number)

    @property
    def is_confirmed(self) -> bool:
        """Whether it is a training of the candidate that the confirmation was made for, and can be believed."""
        if not self.study.confirms or self.confirmation is None or self.candidate is None:
            return False
        first = self.confirmation.found[0]
        return self.candidate is first and not first.is_baseline and not first.suspect

    @property
    def title(self) -> str:
        """The trial by the search's own number, also where it is one of the trainings that confirm it."""
        if confirms := self.study.confirms:
            again, place = divmod(self.trial.number, len(confirms.trials))
            searched = f"{confirms.study}, trial {confirms.trials[place]}: {self.trial.defense}"
            return f"{searched}, fresh seed {again + 1} of {confirms.seeds}"
        return f"{self.study.name}, trial {self.trial.number}: {self.trial.defense}"

    @property
    def standing(self) -> str:
        """What the trial's figures are worth, in words."""
        if confirms := self.study.confirms:
            number = confirms.trials[self.trial.number % len(confirms.trials)]
            return f"one of {confirms.seeds} seeds that confirm trial {number} of {confirms.study}"
        if self.candidate is None or self.confirmation is None:
            return "unconfirmed"
        seeds = self.candidate.ends.count("completed")
        return (
            f"unconfirmed itself: of {seeds} fresh seeds of its configuration, {spread(self.candidate.worst_case)} of "
            f"the test images withstand every attack ({self.confirmation.folder.path.name})"
        )


def newest(folder: StudyFolder, ledger: Ledger) -> Confirmation | None:
    """The newest confirmation of a searched study that holds a completed training."""
    for place, opening in reversed(list(enumerate(ledger.confirmations, start=1))):
        path = folder.path.parent / opening["name"]
        if (path / "study.json").exists() and (found := outcome(StudyFolder(path))):
            return Confirmation(StudyFolder(path), found, place)
    return None
