"""Episodes on disk: a folder of shards, a shard a folder of arrays that are memory-mapped when read."""

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = ("frames", "joints", "velocities", "gripper", "command", "disturbed", "cube")
OF_FRAMES = ("frames", "keypoints")  # a row for each frame, not for each step
# Of the simulator; a button that is on is another thing than one that is off, and the gripper comes last.
KEYPOINTS = ("cube 0", "cube 1", "cube 2", "button 0 off", "button 0 on", "button 1 off", "button 1 on", "drawer", "window", "gripper")
FORMAT = 2  # of a shard; in 1, of single cubes only, an episode had one target and no milestones
MB = 1e6
SPARE = 1_000_000  # bytes beside the arrays: their headers and the index
NOT_THE_SHARD = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # what says nothing about the file that was to be opened


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Episode:
    """One episode of T steps at 20 Hz; frame k belongs to step k * stride.

    frames (ceil(T / stride), H, W, 3) uint8, of one pixel each where there are no pictures; joints, velocities (T, J) rad, rad/s;
    gripper (T,) 0 open .. 1 closed; command (T, J + 1): the set-point in force at the step, joints and gripper; disturbed (T,): the
    command that led to this step was not the expert's. Simulator labels, for training only: cube (T, 3) m, the object handled now or
    next (a cube, a handle, a button's top), and target (T, 3) m, where it is to be; milestones: the steps, in order, at which one
    object of several was done and the gripper away from it; keypoints (len(frames), K, 3): where each of KEYPOINTS is in the picture,
    hidden or not, as learning/keypoints.py has it. Recordings without a simulator have no labels: cube and target are NaN there, and
    what is not finite has no weight in training; keypoints is None. joint_names: in the order of the columns, empty where unknown.
    source: the recording it was made from, empty for the simulator; cameras: names of those it shows, from the top, empty where unknown.
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
    joint_names: tuple[str, ...] = ()
    source: str = ""
    cameras: tuple[str, ...] = ()
    keypoints: np.ndarray | None = None

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
        keypoints = [step["keypoints"] for step in steps if "keypoints" in step]
        columns: dict[str, Any] = {name: np.stack([step[name] for step in steps]) for name in ARRAYS if name != "frames"}
        columns = {name: array if array.dtype == bool else array.astype(np.float32) for name, array in columns.items()}
        targets = np.broadcast_to(np.asarray(target, np.float32), (len(steps), 3))
        found = np.stack(keypoints).astype(np.float32) if keypoints else None
        return cls(frames=frames, target=targets, environment=environment, milestones=tuple(milestones), keypoints=found, **columns)

    def __len__(self) -> int:
        return len(self.joints)

    @property
    def labelled(self) -> bool:
        """Whether it has labels of a simulator."""
        return bool(np.isfinite(self.cube).any())

    def without_labels(self) -> "Episode":
        """As a recording without a simulator has it."""
        unknown = np.full((len(self), 3), np.nan, np.float32)
        return replace(self, cube=unknown, target=unknown, keypoints=None, milestones=())

    @property
    def stride(self) -> int:
        """Steps between frames."""
        return -(-len(self.joints) // len(self.frames))


def write_shard(folder: Path, episodes: Sequence[Episode]) -> None:
    """Writes the episodes as one shard; the folder appears complete or not at all.

    Raises DatasetError where there is no episode, and with the bytes needed and free when the disk has no room or refuses; it leaves
    nothing behind.
    """
    if not episodes:
        raise DatasetError(f"shard {folder}: no episode to write, at least 1 is needed")
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(getattr(e, name).nbytes for e in episodes for name in (*ARRAYS, "target")) + SPARE
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise DatasetError(f"shard {folder} needs {needed / MB:.1f} MB, {free / MB:.1f} MB are free on the disk")
    try:
        temporary.mkdir()
        for name in (*ARRAYS, "target"):
            np.save(temporary / f"{name}.npy", np.concatenate([getattr(episode, name) for episode in episodes]))
        if labelled := [e.keypoints for e in episodes if e.keypoints is not None]:
            unknown = [np.full((len(e.frames), *labelled[0].shape[1:]), np.nan, np.float32) for e in episodes]
            found = [u if e.keypoints is None else e.keypoints for e, u in zip(episodes, unknown, strict=True)]
            np.save(temporary / "keypoints.npy", np.concatenate(found))
        (temporary / "index.json").write_text(json.dumps(_index_of(episodes)))
        temporary.rename(folder)
    except OSError as error:
        free = shutil.disk_usage(folder.parent).free
        reason = f"{error.strerror or error}; it needs {needed / MB:.1f} MB, {free / MB:.1f} MB are free on the disk"
        raise DatasetError(f"shard {folder} cannot be written: {reason}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _index_of(episodes: Sequence[Episode]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "steps": [len(e) for e in episodes],
        "frames": [len(e.frames) for e in episodes],
        "environments": [e.environment for e in episodes],
        "milestones": [e.milestones for e in episodes],
        "joint_names": [e.joint_names for e in episodes],
        "sources": [e.source for e in episodes],
        "cameras": [e.cameras for e in episodes],
    }


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a shard, complete. Raises DatasetError naming the shard."""
    try:
        index = json.loads((folder / "index.json").read_text())
        version, count = index.get("format", 1), len(index["steps"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"shard {folder} cannot be read: index.json: {type(error).__name__}: {error}") from error
    if version not in (1, FORMAT):
        raise DatasetError(f"shard {folder} has format {version}, this version reads 1 and {FORMAT}")
    absent = {"environments": "cube-single", "milestones": (), "joint_names": (), "sources": "", "cameras": ()}
    complete = {"format": 1} | {name: [value] * count for name, value in absent.items()} | index
    for name in ("frames", *absent):
        if len(complete.get(name, ())) != count:
            raise DatasetError(f"shard {folder}: its index has {len(complete.get(name, ()))} {name} for {count} episodes")
    return complete


def read_shard(folder: Path) -> Iterator[Episode]:
    """The episodes of a shard; arrays are views into memory-mapped files. Raises DatasetError naming the shard."""
    index = read_index(folder)
    arrays = _open_arrays(folder)
    if index["format"] == 1:
        arrays["target"] = _repeated(arrays["target"], index["steps"])
    for name, array in arrays.items():
        expected = sum(index["frames" if name in OF_FRAMES else "steps"])
        if array.ndim == 0 or len(array) != expected:
            raise DatasetError(f"shard {folder}: {name} has {len(array) if array.ndim else 0} rows, its index says {expected}")
    step = frame = 0
    for number, (steps, frames) in enumerate(zip(index["steps"], index["frames"], strict=True)):
        rows = {name: array[step : step + steps] for name, array in arrays.items() if name not in OF_FRAMES}
        yield Episode(
            **{name: arrays[name][frame : frame + frames] for name in OF_FRAMES if name in arrays},
            environment=index["environments"][number],
            milestones=tuple(index["milestones"][number]),
            joint_names=tuple(index["joint_names"][number]),
            source=index["sources"][number],
            cameras=tuple(index["cameras"][number]),
            **rows,
        )
        step, frame = step + steps, frame + frames


def _open_arrays(folder: Path) -> dict[str, np.ndarray]:
    arrays = {}
    labels = ["keypoints"] * (folder / "keypoints.npy").exists()
    for name in (*ARRAYS, "target", *labels):
        try:
            arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            if isinstance(error, OSError) and error.errno in NOT_THE_SHARD:
                raise
            raise DatasetError(f"shard {folder} cannot be read: {name}.npy: {error}") from error
    return arrays


def _repeated(targets: np.ndarray, steps: list[int]) -> np.ndarray:
    """A target for each step instead of one for each episode."""
    return np.repeat(targets, steps, axis=0) if len(targets) == len(steps) else targets


def shards(folder: Path) -> list[Path]:
    """Complete shards of a data set, in order."""
    found = sorted(path.parent for path in Path(folder).glob("*/index.json") if not path.parent.name.endswith(".tmp"))
    if not found:
        raise DatasetError(f"no shards in {folder}: 0 found, at least 1 needed")
    return found
