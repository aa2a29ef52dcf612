"""The scripted expert of a single cube for an arm that is elsewhere: it sees joints and the cube's position, and gives trajectories.

What the expert asks of a simulated arm it finds in a twin, which never steps: its joints and its cube are put where the
messages say they are. The twin starts from the same seed; a cube's heading, which no message carries, is known from there
and turns with the gripper while the cube is held.
"""

from __future__ import annotations

import math

import mujoco  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from numpy.typing import NDArray
from ogbench.manipspace import lie  # type: ignore[import-untyped, unused-ignore]
from ruckig import InputParameter, Result, Ruckig  # type: ignore[import-not-found, unused-ignore]
from ruckig import Trajectory as RuckigTrajectory

from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.sim.arm import GRIPPER_COMMAND, GRIPPER_RANGE, SimulatedArm
from act2goal_ros.sim.experts.cube import CubeExpert
from act2goal_ros.sim.experts.motion import ExpertLimits

Vector = NDArray[np.float64]
POINTS = 0.02  # s between the points of a trajectory
HOME = (0.425, 0.0, 0.28)  # m, where it ends
HELD = ("lift", "transfer", "lower")


class RemoteExpert:
    """One episode of the expert; `task` and `seed` (not negative) are those of the arm's last reset."""

    def __init__(self, twin: SimulatedArm, task: str, seed: int) -> None:
        self._twin = twin
        twin.reset(task, seed)
        self._heading = self._cube_heading()
        self._grip = 0.0
        self._expert = CubeExpert(twin, np.array(HOME))

    @property
    def phase(self) -> str:
        """What the expert does."""
        return self._expert.phase

    @property
    def done(self) -> bool:
        """Whether the cube is placed and the arm where it ends."""
        return self._expert.done

    def act(self) -> tuple[Vector, float]:
        """Joint target (6,) rad and gripper command 0 .. 1 for the scene last seen."""
        target, self._grip = self._expert.act()
        return target, self._grip

    def see(self, positions: Vector, velocities: Vector, gripper: float, cube: Vector) -> None:
        """The arm's joints (6,) rad and rad/s, the gripper 0 .. 1 and the cube's position (3,) m."""
        scene, data = self._twin.scene, self._twin.data
        before = self._gripper_heading()
        data.qpos[scene.arm_joints], data.qvel[scene.arm_joints] = positions, velocities
        data.qpos[scene.gripper_joint] = gripper * GRIPPER_RANGE
        data.ctrl[scene.gripper_actuators] = GRIPPER_COMMAND * self._grip
        mujoco.mj_kinematics(self._twin.model, data)
        if self.phase in HELD:
            self._heading += self._gripper_heading() - before
        joint = data.joint("object_joint_0")
        joint.qpos[:3], joint.qpos[3:] = cube, lie.SO3.from_z_radians(self._heading).wxyz
        mujoco.mj_forward(self._twin.model, data)

    def _cube_heading(self) -> float:
        return float(lie.SO3(wxyz=self._twin.data.joint("object_joint_0").qpos[3:]).compute_yaw_radians())

    def _gripper_heading(self) -> float:
        matrix = self._twin.data.site_xmat[self._twin.scene.pinch_site].reshape(3, 3)
        return float(lie.SO3.from_matrix(matrix).compute_yaw_radians())


class Way:
    """What the arm is told: time-optimal ways to targets within limits, each from the middle of the one before."""

    def __init__(self, positions: Vector, limits: ExpertLimits | None = None) -> None:
        """At rest at `positions` (J,), rad."""
        self._limits, self._joints = limits or ExpertLimits(), len(positions)
        rest = [0.0] * self._joints
        self._pieces = [(-math.inf, self._plan((positions.tolist(), rest, rest), positions))]

    def turn(self, time: float, target: Vector) -> None:
        """From `time` (s, absolute) on towards `target` (J,), to rest there."""
        state = self._state_at(time)
        self._pieces = [*self._pieces[-3:], (time, self._plan(state, target))]

    def positions_at(self, time: float) -> Vector:
        """(J,) rad, what the arm is told for an absolute time."""
        return np.array(self._state_at(time)[0])

    def trajectory(self, start: float) -> Trajectory:
        """All of it from `start` (s, absolute) on, until it is at rest."""
        began, piece = self._pieces[-1]
        end = max(began + piece.duration, start)
        times = np.append(np.arange(0.0, end - start, POINTS), end - start + POINTS)
        q, v, a = (np.array(rows) for rows in zip(*(self._state_at(start + t) for t in times.tolist()), strict=True))
        v[-1], a[-1] = 0.0, 0.0
        return Trajectory(start, times, q, v, a)

    def _state_at(self, time: float) -> tuple[list[float], list[float], list[float]]:
        began, piece = next((p for p in reversed(self._pieces) if p[0] <= time), self._pieces[0])
        positions, velocities, accelerations = piece.at_time(min(time - began, piece.duration))
        return positions, velocities, accelerations

    def _plan(self, state: tuple[list[float], list[float], list[float]], target: Vector) -> RuckigTrajectory:
        """Rounded, because Ruckig fails on what is nearly at rest."""
        request, found, limits = InputParameter(self._joints), RuckigTrajectory(self._joints), self._limits
        request.current_position = state[0]
        request.current_velocity, request.current_acceleration = ([round(x, 8) for x in row] for row in state[1:])
        request.target_position = target.tolist()
        request.max_velocity = [limits.velocity] * self._joints
        request.max_acceleration = [limits.acceleration] * self._joints
        request.max_jerk = [limits.jerk] * self._joints
        result = Ruckig(self._joints).calculate(request, found)
        if result not in (Result.Working, Result.Finished):
            raise ValueError(f"no way from {state} to {target.tolist()} within {limits}: {result}")
        return found
