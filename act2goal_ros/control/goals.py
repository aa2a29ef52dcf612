"""The life of a goal: set, pursued, and ended in exactly one way. Times are seconds on one clock."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import IntEnum

from act2goal_ros.control.progress import ReachedDetector, ReachedLimits
from act2goal_ros.control.stop import StopReason


class GoalState(IntEnum):
    """The values of act2goal_msgs/Goal; only ACTIVE makes the arm move."""

    NONE = 0
    ACTIVE = 1
    REACHED = 2
    CANCELED = 3
    FAILED = 4


class Outcome(IntEnum):
    """How a goal ended; the values of act2goal_msgs/ReachGoal's result."""

    REACHED = 0
    CANCELED = 1
    PREEMPTED = 2
    TIMED_OUT = 3
    BAD_GOAL = 4
    STOPPED = 5


_STATE_AFTER = {
    Outcome.REACHED: GoalState.REACHED,
    Outcome.CANCELED: GoalState.CANCELED,
    Outcome.PREEMPTED: GoalState.CANCELED,
}


@dataclass(frozen=True)
class Ended:
    """The end of a goal. duration: s; time_to_goal: s, the last estimate."""

    goal_id: str
    outcome: Outcome
    message: str
    duration: float
    progress: float
    time_to_goal: float


_Stop = tuple[StopReason, str, float]  # reason, detail, since when


class Pursuit:
    """At most one goal at a time. Whatever ends it returns an Ended once.

    stop_patience: s a stop of the arm may last before it ends the goal, once the arm could move for it at all (a stop of the
    graph), or has moved for it (one of the policy's own); an emergency stop ends it at once.
    """

    def __init__(self, limits: ReachedLimits | None = None, stop_patience: float = 10.0) -> None:
        self._detector = ReachedDetector(limits)
        self._patience = stop_patience
        self.goal_id, self.state = "", GoalState.NONE
        self.progress, self.time_to_goal = 0.0, float("nan")
        self._began = self._timeout = 0.0
        self._stop: _Stop | None = None
        self._held: _Stop | None = None
        self._could_move = self._has_moved = False

    @property
    def is_active(self) -> bool:
        """Whether a goal is pursued."""
        return self.state == GoalState.ACTIVE

    @property
    def missing(self) -> str:
        """What keeps the goal from counting as reached."""
        return self._detector.missing

    @property
    def stop(self) -> tuple[StopReason, str]:
        """Reason and detail of the stop that lasts, else NONE and ''."""
        stop = self._stop or self._held
        return (StopReason.NONE, "") if stop is None else stop[:2]

    def elapsed(self, now: float) -> float:
        """How long the goal has been pursued."""
        return now - self._began

    def refusal(self) -> str:
        """Why no goal may be set now, '' if one may."""
        emergency = self._stop is not None and self._stop[0] == StopReason.E_STOP
        return "the emergency stop is pressed: release it before a new goal is set" if emergency else ""

    def begin(self, now: float, timeout: float) -> tuple[str, Ended | None]:
        """Starts a goal that may take `timeout` s (0: for ever). Returns its id, and the end of the one before."""
        goal_id = uuid.uuid4().hex[:12]
        before = self._end(Outcome.PREEMPTED, f"preempted by goal {goal_id}", now)
        self.goal_id, self.state = goal_id, GoalState.ACTIVE
        self.progress, self.time_to_goal = 0.0, float("nan")
        self._began, self._timeout = now, timeout
        self._could_move, self._has_moved, self._held = self._stop is None, False, None
        self._detector.reset()
        return goal_id, before

    def cancel(self, now: float, why: str = "canceled") -> Ended | None:
        """Ends the goal on somebody's wish."""
        return self._end(Outcome.CANCELED, why, now)

    def abandon(self, now: float, why: str) -> Ended | None:
        """Ends the goal because it cannot be pursued any more."""
        return self._end(Outcome.STOPPED, why, now)

    def stopped(self, active: bool, reason: int, detail: str, now: float) -> Ended | None:
        """Takes the graph's stop."""
        if not active:
            self._stop, self._could_move = None, True
            return None
        since = now if self._stop is None else self._stop[2]
        self._stop = (StopReason.of_stop(reason), detail, since)
        return self._end(Outcome.STOPPED, detail, now) if reason == StopReason.E_STOP else None

    def held(self, reason: int, detail: str, now: float) -> None:
        """Takes why the policy holds the arm by itself; NONE: it does not."""
        if not reason:
            self._held = None
        else:
            self._held = (StopReason.of_stop(reason), detail, now if self._held is None else self._held[2])

    def moved(self) -> None:
        """The policy moves the arm."""
        self._held, self._has_moved = None, True

    def measured(
        self,
        goal_id: str,
        stamp: float,
        progress: float,
        time_to_goal: float,
        distance: float,
        speed: float,
        now: float,
    ) -> Ended | None:
        """Takes the progress of a frame. stamp: of the frame, s; distance: RMS of the latents; speed: rad/s."""
        if not self.is_active or goal_id != self.goal_id:
            return None
        self.progress, self.time_to_goal = progress, time_to_goal
        reached = self._detector.update(
            stamp, time_to_goal=time_to_goal, progress=progress, goal_distance=distance, speed=speed
        )
        return self._end(Outcome.REACHED, "reached", now) if reached and self._stop is None else None

    def tick(self, now: float) -> Ended | None:
        """Ends the goal when it took too long or the arm was stopped for too long."""
        if self._timeout > 0.0 and self.elapsed(now) > self._timeout:
            return self._end(Outcome.TIMED_OUT, f"not reached within {self._timeout:g} s: {self.missing}", now)
        for stop, counts in ((self._stop, self._could_move), (self._held, self._has_moved)):
            if stop is not None and counts and now - stop[2] > self._patience:
                reason, detail, _ = stop
                return self._end(Outcome.STOPPED, f"stopped for {self._patience:g} s: {reason.name}: {detail}", now)
        return None

    def _end(self, outcome: Outcome, message: str, now: float) -> Ended | None:
        if not self.is_active:
            return None
        self.state = _STATE_AFTER.get(outcome, GoalState.FAILED)
        return Ended(self.goal_id, outcome, message, self.elapsed(now), self.progress, self.time_to_goal)
