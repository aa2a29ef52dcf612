"""The gripper controller's model."""

import math

import pytest

from act2goal_ros.control.gripper import STALL_TIMEOUT, GripperController

STEP = 0.002


def run(gripper, position, until, speed=2.0, blocked_at=None):
    """A gripper that moves towards its target at `speed` rad/s unless it meets something."""
    now = 0.0
    while now < until:
        way = gripper.target - position
        move = max(-speed * STEP, min(speed * STEP, way))
        if blocked_at is not None:
            move = min(move, blocked_at - position)
        position += move
        now += STEP
        gripper.update(now, position, move / STEP)
    return position


def test_commands_are_fractions_of_the_range():
    gripper = GripperController(0.1, 0.9)
    gripper.command(0.25)
    assert gripper.target == pytest.approx(0.3)
    assert gripper.fraction == pytest.approx(0.25)


@pytest.mark.parametrize("fraction", [-0.01, 1.01, math.nan])
def test_commands_out_of_range_are_refused(fraction):
    gripper = GripperController(0.0, 0.8)
    with pytest.raises(ValueError, match=f"{fraction}.*0 .open. .. 1"):
        gripper.command(fraction)
    assert gripper.target == 0.0


@pytest.mark.parametrize("position", [-0.1, 0.9, math.nan])
def test_goals_out_of_range_are_refused(position):
    with pytest.raises(ValueError, match="must be 0 .. 0.8 rad"):
        GripperController(0.0, 0.8).submit_goal(1, position, 0.0, 0.0)


def test_a_goal_is_reached():
    gripper = GripperController(0.0, 0.8)
    gripper.submit_goal(1, 0.5, 0.0, 0.0)
    run(gripper, 0.0, 1.0)
    (outcome,) = gripper.take_outcomes()
    assert outcome.reached and not outcome.stalled
    assert gripper.active_goal is None


def test_a_gripper_that_holds_something_has_stalled():
    gripper = GripperController(0.0, 0.8)
    gripper.submit_goal(1, 0.8, 0.0, 0.0)
    run(gripper, 0.0, 0.2 + STALL_TIMEOUT - 0.01, blocked_at=0.4)
    assert gripper.take_outcomes() == []
    run(gripper, 0.4, 1.0, blocked_at=0.4)
    (outcome,) = gripper.take_outcomes()
    assert outcome.stalled and not outcome.reached
    assert outcome.position == pytest.approx(0.4)
    assert gripper.target == pytest.approx(0.8), "and goes on pressing"


def test_a_new_goal_ends_the_older_and_cancel_holds():
    gripper = GripperController(0.0, 0.8)
    gripper.submit_goal(1, 0.8, 0.0, 0.0)
    gripper.submit_goal(2, 0.2, 0.1, 0.3)
    assert [(o.goal_id, o.canceled) for o in gripper.take_outcomes()] == [(1, True)]
    assert not gripper.cancel(1, 0.3)
    assert gripper.cancel(2, 0.35)
    assert gripper.target == pytest.approx(0.35)
    assert gripper.take_outcomes()[0].canceled


def test_reset_opens():
    gripper = GripperController(0.0, 0.8)
    gripper.submit_goal(1, 0.8, 0.0, 0.0)
    gripper.reset(0.4)
    assert gripper.target == 0.0
    assert gripper.take_outcomes()[0].canceled
