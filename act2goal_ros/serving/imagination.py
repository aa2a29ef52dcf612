"""Imagination at run time: from live and goal latents to a plan."""

import time
from dataclasses import dataclass

import cv2
import numpy as np

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.msth import frame_offsets
from act2goal_ros.serving.backends import Served
from act2goal_ros.serving.runner import Runner


def picture_input(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB → (1, 3, size, size) float32 in 0 .. 1, averaged down."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"picture has shape {image.shape} and type {image.dtype}, (H, W, 3) uint8 is needed")
    if image.shape[:2] != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return (image.transpose(2, 0, 1)[None].astype(np.float32)) / np.float32(255.0)


@dataclass(frozen=True)
class Imagined:
    """offsets (F,) s from the live frame; features (L, F, T, W); latents (F, C, H, W); time to goal in s."""

    offsets: np.ndarray
    dense: int
    features: np.ndarray
    latents: np.ndarray
    time_to_goal: float
    duration_ms: float


class TimeToGoal:
    """The temporal-distance head."""

    def __init__(self, config: ModelConfig, runner: Runner) -> None:
        self._config, self._runner = config, runner

    def __call__(self, live: np.ndarray, goal: np.ndarray) -> float:
        """Seconds, ≥ 0."""
        log_steps = self._runner({"current": live[None], "goal": goal[None]})["log_steps"]
        return float(max(np.expm1(float(log_steps.reshape(-1)[0])), 0.0) * self._config.step)


class Imagination:
    """Encodes pictures, imagines plans, decodes imagined frames."""

    def __init__(self, config: ModelConfig, served: Served) -> None:
        self.config, self.served, self._runners = config, served, served.runners
        self.backend = served.backend
        self.time_to_goal = TimeToGoal(config, served.runners["distance"])

    def encode(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size → (C, h, w) float32."""
        return self._runners["encode"]({"pictures": picture_input(image, self.config.encoded_size)})["latents"][0]

    def offsets(self, live: np.ndarray, goal: np.ndarray, seconds: float | None = None) -> tuple[np.ndarray, float]:
        """Steps (F,) of the frames to imagine, and the time to goal in s: estimated, or what is given."""
        c, seconds = self.config, self.time_to_goal(live, goal) if seconds is None else seconds
        return frame_offsets(seconds / c.step, c.vision_stride, c.dense_frames, c.distal_frames, c.spacing), seconds

    def noise(self, seed: int) -> np.ndarray:
        """(F, C, h, w) float32, what a plan with this seed is imagined from."""
        shape = (self.config.frames, *self.config.served_latent)
        return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)

    def imagine(
        self, live: np.ndarray, goal: np.ndarray, seed: int, order: np.ndarray | None = None, seconds: float | None = None
    ) -> Imagined:
        """One pass of the world model from pure noise; latents (C, h, w); `seconds` to the goal, where that is known.

        With `order` (F,) the world model is told the frames' times in another order than the plan: a corrupted plan.
        """
        c, started = self.config, time.perf_counter()
        steps, seconds = self.offsets(live, goal, seconds)
        told = steps if order is None else steps[order]
        out = self._runners["imagine"](
            {"noise": self.noise(seed)[None], "current": live[None], "goal": goal[None], "offsets": told[None].astype(np.float32)}
        )
        duration = 1000 * (time.perf_counter() - started)
        return Imagined(steps * c.step, c.dense_frames, out["features"][0], out["latents"][0], seconds, duration)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """(F, C, h, w) → (F, H, W, 3) uint8."""
        pictures = self._runners["decode"]({"latents": latents.astype(np.float32)})["pictures"]
        return (pictures.clip(0, 1) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
