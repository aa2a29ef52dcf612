"""The policy's gripper, through each of its interfaces, against servers of the real message types."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from control_msgs.action import GripperCommand, ParallelGripperCommand
from rclpy.action import ActionServer, GoalResponse
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_tools import new_domain, wait_for
from std_msgs.msg import Float64

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.nodes import qos
from act2goal_ros.nodes.gripper import make_gripper

CONFIG = replace(RobotConfig.load("ur5e").gripper, open=0.1, closed=0.9, max_effort=30.0)


class Client(Node):
    """What a gripper needs of a managed node."""

    def __init__(self, context: rclpy.Context) -> None:
        super().__init__("client", context=context)
        self.counted: list[str] = []

    def own(self, entity: Any) -> Any:
        return entity

    def count(self, cause: str) -> None:
        self.counted.append(cause)


@pytest.fixture
def nodes() -> Iterator[SimpleNamespace]:
    """A client and a server node of one domain, spinning."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=new_domain())
    client, server = Client(context), Node("server", context=context)
    executor = SingleThreadedExecutor(context=context)
    for node in (client, server):
        executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield SimpleNamespace(client=client, server=server)
    executor.shutdown(2.0)
    thread.join(2.0)
    for node in (client, server):
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_topic(nodes: SimpleNamespace) -> None:
    heard: list[Float64] = []
    config = replace(CONFIG, interface="topic")
    nodes.server.create_subscription(Float64, config.command_topic, heard.append, qos.COMMAND)
    gripper = make_gripper(nodes.client, config)
    wait_for(lambda: nodes.client.count_subscribers(config.command_topic), what="the listener")

    def told() -> bool:
        gripper.command(0.25, time.monotonic())
        return bool(heard)

    wait_for(told, what="the command")
    assert heard[0].data == 0.25


@pytest.mark.parametrize(
    ("interface", "kind"), [("gripper_command", GripperCommand), ("parallel_gripper_command", ParallelGripperCommand)]
)
def test_actions(nodes: SimpleNamespace, interface: str, kind: Any) -> None:
    config = replace(CONFIG, interface=interface)
    goals: list[Any] = []
    answers = [GoalResponse.REJECT]

    def decide(goal: Any) -> GoalResponse:
        goals.append(goal.command)
        return answers.pop() if answers else GoalResponse.ACCEPT

    def execute(handle: Any) -> Any:
        handle.succeed()
        return kind.Result()

    gripper = make_gripper(nodes.client, config)
    gripper.command(1.0, 5.0)
    assert nodes.client.counted == ["gripper_not_there"], "without a server nothing waits, and it is counted"
    server = ActionServer(nodes.server, kind, config.action, execute_callback=execute, goal_callback=decide)
    now = 10.0

    def settle(fraction: float, count: int) -> None:
        """Commands as the policy does, 50 times a second, until so many goals were sent."""
        nonlocal now

        def sent() -> bool:
            nonlocal now
            now += 0.02
            gripper.command(fraction, now)
            return len(goals) >= count

        wait_for(sent, what=f"{count} goals")

    settle(1.0, 2)  # the first one is refused
    settle(0.5, 3)
    for _ in range(20):
        now += 0.02
        gripper.command(0.51, now)  # within the dead band
    time.sleep(0.2)
    assert nodes.client.counted.count("gripper_refused") == 1
    positions = [goal.position if kind is GripperCommand else list(goal.position)[0] for goal in goals]
    assert positions == pytest.approx([0.9, 0.9, 0.5])
    efforts = [goal.max_effort if kind is GripperCommand else list(goal.effort)[0] for goal in goals]
    assert efforts == [30.0] * 3
    if kind is ParallelGripperCommand:
        assert list(goals[0].name) == [config.joint]
    server.destroy()


def test_an_interface_that_is_not_served_is_named(nodes: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="'joint'.*served are topic, gripper_command, parallel_gripper_command"):
        make_gripper(nodes.client, replace(CONFIG, interface="joint"))
