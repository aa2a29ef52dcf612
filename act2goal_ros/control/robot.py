"""What a robot is, as config/robots/*.yaml says: joints and limits, controller, gripper, camera."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from act2goal_ros import paths
from act2goal_ros.control.limits import JointLimits

CONTROLLER_MODES = ("auto", "splice", "desired_state", "measured_state")
GRIPPER_INTERFACES = ("topic", "gripper_command", "parallel_gripper_command")


class RobotError(ValueError):
    """A robot file that is missing or wrong; the message names the file, the value and what is expected."""


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """The joint trajectory controller; topics are relative names. tracking_error: rad, larger ones stop the arm.

    Tolerances, rad and s, of commands sent by its action; 0: the controller's own, -1: none.
    """

    name: str
    mode: str = "auto"
    tracking_error: float = 0.2
    path_tolerance: float = 0.0
    goal_tolerance: float = 0.0
    goal_time_tolerance: float = 0.0

    @property
    def joint_trajectory_topic(self) -> str:
        """Where trajectories go, fire and forget."""
        return f"{self.name}/joint_trajectory"

    @property
    def action(self) -> str:
        """Name of the FollowJointTrajectory action."""
        return f"{self.name}/follow_joint_trajectory"

    @property
    def state_topic(self) -> str:
        """Where the controller publishes reference, feedback and error."""
        return f"{self.name}/controller_state"


@dataclass(frozen=True, kw_only=True)
class GripperConfig:
    """The gripper: which interface commands it, and which joint positions mean open and closed."""

    interface: str
    name: str
    joint: str
    open: float
    closed: float
    max_effort: float = 50.0

    @property
    def command_topic(self) -> str:
        """Topic of the interface `topic`: std_msgs/Float64, 0 open .. 1 closed."""
        return f"{self.name}/command"

    @property
    def action(self) -> str:
        """Name of the gripper's action (`gripper_command` and `parallel_gripper_command`)."""
        return f"{self.name}/gripper_cmd"

    def to_joint(self, fraction: float) -> float:
        """0 open .. 1 closed → position of `joint`."""
        return self.open + fraction * (self.closed - self.open)

    def to_fraction(self, position: float) -> float:
        """Position of `joint` → 0 open .. 1 closed, clipped."""
        return float(min(1.0, max(0.0, (position - self.open) / (self.closed - self.open))))


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where the robot's camera publishes."""

    topic: str = "image_raw"
    frame_id: str = "camera"


@dataclass(frozen=True, kw_only=True)
class RobotConfig:
    """One robot; `limits` holds the arm's joints in their order."""

    name: str
    limits: JointLimits
    controller: ControllerConfig
    gripper: GripperConfig
    camera: CameraConfig
    joint_states_topic: str

    @property
    def joint_names(self) -> tuple[str, ...]:
        """The arm's joints, in order."""
        return self.limits.names

    @staticmethod
    def load(path_or_name: str | Path) -> RobotConfig:
        """Reads a YAML file, or the file of that name in config/robots. Raises RobotError."""
        path = find_robot_file(path_or_name)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RobotError(f"{path}: cannot be read: {error}") from error
        try:
            return _parse(data)
        except (KeyError, TypeError, ValueError) as error:
            detail = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise RobotError(f"{path}: {detail}") from error


def find_robot_file(path_or_name: str | Path) -> Path:
    """Path of a robot file given as a path or as a bare name. Raises RobotError naming the robots there are."""
    path = Path(path_or_name)
    if path.is_file():
        return path
    folder = paths.share() / "config" / "robots"
    named = folder / f"{path_or_name}.yaml"
    if named.is_file():
        return named
    known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
    raise RobotError(f"robot {str(path_or_name)!r} is neither a file nor one of: {known}")


def _parse(data: Any) -> RobotConfig:
    if not isinstance(data, dict):
        raise ValueError(f"must be a mapping, is {type(data).__name__}")  # noqa: TRY004 - a fault of the file
    _reject_unknown(data, {"name", "joints", "joint_states_topic", "controller", "gripper", "camera"}, "robot")
    controller, gripper = (_section(ControllerConfig, data, "controller"), _section(GripperConfig, data, "gripper"))
    _one_of("controller.mode", controller.mode, CONTROLLER_MODES)
    if not 0 < controller.tracking_error <= 7:
        raise ValueError(f"controller.tracking_error is {controller.tracking_error} rad, must be in (0, 7]")
    for name in ("path_tolerance", "goal_tolerance", "goal_time_tolerance"):
        if not (0 <= (value := float(getattr(controller, name))) < float("inf") or value == -1):
            raise ValueError(f"controller.{name} is {value:g}, must be at least 0, or -1 for none")
    _one_of("gripper.interface", gripper.interface, GRIPPER_INTERFACES)
    if gripper.open == gripper.closed:
        raise ValueError(f"gripper: open and closed are both {gripper.open:g}")
    return RobotConfig(
        name=str(data["name"]),
        limits=_limits(data["joints"]),
        controller=controller,
        gripper=gripper,
        camera=_section(CameraConfig, data, "camera"),
        joint_states_topic=str(data["joint_states_topic"]),
    )


def _limits(joints: dict[str, dict[str, float]]) -> JointLimits:
    columns = ("lower", "upper", "velocity", "acceleration", "jerk")
    for name, row in joints.items():
        _reject_unknown(row, set(columns), f"joints.{name}")
    return JointLimits(tuple(joints), *(np.array([float(row[column]) for row in joints.values()]) for column in columns))


def _section(kind: type[Any], data: dict[str, Any], key: str) -> Any:
    section = dict(data[key])
    _reject_unknown(section, {field.name for field in fields(kind)}, key)
    return kind(**section)


def _reject_unknown(section: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(section) - known)
    if unknown:
        raise ValueError(f"{where}: unknown {unknown[0]!r}, expected one of {', '.join(sorted(known))}")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, must be one of {', '.join(choices)}")
