"""What a confirmation disbelieved is believed nowhere: the report, the tables, a comparison, another selection."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from test_confirm import searched, selection
from tiny_study import asked, report

from sweep.analysis import contrast
from sweep.analysis.opening import begin, newest_for, reconsidered, select
from sweep.analysis.report import page, tables
from sweep.analysis.standing import standing
from sweep.checkpoint import save_weights
from sweep.cli.tables import show_results
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.trial import VERDICTS


@pytest.fixture
def refuted(tmp_path: Path) -> StudyFolder:
    """Of four trials the best, 2, is suspect in the first of its two trainings that confirm it."""
    folder = searched(tmp_path)
    confirming = begin(folder, selection(folder), again=False)
    validity = {"verdict": "suspect", "suspect": ["V10"], "investigate": [], "figures": {}}
    with opened(confirming) as search:
        number = asked(search).number
        report(search, number, 1, 0.9)
        final = {"test/clean_accuracy": 0.95}
        search.hear({"trial": number, "end": "completed", "final": final, "error": None, "validity": validity})
    save_weights(confirming.trial(number) / VERDICTS, {"worst_case": torch.ones(10, dtype=torch.bool)})
    return folder


def test_the_report_counts_it_and_gives_it_no_place(refuted: StudyFolder) -> None:
    text = " ".join(page.write(refuted, measure=False).path.read_text().split())
    assert "Trial 2 was suspect when confirmed, and has no place among the best" in text
    assert "No trial is suspect" not in text
    header, rows = tables.by_defense(refuted.study(), reconsidered(refuted))
    assert [row[header.index("trial")] for row in rows] == ["3", "0"]


def test_neither_status_nor_a_comparison_shows_it(refuted: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = standing(refuted)
    assert found.best and found.best.number == 3
    ((side, _),) = [sides for name, sides in contrast.by_defense(found, found).items() if name != "standard"]
    assert (side.trial, side.value) == (3, 0.7)
    show_results(found.study, found.ledger)
    printed = capsys.readouterr().out
    assert not re.search(r" 2 +0\.900", printed) and "1 trial is kept out of every best" in printed
    show_results(found.study, found.ledger, include_suspect=True)
    assert re.search(r"\(suspect: V10\) +2 +0\.900", capsys.readouterr().out)


def test_it_is_not_selected_again(refuted: StudyFolder) -> None:
    same = selection(refuted)
    assert same.trials == (2, 0), "as what was begun goes on"
    assert select(refuted, top=1, seeds=2, attacks=["fgsm"], baselines=True, again=True).trials == (3, 0)


def test_the_newest_confirmation_is_one_that_has_begun(refuted: StudyFolder) -> None:
    again = begin(refuted, selection(refuted, attack="cw_pgd"), again=True)
    ledger = refuted.ledger()
    assert [opening["name"] for opening in ledger.confirmations] == ["tiny-confirmation", again.path.name]
    found = newest_for(refuted, ledger, 2)
    assert found and found.path.name == "tiny-confirmation"
    with opened(again):
        pass
    found = newest_for(refuted, ledger, 2)
    assert found and found.path == again.path
    assert newest_for(refuted, ledger, 3) is None
