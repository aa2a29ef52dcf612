"""Goals sent to a FollowJointTrajectory server: which is in force, what became of the others, what of it is a fault. No ROS.

The sender numbers its goals in the order of sending. Times are seconds: `monotonic` on a clock that never jumps, `now` and
the end of a trajectory on the node's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from act2goal_ros.control.acceptance import ErrorCode
from act2goal_ros.control.controller import GoalStatus
from act2goal_ros.control.inputs import NO_CAUSE, Cause
from act2goal_ros.control.stop import StopReason

KEPT = 100  # goals whose results are waited for; the older ones are forgotten
EARLY = 0.05  # s before its end at which a goal cannot have succeeded with its own trajectory
RETRY = 1.0  # s of silence after the last goal until motion may be tried again

REASONS = {
    ErrorCode.INVALID_JOINTS: StopReason.BAD_CHUNK,
    ErrorCode.OLD_HEADER_TIMESTAMP: StopReason.DELAY_OVER_BUDGET,
    ErrorCode.PATH_TOLERANCE_VIOLATED: StopReason.CONTROLLER_TRACKING_ERROR,
    ErrorCode.GOAL_TOLERANCE_VIOLATED: StopReason.CONTROLLER_TRACKING_ERROR,
}  # any other, the −1 of a goal that was accepted and not replaced among them: somebody took the controller away
OF_THE_ARM = (ErrorCode.PATH_TOLERANCE_VIOLATED, ErrorCode.GOAL_TOLERANCE_VIOLATED)  # never the result of a newer goal


@dataclass
class _Goal:
    sent: float  # monotonic
    end: float  # node's clock
    stops: bool
    accepted: bool = False


class GoalsInFlight:
    """Keeps the goals that are not over; every event returns the cause to stop that it is, or NO_CAUSE.

    A newer goal preempts the older ones, so their aborts are counted and no faults. `counts` says what became of all goals:
    sent, accepted, rejected, preempted, succeeded, failed, unanswered, and `late` for what came of goals already forgotten.
    timeout: s in which the server has to answer a goal.
    """

    def __init__(self, action: str, timeout: float) -> None:
        self._action, self._timeout = action, timeout
        self._goals: dict[int, _Goal] = {}  # in the order of sending
        self._newest = -1
        self._last_sent = 0.0
        self.counts: Counter[str] = Counter()

    def __contains__(self, number: int) -> bool:
        """Whether anything is still to come of this goal."""
        return number in self._goals

    def sent(self, number: int, end: float, monotonic: float, stops: bool = False) -> None:
        """A goal went out whose trajectory ends at `end`. stops: it does nothing but brake or hold."""
        self._goals[number] = _Goal(monotonic, end, stops)
        self._newest, self._last_sent = number, monotonic
        self.counts["sent"] += 1
        while len(self._goals) > KEPT:
            del self._goals[next(iter(self._goals))]

    def answered(self, number: int, accepted: bool) -> Cause:
        """The server accepted or rejected a goal. One that stops may come too late: what went before ends at rest as well."""
        goal = self._goals.get(number)
        if goal is None:
            self.counts["late"] += 1
            return NO_CAUSE
        for older in [n for n, g in self._goals.items() if n < number and not g.accepted]:
            del self._goals[older]  # a server answers in order
            self.counts["unanswered"] += 1
        goal.accepted = accepted
        self.counts["accepted" if accepted else "rejected"] += 1
        if accepted:
            return NO_CAUSE
        del self._goals[number]
        if goal.stops:
            return NO_CAUSE
        return StopReason.CONTROLLER_LOST, f"{self._action} rejected a goal; why, the controller's log says"

    def ended(self, number: int, status: GoalStatus, code: int, text: str, now: float) -> Cause:
        """A goal is over, with the result's error_code and error_string."""
        goal = self._goals.pop(number, None)
        if goal is None:
            self.counts["late"] += 1
            return NO_CAUSE
        in_force = number == self._newest
        if status == GoalStatus.SUCCEEDED:
            self.counts["succeeded"] += 1
            early = goal.end - now
            if not in_force or goal.stops or early <= EARLY:
                return NO_CAUSE
            return StopReason.CONTROLLER_LOST, f"{self._action}: a goal ended {early:.3f} s before its time: somebody else commands"
        if not in_force and code not in OF_THE_ARM:
            self.counts["preempted"] += 1
            return NO_CAUSE
        self.counts["failed"] += 1
        return _reason(code), f"{self._action}: goal {status.value}, error {code} {_name(code)}: {text}"

    def silence(self, monotonic: float) -> Cause:
        """Whether the server owes an answer for too long. Told until it gives one, or nothing was sent for RETRY s."""
        waiting = [goal.sent for goal in self._goals.values() if not goal.accepted]
        if not waiting or monotonic - waiting[0] <= self._timeout:
            return NO_CAUSE
        if monotonic - self._last_sent > RETRY:
            self.counts["unanswered"] += len(waiting)
            self._goals = {number: goal for number, goal in self._goals.items() if goal.accepted}
            return NO_CAUSE
        detail = f"{self._action} has not answered a goal for {monotonic - waiting[0]:.3f} s, allowed {self._timeout:g} s"
        return StopReason.CONTROLLER_LOST, detail

    def forget(self) -> None:
        """Whatever still comes of the goals so far means nothing any more."""
        self._goals.clear()


def _reason(code: int) -> StopReason:
    return REASONS.get(ErrorCode(code), StopReason.CONTROLLER_LOST) if code in set(ErrorCode) else StopReason.CONTROLLER_LOST


def _name(code: int) -> str:
    return ErrorCode(code).name if code in set(ErrorCode) else "of no known meaning"
