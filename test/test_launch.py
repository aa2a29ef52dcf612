"""The launcher among programs that live, die and hang; the launch file; and the whole graph, up and down."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ros_tools import wait_for

from act2goal_ros import graph

ROOT = Path(__file__).resolve().parents[1]


class Launch:
    """A launch in a process of its own, and the log it writes."""

    def __init__(self, command: list[str], log: Path | None) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ)
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log and self._log.exists() else ""

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        wait_for(lambda: text in self.log, seconds, lambda: f"{text!r} in:\n{self.log}")

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: signal.Signals = signal.SIGINT, seconds: float = 20.0) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def launched(folder: Path, *programs: str) -> Iterator[Launch]:
    folder.mkdir(exist_ok=True)
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'test'}"}
    os.environ.update(environment)
    launch = Launch([sys.executable, "-m", "launcher_under_test", str(folder), "t", *programs], folder / "log")
    try:
        yield launch
    finally:
        for process in [*launch.processes(), launch.process] if launch.process.poll() is None else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_in_reverse_order_and_leaves_nothing(domain: int, tmp_path: Path, number: signal.Signals) -> None:
    with launched(tmp_path, "good", "other", "stuck") as launch:
        for name in ("good", "other", "stuck"):
            launch.wait_for(f"[{name}] up")
        processes = launch.processes()
        assert len(processes) == 3
        assert launch.end(number) == 0
        assert gone(processes)
        assert launch.log.splitlines()[-1] == "[good] bye"


def test_signal_while_everything_still_starts_ends_it_too(domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "good", "other") as launch:
        launch.wait_for("starting good")
        processes = launch.processes()
        assert launch.end(signal.SIGINT) == 0
        assert gone(processes)


def test_killed_node_is_started_again(domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "good", "other") as launch:
        launch.wait_for("[good] up")
        launch.wait_for("[other] up")
        (victim,) = [process for process in launch.processes() if str(tmp_path / "good") in process.cmdline()]
        victim.kill()
        launch.wait_for("[launch] good was ended by SIGKILL; starting it again")
        wait_for(lambda: launch.log.count("[good] up") == 2, 10.0, lambda: launch.log)
        assert launch.log.count("[other] up") == 1
        assert launch.end() == 0


def test_required_node_that_keeps_failing_ends_the_launch(domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "good", "crash") as launch:
        assert launch.process.wait(30.0) == 1
        assert launch.log.count("[crash] boom") == 5
        assert "[launch] crash is not started again: it ended 5 times within 60 s" in launch.log
        assert "[good] bye" in launch.log


def test_launch_goes_on_without_an_optional_node(domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "good", "crash-optional") as launch:
        launch.wait_for("[launch] crash is not started again", 30.0)
        time.sleep(0.5)
        assert launch.process.poll() is None
        assert launch.end() == 0


def test_node_whose_name_is_taken_is_not_started_again(domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "good", "taken") as launch:
        assert launch.process.wait(30.0) == 1
        assert launch.log.count("[taken] name is taken") == 1
        assert "taken is not started again: its name is taken" in launch.log


def test_killed_launcher_takes_its_nodes_along(domain: int, tmp_path: Path) -> None:
    with launched(tmp_path, "good", "stuck") as launch:
        launch.wait_for("[good] up")
        launch.wait_for("[stuck] up")
        processes = launch.processes()
        launch.end(signal.SIGKILL)
        wait_for(lambda: gone(processes), 2.0, "the end of the nodes")


def test_second_launch_in_a_namespace_is_refused(domain: int, tmp_path: Path) -> None:
    with launched(tmp_path / "a", "good") as first:
        first.wait_for("[good] up")
        with launched(tmp_path / "b", "good") as second:
            output, _ = second.process.communicate(timeout=20.0)
            assert second.process.returncode != 0
            assert f"/t/launch runs already in ROS domain {domain} (process {first.process.pid})" in output
        assert first.end() == 0


@pytest.mark.skipif(importlib.util.find_spec("launch_ros") is None, reason="launch is not installed: not among the wheels")
def test_launch_file_declares_the_arguments_of_the_graph() -> None:
    from launch.actions import DeclareLaunchArgument

    specification = importlib.util.spec_from_file_location("bringup", ROOT / "launch/bringup.launch.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    entities = module.generate_launch_description().entities
    declared = {entity.name: entity for entity in entities if isinstance(entity, DeclareLaunchArgument)}
    assert list(declared) == [argument.name for argument in graph.ARGUMENTS]
    assert all(entity.description for entity in declared.values())


def up(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("act2goal")), "up", "--no-display", *arguments]


def test_bad_argument_is_a_message_without_a_traceback() -> None:
    done = subprocess.run(up("sim:=maybe"), capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.strip() == "Error: argument sim:=maybe is none of true, false"


@pytest.mark.system
@pytest.mark.flaky(reruns=1)
def test_whole_graph_comes_up_and_ends_on_interrupt(domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACT2GOAL_ROLLOUTS", str(tmp_path / "rollouts"))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    arguments = ("namespace:=whole", "goal_image:=none")
    launch = Launch(up(*arguments), None)
    try:
        wait_for(lambda: list(tmp_path.glob("act2goal-*.log")), 20.0, "the log")
        launch._log = next(tmp_path.glob("act2goal-*.log"))
        launch.wait_for("all is well", 90.0)
        second = subprocess.run(up(*arguments), capture_output=True, text=True, timeout=30)
        assert second.returncode == 1 and "/whole/launch runs already in ROS domain" in second.stderr
        processes = launch.processes()
        assert len(processes) == 7
        started = time.monotonic()
        assert launch.end(seconds=30.0) == 0
        assert time.monotonic() - started < 20.0
        assert gone(processes)
        assert not re.search(r"Traceback|SIGKILL", launch.log), launch.log
    finally:
        launch.process.kill()
