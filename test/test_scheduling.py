"""Priorities, CPUs and garbage collection, and what is said where the system refuses them."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from act2goal_ros import scheduling

ROOT = Path(__file__).resolve().parents[1]


def run(*code: str) -> Any:
    """What code prints as JSON, in a process of its own: a priority once taken may not be given back."""
    text = "\n".join(("import json, os, threading", "from act2goal_ros import scheduling", *code))
    output = subprocess.check_output([sys.executable, "-c", text], text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return json.loads(output)


def refuse(*_: object) -> None:
    """What the kernel says to a process without the right."""
    raise PermissionError(1, "Operation not permitted")


def test_niceness_is_added_to_what_the_process_began_with_and_holds_for_threads_that_run_already() -> None:
    began = os.getpriority(os.PRIO_PROCESS, 0)
    found = run(
        "end = threading.Event(); running = threading.Thread(target=end.wait); running.start()",
        "problems = [scheduling.renice(3), scheduling.renice(3)]",
        "found = [os.getpriority(os.PRIO_PROCESS, int(t)) for t in os.listdir('/proc/self/task')]",
        "later = threading.Thread(target=lambda: found.append(os.getpriority(os.PRIO_PROCESS, 0))); later.start(); later.join()",
        "end.set(); print(json.dumps([problems, found]))",
    )
    assert found == [["", ""], [min(scheduling.NICEST, began + 3)] * 3]


def test_niceness_ends_at_the_nicest() -> None:
    assert run("scheduling.renice(100); print(os.getpriority(os.PRIO_PROCESS, 0))") == scheduling.NICEST


def test_a_refused_niceness_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "setpriority", refuse)
    monkeypatch.setattr(scheduling, "_STARTED_NICE", 2)
    why = scheduling.renice(-10)
    assert why.startswith("nice -10 is not permitted, niceness stays ")
    assert "'<user> - nice -8'" in why and "CAP_SYS_NICE" in why and "--cap-add=SYS_NICE" in why


def test_a_session_is_raised_with_its_process_and_never_lowered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    monkeypatch.setattr(scheduling, "AUTOGROUP", tmp_path / "autogroup")
    assert scheduling.renice(-10) == "" and scheduling.session_nice() is None, "a kernel without"
    for held, extra, left in ((0, -10, "-10"), (-15, -10, "/autogroup-7 nice -15"), (0, 5, "/autogroup-7 nice 0")):
        scheduling.AUTOGROUP.write_text(f"/autogroup-7 nice {held}")
        assert scheduling.renice(extra) == ""
        assert scheduling.AUTOGROUP.read_text() == left


@pytest.mark.parametrize(("errors", "said"), [([11, 11], ""), ([11] * 3, "niceness stays 0"), ([1], "Operation not permitted")])
def test_a_session_that_is_not_raised_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, errors: list[int], said: str) -> None:
    usual, left = Path.write_text, list(errors)

    def write(self: Path, text: str) -> int:
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number))
        return usual(self, f"/autogroup-7 nice {text}\n")

    (path := tmp_path / "autogroup").write_text("/autogroup-7 nice 0\n")
    monkeypatch.setattr(os, "setpriority", lambda *_: None)
    monkeypatch.setattr(scheduling, "AUTOGROUP", path)
    monkeypatch.setattr(scheduling, "AGAIN", 0.0)
    monkeypatch.setattr(Path, "write_text", write)
    assert said in (why := scheduling.renice(-10)) and bool(why) == bool(said)
    assert (scheduling.session_nice() == -10) == (not said)


@pytest.mark.skipif(os.geteuid() != 0 or scheduling.session_nice() is None, reason="needs the right to raise a session, and sessions")
def test_a_real_session_is_raised() -> None:
    found = run("os.setsid(); print(json.dumps([scheduling.renice(-3), scheduling.session_nice(), scheduling.summary()]))")
    assert found[:2] == ["", -3] and "session -3" in found[2]


@pytest.mark.parametrize(
    ("limit", "why"),
    [(10, "the limit is 10"), (99, "its control group has no real-time share"), (-1, "its control group has no real-time share")],
)
def test_a_refused_realtime_priority_is_explained(monkeypatch: pytest.MonkeyPatch, limit: int, why: str) -> None:
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(scheduling.resource, "getrlimit", lambda _: (limit, limit))
    said = scheduling.realtime(20)
    assert said.startswith("realtime_priority 20 is not permitted, runs without") and why in said
    assert "'<user> - rtprio 20'" in said and "--cap-add=SYS_NICE" in said
    assert scheduling.realtime(0) == "", "nothing to give back"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to use SCHED_FIFO")
def test_realtime_is_for_the_calling_thread_alone_and_can_be_given_back() -> None:
    problem, *found = run(
        "problem, policies = scheduling.realtime(20), [os.sched_getparam(0).sched_priority]",
        "note = lambda: policies.append(os.sched_getscheduler(0))",
        "thread = threading.Thread(target=note); thread.start(); thread.join()",
        "policies.append(scheduling.is_realtime()); scheduling.realtime(0); policies.append(scheduling.is_realtime())",
        "print(json.dumps([problem, *policies]))",
    )
    if problem:
        pytest.skip(problem)
    assert found == [20, os.SCHED_OTHER, True, False]


def test_cpus_that_are_not_there_are_named_and_the_others_taken() -> None:
    first = min(os.sched_getaffinity(0))
    found = run(
        f"problems = [scheduling.pin([{first}])]; cpus = [sorted(os.sched_getaffinity(0))]; said = scheduling.summary()",
        f"problems += [scheduling.pin([{first}, 1000]), scheduling.pin([1000]), scheduling.pin([])]",
        "print(json.dumps([problems, cpus, sorted(os.sched_getaffinity(0)), said]))",
    )
    (fits, partly, none, back), cpus, restored, said = found
    assert fits == back == "" and cpus == [[first]] and restored == sorted(os.sched_getaffinity(0))
    assert partly.startswith(f"cpus 1000 are not there, runs on {first}: this process may use ")
    assert none.startswith("cpus 1000 are not there, runs on ")
    assert len(restored) == 1 or said.endswith(f"cpus {first}")


def test_garbage_is_left_alone_while_held_and_collected_afterwards() -> None:
    collections: list[int] = []
    gc.callbacks.append(watch := lambda phase, info: collections.append(info["generation"]) if phase == "start" else None)
    try:
        scheduling.hold_garbage(collect=False)
        collections.clear()
        kept = [[] for _ in range(10_000)]  # would set off a collection
        assert len(kept) == 10_000 and not collections and gc.get_freeze_count() > 0
        scheduling.release_garbage()
        assert gc.isenabled() and gc.get_freeze_count() == 0
        scheduling.hold_garbage(collect=True)
        assert gc.isenabled() and gc.get_freeze_count() > 0
    finally:
        gc.callbacks.remove(watch)
        scheduling.release_garbage()


def test_the_summary_is_what_the_system_says() -> None:
    assert scheduling.summary().startswith(f"nice {os.getpriority(os.PRIO_PROCESS, 0)}")
    assert "SCHED_FIFO" not in scheduling.summary()
