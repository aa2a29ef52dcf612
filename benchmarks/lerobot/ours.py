"""This project's side: the graph as `act2goal up` starts it, on the simulated arm; writes one JSON of raw figures.

Listens beside the graph. A command arrives at the arm when it arrives here: both are readers of one topic. The chunk a command
was made from is known from control_status, which tells every tenth of a second when the newest chunk was first followed.
"""

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from act2goal_msgs.msg import Chunk, ControlStatus, SimState
from figures import SAME, splice_steps, window
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import MessageInfo
from trajectory_msgs.msg import JointTrajectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bringup import served  # noqa: E402
from graph_client import GraphClient  # noqa: E402

from act2goal_ros.control.robot import RobotConfig  # noqa: E402
from act2goal_ros.control.trajectory import Trajectory  # noqa: E402
from act2goal_ros.nodes import qos, topics  # noqa: E402
from act2goal_ros.nodes.trajectories import from_message, seconds  # noqa: E402

COMMAND_PERIOD = 0.02  # s, config/policy.yaml
LEAD = 0.01  # s from a command's start to what is new in it: the policy's default
UNMEASURED = 0.3  # s after a start in which control_status tells no delays yet
EVERY = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


@dataclass
class Heard:
    """Of one episode; system time, s."""

    commands: list[tuple[float, float, Trajectory]] = field(default_factory=list)  # published, arrived, what
    inferences: dict[float, float] = field(default_factory=dict)  # s, by the frame's stamp
    followed: dict[float, float] = field(default_factory=dict)  # when the chunk from a frame was first followed
    running: list[float] = field(default_factory=list)
    succeeded: float = float("nan")


class Ear:
    """Subscribes through the client of the graph."""

    def __init__(self, client: GraphClient) -> None:
        self.heard = Heard()
        self._started: float | None = None
        robot = RobotConfig.load("ur5e_sim")
        self._names = robot.joint_names
        client.create_subscription(JointTrajectory, robot.controller.joint_trajectory_topic, self._on_command, EVERY)
        client.create_subscription(Chunk, topics.CHUNK, self._on_chunk, EVERY)
        client.create_subscription(ControlStatus, topics.CONTROL_STATUS, self._on_status, EVERY)
        client.create_subscription(SimState, topics.SIM_STATE, self._on_sim, qos.SENSOR)

    def _on_command(self, message: JointTrajectory, info: MessageInfo) -> None:
        published, arrived = (1e-9 * info[key] for key in ("source_timestamp", "received_timestamp"))
        trajectory = from_message(message, self._names, arrived)
        if trajectory is not None:
            self.heard.commands.append((published, arrived, trajectory))

    def _on_chunk(self, message: Chunk) -> None:
        self.heard.inferences[seconds(message.header.stamp)] = 1e-3 * message.inference_ms

    def _on_status(self, message: ControlStatus, info: MessageInfo) -> None:
        if message.state != ControlStatus.RUNNING:
            self._started = None
            return
        published, stamp = 1e-9 * info["source_timestamp"], seconds(message.header.stamp)
        self.heard.running.append(published)
        self._started = published if self._started is None else self._started
        if published > self._started + UNMEASURED:
            self.heard.followed[stamp] = stamp + 1e-3 * message.delay_ms

    def _on_sim(self, message: SimState) -> None:
        if message.success_once and np.isnan(self.heard.succeeded):
            self.heard.succeeded = seconds(message.header.stamp)


def episode_row(heard: Heard, task: str, seed: int, length: float, trace: np.ndarray) -> dict[str, Any]:
    """What figures.summary takes; `trace` (N, 1 + J) is the arm's."""
    row: dict[str, Any] = {"task": task, "seed": seed, "success": not np.isnan(heard.succeeded)}
    if not heard.running:
        return row | {"commands": []}
    first = heard.running[0]
    commands = [command for command in heard.commands if command[0] > first - COMMAND_PERIOD]
    begin = commands[0][1]
    end = min(heard.running[-1], begin + length, heard.succeeded if row["success"] else np.inf)
    within = [command for command in commands if command[1] <= end]
    part = window(trace, begin, end)
    return row | {
        "begin": begin, "end": end, "commands": [published for published, _, _ in within],
        "chunks": sum(begin <= stamp <= end for stamp in heard.inferences),
        "border_steps": splice_steps([(arrived, trajectory) for _, arrived, trajectory in within], part, LEAD),
        "observations": _observations(heard, within, begin, end),
    }  # fmt: skip


def _observations(heard: Heard, commands: list[tuple[float, float, Trajectory]], begin: float, end: float) -> list[dict[str, float]]:
    found = []
    published = np.array([command[0] for command in commands])
    for stamp, followed in heard.followed.items():
        index = int(np.searchsorted(published, followed - SAME))
        if not begin < followed < end or index == len(commands) or stamp not in heard.inferences:
            continue
        _, arrived, trajectory = commands[index]
        taken = {"command": arrived, "in_force": max(arrived, trajectory.start + LEAD), "network_s": heard.inferences[stamp]}
        found.append({"stamp": stamp, **taken})
    return found


def main() -> None:
    """Runs the episodes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--jobs", required=True, help="task:seed,…")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    parameters = folder / "trace.yaml"
    parameters.write_text(f"/**/simulated_arm:\n  ros__parameters:\n    trace: {folder / 'ours.npz'}\n")
    heard = []
    with served(f"params:={parameters}") as (_, client):
        ear = Ear(client)
        for job in arguments.jobs.split(","):
            task, seed = job.split(":")
            ear.heard = Heard()
            row = client.episode(task, int(seed), arguments.seconds)
            heard.append((ear.heard, task, int(seed), arguments.seconds))
            print(json.dumps({key: row[key] for key in ("task", "seed", "success")}), flush=True)
    trace = np.load(folder / "ours.npz")["setpoints"]
    rows = [episode_row(*one, trace) for one in heard]
    (folder / "ours.json").write_text(json.dumps({"period": COMMAND_PERIOD, "settings": {}, "episodes": rows}))


if __name__ == "__main__":
    main()
