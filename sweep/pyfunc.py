"""An exported network as MLflow serves it: `mlflow.pyfunc.load_model` calls this, which needs no MLflow itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sweep.exported import load
from sweep.models.network import Network


class Served:
    """What MLflow asks for predictions."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def predict(self, images: NDArray[Any], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """Images [N, C, H, W] in [0, 1] -> logits [N, classes]. There are no parameters."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self._network(torch.as_tensor(images, dtype=torch.float32)).numpy()
        return logits


def _load_pyfunc(path: str) -> Served:
    return Served(load(Path(path)))
