"""The set-point in force at any time of a recording, from trajectories sent to a controller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.segments import Points, Spline, State

Array = NDArray[np.float64]
LONG_AGO = -1e6  # s
ROUNDING = 1e-4  # s, by which what arrives at a step may come later than it


@dataclass(frozen=True)
class Sent:
    """A trajectory: when it arrived and when its time 0 is, s on one clock."""

    arrived: float
    start: float
    points: Points


def read_points(message: Any, names: Sequence[str]) -> Points | None:
    """The points of a trajectory_msgs/JointTrajectory in the order of `names`; None where a controller would refuse them."""
    listed = [str(name) for name in message.joint_names]
    if not set(names) <= set(listed) or not len(message.points):
        return None
    order = [listed.index(name) for name in names]
    times = np.array([p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in message.points])
    columns = [_rows(message.points, name, len(listed), order) for name in ("positions", "velocities", "accelerations")]
    positions, velocities, accelerations = columns
    if times[0] < 0 or (np.diff(times) <= 0).any() or not np.isfinite(positions).all():
        return None
    return Points(times, positions, velocities, np.where(np.isnan(velocities), np.nan, accelerations))


def in_force(at: Array, sent: Sequence[Sent], first: Array) -> Array:
    """(T, C) set-points at ascending times (T,): of the newest trajectory that had arrived, `first` (C,) before any.

    Between points as ros2_controllers interpolates, led in from the set-point at which a trajectory arrived, held at its end.
    """
    origin = at[0]
    spline = Spline(LONG_AGO, State(first, np.zeros_like(first), None), Points.hold(first), LONG_AGO)
    values, following = [], 0
    for time in at:
        while following < len(sent) and sent[following].arrived <= time + ROUNDING:
            new = sent[following]
            before, _ = spline.sample(new.arrived - origin)
            spline = Spline(new.arrived - origin, before, new.points, new.start - origin)
            following += 1
        begun = sent[following - 1].arrived if following else time
        values.append(spline.sample(max(time, begun) - origin)[0].positions)
    return np.array(values)


def _rows(points: Sequence[Any], name: str, count: int, order: Sequence[int]) -> Array:
    """(N, C), NaN where a point does not carry them for all joints."""
    missing = np.full(count, np.nan)
    rows = [np.asarray(getattr(point, name), np.float64) for point in points]
    return np.stack([row if len(row) == count else missing for row in rows])[:, order]
