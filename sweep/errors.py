"""Errors meant for people: what was given, what is allowed, the nearest right name, what to do.

    SweepError
    ├── ConfigurationError    a study, search space or trial configuration; holds every problem found, not the first
    ├── DataError             a dataset that is absent, malformed or of the wrong shape
    ├── CheckpointError       a checkpoint, or a file that a trial left, that cannot be used
    ├── DiskFullError         a disk without room for what is to be written
    ├── JournalError          a journal line that does not parse: names file and line
    ├── StorageError          a store that cannot be used, as without credentials
    │   └── StorageAwayError  one that does not answer now
    ├── StudyError            a study folder that is absent, taken, or another study's
    ├── Diverged              training produced a non-finite loss (a trial's end, not a fault)
    └── Collapsed             robustness was lost to catastrophic overfitting (a trial's end as well)

The command line prints a SweepError as its sentence and exits with 2; anything else is a defect of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class SweepError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigurationError(SweepError):
    """Everything wrong with a configuration, gathered."""

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.subject = subject
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(
                [
                    f"{subject}: {counted(len(self.problems), 'mistake')}",
                    *(f"  - {problem}" for problem in self.problems),
                ]
            )
        )


class DataError(SweepError):
    """A dataset that cannot be read."""


class CheckpointError(SweepError):
    """A checkpoint, or a file that a trial left, that cannot be used."""


class DiskFullError(SweepError):
    """A disk that has no room left: whatever ran goes on once there is some."""


class JournalError(SweepError):
    """A journal that cannot be trusted."""


class StorageError(SweepError):
    """A store that cannot be used before somebody mends something."""


class StorageAwayError(StorageError):
    """A store that does not answer now, and may by itself do so later."""


class StudyError(SweepError):
    """A study folder that cannot be used for what was asked."""


class Diverged(SweepError):  # noqa: N818  # a trial's end, not a fault
    """Training produced a non-finite loss."""


class Collapsed(SweepError):  # noqa: N818  # a trial's end, not a fault
    """Robustness was lost to catastrophic overfitting, and the study stops such trials."""


def counted(count: float, thing: str) -> str:
    """So many of a thing, which gets its plural's s: 1 trial, 1,200 trials, 0.5 hours."""
    shown = f"{count:,}" if isinstance(count, int) else f"{count:,g}"
    return f"{shown} {thing}" if count == 1 else f"{shown} {thing}s"


def unknown(what: str, given: object, allowed: Iterable[str]) -> str:
    """The sentence for a name that is not among the allowed ones, with the nearest right one first."""
    names = sorted(allowed)
    close = get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown {what} '{given}'{hint} (allowed: {', '.join(names) or 'none'})"
