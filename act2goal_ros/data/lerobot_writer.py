"""Writes LeRobot data sets, format v3.0, without the lerobot package: file after file, so that it can be interrupted.

A unit is some episodes in one data file, one video and one file of meta/episodes, which is written last; finish() then writes what is
about all of them. Statistics are those LeRobot keeps: of each episode, and aggregated from these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from act2goal_ros.data.lerobot import VERSION
from act2goal_ros.data.pictures import Rgb
from act2goal_ros.data.video import VideoWriter, describe

PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA, EPISODES = f"data/{PLACE}.parquet", f"meta/episodes/{PLACE}.parquet"
VIDEOS = "videos/{video_key}/" + PLACE + ".mp4"
FILES_PER_CHUNK = 1000
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
COUNTERS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}
SAMPLED_FRAMES = 16  # of an episode, for the statistics of pictures; every second pixel of them
TYPES = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}


@dataclass(frozen=True)
class Rows:
    """One episode: its task, columns (T, C) by feature, and a picture (H, W, 3) for every row."""

    task: str
    columns: Mapping[str, NDArray[Any]]
    frames: Sequence[Rgb] | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """features: name → names of its components; all are float32, but those of one component called like itself are bool."""

    fps: int
    features: Mapping[str, tuple[str, ...]]
    camera: str
    height: int
    width: int
    robot: str
    codec: str = "av1"

    def described(self) -> dict[str, dict[str, Any]]:
        """As meta/info.json has it."""
        found: dict[str, dict[str, Any]] = {
            name: {"dtype": "bool" if names == (name,) else "float32", "shape": [len(names)], "names": list(names)}
            for name, names in self.features.items()
        }
        found[self.camera] = {"dtype": "video", "shape": [self.height, self.width, 3], "names": ["height", "width", "channels"]}
        return found | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in COUNTERS.items()}


class LeRobotWriter:
    """Writes one data set; `episodes`, `rows` and `tasks` count what is there."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self.units = self.episodes = self.rows = 0
        self.tasks: dict[str, int] = {}

    def skip(self, tasks: Sequence[str]) -> bool:
        """True where the next unit is complete with episodes of these tasks, and goes on behind it."""
        path = self._path(EPISODES)
        if not path.is_file():
            return False
        table = pq.read_table(path, columns=["length", "tasks"])
        if [task for (task,) in table.column("tasks").to_pylist()] != list(tasks):
            raise ValueError(f"{path} has {table.num_rows} other episodes; give another folder")
        self._count([int(length) for length in table.column("length").to_pylist()], tasks)
        return True

    def write(self, unit: Sequence[Rows]) -> None:
        """Adds a unit of episodes. Raises OSError or VideoError as disk and codec do."""
        fps, camera = self.layout.fps, self.layout.camera
        table, described, first = self._table(unit), [], 0
        video = self._path(VIDEOS)
        with VideoWriter(part := _part(video), fps, self.layout.height, self.layout.width, self.layout.codec) as writer:
            for rows in unit:
                for rgb in rows.frames:
                    writer.write(rgb)
        part.replace(video)
        _write(table, self._path(DATA))
        for number, rows in enumerate(unit):
            length = len(rows.frames)
            own = table.slice(first, length)
            place = self._place()
            described.append(
                {"episode_index": self.episodes + number, "tasks": [rows.task], "length": length}
                | {"dataset_from_index": self.rows + first, "dataset_to_index": self.rows + first + length}
                | {f"{what}/{name}": index for what in ("data", f"videos/{camera}", "meta/episodes") for name, index in place.items()}
                | {f"videos/{camera}/from_timestamp": first / fps, f"videos/{camera}/to_timestamp": (first + length) / fps}
                | {f"stats/{key}": value for key, value in _episode_stats(own, rows.frames, camera)}
            )
            first += length
        _write(pa.Table.from_pylist(described), self._path(EPISODES))
        self._count([len(rows.frames) for rows in unit], [rows.task for rows in unit])

    def finish(self) -> None:
        """Writes tasks, statistics and meta/info.json: the data set is complete."""
        meta = self.folder / "meta"
        names = pa.table({"task_index": pa.array(self.tasks.values(), pa.int64()), "__index_level_0__": list(self.tasks)})
        column = {"numpy_type": "int64", "pandas_type": "int64", "name": "task_index", "field_name": "task_index", "metadata": None}
        index = {"numpy_type": "object", "pandas_type": "unicode", "name": None, "field_name": "__index_level_0__", "metadata": None}
        pandas = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": [column, index], "pandas_version": "2.0.0"}
        _write(names.replace_schema_metadata({"pandas": json.dumps(pandas)}), meta / "tasks.parquet")
        (meta / "stats.json").write_text(json.dumps(self._stats(), indent=4))
        features = self.layout.described()
        features[self.layout.camera]["info"] = describe(
            self.folder / VIDEOS.format(video_key=self.layout.camera, chunk_index=0, file_index=0)
        )
        info = {
            "codebase_version": VERSION,
            "robot_type": self.layout.robot,
            "total_episodes": self.episodes,
            "total_frames": self.rows,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.layout.fps,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": DATA,
            "video_path": VIDEOS,
            "features": features,
        }
        (meta / "info.json").write_text(json.dumps(info, indent=4))

    def _table(self, unit: Sequence[Rows]) -> pa.Table:
        """All rows of a unit."""
        lengths = [len(rows.frames) for rows in unit]
        within = np.concatenate([np.arange(length) for length in lengths])
        tasks = [self.tasks.setdefault(rows.task, len(self.tasks)) for rows in unit]
        counters = {
            "timestamp": within / self.layout.fps,
            "frame_index": within,
            "episode_index": np.repeat(self.episodes + np.arange(len(unit)), lengths),
            "index": self.rows + np.arange(len(within)),
            "task_index": np.repeat(tasks, lengths),
        }
        columns: dict[str, pa.Array] = {}
        for name, feature in self.layout.described().items():
            if feature["dtype"] == "video":
                continue
            kind, width = TYPES[feature["dtype"]], feature["shape"][0]
            values = counters[name] if name in counters else np.concatenate([rows.columns[name] for rows in unit])
            flat = pa.array(np.ascontiguousarray(values, kind.to_pandas_dtype()).reshape(-1))
            columns[name] = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
        return pa.table(columns)

    def _count(self, lengths: Sequence[int], tasks: Sequence[str]) -> None:
        for task in tasks:
            self.tasks.setdefault(task, len(self.tasks))
        self.units += 1
        self.episodes += len(lengths)
        self.rows += sum(lengths)

    def _place(self, unit: int | None = None) -> dict[str, int]:
        number = self.units if unit is None else unit
        return {"chunk_index": number // FILES_PER_CHUNK, "file_index": number % FILES_PER_CHUNK}

    def _path(self, pattern: str) -> Path:
        path = self.folder / pattern.format(video_key=self.layout.camera, **self._place())
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _stats(self) -> dict[str, dict[str, Any]]:
        """Of all episodes, aggregated as LeRobot does: quantiles are the means of the episodes' quantiles."""
        found: dict[str, dict[str, list[Any]]] = {}
        for unit in range(self.units):
            path = self.folder / EPISODES.format(**self._place(unit))
            columns = [name for name in pq.read_schema(path).names if name.startswith("stats/")]
            table = pq.read_table(path, columns=columns)
            for column in columns:
                _, feature, kind = column.split("/")
                found.setdefault(feature, {}).setdefault(kind, []).extend(table.column(column).to_pylist())
        return {feature: _aggregated({k: np.array(v, np.float64) for k, v in kinds.items()}) for feature, kinds in found.items()}


def _aggregated(kinds: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """(E, ...) of E episodes each → of all together."""
    counts = kinds["count"].reshape(-1, *([1] * (kinds["mean"].ndim - 1)))
    total = counts.sum()
    mean = (kinds["mean"] * counts).sum(0) / total
    variance = ((kinds["std"] ** 2 + (kinds["mean"] - mean) ** 2) * counts).sum(0) / total
    found = {"min": kinds["min"].min(0), "max": kinds["max"].max(0), "mean": mean, "std": np.sqrt(variance)}
    found |= {name: (kinds[name] * counts).sum(0) / total for name in QUANTILES}
    return {name: value.tolist() for name, value in found.items()} | {"count": [int(total)]}


def _episode_stats(table: pa.Table, frames: Sequence[Rgb] | NDArray[np.uint8], camera: str) -> Iterator[tuple[str, Any]]:
    for name in table.column_names:
        values = np.array(table.column(name).to_pylist(), np.float64).reshape(table.num_rows, -1)
        yield from ((f"{name}/{kind}", value) for kind, value in _stats_of(values, values.shape[1:], len(values)))
    chosen = np.unique(np.linspace(0, len(frames) - 1, SAMPLED_FRAMES).round().astype(int))
    pixels = np.stack([frames[i][::2, ::2] for i in chosen]).reshape(-1, 3) / 255.0
    yield from ((f"{camera}/{kind}", value) for kind, value in _stats_of(pixels, (3, 1, 1), len(chosen)))


def _stats_of(values: NDArray[np.float64], shape: tuple[int, ...], count: int) -> Iterator[tuple[str, Any]]:
    """(N, C) → statistics in this shape, as lists."""
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    found |= dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values()), axis=0, method="inverted_cdf"), strict=True))
    yield from ((kind, value.reshape(shape).tolist()) for kind, value in found.items())
    yield "count", [count]


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _write(table: pa.Table, path: Path) -> None:
    """Whole or not at all."""
    pq.write_table(table, part := _part(path), compression="snappy")
    part.replace(path)
