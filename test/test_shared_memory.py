"""Orphaned segments of Fast DDS go, living ones stay."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from act2goal_ros import shared_memory


def make(folder: Path, name: str, age: float) -> Path:
    segment, lock = folder / name, folder / f"{name}_el"
    for path in (segment, lock):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age, time.time() - age))
    return lock


def test_only_what_nobody_owns_is_removed(tmp_path: Path) -> None:
    make(tmp_path, "fastdds_dead", 60.0)
    make(tmp_path, "fastrtps_dead", 60.0)
    make(tmp_path, "fastdds_new", 0.0)
    make(tmp_path, "else_dead", 60.0)
    with make(tmp_path, "fastdds_alive", 60.0).open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert shared_memory.remove_orphans(tmp_path) == 2
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{name}{end}" for name in ("fastdds_new", "else_dead", "fastdds_alive") for end in ("", "_el")}
    assert shared_memory.remove_orphans(tmp_path) == 1
