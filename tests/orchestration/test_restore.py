"""A journal that contradicts itself, its study or Optuna is refused with its line, and nothing is written to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_study import METRIC, complete, events, finish, report, searching, tiny

from sweep.errors import JournalError, StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.study import Asha, Study
from sweep.tracking.journal import Journal

Story = list[dict[str, Any]]


def study(**changes: Any) -> Study:
    return tiny(early_stopping=Asha(grace_period=1, reduction_factor=2), **changes)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """Two sessions: a completed trial, a stopped one, and one in flight."""
    with searching(tmp_path, study()) as search:
        complete(search, 0.5, 0.6, 0.7)
        complete(search, 0.4)
    with searching(tmp_path, study()) as search:
        assert search.ask() is not None
        report(search, 2, 1, 0.55)
    return StudyFolder(tmp_path / "tiny")


def retold(folder: StudyFolder, change: Callable[[Story], Any]) -> bytes:
    """The journal with its events changed, every line with a checksum that is right."""
    story = events(folder.path)
    change(story)
    folder.journal.unlink()
    journal = Journal(folder.journal)
    for event in story:
        journal.append(event.pop("event"), **{name: value for name, value in event.items() if name != "time"})
    journal.close()
    return folder.journal.read_bytes()


def place(story: Story, kind: str, trial: int | None = None, epoch: int | None = None) -> int:
    return next(
        number
        for number, event in enumerate(story)
        if (event["event"], event.get("trial"), event.get("epoch")) == (kind, trial, epoch)
    )


def without(kind: str, trial: int, epoch: int | None = None) -> Callable[[Story], Any]:
    return lambda story: story.pop(place(story, kind, trial, epoch))


def changed(kind: str, trial: int, epoch: int | None = None, **fields: Any) -> Callable[[Story], Any]:
    return lambda story: story[place(story, kind, trial, epoch)].update(fields)


def twice(kind: str, trial: int, epoch: int | None = None) -> Callable[[Story], Any]:
    def change(story: Story) -> None:
        at = place(story, kind, trial, epoch)
        story.insert(at, dict(story[at]))

    return change


WRONG: list[tuple[Callable[[Story], Any], str]] = [
    (without("asked", 1), "line 8: 'started' speaks of trial 1, which was never asked"),
    (without("asked", 0), "line 2: 'started' speaks of trial 0, which was never asked"),
    (twice("asked", 0), "line 3: asks trial 0, where trial 1 is the next"),
    (without("reported", 0, 2), "line 5: trial 0 reports epoch 3, where epoch 2 is the next"),
    (twice("reported", 0, 2), "line 6: trial 0 reports epoch 2, where epoch 3 is the next"),
    (twice("ended", 0), "line 8: 'ended' speaks of trial 0, which was over .completed."),
    (changed("reported", 0, 1, rungs={"1": 0.9}), "line 4: says 'continue' and the rungs {'1': 0.9}, where"),
    (changed("reported", 1, 1, decision="continue"), "line 10: says 'continue' .* make 'stop' and {'1': 0.4}"),
    (lambda story: story.pop(0), "line 12: begins session 2, where session 1 is the next"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said.split(":")[1].strip()[:40] for _, said in WRONG])
def test_a_journal_that_contradicts_itself_is_refused(
    change: Callable[[Story], Any], said: str, folder: StudyFolder
) -> None:
    before = retold(folder, change)
    with pytest.raises(JournalError, match=rf"journal\.log, {said}.*delete this line and all after it"), opened(folder):
        raise AssertionError("never reached")
    assert folder.journal.read_bytes() == before


CLEAN, WORST = "validation/clean_accuracy", "validation/worst_case/adversarial_accuracy"
PRAISED: list[tuple[Callable[[Story], Any], str]] = [
    (
        changed("ended", 0, best={"epoch": 3, "metrics": {METRIC: 0.99}}),
        "ends trial 0 with another .*epoch 3",
    ),
    (changed("ended", 0, best=None), "ends trial 0 with another best epoch"),
    (
        changed("ended", 1, best={"epoch": 2, "metrics": {METRIC: 0.99}}),
        "ends trial 1 with another .*epoch 1",
    ),
    (changed("ended", 0, final={METRIC: 0.99, CLEAN: 0.9}), "trial 0 .* 0.9900 above .*clean_accuracy 0.9000, which"),
    (changed("ended", 0, final={METRIC: 0.5, CLEAN: 0.9, WORST: 0.6}), f"trial 0 {WORST} 0.6000 above {METRIC} 0.5000"),
    (changed("reported", 0, 2, metrics={METRIC: 0.99, CLEAN: 0.9}), f"says of trial 0 {METRIC} 0.9900 above {CLEAN}"),
]


@pytest.mark.parametrize(("change", "said"), PRAISED)
def test_figures_that_cannot_be_are_refused_by_whoever_chooses(
    change: Callable[[Story], Any], said: str, folder: StudyFolder
) -> None:
    retold(folder, change)
    with pytest.raises(JournalError, match=rf"journal\.log, line \d+: .*{said}"), opened(folder):
        raise AssertionError("never reached")
    with pytest.raises(JournalError, match=rf"journal\.log, line \d+: .*{said}"):
        folder.ledger()


def test_what_was_not_changed_resumes(folder: StudyFolder) -> None:
    retold(folder, lambda story: None)
    with opened(folder) as search:
        assert search.restored == {"completed": 1, "stopped": 1, "interrupted": 1}
        assert search.rungs is not None and search.rungs.populations() == {1: 3, 2: 1}
        assert search.sampler.states() == {"complete": 1, "pruned": 1, "running": 1}
        assert search.ask() is not None
        for epoch in (2, 3):
            assert report(search, 2, epoch, 0.6)
        finish(search, 2)


def test_another_studys_journal_is_refused(folder: StudyFolder, tmp_path: Path) -> None:
    other = StudyFolder.create(tmp_path / "other", study(seed=1))
    other.journal.write_bytes(folder.journal.read_bytes())
    with pytest.raises(JournalError, match=r"line 1: was written for a study with the fingerprint"), opened(other):
        raise AssertionError("never reached")


def test_a_parameter_that_optuna_would_refuse_is_refused_with_its_trial(folder: StudyFolder) -> None:
    retold(folder, changed("asked", 1, params={"defense": "standard", "optimizer.learning_rate": 77.0}))
    with pytest.raises(StudyError, match="trial 1 of the journal is none of this study's space"), opened(folder):
        raise AssertionError("never reached")
