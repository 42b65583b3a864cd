"""Schedules of the KL term as functions of time."""

import pytest
from pyro.infer import Trace_ELBO

from pyro_vae import (
    CapacityELBO,
    ConstantKL,
    CyclicalKL,
    FreeBitsELBO,
    LinearCapacity,
    LinearWarmup,
)
from pyro_vae.objectives import KLSchedule, Schedule, scheduled_by

TIMES = [step / 16 for step in range(200)]


@pytest.mark.parametrize("epoch", [0.0, 0.5, 1000.0])
def test_a_constant_weight_does_not_depend_on_time(epoch):
    assert ConstantKL(4.0)(epoch) == 4.0
    assert ConstantKL()(epoch) == 1.0


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0.0, 0.1), (1.0, 0.325), (2.0, 0.55), (4.0, 1.0), (4.5, 1.0), (1e6, 1.0)]
)
def test_a_warmup_rises_in_a_straight_line_from_its_start_to_1_and_stays_there(epoch, weight):
    assert LinearWarmup(epochs=4, start=0.1)(epoch) == pytest.approx(weight)


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0.0, 0.2), (1.0, 0.6), (2.0, 1.0), (7.9, 1.0), (8.0, 0.2), (9.0, 0.6)]
)
def test_a_cycle_rises_for_its_share_and_stays_at_1_until_the_next_begins(epoch, weight):
    assert CyclicalKL(epochs=8, rise=0.25, start=0.2)(epoch) == pytest.approx(weight)


@pytest.mark.parametrize("rise", [0.25, 1.0])
def test_cycles_repeat_themselves(rise):
    schedule = CyclicalKL(epochs=3, rise=rise)
    assert [schedule(time) for time in TIMES] == [schedule(time + 3) for time in TIMES]
    assert schedule(2.9375) > schedule(3.0) == schedule.warmup.start


def test_with_one_cycle_it_is_a_warmup():
    cyclical, warmup = (
        CyclicalKL(epochs=100, rise=0.1, start=0.3),
        LinearWarmup(epochs=10, start=0.3),
    )
    assert [cyclical(time) for time in TIMES] == [warmup(time) for time in TIMES]


@pytest.mark.parametrize(
    "schedule",
    [LinearWarmup(5), LinearWarmup(5, start=1.0), CyclicalKL(5), CyclicalKL(0.5, rise=1)],
)
def test_weights_are_greater_than_0_and_at_most_1(schedule):
    assert all(0 < schedule(time) <= 1 for time in TIMES)


@pytest.mark.parametrize(
    ("epoch", "capacity"), [(0.0, 0.0), (1.0, 5.0), (2.5, 12.5), (4.0, 20.0), (9.0, 20.0)]
)
def test_a_capacity_rises_in_a_straight_line_from_0_to_its_last_value_and_stays_there(
    epoch, capacity
):
    assert LinearCapacity(last=20.0, epochs=4)(epoch) == pytest.approx(capacity)


def test_a_capacity_goes_to_another_argument_than_a_weight():
    assert scheduled_by(CapacityELBO()) == "kl_capacity"
    assert {scheduled_by(objective) for objective in (Trace_ELBO(), FreeBitsELBO())} == {
        "kl_weight"
    }
    assert LinearCapacity(last=1.0, epochs=1).unit == "nats"
    assert {schedule.unit for schedule in (ConstantKL(), LinearWarmup(1), CyclicalKL(1))} == {
        "weight"
    }


def test_an_objective_of_the_users_own_says_what_it_takes_of_a_schedule():
    class Tempered(Trace_ELBO):
        scheduled = "temperature"

    assert scheduled_by(Tempered()) == "temperature"


def test_the_earlier_name_of_a_schedule_is_the_same_class():
    assert KLSchedule is Schedule


REFUSALS = {
    "'weight' of ConstantKL must be greater than 0": (ConstantKL, "weight", [0, float("nan")]),
    "'epochs' of LinearWarmup must be greater than 0": (
        LinearWarmup,
        "epochs",
        [0, -1, float("nan")],
    ),
    "'start' of LinearWarmup must be greater than 0 and at most 1": (
        LinearWarmup,
        "start",
        [0, 1.1, float("nan")],
    ),
    "'epochs' of CyclicalKL must be greater than 0": (CyclicalKL, "epochs", [0, -1, float("nan")]),
    "'rise' of CyclicalKL must be greater than 0 and at most 1": (
        CyclicalKL,
        "rise",
        [0, 1.1, float("nan")],
    ),
    "'start' of CyclicalKL must be greater than 0 and at most 1": (
        CyclicalKL,
        "start",
        [0, 1.1, float("nan")],
    ),
    "'last' of LinearCapacity must be greater than 0": (
        LinearCapacity,
        "last",
        [0, -1, float("nan")],
    ),
    "'epochs' of LinearCapacity must be greater than 0": (
        LinearCapacity,
        "epochs",
        [0, -1, float("nan")],
    ),
}
VALID = {
    ConstantKL: {},
    LinearWarmup: {"epochs": 1},
    CyclicalKL: {"epochs": 1},
    LinearCapacity: {"last": 1, "epochs": 1},
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_settings_without_a_meaning_are_refused(sentence):
    schedule, name, values = REFUSALS[sentence]
    for value in values:
        with pytest.raises(ValueError, match=f"{sentence}, got {value}"):
            schedule(**VALID[schedule] | {name: value})
