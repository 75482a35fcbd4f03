from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweep.models.vision import torchvision

PROGRAM = """
import sys
import sweep.models
assert "torchvision" not in sys.modules, "the models import torchvision before it is needed"
from sweep.models.vision import torchvision
module = torchvision()
assert module is sys.modules["torchvision"] and module is torchvision()
print(module.models.efficientnet_b0.__name__, module.datasets.MNIST.__name__)
"""


def test_fresh_import_is_lazy_and_raises_no_warning() -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (finished.returncode, finished.stdout) == (0, "efficientnet_b0 MNIST\n"), finished.stderr


def test_other_errors_of_the_import_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('compiled for another CUDA')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(RuntimeError, match="another CUDA"):
        torchvision()
