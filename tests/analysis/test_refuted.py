"""What a confirmation disbelieved is believed nowhere: the report, the tables, a comparison, another selection."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from test_confirm import searched, selection
from tiny_study import asked, report

from sweep.analysis import contrast
from sweep.analysis.export import choose
from sweep.analysis.opening import begin, newest, reconsidered, select
from sweep.analysis.report import page, tables, words
from sweep.analysis.standing import standing
from sweep.checkpoint import save_weights
from sweep.cli.run import reconsider
from sweep.cli.tables import show_results
from sweep.cli.verdict import show_confirmation
from sweep.errors import StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.trial import VERDICTS

FINAL = {f"test/{attack}/adversarial_accuracy": 0.5 for attack in ("pgd_2", "fgsm")}


@pytest.fixture
def refuted(tmp_path: Path) -> StudyFolder:
    """Of four trials the best, 2, is suspect in the first of its two trainings that confirm it."""
    folder = searched(tmp_path)
    confirming = begin(folder, selection(folder), again=False)
    validity = {"verdict": "suspect", "suspect": ["V10"], "investigate": [], "figures": {}}
    with opened(confirming) as search:
        number = asked(search).number
        report(search, number, 1, 0.9)
        final = FINAL | {"test/clean_accuracy": 0.95}
        search.hear({"trial": number, "end": "completed", "final": final, "error": None, "validity": validity})
    held = torch.ones(10, dtype=torch.bool)
    save_weights(confirming.trial(number) / VERDICTS, {"clean": held, "worst_case": held.clone()})
    return folder


def test_the_report_counts_it_and_gives_it_no_place(refuted: StudyFolder) -> None:
    text = " ".join(page.write(refuted, measure=False).path.read_text().split())
    assert "Trial 2 was suspect when confirmed, and has no place among the best" in text
    assert "No trial is suspect" not in text
    header, rows = tables.by_defense(refuted.study(), reconsidered(refuted))
    assert [row[header.index("trial")] for row in rows] == ["3", "0"]


def test_what_is_refused_is_not_offered(refuted: StudyFolder) -> None:
    commands = [command for command, _ in words.again(refuted, refuted.study(), refuted.ledger())]
    assert commands == ["sweep export tiny --best --to best/", "sweep trial best/", "sweep report tiny"]


def test_a_confirmation_that_is_gone_is_missed(refuted: StudyFolder) -> None:
    (refuted.path.parent / "tiny-confirmation").rename(refuted.path.parent / "elsewhere")
    ledger = refuted.ledger()
    with pytest.raises(StudyError, match="trial 2 was a candidate of tiny-confirmation, which is not in"):
        choose.best(refuted, ledger)
    assert choose.best(refuted, ledger, include_suspect=True).trial.number == 2
    assert choose.numbered(refuted, ledger, 3).standing == "unconfirmed"


def test_the_parquet_file_says_what_the_report_says(refuted: StudyFolder) -> None:
    reconsider(refuted)
    rows = {row["trial"]: row for row in pq.read_table(refuted.path / "results.parquet").to_pylist()}
    assert (rows[2]["validity"], rows[2]["suspect"]) == ("suspect", "V10")
    assert rows[3]["validity"] != "suspect"


def test_neither_status_nor_a_comparison_shows_it(refuted: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    found = standing(refuted)
    assert found.best and found.best.number == 3
    ((side, _),) = [sides for name, sides in contrast.by_defense(found, found).items() if name != "standard"]
    assert (side.trial, side.value) == (3, 0.7)
    show_results(found.study, found.ledger)
    printed = capsys.readouterr().out
    assert "each of one seed" in printed and "unconfirmed" not in printed
    assert not re.search(r" 2 +0\.900", printed) and "1 trial is kept out of every best" in printed
    show_results(found.study, found.ledger, include_suspect=True)
    assert re.search(r"\(suspect: V10\) +2 +0\.900", capsys.readouterr().out)


def test_it_is_not_selected_again(refuted: StudyFolder) -> None:
    same = selection(refuted)
    assert same.trials == (2, 0), "as what was begun goes on"
    assert select(refuted, top=1, seeds=2, attacks=["fgsm"], baselines=True, again=True).trials == (3, 0)


def test_the_confirmations_table_marks_it_and_compares_it_with_nothing(
    refuted: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    confirming = StudyFolder(refuted.path.parent / "tiny-confirmation")
    with opened(confirming) as search:
        number = asked(search).number
        report(search, number, 1, 0.3)
        final = FINAL | {"test/clean_accuracy": 0.85}
        search.hear({"trial": number, "end": "completed", "final": final, "error": None, "validity": None})
    held = torch.zeros(10, dtype=torch.bool)
    save_weights(confirming.trial(number) / VERDICTS, {"clean": held, "worst_case": held.clone()})
    show_confirmation(confirming)
    printed = capsys.readouterr().out
    assert re.search(r" 2 +0\.900 .*\n *\(suspect\)", printed), printed
    assert re.search(r" 0 +0\.300 .* 0\.000 \[0\.000, 0\.000\] +\+0\.300 *\n *\(baseline\)", printed), printed
    assert "2 trainings: 2 completed" in printed and "suspect trial" not in printed, "their numbers are no trial's"


def test_a_weak_confirmation_is_told_as_one_wherever_it_is_told(refuted: StudyFolder) -> None:
    """Its attacks are the search's PGD, and FGSM."""
    assert "No attack here takes more gradient steps" in page.write(refuted, measure=False).path.read_text()


def test_the_newest_confirmation_is_one_that_says_something(refuted: StudyFolder) -> None:
    again = begin(refuted, selection(refuted, attack="cw_pgd"), again=True)
    ledger = refuted.ledger()
    assert [opening["name"] for opening in ledger.confirmations] == ["tiny-confirmation", again.path.name]
    found = newest(refuted, ledger, 2)
    assert found and found.path.name == "tiny-confirmation"
    with opened(again) as search:
        number = asked(search).number
        report(search, number, 1, 0.9)
        found = newest(refuted, ledger, 2)
        assert found and found.path.name == "tiny-confirmation"
        search.hear({"trial": number, "end": "completed", "final": FINAL, "error": None})
    found = newest(refuted, ledger, 2)
    assert found and found.path == again.path
    assert newest(refuted, ledger) and newest(refuted, ledger, 3) is None
