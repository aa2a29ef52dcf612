"""Rollouts on disk: their names, what is known of them, reading their messages, and keeping them within a size.

A rollout is one rosbag2 directory directly under a root, named rollout_<UTC time>_<goal id>.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from act2goal_ros.data.bag import BagError, is_complete, read_facts, read_information

NAME = re.compile(r"rollout_\d{8}-\d{6}_[\w.-]+")
OUTCOME = "outcome"


def default_root() -> Path:
    """Where rollouts are kept unless told otherwise: $ACT2GOAL_ROLLOUTS or ~/act2goal/rollouts."""
    return Path(os.environ.get("ACT2GOAL_ROLLOUTS") or "~/act2goal/rollouts").expanduser()


@dataclass(frozen=True)
class Rollout:
    """What is known of a rollout without reading its messages. start: s since the epoch; duration: s."""

    directory: Path
    complete: bool
    start: float
    duration: float
    messages: int
    bytes: int
    facts: dict[str, str]

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.name

    @property
    def outcome(self) -> str:
        """How it ended, e.g. "reached"; "recording" when it has not (or its writer died and nobody repaired it yet)."""
        return self.facts.get(OUTCOME, "recording" if not self.complete else "unknown")


@dataclass(frozen=True)
class Received:
    """A message of a rollout. topic: as it was asked for, else as recorded; time: s it was received at."""

    topic: str
    time: float
    message: Any


def new_name(root: Path, seconds: float, goal_id: str) -> str:
    """A directory name that is not taken, for a rollout that begins at `seconds` since the epoch."""
    stamp = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y%m%d-%H%M%S")
    base = f"rollout_{stamp}_{re.sub(r'[^A-Za-z0-9.-]', '-', goal_id)[:40] or 'goal'}"
    name, number = base, 1
    while (root / name).exists():
        number += 1
        name = f"{base}.{number}"
    return name


def directories(root: Path) -> list[Path]:
    """Directories of rollouts under the root, oldest first; an absent root has none."""
    if not root.is_dir():
        return []
    return sorted(d for d in root.iterdir() if d.is_dir() and NAME.fullmatch(d.name) and any(d.glob("*.mcap")))


def describe(directory: Path) -> Rollout:
    """Raises BagError, naming the path, when the directory holds no rollout or its metadata.yaml is damaged."""
    if not any(directory.glob("*.mcap")):
        raise BagError(f"{directory} holds no rollout (no .mcap file)")
    size = disk_size(directory)
    if not is_complete(directory):
        return Rollout(directory, False, 0.0, 0.0, 0, size, read_facts(directory))
    info = read_information(directory)
    start = info["starting_time"]["nanoseconds_since_epoch"] * 1e-9
    duration = info["duration"]["nanoseconds"] * 1e-9
    facts = {str(k): str(v) for k, v in (info.get("custom_data") or {}).items()}
    return Rollout(directory, True, start, duration, int(info["message_count"]), size, facts)


def find(root: Path, name: str | None = None) -> Rollout:
    """The rollout of a path, a name or an unambiguous part of a name under the root; the newest complete one without.

    Raises BagError naming what was looked for and where.
    """
    if name and Path(name).expanduser().is_dir():
        return describe(Path(name).expanduser())
    found = directories(root)
    if name is None:
        found = [d for d in found if is_complete(d)]
        if not found:
            raise BagError(f"no finished rollout in {root}")
        return describe(found[-1])
    matches = [d for d in found if d.name == name] or [d for d in found if name in d.name]
    if len(matches) != 1:
        which = "none" if not matches else ", ".join(d.name for d in matches[:5])
        raise BagError(f"'{name}' must name one rollout in {root}, it names {len(matches)}: {which}")
    return describe(matches[0])


def disk_size(directory: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(f.stat().st_size for f in directory.iterdir() if f.is_file())


def make_room(root: Path, max_bytes: int, reserve: int = 0) -> list[tuple[Path, int]]:
    """Removes the oldest complete rollouts until all of them and `reserve` bytes fit in max_bytes; returns (path, bytes).

    Rollouts that are being written count, and are never removed.
    """
    sizes = [(d, disk_size(d)) for d in directories(root)]
    total = reserve + sum(size for _, size in sizes)
    removed = []
    for directory, size in sizes:
        if total <= max_bytes:
            break
        if is_complete(directory):
            shutil.rmtree(directory)
            removed.append((directory, size))
            total -= size
    return removed


def read(
    directory: Path, topics: Collection[str] | None = None, wanted: Callable[[str, float], bool] | None = None
) -> Iterator[Received]:
    """Messages of a complete rollout in the order they were received; arrays in them are NumPy arrays.

    topics: names without namespace, e.g. "plan" or "sim/state"; matched against the end of the recorded names.
    wanted(topic, time): which messages to decode; the others are skipped. Needs no ROS: the types come from the file.
    Raises BagError naming the path when it cannot be read.
    """
    try:
        with Reader(directory) as reader:
            chosen = {c.id: t for c in reader.connections if (t := _match(c.topic, topics)) is not None}
            connections = [c for c in reader.connections if c.id in chosen]
            store = get_typestore(Stores.EMPTY)
            for connection in connections:
                store.register(_types(connection))
            for connection, nanoseconds, data in reader.messages(connections) if connections else ():
                topic, time = chosen[connection.id], nanoseconds * 1e-9
                if wanted is None or wanted(topic, time):
                    yield Received(topic, time, store.deserialize_cdr(data, connection.msgtype))
    except (ReaderError, FileNotFoundError) as error:
        raise BagError(f"{directory} cannot be read: {error}") from error


def _match(recorded: str, topics: Collection[str] | None) -> str | None:
    """The asked-for topic that a recorded name is, if any; without any asked for, the recorded name."""
    if topics is None:
        return recorded
    return next((t for t in topics if recorded == t or recorded.endswith("/" + t.lstrip("/"))), None)


def _types(connection: Connection) -> Any:
    return get_types_from_msg(connection.msgdef.data, connection.msgtype)


def stamp(message: Any) -> float:
    """Seconds of a message's header stamp."""
    return float(message.header.stamp.sec) + 1e-9 * float(message.header.stamp.nanosec)
