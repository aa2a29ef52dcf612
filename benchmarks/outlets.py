"""What it costs to command a controller: by its topic, by its action as the policy does, and by rclpy's ActionClient.

A controller as the simulated arm's runs in one process, a sender in another; the same trajectories (26 points, six joints) go out at
each rate. Prints the CPU share of both processes and how long the server took to accept a goal, after the 12 s in which it
comes to remember all the goals it ever will (rclpy and rcl keep ended goals for 10 s; for 15 min on Humble).
"""

import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import psutil
import rclpy
from control_msgs.action import FollowJointTrajectory
from rclpy.action import ActionClient
from rclpy.clock import Clock, ClockType
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from results import hardware

from act2goal_ros import graph
from act2goal_ros.control.controller import ControllerConfig, JointTrajectoryController
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.nodes import trajectories
from act2goal_ros.nodes.controller_server import ControllerServer
from act2goal_ros.nodes.outlet import ActionOutlet, TopicOutlet

ROBOT = RobotConfig.load("ur5e_sim")
JOINTS = len(ROBOT.joint_names)
CASES = (("topic", 50.0), ("action", 50.0), ("action", 25.0), ("action", 10.0), ("ActionClient", 50.0), ("ActionClient", 25.0))
PERIOD = 0.008  # s of the controller
DISCOVERY, SETTLE = 3.0, 12.0  # s


class Bare(Node):
    """What outlets and servers need of a managed node."""

    def now(self) -> float:
        """Seconds."""
        return float(self.get_clock().now().nanoseconds) * 1e-9

    def count(self, cause: str) -> None:
        """Nothing is counted here."""


def motion(node: Bare) -> Trajectory:
    """0.5 s of a sine, ending at rest."""
    times, start = 0.02 * np.arange(26), node.now()
    q, v = 0.3 * np.sin(start % 1000.0 + times), 0.3 * np.cos(start % 1000.0 + times)
    v[-1] = 0.0
    return Trajectory(start, times, *(np.repeat(column[:, None], JOINTS, axis=1) for column in (q, v, -q)))


def serve(node: Bare, executor: EventsExecutor) -> None:
    """A perfect arm under a controller, for ever."""
    tolerances = (0.0,) * JOINTS
    config = ControllerConfig(joint_names=ROBOT.joint_names, update_period=PERIOD, path_tolerance=tolerances, goal_tolerance=tolerances)
    controller = JointTrajectoryController(config.in_mode("desired_state"))
    controller.activate(node.now(), np.zeros(JOINTS))

    class Live(SimpleNamespace):
        time = property(lambda self: node.now())

    live: Any = Live(controller=controller, lock=threading.Lock(), running=True, before_update=lambda apply: apply())
    executor.add_node(node)
    server = ControllerServer(node, ROBOT.controller.name, live)  # type: ignore[arg-type]
    q = v = np.zeros(JOINTS)

    def update() -> None:
        nonlocal q, v
        with live.lock:
            command = controller.update(live.time, q, v)
        q, v = command, (command - q) / PERIOD

    server.create_timer(PERIOD, update, clock=Clock(clock_type=ClockType.STEADY_TIME))
    while True:
        executor.spin_once(timeout_sec=0.2)


class Timed(ActionOutlet):
    """Notes how long the server took to accept each goal, s."""

    def __init__(self, node: Any, waits: list[float]) -> None:
        super().__init__(node, ROBOT, 5.0, lambda *cause: print(*cause, file=sys.stderr))
        self._waits, self._sent = waits, list[float]()

    def send(self, trajectory: Trajectory, stops: bool) -> None:
        self._sent.append(time.perf_counter())
        super().send(trajectory, stops)

    def _answered(self, number: int, *answer: Any) -> None:
        self._waits.append(time.perf_counter() - self._sent[number])
        super()._answered(number, *answer)


def sender(node: Any, how: str, waits: list[float]) -> Callable[[], None]:
    """What sends one trajectory; how long the server took to accept it is appended to `waits`, s."""
    if how != "ActionClient":
        outlet: Any = TopicOutlet(node, ROBOT) if how == "topic" else Timed(node, waits)
        return lambda: outlet.send(motion(node), stops=False)
    client: Any = ActionClient(node, FollowJointTrajectory, ROBOT.controller.action)

    def accepted(since: float, future: Any) -> None:
        waits.append(time.perf_counter() - since)
        if future.result().accepted:
            future.result().get_result_async()

    def send() -> None:
        goal = FollowJointTrajectory.Goal(trajectory=trajectories.to_message(motion(node), ROBOT.joint_names))
        client.send_goal_async(goal).add_done_callback(functools.partial(accepted, time.perf_counter()))

    return send


def measure(node: Bare, executor: EventsExecutor, how: str, rate: float, seconds: float, server: int) -> dict[str, Any]:
    """The figures of one sender."""
    waits: list[float] = []
    send = sender(node, how, waits)
    executor.add_node(node)

    def spin(duration: float) -> None:
        end = time.monotonic() + duration
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)

    spin(DISCOVERY)
    node.create_timer(1.0 / rate, send, clock=Clock(clock_type=ClockType.STEADY_TIME))
    spin(SETTLE)
    waits.clear()
    processes, began = (psutil.Process(), psutil.Process(server)), time.monotonic()
    before = [sum(process.cpu_times()[:2]) for process in processes]
    spin(seconds)
    elapsed = time.monotonic() - began
    cpu = [(sum(process.cpu_times()[:2]) - used) / elapsed for process, used in zip(processes, before, strict=True)]
    accepted = {f"p{p}": 1e3 * float(np.percentile(waits, p)) for p in (50, 99)} if waits else None
    return {"how": how, "rate": rate, "cpu_sender": cpu[0], "cpu_server": cpu[1], "accepted_ms": accepted}


def run(role: str, rate: float, seconds: float, server: int) -> None:
    """A process of the benchmark; a sender prints its figures as JSON."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # the server is ended by a signal, at once
    node, executor = Bare(role.lower()), EventsExecutor()
    if role == "server":
        serve(node, executor)
    else:
        print(json.dumps(measure(node, executor, role, rate, seconds, server)), flush=True)
        os._exit(0)


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    waits = row["accepted_ms"]
    accepted = f"{waits['p50']:.1f} / {waits['p99']:.1f}" if waits else "–"
    return f"| {row['how']} | {row['rate']:g} | {row['cpu_sender']:.1%} | {row['cpu_server']:.1%} | {accepted} |"


@click.command()
@click.option("--seconds", default=20.0, show_default=True, help="For each case.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the rows.")
@click.option("--role", hidden=True)
@click.option("--rate", default=0.0, hidden=True)
@click.option("--server", default=0, hidden=True)
def main(seconds: float, output: Path | None, role: str | None, rate: float, server: int) -> None:
    """Compare the ways to command a joint trajectory controller."""
    if role:
        run(role, rate, seconds, server)
        return
    environment = os.environ | graph.environment(graph.Settings.parse({})) | {"ROS_DOMAIN_ID": str(60 + os.getpid() % 40)}
    click.echo(hardware())
    click.echo("| commands by | Hz | CPU of the sender | CPU of the server | accepted after p50 / p99, ms |\n|---|---|---|---|---|")
    command, rows = [sys.executable, __file__, "--role"], []
    for how, hz in CASES:
        process = subprocess.Popen([*command, "server"], env=environment)
        try:
            case = [*command, how, "--rate", str(hz), "--seconds", str(seconds), "--server", str(process.pid)]
            rows.append(json.loads(subprocess.check_output(case, env=environment, text=True).splitlines()[-1]))
        finally:
            process.terminate()
            process.wait(10.0)
        click.echo(line(rows[-1]))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
