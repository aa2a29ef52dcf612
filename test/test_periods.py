"""Missed periods: nothing was published within them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from act2goal_ros.control.watchdog import Periods

PERIOD = 20.0


def periods(*times: float | None) -> Periods:
    """After publications at these times; None: there is nothing to publish."""
    counted = Periods(PERIOD)
    for time in times:
        if time is None:
            counted.pause()
        else:
            counted.published(time)
    return counted


@given(st.lists(st.integers(0, 65), min_size=1))
def test_a_timer_on_a_grid_misses_the_periods_of_the_grid_that_are_empty(lateness: list[int]) -> None:
    times, due = [0.0], PERIOD
    for late in lateness:  # as rcl's timers do: what is missed is not caught up
        times.append(due + late)
        due = PERIOD * (times[-1] // PERIOD + 1)
    filled = {time // PERIOD for time in times}
    counted = periods(*times)
    assert counted.missed == times[-1] // PERIOD + 1 - len(filled)
    assert counted.covered == times[-1]


def test_late_by_less_than_a_period_is_no_miss_however_often() -> None:
    assert periods(*(PERIOD * k + 19.0 * (k > 0) for k in range(100))).missed == 0


def test_a_slow_publisher_misses_what_it_falls_behind() -> None:
    counted = periods(*(22.0 * k for k in range(101)))
    assert counted.count == 110 and counted.missed == 10


def test_a_publication_before_its_time_begins_the_next_period() -> None:
    assert periods(0.0, 20.0, 25.0, 64.0).missed == 0  # due at 45, so until 65
    assert periods(0.0, 20.0, 25.0, 66.0).missed == 1


def test_pauses_do_not_count() -> None:
    counted = periods(0.0, 20.0, None, 500.0, 520.0)
    assert counted.missed == 0 and counted.count == 2
