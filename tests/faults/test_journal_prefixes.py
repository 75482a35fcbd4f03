"""Any prefix of a valid journal resumes to what it says; damage anywhere else is refused by file and line."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_study import METRIC, asked, cut, events, finish, report, searching, tiny

from sweep.errors import JournalError, StudyError
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import Search, opened
from sweep.study import Asha, Budget, Study

STUDY: Study = tiny(
    early_stopping=Asha(grace_period=1, reduction_factor=2), budget=Budget(trials=8), sampler="tpe", startup_trials=2
)
STATES = {"completed": "COMPLETE", "stopped": "PRUNED", "diverged": "COMPLETE", "failed": "FAIL", None: "RUNNING"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study's folder after two sessions of two trials at a time, with every end but the timed-out."""
    root = tmp_path_factory.mktemp("whole")
    with searching(root, STUDY) as search:
        first, second = asked(search).number, asked(search).number
        for number, value in ((first, 0.5), (second, 0.6)):
            search.started(number, "here", 1)
            report(search, number, 1, value)
        report(search, first, 2, 0.55)
        report(search, first, 3, 0.7)
        finish(search, first)
        assert not report(search, asked(search).number, 1, 0.1), "the worst of three is stopped"
    with searching(root, STUDY) as search:
        assert asked(search).number == second
        report(search, second, 2, 0.65)
        finish(search, asked(search).number, "diverged")
        finish(search, asked(search).number, "failed")
        report(search, asked(search).number, 1, 0.8)
    return root / STUDY.name


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / STUDY.name)


def lines(folder: Path) -> list[bytes]:
    return (folder / "journal.log").read_bytes().splitlines(keepends=True)


def check(search: Search, folder: Path, count: int) -> None:
    """The ledger, the rungs and Optuna are what the first `count` events of the journal say."""
    prefix = events(folder)[:count]
    ends = {event["trial"]: event["end"] for event in prefix if event["event"] == "ended"}
    known = {event["trial"]: ends.get(event["trial"]) for event in prefix if event["event"] == "asked"}
    assert {trial.number: trial.end for trial in search.ledger} == known
    assert {
        (trial.number, epoch): metrics[METRIC] for trial in search.ledger for epoch, metrics in trial.reports.items()
    } == {
        (event["trial"], event["epoch"]): event["metrics"][METRIC] for event in prefix if event["event"] == "reported"
    }
    recorded = [(event["trial"], level, value) for event in prefix for level, value in event.get("rungs", {}).items()]
    assert search.rungs is not None
    held = [
        (trial, str(level), value) for level, found in search.rungs.values.items() for trial, value in found.items()
    ]
    assert sorted(held) == sorted(recorded)
    assert [trial.state.name for trial in search.sampler.optuna.trials] == [
        STATES[known[number]] for number in sorted(known)
    ]


def test_every_prefix_of_whole_lines_resumes_to_what_it_says(whole: Path, tmp_path: Path) -> None:
    total = len(lines(whole))
    assert total > 20
    for count in range(total + 1):
        folder = shutil.copytree(whole, tmp_path / str(count) / STUDY.name)
        cut(folder, count)
        with opened(StudyFolder(folder)) as search:
            check(search, folder, count)
            open_ones = [trial.number for trial in search.ledger.in_flight if not trial.is_condemned]
            assert [asked(search).number for _ in open_ones] == open_ones, "those in flight come first"
            assert asked(search).number == len(search.ledger.trials) - 1, "and then a new one"
        assert events(folder)[:count] == events(whole)[:count], "nothing is rewritten"


def test_a_journal_torn_at_every_byte_of_its_last_lines_resumes_and_says_so(folder: Path) -> None:
    written = lines(folder)
    content = b"".join(written)
    kept = len(content) - sum(map(len, written[-2:]))
    ends = {kept, kept + len(written[-2]), len(content)}
    study, path = StudyFolder(folder), folder / "journal.log"
    for size in range(kept, len(content) + 1):
        path.write_bytes(content[:size])
        whole_lines = content[:size].count(b"\n")
        said: list[str] = []
        if size in ends or size % 16 == 0:  # opening the search costs more than opening the journal
            with opened(study, say=said.append) as search:
                check(search, folder, whole_lines)
            assert any("cut off" in text and str(path) in text for text in said) == (size not in ends)
        else:
            assert len(events(folder)) == whole_lines
            assert sum(trial.end is not None for trial in study.ledger()) <= 5


def spots() -> Iterator[tuple[str, str]]:
    yield "flipped", "line {line}: does not match its checksum"
    yield "garbage", "does not match its checksum"
    yield "doubled", "line {after}: "
    yield "left out", "line {line}: "
    yield "forged", "line {line}: "


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(list(spots())), st.data())
def test_damage_in_the_middle_is_refused_by_file_and_line(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, spot: tuple[str, str], data: st.DataObject
) -> None:
    what, said = spot
    written = lines(whole)
    # Lines without which the rest is another story; a report that is left out is noticed by the next one.
    asked_lines = [number for number, line in enumerate(written) if b'"event":"asked"' in line]
    line = data.draw(
        st.sampled_from(asked_lines if what in ("left out", "doubled", "forged") else range(len(written) - 2))
    )
    damaged = list(written)
    if what == "flipped":
        place = data.draw(st.integers(0, len(written[line]) - 2))
        damaged[line] = written[line][:place] + bytes([written[line][place] ^ 4]) + written[line][place + 1 :]
    elif what == "garbage":
        damaged.insert(line, data.draw(st.binary(min_size=1, max_size=30)).replace(b"\n", b"") + b"\n")
    elif what == "doubled":
        damaged.insert(line, written[line])
    elif what == "left out":
        del damaged[line]
    else:
        text = written[line][9:-1].replace(b'"trial":', b'"trial":9')
        damaged[line] = b"%08x %s\n" % (zlib.crc32(text), text)
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("damaged") / STUDY.name)
    (folder / "journal.log").write_bytes(b"".join(damaged))
    before = (folder / "journal.log").read_bytes()
    with pytest.raises(JournalError) as refused, opened(StudyFolder(folder)):
        pass
    assert str(folder / "journal.log") in str(refused.value)
    if what != "left out":
        assert said.format(line=line + 1, after=line + 2) in str(refused.value)
    assert (folder / "journal.log").read_bytes() == before, "what is refused is not touched"


def test_events_of_another_version_of_sweep_are_refused_by_file_and_line(whole: Path, tmp_path: Path) -> None:
    """Each kind of event without each of its fields, and an end that is not ours: taken, or refused in words."""
    written, refused = lines(whole), 0
    firsts = {event["event"]: number for number, event in reversed(list(enumerate(events(whole))))}
    folder = shutil.copytree(whole, tmp_path / STUDY.name)
    for kind, number in firsts.items():
        event = events(whole)[number]
        strange = [{name: event[name] for name in event if name != left_out} for left_out in event]
        strange += [event | {"end": "paused"}] if kind == "ended" else []
        for changed in strange:
            text = json.dumps(changed).encode()
            line = b"%08x %s\n" % (zlib.crc32(text), text)
            (folder / "journal.log").write_bytes(b"".join([*written[:number], line, *written[number + 1 :]]))
            try:
                StudyFolder(folder).ledger()
                with opened(StudyFolder(folder)):
                    pass
            except JournalError as error:
                assert f"{folder / 'journal.log'}, line " in str(error), (kind, changed)
                refused += "another version of sweep wrote it" in str(error)
            except StudyError as error:
                assert "study.json" in str(error), (kind, changed)
    assert refused >= 20


def test_a_journal_whose_first_line_is_lost_is_refused(folder: Path) -> None:
    (folder / "journal.log").write_bytes(b"".join(lines(folder)[1:]))
    with pytest.raises(JournalError, match=r"journal.log, line \d+: .* a line is missing"), opened(StudyFolder(folder)):
        pass


def test_garbage_at_the_end_is_one_torn_line_and_more_is_damage(folder: Path) -> None:
    count = len(lines(folder))
    with (folder / "journal.log").open("ab") as file:
        file.write(b"\x00" * 300)  # what a file system leaves of a write that it had no time for
    said: list[str] = []
    with opened(StudyFolder(folder), say=said.append) as search:
        check(search, folder, count)
    assert "cut off 300 bytes" in said[0]
    with (folder / "journal.log").open("ab") as file:
        file.write(b"garbage\nand more\n")
    with pytest.raises(JournalError, match="does not match its checksum"), opened(StudyFolder(folder)):
        pass


def test_an_empty_journal_is_a_study_that_begins(folder: Path) -> None:
    (folder / "journal.log").write_bytes(b"")
    with opened(StudyFolder(folder)) as search:
        check(search, folder, 0)
        assert asked(search).number == 0
