"""A small training in a process of its own, to be killed or shared: training_under_test.py RUN '{"steps": 30, "processes": 2, …}'."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from test_dataset import episode

from act2goal_ros.learning import train
from act2goal_ros.learning.batches import HOLD_STEPS, Episodes
from act2goal_ros.learning.dataset import write_shard
from act2goal_ros.learning.devices import make_fabric
from act2goal_ros.learning.fit import Cadence
from act2goal_ros.learning.recipe import weights
from act2goal_ros.learning.schedule import Schedule
from act2goal_ros.learning.system import System
from act2goal_ros.model.config import ModelConfig

TINY = ModelConfig(
    world_width=24, world_heads=2, expert_width=16, expert_heads=2, blocks=1, live_width=4, autoencoder_width=4, camera_size=64
)


def small_episodes(folder: Path, count: int = 3) -> Episodes:
    """A few random episodes with random latents."""
    made = [episode(24 + HOLD_STEPS, seed) for seed in range(count)]
    size = TINY.camera_size // made[0].frames.shape[1]
    large = [e.__class__(**{**e.__dict__, "frames": e.frames.repeat(size, 1).repeat(size, 2)}) for e in made]
    write_shard(folder / "00000", large)
    found, generator = Episodes(folder, config=TINY), np.random.default_rng(0)
    found.latents = [generator.normal(size=(len(e.frames), 8, 8, 8)).astype(np.float16) for e in found.all]
    return found


def small_training(
    run: Path, episodes: Episodes, *, steps: int = 6, parts: int = 1, processes: int = 1, precision: str = "fp32",
    stages: tuple[str, ...] = ("stage1",), checkpoint_s: float = 1e9, **others: float,
) -> System:  # fmt: skip
    """Trains a TINY system from the same start each time, and tells every step."""
    fabric = make_fabric("cpu", processes, precision, threads=1)
    torch.manual_seed(0)
    system = System(TINY)
    train.prepare(system, episodes)
    schedule = Schedule(steps=steps, parts=parts, **{"batch": 2, "learning_rate": 2e-3, "warm_up": 0.2} | others)  # type: ignore[arg-type]
    cadence = Cadence(log_steps=1, checkpoint_s=checkpoint_s)
    train.HELD_OUT_BATCHES, train.HELD_OUT_PLANS, train.SHOWN_PLANS = 1, 2, 1
    for stage in stages:
        train.train_system(episodes, system, run, schedule, weights("shipped", stage, {}), stage, fabric, cadence)
    return system


def curve(run: Path, stage: str = "stage1") -> list[list[str]]:
    """The log's rows but for the time."""
    rows = [line.split(",") for line in (run / f"{stage}.csv").read_text().splitlines()]
    return [row[:1] + row[2:] for row in rows]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        small_training(Path(sys.argv[1]), small_episodes(Path(folder)), **json.loads(sys.argv[2]))
