"""rosbag2 directories (metadata.yaml and one MCAP file) that stay readable when the writer is killed.

A message given to BagWriter is in the file after the next flush: SIGKILL costs what came since. What is left then has no index
and no metadata.yaml; repair() writes both. A writer holds a lock on its file, so that repair() never touches a bag that is
being written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from act2goal_ros.data.definitions import message_definition, type_hash

VERSION = 9  # of rosbag2's metadata: ROS 2 Jazzy and later
FACTS = "act2goal"  # name of our MCAP metadata records
FOREVER = {"sec": 9223372036, "nsec": 854775807}
COMPRESSIONS = {"none": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}


class BagError(RuntimeError):
    """A bag that cannot be written, read or repaired; the message names the path."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag. type: `pkg/msg/Type`."""

    name: str
    type: str
    depth: int = 10
    reliable: bool = True
    transient_local: bool = False

    def qos(self) -> list[dict[str, Any]]:
        """The offered QoS profile as rosbag2 writes it; `ros2 bag play` publishes with it."""
        return [
            {
                "history": "keep_last",
                "depth": self.depth,
                "reliability": "reliable" if self.reliable else "best_effort",
                "durability": "transient_local" if self.transient_local else "volatile",
                "deadline": FOREVER,
                "lifespan": FOREVER,
                "liveliness": "automatic",
                "liveliness_lease_duration": FOREVER,
                "avoid_ros_namespace_conventions": False,
            }
        ]


class _Tally:
    """Counts and times of the messages in a bag, from which metadata.yaml is made."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.first, self.last = 2**63 - 1, 0

    def add(self, topic: str, time: int) -> None:
        self.counts[topic] = self.counts.get(topic, 0) + 1
        self.first, self.last = min(self.first, time), max(self.last, time)

    def information(self, file: str, topics: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> dict[str, Any]:
        """The content of rosbag2_bagfile_information."""
        count = sum(self.counts.values())
        start = {"nanoseconds_since_epoch": self.first if count else 0}
        duration = {"nanoseconds": max(0, self.last - self.first) if count else 0}
        return {
            "version": VERSION,
            "storage_identifier": "mcap",
            "duration": duration,
            "starting_time": start,
            "message_count": count,
            "topics_with_message_count": [{"topic_metadata": dict(t), "message_count": self.counts.get(t["name"], 0)} for t in topics],
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [file],
            "files": [{"path": file, "starting_time": start, "duration": duration, "message_count": count}],
            "custom_data": dict(facts) or None,
            "ros_distro": os.environ.get("ROS_DISTRO", "rolling"),
        }


class BagWriter:
    """Writes one bag. Not safe to share between threads.

    facts: known at the start; they survive SIGKILL. Raises BagError when the directory exists, OSError as the disk does.
    """

    def __init__(
        self,
        directory: Path,
        topics: Sequence[Topic],
        facts: Mapping[str, str] | None = None,
        *,
        compression: str = "lz4",
        chunk_bytes: int = 1 << 20,
    ) -> None:
        if compression not in COMPRESSIONS:
            raise BagError(f"compression is {compression!r}, must be one of {', '.join(COMPRESSIONS)}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            raise BagError(f"{directory} exists already") from None
        self.directory = directory
        self.path = directory / f"{directory.name}_0.mcap"
        self.facts = dict(facts or {})
        self._topics = [_topic_metadata(t) for t in topics]
        self._tally = _Tally()
        self._file: IO[bytes] = self.path.open("xb")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._writer = Writer(self._file, chunk_size=chunk_bytes, compression=COMPRESSIONS[compression])
        self._writer.start("ros2", "act2goal_ros")
        self._writer.add_metadata(FACTS, self.facts)
        self._channels = {t.name: self._add(t) for t in topics}
        self._file.flush()

    def _add(self, topic: Topic) -> int:
        schema = self._writer.register_schema(topic.type, "ros2msg", message_definition(topic.type).encode())
        metadata = {"offered_qos_profiles": yaml.safe_dump(topic.qos()).strip(), "topic_type_hash": type_hash(topic.type)}
        return self._writer.register_channel(topic.name, "cdr", schema, metadata)

    @property
    def size(self) -> int:
        """Bytes in the file so far."""
        return self._file.tell()

    @property
    def messages(self) -> int:
        """Messages given so far."""
        return sum(self._tally.counts.values())

    def write(self, topic: str, time: int, data: bytes, published: int | None = None) -> None:
        """Adds a serialized message; time: ns it was received at; published: ns it was sent at, where known."""
        self._writer.add_message(self._channels[topic], time, data, time if published is None else published)
        self._tally.add(topic, time)

    def flush(self) -> None:
        """Hands everything to the operating system: it then survives SIGKILL."""
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self, facts: Mapping[str, str] | None = None) -> None:
        """Writes index and metadata.yaml. facts: known at the end; they join those of the start."""
        self.facts.update(facts or {})
        information = self._tally.information(self.path.name, self._topics, self.facts)
        try:
            _finish(self._writer, self.facts, information)
            self._file.flush()
            os.fsync(self._file.fileno())
            _write_metadata(self.directory, information)
        finally:
            self._file.close()

    def abort(self) -> None:
        """Closes the file as it is, for repair() to complete."""
        with contextlib.suppress(OSError):
            self._file.close()


@dataclass(frozen=True)
class Repair:
    """What repair() did: messages kept, bytes of the broken end that were given up, and the facts of the bag."""

    directory: Path
    messages: int
    lost_bytes: int
    facts: dict[str, str]

    def __str__(self) -> str:
        return f"{self.directory}: {self.messages} messages kept, {self.lost_bytes} bytes of a broken end given up"


def is_complete(directory: Path) -> bool:
    """True for a bag that was closed or repaired."""
    return (directory / "metadata.yaml").is_file()


def repair(directory: Path, facts: Mapping[str, str] | None = None) -> Repair | None:
    """Completes a bag whose writer was killed: rewrites its file with an index and writes metadata.yaml.

    facts: added to those found. Returns None when the bag is complete or still being written; raises BagError when there is nothing
    to repair in it.
    """
    if is_complete(directory):
        return None
    files = sorted(directory.glob("*.mcap"))
    if not files:
        raise BagError(f"{directory} holds no .mcap file")
    with files[0].open("rb") as source:
        try:
            fcntl.flock(source, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if is_complete(directory):  # repaired by another process meanwhile
            return None
        return _rewrite(directory, source, files[0], facts or {})


def read_facts(directory: Path) -> dict[str, str]:
    """The facts of a bag: custom_data of a complete one, what the start wrote of another."""
    if is_complete(directory):
        return dict(_information(directory).get("custom_data") or {})
    for file in directory.glob("*.mcap"):
        with file.open("rb") as source:
            records = _records(source)
            return next((dict(r.metadata) for r in records if isinstance(r, Metadata) and r.name == FACTS), {})
    return {}


def read_information(directory: Path) -> dict[str, Any]:
    """rosbag2_bagfile_information of a complete bag; raises BagError naming the file when it cannot be used."""
    return _information(directory)


def _information(directory: Path) -> dict[str, Any]:
    path = directory / "metadata.yaml"
    try:
        return dict(yaml.safe_load(path.read_text())["rosbag2_bagfile_information"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise BagError(f"{path} cannot be read: {error}") from error


def _topic_metadata(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "type": topic.type,
        "serialization_format": "cdr",
        "offered_qos_profiles": topic.qos(),
        "type_description_hash": type_hash(topic.type),
    }


def _finish(writer: Writer, facts: Mapping[str, str], information: Mapping[str, Any]) -> None:
    """Ends an MCAP file: facts, the metadata record by which rosbag2 reads a lone file, index."""
    writer.flush()  # type: ignore[no-untyped-call]
    writer.add_metadata(FACTS, dict(facts))
    writer.add_metadata("rosbag2", {"serialized_metadata": _dump(information).strip()})
    writer.finish()  # type: ignore[no-untyped-call]


def _write_metadata(directory: Path, information: Mapping[str, Any]) -> None:
    """Writes metadata.yaml whole or not at all."""
    temporary = directory / "metadata.yaml.tmp"
    temporary.write_text(_dump({"rosbag2_bagfile_information": information}))
    temporary.replace(directory / "metadata.yaml")


class _Dumper(yaml.SafeDumper):
    """Writes repeated values out instead of as YAML aliases, which not every reader takes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump(value: Mapping[str, Any]) -> str:
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False)


def _whole_records_end(source: IO[bytes]) -> int:
    """Offset at which the last whole record of an MCAP file ends; 0 for a file without a whole head."""
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    position = len(MCAP0_MAGIC) if source.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC else 0
    while position:
        source.seek(position)
        head = source.read(9)
        if len(head) < 9 or position + 9 + int.from_bytes(head[1:], "little") > size:
            break
        position += 9 + int.from_bytes(head[1:], "little")
    return position


def _records(source: IO[bytes]) -> Iterator[Any]:
    """Records of an MCAP file up to its end or to where it is broken off or damaged."""
    source.seek(0)
    reader = StreamReader(source, validate_crcs=True).records
    while True:
        try:
            record = next(reader, None)
        except Exception:  # noqa: BLE001 - struct, UTF-8 and decompressors raise types of their own; all mean damage
            return
        if record is None:
            return
        yield record


def _rewrite(directory: Path, source: IO[bytes], path: Path, facts: Mapping[str, str]) -> Repair:
    """Copies what can be read of a broken file to a new one, puts it in its place and writes metadata.yaml."""
    temporary = path.with_suffix(".mcap.repairing")
    tally, topics, found = _Tally(), list[dict[str, Any]](), dict[str, str]()
    with temporary.open("wb") as target:
        writer = Writer(target, compression=CompressionType.LZ4)
        writer.start("ros2", "act2goal_ros")
        _copy(source, writer, tally, topics, found)
        found.update(facts)
        information = tally.information(path.name, topics, found)
        _finish(writer, found, information)
        target.flush()
        os.fsync(target.fileno())
    lost = path.stat().st_size - _whole_records_end(source)
    temporary.replace(path)
    _write_metadata(directory, information)
    return Repair(directory, sum(tally.counts.values()), lost, found)


def _copy(source: IO[bytes], writer: Writer, tally: _Tally, topics: list[dict[str, Any]], facts: dict[str, str]) -> None:
    """Copies schemas, channels and messages; fills tally, topics (entries of metadata.yaml) and facts."""
    schemas: dict[int, Schema] = {}
    channels: dict[int, tuple[int, str]] = {}
    for record in _records(source):
        if isinstance(record, Metadata) and record.name == FACTS:
            facts.update(record.metadata)
        elif isinstance(record, Schema):
            schemas[record.id] = record
        elif isinstance(record, Channel) and record.id not in channels:
            schema = schemas[record.schema_id]
            new = writer.register_schema(schema.name, schema.encoding, schema.data)
            number = writer.register_channel(record.topic, record.message_encoding, new, record.metadata)
            channels[record.id] = (number, record.topic)
            topics.append(_channel_metadata(record, schema))
        elif isinstance(record, Message):
            number, topic = channels[record.channel_id]
            writer.add_message(number, record.log_time, record.data, record.publish_time, record.sequence)
            tally.add(topic, record.log_time)


def _channel_metadata(channel: Channel, schema: Schema) -> dict[str, Any]:
    """The entry of metadata.yaml for a channel read from a file."""
    return {
        "name": channel.topic,
        "type": schema.name,
        "serialization_format": channel.message_encoding,
        "offered_qos_profiles": yaml.safe_load(channel.metadata.get("offered_qos_profiles", "")) or [],
        "type_description_hash": type_hash(schema.name),
    }
