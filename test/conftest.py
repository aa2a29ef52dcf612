"""For all tests: ROS stays on this machine and off domain 0, logs stay out of the home folder, no process is left behind."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path

import domains
import psutil
import pytest

from act2goal_ros import graph

PR_SET_CHILD_SUBREAPER = 36
NEEDS_TORCH = re.compile(r"^\s*(import torch|from (torch|act2goal_ros\.learning|act2goal_ros\.model\.(?!msth|config)))", re.M)


def pytest_configure(config: pytest.Config) -> None:
    """Makes orphans of the tests' processes children of this one, where they are found and ended.

    Triton, which PyPI's torch for CUDA brings along, has an LLVM of its own: loaded after Mesa's, as rendering does, it ends the process.
    """
    if importlib.util.find_spec("triton"):
        importlib.import_module("triton")
    config.addinivalue_line("markers", "system: runs the whole graph; minutes")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leaves out what needs torch where it is not installed, as on a robot."""
    if importlib.util.find_spec("torch") or collection_path.suffix != ".py":
        return None
    return True if NEEDS_TORCH.search(collection_path.read_text()) else None


@pytest.fixture(scope="session", autouse=True)
def quiet_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets the environment that nodes under test inherit; afterwards ends whatever a failed test left running."""
    for name in graph.FASTDDS_PROFILES:
        os.environ.pop(name, None)
    os.environ |= graph.environment(graph.Settings.parse({"discovery": "localhost"}))
    os.environ["ROS_LOG_DIR"] = str(tmp_path_factory.mktemp("ros_log"))
    os.environ["ROS_DOMAIN_ID"] = str(domains.reserve())
    yield
    left = psutil.Process().children(recursive=True)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5.0)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain of this test's own, which the processes it starts inherit."""
    number = domains.reserve()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    return number


TIMED = ("_node.py", "test_drive.py", "test_launch.py", "test_presence.py", "test_realtime.py", "test_stream.py", "_system.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of processes in real time are tried again, at most twice, and reported so: shared machines stall for seconds."""
    for item in items:
        if item.path.name.endswith(TIMED):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))
