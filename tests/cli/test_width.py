"""Tables in a pipe: no figure, and no name of one, is cut."""

from __future__ import annotations

import pytest
from test_tables import METRIC, NAIVE, ledger

from sweep.cli import tables
from sweep.configuration import TrialConfig
from sweep.registry import validated
from sweep.search_space import OneOf, SearchSpace
from sweep.study import Budget, Maximize, Study
from sweep.training import EpochResult


def test_a_trial_alone_prints_a_line_an_epoch_and_figures_that_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    space = {"dataset": "digits", "model": "small_cnn", "threat_model": {"name": "linf", "epsilon": 0.1}, "epochs": 1}
    attack = {"name": "pgd", "num_steps": 50, "num_restarts": 2, "step_size": 0.01}
    named = "validation/pgd_50x2_step_0.01/adversarial_accuracy"
    given = space | {"defense": "standard", "validation_attacks": [attack], "objective": [{"metric": named}]}
    config = validated(TrialConfig, given, "tiny")
    metrics = {"train/loss": 1.25, "validation/clean_accuracy": 0.5, named: 1 / 3, "epsilon": 0.1, "alpha": 0.5}
    tables.show_epoch(config, EpochResult(1, metrics))
    figures = {named: 1 / 3, "learning_rate": 0.000123456, "gradient_evaluations": 1234567.0, "epsilon": 0.0}
    tables.show_summary({"selected_epoch": 1, "selected": figures, "final": {}, "validity": None})
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch   1/1 ") and first.endswith("epsilon 0.1000  alpha 0.500") and len(first) > 110
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in rest if "│" in line]
    assert [row[1] for row in rows] == ["0.3333", "0.00012", "1,234,567", "0.0000"]


def test_long_names_and_many_attacks_are_whole_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    final = [{"name": "fgsm"}, {"name": "pgd", "num_steps": 50, "num_restarts": 2}, {"name": "cw_pgd"}]
    space = SearchSpace(
        dataset="digits",
        model="small_cnn",
        threat_model={"name": "linf", "epsilon": 0.1},
        epochs=1,
        defense=OneOf(feature_squeezing={}, standard={}),
    )
    given = {"name": "tiny", "space": space, "search_attack": {"name": "pgd", "num_steps": 2}, "final_attacks": final}
    study = validated(Study, given | {"objective": Maximize(METRIC), "budget": Budget(trials=1)}, "tiny")
    figures = {f"validation/{name}/adversarial_accuracy": 0.5 for name in ("fgsm", "pgd_50x2", "cw_pgd_40")}
    compared = study.model_copy(update={"compare": "defense"})
    tables.show_results(compared, ledger({NAIVE: 0.625, **figures}))
    printed = capsys.readouterr().out
    assert "…" not in printed and max(map(len, printed.splitlines())) <= 120
    for name in ("feature_squeezing", "pgd_2_naive", "pgd_50x2", "cw_pgd_40", "0.625"):
        assert name in printed
    assert "tuned with, in gradient evaluations: feature_squeezing 0 (1 trial), standard 0 (0 trials)" in printed
