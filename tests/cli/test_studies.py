"""Commands about whole studies, on two that were really run: list, status while one runs, compare, new."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_commands import TINY, stdout, sweep
from tiny_study import asked, complete, cut, events, report, searching, tiny

from sweep.analysis import results
from sweep.cli.files import load_study
from sweep.orchestration.folder import StudyFolder
from sweep.study import Study
from sweep.tracking.description import description


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two studies that judge alike, and one that judges by another attack."""
    folder = tmp_path_factory.mktemp("workplace")
    for name, changes in (("tiny", {"trials=3": "trials=2"}), ("longer", {"seed=0": "seed=1"})):
        text = TINY.replace('name="tiny"', f'name="{name}"').replace("budget=", "seed=0, budget=")
        for before, after in changes.items():
            text = text.replace(before, after)
        (folder / f"{name}.py").write_text(text)
        sweep("run", f"{name}.py", "--in-process", folder=folder)
    (folder / "other.py").write_text(
        TINY.replace('name="tiny"', 'name="other"').replace("num_steps=2)", "num_steps=3)")
    )
    text = (folder / "other.py").read_text().replace("/pgd_2/", "/pgd_3/").replace("epsilon=0.1)", "epsilon=0.2)")
    (folder / "other.py").write_text(text)
    StudyFolder.create(folder / "studies", load_study(folder / "other.py"))
    return folder


def test_the_list_says_where_each_study_stands(workplace: Path) -> None:
    printed = sweep("list", folder=workplace)
    rows = [line.split() for line in printed.splitlines() if "/" in line]
    assert [row[:3] for row in rows] == [
        ["longer", "finished", "3/3"],
        ["other", "not", "begun"],
        ["tiny", "finished", "2/2"],
    ]
    assert printed.count("unconfirmed") == 2 and "none counts" in printed
    found = {row["name"]: row for row in json.loads(sweep("list", "studies", "--json", folder=workplace))}
    best = found["tiny"]["best"]
    trials = json.loads(sweep("status", "tiny", "--json", folder=workplace))["trials"]
    assert best["value"] == max(trial[f"best/{best['metric']}"] for trial in trials)
    assert (found["other"]["state"], found["other"]["best"], found["other"]["trials"]) == ("not begun", None, 0)
    assert "there is no folder nowhere" in sweep("list", "--studies", "nowhere", folder=workplace, code=2)
    assert "are two folders" in sweep("list", "studies", "--studies", "nowhere", folder=workplace, code=2)


def test_a_damaged_study_hides_no_other(workplace: Path, tmp_path: Path) -> None:
    shutil.copytree(workplace / "studies" / "tiny", tmp_path / "tiny")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    printed = sweep("list", str(tmp_path), folder=workplace)
    assert "broken/study.json cannot be read" in printed and "finished" in printed


def test_the_best_is_confirmed_once_every_seed_was_judged(workplace: Path, tmp_path: Path) -> None:
    for name in ("tiny", "longer"):
        shutil.copytree(workplace / "studies" / name, tmp_path / name)
    options = ("--top", "1", "--seeds", "1", "--no-baselines", "--attack", "fgsm", "--in-process")
    for name in ("tiny", "longer"):
        sweep("confirm", name, *options, "--studies", str(tmp_path), folder=workplace)
    rows = {row["name"]: row for row in json.loads(sweep("list", str(tmp_path), "--json", folder=workplace))}
    found = json.loads(sweep("status", "tiny-confirmation", "--studies", str(tmp_path), "--json", folder=workplace))
    assert [one["number"] for one in found["confirmed"]] == [rows["tiny"]["best"]["trial"]]
    assert rows["tiny"]["best"]["label"] == "confirmed" and rows["tiny-confirmation"]["confirms"] == "tiny"
    said = sweep("compare", "tiny", "longer", "--studies", str(tmp_path), "--json", folder=workplace)
    paired = json.loads(said)["paired"]
    assert (paired["split"], paired["attack"], paired["images"], paired["seeds"]) == (
        "test",
        "pgd_2 and fgsm",
        300,
        [1, 1],
    )
    refused = sweep("compare", "tiny", "tiny-confirmation", "--studies", str(tmp_path), folder=workplace, code=2)
    assert "tiny-confirmation confirms tiny: compare tiny" in refused


def test_two_studies_are_compared_on_the_same_images(workplace: Path) -> None:
    printed = sweep("compare", "tiny", "longer", folder=workplace)
    assert "on the same 300 validation images under pgd_2" in printed
    assert "`sweep confirm` of both says what may be claimed" in printed
    assert "tiny had 2 trials and" in printed and "longer 3 trials and" in printed
    told = json.loads(stdout("compare", "tiny", "longer", "--json", folder=workplace)[0])
    difference = told["paired"]["difference"]
    best = [row["best"] for row in told["studies"]]
    assert difference["mean"] == pytest.approx(best[0]["value"] - best[1]["value"])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    for name, sides in told["defenses"].items():
        assert sum(side["trials"] for side in sides) > 0, name
    assert sum(sides[1]["trials"] for sides in told["defenses"].values()) == 3


def test_studies_of_one_name_are_told_apart_by_as_little_as_it_takes(workplace: Path, tmp_path: Path) -> None:
    for place in ("monday", "tuesday"):
        shutil.copytree(workplace / "studies" / "tiny", tmp_path / "somewhere" / "deep" / place / "tiny")
    paths = [str(tmp_path / "somewhere" / "deep" / place / "tiny") for place in ("monday", "tuesday")]
    printed = sweep("compare", *paths, folder=workplace)
    assert "monday/tiny had 2 trials and" in printed and ", tuesday/tiny 2 trials and" in printed
    assert "deep" not in printed
    assert re.search(r"^ *defense +monday/tiny +tuesday/tiny +difference", printed, re.MULTILINE), printed


def test_long_names_stand_below_the_table(workplace: Path, tmp_path: Path) -> None:
    name = "mnist-of-november-with-a-longer-schedule"
    shutil.copytree(workplace / "studies" / "tiny", tmp_path / name)
    printed = sweep("compare", "tiny", str(tmp_path / name), folder=workplace)
    assert re.search(r"^ *defense +first +second +difference", printed, re.MULTILINE), printed
    assert f"first: tiny; second: {name}" in printed


def test_what_runs_prints_its_end_as_json_alone(workplace: Path) -> None:
    told = json.loads(stdout("resume", "tiny", "--in-process", "--json", folder=workplace)[0])
    assert (told["study"]["name"], told["study"]["state"], len(told["trials"])) == ("tiny", "finished", 2)
    config = "studies/tiny/trials/0000/config.json"
    trial = json.loads(stdout("trial", config, "--set", "epochs=1", "--json", folder=workplace)[0])
    assert trial["selected_epoch"] == 1 and {"fingerprint", "selected", "final", "validity"} <= trial.keys()


def test_what_cannot_be_compared_is_refused_with_the_reason(workplace: Path) -> None:
    printed = sweep("compare", "tiny", "other", folder=workplace, code=2)
    assert "tiny and other cannot be compared: they differ in objective" in printed
    assert "threat_model ({'name': 'linf', 'epsilon': 0.1} and {'name': 'linf', 'epsilon': 0.2})" in printed
    assert "name two different ones" in sweep("compare", "tiny", "studies/tiny", folder=workplace, code=2)


def test_a_study_is_looked_at_while_it_runs(tmp_path: Path) -> None:
    """From the process that holds its lock, even: nobody who looks takes one."""
    with searching(tmp_path / "studies", tiny()) as search:
        complete(search, 0.2, 0.4, 0.3)
        report(search, asked(search).number, 1, 0.25)
        printed = sweep("status", "tiny", folder=tmp_path)
        row = json.loads(sweep("status", "tiny", "--json", folder=tmp_path))["study"]
    assert f"running (process {os.getpid()} on " in printed and "2 of 4 trials" in printed
    assert "trial 1 " in printed and "epoch 1/3" in printed and "unconfirmed" in printed
    assert row["state"] == "running" and row["ends"] == {"completed": 1, "running": 1}
    folder = tmp_path / "studies" / "tiny"
    cut(folder, len(events(folder)) - 1)  # as killed: nobody has closed the session
    for pid, state in ((os.getpid(), "running"), (_gone(), "interrupted")):
        lock = {"host": row["runner"].split(" on ")[1], "pid": pid, "since": 0}
        (folder / "lock").write_text(json.dumps(lock))
        _stands(tmp_path, state)


def test_trials_of_a_study_that_nobody_runs_are_interrupted(tmp_path: Path) -> None:
    """In every table that says how trials ended; nothing of the sort is said of them in MLflow, either."""
    with searching(tmp_path / "studies", tiny()) as search:
        complete(search, 0.2, 0.4, 0.3)
        report(search, asked(search).number, 1, 0.25)
        table = results.write(search.ledger, search.folder.path)[0]  # as at a session's end
    _stands(tmp_path, "interrupted")
    assert pq.read_table(table).column("end").to_pylist() == ["completed", "interrupted"]
    assert "2 trials: 1 completed, 1 interrupted." in description(search.folder, "r5", "7", is_over=True)
    assert "trial 1 is interrupted" in sweep("export", "tiny", "--trial", "1", folder=tmp_path, code=2)


def _stands(root: Path, state: str) -> None:
    """Of the tiny study's two trials the second has this state, as its study does."""
    printed = sweep("status", "tiny", folder=root)
    assert re.search(rf"tiny: {state}\b.*; 2 of 4 trials", printed) and f"2 trials: 1 completed, 1 {state}" in printed
    told = json.loads(sweep("status", "tiny", "--json", folder=root))
    assert told["study"]["state"] == state and told["study"]["ends"] == {"completed": 1, state: 1}
    assert [trial["end"] for trial in told["trials"]] == ["completed", state]


@pytest.mark.parametrize("starter", ["comparison", "digits", "mnist"])
def test_a_starter_is_a_valid_study_named_after_its_file(starter: str, tmp_path: Path) -> None:
    printed = sweep("new", "my_study.py", "--from", starter, folder=tmp_path)
    assert "sweep run my_study.py" in printed
    study = load_study(tmp_path / "my_study.py")
    assert isinstance(study, Study) and study.name == "my_study" and study.space.domains()
    assert study.description.split("\n\n")[0].endswith("?") and "sweep run my_study.py" in study.description
    plan = json.loads(sweep("check", "my_study.py", "--json", folder=tmp_path))
    assert [doubt for doubt in plan["doubts"] if "data cannot be read" not in doubt] == []


def test_a_starter_overwrites_nothing_and_names_the_nearest(tmp_path: Path) -> None:
    sweep("new", "a.py", folder=tmp_path)
    before = (tmp_path / "a.py").read_bytes()
    assert "is there already" in sweep("new", "a.py", "--from", "mnist", folder=tmp_path, code=2)
    assert (tmp_path / "a.py").read_bytes() == before
    assert "did you mean 'digits'" in sweep("new", "b.py", "--from", "digit", folder=tmp_path, code=2)
    assert "such as my_study.py" in sweep("new", "My study.py", folder=tmp_path, code=2)
    assert "there is no folder nowhere" in sweep("new", "nowhere/c.py", folder=tmp_path, code=2)


def _gone() -> int:
    """The number of a process that there is not."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child
