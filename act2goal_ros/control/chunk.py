"""A chunk of actions in absolute time, as the policy predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.limits import JointLimits

Array = NDArray[np.float64]
MAX_SPEED_RATIO = 3.0  # a chunk whose rows ask for more than this times a joint's velocity limit is nonsense
POSITION_TOLERANCE = 0.1  # rad by which rows may lie outside the limits before the chunk is bad; they are clipped
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
        k = np.minimum(np.maximum(raw, 0.0), max(last - 1, 0)).astype(np.intp)
        s = (np.minimum(np.maximum(raw, -1.0), last) - k)[:, None]
        c = self._coefficients[k]
        back = np.minimum(s, 0.0)  # linear back from the first row
        s = s - back
        q = c[:, 0] + s * (c[:, 1] + s * (c[:, 2] + s * c[:, 3])) + back * c[:, 1]
        qd = (c[:, 1] + s * (2 * c[:, 2] + s * (3 * c[:, 3]))) / self.dt
        if raw[-1] > last or (raw > last).any():
            qd[raw > last] = 0.0
        return q, qd

    def gripper_at(self, time: float) -> float:
        """Gripper command at an absolute time, joined linearly, clipped to 0..1."""
        rows = np.arange(1, len(self.gripper) + 1) * self.dt
        return float(np.clip(np.interp(time - self.stamp, rows, self.gripper), 0.0, 1.0))

    def within(self, limits: JointLimits) -> ActionChunk:
        """The chunk with its positions clipped to the limits."""
        return replace(self, positions=np.clip(self.positions, limits.lower, limits.upper))

    def validate(self, limits: JointLimits, joint_names: Sequence[str]) -> None:
        """Raises ChunkError unless the chunk as a whole, clipped, may be followed by the robot with these limits."""
        rows, joints = self.positions.shape if self.positions.ndim == 2 else (0, 0)
        if tuple(joint_names) != limits.names:
            raise ChunkError(f"chunk is for joints {', '.join(joint_names)}, expected {', '.join(limits.names)}")
        if rows == 0 or joints != len(limits):
            raise ChunkError(f"chunk has shape {self.positions.shape}, expected (P, {len(limits)}) with P ≥ 1")
        if self.gripper.shape != (rows,):
            raise ChunkError(f"chunk has gripper of shape {self.gripper.shape}, expected ({rows},)")
        if not (np.isfinite(self.stamp) and 0 < self.dt < np.inf):
            raise ChunkError(f"chunk has stamp {self.stamp} s and dt {self.dt} s, expected finite and > 0")
        problem = limits.outside(self.positions, POSITION_TOLERANCE)
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
    def _coefficients(self) -> Array:
        """(P - 1, 4, J) of the cubics from row to row, in the part of a row that has passed since row k."""
        rows = self.positions if len(self.positions) > 1 else np.repeat(self.positions, 2, axis=0)
        slopes = np.empty_like(rows)
        slopes[1:-1] = (rows[2:] - rows[:-2]) / 2
        slopes[0], slopes[-1] = rows[1] - rows[0], rows[-1] - rows[-2]
        step, m0, m1 = rows[1:] - rows[:-1], slopes[:-1], slopes[1:]
        return np.stack([rows[:-1], m0, 3 * step - 2 * m0 - m1, m0 + m1 - 2 * step], axis=1)
