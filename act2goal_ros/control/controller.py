"""A model of ros2_controllers' joint trajectory controller: position commands, position and velocity states.

Deterministic and without ROS: the caller passes the time in and calls `update` once per control period. Behaviour follows
the sources (Humble to 6.9): interpolation by what two neighbouring points carry, a lead-in from the state before the
trajectory, replacement as `allow_trajectory_replacement` and `interpolate_from_desired_state` say, the command sampled one
period ahead of the reference, tolerances on positions, speed scaling of the trajectory's clock.

Stricter than the original, because a simulated arm should not explode: numbers must be finite, a joint is named once, and
accelerations without velocities are refused. Not modelled: trajectories for some of the joints, continuous joints, effort.
"""

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.acceptance import ErrorCode, TrajectoryCommand, checked
from act2goal_ros.control.segments import Points, Spline, State
from act2goal_ros.control.tolerances import JointTolerance, Tolerances, worst

Vector = NDArray[np.float64]
APART = 1e-6  # s; the original counts nanoseconds, a double of system time resolves 0.2 µs
REPLACEMENT_MODES = ("splice", "desired_state", "measured_state")


class GoalStatus(Enum):
    """How an action goal ended."""

    SUCCEEDED = "succeeded"
    ABORTED = "aborted"
    CANCELED = "canceled"


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """The original's parameters that matter to a sender; tolerances in rad, 0 or empty = not enforced."""

    joint_names: tuple[str, ...]
    update_period: float = 0.002  # s
    allow_trajectory_replacement: bool = False
    interpolate_from_desired_state: bool = False
    allow_nonzero_velocity_at_trajectory_end: bool = False
    path_tolerance: tuple[float, ...] = ()
    goal_tolerance: tuple[float, ...] = ()
    goal_time: float = 0.0  # s; 0 = wait for ever
    max_deceleration_on_cancel: tuple[float, ...] = ()  # rad/s²; empty = hold the measured position at once
    cmd_timeout: float = 0.0  # s after the last point; 0 = none

    def __post_init__(self) -> None:
        joints = len(self.joint_names)
        if joints == 0 or len(set(self.joint_names)) != joints:
            raise ValueError(f"joint names must be unique and at least one, got {list(self.joint_names)}")
        if self.update_period <= 0.0:
            raise ValueError(f"update_period must be above 0 s, got {self.update_period}")
        for name in ("path_tolerance", "goal_tolerance", "max_deceleration_on_cancel"):
            values = getattr(self, name)
            if values and (len(values) != joints or min(values) < 0.0):
                raise ValueError(f"{name} needs {joints} values of at least 0, got {list(values)}")

    def in_mode(self, mode: str) -> "ControllerConfig":
        """The same with the replacement behaviour of `splice` (newest), `desired_state` or `measured_state`."""
        if mode not in REPLACEMENT_MODES:
            raise ValueError(f"unknown replacement mode '{mode}'; there are {', '.join(REPLACEMENT_MODES)}")
        return replace(
            self,
            allow_trajectory_replacement=mode == "splice",
            interpolate_from_desired_state=mode == "desired_state",
        )


@dataclass(frozen=True)
class GoalOutcome:
    """The end of an action goal."""

    goal_id: Hashable
    status: GoalStatus
    code: ErrorCode
    text: str


@dataclass(frozen=True)
class ControllerState:
    """What controller_state and the action's feedback carry; (J,) rad and rad/s."""

    desired: State
    positions: Vector  # measured
    velocities: Vector  # measured
    output: Vector  # commanded
    time_from_start: float  # s on the trajectory's own clock
    index: int  # of the next point, as the sender counts them
    speed_scaling: float

    @property
    def error(self) -> Vector:
        """Desired minus measured positions."""
        return self.desired.positions - self.positions


@dataclass(frozen=True)
class _Pending:
    """A trajectory accepted but not yet followed; `stamp` None = starts when first sampled."""

    points: Points
    stamp: float | None
    holding: bool = False


@dataclass(frozen=True)
class _Current:
    """The trajectory being followed; times on the controller's clock."""

    points: Points
    start: float
    spline: Spline
    prefix: int = 0  # points spliced in before the sender's own


class JointTrajectoryController:
    """One controller of J joints. Not thread-safe: guard `update` and everything else with one lock."""

    def __init__(self, config: ControllerConfig):
        self.config = config
        joints = len(config.joint_names)
        self._defaults = Tolerances.configured(config.path_tolerance, config.goal_tolerance, config.goal_time, joints)
        self._scaling = 1.0
        self._goal: Hashable | None = None
        self._outcomes: list[GoalOutcome] = []
        self._warnings: list[str] = []
        self.activate(0.0, np.zeros(joints))

    def activate(self, now: float, positions: Vector) -> None:
        """Holds `positions` (J,), as if just started; an action goal still running is aborted."""
        if self._goal is not None:
            text = "Current goal cancelled during deactivate transition."
            self._end(GoalStatus.ABORTED, ErrorCode.INVALID_GOAL, text)
        self._epoch = now  # times are kept relative to it: at 1.8e9 s a double resolves 0.2 µs, and the clock adds up
        zeros = np.zeros(len(positions))
        self._positions, self._velocities = np.array(positions, dtype=float), zeros
        self._command = self._positions
        self._desired = self._last = State(self._positions, zeros, zeros)
        self._last_time: float | None = None
        self._tolerances = self._defaults
        self._clock = 0.0
        self._index = 0
        self._ahead, self._ahead_at = (self._last, 0), math.nan  # sampled for the command, and when that is the reference
        self._holding = True
        self._pending: _Pending | None = None
        self._replaceable = False
        self._current = self._starting(Points.hold(self._positions), 0.0, 0.0)

    def check(self, command: TrajectoryCommand, now: float) -> Points:
        """The command's points in the controller's joint order.

        Raises:
            Rejection: naming the value and the bound.
        """
        return checked(command, self.config.joint_names, now, self.config.allow_nonzero_velocity_at_trajectory_end)

    def submit(self, command: TrajectoryCommand, now: float) -> None:
        """A trajectory from the topic. It replaces that of an active action goal, whose end it then decides.

        Raises:
            Rejection: the running trajectory goes on.
        """
        self.accept(self.check(command, now), command.stamp)

    def submit_goal(
        self,
        goal_id: Hashable,
        command: TrajectoryCommand,
        now: float,
        path_tolerance: Mapping[str, JointTolerance] | None = None,
        goal_tolerance: Mapping[str, JointTolerance] | None = None,
        goal_time_tolerance: float = 0.0,
    ) -> None:
        """A trajectory from the action; an older goal is aborted. Illegal tolerances fall back to the defaults.

        Raises:
            Rejection: the running goal and trajectory go on.
        """
        tolerances = (path_tolerance or {}, goal_tolerance or {}, goal_time_tolerance)
        self.accept_goal(goal_id, self.check(command, now), command.stamp, *tolerances)

    def accept(self, points: Points, stamp: float) -> None:
        """Points that were checked: the next update follows them, unless others come before it."""
        self._pending = _Pending(points, None if stamp == 0.0 else stamp - self._epoch)
        self._holding = False

    def accept_goal(
        self,
        goal_id: Hashable,
        points: Points,
        stamp: float,
        path_tolerance: Mapping[str, JointTolerance],
        goal_tolerance: Mapping[str, JointTolerance],
        goal_time_tolerance: float,
    ) -> None:
        """An action's points that were checked; otherwise as submit_goal."""
        if self._goal is not None:
            text = "Current goal preempted by new incoming action."
            self._end(GoalStatus.ABORTED, ErrorCode.INVALID_GOAL, text)
        self.accept(points, stamp)
        self._goal = goal_id
        try:
            given = (path_tolerance, goal_tolerance, goal_time_tolerance)
            self._tolerances = self._defaults.with_goals(self.config.joint_names, *given)
        except ValueError as error:
            self._tolerances = self._defaults
            self._warnings.append(f"{error} Using default tolerances.")

    def cancel(self, goal_id: Hashable) -> bool:
        """Ends the active goal and stops; False where `goal_id` is not the active one."""
        if self._goal is None or self._goal != goal_id:
            return False
        self._end(GoalStatus.CANCELED, ErrorCode.SUCCESSFUL, "")
        self._stop()
        return True

    @property
    def speed_scaling(self) -> float:
        """Seconds of trajectory per second; 0 pauses."""
        return self._scaling

    @speed_scaling.setter
    def speed_scaling(self, value: float) -> None:
        if not (math.isfinite(value) and value >= 0.0):
            raise ValueError(f"speed scaling must be finite and at least 0, got {value}")
        self._scaling = float(value)

    @property
    def active_goal(self) -> Hashable | None:
        return self._goal

    @property
    def holding(self) -> bool:
        """Whether the controller holds by its own decision: at the start, after success, cancel or a violated tolerance."""
        return self._holding

    @property
    def state(self) -> ControllerState:
        return ControllerState(
            self._desired,
            self._positions,
            self._velocities,
            self._command,
            self._clock - self._current.start,
            max(0, self._index - self._current.prefix),
            self._scaling,
        )

    def take_outcomes(self) -> list[GoalOutcome]:
        """Goals that ended since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def take_warnings(self) -> list[str]:
        """What the original would have logged since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def update(self, now: float, positions: Vector, velocities: Vector) -> Vector:
        """One control period: measured (J,) rad and rad/s in, the position command (J,) for the next period out."""
        self._positions, self._velocities = positions, velocities
        time = now - self._epoch
        first = self._pending is not None
        if self._pending is not None:
            self._follow(self._pending, time)
            self._pending = None
        else:
            self._clock += self.config.update_period * self._scaling
        spline = self._current.spline
        self._desired, self._index = self._ahead if self._clock == self._ahead_at else spline.sample(self._clock)
        self._ahead_at = self._clock + self.config.update_period
        self._ahead = upcoming, index = spline.sample(self._ahead_at)
        if self._within_tolerances(first, ended=index == spline.count):
            self._command, self._last, self._last_time = upcoming.positions, upcoming, time
        return self._command

    def _within_tolerances(self, first: bool, ended: bool) -> bool:
        """False where the command must not go out; ends the goal and stops where that is decided."""
        if self._holding:
            return True
        error = np.abs(self._desired.positions - self._positions)
        if (first or not ended) and (error > self._tolerances.path).any():
            self._stray(error)
            return False
        if not ended:
            return True
        late = self._clock - self._current.spline.end
        outside = bool((error > self._tolerances.goal).any())
        if outside and 0.0 < self._tolerances.goal_time < late:
            self._miss(error, late)
            return False
        if not outside and self._goal is not None:
            self._succeed()
        elif 0.0 < self._timeout < late:
            self._warnings.append(f"Aborted due to command timeout: {late:.3f} s after the end, at most {self._timeout:g} s.")
            self._stop()
        return True

    def _stray(self, error: Vector) -> None:
        where = worst(self.config.joint_names, error, self._tolerances.path)
        if self._goal is not None:
            text = f"Aborted due to path tolerance violation: {where}"
            self._end(GoalStatus.ABORTED, ErrorCode.PATH_TOLERANCE_VIOLATED, text)
        self._warnings.append(f"Holding position due to state tolerance violation: {where}")
        self._stop()

    def _miss(self, error: Vector, late: float) -> None:
        where = worst(self.config.joint_names, error, self._tolerances.goal)
        if self._goal is not None:
            text = f"Aborted due to goal_time_tolerance exceeding by {late:f} seconds: {where}"
            self._end(GoalStatus.ABORTED, ErrorCode.GOAL_TOLERANCE_VIOLATED, text)
        self._warnings.append(f"Exceeded goal_time_tolerance of {self._tolerances.goal_time:g} s: holding position: {where}")
        self._stop()

    def _succeed(self) -> None:
        self._end(GoalStatus.SUCCEEDED, ErrorCode.SUCCESSFUL, "Goal successfully reached!")
        last = self._current.points
        self._hold(replace(last.only(np.arange(len(last.times)) == len(last.times) - 1), times=np.zeros(1)))

    def _stop(self) -> None:
        """Holds the measured position: at once, or after a constant deceleration where that is configured."""
        limits = np.array(self.config.max_deceleration_on_cancel)
        if limits.size and (limits > 0.0).all():
            self._hold(_deceleration(self._positions, self._velocities, limits, self.config.update_period))
        else:
            self._hold(Points.hold(self._positions))

    def _hold(self, points: Points) -> None:
        self._pending = _Pending(points, None, True)
        self._holding = True

    def _end(self, status: GoalStatus, code: ErrorCode, text: str) -> None:
        if self._goal is not None:
            self._outcomes.append(GoalOutcome(self._goal, status, code, text))
            self._goal = None

    @property
    def _timeout(self) -> float:
        """The original ignores a timeout that is not longer than the default goal time."""
        return self.config.cmd_timeout if self.config.cmd_timeout > self.config.goal_time else 0.0

    def _follow(self, pending: _Pending, time: float) -> None:
        points, stamp, prefix = pending.points, pending.stamp, 0
        if self.config.allow_trajectory_replacement and self._replaceable and not pending.holding:
            points, prefix = self._spliced(points, stamp, time)
            stamp = None
        self._clock, self._ahead_at = time, math.nan
        self._current = self._starting(points, time if stamp is None else stamp, time, prefix)
        self._replaceable = len(points.times) > 1 and not pending.holding

    def _starting(self, points: Points, start: float, time: float, prefix: int = 0) -> _Current:
        """`points` from `start` on, led in to from the state that the configuration asks for."""
        before = State(self._positions, self._velocities, None)
        if self.config.interpolate_from_desired_state:
            # The last command is the state one period after `_last_time`; the original takes it for the state at it.
            before = self._last
            time = time if self._last_time is None else min(self._last_time, time)
        return _Current(points, start, Spline(time, before, points, start), prefix)

    def _spliced(self, new: Points, stamp: float | None, time: float) -> tuple[Points, int]:
        """The running trajectory until the new one starts, then the new one; times from now. And how many points it adds."""
        cursor, old = self._clock, self._current
        start = cursor if stamp is None or stamp <= time else cursor + (stamp - time) * self._scaling
        times = old.start + old.points.times
        kept = old.points.only((times > cursor + APART) & (times < start - APART)).shifted(old.start - cursor)
        if new.times[0] > APART:
            kept = kept.followed_by(Points.single(start - cursor, old.spline.sample(start)[0]))
        return kept.followed_by(new.shifted(start - cursor)), len(kept.times)

def _deceleration(positions: Vector, velocities: Vector, limits: Vector, period: float) -> Points:
    """Each joint brought to rest at its constant deceleration, a point per period."""
    stop = np.abs(velocities) / limits
    times = np.arange(math.ceil(float(stop.max()) / period) + 1, dtype=np.float64) * period
    elapsed = np.minimum(times[:, None], stop)
    slowing = -np.sign(velocities) * limits
    return Points(
        times,
        positions + velocities * elapsed + slowing * elapsed**2 / 2.0,
        velocities + slowing * elapsed,
        np.where(times[:, None] < stop, slowing, 0.0),
    )
