"""For node tests: nodes in processes of their own, and a probe that talks to them, in a ROS domain nobody else uses."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import domains
import pytest
import rclpy
from act2goal_msgs.msg import NodeStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from act2goal_ros.nodes import qos, topics

new_domain = domains.reserve


class Probe:
    """A node in the test's process: publishes, and keeps everything it hears."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("probe", context=self.context)
        self.heard: dict[str, list[Any]] = {}
        self._publishers: dict[str, Any] = {}
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self.listen(NodeStatus, topics.STATUS, qos.STATUS)
        self._thread.start()
        atexit.register(self.close)  # a probe that a failed test left open would abort the interpreter

    def _spin(self) -> None:
        with contextlib.suppress(Exception):
            while self.context.ok():
                self._executor.spin_once(timeout_sec=0.1)

    def listen(self, kind: Any, topic: str, profile: Any) -> list[Any]:
        """Keeps all messages of a topic; returns the list they are appended to."""
        found = self.heard.setdefault(topic, [])
        self.node.create_subscription(kind, topic, found.append, profile)
        return found

    def advertise(self, kind: Any, topic: str, profile: Any) -> None:
        """Creates the publisher of a topic."""
        self._publishers[topic] = self.node.create_publisher(kind, topic, profile)

    def publish(self, topic: str, message: Any) -> None:
        """Publishes on a topic that was advertised."""
        self._publishers[topic].publish(message)

    def stamp(self) -> Any:
        """Now, as a message."""
        return self.node.get_clock().now().to_msg()

    def wait_for_subscribers(self, *names: str, seconds: float = 15.0) -> None:
        """Waits until each of the advertised topics has a listener."""
        wait_for(lambda: all(self._publishers[n].get_subscription_count() for n in names), seconds, f"listeners of {names}")

    def status(self, node: str) -> NodeStatus | None:
        """The last heartbeat of a node."""
        return next((s for s in reversed(self.heard[topics.STATUS]) if s.node == node), None)

    def values(self, node: str) -> dict[str, str]:
        """The values in the last heartbeat of a node."""
        status = self.status(node)
        return {} if status is None else {v.key: v.value for v in status.values}

    def wait_active(self, node: str, seconds: float = 60.0) -> None:
        """Waits until a node says it is active."""
        wait_for(lambda: self.values(node).get("state") == "active", seconds, lambda: f"{node} active: {self.status(node)}")

    def close(self) -> None:
        """Ends the node."""
        atexit.unregister(self.close)
        rclpy.shutdown(context=self.context)
        self._thread.join(2.0)
        self.node.destroy_node()


def require_pace(count: int, expected: float) -> None:
    """Skips a test of rates when the test's own loop ran `count` times instead of `expected`: the machine cannot keep up."""
    if count < 0.85 * expected:
        pytest.skip(f"the machine is too busy for a test of rates: {count} loops instead of {expected:.0f}")


def wait_for(condition: Callable[[], Any], seconds: float = 10.0, what: str | Callable[[], str] = "") -> Any:
    """Waits until the condition is true and returns its value; fails naming what was waited for."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for {what() if callable(what) else what}"
        time.sleep(0.01)
    return value


@contextlib.contextmanager
def running(
    module: str,
    domain: int,
    log: Path,
    parameters: dict[str, Any] | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Runs a node module (and its arguments) in a process of its own that starts itself; its output goes to the file `log`."""
    settings = [part for k, v in {"autostart": True, **(parameters or {})}.items() for part in ("-p", f"{k}:={_text(v)}")]
    root = Path(__file__).resolve().parents[1]
    variables = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "test"), os.environ.get("PYTHONPATH", "")]),
        **(environment or {}),
    }
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module.split(), "--ros-args", *settings],
            stdout=output,
            stderr=output,
            text=True,
            env=variables,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(8.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) and not value else str(value)
