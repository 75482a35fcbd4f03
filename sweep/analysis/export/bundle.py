"""An exported trial's folder: configuration, weights, figures, card, RobustBench's entry, and ONNX where asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep.analysis.export import onnx as onnx_file
from sweep.analysis.export.account import of_network, of_seeds
from sweep.analysis.export.card import card
from sweep.analysis.export.chosen import Chosen
from sweep.analysis.export.robustbench import entry
from sweep.checkpoint import folder_atomically, write_json, write_text
from sweep.errors import StudyError
from sweep.exported import TAKEN, WEIGHTS, load, shape_of
from sweep.orchestration.evidence import taken

CARD, ENTRY = "README.md", "robustbench.json"
FILES = (*TAKEN, CARD, ENTRY, onnx_file.FILE_NAME)


def export(chosen: Chosen, to: Path, *, force: bool = False, onnx: bool = False) -> list[Path]:
    """Write a trial's folder, whole or not at all. Never overwrites unasked, and never what is not an export's.

    Raises StudyError, ConfigurationError or CheckpointError where the trial cannot be taken away, or not to there.
    """
    target = _refuse_taken(to, force)
    with folder_atomically(target, over=force) as folder:
        _fill(folder, chosen, target.name, onnx)
    return sorted(to.iterdir())


def export_front(front: Sequence[Chosen], to: Path, *, force: bool = False, onnx: bool = False) -> list[Path]:
    """Write a folder that holds one for each trial of a front; the same care is taken of it."""
    target = _refuse_taken(to, force)
    with folder_atomically(target, over=force) as folder:
        for chosen in front:
            name = f"trial-{chosen.trial.number:04d}"
            (folder / name).mkdir()
            _fill(folder / name, chosen, f"{target.name}/{name}", onnx)
    return sorted(to.iterdir())


def _fill(folder: Path, chosen: Chosen, name: str, onnx: bool) -> None:
    config = taken(chosen.folder, chosen.trial, folder)
    network = load(folder)  # what nobody can load is nothing to take away
    shape = shape_of(config, folder / WEIGHTS)
    told = onnx_file.write(network, config, shape, folder / onnx_file.FILE_NAME) if onnx else None
    own, seeds = of_network(chosen, config), of_seeds(chosen)
    write_json(folder / ENTRY, entry(chosen, config, own))
    write_text(folder / CARD, card(chosen, config, shape, own, seeds, name=name, onnx=told))


def _refuse_taken(to: Path, force: bool) -> Path:
    """The folder to write, without links. Raises StudyError where that would overwrite something."""
    to = to.resolve()
    if to in (Path.cwd(), *Path.cwd().parents):
        raise StudyError(f"{to} holds the folder that you are in: give the export a folder of its own")
    if to.exists() and not to.is_dir():
        raise StudyError(f"{to} is a file; choose another folder")
    there = [path for path in to.rglob("*") if not path.is_dir()] if to.exists() else []
    if strange := sorted(str(path.relative_to(to)) for path in there if not _is_exports(path)):
        raise StudyError(f"{to} holds what no export wrote ({', '.join(strange[:3])}); choose another folder")
    if there and not force:
        names = ", ".join(sorted(str(path.relative_to(to)) for path in there)[:3])
        raise StudyError(f"{to} holds an export already ({names}, ...); choose another folder, or --force to overwrite")
    return to


def _is_exports(file: Path) -> bool:
    """Whether an export wrote it: by its own name, and what lies beside it."""
    return file.name in FILES and all((file.parent / name).is_file() for name in TAKEN)
