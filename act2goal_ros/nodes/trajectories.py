"""Joint trajectories between ROS messages and control.trajectory.Trajectory."""

from __future__ import annotations

import array
from collections.abc import Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from builtin_interfaces.msg import Time as TimeMsg
from control_msgs.msg import JointTrajectoryControllerState
from numpy.typing import NDArray
from rclpy.time import Time
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from act2goal_ros.control.trajectory import Trajectory


def seconds(stamp: TimeMsg | Duration) -> float:
    """A stamp or duration in seconds."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def tracking_errors(state: JointTrajectoryControllerState) -> list[float]:
    """Of a controller's state, rad in its order of joints: as it says, else reference − feedback; NaN where it gives neither."""
    count = len(state.joint_names)
    if len(state.error.positions) == count:
        return list(state.error.positions)
    reference, feedback = state.reference.positions, state.feedback.positions
    if len(reference) == len(feedback) == count:
        return [r - f for r, f in zip(reference, feedback, strict=True)]
    return [float("nan")] * count


def from_message(message: JointTrajectory, names: Sequence[str], now: float) -> Trajectory | None:
    """The trajectory in the robot's joint order, None when it is not usable; a zero stamp means now."""
    points = message.points
    if sorted(message.joint_names) != sorted(names) or not points or not all(len(p.positions) == len(names) for p in points):
        return None
    order = [message.joint_names.index(name) for name in names]
    rows = [[p.positions for p in points], [p.velocities for p in points], [p.accelerations for p in points]]
    start = seconds(message.header.stamp) or now
    try:
        columns = [np.array(row, float)[:, order] if all(len(r) for r in row) else None for row in rows]
        times = np.array([p.time_from_start.sec + 1e-9 * p.time_from_start.nanosec for p in points])
        return Trajectory(start, times, *columns)  # type: ignore[arg-type]
    except (ValueError, TypeError, IndexError):
        return None


def to_message(trajectory: Trajectory, names: Sequence[str]) -> JointTrajectory:
    """The message that commands a trajectory, stamped with its start."""
    message = JointTrajectory(joint_names=list(names))
    message.header.stamp = Time(nanoseconds=round(trajectory.start * 1e9)).to_msg()
    assert trajectory.velocities is not None and trajectory.accelerations is not None
    for k, t in enumerate(trajectory.times.tolist()):
        nanoseconds = round(t * 1e9)
        message.points.append(
            JointTrajectoryPoint(
                positions=_floats(trajectory.positions[k]),
                velocities=_floats(trajectory.velocities[k]),
                accelerations=_floats(trajectory.accelerations[k]),
                time_from_start=Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9),
            )
        )
    return message


def _floats(values: NDArray[np.float64]) -> array.array[float]:
    """As a message keeps them; of a list it would examine number by number."""
    return array.array("d", values.tobytes())
