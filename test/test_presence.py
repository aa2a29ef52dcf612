"""Who is there: processes that end, and names that are taken."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from act2goal_ros.control.presence import LAUNCH, NameTaken, ProcessWatch, first_of_launch, identity, machine, take_name


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_killed_process_is_noticed(sleeper: subprocess.Popen[bytes]) -> None:
    ended: queue.Queue[str] = queue.Queue()
    watch = ProcessWatch(ended.put)
    open_before = len(os.listdir("/proc/self/fd"))
    assert watch.watch("a", sleeper.pid, machine())
    time.sleep(0.05)
    assert ended.empty()
    sleeper.kill()
    began = time.monotonic()
    assert ended.get(timeout=5.0) == "a"
    assert time.monotonic() - began < 2.0
    time.sleep(0.1)
    assert len(os.listdir("/proc/self/fd")) == open_before
    watch.close()


def test_a_process_that_is_gone_already_counts_as_ended(sleeper: subprocess.Popen[bytes]) -> None:
    ended: queue.Queue[str] = queue.Queue()
    watch = ProcessWatch(ended.put)
    sleeper.kill()
    sleeper.wait()
    assert watch.watch("a", sleeper.pid, machine())
    assert ended.get(timeout=1.0) == "a"
    watch.close()


def test_a_forgotten_process_is_not_told_of(sleeper: subprocess.Popen[bytes]) -> None:
    ended: queue.Queue[str] = queue.Queue()
    watch = ProcessWatch(ended.put)
    watch.watch("a", sleeper.pid, machine())
    watch.forget("a")
    sleeper.kill()
    with pytest.raises(queue.Empty):
        ended.get(timeout=0.3)
    watch.close()


def test_a_lifeline_tells_of_death_and_of_leave() -> None:
    hold = (
        "import sys, time; from act2goal_ros.control.lifeline import Held; h = Held(sys.argv[1]); "
        "print(1); sys.stdout.flush(); sys.stdin.read(1); h.let_go(); time.sleep(60)"
    )
    for end in ("kill", "leave"):
        key = f"test-{os.getpid()}-{end}"
        command = [sys.executable, "-c", hold, key]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, cwd=os.getcwd()) as holder:
            assert holder.stdout is not None and holder.stdout.readline()
            ended: queue.Queue[str] = queue.Queue()
            watches = [ProcessWatch(ended.put) for _ in range(2)]
            for watch in watches:
                assert watch.watch(key, holder.pid, machine())
            time.sleep(0.1)
            assert ended.empty()
            if end == "kill":
                holder.kill()
            else:
                assert holder.stdin is not None
                holder.stdin.write(b"x")
                holder.stdin.flush()
            assert [ended.get(timeout=2.0) for _ in watches] == [key, key]
            assert not list(Path("/dev/shm").glob(f"*{key}")), "nothing is left behind"
            holder.kill()


def test_processes_elsewhere_and_this_one_are_not_watched(sleeper: subprocess.Popen[bytes]) -> None:
    watch = ProcessWatch(lambda _: None)
    assert not watch.watch("a", sleeper.pid, "another machine")
    assert not watch.watch("a", os.getpid(), machine())
    watch.close()


def test_a_name_is_taken_until_its_holder_ends() -> None:
    name = f"/test/{os.getpid()}"
    hold = "import sys, time; from act2goal_ros.control.presence import take_name as t; f = t(*sys.argv[1:]); print(1)"
    command = [sys.executable, "-c", hold + "; sys.stdout.flush(); time.sleep(60)", name, "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=os.getcwd()) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(NameTaken, match=f"{name} runs already in ROS domain 5 .process {holder.pid}"):
            take_name(name, "5")
        take_name(name, "6").close()
        holder.kill()
        holder.wait()
    take_name(name, "5").close()


def test_two_identities_of_one_process_differ_only_in_the_instance() -> None:
    a, b = identity(), identity()
    assert a["instance"] != b["instance"] and (a["pid"], a["machine"]) == (b["pid"], b["machine"])


def test_what_a_launch_does_once_no_successor_does_again(tmp_path: Path) -> None:
    launch = {LAUNCH: str(tmp_path)}
    assert [first_of_launch("a", launch), first_of_launch("a", launch), first_of_launch("b", launch)] == [True, False, True]
    assert first_of_launch("a", {}) and first_of_launch("a", {}), "it was not launched"
    assert not first_of_launch("c", {LAUNCH: str(tmp_path / "gone")})
