"""A winner by luck, planted: one configuration under ten seeds, really searched and really confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_study import METRIC, tiny

from sweep.analysis.confirm import outcome, verdict
from sweep.analysis.opening import begin, select
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.study import Budget

SEEDS = 10
SAME = {
    "defense": {"name": "adversarial_training", "attack": {"num_steps": 1}},
    "optimizer": {"learning_rate": 0.2},  # so much that the seed decides
}


@pytest.mark.slow
def test_the_luckiest_of_ten_seeds_shrinks_and_the_verdict_says_so(tmp_path: Path) -> None:
    folder = StudyFolder.create(
        tmp_path, tiny(space={"epochs": 5}, enqueue=[SAME] * SEEDS, budget=Budget(trials=SEEDS))
    )
    with opened(folder) as search:
        in_process.run(search)
    ledger = folder.ledger()
    assert len({str(trial.config | {"seed": 0}) for trial in ledger}) == 1 and ledger.counts() == {"completed": SEEDS}
    reached = [trial.best["metrics"][METRIC] for trial in ledger if trial.best]
    with opened(
        begin(folder, select(folder, top=1, seeds=3, attacks=["cw_pgd"], baselines=False), again=False)
    ) as search:
        in_process.run(search)
    (best,) = outcome(search.folder)
    assert best.searched == max(reached)
    assert best.validation < best.searched and best.luck == pytest.approx(best.searched - best.validation)
    assert best.worst_case.mean < best.searched, "on unseen images, under a stronger attack"
    claim = verdict(search.folder.study(), [best])[0]
    assert f"the search had said {best.searched:.3f}" in claim
    assert claim.endswith(f": {best.luck:.3f} of the search's value was luck"), claim
