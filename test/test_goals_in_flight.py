"""What becomes of goals sent to a controller's action, and which of it stops the arm."""

from __future__ import annotations

import pytest

from act2goal_ros.control.acceptance import ErrorCode
from act2goal_ros.control.controller import GoalStatus
from act2goal_ros.control.goals_in_flight import KEPT, GoalsInFlight
from act2goal_ros.control.inputs import NO_CAUSE
from act2goal_ros.control.stop import StopReason as Reason

ACTION, TIMEOUT = "arm/follow_joint_trajectory", 0.25
NOW = 1.76e9
ABORTED, CANCELED, SUCCEEDED = GoalStatus.ABORTED, GoalStatus.CANCELED, GoalStatus.SUCCEEDED


def accepted(*numbers: int) -> GoalsInFlight:
    """Goals that were accepted one after the other, 20 ms apart from 10 s on; each lasts 0.3 s."""
    goals = GoalsInFlight(ACTION, TIMEOUT)
    for number in numbers:
        goals.sent(number, NOW + 0.3, 10.0 + 0.02 * number)
        assert goals.answered(number, True) == NO_CAUSE
    return goals


def test_a_goal_that_a_newer_one_replaced_is_counted_and_no_fault() -> None:
    goals = accepted(0, 1, 2)
    assert goals.ended(0, ABORTED, ErrorCode.INVALID_GOAL, "Current goal preempted by new incoming action.", NOW) == NO_CAUSE
    assert goals.ended(1, CANCELED, ErrorCode.INVALID_GOAL, "preempted", NOW) == NO_CAUSE  # as in Humble
    assert goals.counts["preempted"] == 2 and goals.counts["failed"] == 0
    assert 2 in goals and 1 not in goals


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ErrorCode.INVALID_GOAL, Reason.CONTROLLER_LOST),
        (ErrorCode.INVALID_JOINTS, Reason.BAD_CHUNK),
        (ErrorCode.OLD_HEADER_TIMESTAMP, Reason.DELAY_OVER_BUDGET),
        (ErrorCode.PATH_TOLERANCE_VIOLATED, Reason.CONTROLLER_TRACKING_ERROR),
        (ErrorCode.GOAL_TOLERANCE_VIOLATED, Reason.CONTROLLER_TRACKING_ERROR),
        (-17, Reason.CONTROLLER_LOST),
    ],
)
def test_the_goal_in_force_that_is_aborted_stops_the_arm_and_says_why(code: int, reason: Reason) -> None:
    goals = accepted(0, 1)
    cause = goals.ended(1, ABORTED, code, "elbow_joint is 0.3 rad off", NOW)
    assert cause[0] == reason
    for word in (ACTION, f"error {int(code)} ", "elbow_joint is 0.3 rad off"):
        assert word in cause[1]
    assert goals.counts["failed"] == 1


def test_a_violated_tolerance_counts_although_a_newer_goal_is_on_its_way() -> None:
    """The controller violated it with the goal it had: it has stopped, whatever was sent in the meantime."""
    goals = accepted(0, 1)
    assert goals.ended(0, ABORTED, ErrorCode.PATH_TOLERANCE_VIOLATED, "", NOW)[0] == Reason.CONTROLLER_TRACKING_ERROR


def test_a_rejected_goal_stops_the_arm_but_a_rejected_stop_does_not() -> None:
    goals = accepted(0)
    goals.sent(1, NOW + 0.3, 10.1)
    reason, detail = goals.answered(1, False)
    assert reason == Reason.CONTROLLER_LOST and f"{ACTION} rejected a goal" in detail
    goals.sent(2, NOW + 0.02, 10.2, stops=True)
    assert goals.answered(2, False) == NO_CAUSE
    assert goals.counts["rejected"] == 2


def test_success_is_no_fault_unless_it_comes_before_its_time() -> None:
    assert accepted(0).ended(0, SUCCEEDED, 0, "", NOW + 0.29) == NO_CAUSE
    assert accepted(0, 1).ended(0, SUCCEEDED, 0, "", NOW) == NO_CAUSE
    reason, detail = accepted(0).ended(0, SUCCEEDED, 0, "", NOW + 0.1)
    assert reason == Reason.CONTROLLER_LOST and "0.200 s before its time" in detail
    goals = GoalsInFlight(ACTION, TIMEOUT)
    goals.sent(0, NOW + 0.3, 10.0, stops=True)  # the supervisor may brake over a stop
    goals.answered(0, True)
    assert goals.ended(0, SUCCEEDED, 0, "", NOW + 0.1) == NO_CAUSE


def test_a_goal_somebody_cancels_stops_the_arm() -> None:
    assert accepted(0).ended(0, CANCELED, 0, "", NOW)[0] == Reason.CONTROLLER_LOST


def test_a_server_that_does_not_answer_is_lost_with_value_and_bound() -> None:
    goals = accepted(0)
    for k in range(1, 4):
        goals.sent(k, NOW, 10.0 + 0.1 * k)
    assert goals.silence(10.34) == NO_CAUSE
    reason, detail = goals.silence(10.36)
    assert reason == Reason.CONTROLLER_LOST
    assert detail == f"{ACTION} has not answered a goal for 0.260 s, allowed 0.25 s"
    assert goals.silence(10.9)[0] == Reason.CONTROLLER_LOST  # until it answers
    assert goals.answered(2, True) == NO_CAUSE
    assert goals.counts["unanswered"] == 1
    assert goals.answered(3, True) == NO_CAUSE
    assert goals.silence(11.0) == NO_CAUSE


def test_after_a_long_silence_motion_may_be_tried_again() -> None:
    """A server that was started anew knows nothing of the goals of old, and never answers them."""
    goals = GoalsInFlight(ACTION, TIMEOUT)
    goals.sent(0, NOW, 10.0)
    goals.sent(1, NOW, 10.3, stops=True)
    assert goals.silence(11.2)[0] == Reason.CONTROLLER_LOST
    assert goals.silence(11.4) == NO_CAUSE
    goals.sent(2, NOW, 11.5)
    assert goals.silence(11.6) == NO_CAUSE
    assert goals.silence(11.8)[0] == Reason.CONTROLLER_LOST


def test_late_words_about_old_goals_are_ignored() -> None:
    goals = accepted(0, 1)
    goals.sent(2, NOW, 10.2)
    goals.forget()
    assert goals.answered(2, False) == NO_CAUSE
    assert goals.ended(1, ABORTED, ErrorCode.PATH_TOLERANCE_VIOLATED, "", NOW) == NO_CAUSE
    assert goals.ended(0, ABORTED, ErrorCode.INVALID_GOAL, "", NOW) == NO_CAUSE
    assert goals.silence(20.0) == NO_CAUSE
    assert goals.counts["late"] == 3


def test_goals_whose_results_never_come_are_not_kept_for_ever() -> None:
    goals = accepted(*range(2 * KEPT))
    assert sum(number in goals for number in range(2 * KEPT)) == KEPT
    assert 2 * KEPT - 1 in goals
