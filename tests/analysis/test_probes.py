"""Networks of a real tiny study, looked at for its report."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from plotly.colors import sample_colorscale
from tiny_study import searching, tiny

from sweep.analysis import kept, probes, results
from sweep.analysis.kept import Trained
from sweep.analysis.probes import Probe
from sweep.analysis.report import examples, page, theme
from sweep.analysis.report.calibration import reliability
from sweep.analysis.report.radii import radius_matrix, security_curves
from sweep.datasets.digits import Digits
from sweep.domains import Uniform
from sweep.orchestration import in_process
from sweep.orchestration.folder import StudyFolder
from sweep.search_space import OneOf
from sweep.threat_models.l2 import L2
from sweep.threat_models.linf import Linf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A standard trial, and two that train within other radii."""
    defenses = OneOf(standard={}, adversarial_training={"epsilon": Uniform(0.01, 0.1), "attack": "fgsm"})
    within = [{"name": "adversarial_training", "epsilon": epsilon} for epsilon in (0.08, 0.02)]
    points = [{"defense": defense, "optimizer": {"learning_rate": 0.2}} for defense in ("standard", *within)]
    study = tiny(space={"defense": defenses}, enqueue=points, budget={"trials": 3})
    root = tmp_path_factory.mktemp("probed")
    with searching(root, study) as search:
        in_process.run(search)
        results.write(search.ledger, search.folder.path)
    return StudyFolder.find(root, "tiny")


def trained(folder: StudyFolder) -> list[Trained]:
    return kept.of_search(folder, folder.ledger())


def looked_at(folder: StudyFolder, *, measure: bool = True) -> tuple[list[Probe], list[str], list[str]]:
    said: list[str] = []
    found, missing = probes.probe(folder.path, trained(folder), measure=measure, say=said.append)
    return list(found.values()), missing, said


def test_curves_begin_at_the_clean_accuracy_and_only_fall(folder: StudyFolder) -> None:
    rows = {row["trial"]: row for row in pq.read_table(folder.path / "results.parquet").to_pylist()}
    found, missing, _ = looked_at(folder)
    assert not missing
    for probe in found:
        accuracies = probe.accuracies().tolist()
        assert accuracies[0] == pytest.approx(rows[probe.trained.trial]["final/validation/clean_accuracy"])
        assert accuracies == sorted(accuracies, reverse=True)
        assert accuracies[-1] < accuracies[0]
        assert not (probe.withstood[1:] & ~probe.withstood[:-1]).any()
        assert probe.at_judged.sum() == probe.withstood[probe.radii.index(0.05)].sum()


def test_examples_are_in_the_ball_and_in_the_box(folder: StudyFolder) -> None:
    for probe in looked_at(folder)[0]:
        rounding = 2e-3  # half precision, in the box
        assert (probe.adversarial - probe.originals).abs().max() <= 0.05 + rounding
        assert probe.adversarial.min() >= 0 and probe.adversarial.max() <= 1
        assert len(set(probe.labels.tolist())) == probes.EXAMPLES
        assert probe.saliency.abs().flatten(1).amax(1) == pytest.approx(torch.ones(probes.EXAMPLES), abs=1e-3)


def test_a_network_is_looked_at_once(folder: StudyFolder, tmp_path: Path) -> None:
    first, _, _ = looked_at(folder)
    again, _, said = looked_at(folder, measure=False)
    assert said == []
    assert all(torch.equal(one.withstood, other.withstood) for one, other in zip(first, again, strict=True))
    shutil.copytree(folder.path, tmp_path / "tiny")
    copy = StudyFolder(tmp_path / "tiny")
    weights = trained(copy)
    shutil.copyfile(weights[1].weights, weights[0].weights)
    _, missing, said = looked_at(copy)
    assert said == [] and len(missing) == 1
    assert missing[0].startswith("trial 0 (standard): its weights ") and "are not those that it left" in missing[0]


def test_a_report_without_networks_says_what_it_lacks(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder.path, tmp_path / "tiny", ignore=shutil.ignore_patterns("*.safetensors"))
    opened: list[str] = []
    monkeypatch.setattr(Digits, "load_test", lambda _: opened.append("the test split"))
    text = page.write(StudyFolder(tmp_path / "tiny")).path.read_text()
    assert "trial 0 (standard): its weights" in text
    assert 'id="security-curves-1"' not in text
    whole = page.write(folder).path.read_text()
    assert 'id="security-curves-1"' in whole and 'id="radius-matrix-1"' in whole
    assert opened == []


def test_of_one_trials_networks_it_is_said_once_that_they_are_lacking(folder: StudyFolder, tmp_path: Path) -> None:
    first, second = trained(folder)[:2]
    seeds = [replace(first, folder=place.folder, files=place.files) for place in (first, second)]
    _, missing = probes.probe(tmp_path, seeds, measure=False, say=lambda _: None)
    said = "was not looked at; `sweep report` without --no-measure does"
    assert missing == [f"trial {first.trial} ({first.defense}) {said} (2 networks)"]


def test_a_network_that_cannot_be_built_here_is_said(folder: StudyFolder) -> None:
    first = trained(folder)[0]
    elsewhere = replace(first, config=first.config | {"model": {"name": "somebodys_own"}})
    found, missing = probes.probe(folder.path, [elsewhere], measure=True, say=lambda _: None)
    assert found == {}
    assert "somebodys_own" in missing[0]


def test_the_matrix_goes_by_the_radius_trained_with(folder: StudyFolder) -> None:
    ledger = folder.ledger()
    assert [trial.number for trial in kept.across_radii(ledger)] == [2, 1]
    found = {probe.trained.trial: probe for probe in looked_at(folder)[0]}
    figure = radius_matrix([found[2], found[1]], 0.05)
    assert figure is not None
    assert list(figure.data[0].y) == ["adversarial_training<br>0.02, trial 2", "adversarial_training<br>0.08, trial 1"]
    assert figure.data[0].z[1] == pytest.approx(found[1].accuracies().tolist())
    assert list(figure.data[1].text)[len(found[2].radii)] == f"{found[1].accuracies()[0]:.2f}"


@pytest.mark.parametrize("share", [place / 100 for place in range(101)])
def test_digits_read_on_every_colour_of_the_scale(share: float) -> None:
    (fill,) = sample_colorscale("Viridis", [share])
    dark, light = sorted([theme.luminance(fill), 0.0 if theme.ink_on(fill) == "#000000" else 1.0])
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_configuration_of_several_seeds_is_their_mean(folder: StudyFolder) -> None:
    found = looked_at(folder)[0]
    figure = security_curves(folder.ledger(), {7: found[1:]}, 0.05)
    assert figure is not None
    expected = torch.stack([probe.accuracies() for probe in found[1:]]).mean(0)
    assert list(figure.data[1].y) == pytest.approx(expected.tolist())


def test_reliability_is_counted_by_hand(folder: StudyFolder) -> None:
    probe = looked_at(folder)[0][0]
    _, attacked = reliability(folder.ledger(), {0: [probe]})
    sure, right = probe.attacked.tolist()
    for x, y, count in zip(attacked.data[1].x, attacked.data[1].y, attacked.data[1].customdata, strict=True):
        own = [place for place in range(len(sure)) if int(sure[place] * 10) == int(x * 10)]
        assert (len(own), sum(right[place] for place in own) / len(own)) == (count, pytest.approx(y))


def test_pictures_show_what_was_withstood_and_what_was_not(folder: StudyFolder) -> None:
    found = looked_at(folder)[0]
    shown = examples.exhibits({probe.trained.trial: [probe] for probe in found})
    assert [exhibit.name for exhibit in shown] == ["standard (0)", "adversarial_training (1)"]
    assert all(len(exhibit.strips) == examples.SHOWN for exhibit in shown)
    strip = shown[0].strips[0]
    assert all(picture.startswith("data:image/png;base64,") for picture in strip.pictures)


def test_no_radius_is_greater_than_the_box() -> None:
    assert probes.radii(Linf(epsilon=0.3))[-1] == pytest.approx(0.9)
    assert probes.radii(L2(epsilon=1.0))[-1] == pytest.approx(4.0)
