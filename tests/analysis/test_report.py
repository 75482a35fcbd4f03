from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs
from tiny_study import METRIC, asked, complete, report, searching, tiny

from sweep.analysis import findings, results
from sweep.analysis.importance import importances
from sweep.analysis.report import accuracy, course, page, stopping, tables, words
from sweep.errors import StudyError
from sweep.objective import AtLeast, Maximize
from sweep.orchestration.folder import StudyFolder
from sweep.study import Asha
from sweep.tracking.ledger import Ledger


def told(root: Path, values: tuple[float, ...], **changes: object) -> StudyFolder:
    """A study whose trials reported these, without training."""
    study = tiny(budget={"trials": 100}, **changes)
    with searching(root, study) as search:
        for value in values:
            complete(search, value / 2, value)
        results.write(search.ledger, search.folder.path)
    return StudyFolder.find(root, "tiny")


def test_a_page_without_a_network_says_what_won(tmp_path: Path) -> None:
    folder = told(tmp_path, (0.3, 0.6, 0.5))
    text = page.write(folder).path.read_text()
    assert "Trial 1" in text and "<code>sweep confirm tiny</code> says" in text
    assert "0.600 ± 0.049 (standard error of 100 images)" in text
    ours = text.replace(get_plotlyjs(), "")
    assert len(ours) < 200_000
    assert re.findall(r"https?:", ours) == []
    assert "Plotly.newPlot" in text


def test_the_table_is_that_of_the_parquet_file(tmp_path: Path) -> None:
    folder = told(tmp_path, (0.3, 0.6, 0.5, 0.4))
    rows = pq.read_table(folder.path / "results.parquet").to_pylist()
    best: dict[str, tuple[float, int]] = {}
    for row in rows:
        best[row["defense"]] = max(best.get(row["defense"], (-1.0, -1)), (row[f"best/{METRIC}"], row["trial"]))
    header, shown = tables.by_defense(folder.study(), folder.ledger())
    places = {name: header.index(name) for name in ("defense", "trial", "pgd_2")}
    found = {row[places["defense"]]: (float(row[places["pgd_2"]]), int(row[places["trial"]])) for row in shown}
    assert found == best


def test_every_trial_and_the_front_are_those_of_the_parquet_file(tmp_path: Path) -> None:
    folder = told(tmp_path, (0.3, 0.6, 0.5, 0.6))
    rows = pq.read_table(folder.path / "results.parquet").to_pylist()
    (figure,) = accuracy.clean_against_adversarial(folder.study(), folder.ledger(), [])
    traces = {trace.name: trace for trace in figure.data}
    for defense in {row["defense"] for row in rows}:
        points = [
            (row["best/validation/clean_accuracy"], row[f"best/{METRIC}"]) for row in rows if row["defense"] == defense
        ]
        assert list(zip(traces[defense].x, traces[defense].y, strict=True)) == points
    assert set(traces["front"].y) == {0.6}


def test_the_best_are_drawn_again_where_the_others_leave_them_a_corner(tmp_path: Path) -> None:
    folder = told(tmp_path, (0.01, *(0.9, 0.8) * 10), space={"defense": "standard"})
    _, closer = accuracy.clean_against_adversarial(folder.study(), folder.ledger(), [])
    low, high = closer.layout.yaxis.range
    assert 0.7 < low < 0.9 < high < 1
    assert [len(trace.x) for trace in closer.data if trace.name == "standard"] == [21]


def test_of_many_trials_the_first_are_named() -> None:
    assert findings.named([3, 5]) == "3, 5"
    assert findings.named(range(20)) == "0, 1, 2, 3, 4, 5, 6, 7 and 12 more"


def test_the_best_so_far_is_that_of_the_parquet_file(tmp_path: Path) -> None:
    folder = told(tmp_path, (0.3, 0.6, 0.5, 0.7, 0.2))
    rows = pq.read_table(folder.path / "results.parquet").to_pylist()
    figure = course.best_so_far(folder.study(), folder.ledger())
    assert figure is not None
    for trace in figure.data:
        own = [row for row in rows if row["defense"] == trace.name]
        costs = [row["gradient_evaluations"] for row in own]
        assert list(trace.x) == [sum(costs[: place + 1]) for place in range(len(own))]
        assert list(trace.y) == [max(row[f"best/{METRIC}"] for row in own[: place + 1]) for place in range(len(own))]


def test_the_area_below_the_front() -> None:
    """Two squares that overlap, and a point that both beat; by hand."""
    assert results.hypervolume([(0.8, 0.5), (0.5, 0.8), (0.4, 0.4)]) == pytest.approx(0.5 * 0.8 + 0.3 * 0.5)


def test_early_stopping_is_judged_by_those_that_completed(tmp_path: Path) -> None:
    """Values at the rung (half of the end's) order as the end does, so the correlation is 1."""
    rule = Asha(grace_period=1, reduction_factor=50)
    folder = told(tmp_path, (0.3, 0.6, 0.5, 0.4, 0.8, 0.7), early_stopping=rule)
    rows = stopping.rungs(folder.study(), folder.ledger(), folder.journal)
    assert [(row.level, row.reached, row.went_on, row.compared) for row in rows] == [(1, 6, 6, 6)]
    assert rows[0].correlation == pytest.approx(1.0)
    assert rows[0].with_next is None
    assert "mostly what would have lost" in stopping.trust(rows)


def test_promoted_trials_are_ranked_with_what_they_were_promoted_from(tmp_path: Path) -> None:
    """Half of what the whole training comes to at the first rung, and a third of it at the second."""
    rule = Asha(kind="promotion", grace_period=1, reduction_factor=2)
    study = tiny(budget={"trials": 40}, early_stopping=rule, space={"epochs": 3})
    rates: dict[int, float] = {}
    with searching(tmp_path, study) as search:
        for _ in range(40):
            trial = asked(search)
            number, epochs = trial.number, trial.config["epochs"]
            rates[number] = trial.config["optimizer"]["learning_rate"]
            for epoch in range(1, epochs + 1):
                report(search, number, epoch, rates[number] * (1, 1 / 3, 2)[epochs - 1])
            if epochs == 3:
                search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": None})
        ledger, counts = search.ledger, search.ledger.counts()
    folder = StudyFolder.find(tmp_path, "tiny")
    rows = stopping.rungs(folder.study(), folder.ledger(), folder.journal)
    lengths = [sum(trial.config["epochs"] == epochs for trial in ledger) for epochs in (1, 2, 3)]
    assert [(row.level, row.reached, row.went_on) for row in rows] == [
        (1, lengths[0], lengths[1]),
        (2, lengths[1], lengths[2]),
    ]
    assert [row.compared for row in rows] == [counts["completed"]] * 2 and counts["completed"] == lengths[2] >= 5
    assert [row.correlation for row in rows] == [row.with_next for row in rows] == pytest.approx([1.0, 1.0])
    assert "is trained again, for longer" in dict(words.asked(study))["early stopping"]


def test_suspect_trials_count_at_no_rung(tmp_path: Path) -> None:
    """As in early stopping itself, from which their values are taken once they are found out."""
    study = tiny(budget={"trials": 100}, early_stopping=Asha(grace_period=1, reduction_factor=50))
    with searching(tmp_path, study) as search:
        for place in range(3):
            number = asked(search).number
            report(search, number, 1, 0.1 * place)
            validity = {"verdict": "suspect", "suspect": ["V8"], "investigate": [], "figures": {}} if place else None
            search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": validity})
        assert search.rungs is not None
        populations = search.rungs.populations()
    folder = StudyFolder.find(tmp_path, "tiny")
    rows = stopping.rungs(folder.study(), folder.ledger(), folder.journal)
    assert {row.level: row.reached for row in rows} == populations == {1: 1}


def test_early_ranks_that_say_nothing_are_told(tmp_path: Path) -> None:
    study = tiny(budget={"trials": 100}, early_stopping=Asha(grace_period=1, reduction_factor=50))
    with searching(tmp_path, study) as search:
        for place in range(6):
            number = asked(search).number
            report(search, number, 1, 0.1 * place)
            report(search, number, 2, 0.9 - 0.06 * place)
            search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": None})
    folder = StudyFolder.find(tmp_path, "tiny")
    assert "do not trust" in stopping.trust(stopping.rungs(folder.study(), folder.ledger(), folder.journal))


def test_a_parameter_that_decides_everything_is_named(tmp_path: Path) -> None:
    """The objective is the learning rate and nothing else, but for suspects, of whom it is the opposite."""
    study = tiny(budget={"trials": 100}, sampler="random")
    with searching(tmp_path, study) as search:
        for _ in range(40):
            assignment = asked(search)
            rate = assignment.config["optimizer"]["learning_rate"]
            is_suspect = assignment.number % 3 == 0
            report(search, assignment.number, 1, 1 - rate * 3 if is_suspect else rate * 3)
            validity = (
                {"verdict": "suspect", "suspect": ["V8"], "investigate": [], "figures": {}} if is_suspect else None
            )
            end = {"end": "completed", "final": {}, "error": None, "validity": validity}
            search.hear({"trial": assignment.number, **end})
    shares = importances(study, search.ledger)["adversarial_training"]
    honest = Ledger({trial.number: trial for trial in search.ledger if not trial.is_suspect})
    assert shares == importances(study, honest)["adversarial_training"]
    assert max(shares, key=lambda name: shares[name]) == "optimizer.learning_rate"
    assert sum(shares.values()) == pytest.approx(1.0)


def test_what_is_outside_of_the_bounds_is_not_called_the_best(tmp_path: Path) -> None:
    """Every trial tells of a clean accuracy of 0.9 (tiny_study.py)."""
    metric = "validation/clean_accuracy"
    outside = told(tmp_path / "outside", (0.3, 0.6), objective=Maximize(METRIC, subject_to={metric: AtLeast(0.95)}))
    (sentence,) = words.headline(outside.study(), outside.ledger(), None, None)
    assert sentence.startswith(f"No completed trial keeps the objective's bounds ({metric} at least 0.95)")
    assert "(outside the bounds)" in str(tables.by_defense(outside.study(), outside.ledger()))
    within = told(tmp_path / "within", (0.3, 0.6), objective=Maximize(METRIC, subject_to={metric: AtLeast(0.85)}))
    assert words.headline(within.study(), within.ledger(), None, None)[0].startswith("Trial 1 ")
    assert "(outside the bounds)" not in str(tables.by_defense(within.study(), within.ledger()))


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    folder = told(tmp_path, (0.3,), description="<script>alert(1)</script>")
    assert "<script>alert(1)" not in page.write(folder).path.read_text()


def test_a_study_without_trials_has_nothing_to_report(tmp_path: Path) -> None:
    with searching(tmp_path):
        pass
    with pytest.raises(StudyError, match="no trials to report yet"):
        page.write(StudyFolder.find(tmp_path, "tiny"))
