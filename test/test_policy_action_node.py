"""The policy node commanding by FollowJointTrajectory, before the simulated arm's action server: motion, results, silence, death."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from act2goal_msgs.msg import ControlStatus
from builtin_interfaces.msg import Duration
from fake_policy import sweep
from policy_bench import LEAST_STOP, LIMITS, ROBOT, SLACK, Bench, bench, check_speed_scaling, check_stop, shared_benches
from ros_tools import wait_for
from std_msgs.msg import Bool, String
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros import paths
from act2goal_ros.control.stop import StopReason as Reason
from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.nodes import qos, topics, trajectories
from act2goal_ros.nodes.outlet import tolerances

ACTION = ROBOT.controller.action
PATH_TOLERANCE = 0.05  # rad
TAKEN_AWAY = (Reason.CONTROLLER_TRACKING_ERROR, Reason.CONTROLLER_LOST)


def robot_file(folder: Path) -> str:
    """A robot whose goals carry a path tolerance, and whose action succeeds within 1 rad."""
    text = (paths.share() / "config" / "robots" / "ur5e_sim.yaml").read_text()
    changed = text.replace("path_tolerance: 0.0", f"path_tolerance: {PATH_TOLERANCE}").replace("goal_tolerance: 0.0", "goal_tolerance: 1.0")
    assert changed != text
    (folder / "robot.yaml").write_text(changed)
    return str(folder / "robot.yaml")


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Bench]]:
    folder = tmp_path_factory.mktemp("action")
    with shared_benches(folder, command_interface="action", robot=robot_file(folder)) as get:
        yield get


@pytest.fixture
def shared(benches: Callable[[], Bench]) -> Bench:
    return benches()


def counts(b: Bench) -> dict[str, int]:
    """What became of the goals, as the heartbeat says."""
    values = b.probe.values("policy")
    return {key.removeprefix("goals."): int(value) for key, value in values.items() if key.startswith("goals.")}


def end_fault(b: Bench) -> None:
    b.probe.publish("fault", String(data=""))


def off_the_sweep(b: Bench, start: int) -> float:
    """How far the controller's reference is off what the policy asks for, rad; the 95th percentile since a state."""
    states = list(b.states)[start:]
    wanted = sweep(np.array([trajectories.seconds(s.header.stamp) for s in states]))
    return float(np.percentile(np.abs(np.array([s.reference.positions for s in states]) - wanted), 95))


@pytest.mark.parametrize(("mode", "bound"), [("desired_state", 0.015), ("splice", 0.02), ("measured_state", 0.03)])
def test_goals_move_the_arm_along_before_each_kind_of_controller(tmp_path, mode, bound) -> None:
    """On the topic it is 3, 5 and 3 mrad on a quiet machine."""
    with bench(tmp_path, mode, command_interface="action") as b:
        b.goal("g1")
        wait_for(lambda: len(b.states) > 300 and off_the_sweep(b, len(b.states) - 60) < bound, 15.0, "steady motion")
        start, since = len(b.states), len(b.status)
        time.sleep(2.0)
        off, heard = off_the_sweep(b, start), counts(b)
        print(heard, f"{b.last.command_hz:.1f} goals/s, delay p50 {b.last.delay_ms_p50:.0f} ms, {1e3 * off:.1f} mrad off")
        assert {s.stop_reason.value for s in list(b.status)[since:]} == {Reason.NONE}
        assert off < bound
        assert not b.commands, "nothing on the topic"
        assert not any(np.any(goal.points[-1].velocities) for goal in list(b.goals)), "each ends at rest"
        assert heard["accepted"] > 20 and heard["preempted"] > 20
        assert not heard.get("failed") and not heard.get("rejected"), heard


def test_a_violated_path_tolerance_stops_with_its_code_and_text(shared) -> None:
    b = shared
    b.wait_running()
    b.mark()
    b.probe.publish("fault", String(data="stuck"))
    try:
        b.expect(Reason.CONTROLLER_TRACKING_ERROR, "error -4 PATH_TOLERANCE_VIOLATED", "rad off, tolerance 0.0500 rad")
        stopped = len(b.status)
        wait_for(lambda: any(s.state == ControlStatus.HOLDING for s in list(b.status)[stopped:]), 5.0, "holding")
    finally:
        end_fault(b)
    b.wait_running()
    wait_for(lambda: counts(b).get("failed", 0) > 0, 5.0, "the heartbeat's count")


def test_a_rejected_goal_is_named(shared) -> None:
    b = shared
    b.wait_running()
    b.mark()
    b.probe.publish("fault", String(data="off"))
    try:
        b.expect(Reason.CONTROLLER_LOST, f"{ACTION} rejected a goal")
    finally:
        end_fault(b)
    b.wait_running()


def test_a_server_that_does_not_answer_is_lost_with_value_and_bound(shared) -> None:
    b = shared
    b.wait_running()
    at, topic_before = b.mark(), len(b.commands)
    b.probe.publish("fault", String(data="mute"))
    try:
        b.expect(Reason.CONTROLLER_LOST, f"{ACTION} has not answered a goal for", "allowed 0.25 s")
        wait_for(lambda: len(b.commands) > topic_before, 2.0, "a braking trajectory on the topic, too")
        began, lasted = b.stop_after(at)
        print(f"braking began {began:.3f} s after the silence and lasted {lasted:.3f} s")
    finally:
        end_fault(b)
    b.wait_running()  # what was queued is answered late, and does no harm


def test_an_e_stop_brakes_by_a_goal(shared) -> None:
    def provoke() -> float:
        at = shared.mark()
        shared.probe.publish(topics.E_STOP, Bool(data=True))
        shared.expect(Reason.E_STOP)
        return at

    check_stop(shared, provoke, lambda: shared.probe.publish(topics.E_STOP, Bool(data=False)))


def test_a_controller_that_is_paused_or_slowed_down_is_waited_for(shared) -> None:
    check_speed_scaling(shared)


def test_somebody_else_who_commands_by_the_topic_is_noticed(shared) -> None:
    """As the supervisor does: the topic overrides the goal, and the policy does not fight for the arm."""
    b = shared
    b.wait_running()
    b.mark()
    before = len(b.status)
    topic = ROBOT.controller.joint_trajectory_topic
    b.probe.advertise(JointTrajectory, topic, qos.COMMAND)
    b.probe.wait_for_subscribers(topic)
    hold = np.array([b.states[-1].reference.positions])
    rest = np.zeros_like(hold)

    def noticed() -> bool:
        start = b.probe.node.get_clock().now().nanoseconds * 1e-9
        still = Trajectory(start, np.array([0.05]), hold, rest, rest)
        b.probe.publish(topic, trajectories.to_message(still, ROBOT.joint_names))
        return any(s.stop_reason.value in TAKEN_AWAY for s in list(b.status)[before:])

    wait_for(noticed, 5.0, "a stop")
    b.wait_running()


def test_the_policys_death_leaves_an_arm_at_rest(tmp_path) -> None:
    for _ in range(3):
        with bench(tmp_path, command_interface="action") as b:
            b.goal("g1")
            b.wait_running()
            at = time.time()
            b.policy.kill()
            began, lasted = b.stop_after(at)
        if began < 0.13 and lasted < LEAST_STOP + SLACK:
            return
    raise AssertionError(f"braking began {began:.3f} s after the death and lasted {lasted:.3f} s")


def test_a_policy_that_ends_brakes_within_its_limits(tmp_path) -> None:
    """SIGINT in motion: the last goal brakes, and none is canceled, which would hold the arm at once."""
    with bench(tmp_path, command_interface="action") as b:
        b.goal("g1")
        b.wait_running()
        b.policy.send_signal(2)
        wait_for(lambda: b.speed() < 1e-3, 5.0, "rest")
        states = list(b.states)[-100:]
        times = np.array([trajectories.seconds(s.header.stamp) for s in states])
        speeds = np.array([s.reference.velocities[0] for s in states])
        allowed = 1.5 * LIMITS.acceleration[0] * np.diff(times) + 0.1  # stamps jitter; a stop at once would be 0.6 in 8 ms
        assert (np.abs(np.diff(speeds)) < allowed).all(), np.round(speeds, 2).tolist()


def test_without_the_action_the_policy_says_so(tmp_path) -> None:
    with bench(tmp_path, command_interface="action") as b:
        b.goal("g1")
        b.wait_running()
        b.mark()
        b.probe.publish("fault", String(data="gone"))
        b.expect(Reason.CONTROLLER_LOST, f"nobody offers the action {ACTION}")
        wait_for(lambda: b.speed() < 1e-3, 5.0, "rest")


def test_tolerances_of_the_robots_file_go_with_each_goal() -> None:
    def fields(**values: float) -> dict[str, Any]:
        return tolerances(dataclasses.replace(ROBOT.controller, **values), ROBOT.joint_names)

    assert fields() == {"path_tolerance": [], "goal_tolerance": [], "goal_time_tolerance": Duration()}
    given = fields(path_tolerance=0.1, goal_tolerance=-1.0, goal_time_tolerance=-1.0)
    assert [(t.name, t.position) for t in given["path_tolerance"]] == [(name, 0.1) for name in ROBOT.joint_names]
    assert {t.position for t in given["goal_tolerance"]} == {-1.0}
    assert trajectories.seconds(given["goal_time_tolerance"]) == -1.0
    assert trajectories.seconds(fields(goal_time_tolerance=0.25)["goal_time_tolerance"]) == 0.25
