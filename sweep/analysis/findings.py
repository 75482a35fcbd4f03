"""What the validity checks found, and what failed, for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.errors import counted
from sweep.tracking.ledger import Ledger, TrialRecord
from sweep.validity import CHECKS

_OUTCOMES = ("suspect", "investigate")  # the worst first
_NAMED = 8  # trials of many that are named


def explained(validity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(outcome, explanation) of every check that did not pass, the worst first: what was measured, why, what to do."""
    return [(outcome, _explained(validity, id)) for outcome in _OUTCOMES for id in validity[outcome]]


def named(numbers: Sequence[int]) -> str:
    """Trials by number: of many the first."""
    if len(numbers) <= _NAMED + 1:
        return ", ".join(map(str, numbers))
    return f"{', '.join(map(str, numbers[:_NAMED]))} and {len(numbers) - _NAMED} more"


def doubts(ledger: Ledger) -> list[tuple[str, list[TrialRecord], str]]:
    """(outcome, trials, explanation of the first one's) of every check that a trial did not pass, the worst first."""
    grouped: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in ledger:
        for outcome in _OUTCOMES if trial.validity else ():
            for id in (trial.validity or {})[outcome]:
                grouped.setdefault((outcome, id), []).append(trial)
    ordered = sorted(grouped.items(), key=lambda item: (_OUTCOMES.index(item[0][0]), -len(item[1])))
    return [(outcome, trials, _explained(trials[0].validity or {}, id)) for (outcome, id), trials in ordered]


def suspects(ledger: Ledger) -> list[str]:
    """How many trials are suspect, and one sentence for each reason, the most frequent first."""
    trials = ledger.suspects
    if not trials:
        return []
    by_check: dict[str, list[int]] = {}
    for trial in trials:
        for id in trial.failed:
            by_check.setdefault(id, []).append(trial.number)
    count = f"{counted(len(trials), 'trial')} {'is' if len(trials) == 1 else 'are'}"
    reasons = sorted(by_check.items(), key=lambda item: -len(item[1]))
    return [f"{count} kept out of every best (docs/validity.md says why)"] + [
        f"trial {named(numbers)}: {_titled(id)}" for id, numbers in reasons
    ]


def titles(checks: Sequence[str]) -> str:
    """Checks by number and name."""
    return ", ".join(f"{id} {CHECKS[id].title}" if id in CHECKS else id for id in checks)


def failures(ledger: Ledger) -> list[tuple[str, list[TrialRecord]]]:
    """Trials by how they ended and their error; errors that differ in their numbers only are one."""
    grouped: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in ledger:
        if trial.error:
            text = re.sub(r"\d+(\.\d+)?", "#", f"{trial.error['class']}: {trial.error['message']}")
            grouped.setdefault((str(trial.end), text), []).append(trial)
    return [(end, trials) for (end, _), trials in grouped.items()]


def _explained(validity: Mapping[str, Any], id: str) -> str:
    return CHECKS[id].explain(validity["figures"][id]) if id in CHECKS else f"{id}: not known to this version"


def _titled(id: str) -> str:
    return f"{titles([id])}. {CHECKS[id].remedy}" if id in CHECKS else id
