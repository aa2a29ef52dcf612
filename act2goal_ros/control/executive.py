"""Decides, tick by tick, whether the arm follows the policy, brakes or holds, and why. No ROS.

Times are seconds: `now` and all stamps on the node's clock, `monotonic` on one that never jumps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.chunk import ActionChunk, ChunkError
from act2goal_ros.control.following import SYNC, Following
from act2goal_ros.control.inputs import NO_CAUSE, Bounds, Cause, ControllerReport, Inputs
from act2goal_ros.control.join import AVERAGED, PREFIXED, Ensemble
from act2goal_ros.control.joints import JointReading
from act2goal_ros.control.planbook import Plan
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason
from act2goal_ros.control.stream import CommandStream
from act2goal_ros.control.trajectory import Trajectory
from act2goal_ros.control.watchdog import Durations, StreamClock

Array = NDArray[np.float64]
# s by which a command that starts on what is committed begins before it is sent: a controller whose clock or update is so much behind
# finds itself on its way too, and need not be led in to a start that it takes for the future
EARLIER = 0.01
STILL = 0.01  # rad/s; a controller whose reference moves less stands still
RESEND = 0.05  # s; a braking tail that ends sooner is not sent again
HOLD = 0.2  # s that a command to stay lasts; a controller refuses what ends before it arrives
PAUSED = 0.01  # speed scaling below which the controller counts as paused
WARM_UP = 3  # chunks whose delay is not counted after a start

# Faults after which motion resumes only when the cause has been gone for a while; the others end at once.
LINGERING = frozenset(
    {
        StopReason.BAD_CHUNK,
        StopReason.DELAY_OVER_BUDGET,
        StopReason.CONTROLLER_TRACKING_ERROR,
        StopReason.CONTROLLER_LOST,
        StopReason.BAD_IMAGE,
        StopReason.BAD_JOINT_STATES,
        StopReason.CLOCK_JUMP,
        StopReason.LIMIT_VIOLATION,
        StopReason.MODEL_FAULT,
        StopReason.NODE_LOST,
    }
)
YIELDING = frozenset({StopReason.STALE_IMAGE, StopReason.STALE_JOINT_STATES, StopReason.STALE_PLAN, StopReason.NO_SELECTION})


class State(IntEnum):
    """What the arm is told; the values of act2goal_msgs/ControlStatus."""

    IDLE = 0
    RUNNING = 1
    BRAKING = 2
    HOLDING = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Bounds; s and rad. lead: from a command's sending to its first new point; horizon: of chunk in each command.

    command_period: between commands that say nothing new; a new chunk and the beginning of a stop never wait.
    """

    lead: float = 0.01
    horizon: float = 0.08
    command_period: float = 0.0
    bounds: Bounds = field(default_factory=Bounds)
    delay_budget: float = 0.3
    command_error: float = 0.1
    recovery_time: float = 0.5
    stepped: bool = False


def settings_from(parameters: Any, robot: RobotConfig, stepped: bool) -> Settings:
    """Settings from a node's parameters of the same names, the tracking error being the robot's."""
    names = ("image_timeout", "joint_states_timeout", "controller_timeout", "clock_jump")
    limits = {name: float(getattr(parameters, name)) for name in names}
    bounds = Bounds(tracking_error=robot.controller.tracking_error, **limits)
    own = ("lead", "horizon", "command_period", "delay_budget", "command_error", "recovery_time")
    return Settings(bounds=bounds, stepped=stepped, **{name: float(getattr(parameters, name)) for name in own})


@dataclass(frozen=True)
class Request:
    """All one inference needs, taken together at one time; `prefix` (d, J + 1) rows are committed already."""

    run: int
    stamp: float
    reading: JointReading
    plan: Plan
    prefix: Array | None


@dataclass(frozen=True)
class Decision:
    """What to send: a trajectory on the node's clock and a gripper command 0..1, or nothing."""

    state: State
    reason: StopReason
    detail: str
    trajectory: Trajectory | None = None
    gripper: float | None = None


class Executive:
    """Takes what the node hears, one thread; `tick` says what to send."""

    def __init__(
        self, robot: RobotConfig, settings: Settings, step: float = 0.05, prefix_steps: int = 8, join: str = "prefix"
    ) -> None:
        self.settings, self._robot, self._limits = settings, robot, robot.limits
        self._step, self._prefix_steps = step, prefix_steps if join in PREFIXED else 0
        self._ensemble = Ensemble() if join in AVERAGED else None
        self.inputs = Inputs(robot, settings.bounds)
        self.stream = CommandStream(robot.limits, horizon=settings.horizon)
        self.delays = Durations()  # s from an image's stamp to the first command from it
        self._clock = StreamClock(settings.bounds.clock_jump, settings.stepped)
        self._following = Following(robot.joint_names, settings.command_error, settings.bounds.controller_timeout)
        self._gripper = float("nan")
        self._gripper_sent: deque[tuple[float, float]] = deque(maxlen=256)
        self._ready = False  # whether the stream knows where the arm is
        self._run = 0
        self.cover_now = False  # commands start a little before now, on what was committed, not at now + lead
        self.lead = settings.lead
        self.stop()

    def stop(self) -> None:
        """As at the beginning: holding, and the reason is that the node is inactive."""
        self._run += 1
        self.decision = Decision(State.IDLE, StopReason.INACTIVE, "not active")
        self.chunk: ActionChunk | None = None
        self._chunk_on_stream: ActionChunk | None = None
        self._pending: Cause = NO_CAUSE  # a fault of an output, to be dealt with in the next tick
        self._clear_since: float | None = None
        self._unmeasured = WARM_UP
        self._halted = self._paused = False  # whether the controller has stopped by itself; is at speed 0
        self._sent_at = float("-inf")  # stream's clock

    def model_failed(self, detail: str) -> None:
        """An inference raised."""
        self._drop("model_fault")
        self._fail(StopReason.MODEL_FAULT, detail)

    def _fail(self, reason: StopReason, detail: str) -> None:
        """Of what was noticed since the last tick, the first counts; a controller's fault is graver than a chunk's."""
        if not self._pending[0]:
            self._pending = (reason, detail)

    def controller_failed(self, reason: StopReason, detail: str, halted: bool = False) -> None:
        """The controller does not do what it was told. halted: it has stopped by itself, where its reference says."""
        self._pending = (reason, detail)
        self._halted = self._halted or halted

    def chunk_made(self, request: Request, chunk: ActionChunk, now: float) -> bool:
        """An inference ended; False when its chunk is dropped."""
        if request.run != self._run:
            self._drop("chunk_of_stopped_run")
            return False
        reason, detail = self._fault(chunk, now)
        if reason:
            self._drop(reason.name.lower())
            self._fail(reason, detail)
            return False
        if self.chunk is not None and chunk.stamp < self.chunk.stamp:
            self._drop("chunk_out_of_order")  # frames may overtake each other
            return False
        self.chunk = chunk.within(self._limits)
        return True

    def request(self, stamp: float, now: float, monotonic: float) -> Request | None:
        """What to infer from, for an image of this stamp; None when there is no reason to."""
        cause = self.inputs.cause(now, monotonic)
        reading = self.inputs.joints.before(stamp)
        if cause[0] or reading is None or not self._ready:
            return None
        plan = self.inputs.plans.usable(self.inputs.goal_id, now)
        if not isinstance(plan, Plan):
            return None
        if np.isnan(reading.gripper):
            reading = replace(reading, gripper=0.0 if np.isnan(self._gripper) else self._gripper)
        return Request(self._run, stamp, reading, plan, self._prefix(stamp, now))

    def tick(self, now: float, monotonic: float) -> Decision:
        """What to send now; to be called at the command rate, and when a chunk arrived."""
        speed = 1.0 if self.inputs.report is None else self.inputs.report.speed
        jump = self._clock.update(now, monotonic, speed)
        if jump:
            self._clock_jumped()
        self._paused = speed < PAUSED or self._seems_paused(monotonic)
        cause = (StopReason.CLOCK_JUMP, jump) if jump else self._cause(now, monotonic)
        cause = self._linger(cause, monotonic)
        if cause[0] or self.chunk is None or self._paused:
            self.decision = self._hold(cause, now)
        else:
            self.decision = self._follow(self.chunk, now)
        return self.decision

    @property
    def gripper(self) -> float:
        """The last gripper command, 0 open .. 1 closed; 0 before the first."""
        return 0.0 if np.isnan(self._gripper) else self._gripper

    def commanded(self, now: float) -> tuple[Array, Array]:
        """Commanded positions and velocities (J,); empty before the first synchronisation with the controller."""
        if not self._ready:
            return np.empty(0), np.empty(0)
        q, v, _ = self.stream.state_at(self._clock.to_stream(now))
        return q, v

    # private helpers

    def _fault(self, chunk: ActionChunk, now: float) -> Cause:
        """What is wrong with a chunk as a whole."""
        delay, budget, jump = now - chunk.stamp, self.settings.delay_budget, self.settings.bounds.clock_jump
        try:
            chunk.validate(self._limits, self._robot.joint_names)
        except ChunkError as error:
            return StopReason.BAD_CHUNK, str(error)
        if delay > budget:
            return StopReason.DELAY_OVER_BUDGET, f"chunk came {delay:.3f} s after its image, allowed {budget:g} s"
        if delay < -jump:
            return StopReason.BAD_CHUNK, f"chunk is from an image {-delay:.3f} s ahead of the clock, allowed {jump:g} s"
        if chunk.end <= now:
            return StopReason.BAD_CHUNK, f"chunk ended {now - chunk.end:.3f} s ago: all of it is in the past"
        return NO_CAUSE

    def _drop(self, what: str) -> None:
        self.inputs.drops[what] += 1

    def _cause(self, now: float, monotonic: float) -> Cause:
        """Why the arm must not follow, if it must not; the gravest cause first."""
        pending, self._pending = self._pending, NO_CAUSE
        seen = self.inputs.cause(now, monotonic)
        faults = (pending, seen) if seen[0] in YIELDING else (seen, pending)
        for cause in (*faults, self._cause_of_reference(monotonic)):
            if cause[0]:
                return cause
        age = 0.0 if self.chunk is None else now - self.chunk.stamp
        bound = self.settings.delay_budget + self.settings.bounds.image_timeout
        if age > bound:
            return (StopReason.DELAY_OVER_BUDGET, f"newest chunk is from an image {age:.3f} s ago, allowed {bound:g} s")
        return NO_CAUSE

    def _cause_of_reference(self, monotonic: float) -> Cause:
        """Whether the controller follows what is commanded; it must while a run is on."""
        report = self.inputs.report
        if report is None or self.decision.state != State.RUNNING or not self.inputs.doubt.settled:
            self._following.forget()
            return NO_CAUSE
        return self._following.cause(report, self._commanded_at(report), monotonic)

    def _seems_paused(self, monotonic: float) -> bool:
        report, doubt = self.inputs.report, self.inputs.doubt
        if report is None or doubt.settled or not self._ready:
            return False
        return doubt.paused(report, self._commanded_at(report), monotonic)

    def _distance(self, report: ControllerReport) -> Array:
        """|controller's reference − commanded| (J,) at the time of the report."""
        return np.abs(report.q - self._commanded_at(report))

    def _commanded_at(self, report: ControllerReport) -> Array:
        return self.stream.state_at(self._clock.to_stream(report.stamp))[0]

    def _linger(self, cause: Cause, monotonic: float) -> Cause:
        """Keeps a fault up until it has been gone for the recovery time; what it may have caused gives way to it."""
        last = self.decision
        lingering = last.state != State.RUNNING and last.reason in LINGERING
        if cause[0] and not (lingering and cause[0] in YIELDING):
            self._clear_since = None
            return cause
        if not lingering:
            return cause
        if self._clear_since is None:
            self._clear_since = monotonic
        if monotonic - self._clear_since < self.settings.recovery_time:
            self.chunk = None
            return last.reason, last.detail
        return cause

    def _clock_jumped(self) -> None:
        self.inputs.clock_jumped()
        self._gripper_sent.clear()

    def _hold(self, cause: Cause, now: float) -> Decision:
        """Brakes what moves, else holds."""
        if cause[0] and (self.chunk is not None or self.decision.state == State.RUNNING):
            self._run += 1
            self.chunk, self._unmeasured = None, WARM_UP
        if not self._ready and not self._synchronise(now):
            return Decision(State.IDLE, *(cause if cause[0] else (StopReason.NONE, "waiting for the controller")))
        stream, at = self.stream, self._clock.to_stream(now)
        if self.inputs.doubt.waits:
            return self._take_back(cause, at)
        if self._halted:
            self._give_in()
        if self._paused and not cause[0]:  # what it has ends at rest; anything new would start a little further on
            doubt = "" if self.inputs.doubt.settled else ", as it always was, and a command was not followed"
            return Decision(State.HOLDING, StopReason.NONE, f"the controller is paused: speed scaling is 0{doubt}")
        if (self.decision.state == State.RUNNING or stream.follow_until > at) and stream.rest_time > at:
            return Decision(State.BRAKING, *cause, self._sent(self._brake(at), at))
        if stream.rest_time > at:
            # Sent again in case it was lost; a controller refuses what ends before it arrives.
            again = stream.rest_time > at + RESEND and self._due(at)
            sent = self._sent(stream.resend(at, self.lead), at) if again else None
            return Decision(State.BRAKING, *cause, sent)
        self._synchronise(now)
        return Decision(State.HOLDING, *(cause if cause[0] else (StopReason.NONE, "waiting for a chunk")))

    def _brake(self, at: float) -> Trajectory:
        """From the commanded state, or from the controller's where that is elsewhere: never a jump."""
        report = self.inputs.report
        if report is not None and self._distance(report).max() > self.settings.command_error:
            self._give_in()
        return self.stream.brake(at, self.lead)

    def _take_back(self, cause: Cause, at: float) -> Decision:
        """In place of a command that may not be followed: to stay, or come to rest, from where the controller says it is."""
        self.inputs.doubt.taken_back()
        halted = self._halted
        self._give_in()
        if halted:
            return Decision(State.HOLDING, *cause)
        return Decision(State.BRAKING, *cause, _held(self._sent(self.stream.brake(at, self.lead), at)))

    def _give_in(self) -> None:
        """What moves, if anything does, is where the controller says."""
        report, self._halted = self.inputs.report, False
        if report is not None:
            self.stream.take_over(report.q, report.qd, self._clock.to_stream(report.stamp))

    def _synchronise(self, now: float) -> bool:
        """At rest: takes the controller's reference for what is commanded. False while that is not possible, and the reference, moved
        by somebody else, is not what is commanded either: a command would throw the arm back there."""
        report = self.inputs.report
        if report is None:
            return False
        if np.abs(report.qd).max() > STILL or self._limits.outside(report.q):  # it may go on from where it is commanded, from nowhere else
            return self._ready and bool(self._distance(report).max() <= self.settings.command_error)
        if not self._ready or self._distance(report).max() > SYNC:
            self.stream.reset(report.q, self._clock.to_stream(now))
        self._ready = True
        return True

    def _follow(self, chunk: ActionChunk, now: float) -> Decision:
        at = self._clock.to_stream(now)
        if self.decision.state != State.RUNNING and not self._synchronise(now):
            return Decision(State.HOLDING, StopReason.NONE, "waiting for the controller to stand still")
        doubt, report = self.inputs.doubt, self.inputs.report
        waits = doubt.waits or (chunk is self._chunk_on_stream and not self._due(at))
        if self.decision.state == State.RUNNING and waits:
            return Decision(State.RUNNING, StopReason.NONE, "")
        if chunk is not self._chunk_on_stream:
            chunk = self._adopt(chunk, now)
        trajectory = self._sent(self.stream.advance(at, self.lead), at)
        if report is not None and not doubt.settled:
            doubt.sent(report.q, now, trajectory.end)
            return Decision(State.RUNNING, StopReason.NONE, "", trajectory)
        assert self.stream.chunk is not None  # adopted above, by the clock of the arm, which may be slowed down
        self._gripper = self.stream.chunk.gripper_at(at + self.lead)
        self._gripper_sent.append((now + self.lead, self._gripper))
        return Decision(State.RUNNING, StopReason.NONE, "", trajectory, self._gripper)

    def _adopt(self, chunk: ActionChunk, now: float) -> ActionChunk:
        """Puts a chunk on the stream, where the arm was at its stamp; joined to those before it since the arm last stopped."""
        stamp = self._clock.to_stream(chunk.stamp)
        if self._ensemble is not None:
            if self.decision.state != State.RUNNING:
                self._ensemble.clear()
            chunk = self._ensemble.add(chunk, stamp)
        self.chunk = self._chunk_on_stream = chunk
        self.stream.adopt(replace(chunk, stamp=stamp))
        if self._unmeasured:
            self._unmeasured -= 1
        else:
            self.delays.add(now - chunk.stamp)
        return chunk

    def _due(self, at: float) -> bool:
        """Whether a command that says nothing new may be sent; on the stream's clock, on which commands last.

        Never while the controller is paused: it would start anew each time, a little further on, and tremble.
        """
        return not self._paused and not 0.0 <= at - self._sent_at < self.settings.command_period

    def _sent(self, trajectory: Trajectory, at: float) -> Trajectory:
        self._sent_at = at
        if self.cover_now:
            trajectory = self.stream.resend(at, -EARLIER)
        return replace(trajectory, start=self._clock.to_node(trajectory.start))

    def _prefix(self, stamp: float, now: float) -> Array | None:
        """Rows (d, J + 1) that will have been commanded before a chunk from an image of this stamp takes effect."""
        effect = max(self.delays.percentile(50), now - stamp) + self.lead
        rows = min(int(np.ceil(effect / self._step)), self._prefix_steps)
        if not rows:
            return None
        times: Array = self._step * np.arange(1, rows + 1, dtype=np.float64)
        positions = self.stream.foresee(self._clock.to_stream(stamp) + times)
        return np.column_stack([positions, [self._gripper_expected(t, now) for t in (stamp + times).tolist()]])

    def _gripper_expected(self, time: float, now: float) -> float:
        """What was sent, or will be sent as long as the chunk stays the one that is followed."""
        if self.chunk is not None and self.decision.state == State.RUNNING and time > now + self.lead:
            return self.chunk.gripper_at(time)
        return self._gripper_before(time)

    def _gripper_before(self, time: float) -> float:
        for sent, value in reversed(self._gripper_sent):
            if sent <= time:
                return value
        reading = self.inputs.joints.newest
        return 0.0 if reading is None or np.isnan(reading.gripper) else reading.gripper


def _held(trajectory: Trajectory) -> Trajectory:
    """With its last point once more, HOLD s later."""
    t, rows = trajectory, [*range(len(trajectory.times)), -1]
    assert t.velocities is not None and t.accelerations is not None
    return Trajectory(t.start, np.append(t.times, t.times[-1] + HOLD), t.positions[rows], t.velocities[rows], t.accelerations[rows])
