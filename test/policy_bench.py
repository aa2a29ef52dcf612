"""For tests of the policy node: the node in a process of its own between a fake world and a fake model, and a probe around both."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from act2goal_msgs.msg import Adapter, Chunk, ControlStatus, Goal, LiveLatent, NodeStatus, Stop
from control_msgs.msg import JointTrajectoryControllerState
from fake_policy import SPEED
from ros_tools import Probe, new_domain, running, wait_for
from std_msgs.msg import Bool, Float64, String
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason as Reason
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.trajectories import seconds

ROBOT = RobotConfig.load("ur5e_sim")
LIMITS = ROBOT.limits
LEAST_STOP = 2 * (SPEED / LIMITS.jerk[0]) ** 0.5  # s: 0.6 rad/s at 100 rad/s³ never reaches 10 rad/s²
SLACK = 0.1  # s: the sweep may still be settling, on a busy machine above all


class Bench:
    """A probe around world and policy."""

    def __init__(self, domain: int, mode_file: Path, world: subprocess.Popen[str], policy: subprocess.Popen[str]) -> None:
        self.probe = probe = Probe(domain)
        self.world, self.policy = world, policy
        self.mode_file = mode_file
        self.marked = 0
        self.states = probe.listen(JointTrajectoryControllerState, ROBOT.controller.state_topic, qos.COMMAND)
        self.status = probe.listen(ControlStatus, topics.CONTROL_STATUS, qos.COMMAND)
        self.commands = probe.listen(JointTrajectory, ROBOT.controller.joint_trajectory_topic, qos.COMMAND)
        self.goals = probe.listen(JointTrajectory, topics.COMMANDED, qos.COMMAND)
        self.chunks = probe.listen(Chunk, topics.CHUNK, qos.COMMAND)
        self.latents = probe.listen(LiveLatent, topics.LIVE_LATENT, qos.SENSOR)
        self.grips = probe.listen(Float64, ROBOT.gripper.command_topic, qos.COMMAND)
        for kind, topic, profile in (
            (Adapter, topics.ADAPTER, qos.LATCHED),
            (Goal, topics.GOAL, qos.LATCHED),
            (String, "fault", qos.EVENT),
            (Stop, topics.STOP, qos.LATCHED),
            (Bool, topics.E_STOP, qos.EVENT),
            (NodeStatus, topics.STATUS, qos.STATUS),
        ):
            probe.advertise(kind, topic, profile)

    def wait_ready(self) -> None:
        """Until the policy is active and everything that is published here is heard."""
        self.probe.wait_active("policy", 30.0)
        self.probe.wait_for_subscribers(topics.GOAL, "fault", topics.STOP, topics.E_STOP)

    def goal(self, goal_id: str, state: int = Goal.ACTIVE) -> None:
        self.probe.publish(topics.GOAL, Goal(goal_id=goal_id, state=state))

    def wait_running(self) -> None:
        """Until the policy drives and the arm sweeps at its full speed."""
        assert self.world.poll() is None, f"the fake world ended with exit code {self.world.returncode}"
        wait_for(lambda: self.last.state == ControlStatus.RUNNING and self.speed() > 0.9 * SPEED, 12.0,
                 lambda: f"motion; {self.last.state} {self.last.stop_detail}, {len(self.status)} statuses")  # fmt: skip
        self.away_from_turn()

    def away_from_turn(self) -> None:
        """Until the next turn of the sweep is more than a second away."""

        def calm() -> bool:
            recent = list(self.states)[-40:]
            q, v = (np.array([getattr(s.reference, kind)[0] for s in recent]) for kind in ("positions", "velocities"))
            steady = len(recent) == 40 and np.abs(np.abs(v) - SPEED).max() < 0.02 * SPEED
            return steady and abs(1.5 * np.sign(v[-1]) - q[-1]) > 1.2 * SPEED

        wait_for(calm, 40.0, "steady motion away from a turn")

    @property
    def last(self) -> ControlStatus:
        return self.status[-1] if self.status else ControlStatus()

    def speed(self) -> float:
        return float(np.abs(self.states[-1].reference.velocities).min()) if self.states else 0.0

    def at(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and the fastest joint's speed of all controller states so far."""
        states = list(self.states)
        times = np.array([seconds(s.header.stamp) for s in states])
        return times, np.array([np.abs(s.reference.velocities).max() for s in states])

    def stop_after(self, cause_at: float) -> tuple[float, float]:
        """When braking began and when the arm stood, s after the cause."""
        wait_for(lambda: self.speed() < 1e-3 and self.at()[1][-1] < 1e-3, 3.0, f"standing still, {self.last.stop_detail}")
        times, speeds = self.at()
        after = times > cause_at
        began = times[after][np.argmax(speeds[after] < 0.97 * SPEED)]
        ended = times[after][np.argmax(speeds[after] < 1e-3)]
        return began - cause_at, ended - began

    def mark(self) -> float:
        """From here on `expect` looks; returns the time."""
        self.marked = len(self.status)
        return time.time()

    def expect(self, reason: Reason, *words: str) -> None:
        """Waits until the stop reason with these words in its detail was told since `mark`."""

        def told() -> bool:
            since = [s for s in list(self.status)[self.marked :] if s.stop_reason.value == reason]
            return any(all(word in s.stop_detail for word in words) for s in since)

        wait_for(told, 5.0, lambda: f"{reason.name} {words}, is {self.last.stop_reason.value} {self.last.stop_detail}")


@contextlib.contextmanager
def bench(tmp_path: Path, mode: str = "desired_state", clock: bool = False, **policy: Any) -> Iterator[Bench]:
    """World and policy with these parameters in their processes, a probe here."""
    domain, mode_file = new_domain(), tmp_path / "mode"
    environment = {"FAKE_MODE": str(mode_file), "OMP_NUM_THREADS": "1"}
    with (
        running("nodes_under_test.world", domain, tmp_path / "world.log", {"mode": mode, "clock": clock}, environment) as world,
        running("fake_policy", domain, tmp_path / "policy.log", {"use_sim_time": clock, **policy}, environment) as node,
    ):
        found = Bench(domain, mode_file, world, node)
        try:
            found.wait_ready()
            yield found
        finally:
            found.probe.close()
            for name in ("world", "policy"):
                print(f"{name}.log:", (tmp_path / f"{name}.log").read_text()[-3000:])


@contextlib.contextmanager
def shared_benches(folder: Path, **policy: Any) -> Iterator[Callable[[], Bench]]:
    """What returns a bench with a goal for many tests: the same one as long as both of its processes live."""
    found: list[Bench] = []
    with contextlib.ExitStack() as stack:

        def get() -> Bench:
            if not found or any(process.poll() is not None for process in (found[-1].world, found[-1].policy)):
                stack.close()
                found.append(stack.enter_context(bench(folder, **policy)))
                found[-1].goal("g1")
            return found[-1]

        yield get


def inject(b: Bench, fault: str) -> float:
    """Starts a fault in the world; returns when."""
    b.wait_running()
    now = b.mark()
    b.probe.publish("fault", String(data=fault))
    return now


def check_stop(b: Bench, provoke: Callable[[], float], clear: Callable[[], object], late: float = 0.1) -> None:
    """Braking begins `late` s after the cause and ends in least time; on a busy machine once in three times will do."""
    for _ in range(3):
        b.wait_running()
        cause_at = provoke()
        try:
            began, lasted = b.stop_after(cause_at)
        finally:
            clear()
        print(f"braking began after {1e3 * began:.0f} ms and lasted {1e3 * lasted:.0f} ms")
        if began < late and lasted < LEAST_STOP + SLACK:
            break
    else:
        raise AssertionError(f"braking began after {began:.3f} s, lasted {lasted:.3f} s; allowed {late} s, {LEAST_STOP + SLACK} s")
    b.wait_running()


def check_speed_scaling(b: Bench) -> None:
    """At speed 0 the arm stands and waits, at half speed it goes on; neither is a fault."""
    b.wait_running()
    b.mark()
    b.probe.publish("fault", String(data="paused"))
    try:
        wait_for(lambda: b.states[-1].speed_scaling_factor == 0.0, 5.0, "the pause")
        time.sleep(0.2)
        held = np.array(b.states[-1].reference.positions)
        time.sleep(0.6)
        assert np.array(b.states[-1].reference.positions) == pytest.approx(held, abs=1e-6)
        assert b.last.state != ControlStatus.RUNNING
        b.probe.publish("fault", String(data="slowed"))
        wait_for(lambda: b.last.state == ControlStatus.RUNNING and b.speed() > 0.3 * SPEED, 5.0, "motion at half speed")
        assert b.states[-1].speed_scaling_factor == 0.5
    finally:
        b.probe.publish("fault", String(data=""))
    b.wait_running()
    reasons = {Reason(s.stop_reason.value) for s in list(b.status)[b.marked :]}
    assert reasons == {Reason.NONE}, [s.stop_detail for s in list(b.status)[b.marked :] if s.stop_detail]
