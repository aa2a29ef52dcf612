"""The supervisor among processes that live and die: whole bring-up, deaths, braking, e-stop, two launches."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from act2goal_msgs.msg import NodeStatus, Stop, StopReason
from control_msgs.msg import JointTrajectoryControllerState
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from ros_tools import Probe, new_domain, wait_for
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.peer import Peer
from act2goal_ros.nodes.trajectories import seconds

ROOT = Path(__file__).resolve().parents[1]
CONTROLLER = RobotConfig.load("ur5e_sim").controller
NODES = {"simulated_arm": "controller", "goal": "failing", "msth": "plain", "policy": "mover"}


def die_with_parent() -> None:
    """Lets no process outlive tests that are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Graph:
    """A supervisor and its nodes, each in a process of its own, and a probe that listens."""

    def __init__(self, folder: Path) -> None:
        self.domain = new_domain()
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.probe = Probe(self.domain)
        self.stops: list[Stop] = self.probe.listen(Stop, topics.STOP, qos.LATCHED)
        self.stop_times: list[float] = []
        self.probe.node.create_subscription(
            Stop, topics.STOP, lambda _: self.stop_times.append(time.monotonic()), qos.LATCHED
        )
        self.states: list[JointTrajectoryControllerState] = self.probe.listen(
            JointTrajectoryControllerState, CONTROLLER.state_topic, qos.SENSOR
        )
        self.commands: list[JointTrajectory] = self.probe.listen(
            JointTrajectory, CONTROLLER.joint_trajectory_topic, qos.COMMAND
        )
        self.diagnostics: list[DiagnosticArray] = self.probe.listen(DiagnosticArray, topics.DIAGNOSTICS, qos.EVENT)

    def launch(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Starts one node; words are given to it."""
        kind = NODES.get(name)
        module = ["act2goal_ros.nodes.supervisor"] if kind is None else ["nodes_under_test.managed", kind]
        variables = {**os.environ, "ROS_DOMAIN_ID": str(self.domain), "PYTHONPATH": f"{ROOT}:{ROOT / 'test'}"}
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", *module, "--ros-args", "-r", f"__node:={name}", *words]
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=variables, preexec_fn=die_with_parent
            )
        return self.processes[name]

    def supervise(self) -> subprocess.Popen[bytes]:
        """Starts the supervisor."""
        return self.launch("supervisor", "-p", f"nodes:=[{', '.join(NODES)}]")

    @property
    def stop(self) -> tuple[bool, int, str]:
        """The newest stop."""
        stop = self.stops[-1] if self.stops else Stop(active=True)
        return stop.active, stop.reason.value, stop.detail

    def wait_stop(self, active: bool, reason: int = StopReason.NONE, limit: float = 20.0) -> str:
        """Waits for a stop of that reason, or for none; returns the detail."""
        wait_for(lambda: self.stop[:2] == (active, reason), limit, f"stop {active} {reason}, is {self.stop}")
        return self.stop[2]

    def speed(self) -> float:
        """The fastest joint of the newest reference, rad/s."""
        return max(map(abs, self.states[-1].reference.velocities)) if self.states else 0.0

    def button(self, profile: QoSProfile) -> Any:
        """Another publisher of the emergency stop, heard by the supervisor."""
        publisher = self.probe.node.create_publisher(Bool, topics.E_STOP, profile)
        wait_for(publisher.get_subscription_count, 10.0, "the supervisor")
        return publisher

    def kill(self, name: str) -> float:
        """SIGKILL; returns when."""
        when = time.monotonic()
        self.processes[name].kill()
        self.processes[name].wait()
        return when

    def set_parameter(self, node: str, name: str, value: ParameterValue) -> Any:
        """Sets a parameter; returns the result."""
        client = self.probe.node.create_client(SetParameters, f"{node}/set_parameters")
        assert client.wait_for_service(10.0)
        future = client.call_async(SetParameters.Request(parameters=[Parameter(name=name, value=value)]))
        wait_for(future.done, 10.0, "set_parameters")
        return future.result().results[0]

    def close(self) -> None:
        """Ends everything; all must end cleanly by themselves."""
        codes = {}
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        self.probe.close()
        assert set(codes.values()) <= {0}, codes


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """The graph, up; its tests follow one another like a day's work."""
    graph = Graph(tmp_path_factory.mktemp("graph"))
    for name in NODES:
        graph.launch(name)
    graph.supervise()
    yield graph
    graph.close()


def _text(text: str) -> ParameterValue:
    return ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=text)


def test_a_node_that_cannot_be_configured_is_named_and_tried_again(graph: Graph) -> None:
    wait_for(lambda: "no model here" in graph.stop[2], 40.0, f"reason, is {graph.stop}")
    assert graph.stop == (True, StopReason.INACTIVE, "goal is unconfigured: cannot be configured: no model here")
    result = graph.set_parameter("goal", "mode", _text("quick"))
    assert not result.successful and result.reason == "parameter mode = 'quick' is none of slow | fast"
    assert graph.set_parameter("goal", "mode", _text("fast")).successful
    graph.wait_stop(False)
    assert {name: graph.probe.values(name)["state"] for name in NODES} == dict.fromkeys(NODES, "active")


def test_diagnostics_carry_a_status_of_every_node(graph: Graph) -> None:
    names = wait_for(lambda: graph.diagnostics and {s.name for s in graph.diagnostics[-1].status}, 5.0, "diagnostics")
    assert names == {f"/{name}" for name in (*NODES, "arm")}
    wait_for(lambda: all(s.level == DiagnosticStatus.OK for s in graph.diagnostics[-1].status), 5.0, "all OK")


def test_when_the_policy_is_killed_in_motion_the_supervisor_brakes(graph: Graph) -> None:
    wait_for(lambda: graph.speed() > 0.9, 15.0, "motion")
    sent = len(graph.commands)
    killed = graph.kill("policy")
    detail = graph.wait_stop(True, StopReason.NODE_LOST)
    assert detail == f"policy ended (process {graph.processes['policy'].pid})"
    assert graph.stop_times[-1] - killed < 0.5  # 0.02 s on an idle machine; tests share theirs with others
    wait_for(lambda: graph.speed() < 1e-3, 5.0, "rest")
    assert len(graph.commands) == sent + 1
    (braking,) = graph.commands[sent:]
    moving = [s for s in graph.states if seconds(s.header.stamp) < seconds(braking.header.stamp)][-1]
    positions, velocities = moving.reference.positions[1:], moving.reference.velocities[1:]  # without the rail
    carried = np.array(positions) + np.array(velocities) * (
        seconds(braking.header.stamp) - seconds(moving.header.stamp)
    )
    assert np.abs(carried - braking.points[0].positions).max() < 0.002, "the stop continues the motion"
    assert seconds(braking.points[-1].time_from_start) < 0.35, "1 rad/s at 10 rad/s² and 100 rad/s³ takes 0.2 s"


def test_a_respawned_node_is_brought_up_and_the_graph_goes_on(graph: Graph) -> None:
    graph.launch("policy")
    graph.wait_stop(False)
    assert graph.probe.values("policy")["state"] == "active"


def test_a_hung_node_stops_the_arm_until_it_moves_again(graph: Graph) -> None:
    process = graph.processes["msth"]
    process.send_signal(signal.SIGSTOP)
    detail = graph.wait_stop(True, StopReason.NODE_LOST)
    assert detail == "msth hangs or is cut off: no heartbeat for 0.5 s"
    process.send_signal(signal.SIGCONT)
    graph.wait_stop(False)


@pytest.mark.parametrize("profile", [qos.EVENT, qos.LATCHED, qos.SENSOR], ids=["reliable", "latched", "best-effort"])
def test_the_emergency_stop_however_it_is_published(graph: Graph, profile: QoSProfile) -> None:
    graph.wait_stop(False)
    button = graph.button(profile)
    button.publish(Bool(data=True))
    assert graph.wait_stop(True, StopReason.E_STOP) == "emergency stop pressed"
    button.publish(Bool(data=False))
    graph.wait_stop(False)
    graph.probe.node.destroy_publisher(button)


def test_a_supervisor_that_is_deactivated_stops_the_arm(graph: Graph) -> None:
    graph.wait_stop(False)
    client = graph.probe.node.create_client(ChangeState, topics.change_state("supervisor"))
    assert client.wait_for_service(10.0)
    for transition, active in ((Transition.TRANSITION_DEACTIVATE, True), (Transition.TRANSITION_ACTIVATE, False)):
        future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        wait_for(future.done, 10.0, "change_state")
        assert future.result().success
        detail = graph.wait_stop(active, StopReason.INACTIVE if active else StopReason.NONE)
        assert not active or detail == "the supervisor is not active"


def test_when_the_supervisor_is_killed_its_successor_takes_over(graph: Graph) -> None:
    graph.kill("supervisor")
    before = len(graph.stops)
    graph.supervise()
    wait_for(lambda: len(graph.stops) > before, 20.0, "successor")
    graph.wait_stop(False)


def test_a_second_launch_in_the_namespace_is_refused(graph: Graph) -> None:
    first = graph.processes["supervisor"]
    second = graph.supervise()
    graph.processes["supervisor"] = first
    assert second.wait(20.0) == 3
    text = (graph.folder / "supervisor.log").read_text()
    assert f"/supervisor runs already in ROS domain {graph.domain} (process {first.pid}): stop that launch" in text


def test_a_second_graph_on_another_machine_is_refused(graph: Graph) -> None:
    older = NodeStatus(node="supervisor", level=NodeStatus.OK)
    values = {"state": "active", "pid": "4711", "machine": "elsewhere", "instance": "0", "since": "1.0"}
    older.values = [_pair(key, value) for key, value in values.items()]
    graph.probe.advertise(NodeStatus, topics.STATUS, qos.STATUS)
    graph.probe.wait_for_subscribers(topics.STATUS)
    graph.probe.publish(topics.STATUS, older)
    assert graph.processes.pop("supervisor").wait(20.0) == 3
    text = (graph.folder / "supervisor.log").read_text()
    assert "another graph runs in namespace /: its supervisor is process 4711" in text


def _pair(key: str, value: str) -> Any:
    from diagnostic_msgs.msg import KeyValue

    return KeyValue(key=key, value=value)


def test_a_peer_that_is_not_active_is_lost() -> None:
    """Of a successor that cannot be configured, heartbeats alone are no supervision."""
    heard: list[Any] = []
    lost: list[str] = []
    node = SimpleNamespace(create_subscription=lambda kind, topic, callback, *_, **__: heard.append(callback),
                           create_timer=lambda *_, **__: None)  # fmt: skip
    peer = Peer(node, "supervisor", lost.append)  # type: ignore[arg-type]

    def beat(state: str) -> None:
        values = {"state": state, "instance": "i", "pid": str(os.getpid()), "machine": "elsewhere"}
        pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
        heard[0](serialize_message(NodeStatus(node="supervisor", values=pairs)))

    beat("unconfigured")
    assert not peer.heard and not lost
    beat("active")
    assert peer.heard and not peer.lost
    beat("inactive")
    beat("inactive")
    assert peer.lost == "supervisor: inactive" and lost == [peer.lost]
    beat("active")
    assert not peer.lost
    peer._watch.close()
