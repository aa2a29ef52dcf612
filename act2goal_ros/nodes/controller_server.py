"""The face of the simulated joint trajectory controller: a node of its own in the simulated arm's process, as in ros2_control.

<controller>/joint_trajectory (JointTrajectory, in), <controller>/controller_state (JointTrajectoryControllerState, out),
<controller>/follow_joint_trajectory (action). Its parameters are the real controller's, read-only, for senders that ask.
"""

from __future__ import annotations

import functools
from array import array
from typing import Any

import numpy as np
from control_msgs.action import FollowJointTrajectory
from control_msgs.msg import JointTolerance as ToleranceMsg
from control_msgs.msg import JointTrajectoryControllerState
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.time import Time
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from act2goal_ros.control.acceptance import ErrorCode, Rejection, TrajectoryCommand
from act2goal_ros.control.controller import ControllerConfig, GoalOutcome, GoalStatus
from act2goal_ros.control.tolerances import JointTolerance
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.base import ManagedNode
from act2goal_ros.nodes.trajectories import seconds
from act2goal_ros.sim.realtime import LiveArm

ACTION_MONITOR_RATE = 20.0  # Hz, the real controller's default
LOG_PERIOD = 1.0  # s


def stamp(time: float) -> Any:
    """Seconds as a message's stamp."""
    return Time(nanoseconds=round(time * 1e9)).to_msg()


def numbers(values: np.ndarray) -> array[float]:
    """A float64[] field, without the conversion of every element."""
    return array("d", np.ascontiguousarray(values, np.float64).tobytes())


def command_of(message: JointTrajectory) -> TrajectoryCommand:
    """The message as the controller's model takes it."""
    points = message.points
    return TrajectoryCommand(
        joint_names=message.joint_names,
        times=[seconds(point.time_from_start) for point in points],
        positions=[point.positions for point in points],
        velocities=[point.velocities for point in points],
        accelerations=[point.accelerations for point in points],
        stamp=seconds(message.header.stamp),
    )


class ControllerServer(Node):
    """Takes trajectories for the controller of a LiveArm and tells how they went."""

    def __init__(self, owner: ManagedNode[Any], name: str, live: LiveArm) -> None:
        super().__init__(
            name,
            context=owner.context,
            namespace=owner.get_namespace(),
            use_global_arguments=False,
            parameter_overrides=[Parameter("use_sim_time", value=owner.get_parameter("use_sim_time").value)],
            enable_logger_service=False,
        )
        self._owner, self._live, self._controller = owner, live, live.controller
        self._declare(self._controller.config)
        self._pursued: dict[bytes, ServerGoalHandle[Any, Any, Any]] = {}
        self._state = self._state_message()
        self._publisher = self.create_publisher(
            JointTrajectoryControllerState, topics.controller_state(name), qos.COMMAND
        )
        self.create_subscription(JointTrajectory, topics.joint_trajectory(name), self._trajectory, qos.COMMAND)
        self._action: ActionServer[Any, Any, Any] = ActionServer(
            self,
            FollowJointTrajectory,
            topics.follow_joint_trajectory(name),
            lambda _: FollowJointTrajectory.Result(),  # handles are executed with _finish, when their goal has ended
            goal_callback=self._accepts,
            handle_accepted_callback=self._accepted,
            cancel_callback=self._cancel,
        )
        self.create_timer(1.0 / ACTION_MONITOR_RATE, self._monitor, clock=Clock(clock_type=ClockType.STEADY_TIME))
        assert owner.executor is not None
        owner.executor.add_node(self)

    def destroy(self) -> None:
        """Leaves the executor and the graph."""
        if self.executor is not None:
            self.executor.remove_node(self)
        self._action.destroy()
        self.destroy_node()

    def publish_state(self, time: float) -> None:
        """Publishes controller_state; called in the physics thread."""
        with self._live.lock:
            state = self._controller.state
        message = self._state
        message.header.stamp = stamp(time)
        desired = state.desired
        message.reference.positions = numbers(desired.positions)
        message.reference.velocities = numbers(desired.velocities)
        if desired.accelerations is not None:
            message.reference.accelerations = numbers(desired.accelerations)
        message.feedback.positions = numbers(state.positions)
        message.feedback.velocities = numbers(state.velocities)
        message.error.positions = numbers(state.error)
        message.output.positions = numbers(state.output)
        message.speed_scaling_factor = state.speed_scaling
        self._publisher.publish(message)

    # callbacks

    def _trajectory(self, message: JointTrajectory) -> None:
        try:
            self._check_running()
            points = self._controller.check(command_of(message), self._live.time)
        except Rejection as rejection:
            self._reject("trajectory_rejected", rejection)
        else:
            self._live.before_update(functools.partial(self._controller.accept, points, seconds(message.header.stamp)))

    def _accepts(self, goal: Any) -> GoalResponse:
        try:
            self._check_running()
            self._controller.check(command_of(goal.trajectory), self._live.time)
        except Rejection as rejection:
            self._reject("goal_rejected", rejection)
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _accepted(self, handle: ServerGoalHandle[Any, Any, Any]) -> None:
        goal, goal_id = handle.request, bytes(handle.goal_id.uuid)
        try:
            points = self._controller.check(command_of(goal.trajectory), self._live.time)
        except Rejection as rejection:
            self._reject("goal_rejected", rejection)
            refused = GoalOutcome(goal_id, GoalStatus.ABORTED, rejection.code, str(rejection))
            handle.execute(functools.partial(_finish, refused))
        else:
            stamp = seconds(goal.trajectory.header.stamp)
            tolerances = (_tolerances(goal.path_tolerance), _tolerances(goal.goal_tolerance), seconds(goal.goal_time_tolerance))
            self._pursued[goal_id] = handle
            self._live.before_update(functools.partial(self._controller.accept_goal, goal_id, points, stamp, *tolerances))

    def _cancel(self, handle: ServerGoalHandle[Any, Any, Any]) -> CancelResponse:
        self._live.before_update(functools.partial(self._controller.cancel, bytes(handle.goal_id.uuid)))
        return CancelResponse.ACCEPT

    def _monitor(self) -> None:
        """Passes on what the physics thread decided: results, warnings, feedback."""
        with self._live.lock:
            outcomes, warnings = self._controller.take_outcomes(), self._controller.take_warnings()
            active, state = self._controller.active_goal, self._controller.state
        for warning in warnings:
            self.get_logger().warning(warning, throttle_duration_sec=LOG_PERIOD)
        for outcome in outcomes:
            if (handle := self._pursued.pop(outcome.goal_id, None)) is not None:
                handle.execute(functools.partial(_finish, outcome))
        handle = self._pursued.get(active)
        if handle is None or not handle.is_active:
            return
        feedback = FollowJointTrajectory.Feedback(joint_names=list(self._controller.config.joint_names))
        feedback.header.stamp = stamp(self._live.time)
        feedback.index = state.index
        feedback.desired = JointTrajectoryPoint(
            positions=numbers(state.desired.positions), velocities=numbers(state.desired.velocities)
        )
        feedback.actual = JointTrajectoryPoint(
            positions=numbers(state.positions), velocities=numbers(state.velocities)
        )
        feedback.error = JointTrajectoryPoint(positions=numbers(state.error))
        handle.publish_feedback(feedback)

    # private helpers

    def _check_running(self) -> None:
        if not self._live.running:
            raise Rejection(ErrorCode.INVALID_GOAL, "Controller is not running.")

    def _reject(self, cause: str, rejection: Rejection) -> None:
        self._owner.count(cause)
        self.get_logger().error(f"{rejection.code.name}: {rejection}", throttle_duration_sec=LOG_PERIOD)

    def _state_message(self) -> JointTrajectoryControllerState:
        joints = len(self._controller.config.joint_names)
        message = JointTrajectoryControllerState(joint_names=list(self._controller.config.joint_names))
        message.error.velocities = [0.0] * joints  # as the real one with position commands
        return message

    def _declare(self, config: ControllerConfig) -> None:
        values: dict[str, Any] = {
            "joints": list(config.joint_names),
            "command_interfaces": ["position"],
            "state_interfaces": ["position", "velocity"],
            "update_rate": round(1.0 / config.update_period),
            "allow_partial_joints_goal": False,
            "interpolate_from_desired_state": config.interpolate_from_desired_state,
            "allow_nonzero_velocity_at_trajectory_end": config.allow_nonzero_velocity_at_trajectory_end,
            "interpolation_method": "splines",
            "action_monitor_rate": ACTION_MONITOR_RATE,
            "cmd_timeout": config.cmd_timeout,
            "constraints.goal_time": config.goal_time,
            "constraints.decelerate_on_cancel": bool(config.max_deceleration_on_cancel),
        }
        if config.allow_trajectory_replacement:  # unknown to every controller up to Kilted
            values["allow_trajectory_replacement"] = True
        for name, path, goal in zip(config.joint_names, config.path_tolerance, config.goal_tolerance, strict=True):
            values[f"constraints.{name}.trajectory"], values[f"constraints.{name}.goal"] = path, goal
        for name, value in values.items():
            self.declare_parameter(name, value, ParameterDescriptor(read_only=True))


def _finish(outcome: GoalOutcome, handle: ServerGoalHandle[Any, Any, Any]) -> Any:
    ends = {GoalStatus.SUCCEEDED: handle.succeed, GoalStatus.CANCELED: handle.canceled}
    ends.get(outcome.status, handle.abort)()
    return FollowJointTrajectory.Result(error_code=int(outcome.code), error_string=outcome.text)


def _tolerances(messages: list[ToleranceMsg]) -> dict[str, JointTolerance]:
    return {m.name: JointTolerance(m.position, m.velocity, m.acceleration) for m in messages}
