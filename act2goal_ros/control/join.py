"""How a new chunk is joined to the ones before it, before it reaches the command stream. No ROS."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from act2goal_ros.control.chunk import ActionChunk, Array

# prefix: the policy is told what is committed; ensemble: the mean of all chunks that speak of a time; both; none: the newest as it is.
JOINS = ("prefix", "ensemble", "both", "none")
PREFIXED, AVERAGED = ("prefix", "both"), ("ensemble", "both")
DECAY = 0.01  # as in ACT


class Ensemble:
    """Temporal ensembling as in ACT (arXiv 2304.13705): weights exp(−DECAY · i), i counted from the oldest chunk."""

    def __init__(self) -> None:
        self._chunks: deque[tuple[float, ActionChunk]] = deque()  # each with its end on the observations' clock

    def clear(self) -> None:
        """Forgets all chunks."""
        self._chunks.clear()

    def add(self, chunk: ActionChunk, followed: float | None = None) -> ActionChunk:
        """The chunk with each row replaced by the mean over it and all earlier chunks that reach that row's time.

        followed: the chunk's stamp on the clock by which chunks are followed, s, where that is another than the observations'. On it a
        chunk lies where the arm was at its observation, however slowly the arm goes; how long a chunk counts, the observations' says.
        """
        while self._chunks and self._chunks[0][0] < chunk.stamp + chunk.dt - 1e-9:
            self._chunks.popleft()
        placed = chunk if followed is None else replace(chunk, stamp=followed)
        self._chunks.append((chunk.end, placed))
        chunks = [c for _, c in self._chunks]
        times: Array = placed.stamp + chunk.dt * np.arange(1, len(chunk.positions) + 1, dtype=np.float64)
        weights = np.exp(-DECAY * np.arange(len(chunks)))[:, None] * np.array([times <= c.end + 1e-9 for c in chunks])
        weights /= weights.sum(axis=0)
        positions: Array = np.einsum("ct,ctj->tj", weights, np.array([c.sample_many(times)[0] for c in chunks]))
        gripper: Array = np.einsum("ct,ct->t", weights, np.array([[c.gripper_at(t) for t in times.tolist()] for c in chunks]))
        return replace(chunk, positions=positions, gripper=gripper)
