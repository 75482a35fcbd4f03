"""A confirmation's table, and what it means in words."""

from __future__ import annotations

from sweep.analysis.confirm import Confirmed, outcome, spread, verdict
from sweep.analysis.opening import disbelieved, history
from sweep.cli.tables import console, figures_table, show_ends
from sweep.errors import counted
from sweep.orchestration.folder import StudyFolder


def show_confirmation(folder: StudyFolder) -> None:
    """The table of a confirming study, and what it means in words."""
    study = folder.study()
    found = outcome(folder)
    assert study.confirms is not None
    labels = [attack.label for attack in study.confirms.attacks]
    title = f"{study.confirms.study}: {counted(study.confirms.seeds, 'fresh seed')}, test split"
    names = ("defense", "trial", "searched", "fresh", "clean", *labels, "worst case", "shrinkage", "p")
    table = figures_table(title, names)
    for one in found:
        table.add_row(*_row(one, found[0], labels))
    console.print(table)
    console.print(
        "[dim]searched: the search's value; fresh: the same with fresh seeds (both validation). The rest is the test "
        "split: mean over seeds, 95 % interval over seeds and images. p: against the first row, Holm-corrected; what "
        "is suspect is compared with nothing. baseline: the first enqueued trial of its defense that completed[/]"
    )
    if absent := [str(number) for number in study.confirms.trials if number not in {one.number for one in found}]:
        console.print(f"trial {', '.join(absent)}: no training completed, so nothing is said of it", markup=False)
    searched = folder.searched()
    told = history(StudyFolder(searched).ledger()) if searched else []
    for sentence in [*verdict(study, found), *told]:
        console.print(sentence, markup=False)
    show_ends(folder.ledger(), "training")


def show_openings(folder: StudyFolder) -> None:
    """What confirmations mean for a searched study: how often the test split was opened, and who was not believed."""
    ledger = folder.ledger()
    for sentence in history(ledger):
        console.print(sentence, markup=False)
    for number, failed in disbelieved(folder, ledger).items():
        console.print(f"trial {number} was suspect when confirmed ({', '.join(failed)}), and is no best", markup=False)


def _row(one: Confirmed, first: Confirmed, labels: list[str]) -> list[str]:
    is_believed = not one.suspect and not first.suspect  # else neither is better nor worse
    marks = ["baseline"] * one.is_baseline + ["[red]suspect[/]"] * bool(one.suspect)
    metrics = ["test/clean_accuracy", *(f"test/{label}/adversarial_accuracy" for label in labels)]
    return [
        one.defense + (f"\n({', '.join(marks)})" if marks else ""),
        str(one.number),
        f"{one.searched:.3f}",
        f"{one.validation:.3f}",
        *(f"{one.test[metric]:.3f}" for metric in metrics),
        spread(one.worst_case),
        f"{one.shrinkage:+.3f}",
        f"{one.comparison.p_holm:.4f}" if one.comparison and is_believed else "",
    ]
