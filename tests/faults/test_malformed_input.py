"""Whatever a study or a configuration holds, reading it gives one, or an error that names the key: no traceback."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from malformed import GARBAGE, Place, spoiled
from test_commands import sweep

from sweep.configuration import TrialConfig
from sweep.errors import ConfigurationError
from sweep.registry import validated
from sweep.study import Study, study_from

ROOT = Path(__file__).resolve().parents[2]
STUDIES: dict[str, Study] = {
    path.stem: runpy.run_path(str(path))["STUDY"] for path in sorted((ROOT / "search_spaces").glob("*.py"))
}
JSON = {name: study.to_json() for name, study in STUDIES.items()}
CONFIGS = [
    STUDIES["digits"].trial_config(config, number).to_json()
    for number, config in enumerate(STUDIES["digits"].space.corners())
]
STRUCTURE = {"tree", "domain", "branches"}  # keys of how a space is written, not of what is in it


def is_named(path: Place, problems: list[str]) -> bool:
    """Whether a sentence names the key of the mistake, or the one above it, of which the key is a part."""
    keys = [key for key in path if isinstance(key, str) and (key not in STRUCTURE or path[0] == key)]
    return any(key in text for key in keys[-2:] for text in problems)


def mistakes(read: Any, data: Any) -> list[str]:
    """What is said of the data; where they were allowed to be as they are, the case is put aside."""
    try:
        found = read(data)
    except ConfigurationError as error:
        assert error.problems
        assert all(text.strip() and "\n" not in text for text in error.problems)
        return list(error.problems)
    again = read(json.loads(json.dumps(found.to_json())))
    assert again.fingerprint == found.fingerprint, "then it is one like any other"
    assume(False)
    return []


MANY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@settings(MANY, max_examples=1000)
@given(st.sampled_from(sorted(JSON)).flatmap(lambda name: spoiled(JSON[name])))
def test_a_thousand_malformed_studies_are_sentences_that_name_the_key(case: tuple[Any, Place]) -> None:
    data, path = case
    problems = mistakes(lambda value: study_from(value, "study.json"), data)
    assert is_named(path, problems), (path, problems)


@settings(MANY, max_examples=300)
@given(st.sampled_from(CONFIGS).flatmap(spoiled))
def test_malformed_configurations_are_sentences_that_name_the_key(case: tuple[Any, Place]) -> None:
    data, path = case
    problems = mistakes(lambda value: validated(TrialConfig, value, "config.json"), data)
    assert is_named(path, problems), (path, problems)


@settings(MANY, max_examples=150)
@given(GARBAGE)
def test_garbage_is_no_study_and_no_configuration(data: Any) -> None:
    for read in (lambda value: study_from(value, "x"), lambda value: validated(TrialConfig, value, "x")):
        with pytest.raises(ConfigurationError):
            read(data)


TINY = """from sweep.study import Budget, Choice, Maximize, SearchSpace, Study
STUDY = Study(
    name="tiny",
    space=SearchSpace(
        dataset="digits",
        model="small_cnn",
        threat_model=dict(name="linf", epsilon=0.1),
        defense=dict(name="adversarial_training", epsilon=0.1),
        epochs=2,
    ),
    objective=Maximize("validation/pgd_10/adversarial_accuracy"),
    budget=Budget(trials=3),
)
"""
FILES = {  # what stands in the file, and what is said of it
    "nothing": ("", "defines no STUDY"),
    "no study": (TINY.replace("STUDY =", "study ="), "defines no STUDY"),
    "another thing": ("STUDY = 3", "its STUDY is of type int"),
    "a class": ("from sweep.study import Study as STUDY", "its STUDY is of type ModelMetaclass"),
    "a list of studies": (TINY.replace("STUDY = Study", "STUDY = list") + "", "tiny.py"),
    "broken syntax": (TINY.replace("epochs=2,", "epochs 2,"), "tiny.py, line"),
    "a bracket left open": (TINY[:-3], "tiny.py, line"),
    "tabs and spaces": (TINY + "if True:\n\tx = 1\n        y = 2\n", "tiny.py, line"),
    "a null byte": (TINY + "\0", "tiny.py"),
    "not text": (b"\xff\xfe\x00".decode("latin-1"), "tiny.py"),
    "an unknown module": ("import swep\n" + TINY, "No module named 'swep'"),
    "an unknown name": (TINY.replace("Budget, ", ""), "'Budget'"),
    "a name that is not there": ("from sweep.study import Bugdet\n" + TINY, "Bugdet"),
    "an exception": ("1 / 0\n" + TINY, "ZeroDivisionError: division by zero (line 1)"),
    "an exit": ("import sys; sys.exit(0)\n" + TINY, "SystemExit: 0 (line 1)"),
    "no end of calls": ("def f(): f()\nf()\n" + TINY, "RecursionError"),
    "a key too many": (TINY.replace("epochs=2", "epochs=2, epoch=3"), "did you mean 'epochs'"),
    "text for a number": (TINY.replace("epochs=2", 'epochs="2"'), "space.epochs: must be a valid integer"),
    "not a number": (TINY.replace("epsilon=0.1)", 'epsilon=float("nan"))'), "space.threat_model.epsilon"),
    "an empty choice": (TINY.replace("epochs=2", "epochs=Choice()"), "at least two different options"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_malformed_study_file_is_a_sentence(what: str, tmp_path: Path) -> None:
    text, said = FILES[what]
    (tmp_path / "tiny.py").write_text(text, encoding="latin-1")
    printed = sweep("check", "tiny.py", folder=tmp_path, code=2)
    assert said in printed and printed.startswith("error: ")
    assert "Traceback" not in printed and "pydantic" not in printed


def test_of_two_studies_in_a_file_the_last_counts(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY + TINY.replace('"tiny"', '"other"'))
    assert "other  fingerprint" in sweep("check", "tiny.py", folder=tmp_path)
