"""ROS domains for tests: one each, never shared with another pytest that runs on this machine."""

from __future__ import annotations

import fcntl
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

LAST = 101  # valid with every operating system; 0 is where people work
KEPT = 40  # a test's domain is given back this many tests later: long after its nodes have ended

_held: deque[IO[str]] = deque()
_next = 0


def reserve() -> int:
    """Return a ROS_DOMAIN_ID that no other test uses; raise RuntimeError when all are taken."""
    global _next
    while len(_held) > KEPT:
        _held.popleft().close()
    for _ in range(LAST):
        _next = _next % LAST + 1
        file = (Path(tempfile.gettempdir()) / f"act2goal_test_domain_{_next}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _held.append(file)
        return _next
    raise RuntimeError(f"all ROS domains from 1 to {LAST} are taken by tests that run now")
