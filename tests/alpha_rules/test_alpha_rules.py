"""Alpha rules: what all of them promise, what each of them computes, and what follows from the paper's Table 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from sweep.alpha_rules import AlphaRule, MeasuredAlphaRule, Measurement, NamedAlphaRule
from sweep.alpha_rules.base import RatioAlphaRule
from sweep.alpha_rules.fixed import Fixed
from sweep.alpha_rules.gap_proportional import GapProportional
from sweep.alpha_rules.inverse_ratio import InverseRatio
from sweep.alpha_rules.loss_ratio import LossRatio
from sweep.alpha_rules.paper_ratio import PaperRatio
from sweep.alpha_rules.ramp import Ramp
from sweep.alpha_rules.scaled_ratio import ScaledRatio
from sweep.errors import ConfigurationError
from sweep.registry import KINDS, validated

RULES: list[Any] = list(KINDS["alpha_rule"].values())
MEASURED = [kind for kind in RULES if issubclass(kind, MeasuredAlphaRule)]
progresses = st.floats(0, 1)
measurements = st.builds(Measurement, st.floats(0, 1), st.floats(0, 1), st.floats(0, 50), st.floats(0, 50))
histories = st.lists(measurements, max_size=8)
approx = pytest.approx


def values(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Whatever a field's type and range allow."""
    kind: Any = Annotated[annotation, *metadata] if metadata else annotation
    return st.from_type(kind)


@st.composite
def drawn(draw: st.DrawFn, kinds: list[Any]) -> Any:
    """Any valid rule of these kinds, each field anywhere in its range."""
    kind = draw(st.sampled_from(kinds))
    fields = {
        field.alias or key: draw(values(field.annotation, field.metadata)) for key, field in kind.model_fields.items()
    }
    try:
        return kind(**fields)
    except ValidationError:
        assume(False)


def over(kinds: list[Any], **extra: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    relaxed = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    return lambda test: relaxed(given(rule=drawn(kinds), **extra)(test))


def measured(clean: float, adversarial: float, clean_loss: float = 1.0, adversarial_loss: float = 1.0) -> Measurement:
    return Measurement(clean, adversarial, clean_loss, adversarial_loss)


def test_the_promised_rules_are_registered() -> None:
    promised = ["fixed", "gap_proportional", "inverse_ratio", "loss_ratio", "paper_ratio", "ramp", "scaled_ratio"]
    assert set(promised) <= set(KINDS["alpha_rule"])


@over(RULES, progress=progresses, history=histories)
def test_alpha_is_a_weight(rule: AlphaRule, progress: float, history: list[Measurement]) -> None:
    assert 0 <= rule.value(progress, history) <= 1


@over(MEASURED, progress=progresses, history=histories)
def test_alpha_respects_its_limits(rule: MeasuredAlphaRule, progress: float, history: list[Measurement]) -> None:
    assert rule.minimum <= rule.value(progress, history) <= rule.maximum


@over(RULES, asked=st.lists(st.tuples(progresses, histories), min_size=2, max_size=6), data=st.data())
def test_alpha_depends_on_nothing_that_was_asked_before(rule: Any, asked: list[Any], data: st.DataObject) -> None:
    """A resumed trial, which asks a fresh object in the middle of training, gets the value it would have got."""
    first = [rule.value(*question) for question in asked]
    shuffled = data.draw(st.permutations(range(len(asked))))
    resumed = TypeAdapter(NamedAlphaRule).validate_python(rule.model_dump(mode="json"))
    assert resumed == rule
    assert {at: resumed.value(*asked[at]) for at in shuffled} == dict(enumerate(first))


@over(RULES, progress=progresses, history=histories, other=histories)
def test_rules_that_do_not_measure_ignore_measurements(
    rule: AlphaRule, progress: float, history: list[Measurement], other: list[Measurement]
) -> None:
    assert rule.measures == isinstance(rule, MeasuredAlphaRule)
    if rule.measures:
        assert rule.value(progress, history) == rule.value(1 - progress, history)
    else:
        assert rule.value(progress, history) == rule.value(progress, other)


@over(MEASURED, history=st.lists(measurements, min_size=1, max_size=8))
def test_without_momentum_only_the_last_epoch_counts(rule: MeasuredAlphaRule, history: list[Measurement]) -> None:
    forgetful = rule.model_copy(update={"momentum": 0.0})
    assert forgetful.value(0.5, history) == forgetful.value(0.5, history[-1:])


@over(MEASURED, one=measurements, count=st.integers(1, 6))
def test_equal_epochs_average_to_themselves(rule: MeasuredAlphaRule, one: Measurement, count: int) -> None:
    assert rule.value(0.5, [one] * count) == rule.value(0.5, [one])


@given(
    st.lists(measurements.filter(lambda one: one.adversarial_accuracy <= one.clean_accuracy), min_size=1),
    st.floats(0, 1),
)
def test_the_papers_ratio_never_favours_clean(history: list[Measurement], smoothing: float) -> None:
    assert PaperRatio(smoothing=smoothing).value(1, history) <= 0.5 + 1e-12
    assert InverseRatio(smoothing=smoothing).value(1, history) >= 0.5 - 1e-12


# Table 1's final accuracies in percent and the alphas that the formula of section 3.2 gives for them.
TABLE_1 = [(99.1, 93.4, 0.485), (91.9, 63.2, 0.407), (84.6, 54.2, 0.390), (99.1, 91.2, 0.479), (84.6, 49.3, 0.368)]


@pytest.mark.parametrize(("clean", "adversarial", "alpha"), TABLE_1)
def test_the_papers_own_finals(clean: float, adversarial: float, alpha: float) -> None:
    assert PaperRatio().value(1, [measured(clean / 100, adversarial / 100)]) == approx(alpha, abs=5e-4)


ONE = measured(clean=0.9, adversarial=0.3, clean_loss=0.5, adversarial_loss=1.5)
BY_HAND = [
    (PaperRatio(), ONE, 0.25),
    (PaperRatio(smoothing=0.2), ONE, 0.5 / 1.6),
    (PaperRatio(minimum=0.3), ONE, 0.3),
    (PaperRatio(maximum=0.2), ONE, 0.2),
    (InverseRatio(), ONE, 0.75),
    (InverseRatio(smoothing=0.2), ONE, 1.1 / 1.6),
    (ScaledRatio(), ONE, 0.5),
    (ScaledRatio(scale=3), ONE, 0.75),
    (ScaledRatio(scale=10), ONE, 1.0),
    (ScaledRatio(), measured(0.8, 0.8), 1.0),
    (GapProportional(), ONE, 0.2),
    (GapProportional(slope=1), ONE, 0.0),
    (GapProportional(slope=-0.5), ONE, 0.8),
    (GapProportional(base=0.9, slope=0.25), ONE, 0.75),
    (GapProportional(base=0.4), measured(0.7, 0.7), 0.4),
    (LossRatio(), ONE, 0.75),
    (LossRatio(inverse=True), ONE, 0.25),
    (LossRatio(smoothing=0.5), ONE, 2 / 3),
]


@pytest.mark.parametrize(("rule", "measurement", "expected"), BY_HAND)
def test_one_epoch_by_hand(rule: MeasuredAlphaRule, measurement: Measurement, expected: float) -> None:
    assert rule.value(0.5, [measurement]) == approx(expected)


def test_rules_of_progress_by_hand() -> None:
    assert [Fixed(alpha=0.3).value(at, []) for at in (0, 0.4, 1)] == [0.3] * 3
    assert Fixed().value(0.5, []) == 0.5
    rising = Ramp(alpha_start=0.2, alpha_end=0.6)
    assert [rising.value(at, []) for at in (0, 0.25, 1)] == approx([0.2, 0.3, 0.6])
    falling = Ramp(alpha_start=1, alpha_end=0, shape="cosine")
    assert [falling.value(at, []) for at in (0, 0.25, 0.5, 1)] == approx([1, 0.5 + 0.5**1.5, 0.5, 0])


@over(MEASURED, progress=progresses)
def test_before_the_first_measurement_alpha_is_initial(rule: MeasuredAlphaRule, progress: float) -> None:
    assert rule.value(progress, []) == min(max(rule.initial, rule.minimum), rule.maximum)


def test_the_first_measurement_replaces_initial_whatever_the_momentum() -> None:
    assert PaperRatio(initial=0.9, momentum=0.99).value(0, [ONE]) == 0.25


def test_running_average_by_hand() -> None:
    history = [measured(0.9, 0.3), measured(0.5, 0.5), measured(0.8, 0.2)]  # ratios 0.25, 0.5, 0.2
    rule = PaperRatio(momentum=0.8)
    assert [rule.value(0, history[:count]) for count in (1, 2, 3)] == approx([0.25, 0.3, 0.28])


def test_each_epoch_is_clipped_before_it_is_averaged() -> None:
    """Otherwise an epoch far outside would hold alpha at a limit for many epochs."""
    rule = ScaledRatio(scale=10, momentum=0.5)  # first epoch: 10 * 0.5 = 5, clipped to 1; second: 10 * 0.02 = 0.2
    assert rule.value(0, [measured(0.5, 0.5), measured(0.98, 0.02)]) == approx(0.6)


@pytest.mark.parametrize("kind", [kind for kind in MEASURED if issubclass(kind, RatioAlphaRule)])
def test_nothing_over_nothing(kind: type[RatioAlphaRule]) -> None:
    nothing = measured(0, 0, 0, 0)
    assert kind().value(0, [nothing]) == 0.5
    assert kind(undefined=0.2).value(0, [nothing]) == 0.2
    smoothed = 1.0 if kind is ScaledRatio else 0.5
    assert kind(smoothing=0.01, undefined=0.2).value(0, [nothing]) == approx(smoothed)


def test_the_two_readings_of_the_measuring_radius() -> None:
    """While epsilon ramps, accuracy at the current radius falls and so does alpha; at the target it ends higher."""

    def course(accuracies: Sequence[tuple[float, float]]) -> list[float]:
        return [PaperRatio().value(0, [measured(*pair)]) for pair in accuracies]

    current = course([(0.9, 0.85), (0.97, 0.8), (0.98, 0.7)])
    target = course([(0.6, 0.3), (0.97, 0.3), (0.98, 0.7)])
    assert current == sorted(current, reverse=True)
    assert target[1] < target[0] < target[2]
    assert PaperRatio().measured_at == "target"
    assert PaperRatio().split == "validation"


def test_fixed_is_written_as_it_is_read() -> None:
    rule = TypeAdapter(NamedAlphaRule).validate_python({"name": "fixed", "alpha": 0.3})
    assert TypeAdapter(NamedAlphaRule).dump_python(rule) == {"name": "fixed", "alpha": 0.3}
    assert rule == Fixed(alpha=0.3)


MISTAKES = [
    ("paper_ratio", {"momentum": 1}, ["momentum: must be less than 1, got 1"]),
    ("paper_ratio", {"momentum": -0.1}, ["momentum: must be greater than or equal to 0"]),
    ("paper_ratio", {"measured_at": "now"}, ["measured_at", "'current' or 'target'"]),
    ("paper_ratio", {"split": "test"}, ["split", "'validation' or 'train'"]),
    ("paper_ratio", {"minimum": 0.6, "maximum": 0.4}, ["minimum", "maximum", "0.6 and 0.4"]),
    ("paper_ratio", {"minimum": 0.5, "maximum": 0.5}, ["minimum", "maximum", "fixed"]),
    ("inverse_ratio", {"smoothing": -1}, ["smoothing"]),
    ("scaled_ratio", {"scale": 0}, ["scale: must be greater than 0"]),
    ("gap_proportional", {"base": 2}, ["base"]),
    ("ramp", {"alpha_start": 0.5, "alpha_end": 0.5}, ["alpha_start and alpha_end are both 0.5", "fixed"]),
    ("ramp", {"alpha_start": 0.5}, ["alpha_end: must be given (alpha"]),
    ("ramp", {"alpha_start": 0, "alpha_end": 1, "shape": "step"}, ["shape"]),
    ("fixed", {"alpha": 1.5}, ["alpha: must be less than or equal to 1, got 1.5"]),
    ("fixed", {"alpha": "0.5"}, ["alpha: must be a valid number"]),
    ("loss_ratio", {"invers": True}, ["did you mean 'inverse'"]),
]


@pytest.mark.parametrize(("name", "parameters", "said"), MISTAKES)
def test_a_mistake_names_its_key(name: str, parameters: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigurationError) as error:
        validated(KINDS["alpha_rule"][name], parameters, "alpha rule")
    assert all(words in str(error.value) for words in said), str(error.value)
