"""Interpolation between trajectory points as ros2_controllers does it, point by point.

Each segment is linear, cubic or quintic by what both of its points carry: positions, velocities too, accelerations too.
Polynomials are expanded once; sampling is one small matrix product.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


class State(NamedTuple):
    """(J,) positions rad, velocities rad/s, accelerations rad/s² or None where unknown."""

    positions: Vector
    velocities: Vector
    accelerations: Vector | None


@dataclass(frozen=True)
class Points:
    """N points of J joints: times (N,) s ascending; (N, J) each, a row of NaN where a point carries none."""

    times: Vector
    positions: Matrix
    velocities: Matrix
    accelerations: Matrix

    @classmethod
    def hold(cls, positions: Vector) -> "Points":
        """One point at time 0 that carries positions only."""
        missing = np.full((1, len(positions)), np.nan)
        return cls(np.zeros(1), np.array(positions, dtype=float)[None], missing, missing)

    @classmethod
    def single(cls, time: float, state: State) -> "Points":
        accelerations = np.full_like(state.positions, np.nan) if state.accelerations is None else state.accelerations
        return cls(np.array([time]), state.positions[None], state.velocities[None], accelerations[None])

    def only(self, rows: NDArray[np.bool_]) -> "Points":
        return Points(self.times[rows], self.positions[rows], self.velocities[rows], self.accelerations[rows])

    def shifted(self, by: float) -> "Points":
        return Points(self.times + by, self.positions, self.velocities, self.accelerations)

    def followed_by(self, other: "Points") -> "Points":
        return Points(
            np.concatenate((self.times, other.times)),
            np.concatenate((self.positions, other.positions)),
            np.concatenate((self.velocities, other.velocities)),
            np.concatenate((self.accelerations, other.accelerations)),
        )


def coefficients(a: Points, b: Points, durations: Vector) -> NDArray[np.float64]:
    """(N, 6, J) polynomials in s from `a`, lowest power first, for the N segments from rows of `a` to rows of `b`."""
    t = durations[:, None]
    v, w = a.velocities * t, b.velocities * t
    p, q = a.accelerations * t * t / 2.0, b.accelerations * t * t / 2.0
    d = b.positions - a.positions
    zero = np.zeros_like(d)
    linear = np.stack((zero, d, zero, zero, zero, zero), axis=1)
    cubic = np.stack((zero, v, 3.0 * d - 2.0 * v - w, v + w - 2.0 * d, zero, zero), axis=1)
    e, f, g = d - v - p, w - v - 2.0 * p, q - p  # what the start's own motion leaves of the way
    quintic = np.stack((zero, v, p, 10 * e - 4 * f + g, 7 * f - 15 * e - 2 * g, 6 * e - 3 * f + g), axis=1)
    result = np.where(np.isnan(v + w)[:, None], linear, np.where(np.isnan(f + g)[:, None], cubic, quintic))
    result /= t[:, None] ** np.arange(6.0)[:, None]
    result[:, 0] = a.positions
    return result


def _with_derivatives(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 6, 3J): the polynomials of positions, velocities and accelerations side by side."""
    power = np.arange(6.0)[:, None]
    velocity = np.zeros_like(position)
    velocity[:, :-1] = (power * position)[:, 1:]
    acceleration = np.zeros_like(position)
    acceleration[:, :-1] = (power * velocity)[:, 1:]
    return np.concatenate((position, velocity, acceleration), axis=2)


class Spline:
    """Points from `start` on, led in to from the state `before` at `time`, held after the last point.

    Where the first point's time has passed there is no lead-in: sampling enters the points in their middle.
    """

    def __init__(self, time: float, before: State, points: Points, start: float):
        times = points.times + start
        self.count = len(times)
        self.end = float(times[-1])
        self._led_in = time < times[0]
        knots, chain = times, points
        if self._led_in:
            chain = Points.single(0.0, _completed(before, points)).followed_by(points)
            knots = np.concatenate(((time,), times))
        self._knots: list[float] = knots.tolist()
        self._joints = points.positions.shape[1]
        durations = np.diff(knots)
        rows = np.arange(len(knots))
        self._table = _with_derivatives(coefficients(chain.only(rows < len(durations)), chain.only(rows > 0), durations))
        self._last = State(points.positions[-1], *(np.nan_to_num(x[-1]) for x in (points.velocities, points.accelerations)))

    def sample(self, time: float) -> tuple[State, int]:
        """The state at `time` and the index of the point that comes next; `count` when the last one has passed."""
        if time >= self.end:
            return self._last, self.count
        segment = max(bisect_right(self._knots, time) - 1, 0)
        s = time - self._knots[segment]
        s2 = s * s
        s3 = s2 * s
        values = np.array((1.0, s, s2, s3, s2 * s2, s3 * s2)).dot(self._table[segment])
        joints = self._joints
        state = State(values[:joints], values[joints : 2 * joints], values[2 * joints :])
        return state, segment if self._led_in else segment + 1


def _completed(before: State, points: Points) -> State:
    """Velocities and accelerations the first point carries and the state before does not are taken as zero."""
    if before.accelerations is None and not np.isnan(points.accelerations[0, 0]):
        return State(before.positions, before.velocities, np.zeros_like(before.positions))
    return before
