"""Rates with their uncertainty."""

import pytest

from act2goal_ros.learning.statistics import paired_difference, summary, wilson


def test_wilson_against_published_values() -> None:
    """Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="3 successes of 0"):
        wilson(3, 0)


def test_paired_difference() -> None:
    same = paired_difference([True, False] * 20, [True, False] * 20)
    assert same["difference"] == same["low"] == same["high"] == 0.0
    worse = paired_difference([False] * 30 + [True] * 10, [True] * 40)
    assert worse["difference"] == -0.75
    assert worse["low"] < -0.75 < worse["high"] < 0


def test_summary_counts_by_task() -> None:
    rows = [{"task": t, "seed": s, "success": t == "a", "at_rest": s == 1} for t in "ab" for s in (1, 2)]
    found = summary(rows)
    assert found["success_rate"] == 0.5 and found["episodes"] == 4 and found["seeds"] == [1, 2]
    assert found["per_task"] == {"a": 1.0, "b": 0.0}
    assert found["at_rest_rate"] == 0.5
