"""A chunk of actions in absolute time, as the policy predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.limits import JointLimits

Array = NDArray[np.float64]
MAX_SPEED_RATIO = 3.0  # a chunk whose rows ask for more than this times a joint's velocity limit is nonsense
GRIPPER_TOLERANCE = 0.25  # how far the gripper may lie outside 0..1 before the chunk is bad; commands are clipped


class ChunkError(ValueError):
    """A chunk that must not be executed; the message names the value and the bound."""


@dataclass(frozen=True)
class ActionChunk:
    """P rows of J joint positions, rad, and a gripper opening each, 0 open .. 1 closed.

    Row k is the command at `stamp` + (k + 1)·`dt`, s; `stamp` is the time of the observation it was made from.
    """

    stamp: float
    dt: float
    positions: Array
    gripper: Array

    @property
    def end(self) -> float:
        """Absolute time of the last row, s."""
        return self.stamp + len(self.positions) * self.dt

    def covers(self, time: float) -> bool:
        """Whether the rows say anything about this time."""
        return self.stamp <= time <= self.end

    def sample(self, time: float) -> tuple[Array, Array]:
        """Position and velocity (J,) at an absolute time; see `sample_many`."""
        q, qd = self.sample_many(np.array([time]))
        return q[0], qd[0]

    def sample_many(self, times: Array) -> tuple[Array, Array]:
        """Positions and velocities (N, J) at absolute times (N,), through the rows by a Catmull-Rom curve.

        Up to one row before the first: continued at its velocity. After the last row: held at rest.
        """
        last = len(self.positions) - 1
        raw = (times - self.stamp) / self.dt - 1.0
        u = np.clip(raw, -1.0, last)
        k = np.clip(u.astype(int), 0, max(last - 1, 0))
        s = (u - k)[:, None]
        before = np.minimum(s, 0.0)  # linear back from the first row
        s = s - before
        h = 1.0 - s
        q0, q1 = self.positions[k], self.positions[np.minimum(k + 1, last)]
        m0, m1 = self._slopes[k], self._slopes[np.minimum(k + 1, last)]
        q = q0 + s * s * (3 - 2 * s) * (q1 - q0) + s * h * (h * m0 - s * m1) + before * m0
        qd = (6 * s * h * (q1 - q0) + h * (1 - 3 * s) * m0 + s * (3 * s - 2) * m1) / self.dt
        qd[raw > last] = 0.0
        return q, qd

    def gripper_at(self, time: float) -> float:
        """Gripper command at an absolute time, joined linearly, clipped to 0..1."""
        rows = np.arange(1, len(self.gripper) + 1) * self.dt
        return float(np.clip(np.interp(time - self.stamp, rows, self.gripper), 0.0, 1.0))

    def validate(self, limits: JointLimits, joint_names: Sequence[str]) -> None:
        """Raises ChunkError unless the chunk as a whole may be followed by the robot with these limits."""
        rows, joints = self.positions.shape if self.positions.ndim == 2 else (0, 0)
        if tuple(joint_names) != limits.names:
            raise ChunkError(f"chunk is for joints {', '.join(joint_names)}, expected {', '.join(limits.names)}")
        if rows == 0 or joints != len(limits):
            raise ChunkError(f"chunk has shape {self.positions.shape}, expected (P, {len(limits)}) with P ≥ 1")
        if self.gripper.shape != (rows,):
            raise ChunkError(f"chunk has gripper of shape {self.gripper.shape}, expected ({rows},)")
        if not (np.isfinite(self.stamp) and self.dt > 0):
            raise ChunkError(f"chunk has stamp {self.stamp} s and dt {self.dt} s, expected finite and > 0")
        problem = limits.outside(self.positions)
        if problem is not None:
            raise ChunkError(f"chunk: {problem}")
        self._validate_gripper()
        self._validate_speed(limits)

    def _validate_gripper(self) -> None:
        bad = ~(np.abs(self.gripper - 0.5) <= 0.5 + GRIPPER_TOLERANCE)
        if bad.any():
            row = int(np.argmax(bad))
            bounds = f"[{-GRIPPER_TOLERANCE:g}, {1 + GRIPPER_TOLERANCE:g}]"
            raise ChunkError(f"chunk: gripper in row {row} is {self.gripper[row]:.3f}, outside {bounds}")

    def _validate_speed(self, limits: JointLimits) -> None:
        speed = np.abs(np.diff(self.positions, axis=0)) / self.dt
        bound = MAX_SPEED_RATIO * limits.velocity
        if (speed > bound).any():
            row, j = (int(i) for i in np.argwhere(speed > bound)[0])
            where = f"{limits.names[j]} between rows {row} and {row + 1}"
            raise ChunkError(f"chunk: {where} moves at {speed[row, j]:.2f} rad/s, over {bound[j]:.2f}")

    @cached_property
    def _slopes(self) -> Array:
        """Change of position per row at every row (P, J): central differences, one-sided at the ends."""
        if len(self.positions) < 2:
            return np.zeros_like(self.positions)
        return np.asarray(np.gradient(self.positions, axis=0), np.float64)
