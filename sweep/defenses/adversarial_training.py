from __future__ import annotations

from sweep.attacks import cross_entropy
from sweep.defenses.base import AttackedDefense, Losses, Step, correct
from sweep.registry import register


@register("adversarial_training")
class AdversarialTraining(AttackedDefense):
    """min over theta of E[max over the ball of L(theta, x', y)] (Madry et al. 2018, eq. 2.1).

    With `attack={"name": "fgsm", "random_start": true, "relative_step_size": 1.25}` it is fast adversarial training
    (Wong et al. 2020).
    """

    @property
    def gradient_evaluations(self) -> float:
        return self.attack.gradient_evaluations + 1

    def loss(self, step: Step) -> Losses:
        adversarial = self.craft(step.network, step.images, step.labels, step.adversary)
        logits = step.network(adversarial)
        losses = cross_entropy(logits, step.labels)
        return Losses(losses.mean(), adversarial=losses.detach(), adversarial_correct=correct(logits, step.labels))
