"""A record of what the simulated arm was told and when its frames were ready, for benchmarks. No ROS in here."""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Trace:
    """Kept in memory, written by `save` as an .npz of `setpoints` (N, 1 + J) and `frames` (M, 2).

    A set-point's row is the end of its physics step in s and the servos' targets in rad; a frame's row is the instant of the
    state it shows and that at which it had been rendered, s.
    """

    def __init__(self, path: Path, joints: int = 6) -> None:
        self._path, self._joints = path, joints
        self._setpoints, self._frames = array("d"), array("d")

    def step(self, time: float, setpoint: Array) -> None:
        """A physics step that ended at `time` under targets (J,)."""
        self._setpoints.append(time)
        self._setpoints.frombytes(np.ascontiguousarray(setpoint, np.float64).tobytes())

    def frame(self, stamp: float, ready: float) -> None:
        """A frame of the state at `stamp`."""
        self._frames.extend((stamp, ready))

    def save(self) -> None:
        """Writes all so far."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        setpoints = np.array(self._setpoints, np.float64).reshape(-1, 1 + self._joints)
        np.savez(self._path, setpoints=setpoints, frames=np.array(self._frames, np.float64).reshape(-1, 2))
