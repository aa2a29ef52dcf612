"""What act2goal_ros writes, LeRobot reads, and the other way round; every value is compared. Runs where lerobot is installed:

    PYTHONPATH=. HF_HUB_OFFLINE=1 LEROBOT/bin/python benchmarks/lerobot/check_dataset.py

LEROBOT: an environment as requirements.txt here says. Prints a line for each comparison; exits with 1 where one fails.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from numpy.typing import NDArray

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.learning.checks import load_episodes
from act2goal_ros.learning.dataset import Episode, write_shard
from act2goal_ros.learning.lerobot import ACTION, CAMERA, DISTURBED, STATE, VELOCITY, ExportOptions, LeRobotOptions, LeRobotSource, export
from act2goal_ros.learning.resample import Grid
from act2goal_ros.model.config import PRESETS

CONFIG = PRESETS["tiny"]
ROBOT = RobotConfig.load("ur5e_sim")
LEAST_PSNR = 32.0  # dB; the codec halves the resolution of colours
QUANTILES = 2e-3  # LeRobot's are from histograms of 5000 bins
Array = NDArray[Any]
Compared = Iterator[tuple[str, str, bool]]


def picture(phase: float, side: int = 128) -> Array:
    """A soft gradient with a bright disc that moves to the right."""
    rows, columns = np.mgrid[:side, :side] / side
    rgb = np.stack([80 + 60 * rows, 90 + 40 * columns, 110 + 0 * rows], -1)
    rgb[np.hypot(rows - 0.5, columns - 0.15 - 0.7 * phase) < 0.12] = (225, 130, 60)
    return rgb.astype(np.uint8)


def positions(times: Array, seed: int) -> Array:
    """(T, 6) rad, smooth."""
    speeds = np.random.default_rng(seed).uniform(0.2, 1.0, 6)
    return np.asarray(np.sin(times[:, None] * speeds) * np.linspace(1.5, 0.5, 6))


def ours(seed: int, steps: int) -> Episode:
    """An episode as the simulator records them, with labels and disturbed steps."""
    times = 0.05 * np.arange(steps)
    fingers = (times > 1.5).astype(np.float32)
    return Episode(
        frames=np.stack([picture(k / steps) for k in range(0, steps, 2)]),
        joints=positions(times, seed).astype(np.float32),
        velocities=np.gradient(positions(times, seed), 0.05, axis=0).astype(np.float32),
        gripper=0.5 * fingers,
        command=np.column_stack([positions(times + 0.03, seed), fingers]).astype(np.float32),
        disturbed=(times > 1.0) & (times < 1.4),
        cube=np.zeros((steps, 3), np.float32),
        target=np.zeros((steps, 3), np.float32),
        environment=f"cube-{seed}",
    )


def psnr(one: Array, other: Array) -> float:
    """dB between pictures in 0 .. 255."""
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def exact(name: str, one: Array, other: Array) -> tuple[str, str, bool]:
    """A comparison of values that must be the same to single precision."""
    if one.shape != other.shape:
        return name, f"shapes {one.shape} and {other.shape}", False
    largest = float(np.max(np.abs(one.astype(np.float64) - other), initial=0.0))
    return name, f"{one.size} values, largest difference {largest:.1g}", largest < 2e-6


def pictures(name: str, values: list[float], least: float = LEAST_PSNR) -> tuple[str, str, bool]:
    """A comparison of pictures by their PSNR."""
    return name, f"{len(values)} pictures, PSNR at least {min(values):.1f} dB", min(values) >= least


def lerobot_reads_ours(folder: Path, codec: str, fps: int) -> Compared:
    """Writes with act2goal_ros, reads with lerobot."""
    every, episodes = 20 // fps, [ours(0, 61), ours(1, 80), ours(2, 47)]
    for number, group in enumerate((episodes[:2], episodes[2:])):
        write_shard(folder / "shards" / f"{number:05d}", group)
    for _ in export(load_episodes(folder / "shards", CONFIG), folder / "set", CONFIG, ExportOptions(fps=fps, codec=codec)):
        pass
    data = LeRobotDataset("local/ours", root=folder / "set", video_backend="pyav")
    rows = [data[i] for i in range(len(data))]
    steps = [np.arange(0, len(e), every) for e in episodes]
    after = [np.minimum(s + every, len(e) - 1) for s, e in zip(steps, episodes, strict=True)]
    label = f"ours, {codec}, {fps} Hz:"

    def column(key: str) -> Array:
        return np.stack([np.asarray(row[key]) for row in rows])

    yield exact(
        f"{label} {STATE}", column(STATE), joined(lambda e, k, _: np.column_stack([e.joints[k], e.gripper[k]]), episodes, steps, after)
    )
    yield exact(f"{label} {ACTION}", column(ACTION), joined(lambda e, _, k: e.command[k], episodes, steps, after))
    yield exact(f"{label} {VELOCITY}", column(VELOCITY), joined(lambda e, k, _: e.velocities[k], episodes, steps, after))
    flags = joined(lambda e, k, _: np.array([e.disturbed[i + 1 : i + 1 + every].any() for i in k]), episodes, steps, after)
    yield exact(f"{label} {DISTURBED}", column(DISTURBED).reshape(-1), flags)
    yield exact(f"{label} timestamp", column("timestamp"), joined(lambda _, k, __: 0.05 * k, episodes, steps, after))
    yield exact(f"{label} index", column("index"), np.arange(len(rows)))
    numbers = np.repeat(np.arange(3), [len(k) for k in steps])
    yield exact(f"{label} episode_index", column("episode_index"), numbers)
    tasks = [row["task"] for row in rows] == [f"cube-{n}" for n in numbers]
    yield f"{label} task", f"{len(rows)} texts", tasks
    shown = [e.frames[i // 2] for e, k in zip(episodes, steps, strict=True) for i in k]
    yield pictures(
        f"{label} {CAMERA}", [psnr(255 * np.asarray(row[CAMERA]).transpose(1, 2, 0), f) for row, f in zip(rows, shown, strict=True)]
    )
    yield from statistics(label, data, rows)
    yield from chunks(label, data, folder / "set")


def joined(take: Callable[[Episode, Array, Array], Array], episodes: list[Episode], steps: list[Array], after: list[Array]) -> Array:
    """What take(episode, its rows' steps, the steps after these) gives, one episode behind the other."""
    return np.concatenate([take(e, k, n) for e, k, n in zip(episodes, steps, after, strict=True)])


def statistics(label: str, data: LeRobotDataset, rows: list[dict[str, Any]]) -> Compared:
    """meta/stats.json against what lerobot makes of the same rows."""
    keys = (STATE, ACTION, VELOCITY)
    parts = []
    for number in range(data.meta.total_episodes):
        mine = [row for row in rows if int(row["episode_index"]) == number]
        values = {key: np.stack([np.asarray(row[key]) for row in mine]) for key in keys}
        parts.append(compute_episode_stats(values, {key: data.features[key] for key in keys}))
    theirs = aggregate_stats(parts)
    for kind, bound in {"mean": 1e-5, "std": 1e-5, "min": 1e-6, "max": 1e-6, "q01": QUANTILES, "q50": QUANTILES, "q99": QUANTILES}.items():
        worst = max(float(np.max(np.abs(np.asarray(data.meta.stats[key][kind]) - theirs[key][kind]))) for key in keys)
        yield f"{label} statistics, {kind}", f"largest difference {worst:.1g}", worst <= bound
    shapes = {np.asarray(data.meta.stats[CAMERA][kind]).shape for kind in ("mean", "std", "min", "max")}
    yield f"{label} statistics of pictures", f"shapes {sorted(shapes)}", shapes == {(3, 1, 1)}


def chunks(label: str, data: LeRobotDataset, folder: Path) -> Compared:
    """Actions to come, as LeRobot's policies are trained on, in batches."""
    stamps = {ACTION: [k / data.fps for k in range(8)]}
    loader = torch.utils.data.DataLoader(
        LeRobotDataset("local/ours", root=folder, video_backend="pyav", delta_timestamps=stamps), batch_size=16
    )
    batch = next(iter(loader))
    shapes = tuple(batch[ACTION].shape), tuple(batch[CAMERA].shape)
    yield f"{label} batch of action chunks", f"shapes {shapes[0]}, {shapes[1]}", shapes == ((16, 8, 7), (16, 3, 128, 128))


def we_read_lerobots(folder: Path, kind: str, fps: int) -> Compared:
    """Writes with lerobot at another rate, in degrees, gripper 0 .. 100, pictures 160 × 120; reads with act2goal_ros."""
    names = [f"{name}.pos" for name in (*ROBOT.joint_names, "gripper")]
    features: dict[str, Any] = {key: {"dtype": "float32", "shape": (7,), "names": names} for key in (STATE, ACTION)}
    features["observation.images.top"] = {"dtype": kind, "shape": (128, 128, 3), "names": ["height", "width", "channels"]}
    data = LeRobotDataset.create("local/theirs", fps, features, root=folder / "set", use_videos=kind == "video", vcodec="h264")
    lengths = (3 * fps, 4 * fps)
    for seed, length in enumerate(lengths):
        times = np.arange(length) / fps
        state, action = (np.column_stack([np.degrees(positions(times + ahead, seed)), 25 + 10 * times]) for ahead in (0.0, 1 / fps))
        for k in range(length):
            row = {STATE: state[k].astype(np.float32), ACTION: action[k].astype(np.float32), "task": f"task {seed}"}
            data.add_frame(row | {"observation.images.top": picture(k / length)})
        data.save_episode()
    data.finalize()
    options = LeRobotOptions(robot=ROBOT, degrees=True, gripper_closed=100.0)
    source, label = LeRobotSource(folder / "set", options), f"theirs, {kind}, {fps} Hz:"
    episodes = [source.episode(e, Grid(frame_tolerance=0.5 / fps, joint_gap=1.5 / fps)) for e in source.data.episodes()]
    yield f"{label} episodes", ", ".join(f"{len(e)} steps" for e in episodes), len(episodes) == 2
    for seed, (episode, length) in enumerate(zip(episodes, lengths, strict=True)):
        times = 0.05 * np.arange(len(episode))
        known = np.arange(length) / fps
        # a straight line between samples is this far from a sine: one period of 1 rad/s at these rates
        curve = 1.5 * (1 / fps) ** 2 / 8 + 2e-6
        for what, found, at in (("joints", episode.joints, times), ("command", episode.command[1:, :-1], times[1:])):
            away = float(np.abs(found - positions(np.minimum(at, known[-1]), seed)).max())
            yield f"{label} {what} of {episode.environment}", f"{found.size} values, largest difference {away:.1g} rad", away <= curve
        yield exact(f"{label} gripper", episode.gripper, ((25 + 10 * times) / 100).astype(np.float32))
        nearest = [min(round(t * fps), length - 1) for t in times[::2]]
        shown = [psnr(frame, picture(k / length)) for frame, k in zip(episode.frames, nearest, strict=True)]
        yield pictures(f"{label} frames", shown, 100.0 if kind == "image" else LEAST_PSNR)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Also write the lines there.")
def main(output: Path | None) -> None:
    """Compares everything."""
    lines, failed = [f"lerobot {version('lerobot')}, torch {version('torch')}, av {version('av')}, pyarrow {version('pyarrow')}"], 0
    with tempfile.TemporaryDirectory() as folder:
        runs = [lerobot_reads_ours(Path(folder) / f"o{i}", *what) for i, what in enumerate((("av1", 20), ("h264", 10)))]
        runs += [we_read_lerobots(Path(folder) / f"t{i}", *what) for i, what in enumerate((("video", 30), ("image", 10)))]
        for run in runs:
            for name, text, good in run:
                lines.append(f"{'ok  ' if good else 'FAIL'} {name}: {text}")
                failed += not good
                print(lines[-1], flush=True)
    lines.append(f"{len(lines) - 1} comparisons, {failed} failed")
    print(lines[0], lines[-1], sep="\n")
    if output:
        output.write_text("\n".join(lines) + "\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
