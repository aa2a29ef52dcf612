"""What the scripted expert would do from the present state on, in a simulation that then goes on as if nothing had been."""

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.experts.motion import STEP, ExpertLimits, SetPoints
from act2goal_ros.sim.experts.sequence import SequenceExpert

STILL = 0.03  # rad, how near all joints stay to where they end once the arm has arrived, as in training data
LONGEST = 1.3  # times the episode limit, as in training data


@dataclass(frozen=True)
class Future:
    """Pictures (N, H, W, 3) uint8 of the steps that were asked for, and the step of arrival."""

    pictures: np.ndarray
    arrival: int


def expert_future(arm: SimulatedArm, choose: Callable[[int], np.ndarray]) -> Future | None:
    """The expert's future at steps of 0.05 s that `choose` names once the arrival is known; None if it fails.

    It ends with the arm where the goal picture has it. The arm is left exactly as it was.
    """
    start = arm.snapshot()
    try:
        expert = SequenceExpert(arm, _final_position(arm))
        setpoints = SetPoints(arm.joint_positions, ExpertLimits(), arm.joint_velocities)
        course, joints = [start], [arm.joint_positions]
        while not expert.done and len(course) * STEP < LONGEST * arm.episode_limit:
            target, gripper = expert.act()
            for point in setpoints.advance(target):
                arm.step(point, gripper)
            course.append(arm.snapshot())
            joints.append(arm.joint_positions)
        if not (expert.done and arm.success()):
            return None
        away = np.flatnonzero(np.abs(np.array(joints) - joints[-1]).max(1) > STILL)
        arrival = int(away[-1]) + 1 if len(away) else 0
        pictures = []
        for step in choose(arrival).astype(int):
            arm.restore(course[min(step, len(course) - 1)])
            pictures.append(arm.render())
        return Future(np.stack(pictures), arrival)
    finally:
        arm.restore(start)


def _final_position(arm: SimulatedArm) -> np.ndarray:
    """(3,) m, of the pinch point in the goal picture."""
    before = arm.snapshot()
    arm.data.qpos[:] = arm.scene.goal_qpos
    mujoco.mj_kinematics(arm.model, arm.data)
    position = arm.pinch_position
    arm.restore(before)
    return position
