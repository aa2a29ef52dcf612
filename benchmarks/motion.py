"""Figures of a motion: how rough what was sent is, and how far the arm was from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.learning.evaluate import PHYSICS_PER_COMMAND, Trace
from act2goal_ros.sim.arm import PHYSICS_STEP

COMMAND_PERIOD = PHYSICS_PER_COMMAND * PHYSICS_STEP  # s, at which jerk is taken


def figures(trace: Trace) -> dict[str, float]:
    """jerk_max and jerk_mean (rad/s³, of set-points 20 ms apart), border_step (rad), tracking_rms and tracking_max (rad).

    border_step is how far the first set-point of a new chunk lies from where the last two were going, 2 ms apart.
    """
    sent, measured = np.array(trace.sent), np.array(trace.measured)
    jerk = np.abs(np.diff(sent[PHYSICS_PER_COMMAND - 1 :: PHYSICS_PER_COMMAND], 3, axis=0)) / COMMAND_PERIOD**3
    error = measured - sent
    return {
        "jerk_max": float(jerk.max()),
        "jerk_mean": float(jerk.mean()),
        "border_step": border_step(sent, trace.borders[1:]),
        "tracking_rms": float(np.sqrt((error**2).mean())),
        "tracking_max": float(np.abs(error).max()),
    }


def border_step(sent: NDArray[np.float64], borders: list[int]) -> float:
    """Largest |q_b − 2 q_{b−1} + q_{b−2}| over the indices b of a chunk's first set-point; 0 without any."""
    inside = np.array([b for b in borders if 2 <= b < len(sent)], np.intp)
    return float(np.abs(sent[inside] - 2 * sent[inside - 1] + sent[inside - 2]).max(initial=0.0))


def together(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of several motions: the largest of what is a maximum, the mean of the rest."""
    largest = ("jerk_max", "border_step", "tracking_max")
    names = (*largest, "jerk_mean", "tracking_rms")
    return {name: float((np.max if name in largest else np.mean)([row[name] for row in rows])) for name in names}
