"""The simulated UR5e: physics, camera, tasks and OGBench's success criterion. No ROS in here."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")

import cv2
import mujoco
import numpy as np

from act2goal_ros.sim.scene import CAMERA, CubeScene

PHYSICS_STEP = 0.002  # s
GRIPPER_RANGE = 0.8  # rad, of the driver joint from open to closed
GRIPPER_COMMAND = 255.0  # the Robotiq's command when closed
SUPERSAMPLING = 2  # without multisampling a distant cube aliases; render larger and average
REST_SPEED = 0.05  # rad/s
OPEN_BELOW = 0.25  # gripper position (0 open .. 1 closed)
TASKS = {f"cube-single-{i}": ("single", i) for i in range(1, 6)}
FREE_TASK = "cube-single-random"


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

    def __init__(self, task: str = "cube-single-1", image_size: int = 128, light: bool = True, camera: str = CAMERA):
        self._check(task)
        self.task = task
        self.image_size = image_size
        self._camera = camera
        scale = SUPERSAMPLING if light else 1
        self._scene = CubeScene("single", render_size=image_size * scale, light=light)
        self._renderer: mujoco.Renderer | None = None

    @property
    def tasks(self) -> list[str]:
        return [*TASKS, FREE_TASK]

    def _check(self, task: str) -> None:
        if task not in TASKS and task != FREE_TASK:
            raise ValueError(f"unknown task '{task}'; there are {', '.join([*TASKS, FREE_TASK])}")

    def reset(self, task: str | None = None, seed: int | None = None) -> np.ndarray:
        """Starts an episode and returns OGBench's goal picture (H, W, 3) uint8."""
        if task is not None:
            self._check(task)
            self.task = task
        self._scene.reset(seed=seed, options=self._options(seed))
        return self._goal_picture()

    def _options(self, seed: int | None) -> dict[str, object]:
        if self.task in TASKS:
            return {"task_id": TASKS[self.task][1]}
        generator = np.random.default_rng(seed)
        low, high = (0.3, -0.3, 0.02), (0.55, 0.3, 0.02)
        start, goal = generator.uniform(low, high), generator.uniform(low, high)
        return {"task_info": {"task_name": self.task, "init_xyzs": start[None], "goal_xyzs": goal[None]}}

    def _goal_picture(self) -> np.ndarray:
        """The scene as OGBench had it when it took its goal observation."""
        saved = mujoco.MjData(self.model)
        mujoco.mj_copyData(saved, self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = self._scene.goal_qpos, 0.0
        mujoco.mj_forward(self.model, self.data)
        picture = self.render()
        mujoco.mj_copyData(self.data, self.model, saved)
        return picture

    def place_cube_at_target(self, offset: np.ndarray) -> None:
        """Moves the cube to its target, (x, y) m beside it."""
        joint = self.data.joint("object_joint_0")
        joint.qpos[:3] = self.target_positions[0] + np.array([*offset, 0.0])
        mujoco.mj_forward(self.model, self.data)

    @property
    def scene(self) -> CubeScene:
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
    def object_positions(self) -> np.ndarray:
        """(objects, 3) m."""
        return self._scene.object_positions()

    @property
    def target_positions(self) -> np.ndarray:
        """(objects, 3) m."""
        return self._scene.target_positions()

    def success(self) -> bool:
        """OGBench's criterion, now: every cube within 4 cm of its target."""
        return bool(all(self._scene._compute_successes()))

    def at_rest_and_released(self) -> bool:
        """Success with the joints at rest and the gripper open."""
        slow = bool(np.abs(self.joint_velocities).max() < REST_SPEED)
        return self.success() and slow and self.gripper_position < OPEN_BELOW

    def render(self, data: mujoco.MjData | None = None) -> np.ndarray:
        """Camera picture (H, W, 3) uint8 of `data`, by default of the arm's own state."""
        if self._renderer is None:
            size = self._scene.model.vis.global_.offwidth
            self._renderer = mujoco.Renderer(self.model, size, size)
        self._renderer.update_scene(self.data if data is None else data, camera=self._camera)
        picture = self._renderer.render()
        if picture.shape[0] == self.image_size:
            return picture.copy()
        return cv2.resize(picture, (self.image_size, self.image_size), interpolation=cv2.INTER_AREA)
