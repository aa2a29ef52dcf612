"""Limits, robots, trajectories, chunks, stop reasons, watchdogs, joint states and the plan book."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from act2goal_ros.control.chunk import ActionChunk, ChunkError
from act2goal_ros.control.executive import Request
from act2goal_ros.control.inference import InferenceWorker, Job
from act2goal_ros.control.joints import JointReader, JointReading
from act2goal_ros.control.limits import JointLimits, uniform_limits
from act2goal_ros.control.planbook import Plan, PlanBook, Selected
from act2goal_ros.control.robot import RobotConfig, RobotError
from act2goal_ros.control.stop import StopReason
from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.control.watchdog import Durations, Freshness, Latest, Rate, StreamClock, read_together

ROOT = Path(__file__).resolve().parents[1]
ROBOT = RobotConfig.load("ur5e_sim")
NAMES = list(ROBOT.joint_names)


# stop reasons


def test_stop_reasons_are_the_message_s() -> None:
    text = (ROOT / "msg" / "msg" / "StopReason.msg").read_text()
    constants = {name: int(value) for name, value in re.findall(r"^uint8 (\w+)=(\d+)$", text, re.MULTILINE)}
    assert constants == {reason.name: reason.value for reason in StopReason}


# limits and robots


def test_limits_name_the_joint_and_the_bound() -> None:
    limits = uniform_limits(("a", "b"), position=1.0)
    assert limits.outside(np.array([0.5, -1.0])) is None
    assert limits.outside(np.array([[0.0, 0.0], [0.0, 1.25]])) == "b is 1.2500 rad, outside [-1.0000, 1.0000]"
    assert limits.outside(np.array([np.nan, 0.0])) == "a is not finite"
    assert limits.scaled(velocity=0.5).velocity[0] == pytest.approx(1.57)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lower": [0.0, 2.0]}, "b lower 2 ≥ upper 1 rad"),
        ({"velocity": [1.0, 0.0]}, "velocity of b is 0, must be > 0"),
        ({"jerk": [1.0]}, "jerk has shape (1,), expected (2,)"),
        ({"upper": [1.0, np.inf]}, "upper of b is not finite"),
    ],
)
def test_bad_limits_are_refused(change, words) -> None:
    good = {"lower": [-1.0, -1.0], "upper": [1.0, 1.0], "velocity": [1, 1], "acceleration": [1, 1], "jerk": [1, 1]}
    with pytest.raises(ValueError, match=re.escape(words)):
        JointLimits(("a", "b"), **{k: np.array(v) for k, v in {**good, **change}.items()})


def test_robots_load_by_name_and_path() -> None:
    real = RobotConfig.load(ROOT / "config" / "robots" / "ur5e.yaml")
    assert real.joint_names == ROBOT.joint_names and len(real.joint_names) == 6
    assert real.controller.joint_trajectory_topic == "scaled_joint_trajectory_controller/joint_trajectory"
    assert real.limits.acceleration[0] < ROBOT.limits.acceleration[0]
    assert ROBOT.gripper.to_joint(0.5) == pytest.approx(0.4) and ROBOT.gripper.to_fraction(0.9) == 1.0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("mode: auto", "mode: quick", "controller.mode is 'quick', must be one of auto, splice"),
        ("interface: topic", "interface: magic", "gripper.interface is 'magic'"),
        ("velocity: 3.14", "velocity: -1.0", "velocity of shoulder_pan_joint is -1, must be > 0"),
        ("closed: 0.8", "closed: 0.0", "open and closed are both 0"),
        ("joint_states_topic: joint_states", "", "'joint_states_topic' is missing"),
        ("max_effort", "max_efort", "gripper: unknown 'max_efort'"),
        ("tracking_error: 1.0", "tracking_error: 0.0", "tracking_error is 0.0 rad"),
        ("path_tolerance: 0.0", "path_tolerance: -0.5", "controller.path_tolerance is -0.5, must be at least 0, or -1 for none"),
        ("goal_time_tolerance: 0.0", "goal_time_tolerance: .nan", "controller.goal_time_tolerance is nan"),
        ("name: ur5e_sim", "name: [", "cannot be read"),
    ],
)
def test_a_wrong_robot_file_says_what_is_wrong(tmp_path, old, new, words) -> None:
    text = (ROOT / "config" / "robots" / "ur5e_sim.yaml").read_text()
    assert old in text
    path = tmp_path / "robot.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RobotError, match=re.escape(words)) as raised:
        RobotConfig.load(path)
    assert str(path) in str(raised.value)


def test_an_unknown_robot_names_those_there_are() -> None:
    with pytest.raises(RobotError, match="'panda' is neither a file nor one of: ur5e, ur5e_sim"):
        RobotConfig.load("panda")


# trajectories


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), order=st.sampled_from([1, 3, 5]))
def test_interpolation_hits_its_points_and_peaks_bound_its_samples(seed, order) -> None:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.uniform(0.05, 0.5, 6))
    q, v, a = random.normal(0, 1, (3, 6, 2))
    way = Trajectory(100.0, times, q, v if order > 1 else None, a if order > 3 else None)
    for k, t in enumerate(times[:-1]):
        found = way.sample(100.0 + t + 1e-12)
        assert found[0] == pytest.approx(q[k], abs=1e-6)
        if order > 1:
            assert found[1] == pytest.approx(v[k], abs=1e-5)
        if order > 3:
            assert found[2] == pytest.approx(a[k], abs=1e-3)
    speed, acceleration, _ = way.peaks()
    low, high = way.position_range()
    for t in 100.0 + random.uniform(times[0], times[-1], 50):
        x, dx, ddx = way.sample(t)
        assert (np.abs(dx) <= speed * 1.002 + 1e-9).all() and (np.abs(ddx) <= acceleration * 1.002 + 1e-9).all()
        assert (x >= low - 1e-2).all() and (x <= high + 1e-2).all()
    assert way.sample(way.end + 1.0)[0] == pytest.approx(q[-1]) and not way.sample(way.end + 1.0)[1].any()


def test_trajectories_refuse_nonsense() -> None:
    q = np.zeros((2, 1))
    for times, positions, words in (
        (np.array([0.0, 0.0]), q, "ascend strictly"),
        (np.array([-0.1, 0.0]), q, "ascend strictly"),
        (np.array([0.0, 1.0]), np.array([[0.0], [np.nan]]), "not finite"),
        (np.array([0.0, 1.0, 2.0]), q, "has shape"),
    ):
        with pytest.raises(ValueError, match=words):
            Trajectory(0.0, times, positions)


# chunks


def ramp(rows: int = 16, speed: float = 1.0) -> ActionChunk:
    positions = speed * 0.05 * np.arange(1, rows + 1)[:, None] * np.ones(6)
    return ActionChunk(10.0, 0.05, positions, np.linspace(0.0, 1.0, rows))


def test_a_chunk_goes_through_its_rows_at_their_times() -> None:
    chunk = ramp()
    for k in range(16):
        q, qd = chunk.sample(10.0 + 0.05 * (k + 1))
        assert q == pytest.approx(chunk.positions[k]) and (k == 15 or qd == pytest.approx(np.ones(6)))
    assert chunk.sample(10.0)[0] == pytest.approx(np.zeros(6), abs=1e-9)  # back to the observation
    assert chunk.sample(99.0)[0] == pytest.approx(chunk.positions[-1]) and not chunk.sample(99.0)[1].any()
    assert chunk.covers(10.4) and not chunk.covers(10.9) and not chunk.covers(9.9)
    assert chunk.gripper_at(10.05) == pytest.approx(0.0, abs=1e-9) and chunk.gripper_at(11.0) == 1.0


def test_a_chunk_of_one_row_is_a_place_to_be() -> None:
    q, qd = ramp(rows=1).sample(10.05)
    assert q == pytest.approx(np.full(6, 0.05)) and not qd.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positions": np.full((16, 6), np.nan)}, "shoulder_pan_joint is not finite"),
        ({"positions": np.full((16, 6), 6.4)}, "6.4000 rad, outside [-6.2832, 6.2832]"),
        ({"positions": np.zeros((16, 5))}, "shape (16, 5), expected (P, 6)"),
        ({"positions": np.zeros((0, 6)), "gripper": np.zeros(0)}, "shape (0, 6)"),
        ({"gripper": np.zeros(3)}, "gripper of shape (3,), expected (16,)"),
        ({"gripper": np.full(16, 1.5)}, "gripper in row 0 is 1.500, outside [-0.25, 1.25]"),
        ({"gripper": np.full(16, np.nan)}, "gripper in row 0 is nan"),
        (
            {"positions": np.outer(np.arange(16) % 2, np.ones(6))},
            "between rows 0 and 1 moves at 20.00 rad/s, over 9.42",
        ),
        ({"stamp": np.inf}, "stamp inf"),
    ],
)
def test_a_bad_chunk_is_refused_whole(change, words) -> None:
    good = ramp()
    bad = ActionChunk(**{"stamp": 1.0, "dt": 0.05, "positions": good.positions, "gripper": good.gripper, **change})
    good.validate(ROBOT.limits, NAMES)
    with pytest.raises(ChunkError, match=re.escape(words)):
        bad.validate(ROBOT.limits, NAMES)


def test_a_chunk_for_joints_in_another_order_is_refused() -> None:
    with pytest.raises(ChunkError, match="chunk is for joints wrist_3_joint"):
        ramp().validate(ROBOT.limits, NAMES[::-1])


# watchdogs


def test_freshness_names_value_and_bound() -> None:
    watch = Freshness("camera frame", 0.2)
    assert watch.problem(5.0) == "no camera frame yet"
    watch.seen(5.0)
    assert watch.problem(5.19) is None
    assert watch.problem(5.25) == "camera frame is 0.250 s old, allowed 0.2 s"


def test_the_latest_wins_and_what_is_dropped_is_counted() -> None:
    buffer: Latest[int] = Latest()
    assert buffer.put(1) and not buffer.put(2) and not buffer.offer(3)
    assert buffer.take() == 2 and buffer.dropped == 1
    assert buffer.take(0.01) is None
    taken: list[int | None] = []
    thread = threading.Thread(target=lambda: taken.append(buffer.take()))
    thread.start()
    buffer.close()
    thread.join(2.0)
    assert taken == [None]


def test_rates_and_durations() -> None:
    rate, durations = Rate(window=2.0), Durations(size=4)
    for k in range(21):
        rate.event(0.1 * k)
    assert rate.hz(2.0) == pytest.approx(10.0) and rate.hz(9.0) == 0.0
    for value in (9.0, 1.0, 2.0, 3.0, 4.0):
        durations.add(value)
    assert durations.percentile(50) == 2.5 and durations.last == 4.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=40), st.floats(0.0, 100.0))
def test_percentiles_are_those_of_the_last_durations(values, share) -> None:
    durations = Durations(size=8)
    for value in values:
        durations.add(value)
    assert durations.percentile(share) == pytest.approx(float(np.percentile(values[-8:], share)), abs=1e-12)
    durations.clear()
    assert durations.percentile(share) == durations.last == 0.0


def test_two_clocks_are_read_together_although_something_holds_the_process_up() -> None:
    held_up = iter([0.02, 0.01, 0.0])

    def clock() -> float:
        time.sleep(next(held_up, 0.0))
        return time.time()

    off = time.time() - time.monotonic()
    now, monotonic = read_together(clock)
    assert now - monotonic == pytest.approx(off, abs=0.003)


def test_the_stream_s_clock_ignores_jumps_and_slows_with_the_controller() -> None:
    clock = StreamClock(0.05)
    assert clock.update(1000.0, 5.0) is None
    assert clock.update(1000.1, 5.1) is None
    assert clock.to_stream(1000.1) == pytest.approx(1000.1)
    assert clock.update(900.2, 5.2) == "the clock jumped back by 100.000 s, allowed 0.05 s"
    assert clock.to_stream(900.2) == pytest.approx(1000.2)
    assert clock.update(950.3, 5.3) == "the clock jumped ahead by 50.000 s, allowed 0.05 s"
    assert clock.to_stream(950.3) == pytest.approx(1000.3) and clock.to_node(1000.3) == pytest.approx(950.3)
    clock.update(950.5, 5.5, speed=0.5)
    assert clock.to_stream(950.5) == pytest.approx(1000.4)
    assert clock.to_stream(950.4) == pytest.approx(1000.35), "as it was then"
    assert clock.to_node(1000.41) == pytest.approx(950.52), "what lies ahead comes later"
    clock.update(951.5, 6.5, speed=0.0)
    assert clock.to_stream(951.5) == pytest.approx(1000.4)


def test_simulated_time_may_leap_ahead_but_not_back() -> None:
    clock = StreamClock(0.05, stepped=True)
    clock.update(10.0, 0.0)
    assert clock.update(30.0, 0.1) is None and clock.update(30.0, 9.0) is None
    assert "jumped back by 20.000 s" in (clock.update(10.0, 9.1) or "")
    assert clock.to_stream(10.0) == pytest.approx(30.0)


# joint states


def read(reader: JointReader, names: list[str], q: list[float], stamp: float = 1.0) -> bool:
    return reader.read(stamp, names, q, [0.1 * x for x in q])


@settings(max_examples=30, deadline=None)
@given(st.permutations([*range(6), 6, 7]))
def test_any_order_and_company_gives_the_robot_s_order(order) -> None:
    names, q = [*NAMES, ROBOT.gripper.joint, "wheel"], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.4, 9.0]
    reader = JointReader(ROBOT)
    assert read(reader, [names[k] for k in order], [q[k] for k in order])
    newest = reader.newest
    assert newest is not None and newest.q.tolist() == q[:6] and newest.qd[1] == pytest.approx(0.1)
    assert newest.gripper == pytest.approx(0.5)


def test_joint_states_that_are_wrong_are_named() -> None:
    reader = JointReader(ROBOT)
    assert not read(reader, NAMES[1:], [0.0] * 5)
    assert reader.problem.startswith("joint_states: shoulder_pan_joint missing among shoulder_lift_joint")
    assert not read(reader, NAMES, [0.0, 0.0, float("inf"), 0.0, 0.0, 0.0])
    assert reader.problem == "joint_states: position of elbow_joint is inf, must be finite"
    assert not read(reader, NAMES, [0.0] * 5)
    assert reader.problem == "joint_states: 6 names but 5 positions"
    assert not read(reader, [*NAMES, NAMES[0]], [0.0] * 7)
    assert reader.problem == "joint_states: shoulder_pan_joint appears twice"
    assert read(reader, NAMES, [0.0] * 6) and reader.problem == ""
    assert not read(reader, ["left_wheel"], [0.0]) and reader.problem == "" and reader.strangers == "left_wheel"


def test_the_reading_before_an_image_is_found() -> None:
    reader = JointReader(ROBOT)
    assert reader.before(1.0) is None
    for k in range(10):
        read(reader, NAMES, [0.1 * k] * 6, stamp=1.0 + 0.008 * k)
    for stamp, expected in ((1.0241, 0.3), (0.5, 0.0), (9.0, 0.9)):
        found = reader.before(stamp)
        assert found is not None and found.q[0] == pytest.approx(expected)


def test_velocities_that_a_driver_does_not_give_are_taken_from_positions() -> None:
    reader = JointReader(ROBOT)
    for k in range(200):
        assert reader.read(1.0 + 0.002 * k, NAMES, [0.3 * 0.002 * k] * 6, [])
    newest = reader.newest
    assert newest is not None and newest.qd == pytest.approx(0.3)
    assert reader.read(9.0, NAMES, [1.0] * 6, []) and reader.newest.qd.tolist() == [0.0] * 6, "nothing is known of late"
    assert not reader.read(9.1, NAMES, [1.0] * 6, [0.0] * 5) and reader.problem == "joint_states: 6 names but 5 velocities"
    assert reader.before(1.3).stamp == pytest.approx(1.3), "at 500 Hz, too, a frame of 0.1 s ago finds its joints"


# plan book


def complete(book: PlanBook, plan_id: str, goal_id: str = "g", stamp: float = 10.0) -> None:
    book.add_plan(plan_id, stamp, np.array([0.4, 0.8, 2.0]))
    book.add_features(plan_id, np.zeros((2, 3, 4, 8), np.float32))
    book.select(Selected(plan_id, goal_id, np.array([0, 2]), 0.1, stamp + 1.5))


def test_a_complete_plan_is_usable() -> None:
    book = PlanBook()
    assert book.usable("g", 10.0) == (StopReason.NO_SELECTION, "no frame selection yet")
    complete(book, "p1")
    plan = book.usable("g", 11.0)
    assert isinstance(plan, Plan) and plan.mask.tolist() == [True, False, True]
    assert plan.times == pytest.approx([10.5, 10.9, 12.1])
    assert book.newest("g", 11.0) == ("p1", 1.0)


def test_a_plan_that_is_not_complete_yet_does_not_replace_one_that_is() -> None:
    book = PlanBook()
    complete(book, "p1")
    book.select(Selected("p2", "g", np.array([0]), 0.0, 12.0))
    plan = book.usable("g", 10.5)
    assert isinstance(plan, Plan) and plan.plan_id == "p1"
    complete(book, "p2", stamp=10.4)
    plan = book.usable("g", 10.5)
    assert isinstance(plan, Plan) and plan.plan_id == "p2"


def test_what_keeps_a_plan_from_use_is_named() -> None:
    book = PlanBook()
    complete(book, "p1")
    reason, detail = book.usable("other", 10.5)  # type: ignore[misc]
    assert reason == StopReason.NO_SELECTION and "is for goal 'g', the goal is 'other'" in detail
    reason, detail = book.usable("g", 12.0)  # type: ignore[misc]
    assert reason == StopReason.STALE_PLAN and "0.500 s past its time" in detail
    book.select(Selected("p1", "g", np.array([7]), 0.0, 20.0))
    assert "frame 7 of plan 'p1' with 3" in book.usable("g", 10.5)[1]  # type: ignore[index]
    book.add_features("p1", np.zeros((2, 9, 4, 8), np.float32))
    book.select(Selected("p1", "g", np.array([0]), 0.0, 20.0))
    assert "have shape (2, 9, 4, 8), its frames are 3" in book.usable("g", 10.5)[1]  # type: ignore[index]
    book.forget()
    assert book.usable("g", 10.5)[0] == StopReason.NO_SELECTION  # type: ignore[index]


# inference


class Counting:
    """A policy that counts what it is asked, and fails for black pictures."""

    backend = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def set_plan(self, features):
        self.asked.append("plan")
        return features

    def observe(self, image):
        if not image.any():
            raise RuntimeError("black picture")
        return SimpleNamespace(latent=np.zeros((1, 2, 2), np.float32))

    def act(self, plan, frame, proprio, mask, frame_times, prefix=None):
        self.asked.append("act")
        return frame_times


def test_inference_computes_a_plan_once_and_survives_faults() -> None:
    policy, latents, results, faults = Counting(), [], [], []
    worker = InferenceWorker(policy, latents.append, results.append, faults.append)
    features = np.zeros((1, 2, 1, 1), np.float32)
    plan = Plan("p", 9.0, features, np.array([10.4, 10.8]), np.ones(2, np.bool_), 11.0)
    reading = JointReading(10.0, np.zeros(6), np.zeros(6), 0.0)
    picture = np.ones((4, 4, 3), np.uint8)

    def do(job: Job) -> None:
        before = len(latents) + len(faults)
        worker.submit(job)
        deadline = time.monotonic() + 5
        while len(latents) + len(faults) == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)

    worker.prepare("p", features)
    time.sleep(0.05)
    do(Job(10.0, picture, Request(1, 10.0, reading, plan, None)))
    do(Job(10.0, 0 * picture, None))
    do(Job(10.0, picture, None))
    do(Job(10.1, picture, Request(1, 10.1, reading, plan, None)))
    worker.close()
    assert policy.asked == ["plan", "act", "act"]
    assert [r.output == pytest.approx([0.4, 0.8]) for r in results[:1]] == [True]
    assert len(latents) == 3 and faults == ["RuntimeError: black picture"]


@pytest.mark.parametrize("rows", [[], [[]], [[0.1, 0.2], [0.1]], [[0.1]]], ids=["no points", "no positions", "ragged", "short"])
def test_a_trajectory_message_that_is_no_trajectory_is_none(rows: list[list[float]]) -> None:
    messages = pytest.importorskip("trajectory_msgs.msg")
    from act2goal_ros.nodes.trajectories import from_message

    message = messages.JointTrajectory(joint_names=["a", "b"])
    message.points = [messages.JointTrajectoryPoint(positions=row) for row in rows]
    assert from_message(message, ["a", "b"], 1.0) is None
