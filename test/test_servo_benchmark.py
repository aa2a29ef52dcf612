"""benchmarks/servo.py: set-points held against limits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from servo import STEP, shares  # noqa: E402

from act2goal_ros.control.robot import RobotConfig  # noqa: E402

ROBOT = RobotConfig.load("ur5e_sim")


def motion(jerk: float) -> np.ndarray:
    """(N, 7): the first joint speeds up and slows down at constant jerks for 0.4 s; stamps as doubles since 1970."""
    since = STEP * np.arange(200)
    limit = ROBOT.limits.jerk[0]
    rates = jerk * limit * np.select([since < 0.1, since < 0.3, since < 0.4], [1.0, -1.0, 1.0])
    q = np.zeros((200, 6))
    q[:, 0] = np.cumsum(np.cumsum(np.cumsum(rates))) * STEP**3
    return np.column_stack([1.76e9 + since, q])


def test_a_motion_at_half_its_jerk_is_at_half() -> None:
    found = shares(motion(0.5), ROBOT)
    assert found["jerk"] == pytest.approx(0.5, rel=0.02)
    assert found["acceleration"] == pytest.approx(0.5 * 0.1 * ROBOT.limits.jerk[0] / ROBOT.limits.acceleration[0], rel=0.05)
    assert 0 < found["velocity"] < 1


def test_a_reset_is_no_motion_but_a_leap_is() -> None:
    trace = motion(0.5)
    trace[100:, 1:] += 0.5
    assert shares(trace, ROBOT)["jerk"] == pytest.approx(0.5, rel=0.02)
    trace = motion(0.5)
    trace[100, 1] += 3e-4
    found = shares(trace, ROBOT)
    assert found["acceleration"] > 5 and found["jerk"] > 5
