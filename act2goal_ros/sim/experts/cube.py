"""An expert that carries a cube to its target.

The gripper keeps its yaw, since a cube's cannot be seen at this size: fingers that close turn the cube.
"""

from collections.abc import Callable

import numpy as np

from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.experts.base import OPEN, ObjectExpert
from act2goal_ros.sim.experts.motion import CARRIED, clear_way, roomy, wrap

HOVER = 0.12  # m above the cube
GRASP_XY, GRASP_Z = 0.012, 0.012  # m, how near the pinch point must be before the gripper closes
ALIGNED = 0.02  # m, how well the gripper must stand above the cube before it descends
PLACED, SUNK = 0.015, 0.02  # m beside and below the target; a cube may hang low in the gripper
CENTRED, SLOW = 0.006, 0.15  # m, rad/s: it is let go there, or once the arm has come to rest as near as it gets
HIGH = 0.012  # m above the target, where the gripper cannot go lower
RAISED, FINE = 0.03, 0.007  # m: where a target is on something, the cube is put down exactly
HELD_LOW, HELD_HIGH = 0.35, 0.9  # gripper position when it holds a cube (0.56), not when it closed on nothing
ACROSS, STILL = 0.2, 0.05  # gripper position and speed (rad/s) when it holds a cube by its edges and closes no further
STEEP, CLEAR = 0.06, 0.055  # m: at most so far down at once, because joints that move far leave the vertical; above a cube's top


class CubeExpert(ObjectExpert):
    """Picks a cube, places it at a target, by default its own, and moves to a final position."""

    def __init__(
        self,
        arm: SimulatedArm,
        final_position: np.ndarray,
        index: int = 0,
        target: Callable[[], np.ndarray] | None = None,
        let_go: float = PLACED,
    ) -> None:
        """let_go: m beside its target at which a cube is left alone once the gripper is open."""
        super().__init__(arm, final_position)
        self._index, self._let_go = index, let_go
        self._stacks = len(arm.scene.cube_positions()) > 1
        self._target = target or (lambda: arm.scene.cube_targets()[index])

    @property
    def handled(self) -> np.ndarray:
        """The cube."""
        return self._arm.scene.cube_positions()[self._index]

    @property
    def destination(self) -> np.ndarray:
        """Its target."""
        return self._target()

    def _next_pose(self) -> tuple[np.ndarray, float, float]:
        arm = self._arm
        cube, target = self.handled + self.object_error[:3], self.destination + self.target_error[:3]
        return self._phase(arm.pinch_position, arm.gripper_yaw, cube, target)

    def _phase(self, pinch: np.ndarray, yaw: float, cube: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float, float]:
        opening = self._arm.gripper_position
        apart = np.linalg.norm((pinch - cube)[:2])
        at_cube = apart < 0.02 and abs(pinch[2] - cube[2]) < 0.02
        least = HELD_LOW if abs(self._arm.gripper_speed) > STILL else ACROSS
        held = bool(at_cube and least < opening < HELD_HIGH and self._closing())
        lowest = pinch[2] < target[2] + 0.001 or np.abs(self._arm.joint_velocities).max() < 0.01
        above = HIGH if lowest else 0.006
        beside = self._beside(opening, held)
        placed = np.linalg.norm((cube - target)[:2]) < beside and -SUNK < cube[2] - target[2] < above
        obstacles = self._arm.scene.obstacles(self._index)
        if placed:
            return self._after_placing(pinch, yaw, target, opening, obstacles)
        if held:
            return self._carry(pinch, yaw, cube, target, obstacles)
        grasp_yaw = roomy(yaw, cube, obstacles, self._turns_left())
        if at_cube and apart < GRASP_XY and abs(pinch[2] - cube[2]) < GRASP_Z:
            self.phase = "grasp"
            return cube, grasp_yaw, 1.0
        if apart < ALIGNED and abs(wrap(grasp_yaw - yaw)) < 0.15:
            self.phase = "descend"
            down = np.array([*cube[:2], max(cube[2], pinch[2] - STEEP)])
            return clear_way(pinch, down, cube, obstacles), grasp_yaw, 0.0
        self.phase = "approach"
        low = pinch[2] < cube[2] + CLEAR and apart > ALIGNED
        above = min(HOVER, pinch[2] - cube[2]) if apart < 0.06 and pinch[2] > cube[2] + CLEAR else HOVER
        position = np.array([*(pinch[:2] if low and apart < 0.1 else cube[:2]), cube[2] + above])
        return clear_way(pinch, position, cube, obstacles), grasp_yaw, 0.0

    def _carry(
        self, pinch: np.ndarray, yaw: float, cube: np.ndarray, target: np.ndarray, obstacles: np.ndarray
    ) -> tuple[np.ndarray, float, float]:
        heading = roomy(yaw, target, obstacles, self._turns_left())
        to_go = target[:2] - cube[:2]
        distance = np.linalg.norm(to_go)
        end = np.array([*(pinch[:2] + to_go), target[2]])
        if distance > PLACED * 0.7 and cube[2] < target[2] + 0.05 and distance > 0.05:
            self.phase = "lift"
            ahead = to_go / distance * min(distance, 0.1) * float(np.clip((cube[2] - target[2] - 0.02) / 0.03, 0.0, 1.0))
            position = np.array([*(pinch[:2] + ahead), target[2] + HOVER])
            return clear_way(pinch, position, end, obstacles, CARRIED), heading, 1.0
        if distance > 0.008 and cube[2] > target[2] + 0.02 and distance > 0.02:
            self.phase = "transfer"
            position = np.array([*end[:2], target[2] + 0.08])
            return clear_way(pinch, position, end, obstacles, CARRIED), heading, 1.0
        self.phase = "lower"
        if self._stacks and target[2] > RAISED and distance > FINE and abs(cube[2] - target[2]) < 2 * HIGH:
            # first straight above, then onto the other cube; more than the way, because servos droop
            end = pinch + np.array([*(1.5 * to_go), target[2] + HIGH - cube[2]])
        return clear_way(pinch, end, end, obstacles, CARRIED), heading, 1.0

    def _after_placing(
        self, pinch: np.ndarray, yaw: float, target: np.ndarray, opening: float, obstacles: np.ndarray
    ) -> tuple[np.ndarray, float, float]:
        near = np.linalg.norm((pinch - target)[:2]) < 0.05
        if near and pinch[2] < target[2] + 0.03 and opening > OPEN:
            self.phase = "release"
            return np.array([*pinch[:2], max(pinch[2], target[2])]), yaw, 0.0
        if near and pinch[2] < target[2] + 0.07:
            self.phase = "retreat"
            return np.array([*pinch[:2], target[2] + HOVER]), yaw, 0.0
        return self._leave(pinch, yaw, obstacles)

    def _beside(self, opening: float, held: bool) -> float:
        """m beside its target at which the cube is well placed. A policy that learnt to let go as soon as that is so would, wrong by a
        pixel, hold on for ever at its edge."""
        if opening < OPEN:
            return self._let_go
        moving = np.abs(self._arm.joint_velocities).max() > SLOW
        return CENTRED if held and moving else PLACED

    def _closing(self) -> bool:
        return bool(self._arm.data.ctrl[self._arm.scene.gripper_actuators[0]] > 127.0)
