"""The command line as a user meets it: real commands on a tiny real study, and what wrong input says."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mirrored_study import free_port
from PIL import Image

from sweep import __version__
from sweep.cli import COMMANDS, main, run

TINY = '''"""A study for tests: two defenses on 200 digits."""

from sweep.study import Asha, Budget, Choice, LogUniform, Maximize, OneOf, SearchSpace, Study

STUDY = Study(
    name="tiny",
    space=SearchSpace(
        dataset=dict(name="digits", train_size=200),
        model=dict(name="small_cnn", width=4),
        threat_model=dict(name="linf", epsilon=0.1),
        epochs=2,
        optimizer=dict(name="sgd", learning_rate=LogUniform(0.01, 0.1)),
        defense=OneOf(
            standard={},
            adversarial_training=dict(epsilon=0.1, attack=dict(name="pgd", num_steps=Choice(1, 2))),
        ),
    ),
    search_attack=dict(name="pgd", num_steps=2),
    final_attacks=[dict(name="fgsm")],
    objective=Maximize("validation/pgd_2/adversarial_accuracy"),
    sampler="random",
    budget=Budget(trials=3),
)
'''


def documented(command: str) -> set[str]:
    """The keys of a section's table in docs/json.md."""
    section = (Path(__file__).parents[2] / "docs" / "json.md").read_text().split(f"## sweep {command}\n")[1]
    rows = [line.split(" | ")[0] for line in section.split("\n## ")[0].splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def sweep(*arguments: str, folder: Path, code: int = 0) -> str:
    """Run a command in `folder`, in this process; everything it printed."""
    printed = io.StringIO()
    _run(*arguments, folder=folder, code=code, out=printed, err=printed)
    return printed.getvalue()


def stdout(*arguments: str, folder: Path) -> tuple[str, str]:
    """The same for one that succeeds; what it printed on its standard output, and on standard error."""
    out, err = io.StringIO(), io.StringIO()
    _run(*arguments, folder=folder, code=0, out=out, err=err)
    return out.getvalue(), err.getvalue()


def _run(*arguments: str, folder: Path, code: int, out: io.StringIO, err: io.StringIO) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as done,
    ):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["sweep", *arguments])
        main()
    assert (done.value.code or 0) == code, out.getvalue() + err.getvalue()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny study was run, without Ray."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "tiny.py").write_text(TINY)
    printed = sweep("run", "tiny.py", "--in-process", folder=folder)
    assert "3 trials: 3 completed" in printed
    assert "sweep export tiny --best" in printed
    return folder


def test_an_exported_trial_gives_the_same_figures_alone(workplace: Path) -> None:
    printed = sweep("export", "tiny", "--best", "--to", "best", folder=workplace)
    assert "unconfirmed" in printed
    assert (workplace / "best" / "README.md").read_text().startswith("# tiny, trial ")
    assert "reproduced: every figure" in sweep("trial", "best", folder=workplace)


def test_a_trial_is_compared_with_what_was_there_and_overwrites_nothing(workplace: Path) -> None:
    sweep("export", "tiny", "--trial", "0", "--to", "kept", folder=workplace)
    path = workplace / "kept" / "metrics.json"
    assert "holds a finished trial" in sweep("trial", "kept", "--to", "kept", folder=workplace, code=2)
    known = json.loads(path.read_text())
    known["final"]["validation/clean_accuracy"] = 0.77
    path.write_text(json.dumps(known))
    assert "not the figures" in sweep("trial", "kept", folder=workplace, code=1)
    path.write_text("[1]")
    assert "holds no figures" in sweep("trial", "kept", folder=workplace, code=2)


def test_exported_trials_are_set_on_one_another(workplace: Path) -> None:
    for number in ("0", "1"):
        sweep("export", "tiny", "--trial", number, "--to", f"export-{number}", folder=workplace)
    printed = sweep("transfer", "export-0", "export-1", "export-0", folder=workplace)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert printed.startswith("pgd_2"), printed
    assert [row[0] for row in rows] == ["nothing (clean)", "itself (white box)", "export-1", "export-0"]
    assert all(float(row[1]) <= float(rows[0][1]) for row in rows), "what is wrong where it stands is never robust"
    assert all(row[2].isdigit() for row in rows[2:])
    told = json.loads(sweep("transfer", "export-0", "export-1", "export-0", "--json", folder=workplace))
    assert told["images"] == 300 and f"{told['white_box']:.3f}" == rows[1][1]
    assert {source: f"{value:.3f}" for source, value in told["black_box"].items()} == {r[0]: r[1] for r in rows[2:]}
    assert "unknown attack 'pgdd'; did you mean 'pgd'" in sweep(
        "transfer", "export-0", "export-1", "--attack", "pgdd", folder=workplace, code=2
    )
    wrong_ball = sweep("transfer", "export-0", "export-1", "--attack", "carlini_l2", folder=workplace, code=2)
    assert "carlini_l2 means nothing under linf" in wrong_ball
    assert "there is no configuration at" in sweep("transfer", "export-0", "nowhere", folder=workplace, code=2)


def test_a_confirmation_crowns_no_seed_of_its_own(workplace: Path) -> None:
    """Nor does a trial open the test split by itself: it may repeat what was confirmed."""
    options = ("--top", "1", "--seeds", "1", "--no-baselines", "--attack", "fgsm", "--in-process")
    confirmed = sweep("confirm", "tiny", *options, folder=workplace)
    assert "sweep export tiny --confirmed --to best/\n" in confirmed and "before a claim" not in confirmed
    assert "the search's best" in sweep("status", "tiny-confirmation", folder=workplace)
    assert "`sweep report tiny` tells" in sweep("report", "tiny-confirmation", folder=workplace, code=2)
    assert "luckiest seed" in sweep("export", "tiny-confirmation", "--best", folder=workplace, code=2)
    printed = sweep("export", "tiny-confirmation", "--trial", "0", "--to", "seed", folder=workplace)
    told = re.search(r"^tiny, trial (\d): \w+, fresh seed 1 of 1; .* the one seed that confirms trial \1 of", printed)
    assert told and re.search(rf"^trial +{told[1]}, seed 1 +\w+ +completed", confirmed, re.MULTILINE), confirmed
    assert "reproduced" in sweep("trial", "seed", folder=workplace)
    for setting in ("seed=3", 'test_attacks=["pgd"]'):
        refused = sweep("trial", "seed", "--set", setting, folder=workplace, code=2)
        assert "`sweep confirm` alone opens the test split" in refused


def test_markup_in_an_error_is_text(tmp_path: Path) -> None:
    text = TINY.replace('dict(name="digits", train_size=200)', 'dict(name="image_folder", folder="[/x]", size=8)')
    (tmp_path / "tiny.py").write_text(text)
    assert "[/x]" in sweep("check", "tiny.py", folder=tmp_path)


def test_a_changed_seed_is_another_trial(workplace: Path) -> None:
    sweep("export", "tiny", "--trial", "0", "--to", "zero", folder=workplace)
    printed = sweep(
        "trial", "zero/config.json", "--set", "seed=1", "--set", "epochs=1", "--to", "again", folder=workplace
    )
    assert "another configuration" in printed
    metrics = json.loads((workplace / "again" / "metrics.json").read_text())
    assert metrics["selected_epoch"] == 1
    assert json.loads((workplace / "again" / "config.json").read_text())["seed"] == 1


def test_export_never_overwrites_unasked(workplace: Path) -> None:
    sweep("export", "tiny", "--trial", "1", "--to", "one", folder=workplace)
    before = (workplace / "one" / "config.json").read_bytes()
    assert "--force" in sweep("export", "tiny", "--trial", "2", "--to", "one", folder=workplace, code=2)
    assert (workplace / "one" / "config.json").read_bytes() == before
    out, _ = stdout("export", "tiny", "--trial", "2", "--to", "one", "--force", "--json", folder=workplace)
    told = json.loads(out)
    assert told.keys() == documented("export") and told["registered"] is None
    assert (
        "one/config.json" in told["files"] and {"trial": 2, "confirmed": False}.items() <= told["exported"][0].items()
    )
    assert (workplace / "one" / "config.json").read_bytes() != before


def test_a_finished_study_resumes_to_itself(workplace: Path) -> None:
    lines = (workplace / "studies" / "tiny" / "journal.log").read_text().count('"event":"ended"')
    printed = sweep("resume", "tiny", "--in-process", folder=workplace)
    assert "resumed tiny: 3 completed" in printed
    assert (workplace / "studies" / "tiny" / "journal.log").read_text().count('"event":"ended"') == lines == 3


def test_what_to_do_next_names_the_folder_and_not_what_it_was_called(workplace: Path) -> None:
    sweep("run", "tiny.py", "--studies", "renamed", "--in-process", folder=workplace)
    (workplace / "renamed" / "tiny").rename(workplace / "renamed" / "moved")
    printed = sweep("resume", "moved", "--studies", "renamed", "--in-process", folder=workplace)
    assert "sweep export moved --best" in printed and "sweep ui moved" in printed


def test_a_resumed_study_says_what_was_found_to_agree(workplace: Path) -> None:
    printed = sweep("resume", "tiny", "--in-process", folder=workplace)
    assert "Optuna  3 complete; every state, value and parameter is the journal's" in printed
    assert "MLflow  3 of 3 trials in MLflow; " in printed


def test_a_budget_is_extended_and_the_study_goes_on(workplace: Path) -> None:
    sweep("run", "tiny.py", "--studies", "longer", "--in-process", folder=workplace)
    assert "nothing to add" in sweep("extend", "tiny", "--studies", "longer", folder=workplace, code=2)
    assert "no limit of hours" in sweep(
        "extend", "tiny", "--studies", "longer", "--hours", "1", folder=workplace, code=2
    )
    printed = sweep("extend", "tiny", "--studies", "longer", "--trials", "1", folder=workplace)
    assert "trials: 3 before, 4 now" in printed and "sweep resume tiny --studies longer" in printed
    printed = sweep("resume", "tiny", "--studies", "longer", "--in-process", folder=workplace)
    assert "resumed tiny: 3 completed" in printed and "4 trials: 4 completed" in printed


def test_a_study_learns_from_another_one(workplace: Path) -> None:
    text = TINY.replace('name="tiny"', 'name="warm"').replace('"random"', '"tpe"').replace("trials=3", "trials=1")
    (workplace / "warm.py").write_text(text.replace("LogUniform(0.01, 0.1)", "LogUniform(0.01, 0.2)"))
    printed = sweep("run", "warm.py", "--in-process", "--warm-start", "tiny", folder=workplace)
    assert "learning from 3 trials of studies/tiny" in printed
    assert "changed optimizer.learning_rate: 0.01 to 0.1, log scale there, 0.01 to 0.2, log scale here" in printed
    assert "1 trial: 1 completed" in printed
    assert "learnt  from 3 trials of another study" in sweep("resume", "warm", "--in-process", folder=workplace)
    assert "learns from no trial" in sweep(
        "run", "tiny.py", "--studies", "new", "--warm-start", "studies/tiny", folder=workplace, code=2
    )
    assert not (workplace / "new").exists()


@pytest.mark.slow
def test_failures_are_grouped_and_taken_up_again_by_request(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from sweep.tracking.address import local_uri
    from sweep.tracking.journal import read

    study = tmp_path / "studies" / "tiny"
    study.mkdir(parents=True)
    (study / "trials").write_text("where the trials' folders are to be")
    (tmp_path / "tiny.py").write_text(TINY.replace("trials=3", "trials=2"))
    printed = sweep("run", "tiny.py", "--in-process", folder=tmp_path)
    assert re.search(r"^failed trial 0, 1: NotADirectoryError: .*trials/0000.* \(node .+\)$", printed, re.MULTILINE)
    assert "retry what failed        sweep resume tiny --retry-failed" in printed
    (study / "trials").unlink()
    assert "2 failed" in sweep("resume", "tiny", "--in-process", folder=tmp_path)
    assert "2 completed" in sweep("resume", "tiny", "--in-process", "--retry-failed", folder=tmp_path)
    events = [event for event, _ in read(study / "journal.log")]
    assert [event["attempt"] for event in events if event["event"] == "started"] == [1, 1, 2, 2]
    client = MlflowClient(local_uri(study))
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id], "tags.`sweep.trial` != ''")
    assert [(run.info.status, run.data.tags["end"]) for run in runs] == [("FINISHED", "completed")] * 2


def test_status_and_its_json_agree_with_the_parquet(workplace: Path) -> None:
    import pyarrow.parquet as pq

    assert "3 trials: 3 completed" in sweep("status", "tiny", folder=workplace)
    rows = json.loads(sweep("status", "tiny", "--json", folder=workplace))["trials"]
    table = pq.read_table(workplace / "studies" / "tiny" / "results.parquet").to_pylist()
    assert [row["best/validation/pgd_2/adversarial_accuracy"] for row in rows] == [
        row["best/validation/pgd_2/adversarial_accuracy"] for row in table
    ]
    epochs = pq.read_table(workplace / "studies" / "tiny" / "epochs.parquet").to_pylist()
    assert [(row["trial"], row["epoch"]) for row in epochs] == [(n, e) for n in range(3) for e in (1, 2)]


def test_check_shows_the_plan_and_as_json(workplace: Path) -> None:
    printed = sweep("check", "tiny.py", folder=workplace)
    assert "no mistakes found" in printed
    assert "defense.adversarial_training.attack.num_steps" in printed
    plan = json.loads(sweep("check", "tiny.py", "--json", folder=workplace))
    cost = {branch["name"]: branch["gradient_evaluations_per_epoch"] for branch in plan["branches"]}
    assert cost == {"standard": 200, "adversarial_training": 3 * 200}
    assert {branch["validation"] for branch in plan["branches"]} == {2 * 2 * 300}  # epochs, steps, images
    assert (
        "budget: 3 trials; at most 3.6 k gradient evaluations of training; not counted: validation in the epochs, "
        "at most 3.6 k, and the attacks at a trial's end"
    ) in printed
    kept = [json.loads(file.read_text()) for file in (workplace / "studies" / "tiny" / "trials").rglob("metrics.json")]
    assert plan["validity"]["checks"] == max(len(trial["validity"]["figures"]) for trial in kept)


def test_a_precision_that_the_cpu_lacks_is_doubted(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY.replace("epochs=2,", 'epochs=2, precision="bfloat16", device="cpu",'))
    doubts = json.loads(sweep("check", "tiny.py", "--json", folder=tmp_path))["doubts"]
    lacks = not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert [doubt.split(";")[0] for doubt in doubts if doubt.startswith("precision")] == [
        "precision: this machine's CPU has no bfloat16 and is some thirty times slower in it"
    ] * lacks


MISTAKES = {
    'dataset=dict(name="digits"': ('dataset=dict(name="digit"', "did you mean 'digits'"),
    "Choice(1, 2)": ("Choice(0, 2)", "space.defense.attack.num_steps"),
    "epsilon=0.1, attack": ("epsilonn=0.1, attack", "did you mean 'epsilon'"),
    'Maximize("validation/pgd_2': ('Maximize("validation/pgd_3', "no trial will report"),
    'threat_model=dict(name="linf", epsilon=0.1)': (
        'threat_model=dict(name="linf", epsilon=LogUniform(0.1, 0.2))',
        "cannot be searched",
    ),
    "Budget(trials=3)": ("Budget(hours=1)", "trials: must be given (at most so many, whatever other limits there are)"),
    "epochs=2": ("epochs=True", "space.epochs"),
    "LogUniform(0.01, 0.1)": ("LogUniform(0.1, 0.01)", "low < high"),
    "STUDY = ": ("STUDIES = ", "defines no STUDY"),
    'name="tiny"': ('name="tiny/../.."', "name"),
    "budget=Budget(trials=3),": ("budget=Budget(trials=3)", "tiny.py"),
}


@pytest.mark.parametrize("right", MISTAKES)
def test_a_mistake_in_a_study_is_a_sentence(right: str, tmp_path: Path) -> None:
    wrong, said = MISTAKES[right]
    assert right in TINY
    text = TINY.replace(right, wrong) if said != "tiny.py" else TINY.replace(right, wrong + " oops")
    (tmp_path / "tiny.py").write_text(text)
    assert said in sweep("check", "tiny.py", folder=tmp_path, code=2)


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    text = TINY.replace('name="small_cnn"', 'name="smal_cnn"').replace("Choice(1, 2)", "Choice(0, 2)")
    (tmp_path / "tiny.py").write_text(text)
    printed = sweep("check", "tiny.py", folder=tmp_path, code=2)
    assert "2 mistakes" in printed
    assert "small_cnn" in printed
    assert "num_steps" in printed


GOOD = {
    "dataset": "digits",
    "model": "small_cnn",
    "threat_model": {"name": "linf", "epsilon": 0.1},
    "defense": "standard",
    "epochs": 1,
}
WRONG = [
    (("check", "."), "there is no search-space file"),
    (("trial", "nested.json"), "is not JSON"),
    (("check", "x" * 300), "error: "),
    (("trial", "good.json", "--set", "device=cuda"), "finds no GPU"),
    (("trial", "good.json", "--set", "device"), "write key=value"),
    (("trial", "good.json", "--to", "broken.json"), "broken.json"),
    (("check", "absent.py"), "there is no search-space file absent.py"),
    (("resume", "digts"), "unknown study 'digts'"),
    (("status", "nowhere"), "unknown study"),
    (("sync", "nowhere"), "unknown study"),
    (("extend", "nowhere", "--trials", "3"), "unknown study"),
    (("extend", "nowhere", "--trials", "0"), "--trials 0: must be a whole number, 1 or more"),
    (("trial", "absent.json"), "there is no configuration"),
    (("trial", "broken.json"), "is not JSON"),
    (("trial", "wrong.json"), "epochs: must be given (passes over the training split)"),
    (("export", "nowhere", "--best"), "unknown study"),
    (("export", "nowhere", "--best", "--trial", "3"), "choose one of --best, --confirmed, --pareto and --trial N"),
    (("export", "nowhere", "--pareto", "--register", "digits"), "choose it with --trial N"),
    (("components", "atack"), "did you mean 'attack'"),
    (("ui",), "no study in studies/"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), WRONG, ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_wrong_input_is_a_sentence_and_exit_code_2(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "wrong.json").write_text("{}")
    (tmp_path / "nested.json").write_text("[" * 100_000)
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    if "device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert said in sweep(*arguments, folder=tmp_path, code=2)


def test_the_same_study_is_not_started_twice(workplace: Path) -> None:
    assert "sweep resume tiny" in sweep("run", "tiny.py", "--in-process", folder=workplace, code=2)


def test_missing_data_are_said_before_anything_is_written(tmp_path: Path) -> None:
    text = TINY.replace('dict(name="digits", train_size=200)', 'dict(name="image_folder", folder="nowhere", size=8)')
    (tmp_path / "tiny.py").write_text(text)
    assert "SWEEP_DATA_DIR" in sweep("run", "tiny.py", folder=tmp_path, code=2)
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("test", [0, 2])
def test_a_test_split_that_is_not_there_is_said_at_the_start_and_by_check(test: int, tmp_path: Path) -> None:
    """It is looked for and not looked at: what lies there is no image."""
    for name in ("train/a", "train/b", *("val/a", "val/b")[:test]):
        (tmp_path / name).mkdir(parents=True)
    for place in range(10):
        Image.new("RGB", (8, 8), (20 * place, 0, 0)).save(tmp_path / "train" / "ab"[place % 2] / f"{place}.png")
    for name in ("val/a", "val/b")[:test]:
        (tmp_path / name / "0.png").write_bytes(b"closed")
    data = f'dict(name="image_folder", folder="{tmp_path}", size=8, validation_size=4)'
    (tmp_path / "tiny.py").write_text(TINY.replace('dict(name="digits", train_size=200)', data))
    said = "no test split, which a search does without and `sweep confirm` does not: "
    doubts = json.loads(sweep("check", "tiny.py", "--json", folder=tmp_path))["doubts"]
    began = sweep("run", "tiny.py", "--in-process", "--warm-start", "nowhere", folder=tmp_path, code=2)
    assert "unknown study 'nowhere'" in began  # which ends it there
    told = [f"{said}{tmp_path / 'val'}: no such folder" in text for text in (began, "\n".join(doubts))]
    assert told == [not test] * 2, (began, doubts)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("localhost:5000", "such as http://localhost:5000"),
        ("htp://ada:s3cret@host", "did you mean 'http'"),
        ("sqlite:///tiny.py", "cannot be used as a database"),
    ],
)
def test_a_tracking_uri_that_never_will_do_is_refused_before_anything_is_written(
    uri: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    printed = sweep("run", "tiny.py", "--in-process", "--tracking-uri", uri, folder=tmp_path, code=2)
    assert said in printed
    assert "s3cret" not in printed
    assert not (tmp_path / "studies").exists()


def test_an_mlflow_that_is_away_is_told_of_at_once_and_refused_to_nobody(workplace: Path) -> None:
    away, both = f"http://127.0.0.1:{free_port()}", ("--address", "auto", "--in-process")  # which ends it there
    for command in (("run", "tiny.py"), ("resume", "tiny")):
        printed = sweep(*command, "--tracking-uri", away, *both, folder=workplace, code=2)
        first, *rest = printed.splitlines()
        assert first.startswith(f"{away} cannot be reached: "), printed
        assert first.endswith("; the sweep runs all the same, and sends MLflow everything later")
        assert rest == ["error: choose one of --address (a Ray cluster) and --in-process (no Ray)"]


@pytest.mark.slow
def test_an_outage_is_told_once_and_at_the_end_how_what_is_missing_gets_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "DRAIN_SECONDS", 0.5)
    (tmp_path / "tiny.py").write_text(TINY.replace("trials=3", "trials=1"))
    away = f"http://127.0.0.1:{free_port()}"
    for command in (("run", "tiny.py"), ("resume", "tiny")):
        lines = sweep(*command, "--tracking-uri", away, "--in-process", folder=tmp_path).splitlines()
        first, last = [line for line in lines if f"{away} cannot be reached: " in line]
        assert first == lines[0] and first.endswith("; the sweep runs all the same, and sends MLflow everything later")
        assert re.match(rf"look at every trial      MLflow lacks \d+ events: {away} cannot be reached: ", last)
        assert last.endswith(
            "; nothing is lost: once MLflow answers, `sweep sync tiny` sends them, and `sweep ui tiny` shows them"
        )


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    overview = sweep("--help", folder=tmp_path)
    assert all(command in overview for command in COMMANDS)
    for command in COMMANDS:
        assert f"Example: sweep {command}" in sweep(command, "--help", folder=tmp_path)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_words_of_a_help_page_fill_its_lines(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    overview = sweep("--help", folder=tmp_path)
    assert "..." not in overview.split("Commands:")[1], "a command's summary is cut"
    for command in COMMANDS:
        page = sweep(command, "--help", folder=tmp_path)
        assert max(map(len, page.splitlines())) <= columns
        for line, after in itertools.pairwise(page.partition("Options:")[0].splitlines()):
            if line.startswith("  ") and after.strip() and "<" not in line + after:  # of one paragraph
                assert len(f"{line} {after.split()[0]}") > columns - 2, (command, line)


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    assert sweep("--version", folder=tmp_path) == f"sweep {__version__}\n"


def test_components_lists_every_one_with_its_parameters(tmp_path: Path) -> None:
    printed = sweep("components", folder=tmp_path)
    for name in ("hybrid", "trades", "paper_ratio", "cw_pgd", "efficientnet_b0", "image_parquet", "relative_step_size"):
        assert name in printed
    schemas = json.loads(sweep("components", "attack", "--json", folder=tmp_path))
    assert schemas["attack"]["pgd"]["properties"]["num_steps"]["default"] == 10


def test_a_real_process_prints_a_sentence_unless_debugging(tmp_path: Path) -> None:
    plain, debugging = (_process(*flags, "check", "absent.py", folder=tmp_path) for flags in ((), ("--debug",)))
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("error: there is no search-space file absent.py")
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debugging.stderr


def _process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from sweep.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
