"""What is known of an exported network, in the form of RobustBench's `model_info` (Croce et al. 2021).

Accuracies are percentages as text, and of the whole test split; what nobody measured or knows is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sweep.analysis.export.account import Figures
from sweep.analysis.export.chosen import Chosen
from sweep.attacks.auto_attack import AutoAttack
from sweep.configuration import TrialConfig


def entry(chosen: Chosen, config: TrialConfig, figures: Sequence[Figures]) -> dict[str, Any]:
    test = next((each for each in figures if each.split == "test"), None)
    return {
        "link": None,
        "name": chosen.title,
        "authors": None,
        "additional_data": False,
        "number_forward_passes": max(1, config.defense.test_draws),
        "dataset": config.dataset.name,
        "venue": None,
        "architecture": config.model.name,
        "eps": radius(config.threat_model.epsilon),
        "clean_acc": _percent(test, "clean"),
        "reported": _percent(test, "worst case"),
        "autoattack_acc": _percent(test, AutoAttack().label),
        "footnote": _footnote(chosen, config, test),
        "unreliable": chosen.is_suspect,
    }


def radius(epsilon: float) -> str:
    """A radius as people write it: in 255ths where it is whole in them."""
    levels = epsilon * 255
    return f"{round(levels)}/255" if 1 <= levels < 255 and abs(levels - round(levels)) < 1e-6 else f"{epsilon:g}"


def _percent(figures: Figures | None, what: str) -> str | None:
    found = figures.accuracies.get(what) if figures else None
    return f"{100 * found.mean:.2f}" if found else None


def _footnote(chosen: Chosen, config: TrialConfig, test: Figures | None) -> str:
    threat_model = f"{config.threat_model.name}, radius {config.threat_model.epsilon:g} in [0,1] pixels"
    judged = f"{test.images} test images" if test else "the test split was not opened for this network"
    return f"{threat_model}; {judged}; {chosen.standing}"
