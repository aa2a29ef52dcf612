"""Turns camera frames, plans and selections into commands for the arm: the only node that moves it.

subscribes: image_raw, joint_states, plan, plan_features, selection, goal, stop, e_stop, <controller>/controller_state, status, adapter.
publishes: <controller>/joint_trajectory at command_rate (short, each ending at rest), the gripper's command, live_latent and
chunk for every frame, control_status at a fifth of the command rate and on change.
action used: <controller>/follow_joint_trajectory instead of the topic, with command_interface `action`; see outlet.py.
services used: <controller>/get_parameters, to learn how it replaces trajectories.
Frames are inferred on in a thread of its own; the newest counts, dropped ones are counted.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

from act2goal_msgs.msg import Chunk, ControlStatus, Goal, LiveLatent, Stop
from control_msgs.msg import JointTrajectoryControllerState
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool

from act2goal_ros import paths
from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.executive import Decision, Executive, State, settings_from
from act2goal_ros.control.inference import InferenceWorker, Job, Result
from act2goal_ros.control.join import JOINS
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason
from act2goal_ros.control.watchdog import read_together
from act2goal_ros.nodes import e_stop, qos, topics, trajectories
from act2goal_ros.nodes import policy_messages as messages
from act2goal_ros.nodes.adapters import AdapterInlet
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.gripper import make_gripper
from act2goal_ros.nodes.images import ImageError, check_for_model, to_rgb
from act2goal_ros.nodes.outlet import INTERFACES, make_outlet
from act2goal_ros.nodes.parameters import NodeParameters, niceness, param
from act2goal_ros.nodes.peer import Peer
from act2goal_ros.nodes.plans import PlanInlet
from act2goal_ros.nodes.replacement import UNKNOWN, Replacement
from act2goal_ros.nodes.restartable import RestartableTimer
from act2goal_ros.serving import BACKENDS, PRECISION, PRECISIONS
from act2goal_ros.serving.bundle import ModelBundle

SUPERVISOR = "supervisor"
SPLICE_LEAD = 0.02  # s; a splice that arrives after its stamp shifts all that follows


@dataclass(frozen=True, kw_only=True)
class PolicyParameters(NodeParameters):
    """Parameters of the policy node."""

    nice: int = niceness(-10)
    robot: str = param("ur5e_sim", "", "robot: a file, or a name in config/robots")
    model: str = param("act2goal-tiny", "", "name in models/ or path of a model's folder")
    backend: str = param("auto", "", "what runs the networks; auto: the best that works", choices=BACKENDS)
    precision: str = param(PRECISION, "", "inside TensorRT's engines; the other backends compute in float32", choices=PRECISIONS)
    threads: int = param(1, "", "threads of the networks", low=1, high=64)
    command_interface: str = param("topic", "", "of the controller: its topic, or its action with results", choices=INTERFACES)
    command_rate: float = param(50.0, "Hz", "commands a second, and how often everything is checked", low=20.0, high=250.0)
    action_rate: float = param(20.0, "Hz", "goals a second while no new chunk comes, with the action", low=10.0, high=250.0)
    inference_period: float = param(0.0, "s", "least time between chunks; 0: every camera frame", low=0.0, high=1.0)
    join: str = param("prefix", "", "of chunks: the policy is told what is committed, chunks are averaged, or both, or none", choices=JOINS)
    lead: float = param(0.01, "s", "to the first new point; to splice ≥ 0.02 and longer than messages take", low=0.0, high=0.2)
    horizon: float = param(0.08, "s", "of motion in a command before its braking tail", low=0.02, high=0.5)
    image_timeout: float = param(0.15, "s", "age at which a camera frame is stale", low=0.02, high=5.0)
    joint_states_timeout: float = param(0.1, "s", "age at which joint states are stale", low=0.01, high=5.0)
    controller_timeout: float = param(0.25, "s", "age at which the controller counts as lost", low=0.02, high=5.0)
    delay_budget: float = param(0.3, "s", "longest time from a camera frame to its chunk", low=0.02, high=2.0)
    command_error: float = param(0.1, "rad", "largest distance of reference and command", low=0.01, high=3.14)
    clock_jump: float = param(0.05, "s", "largest step of the clock", low=0.01, high=10.0)
    recovery_time: float = param(0.5, "s", "how long a fault must be gone before the arm moves", low=0.0, high=60.0)

    def __post_init__(self) -> None:
        if self.lead + self.horizon > 0.1 + 1e-9:
            total = self.lead + self.horizon
            raise ValueError(f"lead + horizon is {total:g} s, at most 0.1 s: by then the arm brakes by itself")
        longest = self.command_period + 1.0 / self.command_rate
        if self.command_interface == "action" and longest > self.lead + self.horizon:
            total = self.lead + self.horizon
            raise ValueError(f"at action_rate {self.action_rate:g} Hz goals are up to {longest:g} s apart, and brake after {total:g} s")

    @property
    def command_period(self) -> float:
        """Least time between commands that say nothing new, s; 0: one in every tick."""
        return 1.0 / self.action_rate if self.command_interface == "action" else 0.0


class PolicyNode(ManagedNode[PolicyParameters]):
    """Feeds an Executive and an InferenceWorker, and sends what they decide."""

    def __init__(self, load: Any = ModelBundle.load) -> None:
        super().__init__("policy", PolicyParameters)
        self._load = load
        self._worker: InferenceWorker | None = None

    # lifecycle

    def setup(self) -> None:
        self._robot = robot = RobotConfig.load(self.p.robot)
        bundle = self._load(paths.model(self.p.model), robot=robot.name)
        messages.check_joints(bundle, robot)
        self._model_hash, self._step, self._image_size = bundle.hash, bundle.step, bundle.image_size
        stepped = bool(self.get_parameter("use_sim_time").value)
        settings = settings_from(self.p, robot, stepped)
        self._executive = Executive(robot, settings, self._step, bundle.config.most_given, self.p.join)
        self._policy = bundle.policy(self.p.backend, self.p.threads, self.p.precision)
        self.get_logger().info(str(self._policy.served))
        messages.warm_up(bundle, self._policy)
        self._worker = InferenceWorker(self._policy, self._encoded, self._inferred, self._inference_failed)
        AdapterInlet(self, self._policy, bundle)
        PlanInlet(self, self._executive.inputs.plans, bundle.hash, self._worker.prepare)
        self._rates, self._said, self._beats = messages.Rates(max(self.p.command_period, 1.0 / self.p.command_rate)), None, 0
        self._last_frame = -1e9
        self._controller_state = b""
        self._gripper = make_gripper(self, robot.gripper)
        p, failed = self.p, self._command_failed
        self._outlet = self.own(make_outlet(self, robot, p.command_interface, p.controller_timeout, failed))
        self._create_publishers()
        self._create_subscriptions(robot)
        self._executive.inputs.stop_asked("controller", StopReason.CONTROLLER_LOST, UNKNOWN.format(robot.controller))
        self.own(Replacement(self, robot.controller, self._mode_known))
        self._supervisor = self.own(Peer(self, SUPERVISOR, self._supervisor_lost))
        self._timer = self.own(RestartableTimer(self, 1.0 / self.p.command_rate, self._tick))

    def start(self) -> None:
        self._executive.stop()
        self._executive.inputs.stop_asked("self", StopReason.NONE)
        self._timer.restart()

    def halt(self) -> None:
        self._timer.cancel()
        self._executive.inputs.stop_asked("self", StopReason.INACTIVE, "the policy is not active")
        self._send(self._executive.tick(*read_together(self.now)))
        self._outlet.forget()

    def teardown(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    # callbacks

    def _on_image(self, message: Image) -> None:
        now, inputs = self.now(), self._executive.inputs
        if not self.is_active or self._worker is None:
            return
        try:
            image = to_rgb(message)
            check_for_model(image, self._image_size)
        except ImageError as error:
            inputs.bad_image(f"{self._robot.camera.topic}: {error}")
            return
        stamp = trajectories.seconds(message.header.stamp)
        monotonic = time.monotonic()
        if not inputs.image(stamp, now, monotonic) or monotonic - self._last_frame < self.p.inference_period:
            return
        if not inputs.goal_id:
            return
        self._last_frame = monotonic
        request = self._executive.request(stamp, now, monotonic)
        if not self._worker.submit(Job(stamp, image, request, message.header, now)):
            self._rates.missed += 1
            self.count("frame_replaced")

    def _on_joint_states(self, message: JointState) -> None:
        now = self.now()
        stamp = trajectories.seconds(message.header.stamp) or now
        self._executive.inputs.joint_states(stamp, message.name, message.position, message.velocity, now, time.monotonic())

    def _on_controller_state(self, raw: bytes) -> None:
        self._controller_state = raw  # unpacked once a tick

    def _on_goal(self, message: Goal) -> None:
        why_not = messages.WHY_NOT.get(message.state, (StopReason.NONE, ""))
        self._executive.inputs.goal(message.goal_id, message.state == Goal.ACTIVE, why_not)

    def _on_stop(self, message: Stop) -> None:
        reason = StopReason.of_stop(message.reason.value) if message.active else StopReason.NONE
        self._executive.inputs.stop_asked("supervisor", reason, message.detail)
        self._tick_at_once()

    def _on_e_stop(self, message: Bool) -> None:
        reason = StopReason.E_STOP if message.data else StopReason.NONE
        self._executive.inputs.stop_asked("e_stop", reason, "emergency stop pressed")
        self._tick_at_once()

    def _supervisor_lost(self, detail: str) -> None:
        self._executive.inputs.peer_lost(detail)
        self._tick_at_once()

    def _mode_known(self, mode: str, text: str, warn: bool) -> None:
        (self.get_logger().warning if warn else self.get_logger().info)(text)
        self._executive.cover_now = mode != "splice"
        self._executive.lead = self.p.lead if self._executive.cover_now else max(self.p.lead, SPLICE_LEAD)
        self._executive.inputs.stop_asked("controller", StopReason.NONE)

    def _command_failed(self, reason: StopReason, detail: str, halted: bool) -> None:
        self._executive.controller_failed(reason, detail, halted)
        self._tick_at_once()

    # from the worker's thread

    def _encoded(self, result: Result) -> None:
        self._latent.publish(messages.latent(result, self._model_hash))

    def _inferred(self, result: Result) -> None:
        chunk = ActionChunk(result.job.stamp, self._step, result.output.positions, result.output.gripper)
        self.soon(functools.partial(self._adopt, result, chunk))

    def _inference_failed(self, detail: str) -> None:
        self.soon(functools.partial(self._executive.model_failed, detail))

    # private helpers

    def _adopt(self, result: Result, chunk: ActionChunk) -> None:
        """The command first, then everything else."""
        if self._worker is None:  # cleaned up while this was on its way
            return
        self._rates.chunk(time.monotonic(), result.seconds)
        number, commanded = self._rates.next_chunk(), 0.0
        if result.job.request is not None and self._executive.chunk_made(result.job.request, chunk, self.now()) and self.is_active:
            self._timer.restart()
            commanded = self._decide() - chunk.stamp
            self._read_controller()
        self._chunk.publish(messages.chunk(result, chunk, self._executive.inputs.goal_id, self._robot, number, commanded))

    def _tick_at_once(self) -> None:
        if self.is_active:
            self._timer.restart()
            self._tick()

    def _tick(self) -> None:
        self._read_controller()
        self._decide()

    def _read_controller(self) -> None:
        if self._controller_state:
            report = messages.controller_report(self._controller_state, self._robot.joint_names)
            self._controller_state = b""
            if report is not None:
                self._executive.inputs.controller(report, time.monotonic())

    def _decide(self) -> float:
        """Decides, sends and tells; returns when it was sent."""
        if self._supervisor.heard and not self._supervisor.lost:
            self._executive.inputs.peer_lost("")
        if (cause := self._outlet.cause())[0]:
            self._executive.controller_failed(*cause)
        decision = self._executive.tick(*read_together(self.now))
        self._send(decision)
        sent = self.now()
        self._tell(decision)
        return sent

    def _send(self, decision: Decision) -> None:
        if decision.trajectory is not None:
            self._outlet.send(decision.trajectory, stops=decision.state != State.RUNNING)
            self._rates.command(time.monotonic())
        elif decision.state != State.RUNNING:
            self._rates.no_command()
        if decision.gripper is not None:
            self._gripper.command(decision.gripper, time.monotonic())

    def _tell(self, decision: Decision) -> None:
        """Publishes control_status on every fifth tick and on change, the heartbeat's text on change and now and then."""
        said = (decision.state, decision.reason)
        changed, self._said, self._beats = said != self._said, said, self._beats + 1
        if changed or self._beats % 5 == 0:
            drops = self._executive.inputs.drops + self._drops
            self._status.publish(messages.control_status(self._executive, self._rates, self._policy, drops, self.now()))
        if changed or self._beats % 25 == 0:
            level, text, reason, values = messages.heartbeat(decision, self._rates)
            self.report(level, text, reason, **values, **self._outlet.values())

    def _create_publishers(self) -> None:
        self._latent = self.own(self.create_publisher(LiveLatent, topics.LIVE_LATENT, qos.SENSOR))
        self._chunk = self.own(self.create_publisher(Chunk, topics.CHUNK, qos.COMMAND))
        self._status = self.own(self.create_publisher(ControlStatus, topics.CONTROL_STATUS, qos.COMMAND))

    def _create_subscriptions(self, robot: RobotConfig) -> None:
        for kind, topic, callback, profile in (
            (Image, robot.camera.topic, self._on_image, qos.SENSOR),
            (JointState, robot.joint_states_topic, self._on_joint_states, qos.SENSOR),
            (Goal, topics.GOAL, self._on_goal, qos.LATCHED),
            (Stop, topics.STOP, self._on_stop, qos.LATCHED),
        ):
            self.own(self.create_subscription(kind, topic, callback, profile))
        e_stop.listen(self, self._on_e_stop)
        # Unpacked once a tick, not at the controller's rate.
        kind, topic = JointTrajectoryControllerState, robot.controller.state_topic
        self.own(self.create_subscription(kind, topic, self._on_controller_state, qos.SENSOR, raw=True))


def main() -> None:
    run(PolicyNode)


if __name__ == "__main__":
    main()
