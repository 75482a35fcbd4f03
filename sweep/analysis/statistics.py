"""What can be said of accuracies measured on the same images, with several trainings of each configuration.

A configuration's verdicts are booleans [seeds, examples]: was this example classified correctly by the network of this
seed, under every attack? Both the seed and the image are a draw, so both are resampled (a two-level bootstrap, with the
same images for every configuration: differences are paired). With one seed only the images are, and the interval says
nothing of another training; few seeds make it a little too narrow, by (n - 1) / n in the variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Verdicts = NDArray[np.bool_]  # [seeds, examples]

SURE = 0.05  # a corrected p-value below this is called a difference
RESAMPLES = 10_000
_AT_ONCE = 500  # resamples held in memory together


@dataclass(frozen=True)
class Interval:
    """A mean in [0, 1] (or a difference in [-1, 1]) and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The first configuration's mean accuracy less the second's."""

    difference: Interval
    p: float  # two-sided, from the bootstrap
    p_holm: float  # the same, corrected for the number of comparisons made


def analyse(
    all_verdicts: Sequence[Verdicts], rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[list[Interval], list[Comparison]]:
    """Each configuration's accuracy, and the first one against each of the others on the same examples.

    Percentile intervals (Efron and Tibshirani 1993, 13.3); the p-values are corrected together (Holm 1979).
    """
    if any(verdicts.shape[1] != all_verdicts[0].shape[1] for verdicts in all_verdicts):
        raise ValueError("verdicts of different examples cannot be paired")
    observed = [verdicts.mean() for verdicts in all_verdicts]
    drawn = _resampled(all_verdicts, rng, resamples)
    intervals = [_summed_up(*pair) for pair in zip(observed, drawn, strict=True)]
    differences = [(observed[0] - observed[k], drawn[0] - drawn[k]) for k in range(1, len(drawn))]
    ps = [_two_sided(difference) for _, difference in differences]
    comparisons = [
        Comparison(_summed_up(*difference), p, corrected)
        for difference, p, corrected in zip(differences, ps, holm(ps), strict=True)
    ]
    return intervals, comparisons


def binomial(share: float, examples: int) -> tuple[float, float]:
    """The 95 % interval of a share of so many examples (Wilson 1927): within [0, 1] also where the share is 0 or 1."""
    squared = 1.959964**2 / examples
    middle, reach = share + squared / 2, math.sqrt(squared * (share * (1 - share) + squared / 4))
    low, high = (middle - reach) / (1 + squared), (middle + reach) / (1 + squared)
    return max(0.0, min(share, low)), min(1.0, max(share, high))  # the share is within: at 0 and 1 rounding puts it out


def effect_size(share: float, other: float) -> float:
    """Cohen's h, the difference of two shares where equal steps are equally hard to tell apart (Cohen 1988, 6.2):
    0.2 is small, 0.5 medium, 0.8 large."""
    return 2 * (math.asin(math.sqrt(share)) - math.asin(math.sqrt(other)))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of one false finding among all of them is at most the level."""
    order = np.argsort(ps, kind="stable")
    scaled = [min(1.0, (len(ps) - rank) * ps[index]) for rank, index in enumerate(order)]
    corrected = np.empty(len(ps))
    corrected[order] = np.maximum.accumulate(scaled) if len(ps) else []
    return [float(p) for p in corrected]


def _resampled(all_verdicts: Sequence[Verdicts], rng: np.random.Generator, resamples: int) -> list[NDArray[np.float64]]:
    """Mean accuracies [resamples] of each configuration: seeds drawn for each, examples drawn for all alike."""
    examples = all_verdicts[0].shape[1]
    drawn = [np.empty(resamples) for _ in all_verdicts]
    transposed = [verdicts.T.astype(np.float64) for verdicts in all_verdicts]  # [examples, seeds]
    for start in range(0, resamples, _AT_ONCE):
        rows = slice(start, min(start + _AT_ONCE, resamples))
        weights = _counts(examples, rows.stop - start, rng) / examples
        for means, verdicts in zip(drawn, transposed, strict=True):
            seeds = verdicts.shape[1]
            means[rows] = ((weights @ verdicts) * _counts(seeds, rows.stop - start, rng) / seeds).sum(1)
    return drawn


def _counts(size: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each of `size` things is drawn, [resamples, size]. Several times as fast as a multinomial."""
    return np.stack([np.bincount(rng.integers(size, size=size), minlength=size) for _ in range(resamples)])


def _summed_up(observed: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(observed), float(low), float(high))


def _two_sided(drawn: NDArray[np.float64]) -> float:
    """How often chance puts the difference on the other side of 0, twice; never 0, which no resampling can show."""
    below, above = (drawn <= 0).sum() + 1, (drawn >= 0).sum() + 1
    return float(min(1.0, 2 * min(below, above) / (len(drawn) + 1)))
