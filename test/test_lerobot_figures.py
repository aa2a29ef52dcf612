"""The figures of the comparison with LeRobot, on motions whose figures are known."""

from __future__ import annotations

import importlib.util
import math
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.sim.trace import Trace

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "lerobot"
STEP = 0.002


def load(name: str) -> ModuleType:
    """A module of the benchmark, which is no package."""
    spec = importlib.util.spec_from_file_location(f"lerobot_benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


figures, slots = load("figures"), load("slots")


def trace_of(position: Any, seconds: float = 1.0, start: float = 100.0) -> np.ndarray:
    """(N, 3): a trace of two joints, the second at rest."""
    times = np.arange(0.0, seconds, STEP)
    return np.column_stack([start + times, [position(t) for t in times], np.zeros(len(times))])


def held(position: Any, period: float) -> Any:
    """As servos do that get a target every period and hold it."""
    return lambda t: position(math.floor(t / period + 1e-9) * period)


def test_a_period_without_a_command_is_idle_and_a_late_command_is_not() -> None:
    period = 0.02
    times = [0.0, 0.02, 0.04, 0.069, 0.08, 0.12, 0.14, 0.22]
    assert figures.idle_ticks(times, period) == 1 + 3
    assert figures.idle_ticks([0.0], period) == 0


def test_jerk_of_a_cubic_is_its_own_at_either_rate() -> None:
    trace = trace_of(lambda t: 2.0 * t**3)
    assert figures.largest_jerk(trace[:, 1:], STEP) == pytest.approx(12.0, rel=1e-3)
    slow = figures.resampled(trace[:, 0], trace[:, 1:], 0.04)
    assert len(slow) == 25
    assert figures.largest_jerk(slow, 0.04) == pytest.approx(12.0, rel=1e-3)
    assert figures.largest_jerk(trace[:3, 1:], STEP) == 0.0


def test_held_targets_are_rough_at_the_servo_and_not_at_their_own_rate() -> None:
    period = 0.04
    trace = trace_of(held(lambda t: 0.5 * t, period))
    assert figures.largest_step(trace[:, 1:]) == pytest.approx(0.02)
    assert figures.largest_jerk(trace[:, 1:], STEP) == pytest.approx(2 * 0.02 / STEP**3)
    assert figures.largest_jerk(trace[::20, 1:], period) == pytest.approx(0.0, abs=1e-6)


def test_a_border_step_is_what_the_new_chunk_changes() -> None:
    now, queued, last = np.array([0.30, 1.0]), np.array([0.28, 1.01]), np.array([0.25, 1.0])
    assert figures.displacement(now, queued, last) == pytest.approx(0.02)
    assert figures.displacement(now, None, last) == pytest.approx(0.05)


def line(start: float, at: float, speed: float) -> Trajectory:
    """Two joints, the first from `at` with constant speed for half a second."""
    times, rest = np.array([0.0, 0.5]), np.zeros((2, 2))
    positions = np.array([[at, 0.0], [at + 0.5 * speed, 0.0]])
    return Trajectory(start, times, positions, rest + [speed, 0.0], rest)


def test_splices_are_judged_by_what_the_former_trajectory_says_there() -> None:
    smooth = trace_of(lambda t: 0.4 * t)
    commands = [(100.0, line(100.0, 0.0, 0.4)), (100.095, line(100.1, 0.04, 0.4)), (100.195, line(100.2, 0.08, 0.4))]
    assert max(figures.splice_steps(commands, smooth)) == pytest.approx(0.0, abs=1e-9)
    jumping = trace_of(lambda t: 0.4 * t + (0.03 if t > 0.19999 else 0.0))
    steps = figures.splice_steps(commands, jumping)
    assert steps == pytest.approx([0.0, 0.03], abs=1e-9)


def test_a_step_where_the_new_part_of_a_command_begins_counts() -> None:
    jumping = trace_of(lambda t: 0.4 * t + (0.03 if t > 0.10999 else 0.0))
    commands = [(100.0, line(100.0, 0.0, 0.4)), (100.095, line(100.1, 0.04, 0.4))]
    assert figures.splice_steps(commands, jumping) == pytest.approx([0.0], abs=1e-9)
    assert figures.splice_steps(commands, jumping, lead=0.01) == pytest.approx([0.03], abs=1e-9)


def test_delays_leave_out_the_network_and_rendering() -> None:
    frames = np.array([[100.0, 100.005], [100.04, 100.047]])
    seen = {"stamp": 100.04, "command": 100.07, "in_force": 100.08, "network_s": 0.018}
    unknown = {"stamp": 100.06, "command": 109.0, "in_force": 109.0, "network_s": 0.0}
    found = figures.delays([seen, unknown], frames)
    assert found["observations"] == 1
    assert found["delay_ms"]["p50"] == pytest.approx(30.0)
    assert found["in_force_ms"]["max"] == pytest.approx(40.0)
    assert found["overhead_ms"]["p50"] == pytest.approx(30.0 - 18.0 - 7.0)


def side(position: Any, period: float, **more: Any) -> tuple[dict[str, Any], np.ndarray]:
    trace = trace_of(position)
    commands = np.arange(100.0, 101.0, period)
    observation = {"stamp": 100.0, "command": 100.0 + 2 * period, "in_force": 100.0 + 2 * period, "network_s": 0.01}
    episode = {
        "task": "cube-single-1", "seed": 1, "success": True, "begin": 100.0, "end": 100.9, "commands": commands.tolist(), "chunks": 9,
        "observations": [observation], **more,
    }  # fmt: skip
    return {"period": period, "episodes": [episode, {"task": "cube-single-2", "seed": 1, "success": False, "commands": []}]}, trace


def test_the_summary_compares_both_sides_by_the_same_rows() -> None:
    def motion(t: float) -> float:
        return 0.3 * math.sin(3.0 * t)

    frames, period = np.array([[100.0, 100.005]]), 0.04
    actions = [[motion(t), 0.0] for t in np.arange(0.0, 0.9, period)]
    raw, trace = side(held(motion, period), period, border_steps=[0.01, 0.05], actions=actions)
    theirs = figures.summary(raw, trace, frames, period)
    raw, trace = side(motion, 0.02, border_steps=[1e-5])
    ours = figures.summary(raw, trace, frames, period)
    assert theirs.keys() == ours.keys()
    assert (theirs["episodes"], theirs["successes"], theirs["idle_ticks"]) == (2, 1, 0)
    assert ours["control_hz"] == pytest.approx(50.0, rel=0.03) and theirs["control_hz"] == pytest.approx(25.0, rel=0.03)
    assert ours["chunk_hz"] == pytest.approx(10.0)
    assert ours["real_time_factor"] == pytest.approx(1.0)
    assert theirs["jerk_at_control_rate"] == pytest.approx(ours["jerk_at_control_rate"], rel=0.1)
    ratio = figures.ratios(theirs, ours)
    assert ratio["delay_overhead_ratio"] == pytest.approx((80 - 15) / (40 - 15))
    assert ratio["border_step_ratio"] == pytest.approx(5000.0)
    assert ratio["setpoint_step_ratio"] > 10.0 and ratio["jerk_at_servo_ratio"] > 100.0


def test_an_idle_side_has_no_ratio() -> None:
    empty = figures.summary({"period": 0.02, "episodes": []}, np.empty((0, 7)), np.empty((0, 2)), 0.04)
    assert empty["delay_ms"] is None and empty["idle_ticks"] == 0
    assert set(figures.ratios(empty, empty).values()) == {None}


def test_a_slot_is_never_read_torn(tmp_path: Path) -> None:
    writer, reader = slots.Slots(tmp_path / "slots", create=True), slots.Slots(tmp_path / "slots")
    ended = threading.Event()

    def write() -> None:
        for k in range(20_000):
            writer.command.write(np.full(6, float(k)), float(k))
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not ended.is_set():
        value = reader.command.read()
        assert (value == value[0]).all()
    thread.join()
    assert reader.command.sequence == 40_000


def test_a_frame_comes_with_its_stamp(tmp_path: Path) -> None:
    writer, reader = slots.Slots(tmp_path / "slots", create=True), slots.Slots(tmp_path / "slots")
    picture = np.arange(math.prod(slots.PICTURE), dtype=np.uint8).reshape(slots.PICTURE)
    writer.show(1795383637.570178, picture)
    stamp, seen = reader.frame()
    assert stamp == 1795383637.570178
    np.testing.assert_array_equal(seen, picture)


def test_a_trace_is_what_the_servos_got(tmp_path: Path) -> None:
    trace = Trace(tmp_path / "folder" / "trace.npz", joints=2)
    trace.step(1.002, np.array([0.1, 0.2]))
    trace.step(1.004, np.array([0.3, 0.4]))
    trace.frame(1.002, 1.006)
    trace.save()
    with np.load(tmp_path / "folder" / "trace.npz") as found:
        np.testing.assert_array_equal(found["setpoints"], [[1.002, 0.1, 0.2], [1.004, 0.3, 0.4]])
        np.testing.assert_array_equal(found["frames"], [[1.002, 1.006]])
