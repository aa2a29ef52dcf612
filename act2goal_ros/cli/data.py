"""`act2goal data`: makes training data."""

import json
import multiprocessing
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from act2goal_ros.sim.tasks import ENVIRONMENTS, free_task

if TYPE_CHECKING:
    from act2goal_ros.learning.simulate import Recorder

EPISODES_PER_SHARD = 20


@click.group()
def command() -> None:
    """Make training data."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--env", "environment", default="cube-single", show_default=True, type=click.Choice(ENVIRONMENTS), help="OGBench's.")
@click.option("--episodes", default=3000, show_default=True, help="Episodes to have in the end; finished shards are kept.")
@click.option("--workers", default=os.cpu_count(), show_default=True)
@click.option("--seed", default=0, show_default=True, help="First episode's seed.")
@click.option("--first", default=0, show_default=True, help="Number of the first shard.")
@click.option("--policy", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Model that drives first.")
def sim(folder: Path, environment: str, episodes: int, workers: int, seed: int, first: int, policy: Path | None) -> None:
    """Record the scripted expert in the simulated arm. Can be interrupted and started again.

    Shards of several environments may share a folder: give each its own numbers with --first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first - (-episodes // EPISODES_PER_SHARD))
    folders = {i: folder / f"{i:05d}" for i in numbers}
    jobs = [(path, environment, seed + i * EPISODES_PER_SHARD, policy) for i, path in folders.items() if not path.exists()]
    dropped = 0
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        with tqdm(total=len(jobs) * EPISODES_PER_SHARD, unit="episode") as bar:
            for lost in pool.imap_unordered(_record_shard, jobs):
                dropped += lost
                bar.update(EPISODES_PER_SHARD)
                bar.set_postfix(failed=dropped)
    facts = {"source": "scripted expert", "environment": environment, "episodes": episodes, "seed": seed}
    (folder / "data.json").write_text(json.dumps(facts, indent=2))


def _record_shard(job: tuple[Path, str, int, Path | None]) -> int:
    """Records one shard; returns how many of its episodes the expert failed."""
    from act2goal_ros.learning.dataset import write_shard

    folder, environment, seed, policy = job
    recorder = _recorder(environment, policy)
    made = [recorder.record(seed + i) for i in range(EPISODES_PER_SHARD)]
    kept = [episode for episode in made if episode is not None]
    write_shard(folder, kept)
    return len(made) - len(kept)


@cache
def _recorder(environment: str, policy: Path | None) -> "Recorder":
    """This worker's recorder: building the scene takes seconds."""
    from act2goal_ros.learning.simulate import PolicyDriver, Recorder
    from act2goal_ros.serving.bundle import ModelBundle
    from act2goal_ros.sim.arm import SimulatedArm

    driver = PolicyDriver(ModelBundle.load(policy)) if policy else None
    return Recorder(SimulatedArm(free_task(environment)), driver=driver)
