"""What a study's run says of itself in MLflow."""

from __future__ import annotations

from pathlib import Path

from tiny_study import complete, searching, tiny

from sweep.orchestration.folder import StudyFolder
from sweep.tracking.description import description


def test_a_run_says_what_was_asked_where_the_report_is_and_what_came_out(tmp_path: Path) -> None:
    with searching(tmp_path, tiny(description="Which defense?\n\nAt length.")) as search:
        for value in (0.4, 0.7):
            complete(search, value)
        best = search.ledger.trials[1]
    folder = StudyFolder.find(tmp_path, "tiny")
    text = description(folder, "r5", "7", is_over=True)
    assert text.startswith("Which defense?\n\n**[Report](#/experiments/7/runs/r5/artifacts/report/report.html)**")
    assert f"| {best.defense} | 1 | 0.700 | 0.900 |  |" in text, "the best of its defense, its worst case unknown"
    assert "2 trials: 2 completed." in text and "unconfirmed" in text
    assert "| judged within | linf (epsilon 0.05) |" in text and "At length" not in text
    assert "0.700" not in description(folder, "r5", "7", is_over=False), "what is not over has no best"
