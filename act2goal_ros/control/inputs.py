"""What the policy node hears, and why the arm must not move on it. No ROS.

Times are seconds: `now` and all stamps on the node's clock, `monotonic` on one that never jumps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from act2goal_ros.control.joints import JointReader
from act2goal_ros.control.planbook import Plan, PlanBook
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason
from act2goal_ros.control.watchdog import Freshness

Array = NDArray[np.float64]
Cause = tuple[StopReason, str]
NO_CAUSE: Cause = (StopReason.NONE, "")
NOISE = 0.01  # rad by which a joint may be measured outside limits that were commanded to the very edge
FASTEST = 1.1  # speed scaling, above which it is no share: some give per cent
ASKED, NEAR = 5e-4, 1e-4  # rad; a command that leads further must be followed; a reference so near to it is where it was told to be
PAUSE, LONGEST = 1.0, 30.0  # s until a command that was not followed is tried again: at first, and at last


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How old inputs may be, s; tracking_error: rad between measured and reference; clock_jump: s."""

    image_timeout: float = 0.15
    joint_states_timeout: float = 0.1
    controller_timeout: float = 0.25
    tracking_error: float = 0.2
    clock_jump: float = 0.05


@dataclass(frozen=True)
class ControllerReport:
    """What the controller says: reference q, qd (J,), largest tracking error with its joint, speed scaling 0..1."""

    stamp: float
    q: Array
    qd: Array
    error: float
    joint: str
    speed: float = 1.0


class Doubt:
    """Whether a controller whose speed scaling has always been 0 is paused, or never sets it: its messages are the same.

    What it does tells. It gets one command, which ends at rest, and nothing more before that is known. A reference that goes along shows
    that the 0 means nothing: `settled`, and commands flow. Where it stays, or makes no more than the one step a paused controller makes on
    arrival, the controller is held for paused, which is no fault: the command is taken back, since it would be carried out whenever the
    pause ends, and is tried again after a while, each time a longer one. A speed above 0 settles it, too: from then on 0 is a pause.
    timeout: s from the command's end until it counts as not followed.
    """

    def __init__(self, timeout: float) -> None:
        self.settled = False
        self._timeout, self._pause = timeout, PAUSE
        self._stood: Array | None = None  # (J,), the reference when the command went out, then after its first step
        self._stepped = False
        self._now = self._deadline = self._again = self._end = float("-inf")

    @property
    def waits(self) -> bool:
        """Whether a command is out of which it is not known whether it is followed."""
        return self._stood is not None and not self.settled

    def sent(self, reference: Array, now: float, end: float) -> None:
        """The command went out while the reference was at (J,); it ends at `end`, s on the node's clock."""
        self._stood, self._stepped, self._end = reference, False, end
        self._deadline = self._now + (end - now) + self._timeout

    def taken_back(self) -> None:
        """The controller has been told to stay where it is."""
        self._stood = None
        if self._now > self._deadline:
            self._again, self._pause = self._now + self._pause, min(2 * self._pause, LONGEST)

    def paused(self, report: ControllerReport, commanded: Array, monotonic: float) -> bool:
        """Whether it is held for paused; asked in every tick. commanded (J,): what was commanded at the time of the report."""
        self._now = monotonic
        if self._stood is None:
            return monotonic < self._again
        asked, off = np.abs(commanded - self._stood), np.abs(report.q - commanded)
        j = int(asked.argmax())
        if not self._stepped and (report.q != self._stood).any():
            self._stood, self._stepped = report.q, True
        elif self._stepped and asked[j] > ASKED and off[j] < asked[j] / 2:
            self.settled = True
        elif off.max() < NEAR and report.stamp > self._end:  # it was asked for next to nothing
            self._stood = None
        return self.waits and monotonic > self._deadline


class SpeedSeen:
    """The speed scaling of a controller that is watched, and commanded by others.

    What has always been 0 says nothing, see Doubt: then a reference that has moved since the message before is at full speed, and one that
    has not is paused, whatever velocities it tells. So what moves is braked, and what is paused in the middle of a motion is left alone.
    """

    def __init__(self) -> None:
        self._scales = False
        self._q: Array | None = None

    def update(self, speed: float, q: Array) -> float:
        """The speed scaling at work, from what each message says of it and of the reference, q (J,)."""
        self._scales = self._scales or speed > 0.0
        moved = self._q is not None and bool((q != self._q).any())
        self._q = q
        return speed if self._scales else float(moved)


class Inputs:
    """Keeps the newest of every input; `cause` names the gravest thing wrong with them."""

    def __init__(self, robot: RobotConfig, bounds: Bounds) -> None:
        self._limits, self._bounds = robot.limits, bounds
        self.joints, self.plans = JointReader(robot), PlanBook()
        self.drops: Counter[str] = Counter()
        self.report: ControllerReport | None = None
        self.goal_id = ""
        self._image = Freshness("camera frame", bounds.image_timeout)
        self._joints = Freshness("joint state of the arm", bounds.joint_states_timeout)
        self._controller = Freshness("controller state", bounds.controller_timeout)
        self._bad_image = self._bad_joint_stamp = self._bad_controller = self._peer_lost = ""
        self._scales = False
        self.doubt = Doubt(bounds.controller_timeout)
        self._stops: dict[str, Cause] = {}
        self._no_goal: Cause = (StopReason.NO_GOAL, "no goal yet")

    def clock_jumped(self) -> None:
        """Forgets all whose times mean nothing any more."""
        self.plans.forget()
        self.joints.forget()
        self._bad_joint_stamp = ""
        self._image.forget()

    def goal(self, goal_id: str, active: bool, why_not: Cause = NO_CAUSE) -> None:
        """A goal to reach, or why there is none."""
        self.goal_id, self._no_goal = (goal_id, NO_CAUSE) if active else ("", why_not)

    def stop_asked(self, who: str, reason: StopReason, detail: str = "") -> None:
        """Somebody asks for a stop (the supervisor, the emergency stop, the node itself); NONE takes it back."""
        self._stops.pop(who, None)
        if reason:
            self._stops[who] = (reason, detail)

    def peer_lost(self, detail: str) -> None:
        """A node that must be there is gone; an empty text: it is back."""
        self._peer_lost = detail

    def image(self, stamp: float, now: float, monotonic: float) -> bool:
        """A camera frame that can be read arrived; False when its stamp cannot be right."""
        ahead, bound = stamp - now, self._bounds.clock_jump
        if ahead > bound:
            self.bad_image(f"image_raw: stamp is {ahead:.3f} s ahead of the clock, allowed {bound:g} s")
            return False
        self._bad_image = ""
        self._image.seen(monotonic)
        return True

    def bad_image(self, detail: str) -> None:
        """A camera frame arrived that cannot be used."""
        self._bad_image = detail
        self.drops["bad_image"] += 1

    def joint_states(
        self, stamp: float, names: list[str], positions: list[float], velocities: list[float], now: float, monotonic: float
    ) -> None:
        """A joint_states message."""
        if self.joints.read(stamp, names, positions, velocities):
            self._joints.seen(monotonic)
            self._bad_joint_stamp = self._fault_of_stamp(now - stamp)
        if self.joints.problem or self._bad_joint_stamp:
            self.drops["bad_joint_states"] += 1

    def controller(self, report: ControllerReport, monotonic: float) -> None:
        """The controller's state. Some leave the speed scaling at 0: it counts once it has been above, until then see `doubt`."""
        self._bad_controller = "" if 0.0 <= report.speed <= FASTEST else f"its speed scaling is {report.speed:g}, it must be 0 to 1"
        if self._bad_controller:
            self.drops["bad_controller_state"] += 1
            return
        self._scales = self._scales or report.speed > 0
        self.doubt.settled = self.doubt.settled or self._scales
        self.report = report if self._scales else replace(report, speed=1.0)
        self._controller.seen(monotonic)

    def cause(self, now: float, monotonic: float) -> Cause:
        """Why the arm must not follow the policy, if it must not; the gravest cause first."""
        lost: Cause = (StopReason.NODE_LOST, self._peer_lost) if self._peer_lost else NO_CAUSE
        for cause in (*self._stops.values(), lost, self._no_goal):
            if cause[0]:
                return cause
        for examine in (self._cause_of_joints, self._cause_of_controller, self._cause_of_image):
            found = examine(monotonic)
            if found[0]:
                return found
        plan = self.plans.usable(self.goal_id, now)
        return NO_CAUSE if isinstance(plan, Plan) else plan

    def _cause_of_image(self, monotonic: float) -> Cause:
        if self._bad_image:
            return StopReason.BAD_IMAGE, self._bad_image
        stale = self._image.problem(monotonic)
        return (StopReason.STALE_IMAGE, stale) if stale else NO_CAUSE

    def _cause_of_joints(self, monotonic: float) -> Cause:
        if problem := self.joints.problem or self._bad_joint_stamp:
            return StopReason.BAD_JOINT_STATES, problem
        stale = self._joints.problem(monotonic)
        if stale:
            others = f"; joint_states names only {self.joints.strangers}" if self.joints.strangers else ""
            return StopReason.STALE_JOINT_STATES, stale + others
        reading = self.joints.newest
        outside = None if reading is None else self._limits.outside(reading.q, NOISE)
        return (StopReason.LIMIT_VIOLATION, f"measured {outside}") if outside else NO_CAUSE

    def _fault_of_stamp(self, age: float) -> str:
        late, early = self._bounds.joint_states_timeout, self._bounds.clock_jump
        if age > late:
            return f"joint_states: came {age:.3f} s after their stamp, allowed {late:g} s"
        return f"joint_states: stamp is {-age:.3f} s ahead of the clock, allowed {early:g} s" if -age > early else ""

    def _cause_of_controller(self, monotonic: float) -> Cause:
        lost = self._controller.problem(monotonic)
        report, bound = self.report, self._bounds.tracking_error
        lost = self._bad_controller or lost
        if lost or report is None:
            return StopReason.CONTROLLER_LOST, lost or "no controller state yet"
        if abs(report.error) <= bound:
            return NO_CAUSE
        detail = f"{report.joint} is {abs(report.error):.3f} rad off its reference, allowed {bound:g} rad"
        return StopReason.CONTROLLER_TRACKING_ERROR, detail
