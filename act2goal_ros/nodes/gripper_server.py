"""The face of the simulated gripper controller, on the simulated arm's node.

<gripper>/command (std_msgs/Float64, 0 open .. 1 closed, in), <gripper>/gripper_cmd (control_msgs/GripperCommand action, rad).
"""

from __future__ import annotations

import functools
from typing import Any

from control_msgs.action import GripperCommand
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Float64

from act2goal_ros.control.gripper import GripperOutcome
from act2goal_ros.control.robot import GripperConfig
from act2goal_ros.nodes import qos
from act2goal_ros.nodes.base import ManagedNode
from act2goal_ros.sim.realtime import LiveArm

MONITOR_RATE = 20.0  # Hz


class GripperServer:
    """Takes commands for the gripper of a LiveArm and tells how they went."""

    def __init__(self, node: ManagedNode[Any], config: GripperConfig, live: LiveArm) -> None:
        self._node, self._live, self._gripper = node, live, live.gripper
        self._pursued: dict[bytes, ServerGoalHandle[Any, Any, Any]] = {}
        self._subscription = node.create_subscription(Float64, config.command_topic, self._command, qos.COMMAND)
        self._action: ActionServer[Any, Any, Any] = ActionServer(
            node,
            GripperCommand,
            config.action,
            lambda _: GripperCommand.Result(),  # handles are executed with _finish, when their goal has ended
            goal_callback=self._accepts,
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
        )
        self._timer = node.create_timer(
            1.0 / MONITOR_RATE, self._monitor, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def destroy(self) -> None:
        """Leaves the graph."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        self._action.destroy()

    # callbacks

    def _command(self, message: Float64) -> None:
        try:
            self._gripper.command(message.data)
        except ValueError as error:
            self._reject(error)

    def _accepts(self, goal: Any) -> GoalResponse:
        try:
            self._gripper.check(goal.command.position)
        except ValueError as error:
            self._reject(error)
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accepted(self, handle: ServerGoalHandle[Any, Any, Any]) -> None:
        goal_id = bytes(handle.goal_id.uuid)
        self._pursued[goal_id] = handle
        with self._live.lock:
            measured = self._live.measured.gripper
            self._gripper.submit_goal(goal_id, handle.request.command.position, self._live.time, measured)

    def _cancel(self, handle: ServerGoalHandle[Any, Any, Any]) -> CancelResponse:
        with self._live.lock:
            self._gripper.cancel(bytes(handle.goal_id.uuid), self._live.measured.gripper)
        return CancelResponse.ACCEPT

    def _monitor(self) -> None:
        with self._live.lock:
            outcomes, active = self._gripper.take_outcomes(), self._gripper.active_goal
            position = self._live.measured.gripper
        for outcome in outcomes:
            if (handle := self._pursued.pop(outcome.goal_id, None)) is not None:
                handle.execute(functools.partial(_finish, outcome))
        if (handle := self._pursued.get(active)) is not None and handle.is_active:
            handle.publish_feedback(GripperCommand.Feedback(position=position))

    # private helpers

    def _reject(self, error: ValueError) -> None:
        self._node.count("gripper_rejected")
        self._node.get_logger().error(str(error), throttle_duration_sec=1.0)


def _finish(outcome: GripperOutcome, handle: ServerGoalHandle[Any, Any, Any]) -> Any:
    (handle.canceled if handle.is_cancel_requested else handle.abort if outcome.canceled else handle.succeed)()
    return GripperCommand.Result(position=outcome.position, stalled=outcome.stalled, reached_goal=outcome.reached)
