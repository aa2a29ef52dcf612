"""Tolerances of a joint trajectory controller: its own, and what an action's goal makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.acceptance import FLOAT32_EPSILON

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class JointTolerance:
    """As in a goal: 0 = the controller's default, -1 = none. Only positions are enforced with position commands."""

    position: float = 0.0
    velocity: float = 0.0
    acceleration: float = 0.0


@dataclass(frozen=True)
class Tolerances:
    """In force: (J,) rad on the way and at the end, infinite where not enforced; s allowed after the end, 0 = for ever."""

    path: Vector
    goal: Vector
    goal_time: float

    @classmethod
    def configured(cls, path: Sequence[float], goal: Sequence[float], goal_time: float, joints: int) -> "Tolerances":
        """A controller's own, in rad; 0 or empty = not enforced."""
        return cls(_enforced(path, joints), _enforced(goal, joints), goal_time)

    def with_goals(
        self,
        joint_names: Sequence[str],
        path: Mapping[str, JointTolerance],
        goal: Mapping[str, JointTolerance],
        goal_time: float,
    ) -> "Tolerances":
        """A goal's over these.

        Raises:
            ValueError: for an unknown joint or a negative value other than -1.
        """
        result = Tolerances(self.path.copy(), self.goal.copy(), self.goal_time)
        for name, given, values in (("path", path, result.path), ("goal", goal, result.goal)):
            for joint, tolerance in given.items():
                if joint not in joint_names:
                    raise ValueError(f"joint '{joint}' specified in goal.{name}_tolerance does not exist.")
                for unit in ("velocity", "acceleration"):
                    _meant(0.0, getattr(tolerance, unit), f"{name} {unit} tolerance of '{joint}'")
                index = joint_names.index(joint)
                value = _meant(values[index], tolerance.position, f"{name} position tolerance of '{joint}'")
                values[index] = value or np.inf
        return replace(result, goal_time=_meant(result.goal_time, goal_time, "goal_time_tolerance"))


def worst(joint_names: Sequence[str], error: Vector, tolerances: Vector) -> str:
    """The joint that is farthest beyond its tolerance, both (J,) rad, in words."""
    index = int(np.argmax(error - tolerances))
    return f"{joint_names[index]} is {error[index]:.4f} rad off, tolerance {tolerances[index]:.4f} rad."


def _enforced(tolerances: Sequence[float], joints: int) -> Vector:
    values = np.array(tolerances if len(tolerances) else np.zeros(joints), dtype=float)
    return np.where(values > 0.0, values, np.inf)


def _meant(default: float, value: float, name: str) -> float:
    """What a goal's tolerance means; 0 = none."""
    if value > 0.0:
        return value
    if abs(value + 1.0) < FLOAT32_EPSILON:
        return 0.0
    if value != 0.0:
        raise ValueError(f"Illegal {name}: {value:g}, must be positive, 0 (default) or -1 (none).")
    return default
