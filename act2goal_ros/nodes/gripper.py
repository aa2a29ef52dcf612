"""Commands a gripper through whichever interface the robot's file names: a topic, or one of two actions."""

from __future__ import annotations

from typing import Any, Protocol

from rclpy.action import ActionClient
from std_msgs.msg import Float64

from act2goal_ros.control.robot import GripperConfig
from act2goal_ros.nodes import qos
from act2goal_ros.nodes.base import ManagedNode

DEAD_BAND = 0.02  # of 0..1; an action goal is sent only for a larger change
PERIOD = 0.1  # s between action goals, at least


class Gripper(Protocol):
    """Takes commands, 0 open .. 1 closed, at any rate."""

    def command(self, fraction: float, now: float) -> None: ...


def make_gripper(node: ManagedNode[Any], config: GripperConfig) -> Gripper:
    """The gripper of a robot; publishers and clients belong to the node. Raises ValueError for what is not served."""
    if config.interface == "topic":
        return _Topic(node, config)
    if config.interface in ("gripper_command", "parallel_gripper_command"):
        return _Action(node, config)
    raise ValueError(f"gripper.interface is {config.interface!r}; served are topic, gripper_command, parallel_gripper_command")


class _Topic:
    def __init__(self, node: ManagedNode[Any], config: GripperConfig) -> None:
        self._publisher = node.own(node.create_publisher(Float64, config.command_topic, qos.COMMAND))

    def command(self, fraction: float, now: float) -> None:
        self._publisher.publish(Float64(data=fraction))


class _Action:
    """Sends a goal whenever the command has changed; a newer goal preempts."""

    def __init__(self, node: ManagedNode[Any], config: GripperConfig) -> None:
        self._node, self._config = node, config
        if config.interface == "gripper_command":
            from control_msgs.action import GripperCommand as Kind
        else:
            from control_msgs.action import ParallelGripperCommand as Kind
        self._kind: Any = Kind
        self._client = node.own(ActionClient(node, Kind, config.action))
        self._sent: float | None = None
        self._sent_at = 0.0

    def command(self, fraction: float, now: float) -> None:
        same = self._sent is not None and abs(fraction - self._sent) < DEAD_BAND
        if same or 0 <= now - self._sent_at < PERIOD:
            return
        if not self._client.server_is_ready():
            self._node.count("gripper_not_there")
            return
        self._sent, self._sent_at = fraction, now
        self._client.send_goal_async(self._goal(self._config.to_joint(fraction))).add_done_callback(self._answered)

    def _answered(self, future: Any) -> None:
        """A goal that was refused is sent again."""
        if future.cancelled() or future.exception() or not future.result().accepted:
            self._node.count("gripper_refused")
            self._sent = None

    def _goal(self, position: float) -> Any:
        goal = self._kind.Goal()
        if self._config.interface == "gripper_command":
            goal.command.position, goal.command.max_effort = position, self._config.max_effort
        else:
            goal.command.name, goal.command.position = [self._config.joint], [position]
            goal.command.effort = [self._config.max_effort]
        return goal
