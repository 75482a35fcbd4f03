"""AutoAttack and its lighter form: a cascade that spares what is broken reaches the verdicts of one that does not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sweep.attacks import Adversary, Attack, misclassified
from sweep.attacks.auto_attack import AutoAttack
from sweep.attacks.auto_attack_lite import AutoAttackLite
from sweep.attacks.cascade import Cascade
from sweep.attacks.pgd import PGD
from sweep.datasets import Split
from sweep.evaluation import evaluate, fraction
from sweep.figures import metric_names
from sweep.models.network import Network
from sweep.models.small_cnn import SmallCNN
from sweep.seeding import layer_randomness
from sweep.threat_models import ThreatModel
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf

SHORT = AutoAttack(num_steps=3, num_queries=20)
BALLS = [Linf(epsilon=0.025), L2(epsilon=0.12)]
PARTS = [(name, ball) for name in SHORT.parts for ball in BALLS]


def bent(classes: int = 10) -> Network:
    with layer_randomness(1, "test"):
        core = SmallCNN(width=4).build(1, (6, 6), classes)
    return Network(core, [0.5], [0.05]).double().eval()


def batch(network: Network, size: int = 40) -> tuple[Tensor, Tensor]:
    images = torch.rand(size, 1, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    logits: Tensor = network(images)
    return images, logits.argmax(1)


def adversary(ball: ThreatModel, seed: int = 0) -> Adversary:
    return Adversary(ball, ball.epsilon, torch.Generator().manual_seed(seed))


def test_its_parts_are_autoattack_s() -> None:
    assert [part.label for part in AutoAttack().parts.values()] == [
        "apgd_100",
        "apgd_t_100",
        "fab_t_9x100",
        "square_5000",
    ]
    assert list(AutoAttack().parts) == ["apgd_ce", "apgd_t", "fab_t", "square"]
    assert list(AutoAttackLite().parts.items()) == list(AutoAttack().parts.items())[:2]
    assert AutoAttack().gradient_evaluations == 100 + 900 + 900
    random = AutoAttack(version="random")
    assert [part.label for part in random.parts.values()] == ["apgd_100", "apgd_100_dlr"]
    assert (random.fewest_classes, AutoAttack().fewest_classes) == (3, 2)


@pytest.mark.parametrize("ball", BALLS)
def test_sparing_what_is_broken_changes_no_verdict(ball: ThreatModel) -> None:
    """Every part run on every image, at full strength, with the cascade's own streams; the worst case of them all."""
    network = bent()
    images, labels = batch(network)
    in_full = [
        ~misclassified(network, part.perturb(network, images, labels, its_own, until_broken=True), labels)
        for part, its_own in SHORT.streams(adversary(ball))
    ]
    network.gradient_evaluations = 0
    found = dict(SHORT.stages(network, images, labels, adversary(ball)))
    held = [~misclassified(network, points, labels) for points in found.values()]
    assert list(found) == list(SHORT.labels) == [*(f"{SHORT.label}/{name}" for name in SHORT.parts), SHORT.label]
    for n, standing in enumerate(held[:-1]):
        assert torch.equal(standing, torch.stack(in_full[: n + 1]).all(0))
    assert torch.equal(held[-1], held[-2])
    counts = [int(standing.sum()) for standing in held[:-1]]
    assert 0 < counts[-1] < counts[0] < len(images), "the test needs parts that break what the first one left"
    assert network.gradient_evaluations < SHORT.gradient_evaluations * len(images)
    for points in found.values():
        assert (ball.distance(points, images) <= ball.epsilon + 1e-9).all()


@pytest.mark.parametrize(("name", "ball"), PARTS)
def test_its_parts_leave_what_is_already_broken_alone(name: str, ball: ThreatModel) -> None:
    network, part = bent(), SHORT.parts[name]
    images, labels = batch(network)
    labels[::2] = (labels[::2] + 1) % 10
    points = part.perturb(network, images, labels, adversary(ball), until_broken=True)
    assert torch.equal(points[::2], images[::2])
    assert network.gradient_evaluations <= 20 * part.gradient_evaluations


@pytest.mark.parametrize("attack", [SHORT, AutoAttackLite(num_steps=3)])
def test_at_full_strength_an_example_gets_its_parts_highest_margin(attack: Cascade) -> None:
    network, ball = bent(), BALLS[0]
    images, labels = batch(network)
    highest = [
        margin_of(network, part.perturb(network, images, labels, own), labels)
        for part, own in attack.streams(adversary(ball))
    ]
    points = attack.perturb(network, images, labels, adversary(ball))
    assert torch.allclose(margin_of(network, points, labels), torch.stack(highest).amax(0))


def margin_of(network: Network, points: Tensor, labels: Tensor) -> Tensor:
    logits: Tensor = network(points).detach()
    return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - logits.gather(1, labels[:, None]).squeeze(1)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_it_works_with_fewer_classes_than_targets(classes: int) -> None:
    network, ball = bent(classes), adversary(Linf(epsilon=0.3))
    middle = network(batch(network)[0]).detach().mean(0)  # without which an untrained network knows one class only
    network.register_forward_hook(lambda _module, _given, logits: logits - middle)
    images, labels = batch(network)
    points = SHORT.perturb(network, images, labels, ball, until_broken=True)
    assert SHORT.fewest_classes == 2
    assert misclassified(network, points, labels).double().mean() > 0.5


def test_evaluation_says_what_stood_after_each_part() -> None:
    network = bent().float()
    images = torch.randint(0, 256, (60, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, network(images / 255).argmax(1))
    attacks: list[Attack] = [PGD(num_steps=2), SHORT]
    verdicts = evaluate(network, split, attacks, BALLS[0], seed=0)
    assert list(verdicts.robust) == ["pgd_2", *SHORT.labels]
    figures = [fraction(verdicts.robust[label]) for label in SHORT.labels]
    assert figures == sorted(figures, reverse=True) and figures[-1] < figures[0] < 1
    assert torch.equal(verdicts.worst_case, verdicts.robust["pgd_2"] & verdicts.robust[SHORT.label])
    reported = {name for name in verdicts.metrics("validation") if name.endswith("adversarial_accuracy")}
    assert reported <= metric_names(attacks)
    assert f"validation/{SHORT.label}/apgd_ce/adversarial_accuracy" in reported


@pytest.mark.parametrize(
    ("attack", "label"),
    [
        (AutoAttack(), "auto_attack"),
        (AutoAttack(version="random"), "auto_attack_random"),
        (SHORT, "auto_attack_3_20"),
        (AutoAttackLite(), "auto_attack_lite"),
        (AutoAttackLite(num_steps=20), "auto_attack_lite_20"),
    ],
)
def test_only_the_standard_carries_the_name_alone(attack: Attack, label: str) -> None:
    assert attack.label == label
