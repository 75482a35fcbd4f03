"""Reading what `sweep export` wrote: the configuration, and the network with its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sweep.checkpoint import load_weights
from sweep.configuration import TrialConfig
from sweep.datasets import Splits
from sweep.errors import CheckpointError, StudyError
from sweep.models.network import Network
from sweep.registry import validated
from sweep.trial import build_network


def load_network(folder: Path, splits: Splits) -> Network:
    """The exported network, in evaluation mode, for images such as those of `splits`: a source of transferred attacks.

    It is a substitute for whatever is trained on these images, so its own data are not loaded; channels, size and
    classes must be its own.
    """
    config = validated(TrialConfig, load_json(folder), str(folder / "config.json"))
    return restored(config, splits, folder / "model.safetensors")


def restored(config: TrialConfig, splits: Splits, weights: Path) -> Network:
    """The configuration's network with the weights in a file, in evaluation mode. Raises CheckpointError."""
    network = build_network(config, splits)
    try:
        network.load_state_dict(load_weights(weights))
    except RuntimeError as error:
        shape = f"{splits.channels} x {splits.size[0]} x {splits.size[1]}"
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"{weights} does not fit the {config.model.name} of its config.json for images of {shape} and "
            f"{splits.classes} classes: {reason}"
        ) from None
    return network.eval()


def load_json(path: Path) -> dict[str, Any]:
    """A configuration: a file, or the `config.json` of a folder."""
    file = path / "config.json" if path.is_dir() else path
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        raise StudyError(f"there is no configuration at {file}; `sweep export` writes one") from None
    except (ValueError, OSError, RecursionError) as error:
        raise StudyError(f"{file} is not JSON that can be read: {error}") from None
    if not isinstance(value, dict):
        raise StudyError(f"{file} holds a {type(value).__name__}; a configuration is a JSON object")
    return value
