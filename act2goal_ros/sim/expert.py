"""A scripted expert that carries a cube to its target within the arm's limits.

It is Markovian: the phase follows from the state alone, so a missed grasp or a dropped cube is simply tried again.
Targets are gripper poses; inverse kinematics is OGBench's; Ruckig turns the joint targets into set-points that keep
velocity, acceleration and jerk limits.
"""

from dataclasses import dataclass

import numpy as np
from ogbench.manipspace import lie
from ruckig import InputParameter, OutputParameter, Ruckig

from act2goal_ros.sim.arm import PHYSICS_STEP, SimulatedArm

STEP = 0.05  # s between recorded set-points
HOVER = 0.12  # m above the cube
GRASP_XY, GRASP_Z = 0.012, 0.012  # m, how near the pinch point must be before the gripper closes
ALIGNED = 0.02  # m, how well the gripper must stand above the cube before it descends
PLACED = 0.015  # m
HELD_LOW, HELD_HIGH = 0.35, 0.9  # gripper position when it holds a cube (0.56), not when it closed on nothing
OPEN = 0.15


@dataclass(frozen=True)
class ExpertLimits:
    """Slower than the robot's own limits, so that whoever follows the expert has room to catch up."""

    velocity: float = 2.2  # rad/s
    acceleration: float = 7.0  # rad/s²
    jerk: float = 70.0  # rad/s³


class SetPoints:
    """Jerk-limited set-points towards joint targets that may change at any step."""

    def __init__(self, joints: np.ndarray, limits: ExpertLimits, velocities: np.ndarray | None = None) -> None:
        self._otg = Ruckig(len(joints), STEP)
        self._input = InputParameter(len(joints))
        self._output = OutputParameter(len(joints))
        self._input.current_position = list(joints)
        if velocities is not None:
            self._input.current_velocity = list(np.clip(velocities, -limits.velocity, limits.velocity))
        self._input.max_velocity = [limits.velocity] * len(joints)
        self._input.max_acceleration = [limits.acceleration] * len(joints)
        self._input.max_jerk = [limits.jerk] * len(joints)

    def advance(self, target: np.ndarray) -> np.ndarray:
        """Set-points (25, J) at the physics rate for the next step of 0.05 s."""
        self._input.target_position = list(target)
        self._otg.update(self._input, self._output)
        times = np.arange(1, round(STEP / PHYSICS_STEP) + 1) * PHYSICS_STEP
        points = np.array([self._output.trajectory.at_time(t)[0] for t in times])
        self._output.pass_to_input(self._input)
        return points


class CubeExpert:
    """Picks the cube, places it at its target and moves to a final position."""

    def __init__(self, arm: SimulatedArm, final_position: np.ndarray, target_yaw: float = 0.0) -> None:
        self._arm = arm
        self._final = np.asarray(final_position, float)
        self._target_yaw = target_yaw
        self.phase = "start"
        # errors of the expert's eye, (x, y, z, yaw) in m and rad: for recording misses
        self.cube_error = self.target_error = np.zeros(4)
        self._pose = (np.zeros(3), 0.0)

    def act(self) -> tuple[np.ndarray, float]:
        """Joint target (6,) rad and gripper command (0 open .. 1 closed) for the present state."""
        scene, data = self._arm.scene, self._arm.data
        pinch, yaw = data.site_xpos[scene.pinch_site], self._gripper_yaw()
        cube = self._arm.object_positions[0] + self.cube_error[:3]
        target = self._arm.target_positions[0] + self.target_error[:3]
        position, heading, gripper = self._phase(pinch, yaw, cube, self._cube_yaw() + self.cube_error[3], target)
        self._pose = (position, heading)
        return self._inverse_kinematics(position, heading), gripper

    def moved_target(self, offset: np.ndarray) -> np.ndarray:
        """Joint target (6,) rad of the last action's pose moved by (x, y, z, yaw) in m and rad."""
        position, heading = self._pose
        return self._inverse_kinematics(position + offset[:3], heading + offset[3])

    @property
    def done(self) -> bool:
        pinch = self._arm.data.site_xpos[self._arm.scene.pinch_site]
        near = np.linalg.norm(pinch - self._final) < 0.01 and np.abs(self._arm.joint_velocities).max() < 0.03
        return bool(self.phase == "leave" and near)

    def _phase(
        self, pinch: np.ndarray, yaw: float, cube: np.ndarray, cube_yaw: float, target: np.ndarray
    ) -> tuple[np.ndarray, float, float]:
        opening = self._arm.gripper_position
        apart = np.linalg.norm((pinch - cube)[:2])
        at_cube = apart < 0.02 and abs(pinch[2] - cube[2]) < 0.02
        held = at_cube and HELD_LOW < opening < HELD_HIGH and self._closing()
        placed = np.linalg.norm((cube - target)[:2]) < PLACED and cube[2] < target[2] + 0.006
        grasp_yaw = _nearest_symmetric(yaw, cube_yaw)
        if placed:
            return self._after_placing(pinch, yaw, target, opening)
        if held:
            return self._carry(pinch, yaw, cube, cube_yaw, target)
        if at_cube and apart < GRASP_XY and abs(pinch[2] - cube[2]) < GRASP_Z:
            self.phase = "grasp"
            return cube, grasp_yaw, 1.0
        if apart < ALIGNED and abs(_wrap(grasp_yaw - yaw)) < 0.15:
            self.phase = "descend"
            return cube, grasp_yaw, 0.0
        self.phase = "approach"
        low = pinch[2] < cube[2] + 0.07 and apart > ALIGNED
        position = np.array([*(pinch[:2] if low and apart < 0.1 else cube[:2]), cube[2] + HOVER])
        return position, grasp_yaw, 0.0

    def _carry(
        self, pinch: np.ndarray, yaw: float, cube: np.ndarray, cube_yaw: float, target: np.ndarray
    ) -> tuple[np.ndarray, float, float]:
        heading = yaw + _wrap(_nearest_symmetric(cube_yaw, self._target_yaw) - cube_yaw)
        to_go = target[:2] - cube[:2]
        distance = np.linalg.norm(to_go)
        if distance > PLACED * 0.7 and cube[2] < target[2] + 0.05 and distance > 0.05:
            self.phase = "lift"
            ahead = to_go / distance * min(distance, 0.1) * float(np.clip((cube[2] - target[2] - 0.02) / 0.03, 0.0, 1.0))
            return np.array([*(pinch[:2] + ahead), target[2] + HOVER]), heading, 1.0
        if distance > 0.008 and cube[2] > target[2] + 0.02 and distance > 0.02:
            self.phase = "transfer"
            return np.array([*(pinch[:2] + to_go), target[2] + 0.08]), heading, 1.0
        self.phase = "lower"
        return np.array([*(pinch[:2] + to_go), target[2]]), heading, 1.0

    def _after_placing(self, pinch: np.ndarray, yaw: float, target: np.ndarray, opening: float) -> tuple[np.ndarray, float, float]:
        near = np.linalg.norm((pinch - target)[:2]) < 0.05
        if near and pinch[2] < target[2] + 0.03 and opening > OPEN:
            self.phase = "release"
            return np.array([*pinch[:2], max(pinch[2], target[2])]), yaw, 0.0
        if near and pinch[2] < target[2] + 0.07:
            self.phase = "retreat"
            return np.array([*pinch[:2], target[2] + HOVER]), yaw, 0.0
        self.phase = "leave"
        return self._final, yaw, 0.0  # a goal picture does not show how a small, distant gripper is turned

    def _closing(self) -> bool:
        return bool(self._arm.data.ctrl[self._arm.scene.gripper_actuators[0]] > 127.0)

    def _gripper_yaw(self) -> float:
        matrix = self._arm.data.site_xmat[self._arm.scene.pinch_site].reshape(3, 3)
        return float(lie.SO3.from_matrix(matrix).compute_yaw_radians())

    def _cube_yaw(self) -> float:
        quaternion = self._arm.data.joint("object_joint_0").qpos[3:]
        return float(lie.SO3(wxyz=quaternion).compute_yaw_radians())

    def _inverse_kinematics(self, position: np.ndarray, yaw: float) -> np.ndarray:
        return self._arm.scene.inverse_kinematics(position, yaw, self._arm.joint_positions)


def _wrap(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _nearest_symmetric(yaw: float, cube_yaw: float) -> float:
    """The one of a cube's four equal headings that is nearest to `yaw`, without a jump at ±π."""
    quarter = np.pi / 2
    return yaw + float((cube_yaw - yaw + quarter / 2) % quarter - quarter / 2)
