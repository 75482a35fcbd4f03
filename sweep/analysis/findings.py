"""What the validity checks found, in sentences for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweep.tracking.ledger import Ledger
from sweep.validity import CHECKS


def explained(validity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(outcome, explanation) of every check that did not pass, the worst first: what was measured, why, what to do."""
    return [
        (outcome, CHECKS[id].explain(validity["figures"][id]) if id in CHECKS else f"{id}: not known to this version")
        for outcome in ("suspect", "investigate")
        for id in validity[outcome]
    ]


def suspects(ledger: Ledger) -> list[str]:
    """How many trials are suspect, and one sentence for each reason, the most frequent first."""
    trials = ledger.suspects
    if not trials:
        return []
    by_check: dict[str, list[int]] = {}
    for trial in trials:
        for id in (trial.validity or {})["suspect"]:
            by_check.setdefault(id, []).append(trial.number)
    count = "1 trial is" if len(trials) == 1 else f"{len(trials)} trials are"
    reasons = sorted(by_check.items(), key=lambda item: -len(item[1]))
    return [f"{count} kept out of every best (docs/validity.md says why)"] + [
        f"trial {', '.join(map(str, numbers))}: {_titled(id)}" for id, numbers in reasons
    ]


def _titled(id: str) -> str:
    return f"{id} {CHECKS[id].title}. {CHECKS[id].remedy}" if id in CHECKS else id
