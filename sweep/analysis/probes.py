"""What a report measures beyond the journal: kept networks, on images of the validation split; the test split never.

Each network is looked at once, on the device that its configuration names. What came out is kept in the study folder's
`report/`, under a name made of its weights, its configuration and what was asked, so that nothing outdated is shown.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sweep.analysis.kept import Trained
from sweep.attacks import Attack, cross_entropy
from sweep.attacks.base import input_gradient, wrong
from sweep.checkpoint import load_weights, save_weights
from sweep.configuration import TrialConfig, fingerprint
from sweep.datasets import Split
from sweep.errors import CheckpointError, ConfigurationError, DataError
from sweep.evaluation import adversary_of, attacked_logits, evaluate, predict
from sweep.exported import restored
from sweep.models.network import Network, crafting
from sweep.registry import validated
from sweep.resources import choose_device
from sweep.seeding import derive
from sweep.threat_models import ThreatModel

FOLDER = "report"
IMAGES = 500  # of the validation split, from its beginning
MULTIPLES = (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4)  # of the judged radius
EXAMPLES = 8  # images that are kept attacked
_FARTHEST = {"linf": 1.0}  # radius at which every image is in reach of every other one; none is greater
_VERSION = 1  # of what is kept: another one is measured anew


@dataclass(frozen=True)
class Probe:
    """One network, looked at. Tensors lie on the CPU: N images, E of them as examples."""

    trained: Trained
    attack: str
    radii: list[float]  # ascending from 0, in [0, 1] pixels
    withstood: Tensor  # [radii, N] booleans: nothing was found at this radius, nor at a smaller one
    clean: Tensor  # [2, N]: the highest probability, and whether (1 or 0) it is the label's
    attacked: Tensor  # [2, N]: the same under the attack at full strength, at the judged radius
    originals: Tensor  # [E, C, H, W] in [0, 1]
    labels: Tensor  # [E]
    adversarial: Tensor  # [E, C, H, W]: attacked at the judged radius
    saliency: Tensor  # [E, C, H, W] in [-1, 1]: the loss's gradient by the image, over its largest entry
    predictions: Tensor  # [2, 2, E]: of original and adversarial, the class and its probability

    def accuracies(self) -> Tensor:
        """[radii]: the share of all images that withstood the attack."""
        return self.withstood.double().mean(1)

    @property
    def at_judged(self) -> Tensor:
        """[N] booleans: who withstood the attack at the radius that everyone is judged at."""
        return self.withstood[self.radii.index(self.trained.config["threat_model"]["epsilon"])]


def radii(threat_model: ThreatModel) -> list[float]:
    """0, and multiples of the judged radius as far as they mean something."""
    farthest = _FARTHEST.get(threat_model.name, float("inf"))
    judged = threat_model.epsilon
    return [
        0.0,
        *(judged if multiple == 1 else judged * multiple for multiple in MULTIPLES if judged * multiple <= farthest),
    ]


def probe(
    folder: Path, chosen: Iterable[Trained], *, measure: bool, say: Callable[[str], None]
) -> tuple[dict[Path, Probe], list[str]]:
    """The networks' probes by their folders, and a sentence on those that there is none of, equal ones as one.

    Without `measure`, nothing is attacked: only what was kept before is given.
    """
    probes: dict[Path, Probe] = {}
    missing = []
    for trained in {trained.folder: trained for trained in chosen}.values():
        name = f"trial {trained.trial} ({trained.defense})"
        try:
            config = validated(TrialConfig, trained.config, name)
            path = folder / FOLDER / f"{trained.trial:04d}-{_key(trained)}.safetensors"
            if not path.exists() and measure:
                say(f"looking at {name} under {config.validation_attacks[0].label}, in balls of several radii")
                save_weights(path, _measured(trained, config))
            if path.exists():
                probes[trained.folder] = _read(trained, config, load_weights(path))
            else:
                missing.append(f"{name} was not looked at; `sweep report` without --no-measure does")
        except (CheckpointError, ConfigurationError, DataError) as error:  # as on a machine without its GPU
            missing.append(f"{name}: {error}")
    counts = Counter(missing)  # a confirmed trial has several networks
    return probes, [f"{text} ({count} networks)" if count > 1 else text for text, count in counts.items()]


def _key(trained: Trained) -> str:
    """Twelve hexadecimal digits of all that a probe depends on. Raises CheckpointError without the trial's weights."""
    try:
        weights = hashlib.sha256(trained.weights.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(
            f"its weights {trained.folder.name}/{trained.weights.name} cannot be read ({error.strerror})"
        ) from None
    if trained.files.get(trained.weights.name, weights) != weights:
        raise CheckpointError(
            f"its weights {trained.folder.name}/{trained.weights.name} are not those that it left: the journal has "
            "another SHA-256; restore them from a copy"
        )
    return fingerprint([_VERSION, weights, trained.config, IMAGES, MULTIPLES, EXAMPLES])


def _measured(trained: Trained, config: TrialConfig) -> dict[str, Tensor]:
    torch.set_num_threads(config.threads)
    splits, device = config.dataset.load(), choose_device(config.device)
    network = restored(config, splits, trained.weights).to(device)
    some = slice(IMAGES)
    split = Split(splits.validation.images[some], splits.validation.labels[some]).to(device)
    attack, seed = config.validation_attacks[0], derive(config.seed, "report")
    judged = config.threat_model
    attacked = attacked_logits(network, split, attack, judged, judged.epsilon, seed)
    return {
        "withstood": _withstood(network, split, attack, judged, seed),
        "clean": _confidence(predict(network, split), split.labels),
        "attacked": _confidence(attacked, split.labels),
        **_examples(network, split, attack, judged, seed),
    }


def _read(trained: Trained, config: TrialConfig, kept: dict[str, Tensor]) -> Probe:
    pictures = {name: kept.pop(name).float() for name in ("originals", "adversarial", "saliency")}
    return Probe(trained, config.validation_attacks[0].label, radii(config.threat_model), **kept, **pictures)


def _withstood(network: Network, split: Split, attack: Attack, judged: ThreatModel, seed: int) -> Tensor:
    """Balls lie in one another, so a larger one is searched only for images that withstood all smaller ones."""
    standing = ~wrong(predict(network, split), split.labels)
    rows = [standing.clone()]
    for radius in radii(judged)[1:]:
        left = standing.nonzero().squeeze(1)
        if len(left):
            some = Split(split.images[left], split.labels[left])
            ball = judged.model_copy(update={"epsilon": radius})
            standing[left] = evaluate(
                network, some, [_scaled(attack, radius / judged.epsilon)], ball, seed
            ).worst_case.to(left.device)
        rows.append(standing.clone())
    return torch.stack(rows)


def _scaled(attack: Attack, multiple: float) -> Attack:
    """The attack with a step that is given in pixels lengthened with the ball, which it could not cross otherwise."""
    step: float | None = getattr(attack, "step_size", None)
    return attack.model_copy(update={"step_size": step * multiple}) if step else attack


def _confidence(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([logits.softmax(1).amax(1), (~wrong(logits, labels)).float()])


def _examples(network: Network, split: Split, attack: Attack, judged: ThreatModel, seed: int) -> dict[str, Tensor]:
    rows = _of_all_classes(split.labels)
    images, labels = split.pixels(rows), split.labels[rows]
    with crafting(network, "eval"):
        adversary = adversary_of(judged, judged.epsilon, seed, attack, 0, images.device)
        adversarial = attack.perturb(network, images, labels, adversary, until_broken=True)
        _, gradient = input_gradient(network, images, labels, cross_entropy)
        with torch.no_grad():
            probabilities = torch.stack([network(images), network(adversarial)]).softmax(2)
    largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    found = probabilities.max(2)
    return {
        "originals": images.half(),
        "labels": labels,
        "adversarial": adversarial.half(),
        "saliency": (gradient / largest.view(-1, 1, 1, 1)).half(),
        "predictions": torch.stack([found.indices.float(), found.values], 1),
    }


def _of_all_classes(labels: Tensor) -> Tensor:
    """Places of the first image of each class, then of the second, and so on: as many as are kept."""
    seen: dict[int, int] = {}
    turns = []
    for place, label in enumerate(labels.tolist()):
        seen[label] = seen.get(label, 0) + 1
        turns.append((seen[label], place))
    return torch.tensor([place for _, place in sorted(turns)[:EXAMPLES]], device=labels.device)
