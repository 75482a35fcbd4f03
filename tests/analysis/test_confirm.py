from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_study import METRIC, asked, complete, cut, events, finish, report, searching, tiny, told

from sweep.analysis.confirm import in_order, is_confirmed, outcome, verdict
from sweep.analysis.export import choose
from sweep.analysis.export.account import of_seeds
from sweep.analysis.opening import begin, disbelieved, history, select, unfinished
from sweep.analysis.report import accuracy, page
from sweep.analysis.statistics import Interval
from sweep.attacks.pgd import PGD
from sweep.checkpoint import save_weights
from sweep.cli import progress
from sweep.cli.tables import show_where_to_look
from sweep.cli.verdict import show_openings
from sweep.configuration import TrialConfig
from sweep.errors import CheckpointError, ConfigurationError, StudyError
from sweep.evaluation import evaluate
from sweep.exported import restored
from sweep.objective import AtLeast, Maximize, Minimize
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.orchestration.search import opened
from sweep.provisions import Budget, Confirmation, Limits
from sweep.registry import validated
from sweep.study import Study
from sweep.trial import VERDICTS

BASELINE = {"defense": "standard", "optimizer": {"learning_rate": 0.05}}


def searched(root: Path, **changes: Any) -> StudyFolder:
    """Four trials told by hand: nothing is trained to have something to confirm."""
    with searching(root, study(**changes)) as search:
        for value in (0.3, 0.5, 0.9, 0.7):
            complete(search, value)
    return StudyFolder.find(root, "tiny")


def study(**changes: Any) -> Study:
    adversarial = {"defense": "adversarial_training", "optimizer": {"learning_rate": 0.05}}
    return tiny(enqueue=[BASELINE, adversarial, adversarial, adversarial], **changes)


def selection(folder: StudyFolder, top: int = 1, seeds: int = 2, attack: str = "fgsm") -> Confirmation:
    return select(folder, top=top, seeds=seeds, attacks=[attack], baselines=True)


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Of a search that told of clean accuracies of 0.9, which three epochs never reach either."""
    bound = Maximize(METRIC, subject_to={"validation/clean_accuracy": AtLeast(0.9)})
    folder = searched(tmp_path_factory.mktemp("confirmed"), objective=bound)
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
    assert best.clean.mean == pytest.approx(best.test["test/clean_accuracy"])
    assert best.clean.low < best.clean.mean < best.clean.high
    assert baseline.is_baseline
    claim = verdict(confirmed.study(), [best, baseline])[0]
    assert "over 2 seeds and 300 images; the search had said 0.900" in claim
    assert f"fresh seeds reach {min(best.fresh):.3f} to {max(best.fresh):.3f}: {best.luck:.3f} of the search" in claim


def test_baselines_stand_as_the_search_ranked_them_behind_the_best(confirmed: StudyFolder) -> None:
    """But whatever the others are compared with stands first, also where that is a baseline."""
    best, baseline = outcome(confirmed)
    low, high = (replace(baseline, number=number, searched=searched) for number, searched in ((5, 0.3), (6, 0.5)))
    second = replace(best, number=7, searched=0.95)  # a race put it second
    goal = confirmed.study().objective[0]
    assert in_order([best, second, low, high], goal) == [best, second, high, low]
    assert in_order([best, second, low, high], Minimize(METRIC)) == [best, second, low, high]
    assert in_order([low, second, high], goal) == [low, second, high]


def test_a_figure_says_what_its_marks_stand_for(confirmed: StudyFolder) -> None:
    searched = StudyFolder.find(confirmed.path.parent, "tiny")
    best, baseline = (replace(one, suspect=()) for one in outcome(confirmed))
    explained: dict[bool, dict[str, str]] = {}
    for is_doubted in (False, True):
        found = [best, replace(baseline, suspect=("V8",) if is_doubted else ())]
        figure = accuracy.confirmed(searched.study(), searched.ledger(), found)
        assert figure is not None
        explained[is_doubted] = {trace.marker.symbol: trace.name for trace in figure.data if trace.showlegend is None}
        assert {trace.marker.symbol for trace in figure.data} == set(explained[is_doubted])
        assert [trace.y[0] for trace in figure.data[:2]] == [
            "adversarial_training<br>trial 2",
            "standard<br>trial 0, baseline",
        ]
    assert explained[True] == explained[False] | {"x": "suspect"}
    assert explained[False]["diamond-open"] == "the search: validation/pgd_2, one seed"


def test_what_limits_a_claim_is_said(confirmed: StudyFolder) -> None:
    best, baseline = outcome(confirmed)
    outside = "trial 2 is outside of the objective's bounds with fresh seeds: validation/clean_accuracy is 0."
    assert any(
        sentence.startswith(outside) and "at least 0.9 is asked" in sentence
        for sentence in verdict(confirmed.study(), [best])
    )
    assert not any("outside" in sentence for sentence in verdict(confirmed.study(), [baseline]))
    assert not is_confirmed(confirmed, 2), "which every seed completed"
    searched = StudyFolder.find(confirmed.path.parent, "tiny")
    with pytest.raises(StudyError, match=r"confirmed trial 2 is outside of the objective's bounds with fresh seeds"):
        choose.confirmed(searched, searched.ledger())
    assert "trial 2 is to be looked into: V11" in "\n".join(
        verdict(confirmed.study(), [replace(best, investigate=("V11",))])
    )
    alone = replace(best, ends=("completed",))
    assert "trial 2 has one seed: its interval says nothing of another training" in verdict(confirmed.study(), [alone])
    flat = replace(best, worst_case=Interval(1.0, 1.0, 1.0), images=60)
    assert {
        "trial 2 was judged on 60 test images: chance decides much of its figures",
        "trial 2 came out alike on every image, and no resampling shows the chance in that: up to 0.050 of other "
        "images may still differ",
    } <= set(verdict(confirmed.study(), [flat]))
    weak = verdict(confirmed.study(), [best, baseline])[-1]
    assert weak.startswith("no attack here takes more gradient steps than the search's, pgd_2")


def test_a_diverged_training_withstands_nothing(tmp_path: Path, confirmed: StudyFolder) -> None:
    """The same trainings as the fixture's, but for the candidate's second one, which is told to have diverged."""
    shutil.copytree(confirmed.path.parent, tmp_path / "studies")
    folder = StudyFolder(tmp_path / "studies" / confirmed.path.name)
    before = outcome(folder)[0]
    cut(folder.path, next(place for place, event in enumerate(told(folder.path)) if event == ("started", 2)) + 1)
    with opened(folder) as search:
        finish(search, asked(search).number, "diverged")
        in_process.run(search)
    best = outcome(folder)[0]
    first = events(folder.path, "ended")[0]["final"]["test/worst_case/adversarial_accuracy"]
    assert best.ends == ("completed", "diverged") and len(before.fresh) == 2
    assert best.worst_case.mean == pytest.approx(first / 2)
    assert "trial 2: 1 of 2 trainings diverged, and count as right about nothing" in verdict(confirmed.study(), [best])
    assert best.test["test/worst_case/adversarial_accuracy"] == pytest.approx(best.worst_case.mean)
    seeds = of_seeds(choose.numbered(folder, folder.ledger(), 0, include_suspect=True))
    assert seeds is not None and seeds.seeds == 2
    for row, label in (("clean_accuracy", "clean"), ("fgsm/adversarial_accuracy", "fgsm")):
        assert seeds.accuracies[label].mean == pytest.approx(best.test[f"test/{row}"])


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
    sentences = verdict(confirming.study(), found)
    assert "trial 0 (standard), a baseline: " in sentences[0]
    assert "trial 0: 1 of 2 trainings not begun" in sentences


def test_nothing_is_better_or_worse_than_what_cannot_be_believed(confirmed: StudyFolder) -> None:
    best, baseline = outcome(confirmed)
    compared = ("better than", "worse than", "no difference shown from")
    for pair in ([replace(best, suspect=("V8",)), baseline], [best, replace(baseline, suspect=("V8",))]):
        sentences = verdict(confirmed.study(), pair)
        assert not any(sentence.startswith(compared) for sentence in sentences)
        assert any("cannot be believed: it failed V8 iterative at least as" in sentence for sentence in sentences)
    believed = [replace(one, suspect=()) for one in (best, baseline)]
    assert any(sentence.startswith(compared) for sentence in verdict(confirmed.study(), believed))


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


def test_an_older_copy_of_the_journal_is_told_of_the_opening_again(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    before = folder.journal.read_bytes()
    first = begin(folder, selection(folder), again=False)
    folder.journal.write_bytes(before)
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


def test_no_race_is_run_twice(tmp_path: Path) -> None:
    with searching(tmp_path, study()) as search:
        in_process.run(search)
    folder, pgd = StudyFolder.find(tmp_path, "tiny"), {"name": "pgd", "num_steps": 3}

    def raced(top: int, again: bool = False, **attack: Any) -> Confirmation:
        return select(folder, top=top, seeds=1, attacks=[pgd | attack], baselines=False, raced=3, again=again)

    first = raced(top=2)
    for weights in folder.path.glob("trials/*/best.safetensors"):
        weights.unlink()  # nobody can race any more
    assert raced(top=2) == first
    assert raced(top=1).trials == first.trials[:1]
    (event,) = events(folder.path, "raced")
    assert event["winners"] == list(first.trials) and len(event["racers"]) == len(event["bounds"]) == 3
    with pytest.raises(CheckpointError):
        raced(top=2, num_steps=4)
    begin(folder, first, again=False)
    with pytest.raises(StudyError, match="opened already"):
        raced(top=2, num_steps=4)
    with pytest.raises(CheckpointError):
        raced(top=2, num_steps=4, again=True)
    assert raced(top=2) == first


def test_an_opening_amid_a_search_is_told_and_so_is_what_came_later(tmp_path: Path) -> None:
    folder = searched(tmp_path, budget=Budget(trials=6))
    warning = unfinished(folder.study(), folder.ledger())
    assert warning and "4 of 6 trials ended" in warning
    begin(folder, selection(folder), again=False)
    assert history(folder.ledger()) == [
        "the test split was opened once (tiny-confirmation)",
        "it was opened before the search was over, when 4 trials had ended",
    ]
    with searching(tmp_path, study(budget=Budget(trials=6))) as search:
        assert any("the split was opened already" in line for line in progress.restored(search))
        complete(search, 0.95)
        complete(search, 0.2)
    told = history(folder.ledger())
    assert told[-1] == "trials that ended after it was opened, and were no candidates: 2"
    assert unfinished(folder.study(), folder.ledger()) is None
    with pytest.raises(StudyError, match="`sweep resume tiny-confirmation` goes on with that one"):
        begin(folder, selection(folder), again=False)
    begin(folder, selection(folder), again=True)
    told = history(folder.ledger())
    assert told == [told[0]] and "was opened 2 times (tiny-confirmation, tiny-confirmation-2)" in told[0]
    assert "The test split was opened 2 times" in page.write(folder, measure=False).path.read_text()


def test_what_was_not_believed_when_confirmed_is_no_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = searched(tmp_path)
    ledger = folder.ledger()
    assert choose.best(folder, ledger).trial.number == 2
    confirming = begin(folder, selection(folder), again=False)
    validity = {"verdict": "suspect", "suspect": ["V10"], "investigate": [], "figures": {}}
    with opened(confirming) as search:
        number = asked(search).number
        report(search, number, 1, 0.9)
        search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": validity})
    held = torch.ones(10, dtype=torch.bool)
    save_weights(confirming.trial(number) / VERDICTS, {"clean": held, "worst_case": held.clone()})
    ledger = folder.ledger()
    assert disbelieved(folder, ledger) == {2: ["V10"]}
    assert choose.best(folder, ledger).trial.number == 3
    assert choose.best(folder, ledger, include_suspect=True).trial.number == 2
    with pytest.raises(StudyError, match=r"trial 2 was suspect when confirmed \(V10\)"):
        choose.numbered(folder, ledger, 2)
    show_openings(folder)
    assert "trial 2 was suspect when confirmed (V10), and is no best" in capsys.readouterr().out
    show_where_to_look(confirming, {}, "", False, [])
    assert "nothing to take away     the confirmed trial 2 is suspect (V10)" in capsys.readouterr().out


def test_where_nothing_can_be_exported_the_closing_line_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with searching(tmp_path, study()) as search:
        number = asked(search).number
        report(search, number, 1, 0.9)
        validity = {"verdict": "suspect", "suspect": ["V8"], "investigate": [], "figures": {}}
        search.hear({"trial": number, "end": "completed", "final": {}, "error": None, "validity": validity})
    show_where_to_look(search.folder, {}, "", False, [])
    printed = capsys.readouterr().out
    assert "nothing to take away" in printed and "is suspect (0)" in printed and "--best" not in printed


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
