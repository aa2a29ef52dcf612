"""What an expert for one object is."""

import numpy as np

from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.experts.motion import Turns, clear_way, turns_left

OPEN = 0.15  # gripper position, 0 open .. 1 closed
FREE = ("start", "approach", "leave")  # phases in which the gripper is at no object


class ObjectExpert:
    """Brings one object where it belongs, then the gripper to a final position (3,) m."""

    def __init__(self, arm: SimulatedArm, final_position: np.ndarray) -> None:
        self._arm = arm
        self._final = np.asarray(final_position, float)
        self.phase = "start"
        # errors of the expert's eye, (x, y, z, yaw) in m and rad: for recording misses
        self.object_error = self.target_error = np.zeros(4)
        self._pose = (np.zeros(3), 0.0)

    def act(self) -> tuple[np.ndarray, float]:
        """Joint target (6,) rad and gripper command (0 open .. 1 closed) for the present state."""
        position, heading, gripper = self._next_pose()
        self._pose = (position, heading)
        return self._inverse_kinematics(position, heading), gripper

    def moved_target(self, offset: np.ndarray) -> np.ndarray:
        """Joint target (6,) rad of the last action's pose moved by (x, y, z, yaw) in m and rad."""
        position, heading = self._pose
        return self._inverse_kinematics(position + offset[:3], heading + offset[3])

    @property
    def handled(self) -> np.ndarray:
        """(3,) m, where the object is."""
        raise NotImplementedError

    @property
    def destination(self) -> np.ndarray:
        """(3,) m, where it is to be."""
        raise NotImplementedError

    @property
    def finished(self) -> bool:
        """Whether the object is where it belongs and the gripper away from it."""
        return self.phase == "leave"

    @property
    def done(self) -> bool:
        """Whether the gripper also rests at its final position."""
        near = np.linalg.norm(self._arm.pinch_position - self._final) < 0.01 and np.abs(self._arm.joint_velocities).max() < 0.03
        return bool(self.finished and near)

    def _next_pose(self) -> tuple[np.ndarray, float, float]:
        """Position (3,) m and yaw rad of the gripper, and its command; sets the phase."""
        raise NotImplementedError

    def _leave(self, pinch: np.ndarray, yaw: float, obstacles: np.ndarray) -> tuple[np.ndarray, float, float]:
        self.phase = "leave"
        way = clear_way(pinch, self._final, self._final, obstacles)
        return way, yaw, 0.0  # a goal picture does not show how a small, distant gripper is turned

    def _turns_left(self) -> Turns:
        return turns_left(float(self._arm.joint_positions[-1]))

    def _inverse_kinematics(self, position: np.ndarray, yaw: float) -> np.ndarray:
        return self._arm.scene.inverse_kinematics(position, yaw, self._arm.joint_positions)
