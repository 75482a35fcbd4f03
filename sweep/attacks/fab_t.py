from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from sweep.attacks.base import Adversary, Attack, Objective, input_gradient, misclassified, wrong
from sweep.attacks.plane import onto_plane
from sweep.registry import register
from sweep.threat_models import ThreatModel
from sweep.threat_models.base import per_example

_BISECTIONS = 15  # of the final search: the distance to 1 part in 30,000, for 15 forward passes
_SHORTEST = 1e-8  # keeps the ratio of two ways finite where both are of length 0


@register("fab_t")
class FABT(Attack):
    """The nearest misclassified point, by steps onto the linearised boundary (Croce and Hein 2020, FAB, targeted).

    The boundaries to the most likely other classes are sought in turn, as AutoAttack does. It needs no step size and no
    radius: every radius could be judged at once by the distances of `minimise`.
    """

    num_steps: int = Field(100, ge=1, le=100_000, description="projections onto the boundary, for each target class")
    num_targets: int = Field(9, ge=1, le=10_000, description="most likely other classes; all, where there are fewer")
    max_pull: float = Field(0.1, ge=0, le=1, description="most weight of the image's own projection (alpha_max)")
    overshoot: float = Field(1.05, ge=1, le=2, description="how far beyond the linearised boundary a step goes (eta)")
    retreat: float = Field(0.9, gt=0, lt=1, description="share of the way out that is kept after a success (beta)")

    @property
    def label(self) -> str:
        return f"fab_t_{self.num_targets}x{self.num_steps}"

    @property
    def gradient_evaluations(self) -> int:
        return self.num_steps * self.num_targets

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
        """The nearest misclassified image where it lies within epsilon, else the image itself."""
        enough = adversary.epsilon if until_broken else 0
        search = self.minimise(network, images, labels, adversary.threat_model, enough)
        return torch.where(per_example(search.distance <= adversary.epsilon, images), search.nearest, images)

    def minimise(
        self, network: nn.Module, images: Tensor, labels: Tensor, threat_model: ThreatModel, enough: Tensor | float = 0
    ) -> Search:
        """The nearest misclassified points found; an example is left alone once its distance is `enough` or less."""
        with torch.no_grad():
            logits = network(images)
        search = Search(network, images, labels, threat_model, enough, logits)
        ranked = logits.argsort(1, descending=True)  # of what is right, the label comes first
        for place in range(1, min(self.num_targets, logits.shape[1] - 1) + 1):
            self._approach(search, ranked[:, place])
        search.bisect()
        return search

    def _approach(self, search: Search, targets: Tensor) -> None:
        """Steps towards the boundary between each example's label and its target."""
        rows = search.open()
        points = search.images[rows]
        for _ in range(self.num_steps):
            if not len(rows):
                return
            images = search.images[rows]
            points = self._step(search, rows, points, targets[rows])
            fooled = search.look(rows, points)
            points = torch.where(per_example(fooled, points), images + self.retreat * (points - images), points)
            going_on = search.distance[rows] > search.enough
            rows, points = rows[going_on], points[going_on]

    def _step(self, search: Search, rows: Tensor, points: Tensor, targets: Tensor) -> Tensor:
        """Beyond the projections of the points and, with a smaller weight, of the images themselves (Croce, eq. 9)."""

        def lead(logits: Tensor, labels: Tensor) -> Tensor:
            both = logits.gather(1, torch.stack([targets, labels], 1))
            return both[:, 0] - both[:, 1]

        images, labels, ball = search.images[rows], search.labels[rows], search.threat_model
        logits, gradient = input_gradient(search.network, points, labels, lead)
        normal, height = gradient.nan_to_num(), lead(logits, labels).nan_to_num()
        height_at_image = height + (normal * (images - points)).flatten(1).sum(1)
        onto = onto_plane(points, normal, height, ball)
        image_onto = onto_plane(images, normal, height_at_image, ball)
        way = ball.distance(onto, points).clamp_min(_SHORTEST)
        image_way = ball.distance(image_onto, images).clamp_min(_SHORTEST)
        pull = per_example((way / (way + image_way)).clamp(max=self.max_pull), points)
        beyond = points + self.overshoot * (onto - points)
        image_beyond = images + self.overshoot * (image_onto - images)
        return ((1 - pull) * beyond + pull * image_beyond).clamp(0, 1)


class Search:
    """The `nearest` misclassified points [N, C, H, W] and their [N] `distance` from the images, infinite without one.

    An example is open while its distance is above `enough`; `logits` are those of the images, some of which may be
    misclassified as they are.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat_model: ThreatModel,
        enough: Tensor | float,
        logits: Tensor,
    ) -> None:
        self.network, self.images, self.labels = network, images, labels
        self.threat_model, self.enough = threat_model, enough
        self.nearest = images.clone()
        self.distance = torch.where(wrong(logits, labels), 0.0, torch.inf).to(images.dtype)

    def open(self) -> Tensor:
        """The indices of the examples that are searched further."""
        return (self.distance > self.enough).nonzero().squeeze(1)

    def look(self, rows: Tensor, points: Tensor) -> Tensor:
        """Whether points of the given rows are misclassified; those that are, and are nearer than before, are kept."""
        fooled = misclassified(self.network, points, self.labels[rows])
        distance = self.threat_model.distance(points, self.images[rows])
        nearer = fooled & (distance < self.distance[rows])
        self.nearest[rows[nearer]], self.distance[rows[nearer]] = points[nearer], distance[nearer]
        return fooled

    def bisect(self) -> None:
        """The final search: on the way from the image to the point found, as near as misclassification lasts."""
        rows = self.open()
        rows = rows[self.distance[rows].isfinite()]
        if not len(rows):
            return
        images = self.images[rows]
        way = self.nearest[rows] - images
        near, far = torch.zeros_like(self.distance[rows]), torch.ones_like(self.distance[rows])
        for _ in range(_BISECTIONS):
            middle = (near + far) / 2
            fooled = self.look(rows, images + per_example(middle, way) * way)
            near, far = torch.where(fooled, near, middle), torch.where(fooled, middle, far)
