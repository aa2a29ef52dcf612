"""How others make set-points of chunks, as executions of the plain loop (act2goal_ros.learning.execution).

All send positions only, rows joined linearly, without limits; what they do about delay is their own. Kinder than what many
of them do (a set-point held for a whole row), so that jerk and steps come from the joins, not from the rate.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from act2goal_ros.control.chunk import ActionChunk, Array
from act2goal_ros.control.join import Ensemble
from act2goal_ros.control.limits import JointLimits

REFILL = 0.5  # of a chunk: when so little is left, the next one is asked for (LeRobot's chunk_size_threshold)
KEEP = 0.3  # weight of what is queued already, against what arrives (LeRobot's weighted_average)


class Newest:
    """The newest chunk in absolute time: what has passed is skipped. Real-time chunking executes its chunks so."""

    def __init__(self, limits: JointLimits, q: Array, step: float) -> None:
        del limits
        self._step, self._at = step, np.append(q, 0.0)
        self._chunk: ActionChunk | None = None

    def wants_chunk(self, now: float) -> bool:
        """Always."""
        return True

    def prefix(self, stamp: float, delay: float) -> Array | None:
        """Nothing: the policy knows of no earlier chunk."""
        return None

    def adopt(self, chunk: ActionChunk, now: float) -> None:
        """Followed from now on."""
        self._chunk = chunk

    def command(self, times: Array) -> tuple[Array, float]:
        """Between rows linearly; the last row is held."""
        found = np.tile(self._at, (len(times), 1)) if self._chunk is None else linear(self._chunk, times)
        self._at = found[-1]
        return found[:, :-1], float(np.clip(found[-1, -1], 0.0, 1.0))


class Naive(Newest):
    """Open loop: half of a chunk, then the next one is asked for and followed from its first row when it arrives."""

    def wants_chunk(self, now: float) -> bool:
        """When half of the chunk is left."""
        return self._chunk is None or self._chunk.end - now <= REFILL * len(self._chunk.positions) * self._step + 1e-9

    def adopt(self, chunk: ActionChunk, now: float) -> None:
        """As if it had been made now."""
        self._chunk = replace(chunk, stamp=now)


class Ensembled(Newest):
    """Temporal ensembling as in ACT: the weighted mean of all chunks that speak of a time."""

    def __init__(self, limits: JointLimits, q: Array, step: float) -> None:
        super().__init__(limits, q, step)
        self._ensemble = Ensemble()

    def adopt(self, chunk: ActionChunk, now: float) -> None:
        """Into the mean."""
        self._chunk = self._ensemble.add(chunk)


class Guided(Newest):
    """Real-time chunking: what is left of the chunk followed is what the next one is guided towards."""

    def prefix(self, stamp: float, delay: float) -> Array | None:
        """All its rows after the stamp, at the rows' times of the new one."""
        if self._chunk is None:
            return None
        times = row_times(stamp, self._step, len(self._chunk.positions))
        return linear(self._chunk, times[times <= self._chunk.end + 1e-9])


class Queued(Newest):
    """LeRobot's asynchronous inference: a queue of actions for numbered steps of the control loop.

    Of a chunk that arrives, steps already taken are dropped, steps in the queue become 0.3 old + 0.7 new, and what it does
    not speak of leaves the queue. Rows are taken at the steps' times, so that the clocks of frames and steps need not agree.
    """

    def __init__(self, limits: JointLimits, q: Array, step: float) -> None:
        super().__init__(limits, q, step)
        self._rows: dict[int, Array] = {}  # by step; the step taken last stays, to be left from
        self._size = 1

    def wants_chunk(self, now: float) -> bool:
        """When at most half of a chunk is queued."""
        return sum(n > self._taken(now) for n in self._rows) <= REFILL * self._size

    def adopt(self, chunk: ActionChunk, now: float) -> None:
        """Aggregates the queue with the chunk."""
        taken, self._size = self._taken(now), len(chunk.positions)
        steps = np.arange(self._taken(chunk.stamp) + 1, self._taken(chunk.end) + 1)
        new = dict(zip(steps.tolist(), linear(chunk, steps * self._step), strict=True))
        last = {n: row for n, row in self._rows.items() if n <= taken}
        rows = {n: KEEP * self._rows[n] + (1 - KEEP) * row if n in self._rows else row for n, row in new.items() if n > taken}
        self._rows = ({taken: last[max(last)]} if last else {}) | rows

    def command(self, times: Array) -> tuple[Array, float]:
        """From the step taken last to the next in the queue; an empty queue holds."""
        if self._rows:
            at = self._step * np.array(list(self._rows))
            found = interpolate(times, at, np.array(list(self._rows.values())))
            self._at = found[-1]
        else:
            found = np.tile(self._at, (len(times), 1))
        return found[:, :-1], float(np.clip(found[-1, -1], 0.0, 1.0))

    def _taken(self, now: float) -> int:
        """The last step whose time has come."""
        return int(np.floor(now / self._step + 1e-6))


def row_times(stamp: float, step: float, rows: int) -> Array:
    """Absolute times (rows,) of a chunk's rows."""
    return np.asarray(stamp + step * np.arange(1, rows + 1), np.float64)


def interpolate(times: Array, at: Array, rows: Array) -> Array:
    """(N, A) at times (N,) between rows (P, A) at ascending times (P,); held outside."""
    return np.column_stack([np.interp(times, at, column) for column in rows.T])


def linear(chunk: ActionChunk, times: Array) -> Array:
    """Joints and gripper (N, J + 1) at absolute times (N,), rows joined linearly, the first one continued back to the stamp."""
    rows = np.column_stack([chunk.positions, chunk.gripper])
    rows = np.concatenate([2 * rows[:1] - rows[1:2] if len(rows) > 1 else rows, rows])
    return interpolate(times, np.append(chunk.stamp, row_times(chunk.stamp, chunk.dt, len(chunk.positions))), rows)
