"""What of a data set can be used: damaged shards and episodes are left out, counted and named."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from act2goal_ros.learning.dataset import DatasetError, Episode, read_shard, shards
from act2goal_ros.model.config import ModelConfig

SHORTEST = 17  # steps; the sampler takes the last 16 as those at rest and needs one before
TURNS = 4 * np.pi  # rad, more than any joint that does not turn for ever; larger ones are degrees or damage
FILES_OF_A_SHARD = 11  # that stay open: nine arrays, and latents
OTHER_FILES = 256


@dataclass(frozen=True)
class Skipped:
    """What was left out: the episode of that number in a shard (or other recording), or all of it, and why."""

    path: Path
    episode: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.path}{'' if self.episode is None else f', episode {self.episode}'}: {self.reason}"


@dataclass(frozen=True)
class Loaded:
    """Shards with at least one usable episode, the usable episodes of each, and what was left out."""

    shards: list[Path]
    by_shard: list[list[Episode]]
    skipped: list[Skipped]


def load_episodes(folder: Path, config: ModelConfig, limit: int | None = None, pictures: bool = True) -> Loaded:
    """Opens the first `limit` shards (all: None) and leaves out what cannot be used; reads no frames.

    Without `pictures` their size does not matter. Raises DatasetError with numbers when nothing is left.
    """
    loaded, orders = Loaded([], [], []), dict[frozenset[str], tuple[str, ...]]()
    chosen = shards(folder)[:limit]
    _allow_files(folder, FILES_OF_A_SHARD * len(chosen) + OTHER_FILES)
    for shard in chosen:
        usable, skipped = _usable(shard, config, pictures, orders)
        loaded.skipped.extend(skipped)
        if usable:
            loaded.shards.append(shard)
            loaded.by_shard.append(usable)
    if not loaded.shards:
        reasons = "; ".join(str(s) for s in loaded.skipped[:3])
        raise DatasetError(
            f"{folder}: 0 usable episodes in {len(chosen)} shards, at least 1 needed; {len(loaded.skipped)} skipped, first: {reasons}"
        )
    return loaded


def report(skipped: Sequence[Skipped], most: int = 20) -> list[str]:
    """Lines that name what was left out."""
    lines = [f"skipped {item}" for item in skipped[:most]]
    return lines + ([f"skipped {len(skipped) - most} more"] if len(skipped) > most else [])


def _usable(
    shard: Path, config: ModelConfig, pictures: bool, orders: dict[frozenset[str], tuple[str, ...]]
) -> tuple[list[Episode], list[Skipped]]:
    """orders: in which each set of cameras was shown by the first episode that has it."""
    try:
        episodes = list(read_shard(shard))
    except (DatasetError, TypeError, ValueError) as error:  # the last two: an index of other types
        return [], [Skipped(shard, None, str(error).removeprefix(f"shard {shard}").lstrip(": "))]
    if not episodes:
        return [], [Skipped(shard, None, "0 episodes")]
    reasons = [problem(episode, config, pictures) or _other_order(episode, orders) for episode in episodes]
    usable = [episode for episode, reason in zip(episodes, reasons, strict=True) if not reason]
    return usable, [Skipped(shard, number, reason) for number, reason in enumerate(reasons) if reason]


def problem(episode: Episode, config: ModelConfig, pictures: bool = True) -> str:
    """Why an episode cannot be trained on, with value and bound; empty when it can."""
    return _wrong_shape(episode, config, pictures) or _wrong_joints(episode, config) or _wrong_values(episode, config)


def _other_order(episode: Episode, orders: dict[frozenset[str], tuple[str, ...]]) -> str:
    first = orders.setdefault(frozenset(episode.cameras), episode.cameras)
    if first == episode.cameras:
        return ""
    return f"shows {', '.join(episode.cameras)} from the top, earlier episodes {', '.join(first)}"


def _wrong_shape(episode: Episode, config: ModelConfig, pictures: bool) -> str:
    steps, joints = len(episode), config.joints
    if steps < SHORTEST:
        return f"{steps} steps, at least {SHORTEST} needed"
    if pictures and episode.frames.shape[1:] == (1, 1, 3):
        return "was recorded without pictures: only the part acting and --states take it (data check --no-pictures)"
    cameras = _cameras(episode, config.camera_size)
    if pictures and cameras and cameras != config.views:
        return f"pictures of {cameras} cameras, expected of {config.views} (--views of train and data check)"
    picture = episode.frames.shape[1:3] if not pictures and episode.frames.ndim == 4 else config.picture_shape
    expected = {
        "frames": (-(-steps // 2), *picture, 3),
        "joints": (steps, joints),
        "velocities": (steps, joints),
        "gripper": (steps,),
        "command": (steps, joints + 1),
        "disturbed": (steps,),
        "cube": (steps, 3),
        "target": (steps, 3),
    }
    if episode.keypoints is not None:
        expected["keypoints"] = (-(-steps // 2), config.keypoints, 3)
    for name, shape in expected.items():
        array = getattr(episode, name)
        if array.shape != shape:
            return f"{name} has shape {array.shape}, expected {shape}"
        if array.dtype.kind not in "fiub":
            return f"{name} is of type {array.dtype}, expected numbers"
    if episode.frames.dtype != np.uint8:
        return f"frames are {episode.frames.dtype}, expected uint8"
    late = [step for step in episode.milestones if not 0 <= step < steps]
    return f"milestone at step {late[0]} of {steps}" if late else ""


def _cameras(episode: Episode, side: int) -> int:
    """How many square pictures of that side stand one above the other; 0: other pictures."""
    height, width = episode.frames.shape[1:3] if episode.frames.ndim == 4 else (0, 0)
    return height // side if width == side and height % side == 0 else 0


def _wrong_joints(episode: Episode, config: ModelConfig) -> str:
    if episode.joint_names and episode.joint_names != config.joint_names:
        return f"joints are {', '.join(episode.joint_names)}; the configuration has {', '.join(config.joint_names)}"
    return ""


def _wrong_values(episode: Episode, config: ModelConfig) -> str:
    for name in ("joints", "velocities", "gripper", "command"):
        values = np.asarray(getattr(episode, name)).reshape(len(episode), -1)
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            step, column = bad[0]
            return f"{name}: {values[step, column]} at step {step}, {_column(name, int(column), config)}"
        angles = values[:, : config.joints] if name in ("joints", "command") else values[:, :0]
        far = np.argwhere(np.abs(angles) > TURNS)
        if len(far):
            step, column = far[0]
            where = f"at step {step}, {_column(name, int(column), config)}"
            return f"{name}: {angles[step, column]:.1f} rad {where}, at most {TURNS:.1f} rad (are they degrees?)"
    return ""


def _column(name: str, column: int, config: ModelConfig) -> str:
    return config.joint_names[column] if name != "gripper" and column < config.joints else "gripper"


def _allow_files(folder: Path, needed: int) -> None:
    """A memory-mapped array keeps its file open: raises the process's soft limit where it must."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= soft or soft == resource.RLIM_INFINITY:
        return
    if needed > hard != resource.RLIM_INFINITY:
        raise DatasetError(f"{folder} needs {needed} open files, this process may have {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def last_of_each(environments: Sequence[str], share: float) -> set[int]:
    """Indices of the last share of each environment's episodes; at least one in all."""
    kept: set[int] = set()
    for environment in set(environments):
        own = [i for i, name in enumerate(environments) if name == environment]
        kept.update(own[len(own) - round(len(own) * share) :])
    return kept or {len(environments) - 1}
