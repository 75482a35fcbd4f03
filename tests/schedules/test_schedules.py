"""Schedules: what all of them promise, what each of them computes, and the learning rates that others logged."""

from __future__ import annotations

import csv
import math
import os
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sweep.errors import ConfigurationError
from sweep.registry import KINDS, validated
from sweep.schedules import NamedSchedule, Schedule
from sweep.schedules.adaptive import Adaptive
from sweep.schedules.base import Ramp, Span
from sweep.schedules.constant import Constant
from sweep.schedules.cosine import Cosine
from sweep.schedules.cyclic import Cyclic
from sweep.schedules.exponential import Exponential
from sweep.schedules.linear import Linear
from sweep.schedules.one_cycle import OneCycle
from sweep.schedules.polynomial import Polynomial
from sweep.schedules.sigmoid import Sigmoid
from sweep.schedules.step import Step

SCHEDULES: list[Any] = list(KINDS["schedule"].values())
RAMPS = [kind for kind in SCHEDULES if issubclass(kind, Ramp)]
SPANS = [kind for kind in SCHEDULES if issubclass(kind, Span)]
progresses = st.floats(0, 1)
histories = st.lists(st.floats(0, 1), max_size=12)
approx = pytest.approx


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Whatever a field's type and range allow."""
    if get_origin(annotation) is tuple:
        return st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True).map(
            lambda found: tuple(sorted(found))
        )
    if get_origin(annotation) is types.UnionType:
        return st.none() | values(get_args(annotation)[0], metadata)
    kind: Any = Annotated[annotation, *metadata] if metadata else annotation
    return st.from_type(kind)


@st.composite
def drawn(draw: st.DrawFn, kinds: list[Any]) -> Any:
    """Any valid schedule of these kinds, each field anywhere in its range."""
    kind = draw(st.sampled_from(kinds))
    fields = {key: draw(values(field.annotation, field.metadata)) for key, field in kind.model_fields.items()}
    if issubclass(kind, Ramp):
        fields["ramp"] = max(fields["ramp"] * (1 - fields["hold"]), 1e-6)
    try:
        return kind(**fields)
    except ValidationError:
        assume(False)


def over(kinds: list[Any], **extra: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    relaxed = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    return lambda test: relaxed(given(schedule=drawn(kinds), **extra)(test))


def test_the_promised_schedules_are_registered() -> None:
    promised = [
        "adaptive",
        "constant",
        "cosine",
        "cyclic",
        "exponential",
        "linear",
        "one_cycle",
        "polynomial",
        "sigmoid",
        "step",
    ]
    assert set(promised) <= set(KINDS["schedule"])


@over(SCHEDULES, progress=progresses, accuracies=histories)
def test_a_factor_lies_between_0_and_4(schedule: Schedule, progress: float, accuracies: list[float]) -> None:
    assert 0 <= schedule.factor(progress, accuracies) <= 4


@over(SPANS, progress=progresses, accuracies=histories)
def test_a_factor_never_leaves_its_span(schedule: Span, progress: float, accuracies: list[float]) -> None:
    low, high = sorted((schedule.start, schedule.end))
    assert low - 1e-12 <= schedule.factor(progress, accuracies) <= high + 1e-12


@over(SCHEDULES, order=st.lists(st.tuples(progresses, histories), min_size=2, max_size=8), data=st.data())
def test_a_factor_depends_on_nothing_that_was_asked_before(
    schedule: Any, order: list[Any], data: st.DataObject
) -> None:
    """A resumed trial, which asks a fresh object in the middle of training, gets the value it would have got."""
    first = [schedule.factor(*asked) for asked in order]
    shuffled = data.draw(st.permutations(range(len(order))))
    resumed = TypeAdapter(NamedSchedule).validate_python(schedule.model_dump(mode="json"))
    assert resumed == schedule
    assert {at: resumed.factor(*order[at]) for at in shuffled} == dict(enumerate(first))


@over([kind for kind in SCHEDULES if kind is not Adaptive], progress=progresses, accuracies=histories)
def test_only_adaptive_looks_at_accuracies(schedule: Schedule, progress: float, accuracies: list[float]) -> None:
    assert schedule.factor(progress, accuracies) == schedule.factor(progress)


@over(RAMPS, share=progresses)
def test_a_ramp_holds_then_ends_exactly(schedule: Ramp, share: float) -> None:
    finish = schedule.hold + schedule.ramp
    assert schedule.factor(share * schedule.hold) == schedule.start
    assert schedule.factor(finish) == schedule.end
    assert schedule.factor(finish + share * (1 - finish)) == schedule.end


@over([*RAMPS, Step], first=progresses, second=progresses)
def test_ramps_and_steps_never_turn_back(schedule: Any, first: float, second: float) -> None:
    earlier, later = (schedule.factor(at) for at in sorted((first, second)))
    rises = schedule.gamma > 1 if isinstance(schedule, Step) else schedule.end > schedule.start
    assert (later >= earlier - 1e-12) if rises else (later <= earlier + 1e-12)


@over([Adaptive], accuracies=histories, progress=progresses)
def test_adaptive_only_grows_and_ignores_progress(schedule: Adaptive, accuracies: list[float], progress: float) -> None:
    factors = [schedule.factor(progress, accuracies[:count]) for count in range(len(accuracies) + 1)]
    assert factors == sorted(factors)
    assert factors[0] == schedule.start
    assert factors == [schedule.factor(0, accuracies[:count]) for count in range(len(accuracies) + 1)]


@given(st.floats(0, 0.99), st.integers(1, 200))
@example(0.1, 10)
def test_an_epoch_on_the_ramps_end_is_at_its_end(hold: float, epochs: int) -> None:
    """0.1 + 0.2 lies above 0.3 in floats; the epoch at 0.3 must train at the full radius all the same."""
    for epoch in range(epochs):
        ramp = epoch / epochs - hold
        if ramp > 1e-3:
            assert Linear(start=0.1, hold=hold, ramp=ramp).factor(epoch / epochs) == 1.0
    assert Linear(start=0.1, hold=0.1, ramp=0.2).factor(0.3) == 1.0


ROOT = math.sqrt(0.5)
BY_HAND = [
    (Constant(), {0: 1, 0.3: 1, 1: 1}),
    (Constant(value=0.55), {0: 0.55, 1: 0.55}),
    (Linear(start=0.1), {0: 0.1, 0.5: 0.55, 1: 1}),
    (Linear(start=0.1, hold=0.2, ramp=0.4), {0.2: 0.1, 0.3: 0.325, 0.4: 0.55, 0.6: 1, 0.9: 1}),
    (Linear(start=0.5, end=2, ramp=0.5), {0.25: 1.25, 0.5: 2}),
    (Cosine(start=1, end=0), {0: 1, 0.25: (1 + ROOT) / 2, 0.5: 0.5, 0.75: (1 - ROOT) / 2, 1: 0}),
    (Cosine(start=0.1), {0.5: 0.55, 0.25: 0.1 + 0.45 * (1 - ROOT)}),
    (Exponential(start=0.01), {0.25: 10**-1.5, 0.5: 0.1, 0.75: 10**-0.5}),
    (Exponential(start=1, end=0.25), {0.5: 0.5}),
    (Polynomial(start=0.1), {0.5: 0.325}),
    (Polynomial(start=0, power=0.5), {0.25: 0.5}),
    (Step(), {0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 1: 0.01}),
    (Step(start=0.25, milestones=(0.25, 0.5), gamma=2), {0: 0.25, 0.25: 0.5, 0.5: 1}),
    # sigmoid(-2.5) = .075858, sigmoid(-5) = .006693, sigmoid(5) = .993307: (.075858 - .006693) / .986614 = .070103
    (Sigmoid(start=0), {0.25: 0.070103, 0.5: 0.5, 0.75: 0.929897}),
    (Sigmoid(start=0, steepness=0.1), {0.25: 0.25, 0.9: 0.9}),
    (Cyclic(start=0.2), {0: 0.2, 0.25: 0.6, 0.5: 1, 0.75: 0.6, 1: 0.2}),
    (Cyclic(start=0, num_cycles=2), {0.125: 0.5, 0.25: 1, 0.5: 0, 0.75: 1, 1: 0}),
    (OneCycle(), {0: 0, 0.2: 0.5, 0.4: 1, 0.7: 0.5, 1: 0}),
    (OneCycle(start=0.5, end=0.1, peak_at=0.5), {0: 0.5, 0.25: 0.75, 0.5: 1, 0.75: 0.55, 1: 0.1}),
]


@pytest.mark.parametrize(("schedule", "expected"), BY_HAND, ids=[repr(schedule) for schedule, _ in BY_HAND])
def test_factors_by_hand(schedule: Schedule, expected: dict[float, float]) -> None:
    assert {at: schedule.factor(at) for at in expected} == approx(
        expected, abs=2e-4 if isinstance(schedule, Sigmoid) else 1e-12
    )


def test_adaptive_by_hand() -> None:
    accuracies = [0.2, 0.5, 0.49, 0.8, 1.0]
    added = Adaptive(start=0.1, increment=0.4)
    assert [added.factor(0, accuracies[:count]) for count in range(6)] == approx([0.1, 0.1, 0.5, 0.5, 0.9, 1.0])
    multiplied = Adaptive(start=0.1, rate=1, threshold=0.8)
    assert [multiplied.factor(0, accuracies[:count]) for count in range(6)] == approx([0.1, 0.1, 0.1, 0.1, 0.2, 0.4])


def test_the_schedule_of_the_paper_begins_at_a_tenth() -> None:
    """Algorithm 1: epsilon_0 = epsilon / 10, raised to epsilon."""
    schedule = Linear(start=0.1)
    assert 0.03 * schedule.factor(0) == approx(0.003)
    assert 0.03 * schedule.factor(1) == approx(0.03)


SHARP = [
    (Step(), 0.5),
    (Step(milestones=(0.3, 0.9), gamma=0.5), 0.3),
    (Linear(start=1, end=0.1, hold=0.5, ramp=0.02), 0.512),  # half of the peak is lost after 5/9 of 0.02
    (Sigmoid(start=1, end=0, steepness=100), 0.501),
    (Step(start=0.25, milestones=(0.25, 0.5), gamma=2), None),
    (Step(gamma=0.8), None),
    (Cosine(start=1, end=0), None),
    (Linear(start=1, end=0), None),
    (Linear(start=0.1), None),
    (Linear(start=0.1, ramp=0.01), None),
    (OneCycle(), None),
    (Cyclic(start=0), None),
    (Constant(), None),
    (Adaptive(start=0.1), None),
]


@pytest.mark.parametrize(("schedule", "drop"), SHARP, ids=[repr(schedule) for schedule, _ in SHARP])
def test_first_sharp_drop(schedule: Schedule, drop: float | None) -> None:
    assert schedule.first_sharp_drop() == drop


MISTAKES = [
    ("linear", {"start": 0.1, "hold": 0.3}, ["hold + ramp", "0.3 + 1", "at most 0.7"]),
    ("linear", {}, ["start: must be given (factor"]),
    ("cosine", {"start": 1}, ["start and end are both 1", "constant"]),
    ("cyclic", {"start": 0.5, "end": 0.5}, ["start and end are both 0.5", "constant"]),
    ("linear", {"start": 5}, ["start: must be less than or equal to 4, got 5"]),
    ("linear", {"start": 0.1, "hold": 1}, ["hold: must be less than 1"]),
    ("linear", {"start": 0.1, "ramp": 0}, ["ramp: must be greater than 0"]),
    ("exponential", {"start": 0}, ["start: must be greater than 0"]),
    ("exponential", {"start": 1, "end": 0}, ["end: must be greater than 0"]),
    ("polynomial", {"start": 0.1, "power": 0}, ["power"]),
    ("step", {"milestones": [0.75, 0.5]}, ["milestones", "increase", "(0.75, 0.5)"]),
    ("step", {"milestones": [0.5, 0.5]}, ["milestones", "increase"]),
    ("step", {"milestones": [0.5, 1.0]}, ["milestones", "between 0 and 1"]),
    ("step", {"milestones": [0.0, 0.5]}, ["milestones", "between 0 and 1"]),
    ("step", {"milestones": []}, ["milestones"]),
    ("step", {"milestones": ["0.5"]}, ["milestones.0: must be a valid number"]),
    ("step", {"milestones": [math.nan]}, ["milestones.0"]),
    ("step", {"gamma": 1}, ["gamma 1", "constant"]),
    ("step", {"gamma": 3}, ["start and gamma", "factor of 9", "at most 4"]),
    ("adaptive", {"start": 1, "end": 0.5}, ["start must lie below end"]),
    ("adaptive", {"start": 0, "rate": 0.5}, ["start 0", "increment"]),
    ("adaptive", {"start": 0.1, "threshold": 1.5}, ["threshold"]),
    ("one_cycle", {"peak_at": 1}, ["peak_at"]),
    ("linear", {"strat": 0.1, "start": 0.1}, ["did you mean 'start'"]),
]


@pytest.mark.parametrize(("name", "parameters", "said"), MISTAKES)
def test_a_mistake_names_its_key(name: str, parameters: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigurationError) as error:
        validated(KINDS["schedule"][name], parameters, "schedule")
    assert all(words in str(error.value) for words in said), str(error.value)


# --- against the learning rates that Rice et al. 2020 logged (locuslab/robust_overfitting, 200 epochs each) ---
LOGGED = [
    ("piecewise_0_2", 0.2, Step()),
    ("cosine", 0.1, Cosine(start=1, end=0)),
    ("cyclic", 0.2, OneCycle()),
    ("piecewisezoom", 0.1, Linear(start=1, end=0.1, hold=0.5, ramp=0.25)),
]


@pytest.mark.parametrize(("run", "base", "schedule"), LOGGED, ids=[run for run, *_ in LOGGED])
def test_published_learning_rates(run: str, base: float, schedule: Schedule) -> None:
    folder = Path(os.environ.get("SWEEP_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "learning_curves" / "real_at_curves.csv"
    if not path.exists():
        pytest.skip(f"{path} is absent: set SWEEP_DATA_DIR to the folder with the learning curves")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["run"] == f"cifar10_lr/preactresnet18_{run}"]
    assert len(rows) == 200
    for row in rows:  # the log holds the rate of each epoch's last step, rounded to 4 digits
        assert base * schedule.factor((int(row["epoch"]) + 1) / 200) == approx(float(row["lr"]), abs=5.1e-5), row[
            "epoch"
        ]
