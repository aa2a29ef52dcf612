"""Progress along a plan, progress of a goal, and the reached detector."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from act2goal_ros.control.progress import (
    GoalProgress,
    ProgressError,
    ProgressTracker,
    ReachedDetector,
    ReachedLimits,
    ReachedSample,
    first_detection,
    rms_distance,
    score_detector,
)

OFFSETS = np.array([0.4, 0.8, 1.2, 1.9, 3.1, 5.0])
SHAPE = (4, 4, 4)


def way(seconds: float, seed: int = 0) -> np.ndarray:
    """A smooth curve in latent space, one turn of a sine a latent element."""
    rng = np.random.default_rng(seed)
    phase, frequency = rng.uniform(0, 2 * math.pi, SHAPE), rng.uniform(0.1, 0.5, SHAPE)
    return np.sin(2 * math.pi * frequency * seconds + phase).astype(np.float32)


def tracker(mode="latent", start=100.0, **options) -> ProgressTracker:
    made = ProgressTracker(mode, **{"lag": 0.1} | options)
    made.set_plan(start, OFFSETS, np.stack([way(t) for t in OFFSETS]), way(0.0))
    return made


def follow(made: ProgressTracker, pace, seconds=1.2, rate=25.0, noise=0.0, start=100.0):
    """Positions while the robot really goes along the way at `pace(t)` plan seconds a second; returns [(truth, position)]."""
    rng = np.random.default_rng(1)
    truth, found = 0.0, []
    for k in range(1, round(seconds * rate) + 1):
        t = k / rate
        truth += pace(t) / rate
        live = way(truth) + noise * rng.standard_normal(SHAPE).astype(np.float32)
        found.append((truth, made.update(start + t, live)))
    return found


def test_follows_the_clock_when_the_robot_keeps_pace():
    for truth, at in follow(tracker(), lambda t: 1.0):
        assert at.position == pytest.approx(truth, abs=0.06)
        assert abs(at.shift) < 0.06


def test_a_robot_at_half_pace_is_seen_to_fall_behind():
    found = follow(tracker(), lambda t: 0.5)
    truth, at = found[-1]
    assert at.position == pytest.approx(truth, abs=0.12)
    assert at.shift == pytest.approx(1.2 - truth, abs=0.12)


def test_a_robot_held_back_is_not_told_to_hurry():
    found = follow(tracker(), lambda t: 1.0 if t <= 0.4 else 0.0, seconds=1.4)
    assert found[-1][1].position == pytest.approx(0.4, abs=0.25)
    assert found[-1][1].shift > 0.75


def test_the_clock_mode_hurries_on():
    at = follow(tracker("clock"), lambda t: 0.0)[-1][1]
    assert at.position == pytest.approx(1.2) and at.shift == pytest.approx(0.0)


def test_noise_on_the_latents_moves_the_position_little():
    for truth, at in follow(tracker(), lambda t: 1.0, noise=0.3):
        assert at.position == pytest.approx(truth, abs=0.15)


def test_a_plan_without_motion_goes_by_the_clock():
    made = ProgressTracker("latent")
    still = way(0.0)
    made.set_plan(0.0, OFFSETS, np.stack([still] * len(OFFSETS)), still)
    for k in range(1, 26):
        at = made.update(k * 0.04, still)
    assert at.position == pytest.approx(1.0, abs=1e-6)


def test_a_live_latent_far_from_the_plan_is_far():
    made = tracker()
    assert made.update(100.2, way(0.2)).distance < 0.2
    assert made.update(100.24, way(0.24) + 2.0).distance == pytest.approx(2.0, rel=0.1)


def test_stamps_out_of_order_move_nothing():
    made = tracker()
    before = made.update(100.4, way(0.4))
    after = made.update(100.2, way(3.0))
    assert after.position == before.position


def test_an_update_without_a_plan_or_with_another_shape_names_the_fault():
    with pytest.raises(ProgressError, match="no plan"):
        ProgressTracker().update(0.0, way(0.0))
    with pytest.raises(ProgressError, match="5 elements, must be 64"):
        tracker().update(100.1, np.zeros(5))
    with pytest.raises(ProgressError, match="finite"):
        tracker().update(100.1, np.full(SHAPE, np.nan))


@pytest.mark.parametrize(
    ("offsets", "latents", "words"),
    [
        ([], np.zeros((0, *SHAPE)), "F >= 1"),
        ([0.4, 0.3], np.zeros((2, *SHAPE)), "ascending"),
        ([0.0, 0.4], np.zeros((2, *SHAPE)), "> 0"),
        ([0.4, 0.8], np.zeros((3, *SHAPE)), "must be"),
        ([0.4], np.full((1, *SHAPE), np.inf), "not finite"),
        ([math.nan], np.zeros((1, *SHAPE)), "finite"),
    ],
)
def test_a_bad_plan_names_the_fault(offsets, latents, words):
    with pytest.raises(ProgressError, match=words):
        ProgressTracker().set_plan(0.0, offsets, latents, np.zeros(SHAPE))


def test_of_frames_at_one_time_the_last_counts():
    made = ProgressTracker()
    made.set_plan(0.0, [0.4, 0.8, 0.8], np.stack([way(0.4), way(3.0), way(0.8)]), way(0.0))
    at = follow(made, lambda t: 1.0, seconds=0.8, start=0.0)[-1][1]
    assert at.position == pytest.approx(0.8, abs=0.06) and at.distance < 0.1


@pytest.mark.parametrize("options", [{"mode": "guess"}, {"max_rate": 0.0}, {"lag": -1.0}, {"min_speed": math.nan}])
def test_a_bad_option_names_the_fault(options):
    with pytest.raises(ProgressError, match=str(next(iter(options.values())))):
        ProgressTracker(**options)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(0.001, 0.4), st.floats(-1.0, 8.0)), min_size=1, max_size=30),
    mode=st.sampled_from(["latent", "clock"]),
    seed=st.integers(0, 5),
)
def test_position_is_monotonic_and_windowed(steps, mode, seed):
    made, now, position = tracker(mode), 100.0, 0.0
    for dt, where in steps:
        now += dt
        at = made.update(now, way(where, seed))
        assert at.position >= position - 1e-9
        if mode == "latent":
            assert at.position <= min(position + made.max_rate * dt, OFFSETS[-1]) + 1e-9
        assert at.shift == pytest.approx(at.age - at.position)
        assert at.age == pytest.approx(now - 100.0)
        assert at.distance >= 0.0 and math.isfinite(at.distance)
        position = at.position


@settings(max_examples=50, deadline=None)
@given(dt=st.floats(0.01, 0.2), where=st.floats(0.0, 1.2), lag=st.floats(0.02, 0.5))
def test_the_match_is_the_minimum_of_its_cost(dt, where, lag):
    made = tracker(lag=lag)
    live = way(where)
    at = made.update(100.0 + dt, live)
    knots, points = np.concatenate([[0.0], OFFSETS]), np.stack([way(t) for t in (0.0, *OFFSETS)])
    speed = np.median([rms_distance(a, b) for a, b in itertools.pairwise(points)] / np.diff(knots))

    def cost(s):
        i = min(int(np.searchsorted(knots, s, "right")) - 1, len(OFFSETS) - 1)
        u = (s - knots[i]) / (knots[i + 1] - knots[i])
        miss = rms_distance(live, (1 - u) * points[i] + u * points[i + 1])
        return miss**2 + speed**2 * lag / dt * (s - dt) ** 2

    grid = np.linspace(0.0, 2.0 * dt, 201)
    assert cost(at.position) <= min(cost(s) for s in grid) + 1e-3


def test_rms_distance_of_other_shapes_names_them():
    assert rms_distance(np.zeros((2, 2)), np.full((2, 2), 3.0)) == pytest.approx(3.0)
    with pytest.raises(ProgressError, match=r"\(2,\) and \(3,\)"):
        rms_distance(np.zeros(2), np.zeros(3))


def test_goal_progress_goes_from_0_to_1_and_back_when_ground_is_lost():
    goal = GoalProgress(window=3)
    assert goal.update(0.0, math.nan) == 0.0
    seen = [goal.update(0.04 * k, max(0.0, 4.0 - 0.04 * k)) for k in range(110)]
    assert seen[0] == 0.0 and seen[-1] == 1.0
    assert all(b >= a for a, b in itertools.pairwise(seen))
    for k in range(5):
        lost = goal.update(5.0 + 0.04 * k, 2.0)
    assert lost == pytest.approx(0.5)
    goal.reset()
    assert goal.time_to_goal == math.inf and goal.update(9.0, 3.0) == 0.0


def test_one_wild_estimate_does_not_move_goal_progress():
    goal = GoalProgress()
    for k in range(10):
        goal.update(0.04 * k, 4.0)
    assert goal.update(0.5, 0.0) == pytest.approx(0.0)


def test_a_goal_shown_when_already_there_has_progress_1():
    assert GoalProgress().update(0.0, 0.0) == 1.0


def feed(detector: ReachedDetector, times, **changes) -> list[bool]:
    good = {"time_to_goal": 0.1, "progress": 0.95, "goal_distance": 0.1, "speed": 0.0} | changes
    return [detector.update(float(t), **good) for t in times]


LIMITS = ReachedLimits(time_to_goal=0.5, progress=0.8, goal_distance=0.3, speed=0.05, hold=0.5)


def test_reached_needs_to_hold():
    detector = ReachedDetector(LIMITS)
    seen = feed(detector, np.arange(0, 0.8, 0.04))
    assert seen.index(True) == 13  # 13 * 0.04 s = 0.52 s is the first stamp at or after 0.5 s
    assert all(seen[13:])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time_to_goal": 0.51}, "time to goal 0.51 s > 0.50 s"),
        ({"progress": 0.79}, "progress 0.79 < 0.80"),
        ({"goal_distance": 0.31}, "goal distance 0.310 > 0.300"),
        ({"speed": 0.06}, "fastest joint 0.060 rad/s > 0.050 rad/s"),
        ({"time_to_goal": math.nan}, "nan"),
        ({"speed": math.nan}, "nan"),
    ],
)
def test_every_condition_is_needed_and_named(change, words):
    detector = ReachedDetector(LIMITS)
    assert not any(feed(detector, np.arange(0, 2.0, 0.04), **change))
    assert words in detector.missing


def test_one_bad_frame_a_gap_or_a_clock_jump_starts_the_hold_again():
    for interruption in ({"speed": 1.0}, None):
        detector = ReachedDetector(LIMITS)
        feed(detector, np.arange(0, 0.48, 0.04))
        if interruption:
            feed(detector, [0.48], **interruption)
        assert not any(feed(detector, np.arange(0.52, 0.98, 0.04) + (0.0 if interruption else 0.6)))
    detector = ReachedDetector(LIMITS)
    feed(detector, np.arange(10, 10.48, 0.04))
    assert not any(feed(detector, np.arange(5, 5.48, 0.04)))
    assert any(feed(detector, np.arange(5.48, 6.0, 0.04)))


def test_limits_must_be_numbers_at_least_0():
    with pytest.raises(ProgressError, match="hold is -1"):
        ReachedLimits(hold=-1.0)


def rollout(reached_at: float | None, estimate_low_from: float | None, seconds: float = 4.0) -> list[ReachedSample]:
    return [
        ReachedSample(
            time=float(t),
            time_to_goal=0.1 if estimate_low_from is not None and t >= estimate_low_from else 2.0,
            progress=0.9,
            goal_distance=0.1,
            speed=0.0,
            truth=reached_at is not None and t >= reached_at,
        )
        for t in np.arange(0, seconds, 0.04)
    ]


def test_detections_are_scored_against_the_truth():
    score = score_detector([rollout(1.0, 1.2), rollout(None, 1.0), rollout(2.0, None), rollout(None, None)], LIMITS)
    assert (score.true_positive, score.false_positive, score.false_negative, score.true_negative) == (1, 1, 1, 1)
    assert score.false_positive_rate == 0.5 and score.false_negative_rate == 0.5
    assert score.latency == pytest.approx((0.72,))
    assert first_detection(rollout(None, None), LIMITS) is None
    assert math.isnan(score_detector([], LIMITS).false_positive_rate)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.005, 0.3), st.booleans()), max_size=60))
def test_reached_is_said_only_after_an_unbroken_hold(steps):
    detector, now, good_since = ReachedDetector(LIMITS), 0.0, None
    for dt, good in steps:
        now += dt
        said = feed(detector, [now], speed=0.0 if good else 1.0)[0]
        good_since = (now if good_since is None else good_since) if good else None
        assert said == (good_since is not None and now - good_since >= LIMITS.hold - 1e-9)
