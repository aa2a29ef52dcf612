"""What every node has from its base: parameters, heartbeat, lifecycle, clean ends."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from act2goal_msgs.msg import NodeStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters
from ros_tools import Probe, new_domain, wait_for

ROOT = Path(__file__).resolve().parents[1]


def die_with_parent() -> None:
    """Lets no process outlive tests that are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def no_rights() -> None:
    """Takes away what a plain user has not: without CAP_SYS_NICE the limits below hold for root too."""
    die_with_parent()
    for limit in (resource.RLIMIT_NICE, resource.RLIMIT_RTPRIO):
        resource.setrlimit(limit, (0, 0))


UNPRIVILEGED = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"] if os.geteuid() == 0 else []


class Node:
    """The plain node under test, and a probe."""

    kind = "plain"

    def __init__(self, folder: Path, *words: str, kind: str = "plain") -> None:
        self.domain, self.log, self.kind = new_domain(), folder / "log", kind
        self.probe = Probe(self.domain)
        self.process = self.launch(*words)
        wait_for(lambda: self.probe.status("plain"), 40.0, "heartbeat")

    def launch(self, *words: str, before: Sequence[str] = (), prepare: Callable[[], None] = die_with_parent) -> subprocess.Popen[bytes]:
        """Starts a node of that name, as an argument of the command `before`."""
        variables = {**os.environ, "ROS_DOMAIN_ID": str(self.domain), "PYTHONPATH": f"{ROOT}:{ROOT / 'test'}"}
        command = [*before, sys.executable, "-m", "nodes_under_test.managed", self.kind, "--ros-args", *words]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=variables, preexec_fn=prepare)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Calls a service of the node."""
        client = self.probe.node.create_client(kind, f"plain/{name}")
        assert client.wait_for_service(10.0)
        future = client.call_async(request)
        wait_for(future.done, 10.0, name)
        return future.result()

    def change(self, transition: int) -> bool:
        """Asks for a transition."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)

    def set(self, name: str, value: ParameterValue) -> Any:
        """Sets a parameter."""
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def close(self) -> None:
        """Ends the node; it must end cleanly."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(10.0) == 0, self.log.read_text()
        finally:
            self.probe.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """The node with three wrong parameters."""
    node = Node(tmp_path, "-p", "gain:=7.0", "-p", "mode:=quick", "-p", "gian:=1.0")
    yield node
    node.close()


def _double(value: float) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=value)


def _text(value: str) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)


def test_wrong_parameters_are_named_and_can_be_corrected(node: Node) -> None:
    assert not node.change(Transition.TRANSITION_CONFIGURE)
    status = wait_for(lambda: (s := node.probe.status("plain")) and s.level == NodeStatus.ERROR and s, 5.0, "error")
    for part in (
        "parameter gain = 7.0 rad/s is above the highest allowed 3 rad/s",
        "parameter mode = 'quick' is none of slow | fast",
        "unknown parameter gian; plain knows nice, realtime_priority, cpus, gc, gain, mode, names",
    ):
        assert part in status.message
    result = node.set("gain", _double(-1.0))
    assert not result.successful and "Min: 0.0, Max: 3.0, value: -1.0" in result.reason
    assert node.set("gain", ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=2)).successful
    assert node.set("mode", _text("fast")).successful
    assert not node.change(Transition.TRANSITION_CONFIGURE), "gian is still there"
    alone = "cannot be configured: unknown parameter gian; plain knows nice, realtime_priority, cpus, gc, gain, mode, names"
    wait_for(lambda: node.probe.status("plain").message == alone, 5.0, "the one that is left")


def test_life(tmp_path: Path) -> None:
    node = Node(tmp_path, "-p", "gain:=2")
    states = []
    for transition in ("CONFIGURE", "ACTIVATE", "DEACTIVATE", "CLEANUP", "CONFIGURE", "ACTIVATE"):
        assert node.change(getattr(Transition, f"TRANSITION_{transition}"))
        known = len(node.probe.heard["status"])
        wait_for(lambda known=known: len(node.probe.heard["status"]) > known + 1, 5.0, "heartbeat")
        states.append(node.probe.values("plain")["state"])
    assert states == ["inactive", "active", "inactive", "unconfigured", "inactive", "active"]
    result = node.set("mode", _text("fast"))
    assert not result.successful and result.reason == "parameter mode can only change while plain is unconfigured"
    assert node.set("gain", _double(1.5)).successful
    (described,) = node.call(
        DescribeParameters, "describe_parameters", DescribeParameters.Request(names=["gain"])
    ).descriptors
    assert described.description == "speed of the motion [rad/s]"
    assert (described.floating_point_range[0].from_value, described.floating_point_range[0].to_value) == (0.0, 3.0)
    assert node.launch().wait(20.0) == 3
    assert f"/plain runs already in ROS domain {node.domain} (process {node.process.pid})" in node.log.read_text()
    node.close()


def test_refused_priorities_are_told_and_the_node_works_without_them(tmp_path: Path) -> None:
    node = Node.__new__(Node)
    node.domain, node.log = new_domain(), tmp_path / "log"
    node.probe = Probe(node.domain)
    wanted = ["-p", "nice:=-5", "-p", "realtime_priority:=20", "-p", "cpus:=[0, 1000]", "-p", "autostart:=true"]
    node.process = node.launch(*wanted, before=UNPRIVILEGED, prepare=no_rights)
    node.probe.wait_active("plain", 40.0)
    told = wait_for(lambda: (v := node.probe.values("plain")["scheduling"]) and "realtime" in v and v, 5.0, "scheduling")
    assert told.startswith(f"nice {os.getpriority(os.PRIO_PROCESS, 0)}") and "SCHED_FIFO" not in told
    for part in ("nice -5 is not permitted", "cpus 1000 are not there", "realtime_priority 20 is not permitted, runs without"):
        assert part in told and node.log.read_text().count(part) == 1
    assert node.probe.status("plain").level == NodeStatus.OK
    node.close()


def test_a_running_node_has_the_niceness_cpus_and_collector_it_was_given(tmp_path: Path) -> None:
    """All its threads, as the system says, and as its heartbeat says; niceness is added to what it was started with."""
    cpus, began = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    first, nice = min(cpus), min(19, began + 2)
    node = Node(tmp_path, "-p", "nice:=2", "-p", f"cpus:=[{first}]", "-p", "gc:=false", kind="collector")

    def threads() -> set[tuple[int, frozenset[int]]]:
        """Niceness and CPUs of every thread."""
        tasks = map(int, os.listdir(f"/proc/{node.process.pid}/task"))
        return {(os.getpriority(os.PRIO_PROCESS, t), frozenset(os.sched_getaffinity(t))) for t in tasks}

    def told(collects: str) -> set[str]:
        """What the heartbeat says of scheduling, once it says that of the collector."""
        wait_for(lambda: node.probe.values("plain").get("collects") == collects, 5.0, f"collects {collects}")
        return set(node.probe.values("plain")["scheduling"].split(", "))

    assert threads() == {(began, frozenset(cpus))}
    assert node.change(Transition.TRANSITION_CONFIGURE)
    wanted = {f"nice {nice}", *([f"cpus {first}"] if len(cpus) > 1 else [])}
    assert threads() == {(nice, frozenset({first}))}
    assert told("True") >= wanted
    assert node.change(Transition.TRANSITION_ACTIVATE)
    assert told("False") >= wanted and threads() == {(nice, frozenset({first}))}
    assert node.change(Transition.TRANSITION_DEACTIVATE)
    assert told("True") >= wanted
    node.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to use SCHED_FIFO")
def test_the_callbacks_thread_is_realtime_while_active(tmp_path: Path) -> None:
    node = Node(tmp_path, "-p", "realtime_priority:=20", "-p", "nice:=2")
    states = []
    for transition in ("CONFIGURE", "ACTIVATE", "DEACTIVATE"):
        assert node.change(getattr(Transition, f"TRANSITION_{transition}"))
        policies = {os.sched_getscheduler(int(t)) & ~os.SCHED_RESET_ON_FORK for t in os.listdir(f"/proc/{node.process.pid}/task")}
        states.append((os.sched_getscheduler(node.process.pid) & ~os.SCHED_RESET_ON_FORK, os.SCHED_OTHER in policies))
    if "not permitted" in node.log.read_text():
        pytest.skip("SCHED_FIFO is refused to root here")
    assert states == [(os.SCHED_OTHER, True), (os.SCHED_FIFO, True), (os.SCHED_OTHER, True)]
    node.close()


def test_starts_itself_in_a_namespace(tmp_path: Path) -> None:
    node = Node.__new__(Node)
    node.domain, node.log = new_domain(), tmp_path / "log"
    node.probe = Probe(node.domain)
    heard = node.probe.listen(NodeStatus, "left/status", 10)
    node.process = node.launch("-r", "__ns:=/left", "-p", "autostart:=true", "-p", "names:=[a, b]")
    wait_for(lambda: heard and {v.key: v.value for v in heard[-1].values}["state"] == "active", 40.0, "active")
    began = len(heard)
    wait_for(lambda: len(heard) > began + 5, 5.0, "heartbeats")
    for _ in range(2):  # Ctrl-C under ros2 launch: one from the terminal, one from launch
        node.process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    node.close()
