"""Rates with their uncertainty."""

import pytest

from act2goal_ros.learning.statistics import over_clusters, paired_difference, paired_rows, summary, wilson


def test_wilson_against_published_values() -> None:
    """Newcombe (1998), table I: 81 of 263 gives 0.2553 to 0.3662."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_wilson_at_the_ends() -> None:
    for episodes in range(1, 400):
        assert wilson(0, episodes)[0] == 0.0 and wilson(episodes, episodes)[1] == 1.0
        assert 0.0 < wilson(1, episodes)[0] < 1.0 / episodes
    with pytest.raises(ValueError, match="3 successes of 0"):
        wilson(3, 0)


def test_paired_difference() -> None:
    same = paired_difference([True, False] * 20, [True, False] * 20)
    assert same["difference"] == 0.0 and -0.1 < same["low"] < 0.0 < same["high"] < 0.1
    alike = paired_difference([True] * 10, [True] * 10)
    assert alike["low"] == pytest.approx(-alike["high"]) and alike["high"] == pytest.approx(1.0 - wilson(10, 10)[0])
    published = paired_difference([True] * 48 + [False] * 2, [True] * 36 + [False] * 12 + [True] * 2)  # Newcombe's first example
    assert (published["difference"], published["low"], published["high"]) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)
    worse = paired_difference([False] * 30 + [True] * 10, [True] * 40)
    assert worse["difference"] == -0.75
    assert worse["low"] < -0.75 < worse["high"] < 0


def test_summary_counts_by_task() -> None:
    rows = [{"task": t, "seed": s, "success": t == "a", "at_rest": s == 1} for t in "ab" for s in (1, 2)]
    found = summary(rows)
    assert found["success_rate"] == 0.5 and found["episodes"] == 4 and found["seeds"] == [1, 2]
    assert found["per_task"] == {"a": 1.0, "b": 0.0}
    assert found["at_rest_rate"] == 0.5
    assert found["interval"] == found["at_rest_interval"] == wilson(2, 4)


def test_evaluation_seeds_are_told_apart() -> None:
    rows = [{"task": "a", "seed": 10 * e + i, "evaluation": e, "success": e == 0, "at_rest": False} for e in (0, 1, 2) for i in (1, 2)]
    found = summary(rows)
    assert found["seeds"] == [0, 1, 2]
    assert found["per_seed"] == {"0": 1.0, "1": 0.0, "2": 0.0}


def test_rest_that_is_not_known_is_no_rate() -> None:
    found = summary([{"task": "a", "seed": s, "success": True, "at_rest": None} for s in (1, 2)])
    assert found["success_rate"] == 1.0 and found["at_rest_rate"] is None and found["at_rest_interval"] is None


def test_interval_over_clusters() -> None:
    """Five tasks: mean .8, deviation .1, half width 2.776 · .1 / √5."""
    low, high = over_clusters([0.8, 0.8 - 0.1 * 2**0.5, 0.8 + 0.1 * 2**0.5, 0.8, 0.8])
    assert (low, high) == pytest.approx((0.8 - 0.12415, 0.8 + 0.12415), abs=1e-4)
    assert over_clusters([1.0, 0.2])[1] == 1.0
    with pytest.raises(ValueError, match="1 clusters, 2 to 20"):
        over_clusters([0.5])


def test_only_the_same_resets_are_paired() -> None:
    def row(task: str, seed: int, success: bool) -> dict[str, object]:
        return {"task": task, "seed": seed, "success": success}

    first = [row("a", 1, True), row("a", 2, True), row("b", 1, False)]
    second = [row("b", 1, True), row("a", 2, False), row("a", 3, False)]
    found = paired_rows(first, second)
    assert found["episodes"] == 2 and found["difference"] == 0.0, "a2 is lost, b1 won"
    with pytest.raises(ValueError, match="0 paired"):
        paired_rows(first[:1], second)
