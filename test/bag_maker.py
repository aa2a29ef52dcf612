"""Makes recordings as drivers, teleoperation and `ros2 bag record` leave them, MCAP or sqlite3, without ROS."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rollout_maker import START, STORE, duration, header, image, message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.data.definitions import message_definition

TYPES = {
    "joints": "sensor_msgs/msg/JointState",
    "raw": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "reference": "control_msgs/msg/JointTrajectoryControllerState",
    "trajectory": "trajectory_msgs/msg/JointTrajectory",
    "gripper": "std_msgs/msg/Float64",
}
for _kind in TYPES.values():
    STORE.register(get_types_from_msg(message_definition(_kind), _kind))
ROBOT = RobotConfig.load("ur5e_sim")
NAMES = [*ROBOT.joint_names, ROBOT.gripper.joint]
SHUFFLED = [3, 6, 0, 5, 2, 1, 4]  # the order that a driver may send them in
CONTROLLER = "/scaled_joint_trajectory_controller"


def angles(seconds: float) -> np.ndarray:
    """(6,) rad of a smooth motion."""
    return np.sin(0.4 * seconds * np.arange(1, 7))


def scene(seconds: float, side: int = 160) -> np.ndarray:
    """A picture whose brightness is 20 s⁻¹."""
    return np.full((side, side, 3), min(255, 20 + int(20 * seconds)), np.uint8)


def compressed(seconds: float, stamp: float, side: int = 160) -> Any:
    """The scene as a JPEG message."""
    buffer = io.BytesIO()
    Image.fromarray(scene(seconds, side)).save(buffer, "JPEG", quality=95)
    return message(TYPES["compressed"], header=header(stamp), format="jpeg", data=np.frombuffer(buffer.getvalue(), np.uint8))


def joint_state(seconds: float, stamp: float, gripper: float | None) -> Any:
    """All joints in another order than the robot's; the gripper's joint in rad, absent for None."""
    values = [*angles(seconds), ROBOT.gripper.to_joint(gripper or 0.0)]
    order = [i for i in SHUFFLED if gripper is not None or i < 6]
    return message(TYPES["joints"], header=header(stamp), name=[NAMES[i] for i in order], position=[values[i] for i in order])


class Bag:
    """Writes one bag message by message. seconds: s since its start, both of reception and, unless `stamp` says so, of stamps."""

    def __init__(self, path: Path, storage: str = "mcap") -> None:
        self.path = path
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3)
        self._writer.open()
        self._connections: dict[str, Any] = {}

    def add(self, topic: str, kind: str, seconds: float, made: Any) -> None:
        """Adds a message of one of TYPES."""
        name = TYPES[kind]
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(topic, name, typestore=STORE)
        self._writer.write(self._connections[topic], round((START + seconds) * 1e9), STORE.serialize_cdr(made, name))

    def close(self) -> Path:
        """Ends the bag."""
        self._writer.close()
        return self.path


def teleoperated(
    path: Path,
    storage: str = "mcap",
    *,
    total: float = 3.0,
    prefix: str = "",
    clock: float = 0.0,
    without: tuple[str, ...] = (),
    harm: Callable[[float, str, Any], Any] | None = None,
    side: int = 160,
) -> Path:
    """Joint states at 100 Hz, JPEG pictures at 30 Hz, and all of TYPES' commands at 50 Hz, 0.1 rad ahead of the joints.

    clock: s by which stamps are behind reception; without: kinds left out, `fingers` for the gripper's joint;
    harm(seconds, kind, message) → what to write instead, None: nothing; side: of a picture, pixels.
    """
    bag, fingers = Bag(path, storage), None if "fingers" in without else 0.0

    def add(topic: str, kind: str, seconds: float, made: Any) -> None:
        changed = harm(seconds, kind, made) if harm else made
        if kind not in without and changed is not None:
            bag.add(prefix + topic, kind, seconds, changed)

    for k in range(round(total * 300)):
        t = k / 300
        stamp = t - clock
        if k % 3 == 0:
            closed = None if fingers is None else min(max(t - 1.0, 0.0), 0.5)
            add("/joint_states", "joints", t, joint_state(t, stamp, closed))
        if k % 10 == 0:
            add("/image_raw/compressed", "compressed", t, compressed(t, stamp, side))
        if k % 6 == 0:
            point = message("trajectory_msgs/msg/JointTrajectoryPoint", positions=angles(t) + 0.1)
            add(f"{CONTROLLER}/controller_state", "reference", t, message(
                TYPES["reference"], header=header(stamp), joint_names=list(ROBOT.joint_names), reference=point))  # fmt: skip
            ahead = message("trajectory_msgs/msg/JointTrajectoryPoint", positions=angles(t) + 0.2, time_from_start=duration(0.02))
            add(f"{CONTROLLER}/joint_trajectory", "trajectory", t, message(
                TYPES["trajectory"], joint_names=list(ROBOT.joint_names)[::-1],
                points=[message("trajectory_msgs/msg/JointTrajectoryPoint", positions=ahead.positions[::-1].copy(),
                                time_from_start=ahead.time_from_start)]))  # fmt: skip
            add("/gripper_controller/command", "gripper", t, message(TYPES["gripper"], data=float(t > 1.0)))
    return bag.close()


def without_definitions(path: Path) -> Path:
    """A sqlite3 bag as ROS 2 Humble writes it."""
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM message_definitions")
    database.close()
    return path


def raw(seconds: float, stamp: float, side: int = 160) -> Any:
    """The scene as a raw message."""
    return image(scene(seconds, side), stamp)
