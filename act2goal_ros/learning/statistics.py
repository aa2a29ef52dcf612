"""Rates with their uncertainty."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Z95 = 1.959964


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """95 % Wilson score interval of a rate (E. B. Wilson, 1927); raises ValueError without episodes."""
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes of {episodes} episodes make no rate")
    p, n = successes / episodes, episodes
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """Mean of first − second over paired episodes, with a 95 % bootstrap interval."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    if len(difference) == 0:
        raise ValueError("0 paired episodes, at least 1 needed")
    generator = np.random.default_rng(0)
    means = generator.choice(difference, (10_000, len(difference))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"difference": float(difference.mean()), "low": float(low), "high": float(high), "episodes": len(difference)}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rates over episodes: rows with `task`, `seed`, `success` and `at_rest`."""
    successes = sum(bool(row["success"]) for row in rows)
    tasks = sorted({row["task"] for row in rows})
    return {
        "success_rate": successes / len(rows),
        "successes": successes,
        "episodes": len(rows),
        "interval": wilson(successes, len(rows)),
        "at_rest_rate": sum(bool(row["at_rest"]) for row in rows) / len(rows),
        "seeds": sorted({row["seed"] for row in rows}),
        "per_task": {task: float(np.mean([row["success"] for row in rows if row["task"] == task])) for task in tasks},
    }
