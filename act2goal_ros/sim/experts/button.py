"""An expert that presses a button."""

import numpy as np

from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.experts.base import ObjectExpert
from act2goal_ros.sim.experts.motion import clear_way
from act2goal_ros.sim.furniture import FurnitureScene

HOVER = 0.05  # m above the button's top
ALIGNED = 0.01  # m, how well the gripper must stand above the button
CLOSED = 0.6  # gripper position with which it may be pressed
DEPTH = 0.024  # m below the button's top; its travel
AWAY = 0.04  # m above the button's top


class ButtonExpert(ObjectExpert):
    """Presses button `index` with the closed gripper until its state is `state`, and goes up."""

    def __init__(self, arm: SimulatedArm, scene: FurnitureScene, final_position: np.ndarray, index: int, state: int) -> None:
        super().__init__(arm, final_position)
        self._scene, self._index, self._state = scene, index, state

    @property
    def handled(self) -> np.ndarray:
        """The button's top, unpressed."""
        return self._scene.button_top(self._index)

    @property
    def destination(self) -> np.ndarray:
        """The button's top, pressed if it is to be."""
        wanted = self._scene.button_states[self._index] != self._state
        return self.handled - np.array([0.0, 0.0, DEPTH * wanted])

    def _next_pose(self) -> tuple[np.ndarray, float, float]:
        pinch, yaw = self._arm.pinch_position, self._arm.gripper_yaw
        top = self.handled + self.object_error[:3]
        beside = float(np.linalg.norm((pinch - top)[:2]))
        if self._scene.button_states[self._index] == self._state:
            return self._after_pressing(pinch, yaw, top, beside)
        if beside < ALIGNED and self._arm.gripper_position > CLOSED:
            self.phase = "descend"
            return np.array([*top[:2], top[2] - DEPTH]), yaw, 1.0
        self.phase = "approach"
        above = top + np.array([0.0, 0.0, HOVER])
        return clear_way(pinch, above, above, self._scene.obstacles()), yaw, 1.0

    def _after_pressing(self, pinch: np.ndarray, yaw: float, top: np.ndarray, beside: float) -> tuple[np.ndarray, float, float]:
        if beside < AWAY and pinch[2] < top[2] + AWAY:
            self.phase = "retreat"
            return np.array([*pinch[:2], top[2] + 2 * AWAY]), yaw, 1.0
        return self._leave(pinch, yaw, self._scene.obstacles())
