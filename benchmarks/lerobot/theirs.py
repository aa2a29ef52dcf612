"""LeRobot's side: its PolicyServer and RobotClient over loopback gRPC on the simulated arm; writes one JSON of raw figures.

Run by an environment of its own (8.4 GB), which holds nothing of this project's but the checkout on PYTHONPATH:

    python3.11 -m venv /somewhere/lerobot
    /somewhere/lerobot/bin/pip install -r benchmarks/lerobot/requirements.txt

compare.py starts it. LeRobot's defaults: 30 Hz, weighted_average, half of the chunk left when the next observation is sent;
16 actions a chunk. Three processes, as on a robot: the arm, the client, the server. LeRobot's own transport pickles; it stays on
127.0.0.1.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_policy
import torch
from figures import displacement
from lerobot.async_inference.configs import RobotClientConfig
from lerobot.async_inference.helpers import TimedAction, TimedObservation
from lerobot.async_inference.robot_client import RobotClient
from sim_robot import SimulatedUR5eConfig
from slots import JOINTS, Slots

HERE = Path(__file__).resolve().parent
START = 120.0  # s that a server may take to start
SETTLE = 0.5  # s from a reset to the first observation


class RecordingClient(RobotClient):
    """RobotClient as it is, with notes of what it does.

    Every action carries the number of its chunk and what the queue held for its time step before, from the thread that
    receives chunks to the one that executes actions.
    """

    def __init__(self, config: RobotClientConfig) -> None:
        super().__init__(config)
        self.stamps: dict[float, float] = {}  # of frames, by the stamps LeRobot gives observations
        self.chunks: list[dict[str, float]] = []
        self.actions: list[dict[str, Any]] = []
        self._current: torch.Tensor | None = None

    def send_observation(self, obs: TimedObservation) -> bool:
        self.stamps[obs.get_timestamp()] = self.robot.seen
        return super().send_observation(obs)

    def _aggregate_action_queues(self, incoming_actions: list[TimedAction], aggregate_fn: Any = None) -> None:
        received, number = time.time(), len(self.chunks)
        self.chunks.append({"received": received, "stamp": self.stamps[incoming_actions[0].get_timestamp()]})
        with self.action_queue_lock:
            queued = {action.get_timestep(): action.get_action() for action in self.action_queue.queue}
        for action in incoming_actions:
            action.action.chunk = number
            action.action.before = queued.get(action.get_timestep())

        def aggregate(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
            result = aggregate_fn(old, new)
            result.chunk, result.before = new.chunk, new.before
            return result

        super()._aggregate_action_queues(incoming_actions, aggregate)

    def _action_tensor_to_action_dict(self, action_tensor: torch.Tensor) -> dict[str, float]:
        self._current = action_tensor
        return super()._action_tensor_to_action_dict(action_tensor)

    def control_loop_action(self, verbose: bool = False) -> dict[str, Any]:
        performed = super().control_loop_action(verbose)
        current: Any = self._current
        before = None if current.before is None else _radians(current.before)
        self.actions.append({"time": self.robot.sent, "chunk": current.chunk, "joints": _radians(current), "before": before})
        return performed


def _radians(action: torch.Tensor) -> list[float]:
    return np.radians(action[:JOINTS].numpy().astype(float)).tolist()


def run_episode(client: RecordingClient, goal: Path, seconds: float) -> None:
    """As LeRobot's async_client, for so many seconds from the first action."""
    if not client.start():
        raise RuntimeError("PolicyServer does not answer")
    receiver = threading.Thread(target=client.receive_actions, daemon=True)
    receiver.start()
    watch = threading.Thread(target=_end, args=(client, seconds), daemon=True)
    watch.start()
    client.control_loop(task=str(goal))
    client.stop()
    receiver.join()
    watch.join()


def _end(client: RecordingClient, seconds: float) -> None:
    limit = time.monotonic() + START
    while not client.actions and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(seconds)
    client.shutdown_event.set()


def episode_row(client: RecordingClient, task: str, seed: int, succeeded: float, seconds: float, log: Path) -> dict[str, Any]:
    """What figures.summary takes; `succeeded` is the system time of success or NaN."""
    if not client.actions:
        raise RuntimeError(f"{task}, seed {seed}: no action in {START:g} s; see server.log")
    begin = client.actions[0]["time"]
    end = begin + seconds if np.isnan(succeeded) else succeeded
    actions = [action for action in client.actions if action["time"] <= end]
    inferences = [json.loads(line) for line in log.read_text().splitlines()]
    steps, observations = [], []
    for former, action in zip(actions, actions[1:], strict=False):
        if action["chunk"] == former["chunk"]:
            continue
        before = None if action["before"] is None else np.array(action["before"])
        steps.append(displacement(np.array(action["joints"]), before, np.array(former["joints"])))
        chunk = client.chunks[action["chunk"]]
        inference = max((i for i in inferences if i["ended"] <= chunk["received"]), key=lambda i: i["ended"])
        spent = {"network_s": inference["ended"] - inference["began"], "planned": inference["planned"]}
        observations.append({"stamp": chunk["stamp"], "command": action["time"], "in_force": action["time"], **spent})
    return {
        "task": task, "seed": seed, "success": not np.isnan(succeeded), "begin": begin, "end": end,
        "commands": [action["time"] for action in actions], "actions": [action["joints"] for action in actions],
        "chunks": len({action["chunk"] for action in actions}), "border_steps": steps, "observations": observations,
    }  # fmt: skip


@contextmanager
def processes(arguments: argparse.Namespace, folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Arm and server, ended afterwards; gives the arm."""
    arm_command = [arguments.arm_python, str(HERE / "arm.py"), str(folder / "slots"), str(folder / "theirs.npz")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (folder / "server.log").open("w") as log, (folder / "arm.log").open("w") as arm_log:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": arm_log}
        arm = subprocess.Popen(arm_command, text=True, env=environment, **pipes)
        command = [sys.executable, str(HERE / "server.py"), str(port), str(arguments.fps)]
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            _answer(arm)
            _wait_for(port, server)
            yield arm
        finally:
            server.terminate()
            assert arm.stdin is not None
            arm.stdin.close()
            server.wait(20.0)
            arm.wait(60.0)


def _answer(arm: subprocess.Popen[str]) -> None:
    assert arm.stdout is not None
    line = arm.stdout.readline().strip()
    if not line or line.startswith("failed"):
        raise RuntimeError(f"the simulated arm: {line or 'ended'}")


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + START
    while time.monotonic() < limit and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError(f"PolicyServer does not listen on port {port} within {START:g} s; see server.log")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Runs the episodes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--arm-python", required=True, help="this project's interpreter")
    parser.add_argument("--jobs", required=True, help="task:seed,…")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--actions", type=int, default=16)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--aggregate", default="weighted_average")
    arguments = parser.parse_args()
    folder, model, port = arguments.output.resolve(), arguments.model.resolve(), _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # LeRobot makes logs/ where it is started
    log = folder / "inference.jsonl"
    log.write_text("")
    slots = Slots(folder / "slots", create=True)
    onnx_policy.save(folder / "policy", model, 1 / arguments.fps, arguments.actions, log)
    torch.set_num_threads(1)
    rows = []
    with processes(arguments, folder, port) as arm:
        for job in arguments.jobs.split(","):
            rows.append(_episode(arguments, folder, slots, arm, job, port))
            print(json.dumps({key: rows[-1][key] for key in ("task", "seed", "success")}), flush=True)
    versions = {"fps": arguments.fps, "actions_per_chunk": arguments.actions, "chunk_size_threshold": arguments.threshold}
    raw = {"period": 1 / arguments.fps, "settings": {**versions, "aggregate_fn_name": arguments.aggregate}, "episodes": rows}
    (folder / "theirs.json").write_text(json.dumps(raw))


def _episode(arguments: argparse.Namespace, folder: Path, slots: Slots, arm: subprocess.Popen[str], job: str, port: int) -> dict[str, Any]:
    task, seed = job.split(":")
    goal = folder / f"goal-{task}-{seed}.png"
    config = RobotClientConfig(
        policy_type=onnx_policy.OnnxPolicy.name,
        pretrained_name_or_path=str(folder / "policy"),
        robot=SimulatedUR5eConfig(id="sim", calibration_dir=folder / "calibration", slots=str(folder / "slots")),
        actions_per_chunk=arguments.actions,
        server_address=f"127.0.0.1:{port}",
        chunk_size_threshold=arguments.threshold,
        fps=arguments.fps,
        aggregate_fn_name=arguments.aggregate,
    )
    client = RecordingClient(config)
    assert arm.stdin is not None
    print("reset", task, seed, goal, file=arm.stdin, flush=True)
    _answer(arm)
    time.sleep(SETTLE)
    run_episode(client, goal, arguments.seconds)
    succeeded = float(slots.state.read()[-1])
    return episode_row(client, task, int(seed), succeeded, arguments.seconds, folder / "inference.jsonl")


if __name__ == "__main__":
    main()
