"""A model bundle whose world is one number, the brightness of the picture: the way to the goal is a straight line at SPEED.

`python fake_bundle.py imagination|msth --ros-args …` runs that node with it.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass

import numpy as np

SPEED = 0.2  # brightness (0..1) a second
SHAPE = (2, 4, 4)
OFFSETS = np.array([0.4, 0.8, 1.2])
BLOCKS, TOKENS, WIDTH = 2, 4, 8
HASH = "f" * 64


def picture(brightness: float, side: int = 32) -> np.ndarray:
    """A grey picture, (side, side, 3) uint8."""
    return np.full((side, side, 3), round(255 * brightness), np.uint8)


def latent(brightness: float) -> np.ndarray:
    """What the fake encoder makes of it."""
    return np.full(SHAPE, brightness, np.float32)


@dataclass
class Way:
    """What imagine returns."""

    offsets: np.ndarray
    dense: int
    features: np.ndarray
    latents: np.ndarray
    time_to_goal: float
    duration_ms: float


class FakeImagination:
    """Straight lines; takes FAKE_SECONDS a plan. Raises or returns NaN for the seeds named in FAKE_FAULTS ("7:raise,8:nan")."""

    served = "backend fake"

    backend = "fake"

    def __init__(self) -> None:
        self.seconds = float(os.environ.get("FAKE_SECONDS", "0.02"))
        pairs = [part.split(":") for part in os.environ.get("FAKE_FAULTS", "").split(",") if part]
        self.faults = {int(seed): kind for seed, kind in pairs}

    def encode(self, image):
        return latent(float(image.mean()) / 255.0)

    def imagine(self, live, goal, seed):
        time.sleep(self.seconds)
        if self.faults.get(seed) == "raise":
            raise RuntimeError(f"fake fault at seed {seed}")
        start, end = float(live.mean()), float(goal.mean())
        seconds = abs(end - start) / SPEED
        offsets = np.concatenate([OFFSETS, np.linspace(1.2, max(seconds, 1.5), 4)[1:]])
        values = start + np.sign(end - start) * np.minimum(offsets * SPEED, abs(end - start))
        latents = np.stack([latent(v) for v in values])
        features = np.broadcast_to(values[None, :, None, None], (BLOCKS, len(values), TOKENS, WIDTH)).astype(np.float32)
        if self.faults.get(seed) == "nan":
            latents[0, 0, 0, 0] = np.nan
        return Way(offsets, 3, features, latents, seconds, 1e3 * self.seconds)

    def decode(self, latents):
        return np.stack([picture(float(np.clip(z.mean(), 0, 1)), 16) for z in latents])


class FakeBundle:
    """The part of a ModelBundle that imagination and msth use."""

    hash, image_size, step, chunk_steps, distal_frames = HASH, (32, 32), 0.05, 16, 3

    def imagination(self, backend="auto", threads=1, precision="float16"):
        return FakeImagination()

    def time_to_goal(self, live, goal):
        return abs(float(live.mean()) - float(goal.mean())) / SPEED


def main() -> None:
    """Runs a node with the fake."""
    from act2goal_ros import paths
    from act2goal_ros.nodes import imagination, msth
    from act2goal_ros.serving.bundle import ModelBundle

    paths.model = lambda name: name
    ModelBundle.load = classmethod(lambda cls, *_, **__: FakeBundle())
    {"imagination": imagination, "msth": msth}[sys.argv.pop(1)].main()


if __name__ == "__main__":
    main()
