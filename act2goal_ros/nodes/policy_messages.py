"""Messages of the policy node, and what it checks in and counts for them."""

from __future__ import annotations

import array
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from act2goal_msgs.msg import Chunk, ControlStatus, FrameSelection, Goal, LiveLatent, NodeStatus, PlanFeatures
from act2goal_msgs.msg import StopReason as StopReasonMsg
from control_msgs.msg import JointTrajectoryControllerState
from diagnostic_msgs.msg import KeyValue
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from rclpy.time import Time

from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.executive import Decision, Executive, State
from act2goal_ros.control.inference import Proprio, Result
from act2goal_ros.control.inputs import ControllerReport
from act2goal_ros.control.planbook import Selected
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason
from act2goal_ros.control.watchdog import Durations, Periods, Rate
from act2goal_ros.nodes.trajectories import seconds, tracking_errors
from act2goal_ros.serving.bundle import ModelError

FINE = (StopReason.NONE, StopReason.NO_GOAL, StopReason.GOAL_REACHED, StopReason.CANCELED)
WHY_NOT = {
    Goal.NONE: (StopReason.NO_GOAL, "no goal"),
    Goal.REACHED: (StopReason.GOAL_REACHED, "goal reached"),
    Goal.CANCELED: (StopReason.CANCELED, "goal canceled"),
    Goal.FAILED: (StopReason.NO_GOAL, "the goal failed"),
}


class Rates:
    """What the node counts: chunks, commands, durations; missed frames, and missed periods (s) of commands."""

    def __init__(self, period: float) -> None:
        self.chunks, self.commands = Rate(), Rate()
        self.inference = Durations()
        self.periods = Periods(period)
        self.ticks = self.missed = self.sent = self.chunk_id = 0

    def next_chunk(self) -> int:
        """Number of a new chunk."""
        self.chunk_id += 1
        return self.chunk_id

    def chunk(self, now: float, duration: float) -> None:
        """An inference ended after `duration` s."""
        self.ticks += 1
        self.chunks.event(now)
        self.inference.add(duration)

    def command(self, now: float) -> None:
        """A trajectory was sent."""
        self.sent += 1
        self.commands.event(now)
        self.periods.published(now)

    def no_command(self) -> None:
        """There was nothing to send."""
        self.periods.pause()


def check_joints(bundle: Any, robot: RobotConfig) -> None:
    """Raises ModelError unless the model's joints are the robot's, in order."""
    if tuple(bundle.joint_names) != robot.joint_names:
        has, wants = ", ".join(robot.joint_names), ", ".join(bundle.joint_names)
        raise ModelError(f"model {bundle.name} is for joints {wants}; robot {robot.name} has {has}")


def warm_up(bundle: Any, policy: Any) -> None:
    """Runs every network once or twice, so that the first chunk comes as fast as the others; what fails then fails here."""
    config = bundle.config
    height, width = bundle.image_size
    frame = policy.observe(np.zeros((height, width, 3), np.uint8))
    frames = config.frames
    keys = policy.set_plan(np.zeros(config.served_features, np.float32))
    proprio = Proprio(np.zeros(config.joints), np.zeros(config.joints), 0.0)
    for _ in range(2):
        policy.act(keys, frame, proprio, np.ones(frames, np.bool_), np.arange(1.0, frames + 1), None)
    _ = frame.latent  # computed when asked for


def features(message: PlanFeatures) -> NDArray[np.float32] | None:
    """(L, F, T, W); None when they are not in the message or do not fit their shape."""
    values = np.frombuffer(message.data, np.float32)
    shape = tuple(message.shape)
    if message.handle or len(shape) != 4 or len(values) != np.prod(shape) or not np.isfinite(values).all():
        return None
    return values.reshape(shape)


def selected(message: FrameSelection) -> Selected:
    """A selection."""
    indices = np.array(message.frame_indices, np.int64)
    return Selected(message.plan_id, message.goal_id, indices, message.shift, seconds(message.valid_until))


def controller_report(raw: bytes, names: Sequence[str]) -> ControllerReport | None:
    """A controller's state in the robot's joint order; None when it is about other joints or carries no reference."""
    state = deserialize_message(raw, JointTrajectoryControllerState)
    known, reference = list(state.joint_names), state.reference
    if not set(names) <= set(known) or len(reference.positions) != len(known):
        return None
    order = [known.index(name) for name in names]
    q = np.array(reference.positions)[order]
    qd = np.array(reference.velocities)[order] if len(reference.velocities) == len(known) else np.zeros(len(order))
    error = np.array(tracking_errors(state))[order]
    if not (np.isfinite(q).all() and np.isfinite(qd).all()):
        return None
    worst = int(np.nanargmax(np.abs(np.nan_to_num(error, nan=np.inf))))
    return ControllerReport(seconds(state.header.stamp), q, qd, float(error[worst]), names[worst], state.speed_scaling_factor)


def latent(result: Result, model_hash: str) -> LiveLatent:
    """The latent of a camera frame."""
    message = LiveLatent(header=result.job.token, model_hash=model_hash, shape=list(result.latent.shape))
    message.data = _floats("f", result.latent.astype(np.float32))
    return message


def chunk(result: Result, actions: ActionChunk, goal_id: str, robot: RobotConfig, number: int, commanded: float) -> Chunk:
    """A chunk as it came from the policy; its first command was published `commanded` s after its stamp."""
    output, request = result.output, result.job.request
    message = Chunk(header=result.job.token, chunk_id=number, goal_id=goal_id, joint_names=list(robot.joint_names))
    message.dt = actions.dt
    message.positions = _floats("d", actions.positions)
    message.gripper = _floats("d", actions.gripper)
    message.distal_positions = _floats("d", output.distal[:, :-1])
    message.adapter_id = output.adapter_id
    message.command_ms = 1e3 * commanded
    message.inference_ms, message.arrival_ms = 1e3 * result.seconds, 1e3 * (result.job.arrival - result.job.stamp)
    if request is not None:
        message.plan_id = request.plan.plan_id
        message.prefix_steps = 0 if request.prefix is None else len(request.prefix)
        message.distal_offsets = _floats("d", request.plan.times[-len(output.distal) :] - result.job.stamp)
    return message


def control_status(executive: Executive, rates: Rates, policy: Any, drops: Counter[str], now: float) -> ControlStatus:
    """The state of control."""
    decision, inputs, newest = executive.decision, executive.inputs, executive.chunk
    q, qd = executive.commanded(now)
    monotonic = time.monotonic()
    message = ControlStatus(state=int(decision.state), stop_detail=decision.detail, goal_id=inputs.goal_id)
    message.stop_reason = StopReasonMsg(value=int(decision.reason))
    message.header.stamp = Time(nanoseconds=round((now if newest is None else newest.stamp) * 1e9)).to_msg()
    message.plan_id, message.plan_age = inputs.plans.newest(inputs.goal_id, now)
    message.chunk_id, message.backend, message.adapter_id = rates.chunk_id, policy.backend, policy.adapter_id
    message.tick_hz, message.command_hz = rates.chunks.hz(monotonic), rates.commands.hz(monotonic)
    message.tick_ms_p50, message.tick_ms_p99 = (1e3 * rates.inference.percentile(p) for p in (50, 99))
    delays = executive.delays
    message.delay_ms = 1e3 * delays.last
    message.delay_ms_p50, message.delay_ms_p99 = (1e3 * delays.percentile(p) for p in (50, 99))
    if newest is not None:
        message.chunk_age, message.queue_s = now - newest.stamp, max(newest.end - now, 0.0)
    message.scaling = executive.stream.scaling
    message.ticks, message.missed_ticks, message.commands = rates.ticks, rates.missed, rates.sent
    counted = {**drops, "command_missed": rates.periods.missed}
    message.drops = [KeyValue(key=cause, value=str(number)) for cause, number in counted.items()]
    message.commanded_positions, message.commanded_velocities = _floats("d", q), _floats("d", qd)
    message.commanded_gripper = executive.gripper
    message.at_rest = decision.state in (State.IDLE, State.HOLDING)
    return message


def heartbeat(decision: Decision, rates: Rates) -> tuple[int, str, int, dict[str, str]]:
    """Level, text, stop reason and values of the heartbeat."""
    level = NodeStatus.OK if decision.reason in FINE else NodeStatus.WARN
    text = decision.state.name.lower()
    if decision.reason:
        text += f": {decision.reason.name}: {decision.detail}"
    elif decision.detail:
        text += f": {decision.detail}"
    monotonic = time.monotonic()
    values = {"tick_hz": f"{rates.chunks.hz(monotonic):.1f}", "command_hz": f"{rates.commands.hz(monotonic):.1f}"}
    values["tick_ms_p99"] = f"{1e3 * rates.inference.percentile(99):.1f}"
    counted = {"missed_ticks": rates.missed, "command_periods": rates.periods.count, "command_missed": rates.periods.missed}
    return level, text, int(decision.reason), values | {key: str(number) for key, number in counted.items()}


def _floats(kind: str, values: NDArray[Any]) -> array.array[Any]:
    """A message's float64[] ('d') or float32[] ('f') from an array, row-major."""
    found = array.array(kind)
    found.frombytes(np.ascontiguousarray(values, np.float64 if kind == "d" else np.float32).tobytes())
    return found
