"""The house's order: imports point down, heavy packages keep to their rooms, files are short, the engine runs alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sweep"

# From the bottom up. A module may import from its own layer and from those above it in this list. A folder is one layer
# unless its modules are named one by one.
ORDER = [
    "errors",
    "disk",
    "registry",
    "seeding",
    "threat_models",
    "schedules",
    "alpha_rules",
    "models",
    "datasets",
    "optimizers",
    "attacks",
    "augmentation",
    "defenses",
    "objective",
    "domains",
    "evaluation",
    "transfer",
    "racing",
    "figures",
    "resources",
    "checkpoint",
    "configuration",
    "training",
    "validity",
    "judgement",
    "trial",
    "exported",
    "pyfunc",
    "search_space",
    "provisions",
    "soundness",
    "study",
    "forecast",
    "preview",
    "tracking.journal",
    "tracking.ledger",
    "tracking.plausible",
    "orchestration.early_stopping",
    "orchestration.promotion",
    "orchestration.turns",
    "orchestration.budget",
    "orchestration.storage",
    "orchestration.working",
    "orchestration.worker",
    "orchestration.lease",
    "orchestration.keeper",
    "orchestration.lock",
    "orchestration.provenance",
    "orchestration.folder",
    "orchestration.evidence",
    "orchestration.warm_start",
    "orchestration.optuna_study",
    "orchestration.sampler",
    "orchestration.restore",
    "orchestration.attempts",
    "orchestration.search",
    "orchestration.interrupts",
    "orchestration.in_process",
    "orchestration.bridge",
    "orchestration.watchdog",
    "orchestration.address",
    "orchestration.ray_connection",
    "orchestration.ray_tune",
    "orchestration.doctor",
    "orchestration.machine",
    "orchestration.ray_nodes",
    "orchestration.ray_jobs",
    "tracking.mirror",
    "tracking.contents",
    "tracking.address",
    "tracking.home",
    "tracking.store",
    "tracking.champion",
    "tracking.models",
    "tracking.view",
    "tracking.description",
    "tracking.mlflow",
    "tracking.follower",
    "tracking.attach",
    "tracking.probe",
    "tracking.check",
    "analysis",
    "cli",
    "__main__",
]
PLANNED: set[str] = set()
ENGINE = [name for name in ORDER[: ORDER.index("study") + 1] if name not in PLANNED]
ROOMS = {
    "ray": {f"orchestration.ray_{part}" for part in ("connection", "tune", "nodes", "jobs")},
    "optuna": {"orchestration.optuna_study", "orchestration.sampler", "analysis.importance"},
    "mlflow": {"tracking.store"},
}
LONGEST_FILE = 300
LONGEST_FUNCTION = 50


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name below `sweep`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), str(path))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in the file, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of this package that an imported name stands for or lies in, below `sweep`."""
    parts = name.split(".")
    if parts[0] != "sweep":
        return None
    below = parts[1:]
    while below and ".".join(below) not in modules():
        below = below[:-1]
    return ".".join(below)


def layer(module: str) -> int:
    """A module's place in the order; the folder of named modules (tracking, orchestration) holds nothing itself."""
    for name in (module, module.partition(".")[0]):
        if name in ORDER:
            return ORDER.index(name)
    pytest.fail(f"sweep/{module.replace('.', '/')}.py has no place in this test's ORDER: give it one")


FOLDERS_ONLY = {"", "tracking", "orchestration"}
OFFERED = {"": {"exported"}}  # `sweep.load`, which imports it when it is called


def test_imports_point_down() -> None:
    upward = []
    for module, tree in modules().items():
        targets = {target for name in imported(tree) if (target := own(name)) is not None} - FOLDERS_ONLY
        if module in FOLDERS_ONLY:
            assert targets <= OFFERED.get(module, set()), f"{module or 'sweep'}/__init__.py imports {targets}"
            continue
        upward += [f"{module} imports {target}" for target in targets if layer(target) > layer(module)]
    assert not upward, upward


def test_every_folder_is_a_package() -> None:
    """Setuptools leaves a folder without ``__init__.py`` out of the distribution."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_every_place_in_the_order_is_taken_or_planned() -> None:
    folders = {module.split(".")[0] for module in modules()}
    assert {name for name in ORDER if name not in modules() and name not in folders} <= PLANNED


def test_no_module_imports_itself_round_a_circle() -> None:
    """Within a folder, too: a package's ``__init__`` imports its files, which must not import it back."""
    edges = {
        module: {target for name in imported(tree) if (target := own(name)) is not None and target != module}
        for module, tree in modules().items()
    }
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module in done:
            return
        for target in edges[module]:
            visit(target, (*way, module))
        done.add(module)

    for module in edges:
        visit(module, ())


@pytest.mark.parametrize("package", ROOMS)
def test_heavy_packages_stay_in_their_rooms(package: str) -> None:
    users = {module for module, tree in modules().items() for name in imported(tree) if name.split(".")[0] == package}
    assert users <= ROOMS[package], f"{package} is imported by {users - ROOMS[package]}"


def test_files_and_functions_are_short() -> None:
    long = [
        f"{path.relative_to(PACKAGE)}: {lines} lines"
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    ]
    long += [
        f"{module}.{node.name}: {lines} lines"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long, long


ALONE = f"""
import importlib, sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {set(ROOMS)!r}:
            raise ImportError(f"{{name}} is absent here")


sys.meta_path.insert(0, Absent())
for name in {ENGINE!r}:
    importlib.import_module(f"sweep.{{name}}")

from sweep.configuration import TrialConfig
from sweep.registry import validated
from sweep.trial import Trial

config = {{
    "dataset": {{"name": "digits", "train_size": 100, "validation_size": 50}},
    "model": {{"name": "small_cnn", "width": 4}},
    "threat_model": {{"name": "linf", "epsilon": 0.05}},
    "defense": {{"name": "adversarial_training", "epsilon": 0.05, "attack": {{"name": "pgd", "num_steps": 1}}}},
    "epochs": 1,
}}
trial = Trial(validated(TrialConfig, config, "trial"))
(result,) = trial.run()
assert 0 <= result.metrics["validation/pgd_10/adversarial_accuracy"] <= 1 and trial.finish()
print("trained", sorted({set(ROOMS)!r} & sys.modules.keys()))
"""


def test_the_engine_trains_with_ray_optuna_and_mlflow_absent() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained []\n"
