"""The attack owns the loop, the threat model the geometry, the objective says what is raised.

An attack is used in two ways. In training it returns its last iterate, of several restarts the most harmful. In
evaluation (`until_broken`) it keeps the first misclassified point wherever on its path that came, and stops working on
that example.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn
from torch.nn import functional as F

from sweep.errors import ConfigurationError
from sweep.registry import Component, named
from sweep.threat_models import ThreatModel

# (logits [N, K], reference [N, ...]) -> [N] losses that the attack raises; what the logits are held against is nearly
# always the labels. They are summed, never averaged: a mean would scale each example's gradient by the batch's size,
# which matters where the step depends on the gradient's length.
Objective = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Adversary:
    """Who attacks, and within what: handed to an attack beside the images."""

    threat_model: ThreatModel
    epsilon: Tensor | float
    generator: torch.Generator


class Attack(Component):
    """A search for a misclassified point in the ball around an image."""

    kind: ClassVar[str] = "attack"
    threat_models: ClassVar[tuple[str, ...]] = ("linf", "l2")  # where its result means something

    @property
    @abstractmethod
    def label(self) -> str:
        """The name in metric keys, with what tells it from its siblings: ``pgd_10``, ``pgd_20x5``."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Every name that it reports under: its own, after those of its parts where it has any."""
        return (self.label,)

    @property
    @abstractmethod
    def gradient_evaluations(self) -> int:
        """Forward and backward passes per example when nothing is broken on the way; a look without a gradient is none,
        as in `Network.gradient_evaluations`."""

    @property
    def fewest_classes(self) -> int:
        """With how many classes its loss begins to mean something."""
        return 2

    @property
    def starts_at_image(self) -> bool:
        """Whether its first gradient is taken at the image itself, where TRADES' divergence has none."""
        return True

    @abstractmethod
    def perturb(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        adversary: Adversary,
        *,
        objective: Objective | None = None,
        until_broken: bool = False,
    ) -> Tensor:
        """Adversarial images [N, C, H, W] in the ball around `images` (pixels in [0, 1]), detached.

        `objective` replaces the attack's own (TRADES raises a divergence). The network is used in whatever mode it is
        in: see `sweep.models.network.crafting`.
        """

    def stages(
        self, network: nn.Module, images: Tensor, labels: Tensor, adversary: Adversary
    ) -> Iterator[tuple[str, Tensor]]:
        """The attack as evaluation runs it: for each of `labels` in order, the points that are judged under it."""
        yield self.label, self.perturb(network, images, labels, adversary, until_broken=True)

    def streams(self, adversary: Adversary) -> Iterator[tuple[Attack, Adversary]]:
        """The parts that its verdict is the worst case of, each with the adversary that it is run with: one, for most.
        Their order does not matter, and under `until_broken` each leaves alone what is misclassified as it stands."""
        yield self, adversary


NamedAttack = Annotated[SerializeAsAny[Attack], named("attack")]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max over j != y of z_j - z_y: positive where misclassified (Carlini and Wagner 2017, f_6 without its floor)."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - true


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio: the margin over z_1 - z_3, the first less the third of the sorted logits (Croce
    and Hein 2020, eq. 6). The logits' scale and offset cancel out, so a network's certainty hides no gradient."""
    if logits.shape[1] < 3:
        problem = f"the dlr loss divides by z_1 - z_3 and needs at least 3 classes, got {logits.shape[1]}"
        raise ConfigurationError("attack", [f'{problem}: use loss="margin", or cross_entropy'])
    first, _, third = logits.topk(3, 1).values.unbind(1)
    return margin(logits, labels) / (first - third + TINY)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[N] Kullback-Leibler divergences KL(p || q) of log-probabilities [N, K]."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def kl(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(p || softmax of the logits), p the prediction on the clean image as log-probabilities [N, K]: no label."""
    return divergence(clean, F.log_softmax(logits, 1))


OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr, "kl": kl}
TINY = 1e-12  # keeps a ratio of equal logits finite, as in the authors' code


def input_gradient(
    network: nn.Module, points: Tensor, reference: Tensor, objective: Objective
) -> tuple[Tensor, Tensor]:
    """Logits at `points`, and the gradient of the summed objective with respect to the points only."""
    points = points.detach().requires_grad_()
    with torch.enable_grad():
        logits = network(points)
        (gradient,) = torch.autograd.grad(objective(logits, reference).sum(), points)
    return logits.detach(), gradient


def ask(network: nn.Module, points: Tensor, labels: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """[N] values of the objective at `points`, and [N] booleans, whether they are misclassified: without a gradient."""
    with torch.no_grad():
        logits = network(points)
        return objective(logits, labels), wrong(logits, labels)


def misclassified(network: nn.Module, points: Tensor, labels: Tensor) -> Tensor:
    """[N] booleans. Non-finite logits count as misclassified: a network that outputs NaN has failed."""
    with torch.no_grad():
        logits = network(points)
    return wrong(logits, labels)


def wrong(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) != labels) | ~logits.isfinite().all(1)
