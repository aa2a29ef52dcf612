"""Motion in pieces of constant jerk, and the quickest stop within limits.

A piece of constant jerk is a cubic, so points carrying positions, velocities and accelerations describe it exactly
to a controller that joins them by quintics: what is checked here is what the robot is told.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.limits import JointLimits
from act2goal_ros.control.trajectory import Trajectory

Array = NDArray[np.float64]
State = tuple[Array, Array, Array]
GRID = 0.002  # s; paths start and braking phases end on multiples of this, so that joints share knots
SAME_TIME = 5e-6  # s; knots closer than this are one: absolute times in float64 resolve 2.4e-7 s


@dataclass(frozen=True)
class JerkPath:
    """K + 1 knots from the absolute time `start`; `times` (K+1,) from it, `q` `v` `a` (K+1, J), `jerk` (K, J)."""

    start: float
    times: Array
    q: Array
    v: Array
    a: Array
    jerk: Array

    @property
    def end(self) -> float:
        """Absolute time of the last knot, s."""
        return self.start + float(self.times[-1])

    def state_at(self, time: float) -> State:
        """Position, velocity, acceleration (J,); held as at the first knot before it and as at the last after it."""
        s = time - self.start
        if s <= 0.0 or s >= self.times[-1]:
            k = 0 if s <= 0.0 else -1
            return self.q[k].copy(), self.v[k].copy(), self.a[k].copy()
        k = bisect_right(self.times, s) - 1
        s -= float(self.times[k])
        a, j = self.a[k], self.jerk[k]
        return (self.q[k] + s * (self.v[k] + s * (a / 2 + s * j / 6)), self.v[k] + s * (a + s * j / 2), a + s * j)

    def trajectory(self, time: float) -> Trajectory:
        """The rest of the path from an absolute time on, as points."""
        first = int(np.searchsorted(self.times, time - self.start + SAME_TIME, side="right"))
        q, v, a = self.state_at(time)
        points = [np.concatenate([now[None], knots[first:]]) for now, knots in ((q, self.q), (v, self.v), (a, self.a))]
        times = np.concatenate([[0.0], (self.start - time) + self.times[first:]])
        return Trajectory(time, times, *points)

    def clearly_inside(self, limits: JointLimits) -> bool:
        """True only when positions and velocities keep the limits by bounds that are cheap to compute."""
        h = np.diff(self.times)
        if len(h) == 0:
            return bool((self.q > limits.lower).all() and (self.q < limits.upper).all())
        # A velocity leaves the chord between its knots by at most |jerk| h² / 8, a position by at most |v| h / 2 and that.
        bulge = float((np.abs(self.jerk).max(axis=1) * h * h).max()) / 8
        speed = np.abs(self.v).max(axis=0) + bulge
        reach = speed * (float(h.max()) / 2)
        inside = (speed <= limits.velocity) & (self.q.min(axis=0) - reach >= limits.lower)
        return bool((inside & (self.q.max(axis=0) + reach <= limits.upper)).all())

    def extremes(self) -> tuple[Array, Array, Array]:
        """Lowest position, highest position, highest |velocity| (J,) on the path, exact."""
        low, high, speed = (self.q.min(axis=0), self.q.max(axis=0), np.abs(self.v).max(axis=0))
        if len(self.jerk) == 0:
            return low, high, speed
        h = np.diff(self.times)[:, None]
        v, a, j = self.v[:-1], self.a[:-1], self.jerk
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(np.maximum(a * a - 2 * v * j, 0.0))
            # Both zeros of the velocity, without cancellation.
            larger = -(a + np.copysign(root, a))
            turns = [larger / j, 2 * v / larger]
            top = -a / j
        for s in turns:
            s = np.where((s > 0) & (s < h), s, 0.0)
            q = self.q[:-1] + s * (v + s * (a / 2 + s * j / 6))
            low, high = np.minimum(low, q.min(axis=0)), np.maximum(high, q.max(axis=0))
        s = np.where((top > 0) & (top < h), top, 0.0)
        return low, high, np.maximum(speed, np.abs(v + s * (a + s * j / 2)).max(axis=0))


def integrate(start: float, state: State, durations: Array, jerk: Array) -> JerkPath:
    """The path from a state (q, v, a), each (J,), under jerks (K, J) that last durations (K,) s."""
    h = durations[:, None]
    q, v, a = (np.empty((len(jerk) + 1, jerk.shape[1])) for _ in range(3))
    q[0], v[0], a[0] = state
    np.cumsum(h * jerk, axis=0, out=a[1:])
    a[1:] += a[0]
    half, third = h / 2, h / 3
    np.cumsum(h * (a[:-1] + half * jerk), axis=0, out=v[1:])
    v[1:] += v[0]
    np.cumsum(h * (v[:-1] + half * (a[:-1] + third * jerk)), axis=0, out=q[1:])
    q[1:] += q[0]
    times = np.zeros(len(durations) + 1)
    np.cumsum(durations, out=times[1:])
    return JerkPath(start, times, q, v, a, jerk)


def rest(start: float, q: Array) -> JerkPath:
    """Standing at q (J,)."""
    zero = np.zeros((1, len(q)))
    return JerkPath(start, np.zeros(1), q[None].copy(), zero, zero, np.zeros((0, len(q))))


def stop_phases(v: float, a: float, acceleration: float, jerk: float) -> tuple[int, int, int, float]:
    """Quickest stop of one joint: lengths of its three phases in units of GRID, and the peak acceleration, rad/s².

    The acceleration is led to the peak, kept, and led to zero when the velocity is zero. Durations are those of the
    time-optimal profile rounded up to GRID; the peak is then solved for, so the end is at rest exactly.
    """
    if v == 0.0 and a == 0.0:
        return 0, 0, 0, 0.0
    side = 1.0 if v + a * abs(a) / (2 * jerk) >= 0 else -1.0
    v, a = side * v, side * a
    peak = min(math.sqrt(max(jerk * v + a * a / 2, 0.0)), acceleration)
    kept = max((v + a * a / (2 * jerk) - peak * peak / jerk) / peak, 0.0) if peak > 0 else 0.0
    n1 = max(math.ceil((a + peak) / jerk / GRID - 1e-9), 1)
    n2 = math.ceil(kept / GRID - 1e-9)
    n3 = max(math.ceil(peak / jerk / GRID - 1e-9), 1)
    while True:
        t1, t2, t3 = n1 * GRID, n2 * GRID, n3 * GRID
        peak = -(v + a * t1 / 2) / (t1 / 2 + t2 + t3 / 2)
        if abs(peak - a) > jerk * t1 * (1 + 1e-9):
            n1 += 1
            if n3 > 1 and abs(peak) <= jerk * (t3 - GRID):  # the last phase, rounded up, may be all that is too long
                n3 -= 1
        elif abs(peak) > jerk * t3 * (1 + 1e-9):
            n3 += 1
        elif abs(peak) > acceleration * (1 + 1e-9):
            n2 += 1
        else:
            return n1, n2, n3, side * peak


def stop_jerks(state: State, limits: JointLimits) -> tuple[Array, Array]:
    """Durations (K,) and jerks (K, J) that bring every joint to rest as quickly as its limits allow, each by itself."""
    a = state[2].tolist()
    phases = [
        stop_phases(*joint) for joint in zip(state[1].tolist(), a, limits.acceleration.tolist(), limits.jerk.tolist(), strict=True)
    ]
    ends = sorted({n for n1, n2, n3, _ in phases for n in (n1, n1 + n2, n1 + n2 + n3)} | {0})
    index = {n: k for k, n in enumerate(ends)}
    jerk = np.zeros((len(ends) - 1, len(a)))
    for j, (n1, n2, n3, peak) in enumerate(phases):
        if n1:
            jerk[: index[n1], j] = (peak - a[j]) / (n1 * GRID)
            jerk[index[n1 + n2] : index[n1 + n2 + n3], j] = -peak / (n3 * GRID)
    return np.diff(np.array(ends)) * GRID, jerk


def stop(start: float, state: State, limits: JointLimits) -> JerkPath:
    """The path of `stop_jerks` from an absolute time on."""
    path = integrate(start, state, *stop_jerks(state, limits))
    path.v[-1], path.a[-1] = 0.0, 0.0  # rounding
    return path
