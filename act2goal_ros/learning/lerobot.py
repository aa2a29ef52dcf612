"""LeRobot data sets to episodes, and episodes to LeRobot data sets.

LeRobot's action of a row is what is sent then, and reached by the next row; our command of a step is the set-point reached at it. So a
row's action is the command of the step after it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.data.lerobot import Entry, LeRobotError, LeRobotFolder
from act2goal_ros.data.lerobot_writer import Layout, LeRobotWriter, Rows
from act2goal_ros.learning.checks import Loaded
from act2goal_ros.learning.dataset import Episode
from act2goal_ros.learning.resample import FRAME_STRIDE, Camera, Grid, RecordingError, Timeline, held, interpolate, to_episode
from act2goal_ros.model.config import ModelConfig

Array = NDArray[np.float64]
STATE, ACTION, VELOCITY, DISTURBED, GRIPPER = "observation.state", "action", "observation.velocity", "disturbed", "gripper"
CAMERA = "observation.images.front"


@dataclass(frozen=True, kw_only=True)
class LeRobotOptions:
    """What to take from a LeRobot data set.

    state, action: features with a component for every joint and the gripper; joints: names of these components in the robot's
    order, empty: the robot's own, with or without `.pos`; gripper: that of the gripper, gripper_open and gripper_closed its values;
    cameras: features, their pictures one above the other, the first on top; none: the only one there is; degrees: joints are in degrees;
    environment: empty: the episode's task.
    """

    robot: RobotConfig
    state: str = STATE
    action: str = ACTION
    cameras: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    gripper: str = GRIPPER
    gripper_open: float = 0.0
    gripper_closed: float = 1.0
    degrees: bool = False
    environment: str = ""


class LeRobotSource:
    """One data set with the components chosen. Raises LeRobotError naming what it does not have."""

    def __init__(self, folder: Path, options: LeRobotOptions) -> None:
        self.data, self._options = LeRobotFolder(folder), options
        there = self.data.cameras
        if not options.cameras and len(there) != 1:
            raise LeRobotError(f"{folder} has {len(there)} cameras ({', '.join(there) or 'none'}), choose (--camera)")
        self.cameras = options.cameras or tuple(there)
        if missing := [camera for camera in self.cameras if camera not in there]:
            raise LeRobotError(f"{folder} has no camera {missing[0]}; it has {', '.join(there) or 'none'}")
        if len(set(self.cameras)) < len(self.cameras):
            raise LeRobotError(f"a camera is given twice (--camera): {', '.join(self.cameras)}")
        self._columns = {key: self._find(key) for key in (options.state, options.action)}

    def episode(self, entry: Entry, grid: Grid) -> Episode:
        """Raises RecordingError."""
        try:
            return to_episode(self._timeline(entry), grid)
        except LeRobotError as error:
            raise RecordingError(str(error)) from error

    def name(self, entry: Entry) -> str:
        """Under which the episode is known in shards."""
        return f"{self.data.folder.resolve()}#{entry.number}"

    def _find(self, key: str) -> list[int]:
        """Columns of the joints and the gripper."""
        names = self.data.names(key)
        wanted = [*(self._options.joints or self._options.robot.joint_names), self._options.gripper]
        found = [next((i for i, name in enumerate(names) if name in (asked, f"{asked}.pos")), -1) for asked in wanted]
        if -1 in found:
            raise LeRobotError(f"{key} has no {wanted[found.index(-1)]}; it has {', '.join(names)} (--joints, --gripper)")
        return found

    def _timeline(self, entry: Entry) -> Timeline:
        options, data = self._options, self.data
        keys = [options.state, options.action, "timestamp", *(key for key in (VELOCITY, DISTURBED) if key in data.features)]
        rows = data.rows(entry, keys)
        state, action = (self._in_our_units(rows[key][:, self._columns[key]]) for key in (options.state, options.action))
        if entry.length < 2:
            raise RecordingError(f"{entry.length} rows, at least 2 needed")
        times, later = rows["timestamp"], rows["timestamp"] + 1.0 / data.fps
        first = np.append(state[:1, :-1], action[0, -1])  # in force when the episode begins
        reached, points = np.append(times[:1], later), np.vstack([first, action])
        velocities = rows.get(VELOCITY)
        if velocities is not None and data.names(VELOCITY) != list(options.robot.joint_names):
            velocities = None
        elif velocities is not None and options.degrees:
            velocities = np.radians(velocities)

        def seen_by(camera: str) -> Camera:
            return Camera(camera, times, lambda indices: data.frames(entry, camera, indices, times))

        return Timeline(
            source=self.name(entry),
            environment=options.environment or str((entry.facts.get("tasks") or ["recorded"])[0]),
            joint_names=options.robot.joint_names,
            times=times,
            joints=state[:, :-1],
            velocities=velocities,
            gripper=lambda at: np.interp(at, times, state[:, -1]),
            command=lambda at: interpolate(at, reached, points),
            cameras=tuple(seen_by(camera) for camera in self.cameras),
            disturbed=(lambda at: held(at, later, rows[DISTURBED])) if DISTURBED in rows else None,
        )

    def _in_our_units(self, values: Array) -> Array:
        """(T, J + 1): rad, and 0 open .. 1 closed."""
        low, high = self._options.gripper_open, self._options.gripper_closed
        joints = np.radians(values[:, :-1]) if self._options.degrees else values[:, :-1]
        return np.column_stack([joints, np.clip((values[:, -1] - low) / (high - low), 0.0, 1.0)])


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """fps: rows a second, the model's rate or half of it; task: of all episodes, empty: their environment."""

    fps: int = 20
    task: str = ""
    robot: str = "ur5e_sim"
    codec: str = "av1"


def export(loaded: Loaded, folder: Path, config: ModelConfig, options: ExportOptions) -> Iterator[LeRobotWriter]:
    """Writes a data set of the shards' usable episodes, a file each; yields after each. Goes on where it was interrupted.

    Not in it: labels of the simulator, milestones, and the command of the first step (read as the joints there). Raises
    LeRobotError where the folder holds something else, or fps is not the model's rate or half of it.
    """
    every = round(1.0 / config.step / options.fps)
    if every not in (1, FRAME_STRIDE) or abs(every * options.fps * config.step - 1.0) > 1e-9:
        rates = " or ".join(f"{1.0 / config.step / n:g}" for n in (1, FRAME_STRIDE))
        raise LeRobotError(f"fps is {options.fps}, must be {rates}")
    _begin(folder, {"shards": [str(s.resolve()) for s in loaded.shards], "options": vars(options)})
    components = (*config.joint_names, GRIPPER)
    writer = LeRobotWriter(
        folder,
        Layout(
            fps=options.fps,
            features={STATE: components, ACTION: components, VELOCITY: config.joint_names, DISTURBED: (DISTURBED,)},
            camera=CAMERA,
            height=config.camera_size,
            width=config.camera_size,
            robot=options.robot,
            codec=options.codec,
        ),
    )
    for episodes in loaded.by_shard:
        if not writer.skip([options.task or e.environment for e in episodes]):
            writer.write([_rows(episode, every, options.task) for episode in episodes])
        yield writer
    writer.finish()


def _rows(episode: Episode, every: int, task: str) -> Rows:
    """Rows of every n-th step."""
    steps = np.arange(0, len(episode), every)
    after = np.minimum(steps + every, len(episode) - 1)
    # disturbed anywhere on the way to the next row; a last row has no way
    disturbed = np.array([episode.disturbed[k + 1 : k + 1 + every].any() for k in steps])
    columns = {
        STATE: np.column_stack([episode.joints[steps], episode.gripper[steps]]),
        ACTION: episode.command[after],
        VELOCITY: episode.velocities[steps],
        DISTURBED: disturbed[:, None],
    }
    return Rows(task or episode.environment, columns, [episode.frames[k // FRAME_STRIDE] for k in steps])


def _begin(folder: Path, made_of: dict[str, object]) -> None:
    """Notes what the data set is made of; raises LeRobotError where the folder is of something else."""
    note = folder / "meta" / "act2goal.json"
    if not note.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise LeRobotError(f"{folder} is not empty and not an export that was interrupted")
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(made_of, indent=2))
    elif json.loads(note.read_text()) != json.loads(json.dumps(made_of)):
        raise LeRobotError(f"{folder} is an export of other shards or with other options ({note}); give another folder")
