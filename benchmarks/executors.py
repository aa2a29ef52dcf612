"""rclpy's executors under the policy node's load: a 50 Hz timer, images at 25 Hz, joint states at 125 Hz, controller states at 50 Hz.

The node does what the policy does beside inference: it hands over images and joint states, keeps controller states as bytes, and
unpacks the newest once a tick. Each executor runs in a process of its own, the load comes from another one. Prints CPU share and
how late the timer's ticks are.
"""

import functools
import json
import os
import subprocess
import sys
import time
from typing import Any

import click
import numpy as np
import rclpy
from control_msgs.msg import JointTrajectoryControllerState
from rclpy.clock import Clock, ClockType
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from realtime_tables import EXECUTORS as TABLE
from realtime_tables import executor_line
from results import command, hardware, merge
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from act2goal_ros import graph
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.watchdog import Latest
from act2goal_ros.nodes import images, qos, topics

PERIOD = 0.02  # s
EXECUTORS: dict[str, Any] = {"single-threaded": SingleThreadedExecutor, "multi-threaded": MultiThreadedExecutor, "events": EventsExecutor}
ROBOT = RobotConfig.load("ur5e_sim")
STATE = ROBOT.controller.state_topic
SETTLE = 3.0  # s


def point() -> JointTrajectoryPoint:
    """Six joints."""
    return JointTrajectoryPoint(positions=[0.1] * 6, velocities=[0.2] * 6, accelerations=[0.3] * 6)


class Load(Node):
    """Publishes what the simulated arm does."""

    def __init__(self) -> None:
        super().__init__("load")
        names = list(ROBOT.joint_names)
        image = images.to_message(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
        joints = JointState(name=names, position=[0.1] * 6, velocity=[0.2] * 6)
        state = JointTrajectoryControllerState(joint_names=names, reference=point(), feedback=point(), error=point(), output=point())
        for message, topic, rate in ((image, topics.IMAGE, 25.0), (joints, topics.JOINT_STATES, 125.0), (state, STATE, 50.0)):
            publisher = self.create_publisher(type(message), topic, qos.SENSOR)
            send = functools.partial(publisher.publish, message)
            self.create_timer(1.0 / rate, send, clock=Clock(clock_type=ClockType.STEADY_TIME))


class Subject(Node):
    """Takes it, and ticks."""

    def __init__(self) -> None:
        super().__init__("subject")
        self.ticks: list[float] = []
        self.received = {"images": 0, "joint_states": 0, "controller_states": 0}
        self._frames: Latest[Any] = Latest()
        self._joints: tuple[Any, ...] = ()
        self._state = b""
        self._out = self.create_publisher(JointTrajectory, ROBOT.controller.joint_trajectory_topic, qos.COMMAND)
        self.create_subscription(Image, topics.IMAGE, self._on_image, qos.SENSOR)
        self.create_subscription(JointState, topics.JOINT_STATES, self._on_joints, qos.SENSOR)
        self.create_subscription(JointTrajectoryControllerState, STATE, self._on_state, qos.SENSOR, raw=True)
        self.create_timer(PERIOD, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._command = JointTrajectory(joint_names=list(ROBOT.joint_names), points=[point() for _ in range(10)])

    def _on_image(self, message: Image) -> None:
        self._frames.put(images.to_rgb(message))
        self.received["images"] += 1

    def _on_joints(self, message: JointState) -> None:
        self._joints = message.name, message.position, message.velocity
        self.received["joint_states"] += 1

    def _on_state(self, raw: bytes) -> None:
        self._state = raw
        self.received["controller_states"] += 1

    def _tick(self) -> None:
        self.ticks.append(time.monotonic())
        if self._state:
            deserialize_message(self._state, JointTrajectoryControllerState)
        self._out.publish(self._command)


def lateness(ticks: list[float], period: float = PERIOD) -> np.ndarray:
    """How late each tick came, s, on the grid of the timer; a timer does not catch up what it has missed."""
    due, late = ticks[0], []
    for tick in ticks:
        late.append(tick - due)
        due += period * (1 + max(0, int((tick - due) // period)))
    return np.array(late) - min(late)


def run(role: str, seconds: float) -> None:
    """A process of the benchmark; a subject prints its figures as JSON."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # the load is ended by a signal, at once
    node = Load() if role == "load" else Subject()
    executor = EXECUTORS.get(role, EventsExecutor)()
    executor.add_node(node)

    def spin(duration: float) -> None:
        end = time.monotonic() + duration
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.2)

    if not isinstance(node, Subject):
        spin(seconds)
        return
    spin(SETTLE)
    node.ticks.clear()
    before, used, began = dict(node.received), time.process_time(), time.monotonic()
    spin(seconds)
    elapsed = time.monotonic() - began
    late = 1e3 * lateness(node.ticks)
    row = {
        "executor": role,
        "cpu": (time.process_time() - used) / elapsed,
        "ticks_hz": len(node.ticks) / elapsed,
        "late_ms": {"p50": float(np.percentile(late, 50)), "p99": float(np.percentile(late, 99)), "max": float(late.max())},
        "received_hz": {name: (count - before[name]) / elapsed for name, count in node.received.items()},
    }
    print(json.dumps(row))


@click.command()
@click.option("--seconds", default=30.0, show_default=True, help="For each executor.")
@click.option("--publish", is_flag=True, help="Into docs/results/realtime.json.")
@click.option("--role", hidden=True)
def main(seconds: float, publish: bool, role: str | None) -> None:
    """Compare rclpy's executors."""
    if role:
        run(role, seconds)
        return
    environment = os.environ | graph.environment(graph.Settings.parse({})) | {"ROS_DOMAIN_ID": str(60 + os.getpid() % 40)}
    click.echo(hardware())
    click.echo("\n".join(TABLE))
    program, rows = [sys.executable, __file__, "--role"], []
    for name in EXECUTORS:
        load = subprocess.Popen([*program, "load", "--seconds", str(seconds + SETTLE + 600.0)], env=environment)
        try:
            subject = [*program, name, "--seconds", str(seconds)]
            rows.append(json.loads(subprocess.check_output(subject, env=environment, text=True).splitlines()[-1]))
        finally:
            load.terminate()
            load.wait(10.0)
        click.echo(executor_line(rows[-1]))
    if publish:
        merge("realtime", {"executors": rows} | command("executors"))


if __name__ == "__main__":
    main()
