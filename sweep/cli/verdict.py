"""A confirmation's table, and what it means in words."""

from __future__ import annotations

from rich.table import Table

from sweep.analysis.confirm import Confirmed, outcome
from sweep.analysis.statistics import Interval
from sweep.cli.tables import console
from sweep.orchestration.folder import StudyFolder

SURE = 0.05  # a corrected p-value below this is called a difference


def show_confirmation(folder: StudyFolder) -> None:
    """The table of a confirming study, and what it means in words."""
    study = folder.study()
    found = outcome(folder)
    assert study.confirms is not None
    labels = [attack.label for attack in study.confirms.attacks]
    title = f"{study.confirms.study}: {study.confirms.seeds} fresh seeds, test split"
    table = Table(title=title, title_justify="left")
    for name in ("defense", "trial", "searched", "fresh", "clean", *labels, "worst case", "shrinkage", "p"):
        table.add_column(name, justify="left" if name == "defense" else "right", no_wrap=True)
    for one in found:
        table.add_row(*_row(one, labels))
    console.print(table)
    console.print(
        "[dim]searched: the search's value; fresh: the same with fresh seeds (both validation). The rest is the test "
        "split: mean over seeds, 95 % interval over seeds and images. p: against the first row, Holm-corrected[/]"
    )
    for sentence in verdict(found):
        console.print(sentence, markup=False)


def verdict(found: list[Confirmed]) -> list[str]:
    """What may be said, in words."""
    if not found:
        return ["no training completed: nothing can be said"]
    best, others = found[0], [one for one in found[1:] if one.comparison]
    sentences = [
        f"trial {best.number} ({best.defense}), the search's best: {_spread(best.worst_case)} under every attack; "
        f"the search had said {best.searched:.3f}"
    ]
    lists: dict[str, list[str]] = {"better than": [], "worse than": [], "no difference shown from": []}
    for one in others:
        assert one.comparison is not None
        gap = one.comparison.difference.mean
        how = (
            "no difference shown from" if one.comparison.p_holm >= SURE else "better than" if gap > 0 else "worse than"
        )
        lists[how].append(f"trial {one.number} ({one.defense}, {-gap:+.3f})")
    sentences += [f"{how} {', '.join(names)}" for how, names in lists.items() if names]
    for one in found:
        missing = [end for end in one.ends if end != "completed"]
        if missing:
            sentences.append(
                f"trial {one.number}: {len(missing)} of {len(one.ends)} trainings {', '.join(sorted(missing))}"
            )
    return sentences


def _row(one: Confirmed, labels: list[str]) -> list[str]:
    metrics = ["test/clean_accuracy", *(f"test/{label}/adversarial_accuracy" for label in labels)]
    return [
        one.defense + (" (baseline)" if one.is_baseline else ""),
        str(one.number),
        f"{one.searched:.3f}",
        f"{one.validation:.3f}",
        *(f"{one.test[metric]:.3f}" for metric in metrics),
        _spread(one.worst_case),
        f"{one.shrinkage:+.3f}",
        f"{one.comparison.p_holm:.4f}" if one.comparison else "",
    ]


def _spread(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
