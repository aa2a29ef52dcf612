"""Priority, CPUs and garbage collection of this process, under Linux. What the system refuses is told, not raised. No ROS.

Niceness and affinity are a thread's own and pass on to the threads it starts; here every thread of the process gets them.
SCHED_FIFO is for the calling thread alone, and is not passed on: networks and recordings must never hold a core for good.

Where the kernel groups by session (sched_autogroup, the default of desktop kernels: a terminal or service is one), niceness counts
only against processes of the same session, and all sessions get as much as each other. A session has a niceness of its own for that.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path

NICEST = 19
AUTOGROUP = Path("/proc/self/autogroup")
AGAIN = 0.12  # s; a session's niceness may be changed ten times a second
_STARTED_NICE = os.getpriority(os.PRIO_PROCESS, 0)
_STARTED_CPUS = frozenset(os.sched_getaffinity(0))


def renice(extra: int) -> str:
    """Makes all threads nicer by `extra` than the process began (negative: less nice, and the session with it), 19 at most.

    Returns '' or why it was not possible and what to do.
    """
    wanted = min(NICEST, _STARTED_NICE + extra)
    try:
        _each_thread(lambda thread: os.setpriority(os.PRIO_PROCESS, thread, wanted))
    except PermissionError:
        now = os.getpriority(os.PRIO_PROCESS, 0)
        return f"nice {extra} is not permitted, niceness stays {now}: {_remedy(f'nice {wanted}')}"
    return _raise_session(extra) if extra < 0 else ""


def session_nice() -> int | None:
    """The niceness of this process's session against others; None where the kernel does not group by session."""
    try:
        found = re.search(r"nice (-?\d+)", AUTOGROUP.read_text())
    except OSError:
        return None
    return int(found[1]) if found else None


def _raise_session(nice: int) -> str:
    """Makes the session no nicer than that, for as long as it lives. Returns '' or why it was not possible."""
    for wait in (0.0, AGAIN, 2 * AGAIN):
        time.sleep(wait)
        now = session_nice()
        if now is None or now <= nice:
            return ""
        try:
            AUTOGROUP.write_text(str(nice))
            return ""
        except OSError as error:
            why = error.strerror
            if not isinstance(error, BlockingIOError):
                break
    return f"other sessions get as much of the CPUs as this one (sched_autogroup, its niceness stays {now}: {why})"


def pin(cpus: Sequence[int]) -> str:
    """Keeps all threads on these CPUs; none given: those the process began with. Returns '' or what was not possible."""
    missing = sorted(set(cpus) - _STARTED_CPUS)
    wanted = (set(cpus) & _STARTED_CPUS) or _STARTED_CPUS
    _each_thread(lambda thread: os.sched_setaffinity(thread, wanted))
    if not missing:
        return ""
    return f"cpus {_listed(missing)} are not there, runs on {_listed(wanted)}: this process may use {_listed(_STARTED_CPUS)}"


def realtime(priority: int) -> str:
    """Puts the calling thread under SCHED_FIFO with a priority of 1 … 99, or back to the usual scheduling with 0.

    Returns '' or why it was not possible and what to do.
    """
    if not priority and not is_realtime():
        return ""
    policy = (os.SCHED_FIFO if priority else os.SCHED_OTHER) | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        limit = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
        limited = 0 <= limit < priority
        why = f"the limit is {limit}" if limited else "its control group has no real-time share, cpu.rt_runtime_us"
        return f"realtime_priority {priority} is not permitted, runs without ({why}): {_remedy(f'rtprio {priority}')}"
    return ""


def is_realtime() -> bool:
    """Whether the calling thread runs under SCHED_FIFO."""
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO


def hold_garbage(collect: bool) -> None:
    """Begins a phase in which garbage collection is short: what is there now is looked at no more, and with `collect` false
    reference cycles made from now on are kept until the phase ends."""
    gc.collect()
    gc.freeze()
    if not collect:
        gc.disable()


def release_garbage() -> None:
    """Ends that phase."""
    gc.enable()
    gc.unfreeze()


def summary() -> str:
    """The calling thread's scheduling as the system says, e.g. 'nice 5' or 'nice -10, session -10, SCHED_FIFO 20, cpus 1'."""
    parts = [f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"]
    if session := session_nice():
        parts.append(f"session {session}")
    if is_realtime():
        parts.append(f"SCHED_FIFO {os.sched_getparam(0).sched_priority}")
    if (cpus := os.sched_getaffinity(0)) != _STARTED_CPUS:
        parts.append(f"cpus {_listed(cpus)}")
    return ", ".join(parts)


def _each_thread(act: Callable[[int], None]) -> None:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            act(int(thread))


def _listed(cpus: Sequence[int] | set[int] | frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))


def _remedy(limit: str) -> str:
    return f"put '<user> - {limit}' into /etc/security/limits.d and log in again, or give CAP_SYS_NICE (docker run --cap-add=SYS_NICE)"
