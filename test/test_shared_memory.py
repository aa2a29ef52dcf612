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


DEAD, DEAD_2, NEW, ALIVE = (f"fast{kind}_{k:016x}" for k, kind in enumerate(["dds", "rtps", "dds", "dds"]))
PORT, OTHER = "fastdds_port7411", "else_0000000000000000"


def test_only_segments_that_nobody_owns_are_removed(tmp_path: Path) -> None:
    for name in (DEAD, DEAD_2, PORT, OTHER):
        make(tmp_path, name, 60.0)
    make(tmp_path, NEW, 0.0)
    with make(tmp_path, ALIVE, 60.0).open("rb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        assert shared_memory.remove_orphans(tmp_path) == 2
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{name}{end}" for name in (NEW, ALIVE, PORT, OTHER) for end in ("", "_el")}
    assert shared_memory.remove_orphans(tmp_path) == 1
