"""Everything the policy node hears: a perfect arm under a joint trajectory controller with the simulated arm's server, a
camera, a planner.

What goes wrong is said on the topic `fault` (std_msgs/String); an empty text ends it. parameter `mode`: of the controller.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from act2goal_msgs.msg import FrameSelection, Goal, Plan, PlanFeatures
from builtin_interfaces.msg import Time as TimeMsg
from control_msgs.msg import JointTrajectoryControllerState
from fake_policy import FRAMES, HASH, sweep
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from act2goal_ros.control.controller import ControllerConfig, JointTrajectoryController
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.controller_server import ControllerServer
from act2goal_ros.nodes.parameters import NodeParameters, param

ROBOT = RobotConfig.load("ur5e_sim")
NAMES = ROBOT.joint_names
PERIOD = 0.008  # s of the controller
VALID = 1.5  # s


@dataclass(frozen=True, kw_only=True)
class WorldParameters(NodeParameters):
    """Parameters of the world."""

    clock: bool = param(False, "", "publish /clock, which the fault clock_back sets back by 5 s")
    mode: str = param("desired_state", "", "of the controller", choices=("splice", "desired_state", "measured_state"))


class Live:
    """What a ControllerServer needs of a LiveArm."""

    def __init__(self, world: World) -> None:
        self._world, self.controller, self.lock, self.running = world, world.controller, threading.Lock(), True

    @property
    def time(self) -> float:
        """The world's."""
        return self._world.now()

    def before_update(self, apply: Callable[[], object]) -> None:
        """At once: this world is never late."""
        with self.lock:
            apply()


class World(ManagedNode[WorldParameters]):
    """The fake world."""

    def __init__(self) -> None:
        super().__init__("world", WorldParameters)

    def setup(self) -> None:
        none = (0.0,) * len(NAMES)
        config = ControllerConfig(joint_names=NAMES, update_period=PERIOD, path_tolerance=none, goal_tolerance=none)
        config = config.in_mode(self.p.mode)
        self.controller = JointTrajectoryController(config)
        self.behind = 0.0
        self.q, self.v = sweep(np.array([time.time() + 1.0]))[0], np.zeros(len(NAMES))
        self.controller.activate(self.now(), self.q)
        self.trouble, self.goal_id, self.ticks, self.plans = "", "", 0, 0
        self.unanswered: list[object] = []
        self.live = Live(self)
        self.server = self.own(ControllerServer(self, ROBOT.controller.name, self.live))
        make = self.create_publisher
        self.joints = self.own(make(JointState, topics.JOINT_STATES, qos.SENSOR))
        self.state = self.own(make(JointTrajectoryControllerState, ROBOT.controller.state_topic, qos.COMMAND))
        self.image = self.own(make(Image, topics.IMAGE, qos.SENSOR))
        self.plan = self.own(make(Plan, topics.PLAN, qos.LATCHED))
        self.features = self.own(make(PlanFeatures, topics.PLAN_FEATURES, qos.LATCHED))
        self.selection = self.own(make(FrameSelection, topics.SELECTION, qos.LATCHED))
        self.own(self.create_subscription(Goal, topics.GOAL, self.on_goal, qos.LATCHED))
        self.own(self.create_subscription(String, "fault", self.on_fault, qos.EVENT))
        self.picture = images.to_message(np.full((32, 32, 3), 100, np.uint8))
        self.clock = self.own(make(Clock, "/clock", qos.SENSOR))
        self.own(self.create_timer(PERIOD, self.tick))

    def now(self) -> float:
        """The world's time, s."""
        return time.time() - self.behind

    def on_goal(self, message: Goal) -> None:
        self.goal_id = message.goal_id if message.state == Goal.ACTIVE else ""

    def on_fault(self, message: String) -> None:
        if self.trouble == "mute":
            self.answer()
        self.trouble = message.data
        if message.data == "clock_back":
            self.behind += 5.0
        if message.data == "mute":
            self.server._action._execute_goal_request = self.put_aside
        if message.data == "gone":
            self.server._pursued.clear()
            self.server._action.destroy()
        self.live.running = message.data != "off"
        self.controller.speed_scaling = {"paused": 0.0, "slowed": 0.5}.get(message.data, 1.0)

    async def put_aside(self, request: object) -> None:
        """Takes a goal and answers nothing."""
        self.unanswered.append(request)

    def answer(self) -> None:
        """Late, but in order."""
        del self.server._action._execute_goal_request
        while self.unanswered:
            self.executor.create_task(self.server._action._execute_goal_request, self.unanswered.pop(0))

    def tick(self) -> None:
        now = self.now()
        if self.p.clock:
            self.clock.publish(Clock(clock=stamp(now)))
        self.ticks += 1
        with self.live.lock:
            q = self.controller.update(now, self.q, self.v)
        if self.trouble == "stuck":  # the arm does not move, whatever it is told
            q = self.q
        self.v, self.q = (q - self.q) / PERIOD, q
        if self.trouble != "no_controller":
            self.publish_state(now)
        if self.trouble != "no_joint_states":
            self.publish_joints(now)
        if self.ticks % 5 == 0 and self.trouble != "no_image":
            self.publish_image(now)
        if self.ticks % 25 == 0 and self.goal_id and self.trouble != "no_plan":
            self.publish_plan(now)

    def publish_state(self, now: float) -> None:
        state = self.controller.state
        message = JointTrajectoryControllerState(joint_names=list(NAMES), speed_scaling_factor=state.speed_scaling)
        message.header.stamp = stamp(now)
        message.reference.positions = state.desired.positions.tolist()
        message.reference.velocities = state.desired.velocities.tolist()
        if state.desired.accelerations is not None:
            message.reference.accelerations = state.desired.accelerations.tolist()
        message.error.positions = [1.5 if self.trouble == "tracking" else 0.0] * len(NAMES)
        self.state.publish(message)

    def publish_joints(self, now: float) -> None:
        names, q, v = [*NAMES, ROBOT.gripper.joint], [*self.q, 0.4], [*self.v, 0.0]
        if self.trouble == "nan_joints":
            q[3] = float("nan")
        if self.trouble == "infinite_joints":
            q[0] = float("inf")
        if self.trouble == "missing_joint":
            names, q, v = names[1:], q[1:], v[1:]
        if self.trouble == "wrong_names":
            names = [f"left_{name}" for name in names]
        if self.trouble == "shuffled":
            order = [6, 3, 0, 5, 1, 4, 2]
            names, q, v = ([values[k] for k in order] for values in (names, q, v))
        message = JointState(name=names, position=q, velocity=v)
        message.header.stamp = stamp(now)
        self.joints.publish(message)

    def publish_image(self, now: float) -> None:
        picture = self.picture
        undecided = 0.05 * (self.ticks // 5 % 2 - 0.5) if self.trouble == "undecided" else 0.0  # s: every other chunk wants to be elsewhere
        picture.data[:8] = array("B", np.float64(now + undecided).tobytes())
        if self.trouble == "wrong_size":
            picture = images.to_message(np.zeros((24, 32, 3), np.uint8))
        if self.trouble == "truncated_image":
            picture = images.to_message(np.zeros((32, 32, 3), np.uint8))
            picture.data = array("B", bytes(100))
        if self.trouble == "wrong_encoding":
            picture = images.to_message(np.zeros((32, 32, 3), np.uint8))
            picture.encoding = "yuv422"
        picture.header.stamp = stamp(now)
        self.image.publish(picture)

    def publish_plan(self, now: float) -> None:
        self.plans += 1
        plan_id = f"p{self.plans}"
        offsets = 0.4 * np.arange(1, FRAMES + 1)
        header = Plan().header
        header.stamp = stamp(now)
        features = np.zeros((1, FRAMES, 4, 4), np.float32)
        self.plan.publish(Plan(header=header, plan_id=plan_id, goal_id=self.goal_id, model_hash=HASH,
                               frame_offsets=offsets.tolist(), dense_frames=3))  # fmt: skip
        message = PlanFeatures(header=header, plan_id=plan_id, model_hash=HASH, shape=list(features.shape))
        message.data = array("f", features.tobytes())
        self.features.publish(message)
        if self.trouble != "no_selection":
            indices = [0, 1, FRAMES - 1]
            self.selection.publish(FrameSelection(
                header=header, plan_id=plan_id, goal_id=self.goal_id, frame_indices=indices,
                frame_times=[stamp(now + offsets[k]) for k in indices], proximal=[True, True, False],
                valid_until=stamp(now + VALID)))  # fmt: skip


def stamp(time_s: float) -> TimeMsg:
    """A time as a message."""
    return Time(nanoseconds=round(1e9 * time_s)).to_msg()


if __name__ == "__main__":
    run(World)
