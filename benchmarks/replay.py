"""The same recorded chunks for every method: no networks, no success, only what becomes of the chunks and of the arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from motion import figures, together
from numpy.typing import NDArray
from tqdm import tqdm

from act2goal_ros.cli.eval import FIRST_SEED, TASKS
from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.learning.evaluate import TICK, Loop, Trace
from act2goal_ros.learning.execution import MakeExecution
from act2goal_ros.sim.arm import SimulatedArm


class Method(Protocol):
    """See delays.METHODS."""

    @property
    def make(self) -> MakeExecution: ...
    @property
    def serial(self) -> bool: ...


@dataclass(frozen=True)
class Recorded:
    """Chunks of one episode in the loop, in order."""

    task: str
    seed: int
    chunks: list[ActionChunk]


def record(loop: Loop, path: Path) -> None:
    """One episode of each task, a chunk of every frame: stamps (C,), positions (C, P, J), gripper (C, P), episode (C,)."""
    episodes = [loop.run(task, FIRST_SEED).trace.chunks for task in tqdm(TASKS, desc="record", unit="episode")]
    chunks = [chunk for episode in episodes for chunk in episode]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        tasks=np.array(TASKS),
        seeds=np.full(len(TASKS), FIRST_SEED),
        episode=np.repeat(np.arange(len(TASKS)), [len(episode) for episode in episodes]),
        dt=np.array(loop.bundle.step),
        stamps=np.array([chunk.stamp for chunk in chunks]),
        positions=np.array([chunk.positions for chunk in chunks]),
        gripper=np.array([chunk.gripper for chunk in chunks]),
    )


def read(path: Path) -> list[Recorded]:
    """What `record` wrote."""
    with np.load(path, allow_pickle=False) as file:
        a: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    made = [ActionChunk(float(s), float(a["dt"]), q, g) for s, q, g in zip(a["stamps"], a["positions"], a["gripper"], strict=True)]
    return [Recorded(str(task), int(seed), [made[i] for i in np.flatnonzero(a["episode"] == e)])
            for e, (task, seed) in enumerate(zip(a["tasks"], a["seeds"], strict=True))]  # fmt: skip


def compare(recordings: list[Recorded], methods: Mapping[str, Method], delays: list[int], pipelined: bool) -> dict[str, Any]:
    """Figures by method and ms over all recordings."""
    arm, robot = SimulatedArm(), RobotConfig.load("ur5e_sim")
    found: dict[str, dict[str, Any]] = {}
    cells = [(name, ms) for name in methods for ms in delays]
    for name, ms in tqdm(cells, desc="replay", unit="cell"):
        serial = methods[name].serial or not pipelined
        traces = [replay(arm, robot, recording, methods[name].make, ms / 1000, serial) for recording in recordings]
        found.setdefault(name, {})[str(ms)] = together([figures(trace) for trace in traces])
    return found


def replay(arm: SimulatedArm, robot: RobotConfig, recorded: Recorded, make: MakeExecution, delay: float, serial: bool) -> Trace:
    """Each chunk arrives `delay` s after its stamp; while one is under way, a serial method starts no other."""
    arm.reset(recorded.task, recorded.seed)
    execution, trace = make(robot.limits, arm.joint_positions, recorded.chunks[0].dt), Trace()
    to_come, waiting = list(recorded.chunks), list[ActionChunk]()
    end = recorded.chunks[-1].stamp

    def receive(now: float) -> None:
        while waiting and now >= waiting[0].stamp + delay - 1e-9:
            execution.adopt(waiting.pop(0), now)
            trace.borders.append(len(trace.sent))

    while (now := arm.time) < end:
        receive(now)
        while to_come and now >= to_come[0].stamp - 1e-9:
            chunk = to_come.pop(0)
            if not (serial and waiting) and execution.wants_chunk(now):
                waiting.append(chunk)
        receive(now)
        set_points, gripper = execution.command(now + TICK)
        for q in set_points:
            arm.step(q, gripper)
            trace.sent.append(q)
            trace.measured.append(arm.joint_positions)
    return trace
