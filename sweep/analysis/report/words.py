"""What a report says: rows and sentences, from a study and its journal. Figures are in `figures.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from sweep.analysis.confirm import Confirmed, verdict
from sweep.analysis.results import best_by_defense
from sweep.orchestration.early_stopping import Rungs
from sweep.study import Study
from sweep.tracking import journal
from sweep.tracking.ledger import Ledger, TrialRecord

_FEWEST = 5  # completed trials below which a rank correlation is not worth printing
_TRUSTED = 0.7  # a rank correlation above this means that early stopping mostly stopped the right ones


@dataclass(frozen=True)
class RungRow:
    """One rung: how many reached it, and how well it foretold the end among those that were let through."""

    level: int
    reached: int
    went_on: int
    correlation: float | None  # Spearman's, with the completed trials' final objective
    compared: int


def asked(study: Study) -> list[tuple[str, str]]:
    """What was asked, as label and value."""
    goal, tree = study.objective[0], study.space.tree
    bounds = [
        f"{name} at least {bound.at_least:g}" if bound.at_least is not None else f"{name} at most {bound.at_most:g}"
        for name, bound in goal.subject_to.items()
    ]
    limits = [f"{study.budget.trials} trials"]
    limits += [f"{study.budget.hours:g} hours"] if study.budget.hours else []
    stopping = "none"
    if rule := study.early_stopping:
        resource = rule.resource.replace("_", " ")
        stopping = f"ASHA: one in {rule.reduction_factor} goes on, from {rule.grace_period:,} {resource}"
    return [
        ("objective", ", with ".join([f"{goal.direction} {goal.metric}", *bounds])),
        ("judged within", _text(tree["threat_model"])),
        ("data and model", f"{_text(tree['dataset'])}; {_text(tree['model'])}"),
        ("searched", f"{len(study.space.domains())} parameters, by {study.sampler}"),
        ("budget", ", ".join(limits)),
        ("early stopping", stopping),
        ("fingerprint", study.fingerprint),
    ]


def headline(study: Study, ledger: Ledger, found: Sequence[Confirmed], validation: int | None) -> list[str]:
    """What won and by how much, in sentences. `validation` is the number of validation images, where known."""
    if found:
        return [f"{sentence[0].upper()}{sentence[1:]}." for sentence in verdict(found)]
    best = best_by_defense(ledger, study.objective[0])
    if not best:
        return ["No trial completed, so nothing can be said."]
    metric = study.objective[0].metric
    reached = [_with_error(trial, metric, validation) for trial in best[:2]]
    sentences = [f"Trial {best[0].number} ({best[0].defense}) has the best {metric}: {reached[0]}."]
    sentences += [f"Next is {trial.defense} (trial {trial.number}): {reached[1]}." for trial in best[1:2]]
    sentences.append(
        "These are the best of many trials on the very images that chose them, one seed each: "
        f"`sweep confirm {study.name}` says what is left of them."
    )
    return sentences


def table(study: Study, ledger: Ledger) -> tuple[list[str], list[list[str]]]:
    """Each defense's best completed trial: header and rows of text."""
    labels = [attack.label for attack in (study.search_attack, *study.final_attacks)]
    metrics = {"clean": "validation/clean_accuracy"}
    metrics |= {label: f"validation/{label}/adversarial_accuracy" for label in labels}
    metrics |= {
        "worst case": "validation/worst_case/adversarial_accuracy",
        "gap": "validation/worst_case/robustness_gap",
        "ECE": f"validation/{labels[0]}/calibration_error",
        "NLL": f"validation/{labels[0]}/negative_log_likelihood",
    }
    header = ["defense", "trial", *metrics, "gradient evaluations", "seconds", "memory MB", "validity"]
    return header, [_row(trial, metrics) for trial in best_by_defense(ledger, study.objective[0])]


def rungs(study: Study, ledger: Ledger, path: Path) -> list[RungRow]:
    """What early stopping did, from the journal at `path`."""
    if study.early_stopping is None:
        return []
    recorded = Rungs(study.early_stopping, study.objective[0])
    for event, _ in journal.read(path):
        if event["event"] == "reported":
            recorded.record(event["trial"], event["rungs"])
    levels, rows = sorted(recorded.values), []
    for place, level in enumerate(levels):
        values = recorded.values[level]
        done = [trial for trial in ledger if trial.number in values and trial.end == "completed" and trial.best]
        final = [recorded.value(trial.best["metrics"]) for trial in done if trial.best]
        early = [values[trial.number] for trial in done]
        reached_next = recorded.values[levels[place + 1]] if place + 1 < len(levels) else {}
        went_on = sum(trial in reached_next or ledger.trials[trial].end == "completed" for trial in values)
        rows.append(RungRow(level, len(values), went_on, _correlation(early, final), len(done)))
    return rows


def trust(rows: Sequence[RungRow]) -> str:
    """Whether early stopping could be trusted, in a sentence."""
    known = [row for row in rows if row.correlation is not None]
    if not known:
        return "Too few trials completed to say whether early ranks foretold the end."
    first = known[0]
    assert first.correlation is not None
    if first.correlation >= _TRUSTED:
        judgement = "so what was stopped there was mostly what would have lost"
    elif first.correlation > 0:
        judgement = "so some of what was stopped there may have won: give trials a later first rung to be surer"
    else:
        judgement = "so early ranks said nothing of the end: do not trust what was stopped"
    return (
        f"Among the {first.compared} trials that completed, ranks at the first rung and at the end correlate at "
        f"{first.correlation:.2f} (Spearman), {judgement}. Stopped trials have no end to compare with."
    )


def failures(ledger: Ledger) -> list[tuple[str, str]]:
    """Equal errors as one line: the error, and the trials."""
    grouped: dict[str, list[str]] = {}
    for trial in ledger:
        if trial.error:
            text = f"{trial.end}: {trial.error['class']}: {trial.error['message']}"
            grouped.setdefault(text, []).append(str(trial.number))
    return [(text, ", ".join(numbers)) for text, numbers in grouped.items()]


def _row(trial: TrialRecord, metrics: dict[str, str]) -> list[str]:
    figures = (trial.best or {"metrics": {}})["metrics"] | trial.final
    return [
        trial.defense,
        str(trial.number),
        *(_number(figures.get(metric)) for metric in metrics.values()),
        f"{trial.gradient_evaluations:,.0f}",
        _number(figures.get("seconds"), 1),
        _number(figures.get("peak_memory_mb"), 0),
        trial.validity["verdict"] if trial.validity else "unchecked",
    ]


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _with_error(trial: TrialRecord, metric: str, images: int | None) -> str:
    value = trial.best["metrics"][metric] if trial.best else math.nan
    if images is None or not metric.endswith("accuracy"):
        return f"{value:.4f}"
    return f"{value:.3f} ± {math.sqrt(value * (1 - value) / images):.3f} (standard error of {images:,} images)"


def _correlation(early: Sequence[float], final: Sequence[float]) -> float | None:
    if len(early) < _FEWEST or len(set(early)) == 1 or len(set(final)) == 1:
        return None
    if not np.isfinite([*early, *final]).all():
        return None
    return float(spearmanr(early, final).statistic)


def _text(component: Any) -> str:
    """A component of the space as a name and its parameters."""
    if not isinstance(component, dict):
        return str(component)
    rest = ", ".join(f"{key} {value}" for key, value in component.items() if key != "name")
    return f"{component.get('name')}" + (f" ({rest})" if rest else "")
