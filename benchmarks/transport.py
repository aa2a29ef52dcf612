"""Large images through the middleware: frames sent and received, loss, latency, CPU, with 1 to 3 camera nodes at 30 Hz.

Each camera is the camera node in a process of its own, reading a generated video; one process receives them all, with the graph's
Fast DDS profile. Sent is what the cameras' heartbeats say, received are the frames of the same stamps, so the loss is exact.
Latency: from the frame's stamp, taken when it was read, to the callback that has the message.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import psutil
import rclpy
from act2goal_msgs.msg import NodeStatus
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from realtime_tables import TRANSPORT, transport_line
from results import ROOT, command, hardware, merge
from sensor_msgs.msg import Image

from act2goal_ros import graph
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.base import values_of
from act2goal_ros.nodes.trajectories import seconds

RATE = 30.0  # Hz
SIZES = ("640x480", "1280x720")
SETTLE = 2.0  # s
START = 60.0  # s a camera has to come up


class Camera:
    """What is heard of one camera: stamps and latencies (s) of its frames, and how many it has sent up to which stamp."""

    def __init__(self, node: Node, name: str, depth: int) -> None:
        self.stamps: list[float] = []
        self.latencies: list[float] = []
        self.sent: tuple[int, float] | None = None
        profile = QoSProfile(depth=depth, reliability=qos.SENSOR.reliability, durability=qos.SENSOR.durability)
        node.create_subscription(Image, f"{name}/{topics.IMAGE}", self._frame, profile)
        node.create_subscription(NodeStatus, f"{name}/{topics.STATUS}", self._heartbeat, qos.STATUS)

    def _frame(self, message: Image) -> None:
        stamp = seconds(message.header.stamp)
        self.stamps.append(stamp)
        self.latencies.append(time.time() - stamp)

    def _heartbeat(self, status: NodeStatus) -> None:
        values = values_of(status)
        if int(values.get("frames", 0)):
            self.sent = int(values["frames"]), float(values["newest"])

    def between(self, first: tuple[int, float], last: tuple[int, float]) -> tuple[int, list[float]]:
        """Frames sent between two heartbeats, and the latencies of those of them that arrived."""
        arrived = [late for stamp, late in zip(self.stamps, self.latencies, strict=True) if first[1] + 1e-6 < stamp < last[1] + 1e-6]
        return last[0] - first[0], arrived


def write_video(path: Path, size: str) -> None:
    """One second of a moving picture."""
    width, height = map(int, size.split("x"))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), RATE, (width, height))
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    for k in range(int(RATE)):
        writer.write(np.stack([x + 8 * k, y - 8 * k, x + y], axis=2).astype(np.uint8))
    writer.release()


@contextmanager
def cameras(video: Path, count: int, output_size: int) -> Iterator[list[psutil.Process]]:
    """So many camera nodes, each in a namespace of its own."""
    settings = {"autostart": "true", "source": str(video), "rate": str(RATE), "output_size": str(output_size)}
    parameters = [part for name, value in settings.items() for part in ("-p", f"{name}:={value}")]
    command = [sys.executable, "-m", "act2goal_ros.nodes.camera", "--ros-args", *parameters, "-r"]
    with (ROOT / ".cache" / "benchmark.log").open("ab") as log:
        processes = [subprocess.Popen([*command, f"__ns:=/camera{k}"], stdout=log, stderr=log, cwd=ROOT) for k in range(count)]
    try:
        yield [psutil.Process(process.pid) for process in processes]
    finally:
        for process in processes:
            process.send_signal(signal.SIGINT)
        for process in processes:
            process.wait(20.0)


def measure(size: str, count: int, duration: float, output_size: int, depth: int) -> dict[str, Any]:
    """One row: this many cameras of this size for so many seconds."""
    rclpy.init()
    node, executor = Node("receiver"), EventsExecutor()
    executor.add_node(node)
    heard = [Camera(node, f"camera{k}", depth) for k in range(count)]

    def spin(until: float) -> None:
        while time.monotonic() < until:
            executor.spin_once(timeout_sec=0.05)

    with tempfile.TemporaryDirectory() as folder:
        write_video(video := Path(folder) / "video.avi", size)
        with cameras(video, count, output_size) as processes:
            began = time.monotonic()
            while not all(camera.sent and camera.stamps for camera in heard):
                if time.monotonic() - began > START:
                    raise TimeoutError(f"not all of {count} cameras came up within {START:g} s: see .cache/benchmark.log")
                spin(time.monotonic() + 0.2)
            spin(time.monotonic() + SETTLE)
            family = [psutil.Process(), *processes]
            first, used = [camera.sent for camera in heard], [sum(p.cpu_times()[:2]) for p in family]
            began = time.monotonic()
            spin(began + duration)
            shares = [(sum(p.cpu_times()[:2]) - u) / (time.monotonic() - began) for p, u in zip(family, used, strict=True)]
            last = [camera.sent for camera in heard]
            spin(time.monotonic() + 0.2)  # what is still on its way
    found = [camera.between(a, b) for camera, a, b in zip(heard, first, last, strict=True) if a and b]
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown()
    sent, latencies = sum(sent for sent, _ in found), [late for _, arrived in found for late in arrived]
    return {
        "size": size,
        "cameras": count,
        "published": f"{output_size}x{output_size}" if output_size else size,
        "rate_hz": sent / count / duration,
        "sent": sent,
        "received": len(latencies),
        "loss": 1.0 - len(latencies) / max(sent, 1),
        "latency_ms": {f"p{p}": float(1e3 * np.percentile(latencies, p)) for p in (50, 99)} if latencies else None,
        "cpu_of_a_camera": float(np.mean(shares[1:])),
        "cpu_of_the_receiver": shares[0],
    }


@click.command()
@click.option("--size", "sizes", multiple=True, default=SIZES, show_default=True)
@click.option("--cameras", "counts", multiple=True, type=int, default=(1, 2, 3), show_default=True)
@click.option("--seconds", "duration", default=20.0, show_default=True, help="Of each row.")
@click.option("--output-size", default=0, show_default=True, help="The cameras' parameter; 0: frames are sent as large as they are.")
@click.option("--depth", default=1, show_default=True, help="Frames the receiver queues; 1 as in the graph: the newest wins.")
@click.option("--publish", is_flag=True, help="Into docs/results/realtime.json.")
def main(sizes: tuple[str, ...], counts: tuple[int, ...], duration: float, output_size: int, depth: int, publish: bool) -> None:
    """Measure loss, latency and CPU of camera images."""
    os.environ |= graph.environment(graph.Settings.parse({})) | {"ROS_DOMAIN_ID": str(60 + os.getpid() % 40)}
    (ROOT / ".cache").mkdir(exist_ok=True)
    click.echo(hardware())
    click.echo("\n".join(TRANSPORT))
    rows = []
    for size in sizes:
        for count in counts:
            rows.append(measure(size, count, duration, output_size, depth))
            click.echo(transport_line(rows[-1]))
    if publish:
        merge("realtime", {"transport": rows} | command("transport"))


if __name__ == "__main__":
    main()
