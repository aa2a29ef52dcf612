"""Selections over the life of a plan, and when another plan is wanted."""

import numpy as np
import pytest
from fake_bundle import SPEED, latent
from hypothesis import given
from hypothesis import strategies as st

from act2goal_ros.control.progress import ProgressError, ProgressTracker
from act2goal_ros.control.rehash import KnownPlan, Rehasher, RehashLimits

OFFSETS = np.array([0.4, 0.8, 1.2, 2.0, 3.0, 4.0])
START = 1000.0


def known(plan_id="p1", start=START, begin=0.1) -> KnownPlan:
    return KnownPlan(
        plan_id=plan_id,
        goal_id="g1",
        start=start,
        offsets=OFFSETS,
        dense=3,
        latents=np.stack([latent(begin + SPEED * t) for t in OFFSETS]),
        start_latent=latent(begin),
        goal_latent=latent(begin + SPEED * 4.0),
    )


def rehasher(mode="latent", **limits) -> Rehasher:
    return Rehasher(RehashLimits(horizon=0.8, distal=3, **limits), ProgressTracker(mode, lag=0.1))


def follow(made: Rehasher, pace: float, seconds: float, offset: float = 0.0):
    """Every (time, position, selection or None, complaint) of a robot that goes at `pace` along the plan."""
    seen = []
    for k in range(1, round(seconds / 0.04) + 1):
        t = 0.04 * k
        at, hashed = made.update(START + t, latent(0.1 + SPEED * pace * t + offset))
        seen.append((t, at, hashed, made.complaint(at)))
    return seen


def test_a_new_plan_is_hashed_at_once():
    first = rehasher().set_plan(known())
    assert first.indices.tolist() == [0, 1, 3, 4, 5] and first.proximal.tolist() == [True, True, False, False, False]
    np.testing.assert_allclose(first.times, START + OFFSETS[[0, 1, 3, 4, 5]])
    assert first.valid_until == START + 1.5 and first.shift == 0.0


def test_the_selection_changes_when_progress_crosses_a_frame():
    made = rehasher()
    made.set_plan(known())
    changes = [(t, h.indices.tolist()) for t, _, h, _ in follow(made, 1.0, 1.3) if h is not None]
    assert [indices for _, indices in changes] == [[1, 2, 3, 4, 5], [2, 3, 4, 5], [3, 4, 5]]
    assert [t for t, _ in changes] == pytest.approx([0.4, 0.8, 1.2], abs=0.05)


def test_a_robot_held_back_keeps_its_frames_and_their_times_move_with_it():
    made = rehasher()
    made.set_plan(known())
    seen = follow(made, 0.0, 1.0)
    last = [h for _, _, h, _ in seen if h is not None][-1]
    assert last.indices.tolist() == [0, 1, 3, 4, 5]
    assert last.times[0] - (START + 1.0) == pytest.approx(0.4, abs=0.15)
    assert last.shift == pytest.approx(0.9, abs=0.06)


def test_by_the_clock_it_is_hurried():
    made = rehasher("clock")
    made.set_plan(known())
    last = [h for _, _, h, _ in follow(made, 0.0, 1.0) if h is not None][-1]
    assert last.indices.tolist() == [2, 3, 4, 5] and last.shift == pytest.approx(0.0)


def test_another_plan_is_asked_for_once_a_cause():
    made = rehasher(max_distance=0.05, replan_age=0.75, max_shift=0.5)
    made.set_plan(known())
    causes = [c for _, _, _, c in follow(made, 0.0, 1.4, offset=0.9) if c]
    assert len(causes) == 3
    assert "RMS from the imagined way for 3 frames, at most 0.05" in causes[0]
    assert any("0.76 s old, at most 0.75 s" in c for c in causes)
    made.set_plan(known("p2"))
    assert any("old" in c for _, _, _, c in follow(made, 1.0, 1.0))


def test_a_robot_that_was_held_back_asks_for_another_plan():
    made = rehasher(replan_age=10.0)
    made.set_plan(known())
    causes = [c for _, _, _, c in follow(made, 0.0, 1.0) if c]
    assert len(causes) == 1 and "off its clock, at most 0.50 s" in causes[0]


def test_one_frame_far_off_is_not_enough():
    made = rehasher(max_distance=0.2)
    made.set_plan(known())
    for k, off in enumerate((0.0, 2.0, 0.0, 2.0, 2.0, 0.0), 1):
        at, _ = made.update(START + 0.04 * k, latent(0.1 + SPEED * 0.04 * k + off))
        assert made.complaint(at) == ""


def test_without_a_plan_or_with_another_shape_it_says_so():
    made = rehasher()
    with pytest.raises(ProgressError, match="no plan"):
        made.update(START, latent(0.1))
    made.set_plan(known())
    with pytest.raises(ProgressError, match="7 elements, must be 32"):
        made.update(START + 0.1, np.zeros(7))
    made.clear()
    with pytest.raises(ProgressError, match="no plan"):
        made.update(START + 0.2, latent(0.1))


@given(st.lists(st.tuples(st.floats(0.01, 0.3), st.floats(-0.5, 2.0)), max_size=20), st.sampled_from(["latent", "clock"]))
def test_selections_are_ascending_end_at_the_goal_and_never_expire_late(steps, mode):
    made, now = rehasher(mode), START
    hashes = [made.set_plan(known())]
    for dt, brightness in steps:
        now += dt
        at, hashed = made.update(now, latent(brightness))
        hashes.append(hashed or hashes[-1])
        current = hashes[-1]
        assert abs(current.shift - at.shift) < made.limits.shift_step or hashed is not None
    for h in hashes:
        assert np.all(np.diff(h.indices) > 0) and h.indices[-1] == 5
        assert np.all(np.diff(h.times) > 0) and len(h.indices) == len(h.times) == len(h.proximal)
        assert h.proximal.sum() <= 2 and h.valid_until == START + 1.5
