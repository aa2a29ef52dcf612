"""Rates with their uncertainty."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Z95 = 1.959964
# Two-sided 95 % quantiles of Student's t for 1, 2, … degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """95 % Wilson score interval of a rate (E. B. Wilson, 1927); raises ValueError without episodes."""
    if not 0 <= successes <= episodes or episodes == 0:
        raise ValueError(f"{successes} successes of {episodes} episodes make no rate")
    p, n = successes / episodes, episodes
    centre = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 * np.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n)) / (1 + Z95**2 / n)
    low, high = (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)  # exact: rounding may fall short
    return float(low), float(high)


def over_clusters(rates: Sequence[float]) -> tuple[float, float]:
    """95 % t interval of the mean of cluster means, within 0 .. 1; ValueError with fewer than 2 or more than 20 clusters.

    With tasks as clusters: what another task of the kind would give. Where the tasks are all there are, Wilson's interval over
    all episodes answers for them, and is rather too wide, since resets are drawn task by task.
    """
    if not 2 <= len(rates) <= len(T95) + 1:
        raise ValueError(f"{len(rates)} clusters, 2 to {len(T95) + 1} are needed")
    mean, half = np.mean(rates), T95[len(rates) - 2] * np.std(rates, ddof=1) / np.sqrt(len(rates))
    return float(max(mean - half, 0.0)), float(min(mean + half, 1.0))


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float]:
    """Rate of first − rate of second over paired episodes, with a 95 % interval.

    The interval is the square-and-add one of R. G. Newcombe (Statistics in Medicine 17, 1998, method 10): Wilson's of both rates, put
    together with the correlation of the pairs. Unlike a bootstrap it has a width where all pairs agree.
    """
    one, two = np.asarray(first, bool), np.asarray(second, bool)
    if not len(one):
        raise ValueError("0 paired episodes, at least 1 needed")
    (p, q), n = (one.mean(), two.mean()), len(one)
    (p_low, p_high), (q_low, q_high) = wilson(int(one.sum()), n), wilson(int(two.sum()), n)
    phi = _correlation(one, two)

    def away(a: float, b: float) -> float:
        return float(np.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0)))

    low, high = p - q - away(p - p_low, q_high - q), p - q + away(p_high - p, q - q_low)
    return {"difference": float(p - q), "low": float(low), "high": float(high), "episodes": n}


def _correlation(one: np.ndarray, two: np.ndarray) -> float:
    """Newcombe's φ of pairs, with his correction for continuity where it is positive; 0 where all of one, or of the other, are alike."""
    n = len(one)
    both, first, second, neither = (int(found.sum()) for found in (one & two, one & ~two, ~one & two, ~one & ~two))
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    determinant = both * neither - first * second
    return float((max(determinant - n / 2, 0) if determinant > 0 else determinant) / np.sqrt(margins))


def paired_rows(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> dict[str, float]:
    """`paired_difference` in success over the tasks and resets that both have; ValueError where they share none."""
    one, other = ({(row["task"], row["seed"]): bool(row["success"]) for row in rows} for rows in (first, second))
    shared = sorted(set(one) & set(other))
    return paired_difference([one[key] for key in shared], [other[key] for key in shared])


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rates over episodes: rows with `task`, `seed`, `success`, `at_rest`, and, if there were several, `evaluation` seeds.

    Where `at_rest` is None in any, because the episode was ended at success, the rate of it is None.
    `interval` and `at_rest_interval` are Wilson's over all episodes; `interval_over_tasks` is `over_clusters` of the tasks' rates.
    """
    if not rows:
        raise ValueError("0 episodes, at least 1 needed")
    successes, rested = (sum(bool(row[name]) for row in rows) for name in ("success", "at_rest"))
    known = all(row["at_rest"] is not None for row in rows)
    per_task, per_seed = (_rates(rows, by) for by in ("task", "evaluation" if "evaluation" in rows[0] else "seed"))
    found = {
        "success_rate": successes / len(rows),
        "successes": successes,
        "episodes": len(rows),
        "interval": wilson(successes, len(rows)),
        "at_rest_rate": rested / len(rows) if known else None,
        "at_rest_interval": wilson(rested, len(rows)) if known else None,
        "seeds": list(per_seed),
        "per_task": per_task,
    }
    if "evaluation" in rows[0]:
        found["per_seed"] = {str(seed): rate for seed, rate in per_seed.items()}
    if 2 <= len(per_task) <= len(T95) + 1:
        found["interval_over_tasks"] = over_clusters(list(per_task.values()))
    return found


def _rates(rows: Sequence[dict[str, Any]], by: str) -> dict[Any, float]:
    values = sorted({row[by] for row in rows})
    return {value: float(np.mean([bool(row["success"]) for row in rows if row[by] == value])) for value in values}
