"""Messages of any rosbag2 recording, MCAP or sqlite3, from whichever ROS 2; needs no ROS.

Types come from the recording; where it carries none (sqlite3 before Iron) from the installed packages or those of ROS 2 itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import Connection, MessageDefinitionFormat
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from act2goal_ros.data.bag import BagError
from act2goal_ros.data.definitions import DefinitionError, message_definition
from act2goal_ros.data.rollout import Received

STORAGES = (".mcap", ".db3")


def find_recordings(path: Path) -> list[Path]:
    """The recordings at or below a path: directories with metadata.yaml, or the .mcap or .db3 file itself, in order.

    Raises BagError when there are none, or one that was cut off before its metadata.yaml was written.
    """
    if path.is_file() and path.suffix in STORAGES or (path / "metadata.yaml").is_file():
        return [path]
    found = sorted(p.parent for p in path.rglob("metadata.yaml")) if path.is_dir() else []
    if found:
        return found
    if path.is_dir() and any(p.suffix in STORAGES for p in path.iterdir()):
        raise BagError(f"{path} has no metadata.yaml: the recording was cut off; `ros2 bag reindex {path}` writes it")
    raise BagError(f"{path} is no recording and holds none (no metadata.yaml, .mcap or .db3)")


class Recording:
    """One open rosbag2 recording; a context manager. Raises BagError naming the path for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = Reader(path)
            self._reader.open()
        except Exception as error:  # noqa: BLE001 - storages and decompressors raise types of their own; all mean damage
            raise BagError(f"{path} cannot be read: {error}") from error
        self._decoders: dict[int, Callable[[bytes], Any]] = {}

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Names and types of the topics that have messages."""
        return {c.topic: c.msgtype for c in self._reader.connections if c.msgcount}

    def find(self, name: str) -> str | None:
        """The recorded name of a topic: the same, or the one that is the same in a namespace; None where there is none.

        Raises BagError where several namespaces have one.
        """
        wanted = "/" + name.lstrip("/")
        if wanted in self.topics:
            return wanted
        found = [topic for topic in self.topics if topic.endswith(wanted)]
        if len(found) > 1:
            raise BagError(f"{self.path}: {name} may be {' or '.join(sorted(found))}; give the full name")
        return found[0] if found else None

    def read(self, topics: Collection[str], wanted: Callable[[str, float], bool] | None = None) -> Iterator[Received]:
        """Messages of these recorded topics in the order they were received; wanted(topic, time): which to decode (all)."""
        connections = [c for c in self._reader.connections if c.topic in topics]
        if not connections:
            return
        try:
            for connection, nanoseconds, data in self._reader.messages(connections):
                time = nanoseconds * 1e-9
                if wanted is None or wanted(connection.topic, time):
                    yield Received(connection.topic, time, self._decode(connection, data))
        except BagError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise BagError(f"{self.path} cannot be read: {type(error).__name__}: {error}") from error

    def _decode(self, connection: Connection, data: bytes) -> Any:
        if connection.id not in self._decoders:
            self._decoders[connection.id] = self._decoder(connection)
        return self._decoders[connection.id](data)

    def _decoder(self, connection: Connection) -> Callable[[bytes], Any]:
        kind, definition = connection.msgtype, connection.msgdef
        store = get_typestore(Stores.EMPTY)
        if definition.format == MessageDefinitionFormat.IDL:
            store.register(get_types_from_idl(definition.data))
        elif definition.format == MessageDefinitionFormat.MSG:
            store.register(get_types_from_msg(definition.data, kind))
        else:
            standard = get_typestore(Stores.LATEST)
            if kind in standard.fielddefs:
                store = standard
            else:
                try:
                    store.register(get_types_from_msg(message_definition(kind), kind))
                except DefinitionError as error:
                    raise BagError(f"{self.path}: {connection.topic}: the recording carries no types, and {error}") from error
        return lambda data: store.deserialize_cdr(data, kind)
