"""What the model registry is told of a version: what its figures are worth, and by what they may be compared."""

from __future__ import annotations

from sweep.analysis.export.account import attacks
from sweep.analysis.export.chosen import Chosen
from sweep.configuration import TrialConfig, fingerprint
from sweep.registry import validated


def claim(chosen: Chosen) -> dict[str, str]:
    """The version's tags, as `sweep.tracking.champion` compares them."""
    config = validated(TrialConfig, chosen.trial.config, chosen.title)
    worst = chosen.trial.final["validation/worst_case/adversarial_accuracy"]
    if chosen.is_confirmed and chosen.candidate:
        worst = chosen.candidate.worst_case.mean
    judges = [attack.model_dump(mode="json") for attack in attacks(config)]
    data = config.dataset.model_dump(mode="json", exclude={"train_size"})
    return {
        "standing": f"{chosen.title}; {chosen.standing}",
        "defense": chosen.trial.defense,
        "claim": "suspect" if chosen.is_suspect else "confirmed" if chosen.is_confirmed else "unconfirmed",
        "worst_case": f"{worst:.4f}",
        "judged_by": fingerprint([data, config.threat_model.model_dump(mode="json"), judges]),
    }
