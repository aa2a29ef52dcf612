"""The simulated arm as LeRobot's client meets it: a device of its own, as hardware is, whose servos hold position targets.

Run by this project's environment, so that physics and rendering are the graph's own: the same LiveArm with the same rates.
Reads `reset TASK SEED GOAL_FILE` from stdin, writes the goal picture to GOAL_FILE and answers with a line; ends with stdin.
"""

import math
import sys
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from slots import JOINTS, PICTURE, Slots

from act2goal_ros import scheduling
from act2goal_ros.control.gripper import GripperController
from act2goal_ros.sim.realtime import Joints, LiveArm, Picture, Scene
from act2goal_ros.sim.trace import Trace

NICENESS = -10  # as in config/simulated_arm.yaml
GRIPPER = (0.0, 0.8)  # rad, open and closed


class PositionTargets:
    """In the place of a joint trajectory controller: the newest command is what the servos get, until the next."""

    speed_scaling = 1.0

    def __init__(self, slots: Slots, gripper: GripperController) -> None:
        self._slots, self._gripper = slots, gripper
        self._target, self._seen = np.zeros(JOINTS), 0

    def activate(self, now: float, positions: NDArray[np.float64]) -> None:
        """Holds `positions` (J,) until a new command."""
        self._target, self._seen = np.array(positions), self._slots.command.sequence

    def update(self, now: float, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> NDArray[np.float64]:
        """The target (J,) of the next physics step."""
        sequence = self._slots.command.sequence
        if sequence != self._seen:
            command, self._seen = self._slots.command.read(), sequence
            self._target = np.array(command[:JOINTS], np.float64)
            self._gripper.command(float(np.clip(command[JOINTS], 0.0, 1.0)))
        return self._target


class Device:
    """Passes on what LiveArm tells."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._success = math.nan

    def clock(self, time: float) -> None:
        """Not stepped."""

    def joints(self, joints: Joints) -> None:
        """125 times a second."""
        gripper = joints.gripper / (GRIPPER[1] - GRIPPER[0])
        self._slots.state.write(joints.time, joints.positions, joints.velocities, gripper, self._success)

    def controller(self, time: float) -> None:
        """No trajectory controller."""

    def scene(self, scene: Scene) -> None:
        """Remembers when OGBench's criterion first held."""
        if not scene.success_once:
            self._success = math.nan
        elif math.isnan(self._success):
            self._success = scene.time

    def image(self, time: float, picture: Picture) -> None:
        """25 times a second."""
        self._slots.show(time, picture)

    def failed(self, error: Exception) -> None:
        """Told on the next reset's line."""
        print(f"failed: {type(error).__name__}: {error}", flush=True)


def main() -> None:
    """Serves until stdin ends."""
    from act2goal_ros.sim.arm import SimulatedArm

    scheduling.renice(NICENESS)
    slots = Slots(Path(sys.argv[1]))
    gripper = GripperController(*GRIPPER)
    targets = cast(Any, PositionTargets(slots, gripper))

    def build() -> SimulatedArm:
        arm = SimulatedArm(image_size=PICTURE[0])
        arm.reset("cube-single-1", 0)
        return arm

    live = LiveArm(build, targets, gripper, Device(slots), niceness=NICENESS, trace=Trace(Path(sys.argv[2])))
    live.start()
    print("ready", flush=True)
    for line in sys.stdin:
        _, task, seed, file = line.split(maxsplit=3)
        goal = live.reset(task, int(seed)).result()
        cv2.imwrite(file.strip(), cv2.cvtColor(goal, cv2.COLOR_RGB2BGR))
        print(f"reset {task} {seed}", flush=True)
    live.close()


if __name__ == "__main__":
    main()
