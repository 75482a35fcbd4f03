from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_study import asked, complete, cut, events, finish, report, searching, tiny, told

from sweep.analysis.confirm import begin, outcome, select, verdict
from sweep.attacks.pgd import PGD
from sweep.configuration import TrialConfig
from sweep.errors import ConfigurationError, StudyError
from sweep.evaluation import evaluate
from sweep.exported import restored
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.provisions import Confirmation, Limits
from sweep.registry import validated
from sweep.study import Study

BASELINE = {"defense": "standard", "optimizer": {"learning_rate": 0.05}}


def searched(root: Path) -> StudyFolder:
    """Four trials told by hand: nothing is trained to have something to confirm."""
    with searching(root, study()) as search:
        for value in (0.3, 0.5, 0.9, 0.7):
            complete(search, value)
    return StudyFolder.find(root, "tiny")


def study() -> Study:
    adversarial = {"defense": "adversarial_training", "optimizer": {"learning_rate": 0.05}}
    return tiny(enqueue=[BASELINE, adversarial, adversarial, adversarial])


def selection(folder: StudyFolder, top: int = 1, seeds: int = 2, attack: str = "fgsm") -> Confirmation:
    return select(folder, top=top, seeds=seeds, attacks=[attack], baselines=True)


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder = searched(tmp_path_factory.mktemp("confirmed"))
    confirming = begin(folder, selection(folder), again=False)
    with opened(confirming) as search:
        in_process.run(search)
    return confirming


def test_the_best_and_the_baselines_are_chosen(tmp_path: Path) -> None:
    chosen = selection(searched(tmp_path), top=2)
    assert chosen.trials == (2, 3, 0)
    assert chosen.values == (0.9, 0.7, 0.3)
    assert chosen.baselines == 1
    assert [attack.label for attack in chosen.attacks] == ["pgd_2", "fgsm"]


def test_a_lucky_value_shrinks(confirmed: StudyFolder) -> None:
    """The search's best is told to have reached 0.9, which three epochs never do: the confirmation says so."""
    best, baseline = outcome(confirmed)
    assert (best.number, best.defense, best.searched) == (2, "adversarial_training", 0.9)
    assert best.shrinkage == pytest.approx(0.9 - best.worst_case.mean)
    assert best.shrinkage > 0.1
    assert best.worst_case.low <= best.worst_case.mean <= best.worst_case.high
    assert baseline.is_baseline
    assert "the search had said 0.900" in verdict([best, baseline])[0]


def test_figures_are_those_of_the_verdicts(confirmed: StudyFolder) -> None:
    ended = {event["trial"]: event for event in events(confirmed.path, "ended")}
    seeds = {event["config"]["seed"] for event in events(confirmed.path, "asked")}
    assert len(seeds) == len(ended) == 4
    best = outcome(confirmed)[0]
    means = [ended[trial]["final"]["test/worst_case/adversarial_accuracy"] for trial in (0, 2)]
    assert best.worst_case.mean == pytest.approx(np.mean(means))
    assert best.test["test/fgsm/adversarial_accuracy"] >= best.worst_case.mean


def test_a_baseline_is_not_called_the_best_where_nothing_better_completed(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    confirming = begin(folder, selection(folder), again=False)
    with opened(confirming) as search:
        finish(search, asked(search).number, "failed")
        in_process.run(search)
    cut(confirming.path, [event for event, _ in told(confirming.path)].index("ended", 3) + 1)
    (left,) = found = outcome(confirming)
    assert left.is_baseline and left.ends == ("completed", "not begun")
    sentences = verdict(found)
    assert "trial 0 (standard), a baseline: " in sentences[0]
    assert "trial 0: 1 of 2 trainings not begun" in sentences


def test_nothing_is_better_or_worse_than_what_cannot_be_believed(confirmed: StudyFolder) -> None:
    best, baseline = outcome(confirmed)
    compared = ("better than", "worse than", "no difference shown from")
    for pair in ([replace(best, suspect=("V8",)), baseline], [best, replace(baseline, suspect=("V8",))]):
        sentences = verdict(pair)
        assert not any(sentence.startswith(compared) for sentence in sentences)
        assert any("cannot be believed: it failed V8" in sentence for sentence in sentences)
    believed = [replace(one, suspect=()) for one in (best, baseline)]
    assert any(sentence.startswith(compared) for sentence in verdict(believed))


def test_the_same_selection_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    first = begin(folder, selection(folder), again=False)
    assert begin(folder, selection(folder), again=False).path == first.path
    with pytest.raises(StudyError, match=r"opened already, for trials 2, 0 .*--again"):
        begin(folder, selection(folder, attack="cw_pgd"), again=False)
    second = begin(folder, selection(folder, attack="cw_pgd"), again=True)
    assert second.path.name == "tiny-confirmation-2"
    openings = [(event["name"], event["opening"]) for event in events(folder.path, "confirmation")]
    assert openings == [("tiny-confirmation", 1), ("tiny-confirmation-2", 2)]


def test_a_crash_after_the_opening_was_written_does_not_open_twice(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    first = begin(folder, selection(folder), again=False)
    (first.path / "study.json").unlink()
    assert begin(folder, selection(folder), again=False).path == first.path
    assert len(events(folder.path, "confirmation")) == 1


def test_the_searchs_time_limits_do_not_bind_it(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    assert folder.study().limits.epoch_hours == 6
    assert begin(folder, selection(folder), again=False).study().limits == Limits(trial_hours=None, epoch_hours=None)


def test_openings_do_not_count_as_time_of_the_search(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    before = folder.ledger().hours
    begin(folder, selection(folder), again=False)
    assert folder.ledger().hours == before


def test_a_race_under_a_stronger_attack_chooses_the_candidates(tmp_path: Path) -> None:
    """Three real trials, each called best by the search in turn; the race looks at what their networks withstand."""
    with searching(tmp_path, study()) as search:
        in_process.run(search)
    folder = StudyFolder.find(tmp_path, "tiny")
    pgd = {"name": "pgd", "num_steps": 10}
    chosen = select(folder, top=1, seeds=1, attacks=[pgd], baselines=False, raced=4)
    reached = {}
    for trial in folder.ledger():
        config = validated(TrialConfig, trial.config, "a trial")
        splits = config.dataset.load()
        network = restored(config, splits, folder.trial(trial.number) / "best.safetensors")
        verdicts = evaluate(network, splits.validation, [PGD(num_steps=10)], config.threat_model, config.seed)
        reached[trial.number] = verdicts.worst_case.double().mean().item()
    assert reached[chosen.trials[0]] == max(reached.values())
    assert chosen.raced == 4


def test_mistakes_in_the_attack_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'fgsm'"):
        selection(searched(tmp_path), attack="fgms")


def test_nothing_completed_is_nothing_to_confirm(tmp_path: Path) -> None:
    with searching(tmp_path) as search:
        search.ask()
    folder = StudyFolder.find(tmp_path, "tiny")
    with pytest.raises(StudyError, match="nothing to confirm"):
        selection(folder)


def test_nothing_but_suspects_is_said_so(tmp_path: Path) -> None:
    with searching(tmp_path, study()) as search:
        number = asked(search).number
        report(search, number, 1, 0.9)
        validity = {"verdict": "suspect", "suspect": ["V8"], "investigate": [], "figures": {}}
        search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": validity})
    with pytest.raises(StudyError, match="every completed trial is suspect"):
        selection(StudyFolder.find(tmp_path, "tiny"))


def test_a_race_of_fewer_than_are_wanted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="--race 1 leaves 1 to choose from, and --top 3 are wanted"):
        select(searched(tmp_path), top=3, seeds=1, attacks=["fgsm"], baselines=False, raced=1)


def test_a_mistaken_confirmation_opens_nothing(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    twice = select(folder, top=1, seeds=1, attacks=["fgsm", "fgsm"], baselines=True)
    with pytest.raises(ConfigurationError, match="two attacks would both report as 'fgsm'"):
        begin(folder, twice, again=False)
    StudyFolder.create(tmp_path, tiny(name="tiny-confirmation"))
    with pytest.raises(StudyError, match="holds another study, where this confirmation belongs"):
        begin(folder, selection(folder), again=False)
    assert events(folder.path, "confirmation") == []


def test_what_confirms_is_neither_confirmed_nor_extended(tmp_path: Path) -> None:
    """Either would judge, on the test split, what the opening does not name."""
    folder = searched(tmp_path)
    confirming = begin(folder, selection(folder), again=False)
    with pytest.raises(StudyError, match="is a confirmation already; `sweep confirm tiny`"):
        selection(confirming)
    with pytest.raises(ConfigurationError, match=r"this confirmation has 4 trainings and no others, got 5"):
        confirming.extend(trials=1)
    assert confirming.study().budget.trials == 4
