"""Ten defenses that look robust and are not: each is found by the check that is there for it, and none wins a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sweep.analysis import findings, results
from sweep.analysis.export import choose
from sweep.configuration import TrialConfig
from sweep.errors import StudyError
from sweep.objective import Maximize
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.registry import validated
from sweep.search_space import SearchSpace
from sweep.study import Budget, Study
from sweep.trial import Trial
from sweep.validity import CHECKS

pytestmark = pytest.mark.slow

METRIC = "validation/pgd_10/adversarial_accuracy"
SPACE: dict[str, Any] = {
    "dataset": "digits",
    "model": {"name": "small_cnn", "width": 8},
    "threat_model": {"name": "linf", "epsilon": 0.1},
    "defense": "standard",
    "epochs": 10,
    "optimizer": {"name": "sgd", "learning_rate": 0.05},
}


def config(**fields: Any) -> TrialConfig:
    return validated(TrialConfig, SPACE | fields, "test")


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained() -> Trial:
    """An honest network, trained as usual: the broken defenses are put around it."""
    trial = Trial(config())
    list(trial.run())
    return trial


class Backward(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def backward(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda values: Backward.apply(values, factor)  # type: ignore[no-untyped-call]


class Quantised(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return (images * 4).round() / 4


def resized(images: Tensor) -> Tensor:
    side = int(torch.randint(6, 9, ()))
    small = F.interpolate(images, size=(side, side), mode="bilinear")
    return F.interpolate(small, size=images.shape[2:], mode="bilinear")


def root_of_zero(logits: Tensor) -> Tensor:
    return logits + (logits - logits).sqrt()


BEFORE: dict[str, Callable[[Tensor], Tensor]] = {  # put before the network's layers
    "dropout at test": lambda images: F.dropout(images, 0.5, training=True),
    "random resizing": resized,
}
AFTER: dict[str, Callable[[Tensor], Tensor]] = {  # put after them
    "gradient killed": backward(0.0),
    "logits x 1e4": lambda logits: logits * 1e4,
    "softmax output": lambda logits: logits.softmax(1),
    "label leakage": backward(-1.0),
    "non-finite gradients": root_of_zero,
}
CHANGED: dict[str, dict[str, Any]] = {  # another configuration of the same weights
    "quantised input": {"defense": {"name": "feature_squeezing"}},
    "tiny-step attack": {
        "validation_attacks": [{"name": "pgd", "num_steps": 10, "step_size": 1e-4}],
        "objective": [{"metric": "validation/pgd_10_step_0.0001/adversarial_accuracy"}],
    },
}
RIGHT = {
    "gradient killed": "V4",
    "logits x 1e4": "V16",
    "softmax output": "V3",
    "quantised input": "V19",
    "dropout at test": "V2",
    "one-step-trained collapse": "V22",
    "tiny-step attack": "V9",
    "random resizing": "V2",
    "label leakage": "V26",
    "non-finite gradients": "V5",
}


@contextmanager
def broken(trial: Trial, how: str) -> Iterator[Trial]:
    """The trial with something wrong around its network."""
    core: nn.Module = trial.network.core
    hooks = []
    if how in BEFORE:
        hooks.append(core.register_forward_pre_hook(lambda module, inputs: BEFORE[how](inputs[0])))
    if how in AFTER:
        hooks.append(core.register_forward_hook(lambda module, inputs, logits: AFTER[how](logits)))
    preprocess = trial.network.preprocess
    if how == "quantised input":
        trial.network.preprocess = Quantised()
    yield trial
    trial.network.preprocess = preprocess
    for hook in hooks:
        hook.remove()


def changed(trial: Trial, **fields: Any) -> Trial:
    """The same weights under another configuration."""
    other = Trial(config(**fields))
    other.results, other.best, other.best_weights = trial.results, trial.best, trial.best_weights
    other.network.load_state_dict(trial.network.state_dict())
    return other


# Really trained against one step, at a radius that is too large for it, and judged by that very step.
ONE_STEP: dict[str, Any] = {
    "model": {"name": "small_cnn", "width": 16},
    "threat_model": {"name": "linf", "epsilon": 0.3},
    "defense": {"name": "adversarial_training", "epsilon": 0.3, "attack": "fgsm"},
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "validation_attacks": ["fgsm"],
    "objective": [{"metric": "validation/fgsm/adversarial_accuracy"}],
    "epochs": 25,
}


def collapsed() -> Trial:
    trial = Trial(config(**ONE_STEP))
    list(trial.run())
    return trial


@pytest.fixture(scope="module")
def examined(trained: Trial) -> dict[str, dict[str, Any]]:
    """What the checks say of each."""
    found = {}
    for how in RIGHT:
        trial = collapsed() if how == "one-step-trained collapse" else trained
        if how in CHANGED:
            trial = changed(trained, **CHANGED[how])
        with broken(trial, how):
            figures = trial.finish()
            assert trial.validity is not None
            found[how] = trial.validity.to_json() | {"robust": figures["validation/worst_case/adversarial_accuracy"]}
    return found


@pytest.mark.parametrize("how", RIGHT)
def test_the_right_check_finds_it(how: str, examined: dict[str, dict[str, Any]]) -> None:
    validity = examined[how]
    assert validity["verdict"] == "suspect" and RIGHT[how] in validity["suspect"], validity
    explained = [sentence for outcome, sentence in findings.explained(validity) if outcome == "suspect"]
    check = CHECKS[RIGHT[how]]
    assert any(check.title in sentence and check.remedy in sentence for sentence in explained)


def test_without_the_checks_most_of_them_would_look_robust(trained: Trial, examined: dict[str, Any]) -> None:
    honest = trained.finish()["validation/worst_case/adversarial_accuracy"]
    better = [how for how, validity in examined.items() if validity["robust"] > honest + 0.1]
    assert len(better) >= 5, better


def test_a_trained_network_is_believed(trained: Trial) -> None:
    trained.finish()
    assert trained.validity is not None
    assert (trained.validity.verdict, trained.validity.suspect) == ("valid", ()), trained.validity.figures
    again = trained.validity
    trained.finish()
    assert trained.validity == again, "its checks are drawn from its seed"


def test_none_is_exported_and_each_can_be_asked_for(examined: dict[str, Any], tmp_path: Path) -> None:
    study = Study(
        name="broken",
        space=SearchSpace(**SPACE),
        objective=(Maximize(METRIC),),
        sampler="random",
        budget=Budget(trials=len(RIGHT) + 1),
    )
    folder = StudyFolder.create(tmp_path, study)
    with opened(folder) as search:
        for number, how in enumerate([*RIGHT, "honest"]):
            assignment = search.ask()
            assert assignment is not None and assignment.number == number
            metrics = {METRIC: 0.3 if how == "honest" else 0.99, "validation/clean_accuracy": 0.995}
            search.hear({"trial": number, "epoch": 1, "metrics": metrics})
            ending: dict[str, Any] = {"end": "completed", "final": {}, "validity": examined.get(how), "error": None}
            search.hear({"trial": number, **ending})
        ledger = search.ledger
    honest = len(RIGHT)
    assert choose.best(folder, ledger).trial.number == honest
    assert [trial.number for trial in results.best_by_defense(ledger, study.objective[0])] == [honest]
    assert [trial.number for trial in results.pareto(ledger, study.objective)] == [honest]
    assert choose.best(folder, ledger, include_suspect=True).trial.number == 0
    for number in range(honest):
        with pytest.raises(StudyError, match=rf"trial {number} is suspect \(.*--include-suspect"):
            choose.completed(ledger, number)
        assert choose.completed(ledger, number, include_suspect=True).number == number
    told = "\n".join(findings.suspects(ledger))
    assert told.startswith("10 trials are") and all(f"{id} {CHECKS[id].title}" in told for id in RIGHT.values())
    rows = {row["trial"]: row for row in results.trial_rows(ledger)}
    assert rows[0]["validity"] == "suspect" and "V4" in rows[0]["suspect"] and rows[0]["validity/V4"] > 0.9
    assert rows[honest]["validity"] is None, "nobody asked"
    search.ledger.trials.pop(honest)
    with pytest.raises(StudyError, match=r"every completed trial of .* is suspect"):
        choose.best(folder, search.ledger)
