"""Feature squeezing: what it does to pixels, by hand, and that every attack sees through it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sweep.attacks import Adversary, misclassified
from sweep.attacks.pgd import PGD
from sweep.defenses import Clock
from sweep.defenses.feature_squeezing import FeatureSqueezing, Squeezer, median_filter
from sweep.defenses.hybrid import Hybrid
from sweep.models.network import Network
from sweep.threat_models.linf import Linf

LEVELS_OF_2_BITS = (0.0, 1 / 3, 2 / 3, 1.0)


@pytest.mark.parametrize(
    ("bit_depth", "pixels", "squeezed"),
    [
        (1, (0.0, 0.49, 0.51, 1.0), (0.0, 0.0, 1.0, 1.0)),
        (2, (0.1, 0.2, 0.6, 0.9), LEVELS_OF_2_BITS),
        (4, (0.5 / 15, 0.4 / 15, 7.4 / 15, 14.6 / 15), (0.0, 0.0, 7 / 15, 1.0)),
    ],
)
def test_bit_depth_by_hand(bit_depth: int, pixels: tuple[float, ...], squeezed: tuple[float, ...]) -> None:
    images = torch.tensor(pixels).view(1, 1, 2, 2)
    found = Squeezer(bit_depth, median=1)(images).flatten()
    assert found.tolist() == pytest.approx(squeezed, abs=1e-6)


@pytest.mark.parametrize("bit_depth", range(1, 9))
def test_bit_depth_leaves_so_many_values_and_eight_bits_are_all(bit_depth: int) -> None:
    images = (torch.arange(256) / 255).view(1, 1, 16, 16)
    squeezed = Squeezer(bit_depth, median=1)(images)
    assert len(set((squeezed * 255).round().flatten().tolist())) == 2**bit_depth
    assert (squeezed - images).abs().max() <= 0.5 / (2**bit_depth - 1) + 1e-6
    if bit_depth == 8:
        assert torch.allclose(squeezed, images, atol=1e-6)


def test_rounding_passes_gradients_straight_through() -> None:
    images = torch.rand(2, 1, 4, 4).requires_grad_()
    weights = torch.randn(2, 1, 4, 4)
    (gradient,) = torch.autograd.grad((weights * Squeezer(3, median=1)(images)).sum(), images)
    assert torch.equal(gradient, weights)


def test_median_filter_by_hand() -> None:
    image = torch.tensor([[0.1, 0.9, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.2]]).view(1, 1, 3, 3)
    # Centre: all nine. Corner: 0.1 four times, 0.9 and 0.4 twice, 0.5.
    three = median_filter(image, 3).view(3, 3)
    assert three[1, 1].item() == pytest.approx(0.5)
    assert three[0, 0].item() == pytest.approx(0.4)
    # The window of two reaches up and left, and takes the higher of the middle two: of 0.1, 0.9, 0.4, 0.5 it is 0.5.
    two = median_filter(image, 2).view(3, 3)
    assert two[1, 1].item() == pytest.approx(0.5)
    assert two[0, 0].item() == pytest.approx(0.1)
    assert two[0, 1].item() == pytest.approx(0.9)


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 8)])
def test_median_filter_is_scipy_s(side: int, size: tuple[int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(0))
    expected = ndimage.median_filter(images.numpy(), size=(1, 1, side, side), mode="reflect")
    assert torch.equal(median_filter(images, side), torch.from_numpy(expected))


def test_the_median_s_gradient_goes_to_the_median_pixel() -> None:
    image = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    filtered = median_filter(image, 3)
    (gradient,) = torch.autograd.grad(filtered[0, 0, 2, 2], image)
    assert gradient.sum() == 1
    assert image[gradient == 1].item() == filtered[0, 0, 2, 2].item()


# --- under attack


def linear() -> nn.Module:
    core = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    weights = torch.randn(3, 36, generator=torch.Generator().manual_seed(1))
    core.load_state_dict({"1.weight": weights, "1.bias": torch.zeros(3)})
    return core


def rounded(images: Tensor) -> Tensor:
    return (images * 15).round() / 15


def accuracy_under_attack(network: Network) -> tuple[float, float]:
    """Under PGD without a random start, and the greatest entry of the gradient that it follows."""
    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = network(images).argmax(1)
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(points).logsumexp(1).sum(), points)
    against = Adversary(Linf(epsilon=0.2), 0.2, torch.Generator())
    found = PGD(random_start="none").perturb(network, images, labels, against)
    return (~misclassified(network, found, labels)).double().mean().item(), gradient.abs().max().item()


def test_a_naive_attack_is_blinded_by_rounding_and_ours_is_not() -> None:
    naive, hidden = accuracy_under_attack(Network(linear(), [0.0], [1.0], preprocess=rounded))
    adaptive, seen = accuracy_under_attack(Network(linear(), [0.0], [1.0], preprocess=Squeezer(4, median=1)))
    assert (naive, hidden) == (1.0, 0.0)
    assert seen > 0.1
    assert adaptive < 0.1


# --- what stands behind the squeezer


def test_everything_but_the_pixels_is_the_inner_defense_s() -> None:
    inner = Hybrid(epsilon=0.2, split_batch_norm=True, examples="epoch")
    outer = FeatureSqueezing(training=inner)
    clock = Clock(3, 10)
    assert outer.refresh == inner.refresh == "epoch"
    assert outer.splits_batch_norm
    assert outer.gradient_evaluations == inner.gradient_evaluations
    assert outer.epsilon_at(clock, ()) == inner.epsilon_at(clock, ()) > 0
    assert outer.alpha_at(clock, ()) == inner.alpha_at(clock, ()) == 0.5
    assert outer.measurement(0.1) == inner.measurement(0.1)
    union = Hybrid(epsilon=0.2, batch_mode="union")
    assert len(FeatureSqueezing(training=union).order(5, torch.Generator())) == 10


def test_squeezers_can_stand_behind_one_another() -> None:
    images = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    both = FeatureSqueezing(bit_depth=1, training=FeatureSqueezing(median=3, bit_depth=8)).preprocessor(1)
    assert torch.equal(both(images), Squeezer(1, median=1)(Squeezer(8, median=3)(images)))
