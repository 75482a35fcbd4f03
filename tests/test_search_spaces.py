"""The search spaces that are shipped: data without logic, valid, and named after their files."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import pytest

from sweep.study import Study, study_from

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "search_spaces").glob("*.py"))

LOGIC = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Lambda,
    ast.If,
    ast.IfExp,
    ast.For,
    ast.While,
    ast.With,
    ast.Try,
    ast.Assert,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
    ast.NamedExpr,
    ast.BoolOp,
    ast.Compare,
    ast.JoinedStr,
)


def test_there_are_some() -> None:
    assert ROOT / "search_spaces" / "digits.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_it_holds_a_docstring_imports_and_one_study(path: Path) -> None:
    docstring, *imports, study = ast.parse(path.read_text()).body
    assert isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
    assert all(isinstance(node, ast.ImportFrom) and node.module == "sweep.study" for node in imports)
    assert isinstance(study, ast.Assign) and [ast.unparse(target) for target in study.targets] == ["STUDY"]
    logic = [f"line {node.lineno}: {type(node).__name__}" for node in ast.walk(study) if isinstance(node, LOGIC)]
    assert not logic, logic


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_its_docstring_asks_a_question_and_names_its_command(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    question, command = text.split("\n\n")[:2]
    assert question.endswith("?")
    assert f"sweep run search_spaces/{path.name}" in command


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_it_is_valid_and_named_after_its_file(path: Path) -> None:
    study = runpy.run_path(str(path))["STUDY"]
    assert isinstance(study, Study)
    assert study.name == path.stem
    assert study_from(study.to_json(), path.name).fingerprint == study.fingerprint
    assert study.space.domains(), "it searches nothing"
