"""The learning rate at every boundary of the paper's schedules."""

import pytest

from pipeline.schema import Plateau, Steps, Warmup
from pipeline.training.schedule import Schedule

CIFAR = Steps(kind="steps", milestones=(32000, 48000), factor=0.1)
PLATEAU = Plateau(kind="plateau", factor=0.1, watch="holdout_error", patience=2, threshold=0.5, drops=2)


@pytest.mark.parametrize(
    ("iteration", "rate"),
    [(0, 0.1), (31999, 0.1), (32000, 0.01), (47999, 0.01), (48000, 0.001), (63999, 0.001)],
)
def test_cifar_steps_at_their_boundaries(iteration: int, rate: float) -> None:
    assert Schedule(0.1, CIFAR, None).rate(iteration) == pytest.approx(rate)


def test_warmup_lasts_until_the_training_error_is_under_its_bound_and_never_returns() -> None:
    schedule = Schedule(0.1, CIFAR, Warmup(learning_rate=0.01, until_training_error=80.0))
    assert schedule.rate(0) == 0.01
    schedule.observe(85.0)
    schedule.observe(80.0)
    assert schedule.rate(399) == 0.01
    assert schedule.warming
    schedule.observe(79.9)
    assert schedule.rate(400) == 0.1
    schedule.observe(95.0)
    assert schedule.rate(500) == 0.1
    assert not schedule.warming
    assert not Schedule(0.1, CIFAR, None).warming


def test_plateau_drops_after_its_patience_and_no_oftener_than_allowed() -> None:
    schedule = Schedule(0.1, PLATEAU, None)
    rates = []
    for error in [50.0, 49.8, 49.7, 40.0, 40.0, 40.0, 40.0, 40.0]:
        schedule.observe(0.0, error)
        rates.append(schedule.rate(0))
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001, 0.001])


def test_plateau_passes_over_points_where_nothing_was_measured() -> None:
    schedule = Schedule(0.1, PLATEAU, None)
    for error in [50.0, None, 50.0, None]:
        schedule.observe(0.0, error)
    assert schedule.rate(0) == 0.1


def test_a_restored_schedule_goes_on_as_the_first_would() -> None:
    first, second = Schedule(0.1, PLATEAU, None), Schedule(0.1, PLATEAU, None)
    first.observe(0.0, 50.0)
    first.observe(0.0, 50.0)
    second.restore(first.state())
    for schedule in (first, second):
        schedule.observe(0.0, 50.0)
    assert first.rate(0) == second.rate(0) == pytest.approx(0.01)
