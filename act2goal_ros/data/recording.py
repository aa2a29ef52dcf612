"""Records rollouts on a thread of its own, within bounds of disk and memory, whatever the disk does.

The caller's thread only appends to a queue. The worker empties it every `flush_period`, so that SIGKILL costs at most that much,
removes the oldest rollouts for room, and stops with a fault when the disk is full; the next begin() tries again.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from act2goal_ros.data.bag import BagError, BagWriter, Repair, Topic, is_complete, repair
from act2goal_ros.data.rollout import OUTCOME, directories, make_room

MB = 1_000_000
ROOM_PERIOD = 10.0  # s between two looks at the size of all rollouts

Log = Callable[[str], None]
Message = tuple[str, int, bytes]  # topic, ns received, data


@dataclass(frozen=True, kw_only=True)
class RecorderLimits:
    """Bounds of a recorder.

    max_bytes: of all rollouts; min_free_bytes: left to others on the disk; queue_bytes: waiting for the disk;
    flush_period: s.
    """

    max_bytes: int = 10_000 * MB
    min_free_bytes: int = 500 * MB
    queue_bytes: int = 64 * MB
    flush_period: float = 0.2
    compression: str = "lz4"


def repair_all(root: Path, outcome: str = "interrupted") -> list[Repair | str]:
    """Repairs every rollout whose writer died; the outcome becomes theirs unless they have one. Faults come back as text."""
    done: list[Repair | str] = []
    for directory in directories(root):
        if is_complete(directory):
            continue
        try:
            result = repair(directory, {OUTCOME: outcome})
        except (BagError, OSError) as error:
            done.append(f"{directory} cannot be repaired: {error}")
        else:
            done.extend([result] if result is not None else [])
    return done


class Recorder:
    """One rollout at a time: begin, write ..., end. All methods return at once; close() waits for what is queued.

    First repairs, and names in the log, what killed recorders left under the root.

    fault: why nothing is being recorded though it should be, or an empty string. dropped: messages lost, by cause.
    """

    def __init__(self, root: Path, topics: Sequence[Topic], limits: RecorderLimits, log: Log = print) -> None:
        self.root, self.limits = root, limits
        self.fault = ""
        self.dropped: dict[str, int] = {}
        self.directory: Path | None = None
        self.bytes = 0
        self._topics, self._log = tuple(topics), log
        self._writer: BagWriter | None = None
        self._queue: deque[Message | tuple[str, Mapping[str, str]] | None] = deque()
        self._waiting = 0
        self._open = False
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._checked = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def begin(self, name: str, facts: Mapping[str, str]) -> None:
        """Starts a rollout in root/name; one that is open ends without an outcome of its own."""
        self._put((name, dict(facts)))
        self._open = True

    def write(self, topic: str, received: int, data: bytes) -> None:
        """Queues a serialized message (received: ns) for the open rollout; drops and counts it when too much is waiting."""
        if not self._open:
            return
        with self._lock:
            if self._waiting + len(data) > self.limits.queue_bytes:
                self._drop("queue_full")
                return
            self._waiting += len(data)
            self._queue.append((topic, received, data))

    def end(self, facts: Mapping[str, str]) -> None:
        """Ends the open rollout; facts, e.g. its outcome, join those of its start."""
        if self._open:
            self._open = False
            self._put(("", dict(facts)))

    def close(self, facts: Mapping[str, str] | None = None, timeout: float = 5.0) -> None:
        """Ends what is open and the thread; waits for the disk at most `timeout` seconds."""
        self.end(facts or {})
        self._put(None)
        self._thread.join(timeout)

    def _put(self, item: tuple[str, Mapping[str, str]] | None) -> None:
        with self._lock:
            self._queue.append(item)
        self._wake.set()

    def _drop(self, cause: str) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + 1

    # the worker's side

    def _run(self) -> None:
        for done in repair_all(self.root):
            self._log(done if isinstance(done, str) else f"repaired {done}")
        while True:
            self._wake.wait(self.limits.flush_period)
            self._wake.clear()
            with self._lock:
                items, self._queue, self._waiting = self._queue, deque(), 0
            for item in items:
                if item is None:
                    self._guarded(self._end, {})
                    return
                self._handle(item)
            if self._writer is not None:
                self._guarded(self._flush)

    def _handle(self, item: Message | tuple[str, Mapping[str, str]]) -> None:
        if len(item) == 3:
            if self._writer is None:
                self._drop("not_recording")
                return
            self._guarded(self._writer.write, *item)
            return
        name, facts = item
        if self._writer is not None:
            self._guarded(self._end, facts if not name else {})
        if name:
            self._guarded(self._begin, name, facts)

    def _guarded(self, action: Callable[..., None], *arguments: object) -> None:
        """Runs an action of the worker; what the disk refuses ends the recording with a fault, never the thread."""
        try:
            action(*arguments)
        except (OSError, BagError) as error:
            self._stop(f"{self.directory or self.root}: {error.strerror if isinstance(error, OSError) else error}")

    def _begin(self, name: str, facts: Mapping[str, str]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.directory, self.bytes = self.root / name, 0
        self._room()
        self._writer = BagWriter(self.directory, self._topics, facts, compression=self.limits.compression)
        if self.fault:
            self._log(f"recording again: {self.directory}")
        self.fault = ""

    def _end(self, facts: Mapping[str, str]) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close(facts)

    def _flush(self) -> None:
        assert self._writer is not None
        self._writer.flush()
        self.bytes = self._writer.size
        if time.monotonic() - self._checked > ROOM_PERIOD or self.bytes > self.limits.max_bytes:
            self._room()

    def _room(self) -> None:
        """Removes old rollouts for room; raises BagError when there still is none, after closing what is open."""
        self._checked = time.monotonic()
        for directory, size in make_room(self.root, self.limits.max_bytes):
            self._log(f"removed the oldest rollout {directory.name} ({size / MB:.1f} MB): {self._bound()}")
        free = shutil.disk_usage(self.root).free
        fault = ""
        if free < self.limits.min_free_bytes:
            fault = f"{free / MB:.0f} MB free on the disk, at least {self.limits.min_free_bytes / MB:.0f} MB are kept"
        elif self.bytes > self.limits.max_bytes:
            fault = f"this rollout alone has {self.bytes / MB:.1f} MB, {self._bound()}"
        if fault:
            self._end({OUTCOME: "cut", "fault": fault})
            raise BagError(fault)

    def _bound(self) -> str:
        return f"all rollouts together may have {self.limits.max_bytes / MB:.0f} MB"

    def _stop(self, fault: str) -> None:
        """Ends the recording after a fault; what the file holds is repaired at the next start."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()
        if fault != self.fault:
            self._log(f"not recording: {fault}")
        self.fault = fault
