"""The simulated UR5e: physics, camera, tasks and OGBench's success criterion. No ROS in here."""

import os
import zlib

os.environ.setdefault("MUJOCO_GL", "egl")

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import mujoco
import numpy as np
from ogbench.manipspace import lie

from act2goal_ros.sim.furniture import FurnitureScene
from act2goal_ros.sim.look import LookRange
from act2goal_ros.sim.scene import CAMERA, CONTROL_STEP, CubeScene, LightScene, episode_steps
from act2goal_ros.sim.tasks import all_tasks, environment_of, reset_options

PHYSICS_STEP = 0.002  # s
GRIPPER_RANGE = 0.8  # rad, of the driver joint from open to closed
GRIPPER_COMMAND = 255.0  # the Robotiq's command when closed
SUPERSAMPLING = 2  # without multisampling a distant cube aliases; render larger and average
REST_SPEED = 0.05  # rad/s
OPEN_BELOW = 0.25  # gripper position (0 open .. 1 closed)
CONTROL_EVERY = round(CONTROL_STEP / PHYSICS_STEP)


@dataclass(frozen=True)
class Snapshot:
    """All that decides how the simulation goes on."""

    state: np.ndarray
    memory: dict[str, Any]
    steps: int
    succeeded_at: float | None


class SimulatedArm:
    """OGBench's UR5e with a Robotiq 2F-85, commanded by joint and gripper positions.

    Joints in the UR5e's order, rad; gripper 0 open .. 1 closed; positions in metres in OGBench's world frame.
    Renders only from the thread that first rendered.
    """

    joint_names = (
        "shoulder_pan_joint",
        "shoulder_lift_joint",
        "elbow_joint",
        "wrist_1_joint",
        "wrist_2_joint",
        "wrist_3_joint",
    )

    def __init__(
        self,
        task: str = "cube-single-1",
        image_size: int = 128,
        light: bool = True,
        camera: str = CAMERA,
        look: LookRange | None = None,
    ):
        self.task = task
        self.look = look  # what the looks of the following resets are drawn from
        self.image_size = image_size
        self._camera, self._light = camera, light
        self._scenes: dict[str, LightScene] = {}
        self._renderers: dict[str, mujoco.Renderer] = {}
        self._steps = 0
        self.succeeded_at: float | None = None  # s: the first of OGBench's control steps after which its criterion held
        self._goal_places: dict[str, tuple[float, float]] = {}
        self._goal_pinch = np.zeros(3)
        self._scene = self._scene_for(self.environment)

    @property
    def tasks(self) -> list[str]:
        """What reset() knows."""
        return all_tasks()

    @property
    def environment(self) -> str:
        """OGBench's name of the scene, without visual- and version; another one is another model."""
        return environment_of(self.task)

    @property
    def episode_limit(self) -> float:
        """OGBench's, of the present environment's evaluation episodes, s."""
        return episode_steps(self.environment) * CONTROL_STEP

    def _scene_for(self, environment: str) -> LightScene:
        if environment not in self._scenes:
            size = self.image_size * (SUPERSAMPLING if self._light else 1)
            if environment == "scene":
                self._scenes[environment] = FurnitureScene(render_size=size, light=self._light)
            else:
                number = environment.removeprefix("cube-")
                self._scenes[environment] = CubeScene(number, render_size=size, light=self._light)
        return self._scenes[environment]

    def prepare(self, task: str) -> None:
        """Builds what a reset to `task` needs, which takes seconds the first time; the present scene stays."""
        environment = environment_of(task)
        if environment not in self._scenes:
            self._scene_for(environment).reset(seed=0, options={"task_id": 1})

    def close(self) -> None:
        """Frees what rendering took; from the thread that rendered."""
        while self._renderers:
            self._renderers.popitem()[1].close()

    def reset(self, task: str | None = None, seed: int | None = None) -> np.ndarray:
        """Starts an episode and returns OGBench's goal picture (H, W, 3) uint8. ValueError for an unknown task."""
        if task is not None:
            environment_of(task)
            self.task = task
        self._scene = self._scene_for(self.environment)
        self._scene.reset(seed=seed, options=reset_options(self.task, seed))
        self._scene.set_look(None if seed is None else (seed, zlib.crc32(self.task.encode())), self.look)
        self._steps, self.succeeded_at = 0, None
        self.data.time = 0.0  # OGBench's two random actions before the goal picture are no part of the episode
        return self._goal_picture()

    def _goal_picture(self) -> np.ndarray:
        """The scene as OGBench had it when it took its goal observation."""
        saved = mujoco.MjData(self.model)
        mujoco.mj_copyData(saved, self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = self._scene.goal_qpos, 0.0
        with self._scene.goal_look():
            mujoco.mj_forward(self.model, self.data)
            picture, self._goal_places, self._goal_pinch = self.render(), self._seen_things(), self.pinch_position
        mujoco.mj_copyData(self.data, self.model, saved)
        return picture

    def place_cube_at_target(self, offset: np.ndarray) -> None:
        """Moves the cube to its target, (x, y) m beside it."""
        joint = self.data.joint("object_joint_0")
        joint.qpos[:3] = self.target_positions[0] + np.array([*offset, 0.0])
        mujoco.mj_forward(self.model, self.data)

    @property
    def scene(self) -> LightScene:
        return self._scene

    @property
    def model(self) -> mujoco.MjModel:
        return self._scene.model

    @property
    def data(self) -> mujoco.MjData:
        return self._scene.data

    @property
    def time(self) -> float:
        """Seconds of simulated time since the reset."""
        return float(self.data.time)

    def step(self, joint_target: np.ndarray, gripper_target: float) -> None:
        """One physics step (2 ms) with the position servos' targets: (6,) rad and 0 open .. 1 closed."""
        self.data.ctrl[self._scene.arm_actuators] = joint_target
        self.data.ctrl[self._scene.gripper_actuators] = GRIPPER_COMMAND * min(max(gripper_target, 0.0), 1.0)
        mujoco.mj_step(self.model, self.data)
        self._steps += 1
        if self._steps % CONTROL_EVERY == 0:
            self._scene.after_control_step()
            if self.succeeded_at is None and self.success():
                self.succeeded_at = self.time

    def snapshot(self) -> Snapshot:
        """The present state of the present episode."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self.model, kind))
        mujoco.mj_getState(self.model, self.data, state, kind)
        return Snapshot(state, self._scene.memory(), self._steps, self.succeeded_at)

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a state of this episode: from there on all goes as it did."""
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        self._steps, self.succeeded_at = snapshot.steps, snapshot.succeeded_at
        mujoco.mj_setState(self.model, self.data, snapshot.state, kind)
        self._scene.remember(snapshot.memory)
        mujoco.mj_forward(self.model, self.data)
        mujoco.mj_setState(self.model, self.data, snapshot.state, kind)  # the solver's warm start, which that changed

    @property
    def joint_positions(self) -> np.ndarray:
        return self.data.qpos[self._scene.arm_joints].copy()

    @property
    def joint_velocities(self) -> np.ndarray:
        return self.data.qvel[self._scene.arm_joints].copy()

    @property
    def gripper_position(self) -> float:
        return float(np.clip(self.data.qpos[self._scene.gripper_joint] / GRIPPER_RANGE, 0.0, 1.0))

    @property
    def gripper_speed(self) -> float:
        """rad/s of the driver joint, positive while it closes."""
        return float(self.data.qvel[self._scene.gripper_joint])

    @property
    def pinch_position(self) -> np.ndarray:
        """(3,) m, between the fingertips."""
        return self.data.site_xpos[self._scene.pinch_site].copy()

    @property
    def goal_pinch_position(self) -> np.ndarray:
        """(3,) m, between the fingertips in the goal's picture."""
        return self._goal_pinch.copy()

    @property
    def gripper_yaw(self) -> float:
        """rad."""
        matrix = self.data.site_xmat[self._scene.pinch_site].reshape(3, 3)
        return float(lie.SO3.from_matrix(matrix).compute_yaw_radians())

    @property
    def object_positions(self) -> np.ndarray:
        """(objects, 3) m."""
        return self._scene.object_positions()

    @property
    def target_positions(self) -> np.ndarray:
        """(objects, 3) m."""
        return self._scene.target_positions()

    def success(self) -> bool:
        """OGBench's criterion, now: every object within 4 cm of its target, every button in its state."""
        return all(self._scene.successes())

    def at_rest_and_released(self) -> bool:
        """Success with the joints at rest and the gripper open."""
        slow = bool(np.abs(self.joint_velocities).max() < REST_SPEED)
        return self.success() and slow and self.gripper_position < OPEN_BELOW

    def keypoints(self, names: Sequence[str]) -> np.ndarray:
        """(names, 3): where each of the scene's things is in the picture, hidden or not, as shares of width and height from the upper
        left corner, and 1; zeros for what is not there or beside the picture."""
        return _in_order(self._seen_things(), names)

    def goal_keypoints(self, names: Sequence[str]) -> np.ndarray:
        """As `keypoints`, of the goal's picture."""
        return _in_order(self._goal_places, names)

    def _seen_things(self) -> dict[str, tuple[float, float]]:
        """Where each thing is in the picture, of those that are."""
        found = {name: self._project(place) for name, place in self._scene.things().items()}
        return {name: (u, v) for name, (u, v) in found.items() if 0.0 <= u <= 1.0 and 0.0 <= v <= 1.0}

    def _project(self, position: np.ndarray) -> tuple[float, float]:
        """Of (3,) m, as shares of the picture; NaN behind the camera."""
        camera = self.model.cam(self._camera)
        right, up, back = (position - self.data.cam_xpos[camera.id]) @ self.data.cam_xmat[camera.id].reshape(3, 3)
        if back >= 0.0:
            return np.nan, np.nan
        focal = 0.5 / np.tan(np.deg2rad(float(camera.fovy[0])) / 2)
        return 0.5 - focal * right / back, 0.5 + focal * up / back

    def render(self, data: mujoco.MjData | None = None) -> np.ndarray:
        """Camera picture (H, W, 3) uint8 of `data`, by default of the arm's own state."""
        if self.environment not in self._renderers:
            size = self._scene.model.vis.global_.offwidth
            self._renderers[self.environment] = mujoco.Renderer(self.model, size, size)
        renderer = self._renderers[self.environment]
        renderer.update_scene(self.data if data is None else data, camera=self._camera)
        picture = renderer.render()
        if picture.shape[0] == self.image_size:
            return picture.copy()
        return cv2.resize(picture, (self.image_size, self.image_size), interpolation=cv2.INTER_AREA)


def _in_order(seen: dict[str, tuple[float, float]], names: Sequence[str]) -> np.ndarray:
    return np.array([(*seen[name], 1.0) if name in seen else (0.0, 0.0, 0.0) for name in names], np.float32)
