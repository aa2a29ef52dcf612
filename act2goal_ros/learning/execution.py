"""From chunks to set-points in the plain loop: what the policy node does, behind an interface that others fit as well."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from act2goal_ros.control.chunk import ActionChunk, Array
from act2goal_ros.control.join import AVERAGED, JOINS, PREFIXED, Ensemble
from act2goal_ros.control.limits import JointLimits
from act2goal_ros.control.stream import CommandStream


class Execution(Protocol):
    """One episode's way from chunks to set-points. Times are simulated seconds, ascending."""

    def wants_chunk(self, now: float) -> bool:
        """Whether the frame of this time is worth an inference."""
        ...

    def prefix(self, stamp: float, delay: float) -> Array | None:
        """Rows (d, J + 1) the policy is given for a chunk from a frame of this stamp, which will arrive `delay` s later."""
        ...

    def adopt(self, chunk: ActionChunk, now: float) -> None:
        """A chunk has arrived."""
        ...

    def command(self, times: Array) -> tuple[Array, float]:
        """Set-points (N, J), rad, at the times (N,) of one tick, and the gripper's, 0 open .. 1 closed."""
        ...


MakeExecution = Callable[[JointLimits, Array, float], Execution]  # limits, joints (J,) at rest, s between actions


class StreamExecution:
    """As the policy node: chunks in absolute time, joined as `join` says, followed by a CommandStream."""

    def __init__(self, limits: JointLimits, q: Array, step: float, join: str = "prefix") -> None:
        if join not in JOINS:
            raise ValueError(f"join '{join}' is not one of {', '.join(JOINS)}")
        self._step, self._join, self._ensemble = step, join, Ensemble()
        self._stream = CommandStream(limits)
        self._stream.reset(q)
        self._chunk: ActionChunk | None = None
        self._gripper = 0.0

    def wants_chunk(self, now: float) -> bool:
        """Always."""
        return True

    def prefix(self, stamp: float, delay: float) -> Array | None:
        """What will have been commanded before the chunk takes effect, as far as it is known."""
        chunk = self._chunk
        if chunk is None or self._join not in PREFIXED:
            return None
        rows = int(np.ceil(delay / self._step - 1e-9))
        if not rows:
            return None
        times: Array = stamp + self._step * np.arange(1, rows + 1, dtype=np.float64)
        return np.column_stack([self._stream.foresee(times), [chunk.gripper_at(t) for t in times.tolist()]])

    def adopt(self, chunk: ActionChunk, now: float) -> None:
        """Followed from now on."""
        self._chunk = self._ensemble.add(chunk) if self._join in AVERAGED else chunk
        self._stream.adopt(self._chunk)

    def command(self, times: Array) -> tuple[Array, float]:
        """What the stream commits."""
        step = float(times[1] - times[0])
        trajectory = self._stream.advance(float(times[0]) - step, 0.0)
        if self._chunk is not None:
            self._gripper = self._chunk.gripper_at(float(times[-1]))
        return np.array([trajectory.sample(t)[0] for t in times.tolist()]), self._gripper
