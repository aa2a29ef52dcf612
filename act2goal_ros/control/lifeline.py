"""Learning of another process's death within milliseconds, also when the machine is busy.

A process holds a robust mutex in shared memory. When its thread dies, by whatever signal, the kernel hands the mutex
on at the very beginning of that, long before a loaded machine has torn the process down: measured with both cores
oversubscribed 1.5 … 12 ms (once 82) after SIGKILL, where a pidfd took 36 … 109 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
SIZE = 64  # bytes; glibc's pthread_mutex_t takes 40
PROCESS_SHARED, ROBUST = 1, 1
HOLDER = 0x3FFFFFFF  # the bits of a robust mutex's first word that hold its holder's thread id

_held: list[mmap.mmap] = []  # a held mutex is linked into its thread's list: its memory must stay


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class LifelineError(OSError):
    """No lifeline can be made or found here; the message says why."""


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None)
    if not hasattr(library, "pthread_mutexattr_setrobust"):
        raise LifelineError("the C library has no robust mutexes")
    return library


def _map(path: Path, flags: int) -> tuple[mmap.mmap, ctypes.c_void_p]:
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise LifelineError(f"{path}: {error.strerror}") from error
    try:
        if flags & os.O_CREAT:
            os.ftruncate(descriptor, SIZE)
        memory = mmap.mmap(descriptor, SIZE)
    except (OSError, ValueError) as error:
        raise LifelineError(f"{path}: {error}") from error
    finally:
        os.close(descriptor)
    return memory, ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))


def _path(key: str) -> Path:
    return FOLDER / f"act2goal-{os.getuid()}-{key}"


class Held:
    """This process's own lifeline; it ends with the thread that made it, or with let_go().

    Raises LifelineError where there are none.
    """

    def __init__(self, key: str) -> None:
        self._library, self._file = _library(), _path(key)
        _sweep()
        unfinished = self._file.with_name(f".{self._file.name}")
        memory, self._mutex = _map(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        _held.append(memory)
        self._library.mlock(self._mutex, SIZE)  # a page that was swapped out is passed over when the thread dies
        attributes = ctypes.create_string_buffer(SIZE)
        for result in (
            self._library.pthread_mutexattr_init(attributes),
            self._library.pthread_mutexattr_setpshared(attributes, PROCESS_SHARED),
            self._library.pthread_mutexattr_setrobust(attributes, ROBUST),
            self._library.pthread_mutex_init(self._mutex, attributes),
            self._library.pthread_mutex_lock(self._mutex),
        ):
            if result:
                raise LifelineError(f"{self._file}: {os.strerror(result)}")
        unfinished.rename(self._file)

    def let_go(self) -> None:
        """Tells whoever watches that this process leaves; to be called by the thread that made it."""
        self._library.pthread_mutex_unlock(self._mutex)
        self._file.unlink(missing_ok=True)


def _sweep() -> None:
    """Removes what processes have left that nobody watched when they were killed."""
    for path in FOLDER.glob(f"act2goal-{os.getuid()}-*"):
        with contextlib.suppress(OSError):
            holder = int.from_bytes(path.read_bytes()[:4], sys.byteorder) & HOLDER
            if not Path(f"/proc/{holder}").exists():
                path.unlink()


class Watched:
    """The lifeline of another process. Raises LifelineError when there is none of that key."""

    def __init__(self, key: str) -> None:
        self._library, self._file = _library(), _path(key)
        self._memory, self._mutex = _map(self._file, os.O_RDWR)

    def has_ended(self, timeout: float) -> bool:
        """Waits up to `timeout` s for the process to end."""
        until = time.time_ns() + round(timeout * 1e9)
        moment = _Time(until // 10**9, until % 10**9)
        result = self._library.pthread_mutex_timedlock(self._mutex, ctypes.byref(moment))
        if result == errno.ETIMEDOUT:
            return False
        if result in (0, errno.EOWNERDEAD):
            self._library.pthread_mutex_unlock(self._mutex)  # the next who waits learns of it too
        self._file.unlink(missing_ok=True)
        return True
