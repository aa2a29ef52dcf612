"""The command stream: limits, smoothness, tightness, braking, and what a controller makes of its messages."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import ruckig
from hypothesis import example, given, settings
from hypothesis import strategies as st

from act2goal_ros.control.acceptance import TrajectoryCommand
from act2goal_ros.control.chunk import ActionChunk, ChunkError
from act2goal_ros.control.controller import ControllerConfig, JointTrajectoryController
from act2goal_ros.control.jerkpath import GRID, stop
from act2goal_ros.control.limits import uniform_limits
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stream import CommandStream
from act2goal_ros.control.trajectory import Trajectory

NAMES = tuple("abcdef")
LIMITS = uniform_limits(NAMES)
ROBOTS = {name: replace(RobotConfig.load(name).limits, names=NAMES) for name in ("ur5e", "ur5e_sim")}
NOW = 1.76e9  # s; a clock as it is today, where a double resolves 0.2 µs
LEAD, TICK = 0.02, 0.02


def chunk(stamp: float, rows: np.ndarray) -> ActionChunk:
    return ActionChunk(stamp, 0.05, rows, np.zeros(len(rows)))


def check(trajectory: Trajectory, limits) -> None:
    """Inside all limits between the points too, at rest at the end."""
    speed, acceleration, jerk = trajectory.peaks()
    low, high = trajectory.position_range()
    assert (speed <= limits.velocity + 1e-9).all(), speed
    assert (acceleration <= limits.acceleration + 1e-6).all(), acceleration
    assert (jerk <= 1.001 * limits.jerk).all(), jerk
    assert (low >= limits.lower - 1e-9).all() and (high <= limits.upper + 1e-9).all(), (low, high)
    assert not trajectory.velocities[-1].any() and not trajectory.accelerations[-1].any()


def check_joined(before: Trajectory, after: Trajectory) -> None:
    """C²: the new one starts in the old one's state."""
    for old, new in zip(before.sample(after.start), (after.positions, after.velocities, after.accelerations), strict=True):
        assert np.abs(old - new[0]).max() < 2e-3 if new is after.accelerations else np.abs(old - new[0]).max() < 1e-5


def check_extrema(trajectory: Trajectory, limits) -> None:
    """As `check`, at the extrema of each polynomial: those of its cubic part, and what the rest can add at most."""
    c, h = trajectory._pieces, trajectory._lengths

    def rest(derivative: int) -> np.ndarray:
        return sum(math.perm(k, derivative) * np.abs(c[k]) * h ** (k - derivative) for k in (4, 5))

    def inside(s: np.ndarray) -> np.ndarray:
        return np.where((s > 0) & (s < h), s, 0.0)

    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(c[2] ** 2 - 3 * c[1] * c[3], 0.0))
        larger = -(c[2] + np.copysign(root, c[2]))
        turns = [0 * c[0], h + 0 * c[0], inside(larger / (3 * c[3])), inside(c[1] / larger)]
        top = inside(-c[2] / (3 * c[3]))
    q = np.array([c[0] + s * (c[1] + s * (c[2] + s * c[3])) for s in turns])
    v = np.array([c[1] + s * (2 * c[2] + s * 3 * c[3]) for s in (turns[0], turns[1], top)])
    a = np.array([2 * c[2] + s * 6 * c[3] for s in turns[:2]])
    assert (q - rest(0) >= limits.lower - 1e-9).all() and (q + rest(0) <= limits.upper + 1e-9).all(), (q.min(), q.max())
    assert (np.abs(v) + rest(1) <= limits.velocity + 1e-6).all(), np.abs(v).max()
    assert (np.abs(a) + rest(2) <= limits.acceleration + 1e-4).all(), np.abs(a).max()
    assert (np.abs(6 * c[3]) + rest(3) <= 1.002 * limits.jerk).all(), (np.abs(6 * c[3]).max(), rest(3).max())
    parts = (trajectory.times, trajectory.positions, trajectory.velocities, trajectory.accelerations)
    assert all(np.isfinite(part).all() for part in parts)


def spoilt(good: ActionChunk, kind: str, random: np.random.Generator) -> tuple[ActionChunk, str]:
    """The chunk with one thing wrong, and what the error must say."""
    rows, gripper = good.positions.copy(), good.gripper.copy()
    row, joint, value = int(random.integers(len(rows))), int(random.integers(6)), float(random.choice([np.nan, np.inf, -np.inf]))
    if kind == "position":
        rows[row, joint] = value
        return replace(good, positions=rows), f"{NAMES[joint]} is not finite"
    if kind == "outside":
        rows[row, joint] = 20.0
        return replace(good, positions=rows), rf"{NAMES[joint]} is 20\.0000 rad, outside \["
    if kind == "gripper":
        gripper[row] = value
        return replace(good, gripper=gripper), rf"gripper in row {row} is -?(nan|inf), outside \[-0\.25, 1\.25\]"
    if kind == "stamp":
        return replace(good, stamp=value), rf"stamp {value} s and dt 0\.05 s, expected finite"
    if kind == "dt":
        dt = float(random.choice([np.nan, np.inf, 0.0, -0.05]))
        return replace(good, dt=dt), rf"and dt {dt} s, expected finite and > 0"
    if kind == "gripper_shape":
        return replace(good, gripper=gripper[1:]), r"gripper of shape \(\d+,\), expected \(\d+,\)"
    shape = {"empty": (0, 6), "joints": (len(rows), 5), "flat": (6,), "deep": (1, len(rows), 6)}[kind]
    return replace(good, positions=np.zeros(shape)), rf"shape {re.escape(str(shape))}, expected \(P, 6\) with P ≥ 1"


FAULTS = ("position", "outside", "gripper", "stamp", "dt", "gripper_shape", "empty", "joints", "flat", "deep")


@settings(max_examples=1000, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    jump=st.sampled_from([0.0, 0.002, 0.02, 0.1, 3.0]),
    slower=st.sampled_from([1.0, 0.5]),
    position=st.sampled_from([0.3, 1.0, 6.28]),
    messages=st.sampled_from([3, 5, 8, 25]),
    robot=st.sampled_from(["", "ur5e", "ur5e_sim"]),
)
def test_no_stream_of_chunks_breaks_a_limit_or_a_derivative(seed, jump, slower, position, messages, robot) -> None:
    """Chunks that wander, leap, are late or over already; one in five is bad, and refused whole. Limits of many kinds, and a robot's."""
    random = np.random.default_rng(seed)
    limits = (ROBOTS[robot] if robot else uniform_limits(NAMES, position)).scaled(1.0, slower, slower)
    position = np.minimum(position, np.minimum(-limits.lower, limits.upper))
    stream, now, last = CommandStream(limits), NOW, None
    stream.reset(random.uniform(-0.9, 0.9, 6) * position)
    for _ in range(messages):
        now += random.choice([TICK, TICK, 0.021, 0.005, 0.15])
        if random.random() < 0.5:
            rows = random.uniform(-1, 1, 6) * position + np.cumsum(random.normal(0, jump, (random.integers(1, 17), 6)), axis=0)
            offered = chunk(now - random.uniform(0, 1.5), np.clip(rows, -position, position))
            if random.random() < 0.2:
                bad, words = spoilt(offered, str(random.choice(FAULTS)), random)
                with pytest.raises(ChunkError, match=words):
                    bad.validate(limits, NAMES)
            else:
                stream.adopt(offered)
        sent = stream.brake(now, LEAD) if random.random() < 0.05 else stream.advance(now, LEAD)
        check_extrema(sent, limits)
        whole = stream.resend(now, 0.0)  # what controllers that replace at once are sent
        check_extrema(whole, limits)
        for each in (sent, whole):
            assert not each.velocities[-1].any() and not each.accelerations[-1].any()
        check_joined(whole, sent)
        if last is not None:
            check_joined(last, sent)
        last = sent


def test_the_check_sees_what_breaks_a_limit() -> None:
    """On a cubic whose velocity and position peak between its points."""
    times, zero = np.array([0.0, 1.0]), np.zeros((2, 6))
    bulge = Trajectory(NOW, times, zero, np.repeat([[1.2], [0.0]], 6, axis=1), np.repeat([[-4.8], [2.4]], 6, axis=1))
    check_extrema(bulge, LIMITS)
    for broken in (uniform_limits(NAMES, position=0.15), uniform_limits(NAMES, velocity=1.1), uniform_limits(NAMES, acceleration=4.7),
                   uniform_limits(NAMES, jerk=7.1)):  # fmt: skip
        with pytest.raises(AssertionError):
            check_extrema(bulge, broken)


def sine(times: np.ndarray) -> np.ndarray:
    """A motion that uses about half the limits: up to 1.5 rad/s, 3.75 rad/s², 9.4 rad/s³."""
    return np.array([0.5, 0.4, 0.3, 0.6, 0.8, 0.2]) * np.sin(np.outer(times, [1.0, 1.5, 2.0, 2.5, 0.7, 3.0]))


def track(limits, noise: float, delay: float = 0.06, seconds: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Error and reference velocity while following sines: a chunk every 40 ms, `delay` old."""
    random = np.random.default_rng(0)
    stream, errors, slopes = CommandStream(limits), [], []
    stream.reset(sine(np.zeros(1))[0])
    for k in range(round(seconds / TICK)):
        now = k * TICK
        if k % 2 == 0:
            rows = sine(now - delay + 0.05 * np.arange(1, 17))
            stream.adopt(chunk(NOW + now - delay, rows + random.normal(0, noise, rows.shape)))
        stream.advance(NOW + now, LEAD)
        t = np.array([now + LEAD])
        errors.append(stream.state_at(NOW + now + LEAD)[0] - sine(t)[0])
        slopes.append((sine(t + 1e-4) - sine(t - 1e-4))[0] / 2e-4)
    return np.array(errors), np.array(slopes)


@pytest.mark.parametrize("limits", [LIMITS, LIMITS.scaled(1.0, 0.5, 0.5)], ids=["simulated", "real"])
def test_a_chunk_within_limits_is_followed_without_lag(limits) -> None:
    errors, slopes = track(limits, noise=0.0, seconds=4.0)
    errors, slopes = errors[125:], slopes[125:]  # the sines start at full speed; this is after the catch-up
    lag = -(errors * slopes).sum(axis=0) / (slopes**2).sum(axis=0)
    assert np.abs(lag).max() < 1e-4, lag
    assert np.abs(errors).max() < 2e-4, np.abs(errors).max()


def test_noise_is_smoothed_without_lag() -> None:
    errors, slopes = track(LIMITS, noise=0.003)
    errors, slopes = errors[75:], slopes[75:]
    lag = -(errors * slopes).sum(axis=0) / (slopes**2).sum(axis=0)
    assert np.sqrt((errors**2).mean()) < 0.003
    assert np.abs(lag).max() < 3e-3, lag


@pytest.mark.parametrize("distance", [0.001, 0.01, 0.1, 0.5, 2.0])
def test_a_jump_is_caught_up_nearly_as_fast_as_the_limits_allow(distance) -> None:
    stream, now = CommandStream(LIMITS), NOW
    stream.reset(np.zeros(6))
    target = np.full((16, 6), distance)
    while np.abs(stream.state_at(now)[0] - distance).max() > 0.02 * distance:
        stream.adopt(chunk(now, target))
        stream.advance(now, LEAD)
        assert stream.state_at(now)[0].max() < 1.03 * distance
        now += TICK
        assert now < NOW + 10
    otg, request, best = ruckig.Ruckig(1), ruckig.InputParameter(1), ruckig.Trajectory(1)
    request.current_position, request.target_position = [0.0], [distance]
    request.max_velocity, request.max_acceleration, request.max_jerk = [3.14], [10.0], [100.0]
    otg.calculate(request, best)
    assert now - NOW - LEAD < 1.4 * best.duration + 0.12, (now - NOW - LEAD, best.duration)


@settings(max_examples=60, deadline=None)
@given(v=st.floats(-3.0, 3.0), a=st.floats(-9.9, 9.9), slower=st.sampled_from([1.0, 0.5]))
@example(v=0.25, a=-4.95, slower=0.5)  # the acceleration alone nearly ends the motion
def test_a_stop_takes_hardly_longer_than_the_time_optimal_one(v, a, slower) -> None:
    limits = uniform_limits(("j",)).scaled(1.0, slower, slower)
    a = float(np.clip(a, -9.9 * slower, 9.9 * slower))
    path = stop(0.0, (np.zeros(1), np.array([v]), np.array([a])), limits)
    otg, request, best = ruckig.Ruckig(1), ruckig.InputParameter(1), ruckig.Trajectory(1)
    request.control_interface = ruckig.ControlInterface.Velocity
    request.current_velocity, request.current_acceleration = [v], [a]
    request.max_acceleration, request.max_jerk = limits.acceleration.tolist(), limits.jerk.tolist()
    otg.calculate(request, best)
    assert best.duration - 1e-6 <= path.end + 2 * GRID and path.end <= best.duration + 4 * GRID, (
        path.end,
        best.duration,
    )
    assert np.abs(path.a).max() <= limits.acceleration[0] * (1 + 1e-6)
    assert np.abs(path.jerk).max(initial=0.0) <= limits.jerk[0] * (1 + 1e-6)


def cruise(stream: CommandStream, seconds: float = 1.0, speed: float = 0.6) -> float:
    """Follows a ramp; returns the time of the last message."""
    for k in range(round(seconds / TICK)):
        now = NOW + k * TICK
        rows = speed * (now - NOW + 0.05 * np.arange(1, 17))[:, None] * np.ones(6)
        stream.adopt(chunk(now, rows))
        stream.advance(now, LEAD)
    return now


def test_the_last_message_brakes_within_100_ms_of_its_sending() -> None:
    stream = CommandStream(LIMITS)
    stream.reset(np.zeros(6))
    sent = cruise(stream)
    times = sent + np.arange(0, 0.4, 0.001)
    speeds = np.array([stream.state_at(t)[1][0] for t in times])
    began = times[np.argmax(speeds < 0.999 * 0.6)] - sent
    assert 0.09 < began < 0.11, began
    stopped = times[np.argmax(speeds < 1e-6)] - sent
    assert stopped - 0.1 < 2 * (0.6 / 100) ** 0.5 + 0.02, stopped


def test_braking_starts_at_the_lead_and_is_resent_unchanged() -> None:
    stream = CommandStream(LIMITS)
    stream.reset(np.zeros(6))
    now = cruise(stream) + TICK
    sent = stream.brake(now, LEAD)
    assert sent.start == pytest.approx(now + LEAD, abs=GRID)
    again = stream.resend(now + 0.03, LEAD)
    for t in now + np.linspace(0.06, 0.3, 20):
        assert np.abs(again.sample(t)[0] - sent.sample(t)[0]).max() < 1e-6
    check(again, LIMITS)
    assert stream.rest_time == pytest.approx(sent.end, abs=1e-6)
    for later in (0.0, 0.05, 0.5):  # on the braking path, at its end and after it
        held = stream.resend(sent.end + later, 0.0)
        assert np.abs(held.positions[-1] - sent.positions[-1]).max() < 1e-9


def test_what_is_committed_can_be_sent_from_the_past() -> None:
    stream = CommandStream(LIMITS)
    stream.reset(np.zeros(6))
    now = cruise(stream)
    whole = stream.committed(now - 0.1)
    for t in now + np.linspace(-0.1, 0.3, 50):
        assert np.abs(whole.sample(t)[0] - stream.state_at(t)[0]).max() < 1e-6
        assert np.abs(whole.sample(t)[2] - stream.state_at(t)[2]).max() < 1e-2
    check(whole, LIMITS)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_nothing_that_is_not_finite_ever_leaves(value) -> None:
    stream = CommandStream(LIMITS)
    stream.reset(np.zeros(6))
    now = cruise(stream) + TICK
    rows = np.zeros((16, 6))
    rows[3, 2] = value
    stream.adopt(chunk(now, rows))
    for k in range(20):
        check(stream.advance(now + k * TICK, LEAD), LIMITS)
    assert abs(stream.state_at(now + 1.0)[0][2]) < 1.0


def test_the_same_inputs_give_the_same_commands() -> None:
    first, second = CommandStream(LIMITS), CommandStream(LIMITS)
    for stream in (first, second):
        stream.reset(np.zeros(6))
        cruise(stream)
    one, two = first.advance(NOW + 1.0, LEAD), second.advance(NOW + 1.0, LEAD)
    assert (one.positions == two.positions).all() and (one.accelerations == two.accelerations).all()


def test_reset_refuses_what_is_outside() -> None:
    with pytest.raises(ValueError, match=r"c is 7\.0000 rad, outside \[-6\.28"):
        CommandStream(LIMITS).reset(np.array([0, 0, 7.0, 0, 0, 0]))
    with pytest.raises(ValueError, match="not finite"):
        CommandStream(LIMITS).reset(np.full(6, np.nan))


def test_what_will_be_commanded_is_foreseen() -> None:
    """Further than what is committed, whose end is a braking tail: that the policy must not take for what happens."""
    stream, times = CommandStream(LIMITS), 0.05 * np.arange(1, 9)
    stream.reset(sine(np.zeros(1))[0])
    for k in range(60):
        now = NOW + k * TICK
        if k == 45:
            counted = stream.stretched, stream.scaling
            foreseen, tail = stream.foresee(now + times), np.array([stream.state_at(t)[0] for t in now + times])
            assert (stream.stretched, stream.scaling) == counted
        if k < 45 and k % 2 == 0:
            stream.adopt(chunk(now - 0.06, sine(now - NOW - 0.06 + 0.05 * np.arange(1, 40))))
        stream.advance(now, 0.0)
    happened = np.array([stream.state_at(NOW + 45 * TICK + t)[0] for t in times[:6]])
    assert np.abs(foreseen[:6] - happened).max() < 1e-3, np.abs(foreseen[:6] - happened).max(axis=1)
    assert np.abs(tail[:6] - happened).max() > 0.05
    stream.brake(now, 0.0)
    np.testing.assert_array_equal(stream.foresee(now + times)[-1], stream.state_at(now + 1.0)[0])


def test_taking_over_a_moving_arm_stops_it() -> None:
    stream = CommandStream(LIMITS)
    stream.reset(np.zeros(6))
    stream.take_over(np.full(6, 0.5), np.full(6, 1.0), NOW)
    q, v, _ = stream.state_at(NOW)
    assert (q == 0.5).all() and (v == 1.0).all()
    check(stream.brake(NOW + 0.05, LEAD), LIMITS)
    assert not stream.state_at(NOW + 2.0)[1].any()


def test_an_advance_takes_less_than_half_a_millisecond() -> None:
    stream = CommandStream(LIMITS)
    stream.reset(np.zeros(6))
    took = []
    for k in range(300):
        stream.adopt(chunk(NOW + k * TICK, sine(k * TICK + 0.05 * np.arange(1, 17))))
        began = time.thread_time()
        stream.advance(NOW + k * TICK, LEAD)
        took.append(time.thread_time() - began)
    assert np.percentile(took, 10) < 0.5e-3, np.percentile(took, [10, 50, 99])  # of CPU time, on whatever runs this


@pytest.mark.parametrize("latency", [(0.002, 0.006), (0.01, 0.03)], ids=["quick", "late"])
@pytest.mark.parametrize("mode", ["desired_state", "measured_state"])
def test_a_controller_that_hears_what_covers_now_does_exactly_what_is_commanded(mode, latency) -> None:
    period, random, queue, due = 0.002, np.random.default_rng(0), [], 0.0
    controller = JointTrajectoryController(ControllerConfig(joint_names=NAMES, update_period=period).in_mode(mode))
    stream, q = CommandStream(LIMITS), sine(np.zeros(1))[0]
    stream.reset(q)
    controller.activate(NOW, q)
    v, seen = np.zeros(6), []
    for k in range(700):
        t = k * period
        if t >= due:
            stream.adopt(chunk(NOW + t - 0.04, sine(t - 0.04 + 0.05 * np.arange(1, 17))))
            stream.advance(NOW + t, LEAD)
            queue.append((t + random.uniform(*latency), stream.resend(NOW + t, 0.0)))
            due = t + TICK + random.uniform(0, 0.004)
        while queue and queue[0][0] <= t:
            controller.submit(command(queue.pop(0)[1]), NOW + t)
        moved = controller.update(NOW + t, q, v)
        v, q = (moved - q) / period, moved
        desired = controller.state.desired
        if not np.abs(desired.positions - stream.state_at(NOW + t)[0]).max() < 1e-5:
            assert latency[1] > LEAD  # arrived after the new part had begun
        seen.append([desired.velocities, desired.accelerations])
    velocities, accelerations = np.array(seen).transpose(1, 0, 2)
    assert np.abs(accelerations).max() <= 10.0
    if latency[1] < LEAD:
        assert np.abs(np.diff(accelerations, axis=0)).max() / period <= 101.0
        assert np.abs(np.diff(velocities, axis=0)).max() / period <= 10.0


def command(t: Trajectory) -> TrajectoryCommand:
    """As the message would carry it."""
    times = [round(x, 9) for x in t.times.tolist()]
    return TrajectoryCommand(joint_names=NAMES, times=times, positions=t.positions.tolist(),
                             velocities=t.velocities.tolist(), accelerations=t.accelerations.tolist(), stamp=t.start)  # fmt: skip
