"""Multi-scale temporal hashing: dense near frames, sparse far ones (arXiv 2512.23541). NumPy only."""

from dataclasses import dataclass

import numpy as np

SPACINGS = ("paper", "geometric")


def distal_offsets(horizon: float, proximal: float, count: int, spacing: str = "paper") -> np.ndarray:
    """Steps (M,) of the distal frames between `proximal` (P) and `horizon` (K); the last one is K.

    `paper`: d_m = P + floor((K − P) / log(M + 1) · log(m + 1)), as printed: gaps shrink towards the goal.
    `geometric`: d_m = P + floor((K − P) · (2^m − 1) / (2^M − 1)): gaps grow towards the goal.
    A horizon nearer than one step a frame beyond P is taken as P + M.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"spacing '{spacing}' is not one of {', '.join(SPACINGS)}")
    reach = max(float(horizon), proximal + count) - proximal
    m = np.arange(1, count + 1)
    share = np.log(m + 1) / np.log(count + 1) if spacing == "paper" else (2.0**m - 1) / (2.0**count - 1)
    return proximal + np.floor(reach * share + 1e-9)


def frame_offsets(horizon: float, stride: int, dense: int, distal: int, spacing: str = "paper") -> np.ndarray:
    """Steps (dense + distal,) from the plan's start of all frames to imagine."""
    near = stride * np.arange(1, dense + 1, dtype=float)
    return np.concatenate([near, distal_offsets(horizon, near[-1], distal, spacing)])


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

    `offsets` (F,), `age` and `horizon` in one unit, from the plan's start. The last frame, the goal, is always kept.
    """
    near = [i for i in range(dense) if age < offsets[i] <= age + horizon]
    far = [i for i in range(dense, len(offsets)) if offsets[i] > age]
    far = far[-distal:] if distal else []
    if not far or far[-1] != len(offsets) - 1:
        far = [*far, len(offsets) - 1]
    indices = np.array([*near, *far])
    return Selection(indices, indices < dense)
