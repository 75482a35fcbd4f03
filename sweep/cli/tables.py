"""What people see: tables and closing lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweep.analysis.export import choose
from sweep.analysis.findings import explained, failures, named, suspects
from sweep.analysis.results import best_by_defense
from sweep.analysis.standing import Standing
from sweep.configuration import TrialConfig
from sweep.errors import StudyError, counted
from sweep.exported import Transferred
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.turns import accounts
from sweep.preview import describe_cost
from sweep.study import Study
from sweep.tracking.ledger import Ledger, TrialRecord, readable
from sweep.training import EpochResult

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=120)  # a file or a pipe has no width of its own


def named_trial(study: Study, number: int, width: int = 0) -> str:
    """A trial by its number; of a confirmation, by that which it had in the search, and the seed it is trained with.

    `width` is of the number, in letters.
    """
    if study.confirms is None:
        return f"trial {number:>{width}}"
    candidate, seed = study.confirms.training(number)
    return f"trial {candidate:>{width}}, seed {seed}"


def show_standing(found: Standing) -> None:
    """Who runs it, how far it is, and which trials run."""
    study, ledger = found.study, found.ledger
    state = f"running ({found.runner})" if found.runner else found.state
    spent = f"{describe_cost(ledger.gradient_evaluations)} gradient evaluations, {ledger.hours:.2f} hours"
    console.print(
        f"{found.folder.path}: {state}; {len(ledger.trials)} of {counted(study.budget.trials, 'trial')}, {spent}"
    )
    metric = study.objective[0].metric
    for trial in ledger.in_flight if found.runner else ():
        value = trial.reports.get(trial.epoch, {}).get(metric)
        figure = f"  {metric} {value:.4f}" if value is not None else ""
        console.print(f"  {named_trial(study, trial.number)}  {trial.defense}  epoch {trial.course}{figure}")
    if found.best and found.best.best:
        value = found.best.best["metrics"][metric]
        console.print(f"best: trial {found.best.number} ({found.best.defense}), {metric} {value:.4f}, {found.label}")


def show_results(study: Study, ledger: Ledger, *, include_suspect: bool = False) -> None:
    """Each defense's best completed trial, on the validation split; suspect ones only where asked for."""
    goal = study.objective[0]
    trials = best_by_defense(ledger, goal, include_suspect=include_suspect)
    labels = _attacks_beside(study, trials)
    title = f"{study.name}: the best completed trial of each defense, validation split"
    table = figures_table(title, ("defense", "trial", "clean", *labels, "worst case", "cost"))
    for trial in trials:
        table.add_row(*_result_row(trial, labels, goal.rank(trial.best["metrics"])[0] < 1 if trial.best else False))
    if table.row_count:
        console.print(table)
        console.print(
            "[dim]accuracies in [0, 1], each of one seed; cost: gradient evaluations against standard training[/]"
        )
    if study.compare:
        spent, asked = accounts(study, ledger), Counter(trial.defense for trial in ledger)
        each = ", ".join(
            f"{name} {describe_cost(cost)} ({counted(asked[name], 'trial')})" for name, cost in spent.items()
        )
        console.print(f"tuned with, in gradient evaluations: {each}")
    show_ends(ledger)
    for sentence in suspects(ledger):
        console.print(f"[yellow]suspect[/] {sentence}", soft_wrap=True)


def figures_table(title: str, names: Sequence[str], words: Collection[str] = ("defense",)) -> Table:
    """A table whose figures, and the names above them, are never cut: a figure that is cut is another figure.

    `words` are the columns that hold none.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in names:
        breaks = " " in name or name in words  # where lines may break
        table.add_column(name, justify="left" if name in words else "right", overflow="fold", no_wrap=not breaks)
    return table


def show_ends(ledger: Ledger, noun: str = "trial") -> None:
    """How many ended how, and what failed; `noun` is what they are."""
    counts = ledger.counts()
    console.print(
        f"{counted(len(ledger.trials), noun)}: "
        + (", ".join(f"{n} {end}" for end, n in counts.most_common()) or "none yet")
    )
    _show_errors(ledger, noun)


def _attacks_beside(study: Study, trials: list[TrialRecord]) -> list[str]:
    """The names that attacks report under; where images are preprocessed, the naive attack's follows."""
    first, *others = (attack.label for attack in (study.search_attack, *study.final_attacks))
    naive = f"{first}_naive"
    known = any(f"validation/{naive}/adversarial_accuracy" in trial.final for trial in trials)
    return [first, *([naive] if known else []), *others]


def _result_row(trial: TrialRecord, labels: list[str], violates: bool) -> list[str]:
    figures = (trial.best or {"metrics": {}})["metrics"] | trial.final
    names = ["validation/clean_accuracy", *(f"validation/{label}/adversarial_accuracy" for label in labels)]
    accuracies = [figures.get(name) for name in [*names, "validation/worst_case/adversarial_accuracy"]]
    cost = figures.get("overhead/gradient_evaluations")
    mark = " [yellow](outside the bounds)[/]" if violates else ""
    mark += f" [red](suspect: {', '.join(trial.failed)})[/]" if trial.is_suspect else ""
    return [
        trial.defense + mark,
        str(trial.number),
        *("" if value is None else f"{value:.3f}" for value in accuracies),
        "" if cost is None else f"{cost:.1f}x",
    ]


def _show_errors(ledger: Ledger, noun: str) -> None:
    """Equal errors are one line; the first one's place is told."""
    for end, trials in failures(ledger):
        numbers = [trial.number for trial in trials]
        console.print(
            f"[red]{end}[/] {noun} {named(numbers)}: {escape(readable(trials[0].error or {}))}", soft_wrap=True
        )
    lost = Counter(f"{error['class']}: {error['message']}" for trial in ledger for error in trial.losses)
    for text, count in lost.most_common():
        console.print(f"[yellow]lost and made again[/] {count} x {escape(text)}", soft_wrap=True)


def show_retry(study: str, options: dict[str, str]) -> None:
    """How failed trials get another chance."""
    again = "".join(f" --{name} {value}".rstrip() for name, value in options.items())
    _say(f"retry what failed        sweep resume {study} --retry-failed{again}")


def show_where_to_look(
    folder: StudyFolder, options: dict[str, str], look: str, interrupted: bool, written: list[Path]
) -> None:
    """What to do next. `options` are the command's own, so that what follows finds the same folder and server."""
    name, here = folder.path.name, f" --studies {options['studies']}" if "studies" in options else ""
    again = "".join(f" --{name} {value}".rstrip() for name, value in options.items())
    if interrupted:
        _say(f"interrupted: running trials were saved; go on with   sweep resume {name}{again}")
    else:
        if not folder.study().confirms:
            _say(f"before a claim           sweep confirm {name}{again}")
        _say(_taken_away(folder, here))
    if folder.storage:
        _say(f"from another machine     sweep status {folder.storage}")
    _say(f"look at every trial      {look or f'sweep ui {name}{here}'}")
    _say(f"tables                   {', '.join(map(str, written)) or 'not written: `sweep resume` does so'}")


def _taken_away(folder: StudyFolder, here: str) -> str:
    """How the best is exported, or why it cannot be."""
    confirms = folder.study().confirms
    searched, which = (StudyFolder(folder.path.parent / confirms.study), "confirmed") if confirms else (folder, "best")
    try:
        (choose.confirmed if confirms else choose.best)(searched, searched.ledger())
    except StudyError as error:
        return f"nothing to take away     {error}"
    claim = "" if confirms else "   (unconfirmed)"
    return f"take the best away       sweep export {searched.path.name} --{which} --to best/{here}{claim}"


def unsent_yet(study: str, options: dict[str, str], unsent: int, last_error: str | None) -> str:
    """How many events MLflow lacks, why, and how they get there."""
    again = "".join(f" --{name} {value}" for name, value in options.items() if name in ("studies", "tracking-uri"))
    reason, then = (f": {last_error}", "once MLflow answers, ") if last_error else ("", "")
    return (
        f"MLflow lacks {counted(unsent, 'event')}{reason}; nothing is lost: {then}`sweep sync {study}{again}` sends "
        f"them, and `sweep ui {study}{again}` shows them"
    )


def _say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def show_epoch(config: TrialConfig, result: EpochResult) -> None:
    """A line an epoch."""
    metrics, goal = result.metrics, config.objective[0]
    value = metrics.get(goal.metric)
    clean = metrics.get("validation/clean_accuracy")
    parts = [f"epoch {result.epoch:>3}/{config.epochs}", f"loss {metrics['train/loss']:.4f}"]
    parts += [f"clean {clean:.4f}"] if clean is not None else []
    parts += [f"{goal.metric} {value:.4f}"] if value is not None else []
    parts += [f"epsilon {metrics['epsilon']:.4f}", f"alpha {metrics['alpha']:.3f}"] if metrics["epsilon"] else []
    _say("  ".join(parts))


def show_summary(summary: dict[str, Any]) -> None:
    """A finished trial's figures, rounded: its `metrics.json`, and --json, have them to the last digit."""
    table = Table("figure", "value", title=f"epoch {summary['selected_epoch']} was selected", title_justify="left")
    for name, value in {**summary["selected"], **summary["final"]}.items():
        table.add_row(name, _readable(value))
    console.print(table)
    if summary["validity"] is not None:
        show_findings(summary["validity"])


def _readable(value: float) -> str:
    """Four digits behind the point, unless these say nothing of it, or more than anybody reads."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 0.001 or not value else f"{value:.2g}"


def show_findings(validity: dict[str, Any]) -> None:
    """Whether a trial's adversarial accuracy can be believed, and what to do where not."""
    asked, images = len(validity["figures"]), validity["images"]
    colour = "red" if validity["verdict"] == "suspect" else "green"
    console.print(
        f"[{colour}]{validity['verdict']}[/]: {asked} {validity['level']} checks on {counted(images, 'image')}"
    )
    for outcome, sentence in explained(validity):
        console.print(f"  [yellow]{outcome}[/] {escape(sentence)}", soft_wrap=True)


def show_transfer(transferred: Transferred) -> None:
    """An exported trial under points made on itself and on others; what the white-box attack missed, if anything."""
    table = Table("made on", "accuracy", "missed by the white box", title=transferred.attack, title_justify="left")
    table.add_row("nothing (clean)", f"{transferred.clean.double().mean():.3f}", "")
    table.add_row("itself (white box)", f"{transferred.white_box.double().mean():.3f}", "")
    for source, held in transferred.black_box.items():
        missed = int((transferred.white_box & ~held).sum())
        table.add_row(escape(source), f"{held.double().mean():.3f}", str(missed))
    console.print(table)
    missed, count = int(transferred.missed.sum()), len(transferred.clean)
    if missed:
        console.print(
            f"[yellow]{missed} of {counted(count, 'image')} withstand the white-box attack and not a transferred one: "
            "its figure is too high by at least so much; attack with auto_attack[/]",
            soft_wrap=True,
        )
