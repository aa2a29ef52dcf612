"""Multi-scale temporal hashing."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from act2goal_ros.model.config import ConfigError, ModelConfig
from act2goal_ros.model.msth import SPACINGS, distal_offsets, frame_offsets, select


def test_paper_spacing_as_printed() -> None:
    """The example worked out from the paper's formula: K = 100, P = 20, M = 5."""
    assert distal_offsets(100, 20, 5, "paper").tolist() == [50, 69, 81, 91, 100]


def test_geometric_spacing_grows_towards_the_goal() -> None:
    gaps = np.diff(distal_offsets(100, 20, 5, "geometric"))
    assert (np.diff(gaps) > 0).all()


def test_uniform_spacing_has_equal_gaps() -> None:
    assert distal_offsets(100, 20, 5, "uniform").tolist() == [36, 52, 68, 84, 100]


def test_a_fixed_horizon_does_not_know_the_goal() -> None:
    assert frame_offsets(200, 8, 3, 3, "fixed").tolist() == frame_offsets(5, 8, 3, 3, "fixed").tolist() == [8, 16, 24, 32, 40, 48]


def test_of_the_goal_alone_one_frame_is_seen() -> None:
    offsets = frame_offsets(100.7, 8, 3, 3, "goal")
    assert offsets.tolist() == [100] * 6
    for age in (0, 90, 150):
        assert select(offsets, 3, age, 16, 3).indices.tolist() == [5]


def test_every_spacing_has_as_many_frames_and_can_be_configured() -> None:
    for spacing in SPACINGS:
        c = ModelConfig(spacing=spacing)
        assert frame_offsets(70, c.vision_stride, c.dense_frames, c.distal_frames, c.spacing).shape == (c.frames,)
    with pytest.raises(ConfigError, match="'linear'.*uniform, fixed, goal"):
        ModelConfig(spacing="linear")


def test_unknown_spacing_is_named() -> None:
    with pytest.raises(ValueError, match="'linear'.*paper, geometric"):
        frame_offsets(10, 1, 1, 2, "linear")
    with pytest.raises(ValueError, match="'fixed'.*paper, geometric, uniform"):
        distal_offsets(10, 1, 2, "fixed")


@example(horizon=2.9999999999997726, dense=1, stride=1, distal=1, spacing="paper")
@given(
    horizon=st.floats(0, 2000), dense=st.integers(1, 8), stride=st.integers(1, 10), distal=st.integers(1, 8),
    spacing=st.sampled_from(["paper", "geometric", "uniform", "goal"]),
)
def test_offsets_rise_and_end_at_the_goal(horizon: float, dense: int, stride: int, distal: int, spacing: str) -> None:
    offsets = frame_offsets(horizon, stride, dense, distal, spacing)
    assert offsets.shape == (dense + distal,)
    assert (np.diff(offsets) >= 0).all()
    farthest = max(horizon, stride * dense + distal)
    assert farthest - 1 < offsets[-1] <= farthest + 1e-8


def test_selection_of_a_fresh_plan() -> None:
    chosen = select(frame_offsets(100, 8, 3, 3), dense=3, age=0, horizon=16, distal=3)
    assert chosen.indices.tolist() == [0, 1, 3, 4, 5]
    assert chosen.proximal.tolist() == [True, True, False, False, False]


def test_rehashing_moves_the_proximal_window() -> None:
    chosen = select(frame_offsets(100, 8, 3, 3), dense=3, age=8, horizon=16, distal=3)
    assert chosen.indices.tolist() == [1, 2, 3, 4, 5]


@given(horizon=st.floats(0, 300), age=st.floats(0, 400))
def test_selection_never_looks_back_and_keeps_the_goal(horizon: float, age: float) -> None:
    offsets = frame_offsets(horizon, 8, 3, 3)
    chosen = select(offsets, 3, age, 16, 3)
    assert chosen.indices[-1] == 5
    assert (offsets[chosen.indices[:-1]] > age).all()
    assert (np.diff(chosen.indices) > 0).all()
    assert chosen.mask(6).sum() == len(chosen.indices)
