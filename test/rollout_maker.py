"""Makes rollouts on disk as a graph would have recorded them, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from act2goal_ros.data.bag import BagWriter, Topic
from act2goal_ros.data.definitions import message_definition
from act2goal_ros.model.msth import select

JOINTS = [f"{name}_joint" for name in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")]
TOPICS = {
    "/goal": "act2goal_msgs/msg/Goal",
    "/plan": "act2goal_msgs/msg/Plan",
    "/selection": "act2goal_msgs/msg/FrameSelection",
    "/progress": "act2goal_msgs/msg/Progress",
    "/control_status": "act2goal_msgs/msg/ControlStatus",
    "/image_raw": "sensor_msgs/msg/Image",
    "/joint_states": "sensor_msgs/msg/JointState",
    "/scaled_joint_trajectory_controller/joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "/sim/state": "act2goal_msgs/msg/SimState",
}
STORE = get_typestore(Stores.EMPTY)
for _name in (*TOPICS.values(), "act2goal_msgs/msg/StopReason"):
    STORE.register(get_types_from_msg(message_definition(_name), _name))
START = 1_800_000_000.0
OFFSETS = np.array([0.4, 0.8, 1.2])


def message(kind: str, **values: Any) -> Any:
    """A message with defaults for what is not given; numbers in lists become arrays of the field's type."""
    made = {}
    for name, node in STORE.fielddefs[kind][1]:
        made[name] = values.pop(name) if name in values else _default(node)
        if node[0].name in ("ARRAY", "SEQUENCE") and node[1][0][0].name == "BASE" and node[1][0][1][0] != "string":
            base = node[1][0][1][0]
            made[name] = np.asarray(made[name], {"octet": "uint8"}.get(base, base))
    assert not values, f"{kind} has no {sorted(values)}"
    return STORE.types[kind](**made)


def _default(node: Any) -> Any:
    kind, value = node[0].name, node[1]
    if kind == "NAME":
        return message(value)
    if kind in ("ARRAY", "SEQUENCE"):
        return []
    return "" if value[0] == "string" else 0.0 if value[0].startswith("float") else False if value[0] == "bool" else 0


def time(seconds: float) -> Any:
    """Absolute seconds as a message."""
    return STORE.types["builtin_interfaces/msg/Time"](sec=int(seconds), nanosec=round(seconds % 1.0 * 1e9) % 10**9)


def duration(seconds: float) -> Any:
    """Relative seconds as a message."""
    return STORE.types["builtin_interfaces/msg/Duration"](sec=int(seconds), nanosec=round(seconds % 1.0 * 1e9) % 10**9)


def header(seconds: float) -> Any:
    """A header stamped START + seconds."""
    return message("std_msgs/msg/Header", stamp=time(START + seconds))


def image(rgb: np.ndarray, seconds: float = 0.0) -> Any:
    """An rgb8 image."""
    height, width = rgb.shape[:2]
    return message(
        "sensor_msgs/msg/Image", header=header(seconds), height=height, width=width, step=3 * width, encoding="rgb8",
        data=np.ascontiguousarray(rgb).ravel(),
    )  # fmt: skip


class Maker:
    """Writes one rollout message by message; times are s since its start."""

    def __init__(self, directory: Path, **facts: str) -> None:
        self.writer = BagWriter(directory, [Topic(name, kind) for name, kind in TOPICS.items()], {"goal_id": "g1"} | facts)

    def add(self, topic: str, seconds: float, **values: Any) -> None:
        """Adds a message of a topic."""
        kind = TOPICS[topic]
        data = STORE.serialize_cdr(message(kind, **values), kind)
        self.writer.write(topic, round((START + seconds) * 1e9), bytes(data))

    def close(self, **facts: str) -> Path:
        """Ends the rollout."""
        self.writer.close({"outcome": "reached"} | facts)
        return self.writer.directory

    def plan(self, seconds: float, number: int, total: float, previews: list[np.ndarray] | None) -> None:
        """A plan of three dense and three distal frames, with its selection; and again with previews."""
        remaining = max(total - seconds, 1.5)
        offsets = np.concatenate([OFFSETS, np.linspace(1.2, remaining, 4)[1:]])
        common = {
            "header": header(seconds), "plan_id": f"p{number}", "goal_id": "g1", "frame_offsets": offsets, "dense_frames": 3,
            "time_to_goal": max(total - seconds, 0.0),
        }  # fmt: skip
        self.add("/plan", seconds + 0.08, **common)
        chosen = select(offsets, 3, 0.0, 0.8, 3)
        self.add(
            "/selection", seconds + 0.09, header=header(seconds), plan_id=f"p{number}", goal_id="g1",
            frame_indices=chosen.indices, proximal=chosen.proximal,
            frame_times=[time(START + seconds + offsets[k]) for k in chosen.indices],
        )  # fmt: skip
        if previews is not None:
            self.add("/plan", seconds + 0.12, **common, previews=[image(p, seconds) for p in previews])

    def tick(self, seconds: float, total: float, joints: np.ndarray, gripper: float, **status: Any) -> None:
        """Joint states, command, status and progress of one moment."""
        self.add("/joint_states", seconds, header=header(seconds), name=JOINTS, position=joints)
        points = [
            message("trajectory_msgs/msg/JointTrajectoryPoint", positions=joints, time_from_start=duration(0.02 * k)) for k in range(4)
        ]
        self.add(
            "/scaled_joint_trajectory_controller/joint_trajectory",
            seconds,
            header=header(seconds),
            joint_names=JOINTS,
            points=points,
        )
        self.add(
            "/control_status", seconds,
            **{"header": header(seconds), "state": 1, "commanded_gripper": gripper, "commanded_positions": joints} | status,
        )  # fmt: skip
        left = max(total - seconds, 0.0)
        self.add("/progress", seconds, header=header(seconds), plan_id="p", progress=1.0 - left / total, time_to_goal=left)


def drawn(seconds: float, side: int = 48) -> np.ndarray:
    """A picture with a bright square that moves to the right."""
    picture = np.full((side, side, 3), 60, np.uint8)
    at = int(min(seconds, 5.0) / 5.0 * (side - 12))
    picture[18:30, at : at + 12] = (230, 120, 40)
    return picture


def moving_square(directory: Path, total: float = 5.0, plans_with_previews: int = 4, side: int = 48) -> Path:
    """A rollout of `total` s in which a square moves to its goal while six joints turn; pictures of `side` pixels."""
    made = Maker(directory, task="square", robot="none")
    made.add("/goal", 0.0, header=header(0.0), goal_id="g1", state=1, image=image(drawn(total)))
    for k in range(round(total * 25)):
        t = 0.04 * k
        made.add("/image_raw", t, **vars_of(image(drawn(t, side), t)))
        made.tick(t, total, np.sin(0.3 * t * np.arange(1, 7)), float(1.0 < t < 3.0))
        if k % 5 == 0:
            number = k // 5
            previews = None
            if plans_with_previews and number % max(1, round(total * 5 / plans_with_previews)) == 0:
                ahead = np.concatenate([OFFSETS, np.linspace(1.2, max(total - t, 1.5), 4)[1:]])
                previews = [drawn(t + a) for a in ahead]
            made.plan(t, number, total, previews)
    made.add("/sim/state", total, header=header(total), task="square", success=True, success_once=True)
    made.add("/goal", total, header=header(total), goal_id="g1", state=2, image=image(drawn(total)))
    for k in range(10):
        t = total + 0.04 * k
        made.tick(
            t,
            total,
            np.zeros(6),
            0.0,
            state=3,
            stop_reason=message("act2goal_msgs/msg/StopReason", value=17),
            stop_detail="goal reached",
        )
    return made.close()


def vars_of(made: Any) -> dict[str, Any]:
    """The fields of a message."""
    return {name: getattr(made, name) for name, _ in STORE.fielddefs["sensor_msgs/msg/Image"][1]}
