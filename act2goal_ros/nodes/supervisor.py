"""Brings the graph up, watches it, and stops the arm when something is wrong.

topics in: status, e_stop, <controller>/controller_state, <controller>/joint_trajectory, commanded/joint_trajectory
topics out: stop (latched), /diagnostics, <controller>/joint_trajectory (a braking trajectory, when nobody else brakes)
services used: <node>/change_state of every managed node
parameters: see SupervisorParameters
"""

from __future__ import annotations

import functools
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from act2goal_msgs.msg import NodeStatus, Stop
from act2goal_msgs.msg import StopReason as StopReasonMsg
from control_msgs.msg import JointTrajectoryControllerState
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.client import Client
from rclpy.clock import Clock, ClockType
from rclpy.serialization import deserialize_message
from rclpy.task import Future
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros.control import oversight, presence
from act2goal_ros.control.brake import Brake
from act2goal_ros.control.inputs import SpeedSeen
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason
from act2goal_ros.nodes import e_stop, qos, topics, trajectories
from act2goal_ros.nodes.base import ManagedNode, run, values_of
from act2goal_ros.nodes.parameters import NodeParameters, param

SETTLE = 0.7  # s in which another supervisor of the namespace is heard before anything is driven
STAMPED = 12  # bytes at the head of a serialized heartbeat: encapsulation and stamp
MOST_REPORTS = 200
TRANSITIONS = {
    oversight.CONFIGURE: Transition.TRANSITION_CONFIGURE,
    oversight.ACTIVATE: Transition.TRANSITION_ACTIVATE,
}


@dataclass(frozen=True, kw_only=True)
class SupervisorParameters(NodeParameters):
    """Parameters of the supervisor."""

    robot: str = param("ur5e_sim", "", "robot: a file, or a name in config/robots")
    nodes: tuple[str, ...] = param(
        ("simulated_arm", "goal", "imagination", "msth", "policy", "rollouts"),
        "",
        "managed nodes in the order in which they are activated",
    )
    rate: float = param(20.0, "Hz", "how often everything is checked", low=10.0, high=50.0)
    heartbeat_timeout: float = param(0.5, "s", "silence after which a node counts as lost", low=0.2, high=10.0)
    controller_timeout: float = param(0.5, "s", "silence after which the controller counts as lost", low=0.1, high=10.0)
    tracking_error: float = param(
        0.0, "rad", "largest difference of a joint from its reference; 0: as the robot's file says", low=0.0, high=3.14
    )
    clock_jump: float = param(0.05, "s", "largest step of the clock", low=0.01, high=10.0)
    recovery_time: float = param(0.5, "s", "how long a cause must be gone before the arm may move", low=0.0, high=60.0)
    retry_period: float = param(2.0, "s", "pause after a failed transition", low=0.1, high=60.0)
    transition_timeout: float = param(120.0, "s", "longest transition of a node", low=1.0, high=3600.0)
    brake_patience: float = param(0.05, "s", "time the policy has to brake by itself", low=0.0, high=1.0)

    def limits(self, robot: RobotConfig) -> oversight.OversightLimits:
        """What of it concerns the oversight."""
        limits = {name: getattr(self, name) for name in oversight.OversightLimits.__dataclass_fields__}
        limits["tracking_error"] = self.tracking_error or robot.controller.tracking_error
        return oversight.OversightLimits(**limits)


class Supervisor(ManagedNode[SupervisorParameters]):
    """The supervisor node; it comes up by itself."""

    def __init__(self) -> None:
        super().__init__("supervisor", SupervisorParameters, autostart=True)
        self._verdict = oversight.Verdict(False)

    def setup(self) -> None:
        robot = RobotConfig.load(self.p.robot)
        self._oversight = oversight.Oversight(self.p.nodes, self.p.limits(robot))
        self._brake = Brake(robot.limits)
        self._joint_names = robot.joint_names
        self._controller_state = b""  # as received: unpacked when needed, not at the rates of controller and policy
        self._controller_new, self._speed = False, SpeedSeen()
        self._reports: dict[bytes, oversight.Report] = {}  # by what a heartbeat says: most say the same as the last
        self._commands: deque[tuple[bytes, float]] = deque(maxlen=4)
        self._started = self._stopped_at = time.monotonic()
        self._watch = self.own(presence.ProcessWatch(self._process_ended))
        self._changers: dict[str, Client[Any, Any]] = {
            name: self.own(self.create_client(ChangeState, topics.change_state(name))) for name in self.p.nodes
        }
        self._stop = self.own(self.create_publisher(Stop, topics.STOP, qos.LATCHED))
        self._diagnostics = self.own(self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, qos.EVENT))
        trajectory, state = robot.controller.joint_trajectory_topic, robot.controller.state_topic
        self._trajectory = self.own(self.create_publisher(JointTrajectory, trajectory, qos.COMMAND))
        self._listen(trajectory, state)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.own(self.create_timer(1.0 / self.p.rate, self._tick, clock=steady))
        self.own(self.create_timer(1.0, self._publish_diagnostics, clock=steady))

    def _listen(self, trajectory: str, state: str) -> None:
        self.own(self.create_subscription(NodeStatus, topics.STATUS, self._status, qos.STATUS, raw=True))
        e_stop.listen(self, self._e_stop)
        self.own(self.create_subscription(JointTrajectoryControllerState, state, self._state, qos.SENSOR, raw=True))
        self.own(self.create_subscription(JointTrajectory, trajectory, self._commanded, qos.COMMAND, raw=True))
        self.own(self.create_subscription(JointTrajectory, topics.COMMANDED, self._commanded, qos.COMMAND, raw=True))

    def start(self) -> None:
        self._verdict = oversight.Verdict(True, StopReason.INACTIVE, "the supervisor has just started")
        self._publish_stop()
        self._tell()

    def halt(self) -> None:
        self._verdict = oversight.Verdict(True, StopReason.INACTIVE, "the supervisor is not active")
        self._publish_stop()

    # callbacks

    def _status(self, raw: bytes) -> None:
        report = self._reports.get(raw[STAMPED:])
        if report is None:
            report = _report(deserialize_message(raw, NodeStatus))
            self._reports[raw[STAMPED:]] = report
            if len(self._reports) > MOST_REPORTS:
                self._reports.clear()
        if report.node == self.get_name():
            self._meet_supervisor(report)
        elif self._oversight.heard(report, time.monotonic()):
            self._watch.watch(report.instance, report.pid, report.machine)
        elif report.stop_reason or report.level == NodeStatus.ERROR:
            self._decide()

    def _meet_supervisor(self, other: oversight.Report) -> None:
        mine = self.identity
        if (other.since, other.instance) < (float(mine["since"]), mine["instance"]):
            namespace = self.get_namespace()
            self.fault = presence.NameTaken(
                f"another graph runs in namespace {namespace}: its supervisor is process {other.pid}; "
                "stop that launch first, or give this one a namespace of its own"
            )

    def _process_ended(self, instance: str) -> None:
        def decide() -> None:
            if name := self._oversight.ended(instance):
                self._decide(at_once=name == "policy")

        self.soon(decide)

    def _e_stop(self, button: Bool) -> None:
        self._oversight.e_stop(button.data)
        self._decide()

    def _state(self, raw: bytes) -> None:
        self._controller_state, self._controller_new = raw, True

    def _commanded(self, raw: bytes) -> None:
        self._commands.append((raw, self.now()))

    def _tick(self) -> None:
        now = time.monotonic()
        self._read_controller(now)
        self._oversight.tick(now, self.now(), 1.0 / self.p.rate, self.get_parameter("use_sim_time").value)
        self._decide()
        self._drive(now)

    # private helpers

    def _read_controller(self, now: float) -> None:
        if not self._controller_new:
            return
        self._controller_new = False
        state = deserialize_message(self._controller_state, JointTrajectoryControllerState)
        names, reference = list(state.joint_names), state.reference
        self._oversight.controller(dict(zip(names, trajectories.tracking_errors(state), strict=True)), now)
        if not set(self._joint_names) <= set(names):
            return
        order = [names.index(name) for name in self._joint_names]
        q, v, a = (
            np.array(values)[order] if len(values) == len(names) else np.zeros(len(order))
            for values in (reference.positions, reference.velocities, reference.accelerations)
        )
        if len(reference.positions) == len(names):
            speed = self._speed.update(state.speed_scaling_factor, q)
            self._brake.reference(trajectories.seconds(state.header.stamp), q, v, a, speed)

    def _decide(self, at_once: bool = False) -> None:
        """Publishes a changed verdict; brakes when the arm still moves although it must not."""
        now = time.monotonic()
        verdict = self._oversight.verdict(now)
        if not self.is_active:
            return
        new = verdict != self._verdict
        if new:
            if verdict.active and not self._verdict.active:
                self._stopped_at = now
            self._verdict = verdict
            self._publish_stop()
        if verdict.active and (at_once or now - self._stopped_at > self.p.brake_patience):
            self._read_controller(now)
            self._brake_if_moving()
        if new:
            self._tell()

    def _brake_if_moving(self) -> None:
        if self._brake.at_rest:
            return
        while self._commands:
            message, received = self._commands.popleft()
            trajectory = trajectories.from_message(
                deserialize_message(message, JointTrajectory), self._joint_names, received
            )
            if trajectory is not None:
                self._brake.commanded(trajectory)
        braking = self._brake.trajectory(self.now())
        if braking is not None:
            self._trajectory.publish(trajectories.to_message(braking, self._joint_names))
            self.count("braked_from_here")

    def _publish_stop(self) -> None:
        verdict = self._verdict
        message = Stop(active=verdict.active, reason=StopReasonMsg(value=int(verdict.reason)), detail=verdict.detail)
        message.header.stamp = self.get_clock().now().to_msg()
        self._stop.publish(message)

    def _tell(self) -> None:
        verdict = self._verdict
        log = self.get_logger()  # one call a severity: rclpy ties a call's place in the code to its severity
        if verdict.active and verdict.reason == StopReason.INACTIVE:
            log.info(f"not ready: {verdict.detail}")
        elif verdict.active:
            log.warning(f"stop: {verdict.reason.name}: {verdict.detail}")
        else:
            log.info("all is well: the arm may move")
        said = f"{verdict.reason.name}: {verdict.detail}" if verdict.active else "the arm may move"
        self.report(NodeStatus.WARN if verdict.active else NodeStatus.OK, said)

    def _drive(self, now: float) -> None:
        """Asks for the transitions that are due."""
        if self.is_active and now - self._started > SETTLE:
            for name, step in self._oversight.transitions(now):
                self._change(name, step)

    def _change(self, name: str, step: str) -> None:
        client = self._changers[name]
        if not client.service_is_ready():
            self._oversight.transition_done(name, False, time.monotonic())
            return
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[step]))
        instance = self._oversight.instance_of(name)
        client.call_async(request).add_done_callback(functools.partial(self._changed, name, step, instance))

    def _changed(self, name: str, step: str, instance: str, future: Future[Any]) -> None:
        if self._oversight.instance_of(name) != instance or future.cancelled():
            return
        success = bool(future.result() is not None and future.result().success)
        self.get_logger().info(f"{name}: {step} {'done' if success else 'failed'}")
        self._oversight.transition_done(name, success, time.monotonic())
        self._drive(time.monotonic())

    def _publish_diagnostics(self) -> None:
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        levels = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE)
        prefix = self.get_namespace().rstrip("/") + "/"
        for name, level, message, values in self._oversight.summary(self._verdict):
            pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
            array.status.append(
                DiagnosticStatus(
                    level=levels[level], name=prefix + name, message=message, hardware_id=self.p.robot, values=pairs
                )
            )
        self._diagnostics.publish(array)


def _report(status: NodeStatus) -> oversight.Report:
    values = values_of(status)
    return oversight.Report(
        node=status.node,
        instance=values.get("instance", ""),
        pid=int(values.get("pid", 0)),
        machine=values.get("machine", ""),
        since=float(values.get("since", 0.0)),
        state=values.get("state", ""),
        level=status.level,
        stop_reason=status.stop_reason.value,
        message=status.message,
        values=values,
    )


def main() -> None:
    run(Supervisor)


if __name__ == "__main__":
    main()
