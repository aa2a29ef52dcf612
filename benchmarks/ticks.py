"""Missed ticks at 50 Hz, with episodes one after another, imagination running and a training process beside them.

A tick is missed when nothing is published within its period. The policy and, in the same run, a bare timer count that on their own
monotonic clocks (act2goal_ros/control/watchdog.py, Periods); a listener counts it a second time by what arrives.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml
from act2goal_msgs.msg import ControlStatus, NodeStatus
from bringup import served, timed, work
from graph_client import GraphClient
from results import ROOT, command, hardware, merge
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros import graph
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.watchdog import Periods
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.base import values_of
from act2goal_ros.nodes.policy import PolicyParameters

RATE = 50.0  # Hz, the policy's command_rate
NAMES = ("policy", "bare_timer")
NICEST = 19


class Count:
    """A node's own count, from its heartbeats; a node that starts again begins at 0."""

    def __init__(self) -> None:
        self.periods = self.missed = 0
        self.scheduling = ""
        self._last: tuple[int, int] | None = None

    def heartbeat(self, status: NodeStatus) -> None:
        """Takes what was added since the last heartbeat."""
        values = values_of(status)
        if "command_periods" not in values:
            return
        now = int(values["command_periods"]), int(values["command_missed"])
        if self._last is not None:
            before = self._last if now[0] >= self._last[0] else (0, 0)
            self.periods += now[0] - before[0]
            self.missed += now[1] - before[1]
        self._last, self.scheduling = now, values["scheduling"]

    @property
    def fraction(self) -> float:
        """Of the periods, missed."""
        return self.missed / max(self.periods, 1)


class Counts:
    """What both nodes count, and what arrives of both here."""

    def __init__(self, client: GraphClient) -> None:
        self.own = {name: Count() for name in NAMES}
        self.arrived = {name: Periods(1.0 / RATE) for name in NAMES}
        topic = RobotConfig.load("ur5e_sim").controller.joint_trajectory_topic
        for kind, name, callback, profile in (
            (NodeStatus, topics.STATUS, self._heartbeat, qos.STATUS),
            (NodeStatus, f"bare/{topics.STATUS}", self._heartbeat, qos.STATUS),
            (ControlStatus, topics.CONTROL_STATUS, self._status, qos.COMMAND),
        ):
            client.create_subscription(kind, name, callback, profile)
        for kind, name, node in ((JointTrajectory, topic, "policy"), (Float64, "bare/tick", "bare_timer")):
            callback = self._arrival(node)
            client.create_subscription(kind, name, callback, qos.COMMAND, raw=True)

    def _heartbeat(self, status: NodeStatus) -> None:
        if status.node in self.own:
            self.own[status.node].heartbeat(status)

    def _status(self, status: ControlStatus) -> None:
        if status.state in (ControlStatus.IDLE, ControlStatus.HOLDING):
            self.arrived["policy"].pause()

    def _arrival(self, node: str) -> Any:
        return lambda _: self.arrived[node].published(time.monotonic())

    def result(self) -> dict[str, Any]:
        """Fractions of the periods, by the publishers' own clocks and by arrival."""
        policy, bare = (self.own[name] for name in NAMES)
        arrived = {name: count.missed / max(count.count, 1) for name, count in self.arrived.items()}
        return {
            "missed_tick_fraction_50hz": policy.fraction,
            "bare_timer_fraction": bare.fraction,
            "beyond": policy.fraction - bare.fraction,
            "missed": {name: count.missed for name, count in self.own.items()},
            "periods": {name: count.periods for name, count in self.own.items()},
            "by_arrival": {**arrived, "beyond": arrived["policy"] - arrived["bare_timer"]},
            "scheduling": {name: count.scheduling for name, count in self.own.items()},
        }


@contextmanager
def beside(command: list[str], variables: dict[str, str], nice: int = 0, apart: bool = False) -> Iterator[None]:
    """Runs another process meanwhile, `apart`: in a session of its own, as in another terminal; RuntimeError when it ended by itself."""
    log = (ROOT / ".cache" / "benchmark.log").open("ab")
    process = subprocess.Popen(
        command, env=os.environ | variables, cwd=ROOT, stdout=log, stderr=log, preexec_fn=lambda: os.nice(nice), start_new_session=apart
    )
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"{shlex.join(command[:4])} … ended with exit code {process.returncode} before the measurement did")
    finally:
        process.terminate()
        process.wait(10.0)
        log.close()


def train(threads: int) -> None:
    """Trains a small network on noise with NumPy until the process is ended; OpenBLAS takes `threads` cores."""
    random = np.random.default_rng(0)
    hidden, out = (random.standard_normal((512, 512)).astype(np.float32) / 23 for _ in range(2))
    while threads:
        batch = random.standard_normal((256, 512)).astype(np.float32)
        active = np.maximum(batch @ hidden, 0.0)
        error = (active @ out - batch) / batch.size
        gradient = (error @ out.T) * (active > 0)
        out -= 0.1 * active.T @ error
        hidden -= 0.1 * batch.T @ gradient


def priorities(nice: int | None, realtime: int | None) -> dict[str, int]:
    """Parameters of policy and bare timer, the policy's defaults where they are not given."""
    given = {"nice": nice, "realtime_priority": realtime}
    return {name: getattr(PolicyParameters, name) if value is None else value for name, value in given.items()}


def measure(minutes: float, training: str, threads: int, parameters: dict[str, int]) -> dict[str, Any]:
    """Runs the graph, the bare timer and the training for so long; returns the fractions of missed ticks and the conditions."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "priorities.yaml"
        file.write_text(yaml.safe_dump({"/**/policy": {"ros__parameters": parameters}}))
        bare = [sys.executable, str(ROOT / "benchmarks" / "bare_timer.py"), "--ros-args", "-r", "__ns:=/bare", "-p", "autostart:=true"]
        bare += [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
        load_command = shlex.split(training) if training not in ("numpy", "none") else [sys.executable, __file__, "--train"]
        with served(f"params:={file}") as (_, client):
            blas = {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
            load = beside(load_command, blas, NICEST, apart=True) if training != "none" else nullcontext()
            with beside(bare, graph.environment(graph.Settings.parse({}))), load:
                work(client, 1.0)  # one episode, so that all runs
                counts = Counts(client)
                with timed(client) as figures:
                    work(client, 60.0 * minutes)
    wanted = ("tick_hz", "imagination_hz", "camera_to_command_ms", "real_time_factor")
    beside_it = f"{training}, {threads} threads, nice {NICEST}, a session of its own"
    conditions = {"minutes": minutes, "training": beside_it, "hardware": hardware()}
    return counts.result() | conditions | {name: figures.get(name) for name in wanted}


@click.command()
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--training", default="numpy", show_default=True, help="Beside it: numpy, none, or a command such as '… -m … train …'.")
@click.option("--threads", default=2, show_default=True, help="Of the training.")
@click.option("--nice", type=int, help="Of policy and bare timer; the policy's default if not given.")
@click.option("--realtime-priority", type=int, help="Likewise.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the result.")
@click.option("--publish", is_flag=True, help="Merge it into docs/results/realtime.json.")
@click.option("--train", "is_training", is_flag=True, hidden=True)
def main(
    minutes: float, training: str, threads: int, nice: int | None, realtime_priority: int | None, output: Path | None, publish: bool,
    is_training: bool,
) -> None:  # fmt: skip
    """Count the ticks that policy and bare timer miss."""
    if is_training:
        train(threads)
    result = measure(minutes, training, threads, priorities(nice, realtime_priority))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n")
    if publish:
        found = {name: result[name] for name in ("missed_tick_fraction_50hz", "bare_timer_fraction")}
        merge("realtime", found | {"ticks": result} | command("ticks"))
    click.echo(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
