"""What a finished training is worth: its selected network under every attack that the configuration names."""

from __future__ import annotations

import torch
from torch import Tensor

from sweep.configuration import TrialConfig
from sweep.datasets import Split
from sweep.evaluation import Verdicts, confidence, evaluate, mixed_accuracy, naive_accuracy
from sweep.models.network import Network


def judged(config: TrialConfig, network: Network, validation: Split) -> tuple[Verdicts, dict[str, float]]:
    """The network's verdicts on the validation split, and its final figures there by metric name."""
    attacks, judge = (*config.validation_attacks, *config.final_attacks), config.validation_attacks[0]
    verdicts = evaluate(network, validation, attacks, config.threat_model, config.seed)
    figures = verdicts.metrics("validation")
    figures |= confidence(network, validation, judge, config.threat_model, config.seed, "validation")
    if network.preprocess is not None:
        figures |= naive_accuracy(network, validation, judge, config.threat_model, config.seed, "validation")
    clean, worst = verdicts.clean.double().mean().item(), verdicts.worst_case.double().mean().item()
    figures["validation/worst_case/adversarial_accuracy"] = worst
    figures["validation/worst_case/robustness_gap"] = clean - worst
    figures["validation/mixed_50/accuracy"] = mixed_accuracy(clean, worst, 0.5)
    return verdicts, figures


def tested(config: TrialConfig, network: Network, device: torch.device) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Open the test split: the network's figures there, and its verdict on each example, booleans [N] by attack."""
    split = config.dataset.load_test().to(device)
    verdicts = evaluate(network, split, config.test_attacks, config.threat_model, config.seed)
    rows = {"clean": verdicts.clean, **verdicts.robust, "worst_case": verdicts.worst_case}
    worst = verdicts.worst_case.double().mean().item()
    return verdicts.metrics("test") | {"test/worst_case/adversarial_accuracy": worst}, rows
