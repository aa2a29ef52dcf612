"""Episodes on disk: a folder of shards, a shard a folder of arrays that are memory-mapped when read."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ARRAYS = ("frames", "joints", "velocities", "gripper", "command", "disturbed", "cube")
FORMAT = 2  # of a shard; in 1, of single cubes only, an episode had one target and no milestones


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps at 20 Hz; frame k belongs to step k * stride.

    frames (ceil(T / stride), H, W, 3) uint8; joints, velocities (T, J) rad, rad/s; gripper (T,) 0 open .. 1 closed;
    command (T, J + 1): the set-point in force at the step, joints and gripper; disturbed (T,): the command that led to this
    step was not the expert's. Simulator labels, for training only: cube (T, 3) m, the object handled now or next (a cube, a
    handle, a button's top), and target (T, 3) m, where it is to be; milestones: the steps, in order, at which one object of
    several was done and the gripper away from it.
    """

    frames: np.ndarray
    joints: np.ndarray
    velocities: np.ndarray
    gripper: np.ndarray
    command: np.ndarray
    disturbed: np.ndarray
    cube: np.ndarray
    target: np.ndarray
    environment: str = "cube-single"
    milestones: tuple[int, ...] = ()

    @classmethod
    def from_steps(
        cls,
        steps: Sequence[dict[str, np.ndarray]],
        target: np.ndarray,
        environment: str = "cube-single",
        milestones: Sequence[int] = (),
    ) -> "Episode":
        """Of one row for every step; `target` (T, 3), or (3,) for all steps."""
        frames = np.stack([step["frame"] for step in steps if "frame" in step])
        columns = {name: np.stack([step[name] for step in steps]) for name in ARRAYS if name != "frames"}
        columns = {name: array if array.dtype == bool else array.astype(np.float32) for name, array in columns.items()}
        targets = np.broadcast_to(np.asarray(target, np.float32), (len(steps), 3))
        return cls(frames=frames, target=targets, environment=environment, milestones=tuple(milestones), **columns)

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def stride(self) -> int:
        """Steps between frames."""
        return -(-len(self.joints) // len(self.frames))


def write_shard(folder: Path, episodes: Sequence[Episode]) -> None:
    """Writes the episodes as one shard; the folder appears complete or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in (*ARRAYS, "target"):
        np.save(temporary / f"{name}.npy", np.concatenate([getattr(episode, name) for episode in episodes]))
    index = {
        "format": FORMAT,
        "steps": [len(e) for e in episodes],
        "frames": [len(e.frames) for e in episodes],
        "environments": [e.environment for e in episodes],
        "milestones": [e.milestones for e in episodes],
    }
    (temporary / "index.json").write_text(json.dumps(index))
    temporary.rename(folder)


def read_shard(folder: Path) -> Iterator[Episode]:
    """The episodes of a shard; arrays are views into memory-mapped files."""
    try:
        index = json.loads((folder / "index.json").read_text())
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in (*ARRAYS, "target")}
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"shard {folder} cannot be read: {error}") from error
    if index.get("format", 1) not in (1, FORMAT):
        raise DatasetError(f"shard {folder} has format {index['format']}, this version reads 1 and {FORMAT}")
    if index.get("format", 1) == 1:
        arrays["target"] = _repeated(arrays["target"], index["steps"])
    for name, array in arrays.items():
        expected = sum(index["frames" if name == "frames" else "steps"])
        if len(array) != expected:
            raise DatasetError(f"shard {folder}: {name} has {len(array)} rows, its index says {expected}")
    step = frame = 0
    for number, (steps, frames) in enumerate(zip(index["steps"], index["frames"], strict=True)):
        rows = {name: array[step : step + steps] for name, array in arrays.items() if name != "frames"}
        yield Episode(
            frames=arrays["frames"][frame : frame + frames],
            environment=index["environments"][number] if "environments" in index else "cube-single",
            milestones=tuple(index["milestones"][number]) if "milestones" in index else (),
            **rows,
        )
        step, frame = step + steps, frame + frames


def _repeated(targets: np.ndarray, steps: list[int]) -> np.ndarray:
    """A target for each step instead of one for each episode."""
    return np.repeat(targets, steps, axis=0) if len(targets) == len(steps) else targets


def shards(folder: Path) -> list[Path]:
    """Complete shards of a data set, in order."""
    found = sorted(path.parent for path in Path(folder).glob("*/index.json") if not path.parent.name.endswith(".tmp"))
    if not found:
        raise DatasetError(f"no shards in {folder}: 0 found, at least 1 needed")
    return found
