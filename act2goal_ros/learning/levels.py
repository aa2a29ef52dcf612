"""World model and tick with the noise level σ of the plan as an input, where the served ones are fixed at σ = 1.

`act2goal export --levels` writes them beside the others; only ablations need them.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from act2goal_ros.serving.backends import make_runner
from act2goal_ros.serving.bundle import ModelBundle
from act2goal_ros.serving.policy import GoalPolicy
from act2goal_ros.serving.runner import Runner

WORLD, TICK = "imagine_level", "tick_level"


class Denoiser:
    """One pass of the world model at any noise level."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> "Denoiser | None":
        """Of the model in `folder`; None where it was exported without."""
        path = folder / f"{WORLD}.onnx"
        return cls(make_runner(path, threads=threads)) if path.exists() else None

    def __call__(
        self, noisy: np.ndarray, live: np.ndarray, goal: np.ndarray, offsets: np.ndarray, level: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features (L, F, T, W) and velocity (F, C, h, w) of frames (F, C, h, w) with noise σ = `level`, at `offsets` (F,) steps."""
        given = {"noisy": noisy, "current": live, "goal": goal, "offsets": offsets}
        inputs = {name: np.asarray(value, np.float32)[None] for name, value in given.items()}
        out = self._runner(inputs | {"level": np.array([level], np.float32)})
        return out["features"][0], out["velocity"][0]


class _AtLevel:
    """The tick's network, told a noise level."""

    def __init__(self, runner: Runner, level: float) -> None:
        self.backend, self.precision = runner.backend, runner.precision
        self._runner, self._level = runner, np.array([level], np.float32)

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._runner({**inputs, "level": self._level})


def policy_at(bundle: ModelBundle, level: float, threads: int = 1) -> GoalPolicy:
    """The bundle's policy for plans whose features have the noise level `level`; for 1 the one that is served."""
    policy = bundle.policy(threads=threads)
    if level == 1.0:
        return policy
    tick = _AtLevel(make_runner(bundle.folder / f"{TICK}.onnx", threads=threads), level)
    return GoalPolicy(bundle.config, replace(policy.served, runners={**policy.served.runners, "tick": tick}))
