"""Multi-scale temporal hashing."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from act2goal_ros.model.msth import distal_offsets, frame_offsets, select


def test_paper_spacing_as_printed() -> None:
    """The example worked out from the paper's formula: K = 100, P = 20, M = 5."""
    assert distal_offsets(100, 20, 5, "paper").tolist() == [50, 69, 81, 91, 100]


def test_geometric_spacing_grows_towards_the_goal() -> None:
    gaps = np.diff(distal_offsets(100, 20, 5, "geometric"))
    assert (np.diff(gaps) > 0).all()


def test_unknown_spacing_is_named() -> None:
    with pytest.raises(ValueError, match="'linear'.*paper, geometric"):
        distal_offsets(10, 1, 2, "linear")


@example(horizon=2.9999999999997726, dense=1, stride=1, distal=1, spacing="paper")
@given(
    horizon=st.floats(0, 2000), dense=st.integers(1, 8), stride=st.integers(1, 10), distal=st.integers(1, 8),
    spacing=st.sampled_from(["paper", "geometric"]),
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
