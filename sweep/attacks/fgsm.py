from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from sweep.attacks.ascent import ascend
from sweep.attacks.base import Adversary, Attack, Objective, cross_entropy
from sweep.registry import register


@register("fgsm")
class FGSM(Attack):
    """One step along the gradient's direction (Goodfellow et al. 2015, eq. 4).

    With `random_start` and a relative step of 1.25 it is fast adversarial training's inner attack (Wong et al. 2020).
    """

    random_start: bool = Field(False, description="begin at a random point of the ball rather than at the image")
    relative_step_size: float = Field(1.0, gt=0, le=4, description="step as a multiple of epsilon")

    @property
    def label(self) -> str:
        step = f"_relative_step_{self.relative_step_size:g}" if self.relative_step_size != 1 else ""
        return "fgsm" + ("_random_start" if self.random_start else "") + step

    @property
    def gradient_evaluations(self) -> int:
        return 1

    @property
    def starts_at_image(self) -> bool:
        return not self.random_start

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
        start = images
        if self.random_start:
            start = adversary.threat_model.random_start(images, adversary.epsilon, adversary.generator)
        return ascend(
            network,
            images,
            labels,
            start,
            adversary,
            objective=objective or cross_entropy,
            step_size=self.relative_step_size * adversary.epsilon,
            num_steps=1,
            until_broken=until_broken,
        )
