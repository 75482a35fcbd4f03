"""Transferred attacks: made on one network, judged on another (Szegedy et al. 2014; Papernot et al. 2016).

Whoever attacks with the target's own gradients knows more than whoever attacks a substitute. So where points made on a
substitute break what a white-box attack left standing, the white-box attack failed (Carlini et al. 2019, section 3.1).

This is not an attack that a study names beside `pgd`: an attack is handed one network, and a source must be built from
its configuration, which happens above the attacks (`sweep.exported.load_network`). It takes networks, and any attack.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sweep.attacks import Adversary, Attack
from sweep.attacks.base import misclassified, wrong
from sweep.datasets import Split
from sweep.evaluation import BATCH, Verdicts, predict
from sweep.models.network import Network, crafting
from sweep.seeding import generator
from sweep.threat_models import ThreatModel


def transfer(
    network: Network, sources: Mapping[str, Network], split: Split, attack: Attack, threat_model: ThreatModel, seed: int
) -> Verdicts:
    """Which examples withstand the points that `attack`, at full strength, makes on each of the named sources.

    The verdicts are named ``transfer_<source>_<attack>``. Points are made for what `network` has right, whatever the
    source says of it, and the attack goes on where the source errs: what lies just beyond the boundary of one network
    seldom lies beyond another's. Gradients are counted at the sources, whose they are.
    """
    logits, labels = predict(network, split), split.labels
    clean = ~wrong(logits, labels)
    robust = {name: clean.clone() for name in sources}
    for start in range(0, len(split), BATCH):
        rows = start + clean[start : start + BATCH].nonzero().squeeze(1)
        if not len(rows):
            continue
        images, truth = split.pixels(rows), labels[rows]
        for name, source in sources.items():
            stream = generator(seed, "transfer", name, attack.label, start, device=images.device)
            adversary = Adversary(threat_model, threat_model.epsilon, stream)
            robust[name][rows] = ~_fooled(network, source, images, truth, attack, adversary)
    held = {f"transfer_{name}_{attack.label}": verdicts.cpu() for name, verdicts in robust.items()}
    return Verdicts(logits.cpu(), labels.cpu(), held)


def _fooled(
    network: Network, source: Network, images: Tensor, labels: Tensor, attack: Attack, adversary: Adversary
) -> Tensor:
    """[N] booleans: whether the source's adversarial images are misclassified by the network."""
    with crafting(source, "eval"):
        points = attack.perturb(source, images, labels, adversary)
    with crafting(network, "eval"):
        return misclassified(network, points, labels)
