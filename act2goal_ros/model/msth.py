"""Multi-scale temporal hashing: dense near frames, sparse far ones (arXiv 2512.23541). NumPy only."""

from dataclasses import dataclass

import numpy as np

SPACINGS = ("paper", "geometric", "uniform", "fixed", "goal")


def distal_offsets(horizon: float, proximal: float, count: int, spacing: str = "paper") -> np.ndarray:
    """Steps (M,) of the distal frames between `proximal` (P) and `horizon` (K); the last one is K.

    `paper`: d_m = P + floor((K − P) / log(M + 1) · log(m + 1)), as printed: gaps shrink towards the goal.
    `geometric`: d_m = P + floor((K − P) · (2^m − 1) / (2^M − 1)): gaps grow towards the goal.
    `uniform`: d_m = P + floor((K − P) · m / M): equal gaps.
    A horizon nearer than one step a frame beyond P is taken as P + M.
    """
    m = np.arange(1, count + 1)
    shares = {
        "paper": np.log(m + 1) / np.log(count + 1),
        "geometric": (2.0**m - 1) / (2.0**count - 1),
        "uniform": m / count,
    }
    if spacing not in shares:
        raise ValueError(f"spacing '{spacing}' is not one of {', '.join(shares)}")
    reach = _farthest(horizon, proximal, count) - proximal
    return proximal + np.floor(reach * shares[spacing] + 1e-9)


def frame_offsets(horizon: float, stride: int, dense: int, distal: int, spacing: str = "paper") -> np.ndarray:
    """Steps (dense + distal,) from the plan's start of all frames to imagine.

    Two more spacings are for comparison. `fixed` goes on every `stride` steps, wherever the goal is: a fixed horizon of the
    same number of frames. `goal` has all of them at the goal: `select` then leaves one, the goal frame alone.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"spacing '{spacing}' is not one of {', '.join(SPACINGS)}")
    near = stride * np.arange(1, dense + 1, dtype=float)
    if spacing == "fixed":
        return stride * np.arange(1, dense + distal + 1, dtype=float)
    if spacing == "goal":
        return np.full(dense + distal, np.floor(_farthest(horizon, near[-1], distal) + 1e-9))
    return np.concatenate([near, distal_offsets(horizon, near[-1], distal, spacing)])


def _farthest(horizon: float, proximal: float, count: int) -> float:
    return max(float(horizon), proximal + count)


@dataclass(frozen=True)
class Selection:
    """Frames of a plan: ascending indices (S,) and which of them are proximal (S,)."""

    indices: np.ndarray
    proximal: np.ndarray

    def mask(self, frames: int) -> np.ndarray:
        """(frames,) bool."""
        mask = np.zeros(frames, bool)
        mask[self.indices] = True
        return mask


def select(offsets: np.ndarray, dense: int, age: float, horizon: float, distal: int) -> Selection:
    """Re-hashes a plan that is `age` old: dense frames in (age, age + horizon], and up to `distal` of those beyond.

    `offsets` (F,), `age` and `horizon` in one unit, from the plan's start. The last frame is always kept, and alone of those
    at its time.
    """
    near = [i for i in range(dense) if age < offsets[i] <= age + horizon and offsets[i] < offsets[-1]]
    far = [i for i in range(dense, len(offsets)) if age < offsets[i] < offsets[-1] or i == len(offsets) - 1]
    indices = np.array([*near, *far[-max(distal, 1) :]])
    return Selection(indices, indices < dense)
