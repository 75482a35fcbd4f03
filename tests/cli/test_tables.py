"""Tables, from the events of a journal."""

from __future__ import annotations

import re

import pytest

from sweep.cli import tables
from sweep.registry import validated
from sweep.study import Budget, Maximize, SearchSpace, Study
from sweep.tracking.ledger import Ledger

METRIC = "validation/pgd_2/adversarial_accuracy"
NAIVE = "validation/pgd_2_naive/adversarial_accuracy"


def study() -> Study:
    given = {
        "name": "tiny",
        "space": SearchSpace(
            dataset="digits",
            model="small_cnn",
            threat_model=dict(name="linf", epsilon=0.1),
            epochs=1,
            defense="feature_squeezing",
        ),
        "search_attack": {"name": "pgd", "num_steps": 2},
        "final_attacks": [{"name": "fgsm"}],
        "objective": Maximize(METRIC),
        "budget": Budget(trials=1),
    }
    return validated(Study, given, "tiny")


def ledger(final: dict[str, float]) -> Ledger:
    found = Ledger()
    config = {"defense": {"name": "feature_squeezing"}, "epochs": 1, "select": "best"}
    asked = {"event": "asked", "time": 0.0, "trial": 0, "config": config, "params": {}, "origin": "sampler"}
    found.apply(asked | {"attributes": {}})
    best = {"epoch": 1, "metrics": {METRIC: 0.25, "validation/clean_accuracy": 0.75}}
    ended = {"event": "ended", "time": 0.0, "trial": 0, "end": "completed", "best": best, "error": None}
    found.apply(ended | {"final": {METRIC: 0.25} | final})
    return found


def test_the_naive_attack_stands_beside_the_adaptive_one_where_images_are_preprocessed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.show_results(study(), ledger({NAIVE: 0.625, "validation/fgsm/adversarial_accuracy": 0.5}))
    printed = capsys.readouterr().out
    assert re.search(r"clean.*pgd_2 .*pgd_2_naive.*fgsm.*worst case", printed), printed
    assert re.search(r"feature_squeezing .* 0\.750 .* 0\.250 .* 0\.625 .* 0\.500 ", printed), printed
    tables.show_results(study(), ledger({}))
    assert "naive" not in capsys.readouterr().out
