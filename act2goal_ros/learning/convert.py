"""Recordings of any source to shards, one after another; goes on where it was interrupted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from act2goal_ros.data.bag import BagError
from act2goal_ros.data.pictures import ImageError
from act2goal_ros.learning.checks import Skipped, problem
from act2goal_ros.learning.dataset import DatasetError, Episode, read_index, write_shard
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


@dataclass
class Conversion:
    """What has become of the sources."""

    made: int = 0
    known: int = 0  # in the folder's shards already
    skipped: list[Skipped] = field(default_factory=list)


def convert(sources: Iterable[Source], folder: Path, config: ModelConfig) -> Iterator[Conversion]:
    """Writes shards of the sources that the folder does not have yet, and yields the same counts after each source.

    A source that cannot be used is skipped and named; it is tried again the next time. Interrupted, it loses the episodes of the shard
    that was not yet full. Raises DatasetError where the disk does not take a shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, known, waiting = Conversion(), _known(folder), list[Episode]()
    for source in sources:
        if source.name in known:
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


def _known(folder: Path) -> set[str]:
    """Sources of the episodes in a folder's shards; those of a damaged shard are made again."""
    found: set[str] = set()
    for path in folder.glob("*/index.json"):
        try:
            found.update(read_index(path.parent)["sources"])
        except DatasetError:
            continue
    return found - {""}
