"""The one place where torchvision is imported, because its import can fail where nothing that we need is missing."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_DETECTION_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def torchvision() -> ModuleType:
    """The package torchvision, imported at the first call (it takes seconds, and few trials need it).

    A CPU-only torch beside the CUDA build of torchvision, which is what PyPI serves, leaves torchvision's compiled
    extension unloadable. torchvision itself tolerates that, except that its import goes on to register rules for the
    detection operators that the extension would have defined: `operator torchvision::nms does not exist`. Image
    models, transforms and datasets use none of them, so on that very error, and on no other, the operators are declared
    (a declaration alone: calling one still fails, and says so) and the import is made again.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    _forget_half_imported()
    for operator in _DETECTION_OPERATORS:
        torch.library.define(f"torchvision::{operator}", _SCHEMA)
    return importlib.import_module("torchvision")


def _forget_half_imported() -> None:
    """A failed import leaves the submodules that did load in sys.modules: the second attempt must start afresh."""
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]
