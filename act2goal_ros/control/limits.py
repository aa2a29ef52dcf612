"""Joint limits: positions, velocities, accelerations and jerks that no command may exceed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class JointLimits:
    """Limits of J joints in a fixed order; arrays have shape (J,), units rad, rad/s, rad/s², rad/s³.

    Raises ValueError when shapes differ, a value is not finite, lower ≥ upper, or another limit is not positive.
    """

    names: tuple[str, ...]
    lower: Array
    upper: Array
    velocity: Array
    acceleration: Array
    jerk: Array

    def __post_init__(self) -> None:
        for field in ("lower", "upper", "velocity", "acceleration", "jerk"):
            value = np.array(getattr(self, field), np.float64)
            if value.shape != (len(self.names),):
                raise ValueError(f"limits: {field} has shape {value.shape}, expected ({len(self.names)},)")
            if not np.isfinite(value).all():
                raise ValueError(f"limits: {field} of {self._worst(~np.isfinite(value))} is not finite")
            if field not in ("lower", "upper") and (value <= 0).any():
                raise ValueError(f"limits: {field} of {self._worst(value <= 0)} is {value.min():g}, must be > 0")
            value.setflags(write=False)
            object.__setattr__(self, field, value)
        if (self.lower >= self.upper).any():
            j = int(np.argmax(self.lower >= self.upper))
            raise ValueError(f"limits: {self.names[j]} lower {self.lower[j]:g} ≥ upper {self.upper[j]:g} rad")

    def __len__(self) -> int:
        return len(self.names)

    def scaled(self, velocity: float = 1.0, acceleration: float = 1.0, jerk: float = 1.0) -> JointLimits:
        """The same joints with velocity, acceleration and jerk multiplied by these factors."""
        return replace(
            self,
            velocity=self.velocity * velocity,
            acceleration=self.acceleration * acceleration,
            jerk=self.jerk * jerk,
        )

    def outside(self, positions: Array, tolerance: float = 0.0) -> str | None:
        """None when positions (..., J) are finite and inside; else a sentence naming joint, value and bound."""
        if not np.isfinite(positions).all():
            j = int(np.argwhere(~np.isfinite(positions))[0][-1])
            return f"{self.names[j]} is not finite"
        low, high = (positions < self.lower - tolerance, positions > self.upper + tolerance)
        if not (low.any() or high.any()):
            return None
        index = tuple(int(i) for i in np.argwhere(low | high)[0])
        j = index[-1]
        return f"{self.names[j]} is {positions[index]:.4f} rad, outside [{self.lower[j]:.4f}, {self.upper[j]:.4f}]"

    def _worst(self, bad: NDArray[np.bool_]) -> str:
        return self.names[int(np.argmax(bad))]


def uniform_limits(
    names: Sequence[str],
    position: float = 2 * np.pi,
    velocity: float = 3.14,
    acceleration: float = 10.0,
    jerk: float = 100.0,
) -> JointLimits:
    """The same limits for every joint, positions within ±`position`."""
    full = np.ones(len(names))
    return JointLimits(tuple(names), -position * full, position * full, velocity * full, acceleration * full, jerk * full)
