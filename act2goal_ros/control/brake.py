"""Braking from outside: a stop built from what the controller says it follows, without whoever commanded the motion."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.jerkpath import GRID, State, stop
from act2goal_ros.control.limits import JointLimits
from act2goal_ros.control.trajectory import Trajectory

Array = NDArray[np.float64]
MARGIN = 0.998  # of the limits, for rounding
SAME = 0.01  # rad between two ways that count as one
REST = 1e-3  # rad/s
LONGEST = 0.15  # s over which a reference may be carried on
PAUSED, WHOLE = 0.01, 0.99  # speed scaling below which a controller stands, and from which its clock is ours


class Brake:
    """Knows the controller's reference and the newest trajectory anybody sent; builds the quickest stop from there.

    lead: s from now until the stop begins, enough to reach the controller. slack: s by which a trajectory already under
    way may end later than the quickest stop and still be left alone.
    """

    def __init__(self, limits: JointLimits, lead: float = 0.03, slack: float = 0.05) -> None:
        self._limits = limits.scaled(1.0, MARGIN, MARGIN)
        self._lead, self._slack = lead, slack
        self._reference: tuple[float, State] | None = None
        self._speed, self._slowed_until = 1.0, float("-inf")
        self._commanded: deque[Trajectory] = deque(maxlen=4)

    def reference(self, time: float, q: Array, v: Array, a: Array, speed: float = 1.0) -> None:
        """Takes the controller's reference (J,) at an absolute time, and its speed scaling. What is not finite is not taken."""
        if all(np.isfinite(values).all() for values in (q, v, a, time, speed)):
            self._reference, self._speed = (time, (q, v, a)), speed

    def commanded(self, trajectory: Trajectory) -> None:
        """Takes a trajectory that was sent to the controller."""
        self._commanded.append(trajectory)

    @property
    def at_rest(self) -> bool:
        """Whether the reference stands still, as far as is known."""
        return self._reference is None or bool(np.abs(self._reference[1][1]).max() < REST)

    def state_at(self, time: float) -> State | None:
        """Where the controller's reference will be: on the commanded way where it is on it, else carried on."""
        if self._reference is None:
            return None
        for commanded in reversed(self._commanded):
            if commanded.start <= time and self._is_followed(commanded):
                return commanded.sample(time)
        return self._carried(time)

    def trajectory(self, now: float) -> Trajectory | None:
        """The quickest stop within limits, or None when there is nothing to stop.

        That is: no reference is known, it is at rest or paused, or what is commanded comes to rest as soon by itself. Of a slowed
        controller one stop is waited for before there is another: on its own clock, which runs slower, none seems to be followed.
        """
        if self._speed < PAUSED or now < self._slowed_until:
            return None
        start = float(np.floor((now + self._lead) / GRID + 1e-6) * GRID)
        state = self.state_at(start)
        if state is None or np.abs(state[1]).max() < REST:
            return None
        v = np.clip(state[1], -self._limits.velocity, self._limits.velocity)
        a = np.clip(state[2], -self._limits.acceleration, self._limits.acceleration)
        path = stop(start, (state[0], v, a), self._limits)
        newest = self._commanded[-1] if self._commanded else None
        if newest is not None and self._is_followed(newest) and newest.end <= path.end + self._slack:
            return None
        self.commanded(path.trajectory(start))
        if self._speed < WHOLE:
            self._slowed_until = start + (path.end - start) / self._speed + self._slack
        return self._commanded[-1]

    def _carried(self, time: float) -> State:
        assert self._reference is not None
        known, (q, v, a) = self._reference
        dt = self._speed * float(np.clip(time - known, 0.0, LONGEST))
        return q + dt * (v + dt * a / 2), v + dt * a, a

    def _is_followed(self, commanded: Trajectory) -> bool:
        """Whether the reference lies on it, or will when it begins."""
        assert self._reference is not None
        time = max(self._reference[0], commanded.start)
        return bool(np.abs(commanded.sample(time)[0] - self._carried(time)[0]).max() < SAME)
