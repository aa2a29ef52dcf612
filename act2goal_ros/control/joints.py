"""Joint states in the robot's order, whatever order, company or fault they arrive with."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.robot import RobotConfig

Array = NDArray[np.float64]
HISTORY = 1024  # states kept to find the one that belongs to an image: 2 s at 500 Hz
SPAN = 0.05  # s over which velocities are taken from positions where a driver gives none


@dataclass(frozen=True)
class JointReading:
    """Positions q (J,) rad, velocities qd (J,) rad/s, gripper 0 open .. 1 closed (nan: unknown), at `stamp` s."""

    stamp: float
    q: Array
    qd: Array
    gripper: float


class JointReader:
    """Puts messages into order; `problem` says what is wrong with the newest one about the arm."""

    def __init__(self, robot: RobotConfig) -> None:
        self._names, self._gripper = robot.joint_names, robot.gripper
        self._layouts: dict[tuple[str, ...], tuple[list[int], str]] = {}
        self._readings: deque[JointReading] = deque(maxlen=HISTORY)
        self._closed = float("nan")
        self._strangers = ""
        self.problem = ""

    def forget(self) -> None:
        """Drops everything read: its stamps mean nothing any more."""
        self._readings.clear()

    def read(self, stamp: float, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float]) -> bool:
        """Takes a message; True when it was a good one about the whole arm.

        Messages about other joints alone (a gripper's driver, a mobile base) are fine and leave `problem` as it is.
        """
        index, fault = self._layout(tuple(names))
        q = np.asarray(positions, np.float64)
        if len(q) != len(names):
            self.problem = f"joint_states: {len(names)} names but {len(q)} positions"
            return False
        if self._gripper.joint in names and np.isfinite(value := q[list(names).index(self._gripper.joint)]):
            self._closed = self._gripper.to_fraction(float(value))
        if fault:
            self.problem = fault
        if not index:
            return False
        if not len(velocities):
            return self._accept(stamp, q[index], self._velocity(stamp, q[index]))
        if len(velocities) != len(names):
            self.problem = f"joint_states: {len(names)} names but {len(velocities)} velocities"
            return False
        return self._accept(stamp, q[index], np.asarray(velocities, np.float64)[index])

    def before(self, stamp: float) -> JointReading | None:
        """The newest reading not later than `stamp`, else the oldest kept; None when there is none."""
        for reading in reversed(self._readings):
            if reading.stamp <= stamp:
                return reading
        return self._readings[0] if self._readings else None

    @property
    def newest(self) -> JointReading | None:
        """The newest reading."""
        return self._readings[-1] if self._readings else None

    @property
    def strangers(self) -> str:
        """What messages named that do not know the arm, for a message about missing joint states."""
        return self._strangers

    def _velocity(self, stamp: float, q: Array) -> Array:
        """Mean velocity since a reading SPAN ago, or the first; 0 where there is none, or none of late."""
        before = self.before(stamp - SPAN)
        elapsed = 0.0 if before is None else stamp - before.stamp
        return np.zeros_like(q) if before is None or not 0.0 < elapsed < 4 * SPAN else (q - before.q) / elapsed

    def _accept(self, stamp: float, q: Array, qd: Array) -> bool:
        for kind, values in (("position", q), ("velocity", qd)):
            if not np.isfinite(values).all():
                j = int(np.argmin(np.isfinite(values)))
                self.problem = f"joint_states: {kind} of {self._names[j]} is {values[j]}, must be finite"
                return False
        self.problem = ""
        self._readings.append(JointReading(stamp, q, qd, self._closed))
        return True

    def _layout(self, names: tuple[str, ...]) -> tuple[list[int], str]:
        """Indices of the arm's joints in a message with these names, and what is wrong with them."""
        if names not in self._layouts:
            if len(self._layouts) > 16:
                self._layouts.clear()
            self._layouts[names] = self._examine(names)
        return self._layouts[names]

    def _examine(self, names: tuple[str, ...]) -> tuple[list[int], str]:
        missing = [name for name in self._names if name not in names]
        if not missing:
            twice = [name for name in self._names if names.count(name) > 1]
            return ([], f"joint_states: {twice[0]} appears twice") if twice else ([names.index(n) for n in self._names], "")
        if len(missing) < len(self._names):
            return ([], f"joint_states: {', '.join(missing)} missing among {', '.join(names)}")
        if names != (self._gripper.joint,):
            self._strangers = ", ".join(names) or "nothing"
        return [], ""
