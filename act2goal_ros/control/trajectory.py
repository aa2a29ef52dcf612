"""A joint trajectory in time, interpolated as ros2_controllers' joint trajectory controller does."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SAMPLES = 65  # of a piece, ends included: misses at most 0.03 % of a cubic's rise above its ends


@dataclass(frozen=True)
class Trajectory:
    """N points of J joints; `start` is absolute (s), `times` (N,) ascend from it, the rest is (N, J).

    Positions alone are joined linearly, with velocities by cubics, with accelerations as well by quintics.
    Raises ValueError for wrong shapes, values that are not finite, or times that do not ascend from ≥ 0.
    """

    start: float
    times: Array
    positions: Array
    velocities: Array | None = None
    accelerations: Array | None = None

    def __post_init__(self) -> None:
        if self.times.ndim != 1 or len(self.times) == 0:
            raise ValueError(f"trajectory: times have shape {self.times.shape}, expected (N,) with N ≥ 1")
        if not isfinite(self.start):
            raise ValueError(f"trajectory: start is {self.start}")
        if self.times[0] < 0 or (self.times[1:] <= self.times[:-1]).any():
            raise ValueError("trajectory: times must ascend strictly from ≥ 0 s")
        if self.accelerations is not None and self.velocities is None:
            raise ValueError("trajectory: accelerations without velocities")
        for name in ("times", "positions", "velocities", "accelerations"):
            value: Array | None = getattr(self, name)
            if value is None:
                continue
            if name != "times" and value.shape != (len(self.times), self.positions.shape[-1]):
                raise ValueError(f"trajectory: {name} has shape {value.shape}, expected ({len(self.times)}, J)")
            if not isfinite(value.sum()):  # of finite numbers this small, which is not finite only if one of them is not
                raise ValueError(f"trajectory: {name} holds a value that is not finite")

    @property
    def end(self) -> float:
        """Absolute time of the last point, s."""
        return self.start + float(self.times[-1])

    def sample(self, time: float) -> tuple[Array, Array, Array]:
        """Position, velocity, acceleration (J,) at an absolute time; at rest before the first and after the last."""
        s = time - self.start
        zero = np.zeros(self.positions.shape[1])
        if s < self.times[0] or s > self.times[-1]:
            return (self.positions[0 if s < self.times[0] else -1].copy(), zero, zero.copy())
        if len(self.times) == 1:
            return self._point(0)
        k = min(bisect_right(self.times, s), len(self.times) - 1) - 1
        c = self._pieces[:, k]
        s -= float(self.times[k])
        position = ((((c[5] * s + c[4]) * s + c[3]) * s + c[2]) * s + c[1]) * s + c[0]
        velocity = (((5 * c[5] * s + 4 * c[4]) * s + 3 * c[3]) * s + 2 * c[2]) * s + c[1]
        acceleration = ((20 * c[5] * s + 12 * c[4]) * s + 6 * c[3]) * s + 2 * c[2]
        return position, velocity, acceleration

    def peaks(self) -> tuple[Array, Array, Array]:
        """Largest |velocity|, |acceleration|, |jerk| (J,) on the polynomials, from SAMPLES of each."""
        zero = np.zeros(self.positions.shape[1])
        if len(self.times) == 1:
            _, v, a = self._point(0)
            return np.abs(v), np.abs(a), zero
        c, lengths = self._pieces, self._lengths
        found = []
        for _ in range(3):
            c = _derivative(c)
            found.append(np.abs(_samples(c, lengths)).max(axis=(0, 1)))
        return found[0], found[1], found[2]

    def position_range(self) -> tuple[Array, Array]:
        """Smallest and largest position (J,) on the polynomials, from SAMPLES of each."""
        if len(self.times) == 1:
            return self.positions[0].copy(), self.positions[0].copy()
        values = _samples(self._pieces, self._lengths)
        return values.min(axis=(0, 1)), values.max(axis=(0, 1))

    @property
    def _lengths(self) -> Array:
        """(N-1, 1) s, of all polynomials."""
        return np.diff(self.times)[:, None]

    def _point(self, k: int) -> tuple[Array, Array, Array]:
        zero = np.zeros(self.positions.shape[1])
        v = zero if self.velocities is None else self.velocities[k].copy()
        a = zero.copy() if self.accelerations is None else self.accelerations[k].copy()
        return self.positions[k].copy(), v, a

    @cached_property
    def _pieces(self) -> Array:
        """Coefficients (6, N-1, J) of all polynomials, in the time since their first points."""
        t = self._lengths
        q0, q1 = self.positions[:-1], self.positions[1:]
        c = np.zeros((6, *q0.shape))
        c[0] = q0
        if self.velocities is None:
            c[1] = (q1 - q0) / t
            return c
        v0, v1 = self.velocities[:-1], self.velocities[1:]
        c[1] = v0
        if self.accelerations is None:
            c[2] = (3 * (q1 - q0) - (2 * v0 + v1) * t) / t**2
            c[3] = (-2 * (q1 - q0) + (v0 + v1) * t) / t**3
            return c
        a0, a1 = self.accelerations[:-1], self.accelerations[1:]
        # Written in what is left after the Taylor terms of point k: no cancellation of large positions.
        dq = q1 - q0 - (v0 + a0 * t / 2) * t
        dv = (v1 - v0 - a0 * t) * t
        da = (a1 - a0) * t * t
        c[2] = a0 / 2
        c[3] = (10 * dq - 4 * dv + da / 2) / t**3
        c[4] = (-15 * dq + 7 * dv - da) / t**4
        c[5] = (6 * dq - 3 * dv + da / 2) / t**5
        return c


def _derivative(c: Array) -> Array:
    return c[1:] * np.arange(1, len(c)).reshape(-1, *([1] * (c.ndim - 1)))


def _samples(c: Array, lengths: Array) -> Array:
    """Values (SAMPLES, N, J) of polynomials with ascending coefficients c (K, N, J) over pieces of lengths (N, 1)."""
    times = np.linspace(0.0, 1.0, SAMPLES)[:, None, None] * lengths
    values = np.zeros(times.shape[:2] + c.shape[2:])
    for coefficient in c[::-1]:
        values = values * times + coefficient
    return values
