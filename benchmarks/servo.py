"""What the servos are told in the running graph, every physics step (2 ms), against the robot's limits, while episodes run.

Velocity and acceleration are differences at 2 ms, jerk at 10 ms: of stamps, which are doubles since 1970, 0.24 µs are noise, and at
2 ms that alone is 100 rad/s³. Resets, which put the arm somewhere else, are left out. Writes `servo` of docs/results/realtime.json.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import numpy as np
import results
import yaml
from bringup import served
from realtime import work
from ticks import beside

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.sim.arm import PHYSICS_STEP as STEP

JERK_STEPS = 5  # between the set-points that jerk is taken of
TELEPORT = 0.02  # rad in a step: a reset
APART = 3  # steps left out before and after one


def segments(times: np.ndarray, q: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Times (N,) and set-points (N, J) between resets and gaps of the clock."""
    cut = np.flatnonzero((np.abs(np.diff(q, axis=0)).max(1) > TELEPORT) | (np.abs(np.diff(times) - STEP) > STEP)) + 1
    for begin, end in zip([0, *cut], [*cut, len(q)], strict=True):
        if end - begin > 2 * APART + 3 * JERK_STEPS:
            yield times[begin + APART : end - APART], q[begin + APART : end - APART]


def shares(trace: np.ndarray, robot: RobotConfig) -> dict[str, float]:
    """Largest velocity, acceleration and jerk of a trace (N, 1 + J), as shares of the robot's limits."""
    limits, most = robot.limits, dict.fromkeys(("velocity", "acceleration", "jerk"), 0.0)
    for times, q in segments(trace[:, 0], trace[:, 1:]):
        v = np.diff(q, axis=0) / np.diff(times)[:, None]
        middle = (times[1:] + times[:-1]) / 2
        a = np.diff(v, axis=0) / np.diff(middle)[:, None]
        jerk = [np.abs(np.diff(q[k::JERK_STEPS], 3, axis=0)).max(0) / (JERK_STEPS * STEP) ** 3 for k in range(JERK_STEPS)]
        found = {"velocity": np.abs(v).max(0), "acceleration": np.abs(a).max(0), "jerk": np.max(jerk, 0)}
        most = {name: max(largest, float((found[name] / getattr(limits, name)).max())) for name, largest in most.items()}
    return most


def measure(seconds: float, busy: bool) -> dict[str, Any]:
    """Shares of the limits, and how long the arm was watched."""
    with tempfile.TemporaryDirectory() as folder:
        trace, file = Path(folder) / "trace.npz", Path(folder) / "trace.yaml"
        file.write_text(yaml.safe_dump({"/**/simulated_arm": {"ros__parameters": {"trace": str(trace)}}}))
        load = beside([sys.executable, str(Path(__file__).with_name("ticks.py")), "--train"], {}) if busy else nullcontext()
        with served(f"params:={file}") as (_, client), load:
            work(client, seconds, "busy" if busy else "alone")
        with np.load(trace, allow_pickle=False) as found:
            setpoints = found["setpoints"]
    return {"seconds": float(setpoints[-1, 0] - setpoints[0, 0])} | shares(setpoints, RobotConfig.load("ur5e_sim"))


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="Alone, and beside a training at nice 0 with two threads.")
def main(seconds: float) -> None:
    """Hold set-points against limits."""
    found = {"alone": measure(seconds, False), "busy": measure(seconds, True)}
    results.merge("realtime", {"servo": found} | results.command("servo"))
    click.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
