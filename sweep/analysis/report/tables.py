"""The tables of a report: a header, and rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.analysis.comparison import Outcome
from sweep.analysis.confirm import Confirmed, spread
from sweep.analysis.report.accuracy import value
from sweep.analysis.results import best_by_defense
from sweep.analysis.statistics import effect_size
from sweep.objective import Goal
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord

Table = tuple[list[str], list[list[str]]]
_ACCURACY = "adversarial_accuracy"


def by_defense(study: Study, ledger: Ledger) -> Table:
    """Each defense's best completed trial on the validation split: what it reaches, and what it cost."""
    trials = best_by_defense(ledger, study.objective[0])
    first, *others = (attack.label for attack in (study.search_attack, *study.final_attacks))
    naive = (
        [f"{first}_naive"] if any(f"validation/{first}_naive/{_ACCURACY}" in trial.final for trial in trials) else []
    )
    metrics = {"clean": "validation/clean_accuracy"}
    metrics |= {label: f"validation/{label}/{_ACCURACY}" for label in (first, *naive, *others)}
    metrics |= {
        "worst case": f"validation/worst_case/{_ACCURACY}",
        "gap": "validation/worst_case/robustness_gap",
        "ECE": f"validation/{first}/calibration_error",
        "NLL": f"validation/{first}/negative_log_likelihood",
    }
    header = ["defense", "trial", *metrics, "gradient evaluations", "overhead", "seconds", "memory MB", "validity"]
    return header, [_row(trial, metrics, study.objective[0]) for trial in trials]


def confirmed(found: Sequence[Confirmed]) -> Table:
    """Each confirmed configuration on the test split."""
    labels = [
        name for name in (found[0].test if found else ()) if name.endswith(f"/{_ACCURACY}") and name.count("/") == 2
    ]
    labels = [name.split("/")[1] for name in labels if "worst_case" not in name]
    header = ["defense", "trial", "searched", "fresh seeds", "clean", *labels, "worst case", "gap", "shrinkage"]
    header += ["difference to the first", "effect (h)", "p (Holm)"]
    return header, [_confirmed_row(one, found[0], labels) for one in found]


def at_equal_cost(study: Study, found: Sequence[Outcome]) -> Table:
    """Pairs of defenses at the cost that both had spent."""
    metric = study.objective[0].metric
    header = [
        "first",
        "other",
        "cost of each",
        "best of the first",
        "of the other",
        "difference",
        "effect (h)",
        "p (Holm)",
    ]
    return header, [
        [
            one.pair.defense,
            one.pair.other,
            f"{one.pair.cost:,.0f}",
            *(_reached(trial, metric) for trial in (one.pair.first, one.pair.second)),
            "" if one.difference is None else _signed(one.difference.mean, one.difference.low, one.difference.high),
            "" if one.effect is None else f"{one.effect:+.2f} {one.size}",
            number(one.p_holm, 4),
        ]
        for one in found
    ]


def cost(ledger: Ledger) -> Table:
    """What each defense's trials cost together."""
    rows = []
    for defense in sorted({trial.defense for trial in ledger}):
        trials = [trial for trial in ledger if trial.defense == defense]
        ends = [sum(trial.end == end for trial in trials) for end in ("completed", "stopped")]
        spent = sum(trial.gradient_evaluations for trial in trials)
        share = spent / ledger.gradient_evaluations if ledger.gradient_evaluations else 0.0
        seconds, validating = (sum(parts) for parts in zip(*(trial.timed for trial in trials), strict=True))
        counts = [len(trials), *ends, len(trials) - sum(ends)]
        rows.append([defense, *map(str, counts), f"{spent:,.0f}", f"{share:.0%}", f"{seconds:,.0f}"])
        rows[-1].append(f"{validating / seconds:.0%}" if seconds else "")
    header = [
        "defense",
        "trials",
        "completed",
        "stopped",
        "other",
        "gradient evaluations",
        "share",
        "seconds of epochs",
        "of them validation",
    ]
    return header, rows


def number(found: float | None, digits: int = 3) -> str:
    """A figure as text; nothing where there is none."""
    return "" if found is None else f"{found:,.{digits}f}"


def _row(trial: TrialRecord, metrics: dict[str, str], goal: Goal) -> list[str]:
    figures = (trial.best or {"metrics": {}})["metrics"] | trial.final
    overhead = figures.get("overhead/gradient_evaluations")
    return [
        trial.defense + ("" if trial.rank(goal)[0] == 1 else " (outside the bounds)"),
        str(trial.number),
        *(number(figures.get(metric)) for metric in metrics.values()),
        f"{trial.gradient_evaluations:,.0f}",
        "" if overhead is None else f"{overhead:.1f}x",
        number(_seconds(trial), 1),
        number(figures.get("peak_memory_mb"), 0),
        trial.validity["verdict"] if trial.validity else "unchecked",
    ]


def _confirmed_row(one: Confirmed, first: Confirmed, labels: list[str]) -> list[str]:
    clean, worst = one.clean.mean, one.worst_case.mean
    is_believed = not one.suspect and not first.suspect  # else neither is better nor worse
    comparison = one.comparison if is_believed else None
    gap = comparison.difference if comparison else None
    return [
        one.defense + (" (baseline)" if one.is_baseline else "") + (" (suspect)" if one.suspect else ""),
        str(one.number),
        number(one.searched),
        number(one.validation),
        spread(one.clean),
        *(number(one.test.get(f"test/{label}/{_ACCURACY}")) for label in labels),
        spread(one.worst_case),
        number(clean - worst),
        f"{one.shrinkage:+.3f}",
        "" if gap is None else _signed(-gap.mean, -gap.high, -gap.low),
        "" if gap is None else f"{effect_size(worst, first.worst_case.mean):+.2f}",
        number(comparison.p_holm, 4) if comparison else "",
    ]


def _seconds(trial: TrialRecord) -> float | None:
    """Of training, up to the last epoch."""
    return trial.reports[trial.epoch].get("seconds") if trial.reports else None


def _reached(trial: TrialRecord | None, metric: str) -> str:
    return "none" if trial is None else f"{value(trial, metric):.3f} (trial {trial.number})"


def _signed(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
