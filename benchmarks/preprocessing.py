"""Preprocessing in front of a published network that nothing made robust: what a naive attack reports, and what is so.

    python benchmarks/preprocessing.py --images 500

MNIST, an Linf ball of 0.3, the first images of the test split (a published network, so nothing is chosen by it). PGD-40
without knowledge of the preprocessing (`Preprocessor.naive`), PGD-40 through it, and Square, which needs no gradient.
Needs `mnist/` and `models/` in SWEEP_DATA_DIR. Ends with 1 where rounding to two bits or more withstands the adaptive
attack, or where the naive one does not overrate it.
"""

from __future__ import annotations

import argparse
import sys

import torch

from sweep.attacks.pgd import PGD
from sweep.attacks.square import Square
from sweep.datasets import Split
from sweep.datasets.base import data_directory
from sweep.datasets.mnist import MNIST
from sweep.defenses import Defense
from sweep.defenses.autoencoder_reconstruction import AutoencoderReconstruction
from sweep.defenses.feature_squeezing import FeatureSqueezing
from sweep.defenses.jpeg import JPEG
from sweep.defenses.laplacian_sharpening import LaplacianSharpening
from sweep.defenses.noise_injection import NoiseInjection
from sweep.defenses.standard import Standard
from sweep.evaluation import evaluate, fraction, naive_accuracy
from sweep.models.lenet5 import LeNet5
from sweep.models.network import Network
from sweep.seeding import layer_randomness
from sweep.threat_models.linf import Linf

BALL = Linf(epsilon=0.3)
JUDGE = PGD(num_steps=40)
DEFENSES: dict[str, Defense] = {
    "nothing": Standard(),
    **{f"feature_squeezing, {bits} bit{'s' * (bits > 1)}": FeatureSqueezing(bit_depth=bits) for bits in range(1, 8)},
    "feature_squeezing, 8 bits, median 3": FeatureSqueezing(bit_depth=8, median=3),
    "jpeg, quality 75": JPEG(),
    "jpeg, quality 10": JPEG(quality=10),
    "noise_injection, sigma 0.3": NoiseInjection(sigma=0.3),
    "laplacian_sharpening": LaplacianSharpening(),
    "autoencoder_reconstruction": AutoencoderReconstruction(passes=1),
}


def network(defense: Defense, train: Split) -> Network:
    """The published LeNet-5 (98.89 % of the test split), with the defense in front of it."""
    core = LeNet5(variant="advertorch").build(1, (28, 28), 10)
    path = data_directory() / "models" / "advertorch_mnist_lenet5_clntrained.pt"
    weights = torch.load(path, map_location="cpu", weights_only=True)
    core.load_state_dict(dict(zip(core.state_dict(), weights.values(), strict=True)))
    with layer_randomness(0, "preprocessing"):
        preprocess = defense.preprocessor(channels=1)
    found = Network(core, [0.0], [1.0], preprocess=preprocess, draws=defense.test_draws)
    found.prepare(train.pixels, len(train))
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--images", type=int, default=500, help="of the test split")
    options.add_argument("--queries", type=int, default=1_000, help="Square's; 0 leaves it out")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    train, test = MNIST().load().train, MNIST().load_test()
    split = Split(test.images[: chosen.images], test.labels[: chosen.images])
    attacks = [JUDGE, *([Square(num_queries=chosen.queries)] if chosen.queries else [])]
    print("| in front of the network | clean | naive PGD-40 | PGD-40 | Square |\n|---|---|---|---|---|")
    failed = False
    for name, defense in DEFENSES.items():
        found = network(defense, train)
        verdicts = evaluate(found, split, attacks, BALL, seed=0)
        (naive,) = naive_accuracy(found, split, JUDGE, BALL, 0, "test").values()
        adaptive, *square = (fraction(robust) for robust in verdicts.robust.values())
        figures = [fraction(verdicts.clean), naive, adaptive, *square]
        print(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |", flush=True)
        if isinstance(defense, FeatureSqueezing) and 1 < defense.bit_depth < 8:
            failed |= adaptive > 0.05 or naive < adaptive + 0.5
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
