"""What of a trajectory message a joint trajectory controller accepts, as ros2_controllers checks it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.segments import Points

FLOAT32_EPSILON = float(np.finfo(np.float32).eps)  # the original's bound on what counts as zero


class ErrorCode(IntEnum):
    """Result codes of control_msgs/FollowJointTrajectory."""

    SUCCESSFUL = 0
    INVALID_GOAL = -1
    INVALID_JOINTS = -2
    OLD_HEADER_TIMESTAMP = -3
    PATH_TOLERANCE_VIOLATED = -4
    GOAL_TOLERANCE_VIOLATED = -5


class Rejection(ValueError):
    """A trajectory the controller does not accept; `code` says why as an action result would."""

    def __init__(self, code: ErrorCode, text: str):
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class TrajectoryCommand:
    """A trajectory as a message carries it: a row per point in the order of `joint_names`, an empty one where left out."""

    joint_names: Sequence[str]
    times: Sequence[float]  # s from the start
    positions: Sequence[Sequence[float]]
    velocities: Sequence[Sequence[float]] = ()
    accelerations: Sequence[Sequence[float]] = ()
    stamp: float = 0.0  # s, when it starts; 0 = now


def checked(command: TrajectoryCommand, joint_names: Sequence[str], now: float, moving_end: bool) -> Points:
    """The command's points in the order of `joint_names`; moving_end: the last point may have a velocity.

    Raises:
        Rejection: naming the value and the bound.
    """
    order = _joint_order(command.joint_names, joint_names)
    _check_times(command, now)
    points = Points(
        np.array(command.times, dtype=float),
        _rows(command, "positions", order),
        _rows(command, "velocities", order),
        _rows(command, "accelerations", order),
    )
    missing = np.flatnonzero(np.isnan(points.velocities[:, 0]) & ~np.isnan(points.accelerations[:, 0]))
    if missing.size:
        raise Rejection(ErrorCode.INVALID_GOAL, f"Point #{missing[0]} carries accelerations but no velocities.")
    if not moving_end:
        _check_end(points.velocities[-1], joint_names)
    return points


def _joint_order(given: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where in `given` each of the controller's joints stands."""
    if len(given) != len(wanted):
        text = f"Joints on incoming trajectory don't match the controller joints: {len(given)} given, {len(wanted)} expected."
        raise Rejection(ErrorCode.INVALID_JOINTS, text)
    for name in given:
        if name not in wanted:
            raise Rejection(ErrorCode.INVALID_JOINTS, f"Incoming joint {name} doesn't match the controller's joints.")
    if len(set(given)) != len(given):
        raise Rejection(ErrorCode.INVALID_JOINTS, f"Incoming joints name one joint twice: {', '.join(given)}.")
    positions = {name: index for index, name in enumerate(given)}
    return [positions[name] for name in wanted]


def _check_times(command: TrajectoryCommand, now: float) -> None:
    times = command.times
    if not len(times):
        raise Rejection(ErrorCode.INVALID_GOAL, "Empty trajectory received.")
    if not all(map(math.isfinite, (*times, command.stamp))):
        raise Rejection(ErrorCode.INVALID_GOAL, f"Times must be finite, got stamp {command.stamp} and {list(times)}.")
    if command.stamp != 0.0 and command.stamp + times[-1] < now:
        text = (
            f"Received trajectory with non-zero start time ({command.stamp:f}) that ends in the past "
            f"({command.stamp + times[-1]:f}), {now - command.stamp - times[-1]:.3f} s before now."
        )
        raise Rejection(ErrorCode.OLD_HEADER_TIMESTAMP, text)
    if times[0] < 0.0:
        raise Rejection(ErrorCode.INVALID_GOAL, f"Time of point 0 is {times[0]:f}, must be at least 0.")
    for i in range(1, len(times)):
        if times[i] <= times[i - 1]:
            text = (
                f"Time between points {i - 1} and {i} is not strictly increasing, "
                f"it is {times[i - 1]:f} and {times[i]:f} respectively"
            )
            raise Rejection(ErrorCode.INVALID_GOAL, text)


def _rows(command: TrajectoryCommand, name: str, order: Sequence[int]) -> NDArray[np.float64]:
    """(N, J) in the controller's joint order, NaN in rows left out."""
    rows, joints, optional = getattr(command, name), len(order), name != "positions"
    result = np.full((len(command.times), joints), np.nan)
    if optional and not any(map(len, rows)):
        return result
    if len(rows) != len(command.times):
        raise Rejection(ErrorCode.INVALID_GOAL, f"{len(rows)} rows of {name} for {len(command.times)} points.")
    given = [i for i, row in enumerate(rows) if len(row) or not optional]
    for i in given:
        if len(rows[i]) != joints:
            text = f"Mismatch between joint_names size ({joints}) and {name} ({len(rows[i])}) at point #{i}."
            raise Rejection(ErrorCode.INVALID_GOAL, text)
    values = np.array([rows[i] for i in given], dtype=float)
    finite = np.isfinite(values)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        where = f"{name} at point #{given[row]}, joint {command.joint_names[column]}"
        raise Rejection(ErrorCode.INVALID_GOAL, f"Not a finite number: {where}: {values[row, column]}.")
    result[given] = values[:, order]
    return result


def _check_end(velocities: NDArray[np.float64], names: Sequence[str]) -> None:
    moving = np.flatnonzero(np.abs(velocities) > FLOAT32_EPSILON)
    if moving.size:
        i = moving[0]
        text = f"Velocity of last trajectory point of joint {names[i]} is not zero: {velocities[i]:.15f}"
        raise Rejection(ErrorCode.INVALID_GOAL, f"{text}, at most {FLOAT32_EPSILON:.2g} rad/s.")
