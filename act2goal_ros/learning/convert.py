"""Recordings of any source to shards, one after another; goes on where it was interrupted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from act2goal_ros.data.bag import BagError
from act2goal_ros.data.pictures import ImageError
from act2goal_ros.learning.checks import Skipped, problem
from act2goal_ros.learning.dataset import DatasetError, Episode, read_shard, write_shard
from act2goal_ros.learning.resample import RecordingError
from act2goal_ros.model.config import ModelConfig

EPISODES_PER_SHARD = 20
BYTES_PER_SHARD = 250_000_000  # of frames; a shard is made in memory


@dataclass(frozen=True)
class Source:
    """One episode that can be made: its name, under which it is known in the shards, and how."""

    name: str
    make: Callable[[], Episode]
    path: Path
    episode: int | None = None
    cameras: tuple[str, ...] = ()  # that it will show, as Episode has them


@dataclass
class Conversion:
    """What has become of the sources."""

    made: int = 0
    known: int = 0  # in the folder's shards already
    skipped: list[Skipped] = field(default_factory=list)


def convert(sources: Iterable[Source], folder: Path, config: ModelConfig) -> Iterator[Conversion]:
    """Writes shards of the sources that the folder does not have yet, and yields the same counts after each source.

    A source that cannot be used is skipped and named; it is tried again the next time. Interrupted, it loses the episodes of the shard
    that was not yet full. Raises DatasetError where the disk does not take a shard, and where the folder has a source with other cameras
    or pictures of another size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, known, waiting = Conversion(), _known(folder), list[Episode]()
    for source in sources:
        if source.name in known:
            known[source.name].check(source, folder, config)
            done.known += 1
        else:
            try:
                episode = source.make()
                reason = problem(episode, config)
            except (BagError, RecordingError, ImageError) as error:
                reason = _relative(str(error), source.path)
            if reason:
                done.skipped.append(Skipped(source.path, source.episode, reason))
            else:
                done.made += 1
                waiting.append(episode)
        if len(waiting) == EPISODES_PER_SHARD or sum(e.frames.nbytes for e in waiting) > BYTES_PER_SHARD:
            _write(folder, waiting)
            waiting = []
        yield done
    if waiting:
        _write(folder, waiting)


def _relative(reason: str, path: Path) -> str:
    """Without the path at its beginning, which the reader is told anyway."""
    return reason.removeprefix(str(path)).lstrip(": ")


def _write(folder: Path, episodes: Sequence[Episode]) -> None:
    numbers = [int(p.name) for p in folder.iterdir() if re.fullmatch(r"\d+", p.name)]
    write_shard(folder / f"{max(numbers, default=-1) + 1:05d}", episodes)


@dataclass(frozen=True)
class _Known:
    """An episode that a folder has."""

    cameras: tuple[str, ...]
    picture: tuple[int, int]  # height, width

    def check(self, source: Source, folder: Path, config: ModelConfig) -> None:
        """Raises DatasetError where it is not what would be made now."""
        if self.cameras and source.cameras and self.cameras != source.cameras:
            shown, asked = ", ".join(self.cameras), ", ".join(source.cameras)
            raise DatasetError(f"{folder} has {source.name} as {shown} saw it, asked for is {asked}: give another folder")
        if self.picture != config.picture_shape:
            there, asked = (f"{width} × {height}" for height, width in (self.picture, config.picture_shape))
            raise DatasetError(f"{folder} has {source.name} in {there} pixels, asked for are {asked}: give another folder")


def _known(folder: Path) -> dict[str, _Known]:
    """What a folder's shards hold, by source; episodes of a damaged shard are made again."""
    found: dict[str, _Known] = {}
    for path in folder.glob("*/index.json"):
        if path.parent.name.endswith(".tmp"):
            continue
        try:
            found |= {e.source: _Known(e.cameras, (e.frames.shape[1], e.frames.shape[2])) for e in read_shard(path.parent) if e.source}
        except (DatasetError, IndexError, TypeError, ValueError):
            continue
    return found
