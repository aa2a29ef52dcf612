"""Interpolation between trajectory points as ros2_controllers does it, point by point.

Each segment is linear, cubic or quintic by what both of its points carry: positions, velocities too, accelerations too.
Polynomials are expanded once; sampling is one small matrix product.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

POWERS = np.arange(6.0)[:, None]
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


def coefficients(points: Points) -> NDArray[np.float64]:
    """(N - 1, 6, J): the polynomial from each of N points to the next in s since it, lowest power first."""
    t = np.diff(points.times)[:, None]
    d = points.positions[1:] - points.positions[:-1]
    v, w = points.velocities[:-1] * t, points.velocities[1:] * t
    half = t * t / 2.0
    p, q = points.accelerations[:-1] * half, points.accelerations[1:] * half
    e, f, g = d - v - p, w - v - 2.0 * p, q - p  # what the start's own motion leaves of the way
    result: NDArray[np.float64] = np.zeros((len(t), 6, d.shape[1]))
    result[:, 1], result[:, 2] = v, p
    result[:, 3], result[:, 4], result[:, 5] = 10 * e - 4 * f + g, 7 * f - 15 * e - 2 * g, 6 * e - 3 * f + g
    cubic = np.isnan(g[:, 0])
    if cubic.any():  # or linear
        result[cubic, 2:] = 0.0
        result[cubic, 2], result[cubic, 3] = (3.0 * d - 2.0 * v - w)[cubic], (v + w - 2.0 * d)[cubic]
        linear = np.isnan(v[:, 0] + w[:, 0])
        result[linear, 1:] = 0.0
        result[linear, 1] = d[linear]
    result /= t[:, None] ** POWERS
    result[:, 0] = points.positions[:-1]
    return result


def _with_derivatives(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 6, 3J): the polynomials of positions, velocities and accelerations side by side."""
    joints = position.shape[2]
    table: NDArray[np.float64] = np.zeros((len(position), 6, 3 * joints))
    table[:, :, :joints] = position
    table[:, :5, joints : 2 * joints] = (POWERS * position)[:, 1:]
    table[:, :4, 2 * joints :] = (POWERS * (POWERS - 1.0) * position)[:, 2:]
    return table


class Spline:
    """Points from `start` on, led in to from the state `before` at `time`, held after the last point.

    Where the first point's time has passed there is no lead-in: sampling enters the points in their middle.
    """

    def __init__(self, time: float, before: State, points: Points, start: float):
        chain = points.shifted(start)
        self.count, self.end = len(points.times), float(chain.times[-1])
        self._led_in = time < chain.times[0]
        if self._led_in:
            chain = Points.single(time, _completed(before, points)).followed_by(chain)
        self._knots: list[float] = chain.times.tolist()
        self._joints = points.positions.shape[1]
        self._table = _with_derivatives(coefficients(chain))
        rest = np.nan_to_num(points.velocities[-1]), np.nan_to_num(points.accelerations[-1])
        self._last = State(points.positions[-1], *rest)

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
