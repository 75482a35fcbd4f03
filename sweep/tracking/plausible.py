"""Whether what the journal says of a trial's figures can be: a line whose checksum is right may have been changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.errors import JournalError
from sweep.study import Study
from sweep.tracking.ledger import Ledger

_WORST = "worst_case"


def impossible(event: Mapping[str, Any], study: Study, ledger: Ledger) -> str | None:
    """Why an event's figures cannot follow from those that the ledger holds, or None."""
    if event["event"] == "reported":
        return _above_others(event["trial"], event["metrics"])
    if event["event"] != "ended":
        return None
    number = event["trial"]
    selected = ledger.trials[number].selected(study.select, study.objective[0])
    if event["best"] != selected:
        what = f"epoch {selected['epoch']} and its figures" if selected else "none"
        return f"ends trial {number} with another best epoch, or other figures of it, than its reports make: {what}"
    return _above_others(number, event["final"] or {})


def contradicted(journal: Path, line: int, reason: str) -> JournalError:
    """The refusal of a journal whose events do not fit together."""
    return JournalError(
        f"{journal}, line {line}: {reason}; a line is missing, was changed, or is another sweep's: restore the file "
        "from a copy, or delete this line and all after it: the sweep goes on from what is left"
    )


def _above_others(number: int, figures: Mapping[str, float]) -> str | None:
    """Accuracies of the same images that cannot be at once: who withstands an attack is right where it stands, too, and
    who withstands all of them withstands each."""
    for split in ("validation", "test"):
        clean, robust = f"{split}/clean_accuracy", _under_attack(figures, split)
        worst = f"{split}/{_WORST}/adversarial_accuracy"
        pairs = [(name, clean) for name in robust] + [(worst, name) for name in robust]
        for lower, upper in pairs:
            if lower in figures and upper in figures and figures[lower] > figures[upper]:
                values = f"{figures[lower]:.4f} above {upper} {figures[upper]:.4f}"
                return f"says of trial {number} {lower} {values}, which cannot be"
    return None


def _under_attack(figures: Mapping[str, float], split: str) -> list[str]:
    """The adversarial accuracies of a split; what an attack that is not adapted would report is none."""
    ending = "/adversarial_accuracy"
    return [
        name for name in figures if name.startswith(f"{split}/") and name.endswith(ending) and "_naive/" not in name
    ]
