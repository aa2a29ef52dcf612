"""The life of a goal, without ROS."""

from __future__ import annotations

import math

import pytest

from act2goal_ros.control.goals import Ended, GoalState, Outcome, Pursuit
from act2goal_ros.control.progress import ReachedLimits
from act2goal_ros.control.stop import StopReason

LIMITS = ReachedLimits(time_to_goal=0.5, speed=0.05, hold=0.5)


@pytest.fixture
def pursuit() -> Pursuit:
    """A goal begun at 100 s with 20 s to go."""
    pursuit = Pursuit(LIMITS, stop_patience=5.0)
    pursuit.begin(100.0, 20.0)
    return pursuit


def arrive(pursuit: Pursuit, since: float, speed: float = 0.0) -> Ended | None:
    """A second of frames at the goal."""
    for k in range(25):
        t = since + 0.04 * k
        ended = pursuit.measured(pursuit.goal_id, t, 0.98, 0.1, 0.2, speed, t)
        if ended is not None:
            return ended
    return None


def test_without_a_goal_nothing_ends() -> None:
    pursuit = Pursuit(LIMITS)
    assert pursuit.state == GoalState.NONE and not pursuit.is_active
    assert pursuit.cancel(1.0) is None and pursuit.tick(1e9) is None and pursuit.abandon(1.0, "") is None


def test_reached_after_the_hold(pursuit: Pursuit) -> None:
    ended = arrive(pursuit, 105.0)
    assert ended is not None and ended.outcome == Outcome.REACHED
    assert 5.5 <= ended.duration <= 5.6 and ended.progress == 0.98 and ended.time_to_goal == 0.1
    assert pursuit.state == GoalState.REACHED
    assert arrive(pursuit, 110.0) is None, "a goal ends once"


@pytest.mark.parametrize("speed", [0.2, math.nan])
def test_not_reached_while_the_arm_moves_or_its_speed_is_unknown(pursuit: Pursuit, speed: float) -> None:
    assert arrive(pursuit, 105.0, speed) is None and pursuit.is_active


def test_not_reached_by_the_progress_of_another_goal(pursuit: Pursuit) -> None:
    for k in range(50):
        assert pursuit.measured("other", 101.0 + 0.04 * k, 1.0, 0.0, 0.0, 0.0, 101.0 + 0.04 * k) is None
    assert pursuit.progress == 0.0


def test_not_reached_while_stopped(pursuit: Pursuit) -> None:
    pursuit.stopped(True, StopReason.STALE_IMAGE, "no image", 104.9)
    assert arrive(pursuit, 105.0) is None
    pursuit.stopped(False, 0, "", 106.0)
    assert arrive(pursuit, 106.0) is not None


def test_times_out_and_says_what_was_missing(pursuit: Pursuit) -> None:
    pursuit.measured(pursuit.goal_id, 119.0, 0.4, 3.0, 0.2, 0.0, 119.0)
    assert pursuit.tick(119.9) is None
    ended = pursuit.tick(120.1)
    assert ended is not None and ended.outcome == Outcome.TIMED_OUT
    assert ended.message == "not reached within 20 s: time to goal 3.00 s > 0.50 s"
    assert pursuit.state == GoalState.FAILED


def test_no_timeout_when_it_is_zero() -> None:
    pursuit = Pursuit(LIMITS)
    pursuit.begin(0.0, 0.0)
    assert pursuit.tick(1e9) is None


def test_a_new_goal_preempts(pursuit: Pursuit) -> None:
    old = pursuit.goal_id
    new, ended = pursuit.begin(103.0, 20.0)
    assert ended is not None and (ended.goal_id, ended.outcome) == (old, Outcome.PREEMPTED)
    assert new != old and pursuit.goal_id == new and pursuit.is_active
    assert pursuit.tick(122.9) is None and pursuit.tick(123.1) is not None


def test_canceled(pursuit: Pursuit) -> None:
    ended = pursuit.cancel(101.0)
    assert ended is not None and ended.outcome == Outcome.CANCELED and pursuit.state == GoalState.CANCELED


def test_a_stop_that_passes_leaves_the_goal(pursuit: Pursuit) -> None:
    assert pursuit.stopped(True, StopReason.NODE_LOST, "policy ended", 101.0) is None
    assert pursuit.stop == (StopReason.NODE_LOST, "policy ended")
    assert pursuit.tick(105.9) is None
    pursuit.stopped(False, 0, "", 105.95)
    assert pursuit.tick(107.0) is None and pursuit.is_active and pursuit.stop == (StopReason.NONE, "")


def test_a_stop_that_stays_ends_the_goal(pursuit: Pursuit) -> None:
    pursuit.stopped(True, StopReason.NODE_LOST, "policy ended", 101.0)
    pursuit.stopped(True, StopReason.INACTIVE, "policy is unconfigured", 104.0)
    ended = pursuit.tick(106.1)
    assert ended is not None and ended.outcome == Outcome.STOPPED
    assert ended.message == "stopped for 5 s: INACTIVE: policy is unconfigured"


def test_the_policy_s_own_stop_ends_the_goal_too_once_the_arm_has_moved_for_it(pursuit: Pursuit) -> None:
    pursuit.held(StopReason.STALE_PLAN, "no plan yet", 101.0)
    assert pursuit.tick(110.0) is None, "a first plan may take its time"
    pursuit.moved()
    pursuit.held(StopReason.STALE_IMAGE, "camera frame is 0.2 s old", 111.0)
    pursuit.held(StopReason.NONE, "", 112.0)
    assert pursuit.stop == (StopReason.NONE, "")
    pursuit.held(StopReason.STALE_IMAGE, "camera frame is 0.2 s old", 113.0)
    pursuit.held(StopReason.STALE_IMAGE, "camera frame is 4.1 s old", 117.0)
    assert pursuit.stop == (StopReason.STALE_IMAGE, "camera frame is 4.1 s old") and pursuit.tick(117.9) is None
    ended = pursuit.tick(118.1)
    assert ended is not None and (ended.outcome, ended.message) == (
        Outcome.STOPPED,
        "stopped for 5 s: STALE_IMAGE: camera frame is 4.1 s old",
    )


def test_a_goal_set_before_the_graph_is_up_waits_for_it() -> None:
    pursuit = Pursuit(LIMITS, stop_patience=5.0)
    pursuit.stopped(True, StopReason.INACTIVE, "starting", 0.0)
    pursuit.begin(1.0, 60.0)
    assert pursuit.tick(50.0) is None
    pursuit.stopped(False, 0, "", 51.0)
    pursuit.stopped(True, StopReason.NODE_LOST, "policy ended", 52.0)
    assert pursuit.tick(56.0) is None and pursuit.tick(57.1) is not None


def test_the_emergency_stop_ends_the_goal_and_refuses_the_next(pursuit: Pursuit) -> None:
    ended = pursuit.stopped(True, StopReason.E_STOP, "pressed", 101.0)
    assert ended is not None and ended.outcome == Outcome.STOPPED and pursuit.state == GoalState.FAILED
    assert "emergency stop" in pursuit.refusal()
    pursuit.stopped(False, 0, "", 102.0)
    assert pursuit.refusal() == "" and not pursuit.is_active
