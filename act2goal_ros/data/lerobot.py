"""LeRobot data sets, format v3.0, on disk: reading without the lerobot package.

meta/info.json, meta/episodes/chunk-*/file-*.parquet, data/chunk-*/file-*.parquet, videos/<camera>/chunk-*/file-*.mp4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from act2goal_ros.data.pictures import ImageError, Rgb, decode
from act2goal_ros.data.video import VideoError, read_frames

VERSION = "v3.0"
INDEX = ("episode_index", "length", "data/chunk_index", "data/file_index")


class LeRobotError(ValueError):
    """A LeRobot data set that cannot be used; the message names the file or the column."""


@dataclass(frozen=True)
class Entry:
    """One episode: its number, its rows, and what meta/episodes says of it."""

    number: int
    length: int
    facts: dict[str, Any]


class LeRobotFolder:
    """One data set on disk. fps: rows a second; features: by name, as in meta/info.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        info = _read_info(folder / "meta" / "info.json")
        version = str(info.get("codebase_version"))
        if not version.startswith("v3."):
            raise LeRobotError(f"{folder} has version {version}, {VERSION} is read; lerobot's convert_dataset_v21_to_v30 makes it of v2.1")
        try:
            self.fps, self.features = float(info["fps"]), dict(info["features"])
            self._data, self._videos = str(info["data_path"]), str(info.get("video_path") or "")
        except (KeyError, TypeError, ValueError) as error:
            raise LeRobotError(f"{folder}/meta/info.json: {type(error).__name__}: {error}") from error
        if self.fps <= 0:
            raise LeRobotError(f"{folder}/meta/info.json: fps is {self.fps:g}, must be above 0")
        self._cached: tuple[Path, tuple[str, ...], pa.Table] | None = None

    @property
    def cameras(self) -> list[str]:
        """Features that are pictures."""
        return [name for name, feature in self.features.items() if feature["dtype"] in ("video", "image")]

    def names(self, key: str) -> list[str]:
        """Names of a feature's components; their numbers where it has none. Raises LeRobotError where there is no such feature."""
        if key not in self.features:
            raise LeRobotError(f"{self.folder} has no {key}; it has {', '.join(self.features)}")
        names, count = self.features[key].get("names"), int(np.prod(self.features[key]["shape"]))
        if isinstance(names, dict):  # {"motors": [...]}
            names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
        return [str(name) for name in names] if names and len(names) == count else [str(i) for i in range(count)]

    def episodes(self) -> list[Entry]:
        """All episodes, in order. Raises LeRobotError."""
        files = sorted((self.folder / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
        if not files:
            raise LeRobotError(f"{self.folder}/meta/episodes holds no chunk-*/file-*.parquet")
        rows: list[dict[str, Any]] = []
        for file in files:
            columns = [name for name in _schema(file).names if not name.startswith("stats/")]
            rows.extend(_table(file, columns).to_pylist())
        missing = [name for name in INDEX if rows and name not in rows[0]]
        if missing:
            raise LeRobotError(f"{files[0]} has no column {missing[0]}")
        return sorted((Entry(int(r["episode_index"]), int(r["length"]), r) for r in rows), key=lambda entry: entry.number)

    def rows(self, entry: Entry, keys: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Columns of an episode, (T,) or (T, C) each. Raises LeRobotError."""
        table = self._rows(entry, tuple(keys))
        found = {}
        for key in keys:
            try:
                found[key] = np.asarray(table.column(key).to_pylist(), np.float64)
            except (ValueError, TypeError) as error:
                raise LeRobotError(f"episode {entry.number}: {key}: {error}") from error
        return found

    def frames(self, entry: Entry, camera: str, indices: Sequence[int], times: NDArray[np.float64]) -> Iterator[Rgb]:
        """Pictures of ascending rows of an episode, whose rows are at `times` (T,) s since its start. Raises LeRobotError."""
        if self.features[camera]["dtype"] == "image":
            yield from self._images(entry, camera, indices)
            return
        try:
            start = float(entry.facts[f"videos/{camera}/from_timestamp"])
            path = self.folder / self._videos.format(video_key=camera, **_place(entry, f"videos/{camera}"))
        except (KeyError, TypeError) as error:
            raise LeRobotError(f"episode {entry.number}: meta/episodes does not say where its video of {camera} is: {error}") from error
        try:
            yield from read_frames(path, [start + float(times[i]) for i in indices], 0.45 / self.fps)
        except VideoError as error:
            raise LeRobotError(f"episode {entry.number}: {error}") from error

    def _images(self, entry: Entry, camera: str, indices: Sequence[int]) -> Iterator[Rgb]:
        column = self._rows(entry, (camera,)).column(camera)
        for i in indices:
            value = column[i].as_py() or {}
            try:
                yield decode(value["bytes"] if value.get("bytes") else (self.folder / value["path"]).read_bytes())
            except (ImageError, KeyError, TypeError, OSError) as error:
                raise LeRobotError(f"episode {entry.number}: {camera}, row {i}: {error}") from error

    def _rows(self, entry: Entry, keys: tuple[str, ...]) -> pa.Table:
        """The episode's rows; the file read last is kept, as episodes follow each other in it."""
        path = self.folder / self._data.format(**_place(entry, "data"))
        if self._cached is None or self._cached[:2] != (path, keys):
            missing = [key for key in keys if key not in _schema(path).names]
            if missing:
                raise LeRobotError(f"{path} has no column {missing[0]}; it has {', '.join(_schema(path).names)}")
            self._cached = (path, keys, _table(path, [*keys, "episode_index"]))
        table = self._cached[2].filter(pc.field("episode_index") == entry.number)
        if table.num_rows != entry.length:
            raise LeRobotError(f"episode {entry.number}: {path} has {table.num_rows} rows of it, meta/episodes says {entry.length}")
        return table


def _place(entry: Entry, what: str) -> dict[str, int]:
    return {name: int(entry.facts[f"{what}/{name}"]) for name in ("chunk_index", "file_index")}


def _read_info(path: Path) -> dict[str, Any]:
    try:
        info = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LeRobotError(f"{path} cannot be read: {error}") from error
    if not isinstance(info, dict):
        raise LeRobotError(f"{path} holds {type(info).__name__}, expected an object")
    return info


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise LeRobotError(f"{path} cannot be read: {error}") from error


def _table(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(columns))
    except (OSError, pa.ArrowException) as error:
        raise LeRobotError(f"{path} cannot be read: {error}") from error
