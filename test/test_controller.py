"""The model of the joint trajectory controller against what ros2_controllers' sources do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from act2goal_ros.control.acceptance import ErrorCode, Rejection, TrajectoryCommand
from act2goal_ros.control.controller import ControllerConfig, GoalStatus, JointTrajectoryController
from act2goal_ros.control.segments import Points, Spline, State
from act2goal_ros.control.tolerances import JointTolerance
from act2goal_ros.control.trajectory import Trajectory

JOINTS = ("a", "b", "c")
PERIOD = 0.002
T0 = 1_763_800_000.0  # s, as large as system time


class Plant:
    """A controller with an arm that reaches each command one period later, or follows with a lag."""

    def __init__(self, mode="measured_state", lag=0.0, at=0.0, **config):
        self.controller = JointTrajectoryController(ControllerConfig(joint_names=JOINTS, **config).in_mode(mode))
        self.q = np.full(3, at)
        self.v = np.zeros(3)
        self.lag = lag
        self.steps = 0
        self.log = []
        self.controller.activate(T0, self.q)

    @property
    def now(self):
        return T0 + self.steps * PERIOD

    def run(self, seconds):
        for _ in range(round(seconds / PERIOD)):
            command = self.controller.update(self.now, self.q, self.v)
            state = self.controller.state
            self.log.append((self.now, command[0], *(x[0] for x in state.desired), self.q[0]))
            after = self.q + (command - self.q) * (PERIOD / (PERIOD + self.lag))
            self.v, self.q = (after - self.q) / PERIOD, after
            self.steps += 1
        return self

    def column(self, name):
        return np.array([row[("time", "command", "q", "v", "a", "measured").index(name)] for row in self.log])

    def at(self, time):
        """The reference at an absolute time."""
        return self.column("q")[round((time - T0) / PERIOD)]


def command(times, q, v=None, a=None, stamp=0.0, names=JOINTS):
    def rows(values):
        return () if values is None else [() if x is None else [x, 2 * x, -x][: len(names)] for x in values]

    return TrajectoryCommand(
        joint_names=names, times=times, positions=rows(q), velocities=rows(v), accelerations=rows(a), stamp=stamp
    )


def move(to=1.0, duration=1.0, start=0.0, stamp=0.0):
    """Rest to rest by a quintic, with a point at time 0."""
    return command([0.0, duration], [start, to], [0, 0], [0, 0], stamp)


# -- interpolation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("v", "a", "middle"), [(None, None, (0.5, 1.0, 0.0)), ([0, 0], None, (0.5, 1.5, 0.0))])
def test_interpolation_follows_what_the_points_carry(v, a, middle):
    plant = Plant()
    plant.controller.submit(command([0.0, 1.0], [0, 1], v, a), plant.now)
    plant.run(1.5)
    row = plant.log[250]
    assert row[2:5] == pytest.approx(middle, abs=1e-9)
    assert plant.q == pytest.approx([1, 2, -1])


def test_quintic_is_continuous_in_acceleration_and_command_is_one_period_ahead():
    plant = Plant()
    plant.controller.submit(move(), plant.now)
    plant.run(1.5)
    a = plant.column("a")
    assert np.abs(np.diff(a)).max() < 60 * PERIOD * 1.01
    assert plant.column("command")[:-1] == pytest.approx(plant.column("q")[1:], abs=1e-12)


def test_a_segment_takes_the_lesser_of_what_its_two_points_carry():
    plant = Plant()
    plant.controller.submit(command([0.0, 1.0, 2.0], [0, 1, 2], [0, None, 0], [0, None, 0]), plant.now)
    plant.run(2.0)
    assert plant.column("v")[1:999] == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2), st.integers(2, 12))
def test_points_are_met_and_derivatives_are_those_of_the_positions(seed, order, count):
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.02, 0.5, count))
    q, v, a = random.uniform(-3, 3, (3, count, 4))
    points = Points(times, q, *(x if order > k else np.full_like(x, np.nan) for k, x in enumerate((v, a))))
    spline = Spline(100.0, State(q[0], v[0], a[0]), points, 100.0)
    plain = Trajectory(100.0, times, q, v if order > 0 else None, a if order > 1 else None)
    for time in random.uniform(100.0 + times[0] + 1e-6, 100.0 + times[-1] - 1e-6, 40):
        for mine, theirs in zip(spline.sample(time)[0], plain.sample(time), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-7, atol=1e-6)
    for k in range(count - 1):
        state, index = spline.sample(100.0 + times[k] + 1e-12)
        np.testing.assert_allclose(state.positions, q[k], atol=1e-6)
        assert index == k + 1


# -- start and end -------------------------------------------------------------------------------------------


def test_stamped_start_waits_and_zero_stamp_starts_now():
    later, now = Plant(), Plant()
    later.controller.submit(move(stamp=T0 + 0.5), later.now)
    now.controller.submit(move(), now.now)
    later.run(2.0), now.run(2.0)
    assert later.column("q")[:251] == pytest.approx(0.0)
    assert later.column("q")[250:750] == pytest.approx(now.column("q")[:500], abs=1e-6)


def test_holds_the_last_point_after_the_end():
    plant = Plant()
    plant.controller.submit(move(), plant.now)
    plant.run(3.0)
    assert plant.column("command")[505:] == pytest.approx(1.0)
    assert plant.column("v")[505:] == pytest.approx(0.0)


def test_the_first_point_later_than_now_is_led_in_to():
    plant = Plant()
    plant.controller.submit(command([1.0], [1.0], [0.0], [0.0]), plant.now)
    plant.run(1.5)
    assert 0.0 < plant.at(T0 + 0.1) < 0.1
    assert plant.at(T0 + 0.5) == pytest.approx(0.5, abs=1e-6)
    assert plant.q[0] == pytest.approx(1.0)


def test_partly_past_is_entered_in_its_middle():
    plant = Plant(at=0.3)
    plant.controller.submit(move(start=0.0, stamp=T0 - 0.5), plant.now)
    plant.run(0.004)
    assert plant.log[0][2] == pytest.approx(0.5, abs=1e-6)
    plant.run(1.0)
    assert plant.at(T0 + 0.5) == pytest.approx(1.0)


@pytest.mark.parametrize("mode", ["measured_state", "desired_state", "splice"])
def test_wholly_past_is_rejected_and_the_running_trajectory_goes_on(mode):
    plant = Plant(mode)
    plant.controller.submit(move(duration=2.0), plant.now)
    plant.run(1.0)
    with pytest.raises(Rejection, match=r"ends in the past .* 0\.500 s before now") as rejection:
        plant.controller.submit(move(to=9.0, stamp=plant.now - 1.5), plant.now)
    assert rejection.value.code == ErrorCode.OLD_HEADER_TIMESTAMP
    plant.run(1.5)
    assert plant.q[0] == pytest.approx(1.0)


# -- rejections ----------------------------------------------------------------------------------------------

BAD = {
    "no points": (command([], []), ErrorCode.INVALID_GOAL, "Empty trajectory"),
    "too few joints": (command([0.0], [1], names=JOINTS[:2]), ErrorCode.INVALID_JOINTS, "2 given, 3 expected"),
    "wrong joint": (command([0.0], [1], names=("a", "b", "elbow")), ErrorCode.INVALID_JOINTS, "joint elbow"),
    "joint twice": (command([0.0], [1], names=("a", "b", "b")), ErrorCode.INVALID_JOINTS, "twice"),
    "times equal": (command([0.1, 0.1], [0, 1]), ErrorCode.INVALID_GOAL, "not strictly increasing, it is 0.100000 and 0.1"),
    "times fall": (command([0.2, 0.1], [0, 1]), ErrorCode.INVALID_GOAL, "points 0 and 1"),
    "negative time": (command([-0.1, 0.1], [0, 1]), ErrorCode.INVALID_GOAL, "-0.1"),
    "time NaN": (command([math.nan], [0]), ErrorCode.INVALID_GOAL, "finite"),
    "position NaN": (command([0.1, 0.2], [0, math.nan]), ErrorCode.INVALID_GOAL, "positions at point #1, joint a: nan"),
    "velocity inf": (command([0.1], [0], [math.inf]), ErrorCode.INVALID_GOAL, "velocities at point #0, joint a: inf"),
    "no positions": (command([0.1], [None], [0]), ErrorCode.INVALID_GOAL, r"\(3\) and positions \(0\) at point #0"),
    "only accelerations": (command([0.1], [0], None, [0]), ErrorCode.INVALID_GOAL, "no velocities"),
    "moving end": (command([0.1], [0], [0.25]), ErrorCode.INVALID_GOAL, r"joint a is not zero: 0\.25.*at most 1\.2e-07"),
    "short rows": (
        TrajectoryCommand(joint_names=JOINTS, times=[0.1], positions=[[0.0, 0.0]]),
        ErrorCode.INVALID_GOAL,
        r"joint_names size \(3\) and positions \(2\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_rejection_names_value_and_bound_and_changes_nothing(name):
    bad, code, text = BAD[name]
    plant = Plant()
    plant.controller.submit_goal("first", move(), plant.now)
    plant.run(0.5)
    for send in (plant.controller.submit, lambda *args: plant.controller.submit_goal("second", *args)):
        with pytest.raises(Rejection, match=text) as rejection:
            send(bad, plant.now)
        assert rejection.value.code == code
    plant.run(1.0)
    outcomes = plant.controller.take_outcomes()
    assert [(o.goal_id, o.status) for o in outcomes] == [("first", GoalStatus.SUCCEEDED)]


def test_moving_end_is_accepted_where_the_parameter_allows_it():
    plant = Plant(allow_nonzero_velocity_at_trajectory_end=True)
    plant.controller.submit(command([0.0, 0.5], [0, 0.5], [1, 1]), plant.now)
    plant.run(1.0)
    assert plant.column("command")[260:] == pytest.approx(0.5)


@given(st.permutations(JOINTS))
def test_joint_order_of_the_sender_does_not_matter(names):
    target = {"a": 0.1, "b": 0.2, "c": 0.3}
    plant = Plant()
    row = [target[name] for name in names]
    plant.controller.submit(TrajectoryCommand(joint_names=names, times=[0.1], positions=[row]), plant.now)
    plant.run(0.2)
    assert plant.q == pytest.approx([0.1, 0.2, 0.3])


# -- replacement ---------------------------------------------------------------------------------------------


def replaced(mode, lag=0.0, lead=0.2, **config):
    """Half-way through a move to 1, one back to 0 is sent that starts `lead` s later with a point 0.5 s after its start."""
    plant = Plant(mode, lag, **config)
    plant.controller.submit(move(), plant.now)
    plant.run(0.5)
    plant.sent = plant.now
    plant.controller.submit(command([0.5], [0.0], [0.0], [0.0], stamp=plant.now + lead), plant.now)
    return plant.run(1.5)


def test_splice_keeps_the_old_part_until_the_new_one_starts():
    """One period late, as the original: it takes where the old trajectory was at the last update for where it is now."""
    plant, alone = replaced("splice"), Plant("splice")
    alone.controller.submit(move(), alone.now)
    alone.run(2.0)
    old = alone.column("q")
    assert plant.column("q")[250:350] == pytest.approx(old[250:350], abs=5e-3)
    assert plant.column("q")[350] == pytest.approx(old[349], abs=1e-6)
    assert plant.column("v")[350] == pytest.approx(alone.column("v")[349], abs=1e-6)
    assert plant.at(plant.sent + 0.7) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("mode", ["desired_state", "measured_state"])
def test_the_other_modes_leave_the_old_trajectory_at_once(mode):
    plant, alone = replaced(mode), Plant(mode)
    alone.controller.submit(move(), alone.now)
    alone.run(1.0)
    assert plant.at(plant.sent + 0.2) < alone.at(plant.sent + 0.2) - 0.1
    assert plant.at(plant.sent + 0.7) == pytest.approx(0.0, abs=1e-9)


def test_measured_state_steps_back_by_the_lag_and_desired_state_does_not():
    step = {}
    for mode in ("measured_state", "desired_state"):
        plant = replaced(mode, lag=0.05)
        step[mode] = np.diff(plant.column("command"))[249]
    speed = 15 / 8
    assert step["measured_state"] < -0.8 * 0.05 * speed
    assert 0.0 < step["desired_state"] < 3 * PERIOD * speed


def test_splice_takes_a_stamp_that_has_passed_as_now_from_point_0():
    plant = Plant("splice")
    plant.controller.submit(move(to=0.5, duration=2.0), plant.now)
    plant.run(1.0)
    plant.controller.submit(command([0.0, 1.0], [0.25, 0.0], [0, 0], [0, 0], stamp=plant.now - 0.5), plant.now)
    plant.run(1.5)
    assert plant.column("q")[502] == pytest.approx(0.25, abs=1e-3)
    assert plant.at(T0 + 1.5) == pytest.approx(0.125, abs=2e-3)
    assert plant.at(T0 + 2.1) == pytest.approx(0.0)


def test_without_splice_the_same_stamp_means_the_middle():
    plant = Plant("desired_state")
    plant.controller.submit(move(to=0.5, duration=2.0), plant.now)
    plant.run(1.0)
    plant.controller.submit(command([0.0, 1.0], [0.25, 0.0], [0, 0], [0, 0], stamp=plant.now - 0.5), plant.now)
    plant.run(1.0)
    assert plant.column("q")[500] == pytest.approx(0.125, abs=1e-3)


def sine(start, ahead):
    """200 ms of sin t from `start` + `ahead` on, then at rest; `start` in s from T0."""
    times = [0.02 * k for k in range(10)]
    at = [start + ahead + t for t in times]
    rest = [math.sin(at[-1]), 0.0, 0.0]
    rows = [[f(t) for t in at] + [end] for f, end in zip((math.sin, math.cos, lambda t: -math.sin(t)), rest, strict=True)]
    return command([*times, 0.5], *rows, stamp=T0 + start + ahead)


@pytest.mark.parametrize(("mode", "ahead"), [("desired_state", -0.02), ("measured_state", -0.02), ("splice", 0.0)])
@settings(max_examples=15, deadline=None)
@given(waits=st.lists(st.floats(0.004, 0.05), min_size=5, max_size=15), lag=st.floats(0.0, 0.1))
def test_overlapping_messages_join_smoothly_where_no_lead_in_is_needed(mode, ahead, waits, lag):
    """Points that reach back before now are entered in their middle; a splice that starts now starts with its point 0."""
    speed = streamed(mode, ahead, waits, lag)
    assert speed.max() < 1.01
    assert speed.min() > 0.5


@pytest.mark.parametrize(
    ("mode", "slowest", "fastest"),
    [("splice", -15.0, -5.0), ("measured_state", -15.0, -5.0), ("desired_state", 0.5, 1.0)],
)
def test_stamped_ahead_the_lead_in_starts_from_the_measured_state_unless_told_otherwise(mode, slowest, fastest):
    """Also with splice: what an arm lags behind is stepped back at every message."""
    assert slowest < streamed(mode, 0.02, [0.03] * 6, lag=0.02).min() < fastest


def streamed(mode, ahead, waits, lag=0.0):
    """Commanded speeds while messages along sin t arrive after these waits; 1 at first."""
    plant = Plant(mode, lag)
    plant.v[:] = 1.0, 2.0, -1.0
    for wait in waits:
        plant.controller.submit(sine(plant.now - T0, ahead), plant.now)
        plant.run(wait)
    return np.diff(plant.column("command"))[5:] / PERIOD


# -- tolerances, goals, cancelling ---------------------------------------------------------------------------


def outcome(plant):
    (result,) = plant.controller.take_outcomes()
    return result


def test_a_goal_succeeds_with_code_0():
    plant = Plant(goal_tolerance=(0.01,) * 3)
    plant.controller.submit_goal("goal", move(), plant.now)
    plant.run(0.9)
    assert plant.controller.active_goal == "goal"
    assert plant.controller.take_outcomes() == []
    plant.run(0.2)
    result = outcome(plant)
    assert (result.status, result.code, result.text) == (GoalStatus.SUCCEEDED, ErrorCode.SUCCESSFUL, "Goal successfully reached!")
    assert plant.controller.holding
    plant.run(0.5)
    assert plant.q[0] == pytest.approx(1.0)


def test_path_tolerance_aborts_and_holds_the_measured_position():
    plant = Plant(lag=0.2, path_tolerance=(0.1,) * 3)
    plant.controller.submit_goal("goal", move(), plant.now)
    plant.run(1.0)
    result = outcome(plant)
    assert (result.status, result.code) == (GoalStatus.ABORTED, ErrorCode.PATH_TOLERANCE_VIOLATED)
    assert "b is 0.10" in result.text
    assert "tolerance 0.1000 rad" in result.text
    assert plant.controller.holding
    assert plant.q[0] < 0.5
    held = plant.column("command")[-1]
    plant.run(0.5)
    assert plant.column("command")[-1] == pytest.approx(held)


def test_path_tolerance_also_stops_a_trajectory_from_the_topic():
    plant = Plant(lag=0.2, path_tolerance=(0.1,) * 3)
    plant.controller.submit(move(), plant.now)
    plant.run(1.0)
    assert plant.controller.holding
    assert "state tolerance violation" in plant.controller.take_warnings()[0]


def test_goal_tolerance_is_given_its_time():
    plant = Plant(lag=0.3, goal_tolerance=(0.05,) * 3)
    plant.controller.submit_goal("goal", move(), plant.now, goal_time_tolerance=0.2)
    plant.run(1.19)
    assert plant.controller.take_outcomes() == []
    plant.run(0.1)
    result = outcome(plant)
    assert (result.status, result.code) == (GoalStatus.ABORTED, ErrorCode.GOAL_TOLERANCE_VIOLATED)
    assert "exceeding by 0.2" in result.text


def test_without_a_goal_time_it_waits_until_inside():
    plant = Plant(lag=0.3, goal_tolerance=(0.05,) * 3)
    plant.controller.submit_goal("goal", move(), plant.now)
    plant.run(1.2)
    assert plant.controller.take_outcomes() == []
    plant.run(2.0)
    assert outcome(plant).status == GoalStatus.SUCCEEDED


def test_a_goals_own_tolerances_override_and_minus_one_erases():
    tight = {name: JointTolerance(position=0.01) for name in JOINTS}
    none = {name: JointTolerance(position=-1.0) for name in JOINTS}
    plant = Plant(lag=0.1, path_tolerance=(1.0,) * 3)
    plant.controller.submit_goal("tight", move(), plant.now, path_tolerance=tight)
    plant.run(0.5)
    assert outcome(plant).code == ErrorCode.PATH_TOLERANCE_VIOLATED
    plant = Plant(lag=0.1, path_tolerance=(0.01,) * 3)
    plant.controller.submit_goal("none", move(), plant.now, path_tolerance=none)
    plant.run(2.0)
    assert outcome(plant).status == GoalStatus.SUCCEEDED


@pytest.mark.parametrize("tolerance", [{"z": JointTolerance(0.5)}, {"a": JointTolerance(-2.0)}, {"a": JointTolerance(0.5, -3.0)}])
def test_illegal_tolerances_fall_back_to_the_defaults(tolerance):
    plant = Plant(lag=0.2, path_tolerance=(0.1,) * 3)
    plant.controller.submit_goal("goal", move(), plant.now, path_tolerance=tolerance)
    assert "Using default tolerances" in plant.controller.take_warnings()[0]
    plant.run(1.0)
    assert outcome(plant).code == ErrorCode.PATH_TOLERANCE_VIOLATED


def test_a_new_goal_aborts_the_older_one():
    plant = Plant("desired_state")
    plant.controller.submit_goal(1, move(), plant.now)
    plant.run(0.5)
    plant.controller.submit_goal(2, command([0.5], [0.0], [0.0], [0.0]), plant.now)
    result = outcome(plant)
    assert (result.goal_id, result.status, result.code) == (1, GoalStatus.ABORTED, ErrorCode.INVALID_GOAL)
    assert "preempted" in result.text
    plant.run(0.6)
    assert outcome(plant).goal_id == 2
    assert plant.q[0] == pytest.approx(0.0, abs=1e-6)


def test_a_trajectory_from_the_topic_overrides_that_of_the_goal():
    plant = Plant("desired_state")
    plant.controller.submit_goal(1, move(), plant.now)
    plant.run(0.5)
    plant.controller.submit(command([0.5], [0.0], [0.0], [0.0]), plant.now)
    plant.run(0.4)
    assert plant.controller.take_outcomes() == []
    plant.run(0.2)
    assert plant.q[0] == pytest.approx(0.0, abs=1e-6)
    assert outcome(plant).status == GoalStatus.SUCCEEDED


def test_cancel_holds_at_once_by_default():
    plant = Plant()
    plant.controller.submit_goal(1, move(), plant.now)
    plant.run(0.5)
    assert not plant.controller.cancel(2)
    assert plant.controller.cancel(1)
    measured = plant.column("measured")[-1]
    plant.run(0.2)
    result = outcome(plant)
    assert (result.status, result.code, result.text) == (GoalStatus.CANCELED, ErrorCode.SUCCESSFUL, "")
    assert plant.q[0] == pytest.approx(measured)


def test_cancel_decelerates_where_that_is_configured():
    plant = Plant(max_deceleration_on_cancel=(5.0,) * 3)
    plant.controller.submit_goal(1, move(), plant.now)
    plant.run(0.5)
    speed, measured = plant.v[0], plant.q[0]
    plant.controller.cancel(1)
    plant.run(1.0)
    assert plant.q[0] - measured == pytest.approx(speed**2 / 10.0, rel=0.03)
    slowing = np.diff(plant.column("v")[252:400]) / PERIOD
    assert slowing.min() == pytest.approx(-5.0, rel=0.01)


def test_activation_aborts_the_goal_and_holds():
    plant = Plant()
    plant.controller.submit_goal(1, move(), plant.now)
    plant.run(0.5)
    plant.controller.activate(plant.now, plant.q)
    assert outcome(plant).code == ErrorCode.INVALID_GOAL
    held = plant.q[0]
    plant.run(0.5)
    assert plant.q[0] == pytest.approx(held)


def test_cmd_timeout_holds_after_the_end_of_a_trajectory():
    plant = Plant(lag=0.5, cmd_timeout=0.3)
    plant.controller.submit(move(), plant.now)
    plant.run(1.2)
    assert not plant.controller.holding
    plant.run(0.2)
    assert plant.controller.holding
    assert "at most 0.3 s" in plant.controller.take_warnings()[0]


# -- speed scaling -------------------------------------------------------------------------------------------


def test_speed_scaling_slows_the_trajectorys_clock_and_zero_pauses():
    plant = Plant()
    plant.controller.submit(move(), plant.now)
    plant.controller.speed_scaling = 0.5
    plant.run(1.0)
    assert plant.column("q")[-1] == pytest.approx(0.5, abs=0.01)
    plant.controller.speed_scaling = 0.0
    plant.run(1.0)
    assert plant.column("q")[500:] == pytest.approx(0.5, abs=0.01)
    assert not plant.controller.holding
    assert plant.controller.state.speed_scaling == 0.0
    plant.controller.speed_scaling = 1.0
    plant.run(1.0)
    assert plant.q[0] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_speed_scaling_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match=str(value)):
        Plant().controller.speed_scaling = value


def test_a_clock_that_jumps_neither_moves_nor_stops_a_running_trajectory():
    plant = Plant("desired_state")
    plant.controller.submit(move(), plant.now)
    plant.run(0.5)
    plant.steps -= 5000
    plant.run(0.6)
    assert plant.q[0] == pytest.approx(1.0)
    plant.controller.submit(move(to=0.0, start=1.0), plant.now)
    plant.run(1.1)
    assert plant.q[0] == pytest.approx(0.0, abs=1e-9)


# -- what the loop relies on ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.05, 0.4), st.floats(0.0, 0.2)), min_size=1, max_size=6), st.booleans())
def test_the_command_is_always_finite_and_continuous_from_the_desired_state(moves, splice):
    """Random rest-to-rest moves sent at random times, stamped ahead, with nothing to go by but the lead-in."""
    plant = Plant()
    config = ControllerConfig(joint_names=JOINTS, interpolate_from_desired_state=True, allow_trajectory_replacement=splice)
    plant.controller = JointTrajectoryController(config)
    plant.controller.activate(T0, plant.q)
    for target, duration, wait in moves:
        plant.controller.submit(command([duration], [target], [0], [0], stamp=plant.now + 0.01), plant.now)
        plant.run(wait)
    plant.run(1.0)
    commands = plant.column("command")
    assert np.isfinite(commands).all()
    assert np.abs(np.diff(commands)).max() < 3 * 1.875 * 4 / 0.05 * PERIOD
    assert plant.q[0] == pytest.approx(moves[-1][0], abs=1e-9)


def test_the_same_calls_give_the_same_commands():
    first, second = replaced("splice", lag=0.02), replaced("splice", lag=0.02)
    assert first.log == second.log


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"joint_names": ()}, "at least one"),
        ({"joint_names": ("a", "a")}, "unique"),
        ({"update_period": 0.0}, "above 0 s, got 0"),
        ({"path_tolerance": (0.1,)}, "3 values of at least 0"),
        ({"goal_tolerance": (0.1, -0.1, 0.1)}, "-0.1"),
    ],
)
def test_a_wrong_configuration_is_refused(change, text):
    with pytest.raises(ValueError, match=text):
        ControllerConfig(**{"joint_names": JOINTS, **change})


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="splice, desired_state, measured_state"):
        ControllerConfig(joint_names=JOINTS).in_mode("magic")
