"""rosbag2 recordings of a robot at work: joint states, pictures and commands of one episode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.joints import JointReader
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.data.messages import Recording
from act2goal_ros.data.pictures import ImageError, Rgb, decode, to_rgb
from act2goal_ros.data.rollout import Received, stamp
from act2goal_ros.learning.commands import Sent, in_force, read_points
from act2goal_ros.learning.dataset import Episode
from act2goal_ros.learning.resample import Camera, Grid, RecordingError, Sampled, Timeline, check_times, held, interpolate, to_episode

Array = NDArray[np.float64]
COMMANDS = ("auto", "reference", "trajectory", "next")
CONTROL_STATUS = "control_status"  # of a rollout: has the gripper's command whichever interface it goes to
TYPES = {  # by _Topics' names
    "joints": "sensor_msgs/msg/JointState",
    "reference": "control_msgs/msg/JointTrajectoryControllerState",
    "trajectory": "trajectory_msgs/msg/JointTrajectory",
    "gripper": "std_msgs/msg/Float64",
    "status": "act2goal_msgs/msg/ControlStatus",
}
PICTURES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
FOLLOWS = 0.3  # rad, as far as a joint may be from its command; farther, and commands are missing or of something else
OTHER_CLOCK = 1.0  # s; stamps further from the time of reception are of another clock, a simulation's


@dataclass(frozen=True, kw_only=True)
class BagOptions:
    """What to take from a recording.

    cameras: topics of sensor_msgs/Image or CompressedImage, their pictures one above the other, the first on top; compressed where
    only that was recorded; none: the robot file's.
    command: `reference` of the controller's state, the `trajectory` sent to it, the `next` joint states, or `auto`: the first
    of these that was recorded. environment: what the episodes are called. step: s, with which `next` looks ahead.
    """

    robot: RobotConfig
    cameras: tuple[str, ...] = ()
    command: str = "auto"
    environment: str = "recorded"
    step: float = 0.05


@dataclass
class _Streams:
    """Samples as they were read; times in s of the stamps' clock, or of reception where `late` says so."""

    states: list[tuple[float, Array, Array, float]] = field(default_factory=list)
    has_velocities: bool = True
    delays: list[float] = field(default_factory=list)
    frames: dict[str, list[float]] = field(default_factory=dict)
    references: list[tuple[float, Array]] = field(default_factory=list)
    trajectories: list[tuple[float, float, Any]] = field(default_factory=list)
    gripper: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Topics:
    """Recorded names; empty where not recorded."""

    joints: str
    cameras: tuple[str, ...]
    reference: str = ""
    trajectory: str = ""
    gripper: str = ""
    status: str = ""

    @property
    def all(self) -> list[str]:
        others = (self.joints, self.reference, self.trajectory, self.gripper, self.status)
        return [topic for topic in (*self.cameras, *others) if topic]


def asked_cameras(options: BagOptions) -> tuple[str, ...]:
    """The cameras' names as they were asked for, which episodes keep: recorded names have namespaces and ways to transport."""
    return options.cameras or (options.robot.camera.topic,)


def episode_of_bag(path: Path, options: BagOptions, grid: Grid) -> Episode:
    """One recording as one episode. Raises BagError, RecordingError or ImageError naming what is wrong with it."""
    return to_episode(read_bag(path, options), grid)


def read_bag(path: Path, options: BagOptions) -> Timeline:
    """One recording as one episode's timeline. Pictures are read again when they are asked for.

    Raises BagError where it cannot be read, RecordingError where something needed is not in it.
    """
    with Recording(path) as recording:
        topics = _topics(recording, options)
        streams, reader = _Streams(frames={camera: [] for camera in topics.cameras}), JointReader(options.robot)
        for received in recording.read(topics.all):
            _take(received, topics, streams, reader, options.robot)
    if not streams.states:
        reason = reader.problem or f"they are of {reader.strangers or 'nothing'}"
        raise RecordingError(f"{topics.joints}: none with all joints of {options.robot.name}: {reason}")
    delay = float(np.median(streams.delays))
    return _timeline(path, topics, streams, delay if abs(delay) > OTHER_CLOCK else 0.0, options)


def _topics(recording: Recording, options: BagOptions) -> _Topics:
    robot, there = options.robot, ", ".join(sorted(recording.topics)) or "none"
    joints = recording.find(robot.joint_states_topic)
    if joints is None:
        raise RecordingError(f"no messages on {robot.joint_states_topic}; topics with messages: {there}")
    cameras = tuple(_camera(recording, name, there) for name in asked_cameras(options))
    if twice := [camera for i, camera in enumerate(cameras) if camera in cameras[:i]]:
        raise RecordingError(f"{twice[0]} is given twice (--camera)")
    commands = {"reference": robot.controller.state_topic, "trajectory": robot.controller.joint_trajectory_topic}
    found = {kind: recording.find(topic) or "" for kind, topic in commands.items() if options.command in ("auto", kind)}
    if options.command in found and not found[options.command]:
        raise RecordingError(f"no messages on {commands[options.command]} (--command {options.command}); topics with messages: {there}")
    gripper = recording.find(robot.gripper.command_topic) if robot.gripper.interface == "topic" else None
    status = None if gripper else recording.find(CONTROL_STATUS)
    topics = _Topics(joints, cameras, gripper=gripper or "", status=status or "", **found)
    for name, kind in TYPES.items():
        topic = getattr(topics, name)
        if topic and recording.topics[topic] != kind:
            raise RecordingError(f"{topic} is {recording.topics[topic]}, must be {kind}")
    return topics


def _camera(recording: Recording, name: str, there: str) -> str:
    """The recorded topic of these pictures: under that name, else in a namespace."""
    full = "/" + name.lstrip("/")
    camera = next((topic for topic in (full, f"{full}/compressed") if topic in recording.topics), None)
    if camera is None and not name.startswith("/"):
        camera = recording.find(name) or recording.find(f"{name}/compressed")
    if camera is None:
        raise RecordingError(f"no pictures on {name} or {name}/compressed (--camera); topics with messages: {there}")
    if recording.topics[camera] not in PICTURES:
        raise RecordingError(f"{camera} is {recording.topics[camera]}, must be {' or '.join(PICTURES)}")
    return camera


def _take(received: Received, topics: _Topics, streams: _Streams, reader: JointReader, robot: RobotConfig) -> None:
    message, arrived = received.message, received.time
    if received.topic == topics.joints:
        time = stamp(message) or arrived
        names = [str(name) for name in message.name]
        if reader.read(time, names, message.position, message.velocity):
            newest = reader.newest
            assert newest is not None
            streams.states.append((time, newest.q, newest.qd, newest.gripper))
            streams.has_velocities &= len(message.velocity) == len(names)
            streams.delays.append(arrived - time)
    elif received.topic in streams.frames:
        streams.frames[received.topic].append(stamp(message) or arrived)
    elif received.topic == topics.reference:
        streams.references.extend(_reference(message, arrived, robot))
    elif received.topic == topics.trajectory:
        streams.trajectories.append((arrived, stamp(message), message))
    elif received.topic == topics.gripper:
        streams.gripper.append((arrived, float(message.data)))
    elif received.topic == topics.status:
        streams.gripper.append((arrived, float(message.commanded_gripper)))


def _reference(message: Any, arrived: float, robot: RobotConfig) -> Iterator[tuple[float, Array]]:
    """Time and set-point of a JointTrajectoryControllerState; before Iron its field was called desired."""
    names = [str(name) for name in message.joint_names]
    point = message.reference if hasattr(message, "reference") else message.desired
    wanted = _commanded(robot)
    if set(wanted) <= set(names) and len(point.positions) == len(names):
        yield stamp(message) or arrived, np.array([point.positions[names.index(name)] for name in wanted])


def _commanded(robot: RobotConfig) -> tuple[str, ...]:
    """The joints of the controller that count: the arm's, and the gripper's where it is one of them."""
    return (*robot.joint_names, robot.gripper.joint) if robot.gripper.interface == "joint" else robot.joint_names


def _timeline(path: Path, topics: _Topics, streams: _Streams, delay: float, options: BagOptions) -> Timeline:
    """delay: s to take from times of reception to get those of the stamps' clock."""
    states, kept = streams.states, _new([state[0] for state in streams.states])
    times, joints = np.array([states[i][0] for i in kept]), np.stack([states[i][1] for i in kept])
    velocities = np.stack([states[i][2] for i in kept]) if streams.has_velocities else None
    fingers = np.array([states[i][3] for i in kept])
    known = np.isfinite(fingers)
    asked = np.array(streams.gripper, np.float64).reshape(-1, 2) - (delay, 0.0)
    arm = _arm_command(topics, streams, delay, times, joints, options)
    if topics.reference or topics.trajectory:
        check_times(times, "joint states", None)
        _check_followed(topics.reference or topics.trajectory, arm(times), joints, times, options.robot)
    if not known.any() and not len(asked):
        raise RecordingError(f"{topics.joints}: nothing of {options.robot.gripper.joint}, and no command of the gripper was recorded")

    def gripper(at: Array) -> Array:
        return np.interp(at, times[known], fingers[known]) if known.any() else held(at, asked[:, 0], asked[:, 1])

    def command(at: Array) -> Array:
        first = arm(at)
        if first.shape[1] > joints.shape[1]:
            return np.column_stack([first[:, :-1], [options.robot.gripper.to_fraction(x) for x in first[:, -1]]])
        return np.column_stack([first, held(at, asked[:, 0], asked[:, 1]) if len(asked) else gripper(at + options.step)])

    return Timeline(
        source=str(path.resolve()),
        environment=options.environment,
        joint_names=options.robot.joint_names,
        times=times,
        joints=joints,
        velocities=velocities,
        gripper=gripper,
        command=command,
        cameras=tuple(
            _seen_by(path, name, topic, streams.frames[topic])
            for name, topic in zip(asked_cameras(options), topics.cameras, strict=True)
        ),
    )


def _arm_command(topics: _Topics, streams: _Streams, delay: float, times: Array, joints: Array, options: BagOptions) -> Sampled:
    """(T,) s → (T, J), or (T, J + 1) with the gripper's joint where the controller has it."""
    names = _commanded(options.robot)
    if topics.reference:
        kept = _new([time for time, _ in streams.references])
        if not kept:
            raise RecordingError(f"{topics.reference}: none about all of {', '.join(names)}")
        known, values = np.array([streams.references[i][0] for i in kept]), np.stack([streams.references[i][1] for i in kept])
        return lambda at: interpolate(at, known, values)
    if topics.trajectory:
        read = [(arrived - delay, start, read_points(message, names)) for arrived, start, message in streams.trajectories]
        sent = [Sent(arrived, start or arrived, points) for arrived, start, points in read if points is not None]
        if not sent:
            raise RecordingError(f"{topics.trajectory}: {len(read)} trajectories, none usable for all of {', '.join(names)}")
        first = sent[0].points.positions[0] if len(names) > joints.shape[1] else joints[0]
        return lambda at: in_force(at, sent, first)
    return lambda at: interpolate(at + options.step, times, joints)


def _check_followed(topic: str, commanded: Array, joints: Array, times: Array, robot: RobotConfig) -> None:
    """Raises RecordingError where the arm went elsewhere: by hand, by another controller, at another speed."""
    away = np.nan_to_num(np.abs(commanded[:, : joints.shape[1]] - joints))
    step, joint = np.unravel_index(np.argmax(away), away.shape)
    if away[step, joint] > FOLLOWS:
        raise RecordingError(
            f"{topic}: {robot.joint_names[joint]} is {away[step, joint]:.2f} rad from its command at {times[step] - times[0]:.2f} s, "
            f"at most {FOLLOWS:g} rad: the arm did not follow it, or it was not recorded all the time (--command next: joints alone)"
        )


def _new(times: Sequence[float]) -> list[int]:
    """Indices without those that repeat the time before them, as some drivers send."""
    return [i for i, time in enumerate(times) if i == 0 or time != times[i - 1]]


def _seen_by(path: Path, name: str, topic: str, times: Sequence[float]) -> Camera:
    kept = _new(times)

    def frames(indices: Sequence[int]) -> Iterator[Rgb]:
        return _pictures(path, topic, [kept[i] for i in indices])

    return Camera(name, np.array([times[i] for i in kept]), frames)


def _pictures(path: Path, topic: str, indices: Sequence[int]) -> Iterator[Rgb]:
    """The pictures of these numbers, ascending, among the messages of a topic."""
    wanted, number = set(indices), -1

    def chosen(_: str, __: float) -> bool:
        nonlocal number
        number += 1
        return number in wanted

    with Recording(path) as recording:
        kind = recording.topics[topic]
        for received in recording.read([topic], chosen):
            try:
                yield decode(bytes(received.message.data)) if kind.endswith("CompressedImage") else to_rgb(received.message)
            except ImageError as error:
                raise RecordingError(f"{topic}: picture {number}: {error}") from error
