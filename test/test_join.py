"""Temporal ensembling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.join import DECAY, Ensemble

DT, ROWS, JOINTS = 0.05, 8, 2


def chunk(stamp: float, value: float = 0.0, speed: float = 0.0) -> ActionChunk:
    """Joints at `value` + `speed` · time, all alike; the gripper likewise, at `value`."""
    times = stamp + DT * np.arange(1, ROWS + 1)
    return ActionChunk(stamp, DT, np.repeat((value + speed * times)[:, None], JOINTS, axis=1), np.full(ROWS, value))


def test_the_first_chunk_stays_as_it_is() -> None:
    ensemble, first = Ensemble(), chunk(1.0, 0.3, 0.2)
    joined = ensemble.add(first)
    np.testing.assert_allclose(joined.positions, first.positions, atol=1e-12)
    np.testing.assert_allclose(joined.gripper, first.gripper)


def test_the_mean_favours_the_older_one_and_ends_where_it_ends() -> None:
    ensemble = Ensemble()
    ensemble.add(chunk(1.0, 0.0))
    joined = ensemble.add(chunk(1.1, 1.0))
    newer = np.exp(-DECAY) / (1 + np.exp(-DECAY))
    np.testing.assert_allclose(joined.positions[:6], newer)
    np.testing.assert_allclose(joined.gripper[:6], newer)
    np.testing.assert_allclose(joined.positions[6:], 1.0)
    assert joined.stamp == 1.1


def test_chunks_that_end_before_the_newest_begins_are_forgotten() -> None:
    ensemble = Ensemble()
    ensemble.add(chunk(1.0, 0.0))
    np.testing.assert_allclose(ensemble.add(chunk(1.0 + ROWS * DT, 1.0)).positions, 1.0)
    ensemble.clear()
    np.testing.assert_allclose(ensemble.add(chunk(1.41, 0.4)).positions, 0.4)


def test_chunks_lie_where_they_are_followed_however_slowly_that_is() -> None:
    """At half speed the arm has done half of what the older chunk asked for until the newer one's stamp."""
    ensemble = Ensemble()
    ensemble.add(chunk(1.0, 0.0, 1.0), followed=101.0)
    joined = ensemble.add(replace(chunk(1.2, 0.0, 1.0), positions=chunk(1.1, 0.0, 1.0).positions), followed=101.1)
    assert joined.stamp == 1.2
    np.testing.assert_allclose(joined.positions, chunk(1.1, 0.0, 1.0).positions, atol=1e-9)


def test_chunks_age_while_the_arm_is_paused() -> None:
    """Else they would all be kept, and what was seen before a pause would count after it."""
    ensemble = Ensemble()
    for k in range(100):
        joined = ensemble.add(chunk(1.0 + k * DT, float(k)), followed=101.0)
    assert joined.positions.min() > 99 - ROWS


@given(stamps=st.lists(st.floats(0.01, 0.2), min_size=1, max_size=20), speed=st.floats(-2, 2))
def test_chunks_that_agree_change_nothing(stamps: list[float], speed: float) -> None:
    ensemble = Ensemble()
    for stamp in 100 + np.cumsum(stamps):
        given_chunk = chunk(float(stamp), 0.5, speed)
        joined = ensemble.add(given_chunk)
        assert joined.positions == pytest.approx(given_chunk.positions, abs=1e-9)


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_mean_is_among_the_chunks(values: list[float]) -> None:
    ensemble = Ensemble()
    joined = [ensemble.add(chunk(100 + 0.04 * k, value)) for k, value in enumerate(values)][-1]
    assert (joined.positions >= min(values) - 1e-9).all() and (joined.positions <= max(values) + 1e-9).all()
    assert (joined.gripper >= min(values) - 1e-9).all() and (joined.gripper <= max(values) + 1e-9).all()
