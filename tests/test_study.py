"""A study is checked whole before anything starts: every mistake at once, and nothing but a ConfigurationError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from sweep.configuration import TrialConfig, fingerprint
from sweep.errors import ConfigurationError
from sweep.registry import problems
from sweep.study import (
    NOT_IN_FINGERPRINT,
    Asha,
    AtLeast,
    Budget,
    Choice,
    Integer,
    LogUniform,
    Maximize,
    Minimize,
    OneOf,
    Resources,
    SearchSpace,
    Study,
    Uniform,
    study_from,
)

ROBUST = "validation/pgd_10/adversarial_accuracy"


def valid() -> dict[str, Any]:
    """Keyword arguments of a study that holds one of everything."""
    return {
        "name": "digits-1",
        "space": SearchSpace(
            dataset="digits",
            model={"name": "small_cnn", "width": Choice(8, 16)},
            threat_model={"name": "linf", "epsilon": 0.1},
            epochs=3,
            optimizer={"name": "sgd", "learning_rate": LogUniform(1e-3, 0.3)},
            defense=OneOf(
                standard={},
                trades={"epsilon": Uniform(0.02, 0.2), "beta": LogUniform(1, 10), "attack": {"name": "pgd"}},
                feature_squeezing={"bit_depth": Integer(1, 4)},
            ),
        ),
        "objective": Maximize(ROBUST, subject_to={"validation/clean_accuracy": AtLeast(0.9)}),
        "early_stopping": Asha(grace_period=1),
        "budget": Budget(trials=6, hours=1.5),
        "final_attacks": ["fgsm"],
        "per_trial": Resources(cpus=1),
        "enqueue": [
            {"defense": {"name": "trades", "beta": 6.0}, "epochs": 5},
            {"defense": "standard", "optimizer": {"learning_rate": 0.1}},
        ],
    }


def changed(**changes: Any) -> dict[str, Any]:
    return {**valid(), **changes}


def space(**changes: Any) -> dict[str, Any]:
    return changed(space=SearchSpace(**{**valid()["space"].tree, **changes}))


def mistakes(data: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        study_from(data, "digits.py")
    assert str(caught.value).startswith("digits.py: ")
    return list(caught.value.problems)


def test_a_valid_study_passes() -> None:
    study = study_from(valid(), "digits.py")
    assert study.name == "digits-1" and len(study.enqueue) == 2 and study.objective[0].metric == ROBUST


def test_json_and_back_is_the_same_study() -> None:
    study = study_from(valid(), "digits.py")
    written = json.loads(json.dumps(study.to_json()))
    again = study_from(written, "study.json")
    assert again.to_json() == written
    assert again.fingerprint == study.fingerprint
    assert list(again.space.corners()) == list(study.space.corners())
    for point in study.space.corners():
        assert again.trial_config(point, 3).fingerprint == study.trial_config(point, 3).fingerprint


def test_a_study_has_the_fingerprint_it_had_before_there_were_comparisons_and_promotions() -> None:
    study = study_from(valid(), "digits.py")
    written = {key: value for key, value in study.to_json().items() if key != "compare"}
    del written["early_stopping"]["kind"]
    kept = {key: value for key, value in written.items() if key not in NOT_IN_FINGERPRINT}
    assert study.fingerprint == fingerprint(kept | {"per_trial": {"cpus": 1}})
    assert study_from(written, "study.json").fingerprint == study.fingerprint


def test_what_changes_no_figure_may_change_and_nothing_else() -> None:
    first = study_from(valid(), "x").fingerprint
    allowed: list[dict[str, Any]] = [
        {"budget": Budget(trials=60)},
        {"description": "a better one"},
        {"concurrency": 3},
        {"per_trial": Resources(gpus=0.5)},
    ]
    for change in allowed:
        assert study_from(changed(**change), "x").fingerprint == first, change
    others: list[dict[str, Any]] = [
        {"name": "other"},
        {"seed": 1},
        {"sampler": "random"},
        {"early_stopping": None},
        {"early_stopping": Asha(kind="promotion", grace_period=1)},
        {"objective": Maximize(ROBUST)},
        {"enqueue": []},
        {"startup_trials": 3},
        {"select": "last"},
        {"compare": "defense"},
        {"per_trial": Resources(cpus=2)},  # its threads, which the order of sums depends on
    ]
    for change in others:
        assert study_from(changed(**change), "x").fingerprint != first, change
    assert study_from(space(epochs=4), "x").fingerprint != first


EACH: list[tuple[dict[str, Any], list[str]]] = [
    (space(dataset="digit"), ["space.dataset: unknown dataset 'digit'; did you mean 'digits'?"]),
    (
        {**space(defense=OneOf(standard={}, tardes={"beta": Uniform(1, 2)})), "enqueue": []},
        ["space.defense: unknown defense 'tardes'; did you mean 'trades'?"],
    ),
    (
        space(model={"name": "small_cnn", "widht": 3}),
        ["space.model.widht: unknown parameter 'widht'; did you mean 'width'?"],
    ),
    (
        space(defense=OneOf(standard={}, trades={"epsilon": 0.1, "bate": Uniform(1, 2)})),
        ["space.defense.bate: unknown parameter 'bate'; did you mean 'beta'?"],
    ),
    (
        space(defense=OneOf(standard={}, trades={"epsilon": 0.1, "beta": Uniform(0, 200)})),
        [
            "space.defense.beta: must be greater than 0, got 0.0",
            "space.defense.beta: must be less than or equal to 100, got 200.0",
        ],
    ),
    (
        space(optimizer={"name": "sgd", "learning_rate": LogUniform(1e-3, 20)}),
        ["space.optimizer.learning_rate: must be less than or equal to 10, got 20.0"],
    ),
    (space(epochs="three"), ["space.epochs: must be a valid integer, got 'three'"]),
    (
        {**space(epochs=Uniform(1, 3.5)), "enqueue": []},
        ["space.epochs: must be a valid integer, got 1.0", "space.epochs: must be a valid integer, got 3.5"],
    ),
    (space(batch_sise=64), ["space.batch_sise: unknown parameter 'batch_sise'; did you mean 'batch_size'?"]),
    (space(sead=3), ["space.sead: unknown parameter 'sead' (allowed: augmentation, batch_size, compile, dataset, "]),
    (
        space(seed=Integer(0, 3), select="best"),
        ["space.seed: set for the whole study, as Study(seed=", "space.select: "],
    ),
    (
        space(threat_model={"name": "linf", "epsilon": Uniform(0.1, 0.2)}),
        ["space.threat_model.epsilon: the threat model is what every trial is judged by and cannot be searched"],
    ),
    (
        space(threat_model=OneOf(linf={"epsilon": 0.1}, l2={"epsilon": 1.0})),
        ["space.threat_model: the threat model is"],
    ),
    (
        changed(objective=Maximize("validation/pgd_20/adversarial_accuracy")),
        ["objective: no trial will report this: unknown metric", f"did you mean '{ROBUST}'?"],
    ),
    (
        changed(objective=Minimize("seconds", subject_to={"clean_accuracy": AtLeast(0.9)})),
        ["objective: no trial will report this: unknown metric 'clean_accuracy'"],
    ),
    (changed(objective=[]), ["objective: "]),
    (changed(search_attack="pdg"), ["search_attack: unknown attack 'pdg'; did you mean 'pgd'?"]),
    (
        changed(search_attack={"name": "pgd", "num_steps": 0}),
        ["search_attack.num_steps: must be greater than or equal to 1"],
    ),
    (changed(final_attacks=["carlini_l2"]), ["carlini_l2 means nothing under linf"]),
    (changed(final_attacks=["pgd"]), ["two attacks would both report as 'pgd_10'"]),
    (
        changed(sampler="grid"),
        ["sampler: a grid needs finite domains, and ", "optimizer.learning_rate", "defense.trades.beta"],
    ),
    (
        changed(sampler="cma_es"),
        [
            "sampler: cma_es searches numbers only, and model.width, defense hold choices",
            "sampler: cma_es seeks one goal",
        ],
    ),
    (changed(sampler="bayes"), ["sampler: must be 'tpe', 'gp', 'nsga2', 'random', 'grid' or 'cma_es', got 'bayes'"]),
    (changed(budget={"trials": 0}), ["budget.trials: must be greater than or equal to 1, got 0"]),
    (changed(budget={"hours": 0, "trials": 2}), ["budget.hours: must be greater than 0, got 0"]),
    (changed(name="a/b"), ["name: String should match pattern", "got 'a/b'"]),
    (changed(name="../up"), ["name: "]),
    (changed(nmae="x"), ["nmae: unknown parameter 'nmae'; did you mean 'name'?"]),
    (changed(per_trial={"cpus": 0}), ["per_trial.cpus: must be greater than or equal to 1, got 0"]),
    (changed(per_trial={"gpus": 1.5}), ["per_trial: gpus: a fraction of one, or a whole number, but got 1.5"]),
    (
        changed(per_trial={"accelerator_type": "A10G"}),
        ["accelerator_type: A10G of a trial that gets no GPU: give gpus"],
    ),
    (changed(per_trial={"labels": {"pool": "!spot"}}), ["and '.', but pool is '!spot'"]),
    (
        changed(per_trial={"gpus": 1, "labels": {"ray.io/accelerator-type": "A10G"}}),
        ["labels: write accelerator_type='A10G' in place of 'ray.io/accelerator-type'"],
    ),
    (
        changed(early_stopping={"grace_period": 0}),
        ["early_stopping.grace_period: must be greater than or equal to 1, got 0"],
    ),
    (
        changed(early_stopping={"kind": "promotion", "resource": "gradient_evaluations", "grace_period": 9}),
        [
            "early_stopping: kind 'promotion' trains each rung's schedule to its end, in epochs; resource is "
            "'gradient_evaluations': give resource='epochs' and the grace_period in epochs, or kind='stopping'"
        ],
    ),
    (
        changed(enqueue=[{}, {"defense": {"name": "trades", "beta": 11}}]),
        ["enqueue[1].defense.trades.beta: 11 is not in the space (1 to 10, log scale)"],
    ),
    (changed(enqueue=[{"defense": "tardes"}]), ["enqueue[0].defense: unknown branch 'tardes'; did you mean 'trades'?"]),
    (
        space(dataset={"name": "digits", "validation_size": Choice(1, 300)}),
        ["space.dataset.validation_size: every trial is judged on the same images, so the dataset cannot be searched"],
    ),
    (
        changed(objective=[Maximize(ROBUST), Maximize(ROBUST, subject_to={ROBUST: AtLeast(0.5)})]),
        ["objective[1].subject_to: bounds hold for the whole study; give them to the first goal"],
    ),
    (changed(enqueue=[{"dataset": "mnist"}]), ["enqueue[0].dataset: fixed for the whole study"]),
    (changed(enqueue=[{"epochs": 0}]), ["enqueue[0].epochs: must be greater than or equal to 1, got 0"]),
    (changed(enqueue=[{"model": 7}]), ["enqueue[0].model: needs the name of a model"]),
    (changed(enqueue=[{"threat_model": {"epsilon": 0.2}}]), ["enqueue[0].threat_model: fixed for the whole study"]),
    (changed(enqueue=[{"seed": 3}]), ["enqueue[0].seed: fixed for the whole study"]),
    (changed(enqueue=["standard"]), ["enqueue.0: "]),
    (changed(compare="defence"), ["compare: must be 'defense', got 'defence'"]),
    (changed(compare="defense", sampler="nsga2"), ["sampler: nsga2 breeds one population, whatever each defense has"]),
    (
        changed(compare="defense", enqueue=[{"defense": "standard"}, {"epochs": 2}]),
        ["enqueue[1]: names no defense, and where they are compared each configuration is one's own"],
    ),
    (
        {**space(defense="standard"), "compare": "defense", "enqueue": []},
        ["compare: space.defense is one defense; make it a OneOf of those that are to be compared"],
    ),
]


@pytest.mark.parametrize(("data", "fragments"), EACH, ids=[fragments[0][:50] for _, fragments in EACH])
def test_each_mistake_names_its_key_what_is_allowed_and_the_nearest(data: dict[str, Any], fragments: list[str]) -> None:
    found = mistakes(data)
    for fragment in fragments:
        assert any(fragment in sentence for sentence in found), (fragment, found)
    assert len(found) <= len(fragments), found


def test_all_of_them_come_at_once() -> None:
    data = {
        "name": "a/b",
        "space": SearchSpace(
            dataset="digit",
            model={"name": "small_cnn", "widht": 3},
            threat_model={"name": "linf", "epsilon": Uniform(0.1, 0.2)},
            epochs="ten",
            seed=3,
            defense=OneOf(standard={}, trades={"epsilon": 0.1, "beta": Uniform(1, 200)}),
        ),
        "objective": Maximize("validation/pgd_7/adversarial_accuracy"),
        "budget": {"trials": 0},
        "sampler": "grid",
        "final_attacks": ["carlini_l2"],
        "enqueue": [{"defense": "tardes"}, {"threat_model": {"name": "l2"}}],
        "nmae": 1,
    }
    found = "\n".join(mistakes(data))
    for fragment in (
        "name: String should match",
        "budget.trials: must be greater than or equal to 1",
        "nmae: unknown parameter",
        "space.seed: set for the whole study",
        "space.threat_model.epsilon: the threat model",
        "sampler: a grid needs finite domains",
        "objective: no trial will report this",
        "space.dataset: unknown dataset 'digit'",
        "space.model.widht: unknown parameter",
        "space.epochs: must be a valid integer, got 'ten'",
        "space.defense.beta: must be less than or equal to 100, got 200.0",
        "enqueue[0].defense: unknown branch 'tardes'",
        "enqueue[1].threat_model: fixed for the whole study",
    ):
        assert fragment in found, (fragment, found)


def test_a_mistake_in_a_field_hides_none_across_fields() -> None:
    wrong: dict[str, Any] = {"name": "A", "budget": {}, "per_trial": 3, "seed": -1, "startup_trials": 0}
    for key, value in wrong.items():
        found = mistakes(changed(**{"final_attacks": ["carlini_l2"], key: value}))
        assert len(found) == 2 and "carlini_l2 means nothing under linf" in found[1], (key, found)
    found = mistakes(changed(sampler="cma_es", objective=3))
    assert len(found) == 2 and found[1].startswith("sampler: cma_es")
    (only,) = mistakes(changed(search_attack="pdg"))  # and no complaint that nothing reports as pgd_10
    assert only.startswith("search_attack: unknown attack")


def test_a_study_that_is_built_in_a_file_finds_as_much() -> None:
    with pytest.raises(ValidationError) as caught:
        Study(**changed(name="a/b", sampler="cma_es"))
    assert [text.split(":")[0] for text in problems(caught.value)] == ["name", "sampler", "sampler"]


def test_every_point_becomes_a_trial_with_its_own_seed_and_the_studys_judge() -> None:
    study = study_from(changed(per_trial=Resources(cpus=2), select="last", search_attack={"name": "pgd"}), "x")
    for number, point in enumerate(study.space.corners()):
        config = study.trial_config(point, number)
        assert isinstance(config, TrialConfig)
        assert (config.threads, config.select, config.validation_attacks[0].label) == (2, "last", "pgd_10")
        assert [attack.name for attack in config.final_attacks] == ["fgsm"]
    seeds = {study.trial_config(next(study.space.corners()), number).seed for number in range(50)}
    assert len(seeds) == 50
