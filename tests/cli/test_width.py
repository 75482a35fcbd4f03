"""Tables in a pipe: no figure, and no name of one, is cut."""

from __future__ import annotations

import pytest
from test_tables import METRIC, NAIVE, ledger

from sweep.cli import tables
from sweep.registry import validated
from sweep.search_space import OneOf, SearchSpace
from sweep.study import Budget, Maximize, Study


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
