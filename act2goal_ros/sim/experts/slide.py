"""An expert that pushes or pulls a drawer or a window by its handle."""

import numpy as np

from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.experts.base import ObjectExpert
from act2goal_ros.sim.experts.motion import clear_way, turn_to
from act2goal_ros.sim.furniture import WAYS, FurnitureScene

# rad, see turn_to: the fingers stand on both sides of the handle along its way, and the wrist is hardly turned from one to the other
HEADINGS = {"drawer": 0.0, "window": np.pi / 2}
TURN = 2.0  # rad that the gripper is sent on at a time: beyond half a turn the other way would be nearer
HOVER = 0.06  # m above the handle
ALIGNED, TURNED = 0.018, 0.1  # m along its way and rad, how well the open gripper must stand above the handle before it descends
BESIDE, PLAY = 0.03, 0.06  # m that the pinch point may be off the handle, across its way (it is 10 cm wide) and along it
THERE = 0.008  # m
AHEAD, BEYOND = 0.08, 0.015  # m: how far ahead the gripper is sent, and beyond the end, because fingers have play
AWAY = 0.03  # m above the handle


class SlideExpert(ObjectExpert):
    """Takes the handle between its open fingers, moves it until the slide is at `position` (m), and goes up."""

    def __init__(self, arm: SimulatedArm, scene: FurnitureScene, final_position: np.ndarray, name: str, position: float) -> None:
        super().__init__(arm, final_position)
        self._scene, self._name, self._position = scene, name, position

    @property
    def handled(self) -> np.ndarray:
        """The handle."""
        return self._scene.handle(self._name)

    @property
    def destination(self) -> np.ndarray:
        """Where the handle is to be."""
        return self._scene.handle_at(self._name, self._position)

    def _next_pose(self) -> tuple[np.ndarray, float, float]:
        pinch, yaw, way = self._arm.pinch_position, self._arm.gripper_yaw, WAYS[self._name]
        handle = self.handled + self.object_error[:3]
        to_go = self._position - self._scene.slide(self._name) + float(way @ self.target_error[:3])
        turn = turn_to(HEADINGS[self._name], yaw, self._arm.joint_positions)
        heading = yaw + float(np.clip(turn, -TURN, TURN))
        off = pinch - handle
        along = float(way @ off)
        across = float(np.linalg.norm(off[:2] - along * way[:2]))
        beside = across < 0.04 and abs(along) < PLAY
        if abs(to_go) < THERE:
            return self._after_sliding(pinch, yaw, handle, beside and off[2] < AWAY)
        if across < BESIDE and abs(along) < PLAY and abs(off[2]) < 0.015:
            self.phase = "push"
            ahead = float(np.clip(to_go + np.sign(to_go) * BEYOND, -AHEAD, AHEAD))
            return pinch + ahead * way - (off - along * way), heading, 0.0
        if across < BESIDE and abs(along) < ALIGNED and abs(turn) < TURNED:
            self.phase = "descend"
            return clear_way(pinch, handle, handle, self._scene.obstacles()), heading, 0.0
        self.phase = "approach"
        above = handle + np.array([0.0, 0.0, HOVER])
        position = np.array([*pinch[:2], above[2]]) if beside and off[2] < HOVER - 0.01 else above
        return clear_way(pinch, position, above, self._scene.obstacles()), heading, 0.0

    def _after_sliding(self, pinch: np.ndarray, yaw: float, handle: np.ndarray, near: bool) -> tuple[np.ndarray, float, float]:
        if near:
            self.phase = "retreat"
            return np.array([*pinch[:2], handle[2] + 3 * AWAY]), yaw, 0.0
        return self._leave(pinch, yaw, self._scene.obstacles())
