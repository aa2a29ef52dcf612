"""`act2goal data`: makes training data, of the simulated arm or of recordings, and says what there is."""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from act2goal_ros.sim.tasks import ENVIRONMENTS, free_task

if TYPE_CHECKING:
    from act2goal_ros.learning.convert import Source
    from act2goal_ros.learning.resample import Grid
    from act2goal_ros.learning.simulate import Recorder
    from act2goal_ros.model.config import ModelConfig

EPISODES_PER_SHARD = 20
ROBOT = click.option("--robot", default="ur5e_sim", show_default=True, help="Name or path of a file in config/robots.")
PRESET = click.option("--preset", default="tiny", show_default=True, type=click.Choice(["tiny", "base", "paper"]),
                      help="Whose pictures: of 128, 224 or 256 pixels a side.")  # fmt: skip
FOLDER = click.Path(path_type=Path)
SEVERAL = " Several: their pictures one above the other, the first on top, for `act2goal train --views`."


@click.group()
def command() -> None:
    """Make training data, and say what there is."""


@command.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--env", "environment", default="cube-single", show_default=True, type=click.Choice(ENVIRONMENTS), help="OGBench's.")
@click.option("--episodes", default=3000, show_default=True, help="Episodes to have in the end; finished shards are kept.")
@click.option("--workers", default=os.cpu_count(), show_default=True)
@click.option("--seed", default=0, show_default=True, help="First episode's seed.")
@click.option("--first", default=0, show_default=True, help="Number of the first shard.")
@click.option("--size", default=128, show_default=True, type=click.IntRange(32, 512), help="Side of a picture, pixels; 224 for base.")
@click.option("--policy", type=click.Path(exists=True, path_type=Path),
              help="Model that takes turns with the expert; without pictures a checkpoint of a training will do.")
@click.option("--randomised", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Share of episodes with random looks.")
@click.option("--shadowed", default=0.0, show_default=True, type=click.FloatRange(0, 1), help="Share with shadows, otherwise plain.")
@click.option("--pictures/--no-pictures", default=True, show_default=True,
              help="Without them: key points only, for `act2goal train --part acting`, five times as fast.")
def sim(
    folder: Path,
    environment: str,
    episodes: int,
    workers: int,
    seed: int,
    first: int,
    size: int,
    policy: Path | None,
    randomised: float,
    shadowed: float,
    pictures: bool,
) -> None:
    """Record the scripted expert in the simulated arm. Can be interrupted and started again.

    Shards of several environments may share a folder: give each its own numbers with --first.
    """
    from act2goal_ros.learning.checkpoint import CheckpointError
    from act2goal_ros.learning.dataset import DatasetError
    from act2goal_ros.learning.workers import WorkerDiedError, results_of

    if policy is not None and pictures and not policy.is_dir():
        raise click.UsageError(f"--policy {policy}: with pictures a model's folder drives, without them a checkpoint may, too")
    if randomised + shadowed > 1:
        raise click.UsageError(f"--randomised {randomised:g} and --shadowed {shadowed:g} are shares of all episodes, together at most 1")
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(first, first - (-episodes // EPISODES_PER_SHARD))
    folders = {i: folder / f"{i:05d}" for i in numbers}
    settings = (environment, policy, size, randomised, shadowed, pictures)
    jobs = [(path, seed + i * EPISODES_PER_SHARD, settings) for i, path in folders.items() if not path.exists()]
    dropped = 0
    try:
        with tqdm(total=len(jobs) * EPISODES_PER_SHARD, unit="episode") as bar:
            for lost in results_of(_record_shard, jobs, workers):
                dropped += lost
                bar.update(EPISODES_PER_SHARD)
                bar.set_postfix(failed=dropped)
    except (DatasetError, CheckpointError, WorkerDiedError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    facts = {"source": "scripted expert", "environment": environment, "episodes": episodes, "seed": seed}
    (folder / "data.json").write_text(json.dumps(facts, indent=2))


def _record_shard(job: tuple[Path, int, tuple[str, Path | None, int, float, float, bool]]) -> int:
    """Records one shard; returns how many of its episodes the expert failed."""
    from act2goal_ros.learning.dataset import write_shard

    folder, seed, settings = job
    recorder = _recorder(*settings)
    made = [recorder.record(seed + i) for i in range(EPISODES_PER_SHARD)]
    kept = [episode for episode in made if episode is not None]
    if kept:  # else the others go on, and this one is tried again with the next call
        write_shard(folder, kept)
    return len(made) - len(kept)


@command.command()
@click.argument("bags", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=FOLDER)
@ROBOT
@click.option("--camera", "cameras", multiple=True, help="Topic of raw or compressed pictures; default: the robot file's." + SEVERAL)
@click.option("--command", "source", default="auto", show_default=True, type=click.Choice(["auto", "reference", "trajectory", "next"]),
              help="Actions: the controller's reference, trajectories sent to it, or the next joint states; auto: the first recorded.")
@click.option("--environment", default="recorded", show_default=True, help="What to call these episodes.")
@click.option("--frame-tolerance", default=0.06, show_default=True, help="s from a step to the frame nearest to it, at most.")
@click.option("--joint-gap", default=0.25, show_default=True, help="s between two joint states, at most.")
@PRESET
def bag(bags: tuple[Path, ...], folder: Path, robot: str, cameras: tuple[str, ...], source: str, environment: str,
        frame_tolerance: float, joint_gap: float, preset: str) -> None:  # fmt: skip
    """Convert rosbag2 recordings to shards in FOLDER, one episode each: BAGS are bags or folders of bags.

    The goal of an episode is its last frame. Can be interrupted and started again; recordings that FOLDER has already are left alone.
    """
    from act2goal_ros.control.robot import RobotConfig, RobotError
    from act2goal_ros.data.bag import BagError
    from act2goal_ros.data.messages import find_recordings
    from act2goal_ros.learning.bags import BagOptions, asked_cameras, episode_of_bag
    from act2goal_ros.learning.convert import Source

    config = _config(preset, len(cameras))
    grid = _grid(config, frame_tolerance, joint_gap)
    try:
        options = BagOptions(robot=RobotConfig.load(robot), cameras=cameras, command=source, environment=environment, step=grid.step)
        found = list(dict.fromkeys(path.resolve() for given in bags for path in find_recordings(given)))
    except (RobotError, BagError) as error:
        raise click.ClickException(str(error)) from error
    asked = asked_cameras(options)
    sources = (Source(str(path), partial(episode_of_bag, path, options, grid), path, cameras=asked) for path in found)
    _convert(sources, len(found), folder, config)


@command.command()
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=FOLDER)
@ROBOT
@click.option("--state", default="observation.state", show_default=True, help="Feature with joints and gripper.")
@click.option("--action", default="action", show_default=True, help="Feature with their commands.")
@click.option("--camera", "cameras", multiple=True, help="Feature with pictures; default: the only one." + SEVERAL)
@click.option("--joints", default="", help="Names of the joints' components in the robot's order, with commas; default: the robot's.")
@click.option("--gripper", default="gripper", show_default=True, help="Name of the gripper's component.")
@click.option("--gripper-range", nargs=2, type=float, default=(0.0, 1.0), show_default=True, help="Its values: open, closed.")
@click.option("--degrees", is_flag=True, help="Joints are in degrees.")
@click.option("--environment", default="", help="What to call the episodes; default: their task.")
@PRESET
def lerobot(dataset: Path, folder: Path, robot: str, state: str, action: str, cameras: tuple[str, ...], joints: str, gripper: str,
            gripper_range: tuple[float, float], degrees: bool, environment: str, preset: str) -> None:  # fmt: skip
    """Convert the LeRobot data set (v3) in folder DATASET to shards in FOLDER, at the model's rate.

    Can be interrupted and started again; episodes that FOLDER has already are left alone.
    """
    from act2goal_ros.control.robot import RobotConfig, RobotError
    from act2goal_ros.data.lerobot import LeRobotError
    from act2goal_ros.learning.convert import Source
    from act2goal_ros.learning.lerobot import LeRobotOptions, LeRobotSource

    if gripper_range[0] == gripper_range[1]:
        raise click.UsageError(f"--gripper-range: open and closed are both {gripper_range[0]:g}")
    try:
        options = LeRobotOptions(
            robot=RobotConfig.load(robot), state=state, action=action, cameras=cameras, joints=tuple(filter(None, joints.split(","))),
            gripper=gripper, gripper_open=gripper_range[0], gripper_closed=gripper_range[1], degrees=degrees, environment=environment,
        )  # fmt: skip
        made = LeRobotSource(dataset, options)
        entries = made.data.episodes()
    except (RobotError, LeRobotError) as error:
        raise click.ClickException(str(error)) from error
    config = _config(preset, len(cameras))
    grid = _grid(config, 0.5 / made.data.fps, 1.5 / made.data.fps)
    sources = (Source(made.name(e), partial(made.episode, e, grid), dataset, e.number, made.cameras) for e in entries)
    _convert(sources, len(entries), folder, config)


@command.command("export-lerobot")
@click.argument("shards", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=FOLDER)
@click.option("--fps", default=20, show_default=True, help="Rows a second: 20, every other with the picture of the one before, or 10.")
@click.option("--task", default="", help="Of all episodes; default: their environment.")
@click.option("--robot-type", default="ur5e_sim", show_default=True)
@click.option("--codec", default="av1", show_default=True, type=click.Choice(["av1", "h264"]))
@PRESET
def export_lerobot(shards: Path, folder: Path, fps: int, task: str, robot_type: str, codec: str, preset: str) -> None:
    """Write the episodes of SHARDS to FOLDER as a LeRobot data set (v3). Can be interrupted and started again."""
    from act2goal_ros.data.lerobot import LeRobotError
    from act2goal_ros.data.video import VideoError
    from act2goal_ros.learning.checks import load_episodes, report
    from act2goal_ros.learning.dataset import DatasetError
    from act2goal_ros.learning.lerobot import ExportOptions, export

    config = _config(preset)
    try:
        loaded = load_episodes(shards, config)
        written = export(loaded, folder, config, ExportOptions(fps=fps, task=task, robot=robot_type, codec=codec))
        *_, writer = tqdm(written, total=len(loaded.shards), unit="shard")
    except (DatasetError, LeRobotError, VideoError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for line in report(loaded.skipped):
        click.echo(line, err=True)
    click.echo(f"{writer.episodes} episodes, {writer.rows} rows at {fps} Hz, in {folder}")


@command.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="Without: as the part acting takes it.")
@PRESET
@click.option("--views", default=1, show_default=True, type=click.IntRange(1, 8), help="Cameras, their pictures one above the other.")
def check(folder: Path, pictures: bool, preset: str, views: int) -> None:
    """Say what the shards in FOLDER hold: episodes, steps and hours by environment, and what is skipped and why."""
    from act2goal_ros.learning.checks import load_episodes, report
    from act2goal_ros.learning.dataset import DatasetError

    config = _config(preset, views)
    try:
        loaded = load_episodes(folder, config, pictures=pictures)
    except DatasetError as error:
        raise click.ClickException(str(error)) from error
    episodes, steps, labelled = Counter[str](), Counter[str](), Counter[str]()
    for episode in (episode for group in loaded.by_shard for episode in group):
        episodes[episode.environment] += 1
        steps[episode.environment] += len(episode)
        labelled[episode.environment] += episode.labelled
    click.echo(f"{'environment':<24} episodes  with labels     steps   hours")
    for name in sorted(episodes):
        hours = steps[name] * config.step / 3600
        click.echo(f"{name:<24} {episodes[name]:8d} {labelled[name]:12d} {steps[name]:9d} {hours:7.2f}")
    hours = steps.total() * config.step / 3600
    click.echo(f"{'all':<24} {episodes.total():8d} {labelled.total():12d} {steps.total():9d} {hours:7.2f}")
    click.echo(f"{len(loaded.shards)} shards; {len(loaded.skipped)} shards or episodes skipped")
    for line in report(loaded.skipped, most=1000):
        click.echo(line)


def _config(preset: str, cameras: int = 0) -> "ModelConfig":
    """For so many cameras, at least one."""
    from act2goal_ros.model.config import PRESETS

    return replace(PRESETS[preset], views=max(cameras, 1))


def _grid(config: "ModelConfig", frame_tolerance: float, joint_gap: float) -> "Grid":
    from act2goal_ros.learning.resample import Grid

    return Grid(step=config.step, size=config.camera_size, frame_tolerance=frame_tolerance, joint_gap=joint_gap)


def _convert(sources: "Iterable[Source]", count: int, folder: Path, config: "ModelConfig") -> None:
    """Converts with a progress bar and names what was skipped; an error when FOLDER has nothing in the end."""
    from act2goal_ros.learning.checks import report
    from act2goal_ros.learning.convert import Conversion, convert
    from act2goal_ros.learning.dataset import DatasetError

    done = Conversion()
    try:
        with tqdm(total=count, unit="episode") as bar:
            for done in convert(sources, folder, config):
                bar.update()
                bar.set_postfix(skipped=len(done.skipped))
    except DatasetError as error:
        raise click.ClickException(str(error)) from error
    for line in report(done.skipped, most=1000):
        click.echo(line, err=True)
    click.echo(f"{done.made} episodes made, {done.known} were there, {len(done.skipped)} skipped; in {folder}")
    if not done.made + done.known:
        raise click.ClickException(f"0 of {count} recordings gave an episode")


@cache
def _recorder(environment: str, policy: Path | None, size: int, randomised: float, shadowed: float, pictures: bool) -> "Recorder":
    """This worker's recorder: building the scene takes seconds."""
    from act2goal_ros.learning.simulate import Driver, PolicyDriver, Recorder, ToldDriver
    from act2goal_ros.serving.bundle import ModelBundle
    from act2goal_ros.sim.arm import SimulatedArm

    driver: Driver | None = None
    if policy is not None and pictures:
        driver = PolicyDriver(ModelBundle.load(policy))
    elif policy is not None:
        from act2goal_ros.learning.acting import ToldPolicy

        driver = ToldDriver(ToldPolicy(policy))
    arm = SimulatedArm(free_task(environment), size)
    return Recorder(arm, driver=driver, randomised=randomised, shadowed=shadowed, pictures=pictures)
