"""What the checks look at: a trained network, some validation images, and the attack that judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sweep.attacks import Attack
from sweep.attacks.fgsm import FGSM
from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import Verdicts, evaluate
from sweep.models.network import Network, crafting
from sweep.seeding import generator
from sweep.training import EpochResult

IMAGES = {"fast": 100, "full": 500}  # of the validation split, from its beginning, which is in random order


def judge_of(config: TrialConfig) -> Attack:
    """The attack that the objective is measured by; where it names none, the first that looks at an epoch."""
    metric = config.objective[0].metric
    named = [attack for attack in config.validation_attacks if f"/{attack.label}/" in metric]
    return (named or list(config.validation_attacks))[0]


def is_single_step(attack: Attack) -> bool:
    return attack.gradient_evaluations == 1


@dataclass(frozen=True, eq=False)
class Known:
    """What only whoever trained a network knows: how to build another with its weights, and all the images of it."""

    anew: Callable[[], Network]
    train: Split
    held_out: Sequence[Split]  # all that it is judged on: the validation split, and the test split where it is opened


@dataclass(frozen=True, eq=False)
class Subject:
    """A network as it was judged. `verdicts` are of all of the validation split; `split` is where the checks look."""

    config: TrialConfig
    network: Network
    split: Split
    verdicts: Verdicts
    results: Sequence[EpochResult] = ()
    selected_epoch: int = 0
    known: Known | None = None
    _held: dict[str, Tensor] = field(default_factory=dict)

    @property
    def judge(self) -> Attack:
        return judge_of(self.config)

    @property
    def images(self) -> Tensor:
        return self.split.pixels(slice(None))

    @property
    def clean(self) -> Tensor:
        """[n] booleans: what is right where it stands."""
        return self.verdicts.clean[: len(self.split)]

    def held(self, attack: Attack, factor: float = 1.0, *, bypass: bool = False) -> Tensor:
        """[n] booleans: what withstands an attack within `factor` times the study's radius. Known answers are reused.

        With `bypass` the attack's gradients skip the preprocessing.
        """
        if attack in self.attacks and factor == 1.0 and not bypass:
            return self.verdicts.robust[attack.label][: len(self.split)]
        key = f"{attack.model_dump_json()} {factor} {bypass}"
        if key not in self._held:
            threat_model = self.config.threat_model
            moved = threat_model.model_copy(update={"epsilon": threat_model.epsilon * factor})
            fitting = scaled(attack, factor)
            with bypassed(self.network) if bypass else nullcontext():
                verdicts = evaluate(self.network, self.split, [fitting], moved, self.config.seed)
            self._held[key] = verdicts.robust[fitting.label]
        return self._held[key]

    def lost(self, attack: Attack) -> float:
        """By how much the judge's accuracy falls under another attack in its place; negative where it is stronger."""
        return share(self.held(self.judge)) - share(self.held(attack))

    def broken_only_by(self, attack: Attack, *, bypass: bool = False) -> float:
        """The share of images that withstand the judge and not the other attack."""
        return share(self.held(self.judge) & ~self.held(attack, bypass=bypass))

    @property
    def attacks(self) -> tuple[Attack, ...]:
        return (*self.config.validation_attacks, *self.config.final_attacks)

    def starts(self, purpose: str) -> Tensor:
        """A random point of the ball around each image."""
        randomness = generator(self.config.seed, "validity", purpose, device=self.split.labels.device)
        return self.config.threat_model.random_start(self.images, self.config.threat_model.epsilon, randomness)

    def logits(self, images: Tensor, network: Network | None = None) -> Tensor:
        """Of the judged network, or of another."""
        network = network or self.network
        with torch.no_grad(), crafting(network, "eval"):
            return network(images)  # type: ignore[no-any-return]


def share(flags: Tensor) -> float:
    return flags.double().mean().item()


def scaled(attack: Attack, factor: float) -> Attack:
    """The attack for a radius that is `factor` times as large: a step given in pixels grows with the ball."""
    step = getattr(attack, "step_size", None)
    return attack if step is None else attack.model_copy(update={"step_size": step * factor})


class StraightThrough(nn.Module):
    """A preprocessing whose gradient is that of the identity (BPDA, Athalye et al. 2018)."""

    def __init__(self, preprocess: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.preprocess = preprocess

    def forward(self, images: Tensor) -> Tensor:
        return images + (self.preprocess(images) - images).detach()


@contextmanager
def bypassed(network: Network) -> Iterator[None]:
    """Gradients skip the network's preprocessing inside; what it answers is the same."""
    preprocess = network.preprocess
    assert preprocess is not None
    del network.preprocess  # torch lets no module take a plain attribute's place, nor the other way round
    network.preprocess = StraightThrough(preprocess)
    try:
        yield
    finally:
        del network.preprocess
        network.preprocess = preprocess


FGSM_ONCE = FGSM()
