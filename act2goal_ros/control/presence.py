"""Which processes make up the graph: who a heartbeat comes from, whether that process still lives, whether a name is
taken.

A process that ends, by whatever signal, is told of by the kernel through its pidfd within milliseconds; across
machines or containers only the age of heartbeats tells.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO


class NameTaken(RuntimeError):
    """A node of this name runs already; the message names node, domain and process."""


def machine() -> str:
    """Equal in two processes exactly when they can see each other's process ids: one boot of one kernel, one pid
    namespace.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown:{uuid.getnode():x}"


def identity() -> dict[str, str]:
    """What a heartbeat says of its process: pid, machine, start (wall clock, s), an instance no other node shares."""
    return {
        "pid": str(os.getpid()),
        "machine": machine(),
        "instance": uuid.uuid4().hex[:12],
        "since": f"{time.time():.3f}",
    }


def take_name(name: str, domain: str) -> IO[str]:
    """Reserves a node's full name on this machine until the file returned is closed or the process ends.

    Raises NameTaken when another process holds it.
    """
    key = re.sub(r"[^A-Za-z0-9]", "_", f"{os.getuid()}_{domain}_{name}")
    file = open(Path(tempfile.gettempdir()) / f"act2goal{key}.lock", "a+", encoding="ascii")  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise NameTaken(
            f"{name} runs already in ROS domain {domain} (process {holder}): stop that launch first, "
            "or give this one a namespace of its own"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


class ProcessWatch:
    """Calls on_end(name) from a thread of its own as soon as a watched process of this machine ends."""

    def __init__(self, on_end: Callable[[str], None]) -> None:
        self._on_end = on_end
        self._machine = machine()
        self._poll = select.poll()
        self._names: dict[int, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._poll.register(self._wake_read, select.POLLIN)
        self._thread = threading.Thread(target=self._wait, name="process watch", daemon=True)
        self._thread.start()

    def watch(self, name: str, pid: int, machine: str) -> bool:
        """Watches the process under this name instead of the one before; False where that cannot be done from here."""
        if machine != self._machine or not hasattr(os, "pidfd_open") or pid == os.getpid():
            return False
        self.forget(name)
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._on_end(name)
            return True
        except OSError:
            return False
        with self._lock:
            self._names[descriptor] = (name, pid)
        self._poll.register(descriptor, select.POLLIN)
        os.write(self._wake_write, b"w")
        return True

    def forget(self, name: str) -> None:
        """Stops watching whatever goes by this name."""
        with self._lock:
            known = [descriptor for descriptor, (other, _) in self._names.items() if other == name]
            for descriptor in known:
                del self._names[descriptor]
                self._poll.unregister(descriptor)
                os.close(descriptor)

    def close(self) -> None:
        """Ends the thread and forgets everything."""
        os.write(self._wake_write, b"q")
        self._thread.join()
        for name in {name for name, _ in self._names.values()}:
            self.forget(name)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wait(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._wake_read:
                    if b"q" in os.read(self._wake_read, 64):
                        return
                    continue
                with self._lock:
                    name = self._names.get(descriptor, ("", 0))[0]
                if name:
                    self.forget(name)
                    self._on_end(name)
