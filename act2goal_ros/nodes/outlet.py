"""How commands reach the joint trajectory controller: on its topic, or as goals of its FollowJointTrajectory action.

TopicOutlet publishes <controller>/joint_trajectory and hears nothing back.
ActionOutlet sends each command as a goal to <controller>/follow_joint_trajectory and takes every result; what it sends it also
publishes on `commanded/joint_trajectory`, for those who watch. While nobody answers, it brakes on the controller's topic.
No goal is ever canceled: a controller may stop abruptly then. Every goal ends at rest by itself.
"""

from __future__ import annotations

import functools
import itertools
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from action_msgs.msg import GoalStatus as Status
from builtin_interfaces.msg import Duration
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance
from trajectory_msgs.msg import JointTrajectory
from unique_identifier_msgs.msg import UUID

from act2goal_ros.control.controller import GoalStatus
from act2goal_ros.control.goals_in_flight import GoalsInFlight
from act2goal_ros.control.inputs import NO_CAUSE, Cause
from act2goal_ros.control.robot import ControllerConfig, RobotConfig
from act2goal_ros.control.stop import StopReason
from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.nodes import qos, topics, trajectories
from act2goal_ros.nodes.base import ManagedNode

INTERFACES = ("topic", "action")
LOG_PERIOD = 1.0  # s
ENDS = {Status.STATUS_SUCCEEDED: GoalStatus.SUCCEEDED, Status.STATUS_CANCELED: GoalStatus.CANCELED}
Failed = Callable[[StopReason, str, bool], None]


class Outlet(Protocol):
    """Sends commands, each of which ends at rest. Hand it to own()."""

    def send(self, trajectory: Trajectory, stops: bool) -> None:
        """A trajectory on the node's clock, at once. stops: it does nothing but brake or hold."""

    def cause(self) -> Cause:
        """Why the arm must not move, as far as the way to the controller is concerned."""

    def forget(self) -> None:
        """The node is no longer active: what becomes of the commands so far is of no interest."""

    def values(self) -> Mapping[str, str]:
        """For the heartbeat."""

    def destroy(self) -> None: ...


def make_outlet(node: ManagedNode[Any], robot: RobotConfig, interface: str, timeout: float, on_failed: Failed) -> Outlet:
    """The outlet of an interface in INTERFACES; see ActionOutlet for the rest."""
    return ActionOutlet(node, robot, timeout, on_failed) if interface == "action" else TopicOutlet(node, robot)


class TopicOutlet:
    """Fire and forget."""

    def __init__(self, node: ManagedNode[Any], robot: RobotConfig) -> None:
        self._node, self._names = node, robot.joint_names
        self._publisher = node.create_publisher(JointTrajectory, robot.controller.joint_trajectory_topic, qos.COMMAND)

    def send(self, trajectory: Trajectory, stops: bool) -> None:
        """Publishes it."""
        self._publisher.publish(trajectories.to_message(trajectory, self._names))

    def cause(self) -> Cause:
        """Nothing is known."""
        return NO_CAUSE

    def forget(self) -> None:
        """There is nothing to forget."""

    def values(self) -> Mapping[str, str]:
        """None."""
        return {}

    def destroy(self) -> None:
        """Leaves the graph."""
        self._node.destroy_publisher(self._publisher)


class ActionOutlet:
    """A goal a command; a newer one preempts. timeout: s in which the server has to answer a goal.

    on_failed(reason, detail, halted) is called in the executor's thread when a goal fails; halted: the controller has stopped
    by itself. The action's two services are called directly: rclpy's ActionClient also unpacks the status of every goal the
    server remembers (hundreds) whenever one changes, and keeps a future of each goal for ever.
    """

    def __init__(self, node: ManagedNode[Any], robot: RobotConfig, timeout: float, on_failed: Failed) -> None:
        self._node, self._names, self._on_failed = node, robot.joint_names, on_failed
        self._topic = TopicOutlet(node, robot)
        self._commanded = node.create_publisher(JointTrajectory, topics.COMMANDED, qos.COMMAND)
        self._action, self._kind = robot.controller.action, FollowJointTrajectory.Impl
        self._sender: Any = node.create_client(self._kind.SendGoalService, f"{self._action}/_action/send_goal")
        self._results: Any = node.create_client(self._kind.GetResultService, f"{self._action}/_action/get_result")
        self._tolerances = tolerances(robot.controller, self._names)
        self._goals = GoalsInFlight(self._action, timeout)
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[Any, Any]] = {}  # client and future by goal

    def send(self, trajectory: Trajectory, stops: bool) -> None:
        """Sends a goal; a stop also goes to the topic where no answer can be expected."""
        if self.cause()[0]:
            self._topic.send(trajectory, stops)
        if not self._sender.service_is_ready():
            return
        number, message = next(self._numbers), trajectories.to_message(trajectory, self._names)
        request = self._kind.SendGoalService.Request(goal_id=UUID(uuid=np.frombuffer(uuid.uuid4().bytes, np.uint8)))
        request.goal = FollowJointTrajectory.Goal(trajectory=message, **self._tolerances)
        self._goals.sent(number, trajectory.end, time.monotonic(), stops)
        self._prune()
        self._call(number, self._sender, request, functools.partial(self._answered, number, request.goal_id))
        self._commanded.publish(message)

    def cause(self) -> Cause:
        """Nobody there, or no answer in time."""
        if self._sender.service_is_ready():
            return self._goals.silence(time.monotonic())
        self.forget()
        return StopReason.CONTROLLER_LOST, f"nobody offers the action {self._action}"

    def forget(self) -> None:
        """What still comes of the goals so far is ignored."""
        self._goals.forget()
        self._prune()

    def values(self) -> Mapping[str, str]:
        """How many goals there were and what became of them."""
        return {f"goals.{what}": str(number) for what, number in sorted(self._goals.counts.items())}

    def destroy(self) -> None:
        """Leaves the graph; the goal in force ends at rest by itself."""
        self.forget()
        self._topic.destroy()
        self._node.destroy_publisher(self._commanded)
        self._node.destroy_client(self._sender)
        self._node.destroy_client(self._results)

    # callbacks

    def _answered(self, number: int, goal_id: UUID, future: Any) -> None:
        if future.cancelled() or future.exception() or number not in self._goals:
            return
        cause = self._goals.answered(number, future.result().accepted)
        self._prune()
        if number in self._goals:
            request = self._kind.GetResultService.Request(goal_id=goal_id)
            self._call(number, self._results, request, functools.partial(self._ended, number))
        self._tell(cause, halted=False)

    def _ended(self, number: int, future: Any) -> None:
        if future.cancelled() or future.exception():
            return
        response = future.result()
        status, result = ENDS.get(response.status, GoalStatus.ABORTED), response.result
        cause = self._goals.ended(number, status, result.error_code, result.error_string, self._node.now())
        self._waiting.pop(number, None)
        self._tell(cause, halted=status != GoalStatus.SUCCEEDED)

    # private helpers

    def _call(self, number: int, client: Any, request: Any, callback: Callable[[Any], None]) -> None:
        future = client.call_async(request)
        self._waiting[number] = (client, future)
        future.add_done_callback(callback)

    def _prune(self) -> None:
        """Waits no longer for what nobody wants to know."""
        for number in [number for number in self._waiting if number not in self._goals]:
            client, future = self._waiting.pop(number)
            client.remove_pending_request(future)

    def _tell(self, cause: Cause, halted: bool) -> None:
        if cause[0]:
            self._node.count("goal_failed")
            self._node.get_logger().warning(f"{cause[0].name}: {cause[1]}", throttle_duration_sec=LOG_PERIOD)
            self._on_failed(*cause, halted)


def tolerances(controller: ControllerConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a goal that say what the robot's file does; 0 leaves the controller's defaults in force."""

    def each(position: float) -> list[JointTolerance]:
        return [JointTolerance(name=name, position=position) for name in names] if position else []

    nanoseconds = round(controller.goal_time_tolerance * 1e9)
    return {
        "path_tolerance": each(controller.path_tolerance),
        "goal_tolerance": each(controller.goal_tolerance),
        "goal_time_tolerance": Duration(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9),
    }
