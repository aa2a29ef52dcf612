"""A managed node that does nothing, under the name given by `-r __node:=…`; or follows trajectories like a controller.

usage: managed.py [plain | collector | controller | failing | mover] --ros-args …
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from act2goal_msgs.msg import NodeStatus, Stop
from control_msgs.msg import JointTrajectoryControllerState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.nodes import qos, topics, trajectories
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.parameters import NodeParameters, param

ROBOT = RobotConfig.load("ur5e_sim")


@dataclass(frozen=True, kw_only=True)
class PlainParameters(NodeParameters):
    """Parameters of the plain node."""

    gain: float = param(1.0, "rad/s", "speed of the motion", low=0.0, high=3.0, runtime=True)
    mode: str = param("slow", "", "what to do", choices=("slow", "fast"))
    names: tuple[str, ...] = param((), "", "some names")


class Plain(ManagedNode[PlainParameters]):
    """Nothing but a heartbeat."""

    def __init__(self) -> None:
        super().__init__("plain", PlainParameters)


class Collector(Plain):
    """Says in its heartbeat whether reference cycles are collected."""

    def setup(self) -> None:
        self.own(self.create_timer(0.05, lambda: self.report(NodeStatus.OK, "works", collects=gc.isenabled())))


class Failing(Plain):
    """Cannot be configured until `mode` is fast."""

    def setup(self) -> None:
        if self.p.mode == "slow":
            raise FileNotFoundError("no model here")


class Controller(Plain):
    """Publishes controller_state at 100 Hz, the reference being what the newest trajectory says; of a rail, too."""

    def setup(self) -> None:
        names = ROBOT.joint_names
        start = np.zeros((1, len(names)))
        self.current = [Trajectory(0.0, np.zeros(1), start, start, start)]
        controller = ROBOT.controller
        self.state = self.own(self.create_publisher(JointTrajectoryControllerState, controller.state_topic, qos.SENSOR))
        topic = controller.joint_trajectory_topic
        self.own(self.create_subscription(JointTrajectory, topic, self.trajectory, qos.COMMAND))
        self.own(self.create_timer(0.01, self.tick))

    def trajectory(self, message: JointTrajectory) -> None:
        """Joins the trajectory to what is followed."""
        new = trajectories.from_message(message, ROBOT.joint_names, self.now())
        assert new is not None
        self.current = [old for old in self.current[-3:] if old.start < new.start] + [new]

    def tick(self) -> None:
        """Publishes the reference."""
        now = self.now()
        q, v, a = [old for old in self.current if old.start <= now][-1].sample(now)
        message = JointTrajectoryControllerState(joint_names=["rail", *ROBOT.joint_names], speed_scaling_factor=1.0)
        message.header.stamp = self.get_clock().now().to_msg()
        point = JointTrajectoryPoint(positions=[9.0, *q], velocities=[0.0, *v], accelerations=[0.0, *a])
        message.reference = message.feedback = point  # and no error, which is their difference
        self.state.publish(message)


class Mover(Plain):
    """Sends one long trajectory at constant speed `gain` as soon as the arm may move, and never brakes."""

    def setup(self) -> None:
        self.sent, self.may_move = 0, False
        topic = ROBOT.controller.joint_trajectory_topic
        self.out = self.own(self.create_publisher(JointTrajectory, topic, qos.COMMAND))
        self.own(self.create_subscription(Stop, topics.STOP, self.stop, qos.LATCHED))
        self.own(self.create_timer(0.05, self.move))

    def stop(self, stop: Stop) -> None:
        """Takes the supervisor's word."""
        self.may_move = not stop.active

    def move(self) -> None:
        """Publishes it several times over, so that who has just been discovered hears it too."""
        if self.sent > 7 or not self.may_move or self.out.get_subscription_count() < 3:
            return
        if self.sent == 0:
            self.way = self.make_way()
        self.sent += 1
        self.out.publish(trajectories.to_message(self.way, ROBOT.joint_names))

    def make_way(self) -> Trajectory:
        """Half a second to full speed, then on and on."""
        times = np.array([0.0, 0.5, 20.0, 20.5])
        speed = self.p.gain * np.ones((1, len(ROBOT.joint_names)))
        q = np.concatenate([0 * speed, 0.25 * speed, 19.75 * speed, 20 * speed])
        v = np.concatenate([0 * speed, speed, speed, 0 * speed])
        return Trajectory(self.now() + 0.05, times, q, v, 0 * v)


KINDS: dict[str, Callable[[], Plain]] = {
    "plain": Plain,
    "collector": Collector,
    "controller": Controller,
    "failing": Failing,
    "mover": Mover,
}

if __name__ == "__main__":
    run(KINDS[sys.argv[1]])
