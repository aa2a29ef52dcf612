"""Which processes make up the graph: who a heartbeat comes from, whether that process still lives, whether a name is
taken.

The end of a process of this machine is told by the kernel (see lifeline.py); across machines or containers only the age
of heartbeats tells.
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from act2goal_ros.control.lifeline import Held, LifelineError, Watched

LAUNCH = "ACT2GOAL_LAUNCH"  # environment variable: a folder that lives as long as the launch
PATIENCE = 1.0  # s after which a waiting thread looks whether it is still wanted


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


def hold_lifeline(identity: Mapping[str, str]) -> Held | None:
    """The lifeline by which others learn of this process's end; None where the system has none. For the main thread."""
    try:
        return Held(identity["instance"])
    except LifelineError:
        return None


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
    """Calls on_end(instance), from a thread of its own, as soon as a watched process of this machine ends."""

    def __init__(self, on_end: Callable[[str], None]) -> None:
        self._on_end = on_end
        self._machine = machine()
        self._watched: set[str] = set()
        self._lock = threading.Lock()

    def watch(self, instance: str, pid: int, machine: str) -> bool:
        """Watches a process, by its lifeline and its pidfd; False where neither can be done from here."""
        if machine != self._machine or pid == os.getpid() or instance in self._watched:
            return False
        ways = [way for way in (_lifeline_ending(instance), _pidfd_ending(pid)) if way is not None]
        if ways:
            self._watched.add(instance)
        for has_ended in ways:
            threading.Thread(target=self._wait, args=(instance, has_ended), name=f"watch {pid}", daemon=True).start()
        return bool(ways)

    def forget(self, instance: str) -> None:
        """Stops watching."""
        self._watched.discard(instance)

    def close(self) -> None:
        """Stops watching anything."""
        self._watched.clear()

    def _wait(self, instance: str, has_ended: Callable[[float], bool]) -> None:
        while instance in self._watched:
            if has_ended(PATIENCE):
                with self._lock:
                    first = instance in self._watched
                    self._watched.discard(instance)
                if first:
                    self._on_end(instance)
                return


def _lifeline_ending(instance: str) -> Callable[[float], bool] | None:
    """A function that waits up to some seconds for the process to end."""
    try:
        return Watched(instance).has_ended
    except LifelineError:
        return None


def _pidfd_ending(pid: int) -> Callable[[float], bool] | None:
    """The same by the kernel's own handle of a process: surer, but slower on a busy machine."""
    try:
        return _Pidfd(pid).has_ended
    except ProcessLookupError:
        return lambda _: True
    except (OSError, AttributeError):
        return None


class _Pidfd:
    def __init__(self, pid: int) -> None:
        self._descriptor = -1
        self._descriptor = os.pidfd_open(pid)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def has_ended(self, timeout: float) -> bool:
        return bool(select.select([self._descriptor], [], [], timeout)[0])


def first_of_launch(deed: str, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether no process of this launch has asked this before; True without a launch, False where its folder is gone."""
    if LAUNCH not in variables:
        return True
    try:
        (Path(variables[LAUNCH]) / deed).touch(exist_ok=False)
    except OSError:
        return False
    return True
