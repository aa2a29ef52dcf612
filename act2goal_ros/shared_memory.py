"""Fast DDS's shared memory: each participant has a segment in /dev/shm, which stays there when its process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import re
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
LOCK = "_el"  # beside each segment; its owner holds an exclusive lock on it, which the kernel releases with the process
# Of Fast DDS 3 and 2. A port (fastdds_port7411) has such a lock too, but a dead listener's port stays: others have it open,
# and would go on writing to it while its successor listens to a new file of that name.
SEGMENT_LOCK = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}_el")
SETTLED = 10.0  # s, age from which a segment surely has been locked by whoever made it


def remove_orphans(folder: Path = FOLDER) -> int:
    """Removes the segments whose owner is dead, of any ROS program of this user; returns how many.

    What a living process owns is left alone, and what is younger than SETTLED.
    """
    removed = 0
    for lock in folder.glob(f"fast*{LOCK}"):
        if SEGMENT_LOCK.fullmatch(lock.name):
            with contextlib.suppress(OSError):  # in use, another user's, or gone in the meantime
                removed += _remove(lock)
    return removed


def _remove(lock: Path) -> bool:
    if time.time() - lock.stat().st_mtime < SETTLED:
        return False
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.with_name(lock.name.removesuffix(LOCK)).unlink(missing_ok=True)
        lock.unlink()
    return True
