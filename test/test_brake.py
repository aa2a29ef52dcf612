"""Braking from outside."""

from __future__ import annotations

import numpy as np
import pytest

from act2goal_ros.control.brake import Brake
from act2goal_ros.control.jerkpath import stop
from act2goal_ros.control.limits import JointLimits
from act2goal_ros.control.trajectory import Trajectory

J = 3
LIMITS = JointLimits(
    tuple(f"j{k}" for k in range(J)),
    np.full(J, -100.0),
    np.full(J, 100.0),
    np.full(J, 2.0),
    np.full(J, 5.0),
    np.full(J, 50.0),
)


def cruise(start: float, q: float = 0.0, speed: float = 1.0, seconds: float = 10.0) -> Trajectory:
    """All joints at one speed from `start` on, then suddenly at rest."""
    times = np.array([0.0, seconds])
    positions = q + speed * times[:, None] * np.ones(J)
    velocities = np.full((2, J), speed)
    return Trajectory(start, times, positions, velocities, np.zeros((2, J)))


@pytest.fixture
def brake() -> Brake:
    """The arm moves at 1 rad/s; the reference was heard at 50.0 s."""
    brake = Brake(LIMITS)
    brake.commanded(cruise(49.0))
    brake.reference(50.0, np.full(J, 1.0), np.ones(J), np.zeros(J))
    return brake


def test_at_rest_there_is_nothing_to_brake() -> None:
    brake = Brake(LIMITS)
    assert brake.at_rest and brake.trajectory(1.0) is None
    brake.reference(1.0, np.ones(J), np.zeros(J), np.zeros(J))
    assert brake.at_rest and brake.trajectory(1.0) is None


@pytest.mark.parametrize("known", [True, False], ids=["trajectory known", "carried on"])
def test_the_stop_continues_the_motion_within_limits_in_the_least_time(known: bool) -> None:
    brake = Brake(LIMITS)
    if known:
        brake.commanded(cruise(49.0))
    brake.reference(50.0, np.full(J, 1.0), np.ones(J), np.zeros(J))
    way = brake.trajectory(50.02)
    assert way is not None and 50.04 <= way.start <= 50.051
    q, v, a = way.sample(way.start)
    assert q == pytest.approx(np.full(J, way.start - 49.0), abs=1e-9)
    assert v == pytest.approx(np.ones(J)) and a == pytest.approx(np.zeros(J))
    assert np.abs(way.sample(way.end)[1]).max() < 1e-9
    quickest = stop(0.0, (q, v, a), LIMITS).end
    assert way.end - way.start < quickest + 0.01
    speed, acceleration, jerk = way.peaks()
    assert (speed <= 2.0).all() and (acceleration <= 5.0 + 1e-9).all() and (jerk <= 50.0 + 1e-6).all()


def test_a_stop_is_sent_once(brake: Brake) -> None:
    first = brake.trajectory(50.0)
    assert first is not None
    later = first.start + 0.1
    brake.reference(later, *first.sample(later))
    assert brake.trajectory(later) is None


def test_who_brakes_already_is_left_alone(brake: Brake) -> None:
    state = (np.full(J, 1.04), np.ones(J), np.zeros(J))
    brake.commanded(stop(50.04, state, LIMITS).trajectory(50.04))
    assert brake.trajectory(50.01) is None


def test_who_goes_on_for_long_is_not(brake: Brake) -> None:
    state = (np.full(J, 1.34), np.ones(J), np.zeros(J))
    tail = stop(50.34, state, LIMITS).trajectory(50.34)
    times = np.concatenate([[0.0], 0.3 + tail.times])
    assert tail.velocities is not None and tail.accelerations is not None
    brake.commanded(
        Trajectory(
            50.04,
            times,
            np.concatenate([np.full((1, J), 1.04), tail.positions]),
            np.concatenate([np.ones((1, J)), tail.velocities]),
            np.concatenate([np.zeros((1, J)), tail.accelerations]),
        )
    )
    assert brake.trajectory(50.01) is not None


def test_a_trajectory_that_is_not_followed_does_not_count() -> None:
    brake = Brake(LIMITS)
    brake.commanded(cruise(49.0, q=0.5, speed=-1.0))
    brake.reference(50.0, np.full(J, 1.0), np.ones(J), np.zeros(J))
    way = brake.trajectory(50.0)
    assert way is not None and (way.sample(way.start)[1] > 0).all()


def test_a_paused_controller_is_sent_nothing(brake: Brake) -> None:
    brake.reference(50.0, np.full(J, 1.0), np.ones(J), np.zeros(J), speed=0.0)
    assert brake.trajectory(50.02) is None
    brake.reference(50.1, np.full(J, 1.0), np.ones(J), np.zeros(J), speed=1.0)
    assert brake.trajectory(50.12) is not None


def test_a_slowed_controller_is_stopped_once_and_then_only_when_that_has_had_its_time() -> None:
    brake, half = Brake(LIMITS), 0.5
    brake.reference(50.0, np.zeros(J), np.ones(J), np.zeros(J), half)
    way = brake.trajectory(50.02)
    assert way is not None and way.sample(way.start)[0] == pytest.approx(np.full(J, half * (way.start - 50.0)))
    over = way.start + (way.end - way.start) / half
    for now in np.arange(50.05, over, 0.05):
        brake.reference(float(now), np.full(J, half * (now - 50.0)), np.ones(J), np.zeros(J), half)
        assert brake.trajectory(float(now)) is None
    brake.reference(over + 0.1, np.full(J, 1.0), np.ones(J), np.zeros(J), half)
    assert brake.trajectory(over + 0.1) is not None, "it still moves"


def test_a_reference_that_is_not_finite_is_not_taken(brake: Brake) -> None:
    for bad in (np.nan, np.inf):
        brake.reference(50.1, np.full(J, bad), np.ones(J), np.zeros(J))
        brake.reference(50.1, np.ones(J), np.full(J, bad), np.zeros(J))
    way = brake.trajectory(50.02)
    assert way is not None and np.isfinite(way.positions).all()
