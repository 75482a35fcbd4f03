"""What `sweep export` wrote, read again: configurations, and networks with their weights, set on one another.

`load` is `sweep.load`: it needs neither data nor Ray, Optuna or MLflow.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sweep.attacks import NamedAttack
from sweep.checkpoint import load_metadata, load_weights, save_weights
from sweep.configuration import TrialConfig, misjudged
from sweep.datasets import ImageShape, Splits
from sweep.errors import CheckpointError, ConfigurationError, DataError, StudyError
from sweep.evaluation import evaluate
from sweep.models.network import Network
from sweep.registry import Record, validated
from sweep.resources import choose_device
from sweep.transfer import transfer
from sweep.trial import CONFIG, METRICS, build_network
from sweep.trial import WEIGHTS as LEFT

TAKEN = (CONFIG, METRICS, WEIGHTS := "model.safetensors")
_ROUNDING = 1e-3  # that a pixel may lie outside of [0, 1]: as short floats round, and finite differences step


@dataclass(frozen=True)
class Transferred:
    """Per example of the target's validation split [N]: right where it stands; under the attack made on the target
    itself; and under the same attack made on each source, by its folder."""

    attack: str
    clean: Tensor
    white_box: Tensor
    black_box: dict[str, Tensor]

    @property
    def missed(self) -> Tensor:
        """[N]: what the white-box attack left standing although a transferred point breaks it."""
        return self.white_box & ~torch.stack(list(self.black_box.values())).all(0)

    def to_json(self) -> dict[str, Any]:
        """Accuracies, and how many images the white-box attack missed."""

        def accuracy(held: Tensor) -> float:
            return float(held.double().mean())

        return {
            "attack": self.attack,
            "images": len(self.clean),
            "clean": accuracy(self.clean),
            "white_box": accuracy(self.white_box),
            "black_box": {source: accuracy(held) for source, held in self.black_box.items()},
            "missed": int(self.missed.sum()),
        }


def judge_transfer(target: Path, sources: Sequence[Path], attack: Any = None) -> Transferred:
    """Attack an exported trial's network with points made on it and on others', within the trial's threat model.

    Without an `attack` (a name or a mapping) it is the target's first validation attack.
    """
    config = validated(TrialConfig, load_json(target), str(target))
    chosen = config.validation_attacks[0]
    if attack is not None:
        chosen = validated(_Asked, {"attack": attack}, "the transferred attack").attack
    if mistakes := misjudged(config.threat_model, [chosen]):
        raise ConfigurationError("the transferred attack", mistakes)
    torch.set_num_threads(config.threads)
    device = choose_device(config.device)
    splits = config.dataset.load()
    network = load_network(target, splits).to(device)
    others = {str(source): load_network(source, splits).to(device) for source in sources}
    split, seed = splits.validation.to(device), config.seed
    white_box = evaluate(network, split, [chosen], config.threat_model, seed)
    black_box = transfer(network, others, split, chosen, config.threat_model, seed).robust.values()
    held = dict(zip(others, black_box, strict=True))
    return Transferred(chosen.label, white_box.clean, white_box.robust[chosen.label], held)


class _Asked(Record):
    attack: NamedAttack


def load(folder: Path | str) -> Network:
    """The network that `sweep export` wrote into `folder`, on the CPU and in evaluation mode.

    It takes images [N, C, H, W] in [0, 1], floats no finer than its weights, and gives logits [N, classes]; the
    defense's preprocessing and the normalisation are inside. Given anything else, it raises DataError; where it is
    traced or compiled, nobody looks at the pixels. Raises StudyError, ConfigurationError or CheckpointError where the
    folder holds no export.
    """
    folder = Path(folder)
    config = validated(TrialConfig, load_json(folder), str(folder / CONFIG))
    weights = folder / WEIGHTS
    shape = shape_of(config, weights)
    network = restored(config, shape, weights)
    network.register_forward_pre_hook(partial(_refuse_others, f"the network in {folder}", shape), with_kwargs=True)
    return network


def _refuse_others(
    name: str, shape: ImageShape, network: Network, inputs: tuple[Any, ...], named: dict[str, Any]
) -> None:
    """Raise DataError for what is no batch of the images that a network was trained on; torch's words name none."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch's stub lacks it
        return  # there even a shape is data, and a look at it a warning
    takes, images = [shape.channels, *shape.size], next(iter((*inputs, *named.values())), None)
    own = network.mean.dtype
    finest = torch.promote_types(own, torch.float32) if network.precision == "bfloat16" else own  # autocast shortens it
    if not isinstance(images, Tensor):
        given = f"a {type(images).__name__}"
    else:
        fits = images.is_floating_point() and torch.promote_types(images.dtype, finest) == finest
        strange = _outside(images) if fits and [*images.shape[1:]] == takes else ""
        if strange is None:
            return
        given = f"{[*images.shape]}, {_short(images.dtype)}{strange}"
    raise DataError(
        f"{name} takes a tensor of images [N, {', '.join(map(str, takes))}], {_short(finest)} in [0, 1]; it was given "
        f"{given}"
    )


def _outside(images: Tensor) -> str | None:
    """What pixels there are that no image has, in words; None too where nobody can look, as where it is compiled."""
    if torch.compiler.is_compiling() or not images.numel():
        return None
    if images.is_cuda and torch.cuda.is_current_stream_capturing():  # a look would end the capture
        return None
    with suppress(RuntimeError):  # torch.func's batches, and tensors without data, show nobody their values
        low, high = torch.stack(images.detach().aminmax()).tolist()  # at once: a GPU is waited for
        if math.isnan(low):
            return ", with NaN among them"
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            return f" from {low:g} to {high:g}: divide pixels of 0 to 255 by 255, clamp what noise took outside"
    return None


def _short(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def take(trial: Path, to: Path) -> TrialConfig:
    """Copy a completed trial's configuration, figures and selected weights from its folder to an export's.

    Raises StudyError where something of it is missing.
    """
    missing = [str(trial / file) for file in (CONFIG, METRICS) if not (trial / file).exists()]
    if missing:
        raise StudyError(f"a trial without its files cannot be taken away: {', '.join(missing)} is missing")
    config = validated(TrialConfig, load_json(trial), str(trial / CONFIG))
    for file in (CONFIG, METRICS):
        shutil.copyfile(trial / file, to / file)
    weights = trial / LEFT[config.select]
    save_weights(to / WEIGHTS, load_weights(weights), shape_of(config, weights).metadata())
    return config


def shape_of(config: TrialConfig, weights: Path) -> ImageShape:
    """What the images are that a file of weights is for; for one of before this was written there, by its dataset."""
    try:
        return ImageShape.told(load_metadata(weights))
    except (KeyError, ValueError):
        return config.dataset.load().shape


def load_network(folder: Path, splits: Splits) -> Network:
    """The exported network, in evaluation mode, for images such as those of `splits`: a source of transferred attacks.

    It is a substitute for whatever is trained on these images, so its own data are not loaded; channels, size and
    classes must be its own.
    """
    config = validated(TrialConfig, load_json(folder), str(folder / CONFIG))
    return restored(config, splits, folder / WEIGHTS)


def restored(config: TrialConfig, images: Splits | ImageShape, weights: Path) -> Network:
    """The configuration's network with the weights in a file, in evaluation mode. Raises CheckpointError."""
    network = build_network(config, images)
    try:
        network.load_state_dict(load_weights(weights))
    except RuntimeError as error:
        shape = f"{images.channels} x {images.size[0]} x {images.size[1]}"
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"{weights} does not fit the {config.model.name} of its config.json for images of {shape} and "
            f"{images.classes} classes: {reason}"
        ) from None
    return network.eval()


def load_json(path: Path) -> dict[str, Any]:
    """A configuration: a file, or the `config.json` of a folder."""
    file = path / CONFIG if path.is_dir() else path
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        raise StudyError(f"there is no configuration at {file}; `sweep export` writes one") from None
    except (ValueError, OSError, RecursionError) as error:
        raise StudyError(f"{file} is not JSON that can be read: {error}") from None
    if not isinstance(value, dict):
        raise StudyError(f"{file} holds a {type(value).__name__}; a configuration is a JSON object")
    return value
