"""Processes that give way to those that move the arm."""

from __future__ import annotations

import contextlib
import os

HIGHEST = 19  # niceness; the scheduler knows no nicer process
_START = os.getpriority(os.PRIO_PROCESS, 0)


def give_way(extra: int) -> int:
    """Makes the calling thread, and threads it starts from now on, nicer by `extra` than the process began.

    Returns the niceness.
    """
    with contextlib.suppress(PermissionError):  # less nice than now, without the right to
        os.setpriority(os.PRIO_PROCESS, 0, min(HIGHEST, _START + extra))
    return os.getpriority(os.PRIO_PROCESS, 0)
