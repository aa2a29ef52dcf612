"""A model of ros2_controllers' gripper action controller with a position command."""

from collections.abc import Hashable
from dataclasses import dataclass

GOAL_TOLERANCE = 0.02  # rad; as in the Robotiq driver's configuration, whose fully closed joint stops short of its range
STALL_VELOCITY = 0.001  # rad/s
STALL_TIMEOUT = 0.1  # s


@dataclass(frozen=True)
class GripperOutcome:
    """The end of a gripper goal; `position` rad. A gripper that stalls on an object has succeeded."""

    goal_id: Hashable
    position: float
    reached: bool
    stalled: bool
    canceled: bool = False


class GripperController:
    """Holds the commanded position, rad between `open_at` and `closed_at`, and says when a goal has ended."""

    def __init__(self, open_at: float, closed_at: float) -> None:
        self.open_at, self.closed_at = open_at, closed_at
        self.target = open_at
        self._goal: Hashable | None = None
        self._moved = 0.0
        self._outcomes: list[GripperOutcome] = []

    @property
    def fraction(self) -> float:
        """The command as 0 open .. 1 closed."""
        return (self.target - self.open_at) / (self.closed_at - self.open_at)

    @property
    def active_goal(self) -> Hashable | None:
        return self._goal

    def command(self, fraction: float) -> None:
        """From the topic: 0 open .. 1 closed; an active goal goes on and is judged by the new command.

        Raises:
            ValueError: outside 0 .. 1 or not finite.
        """
        if not 0.0 <= fraction <= 1.0:
            raise ValueError(f"gripper command is {fraction}, must be 0 (open) .. 1 (closed)")
        self.target = self.open_at + fraction * (self.closed_at - self.open_at)

    def check(self, position: float) -> None:
        """Raises ValueError where a goal in rad is outside the gripper's range or not finite."""
        low, high = sorted((self.open_at, self.closed_at))
        if not low <= position <= high:
            raise ValueError(f"gripper goal is {position} rad, must be {low:g} .. {high:g} rad")

    def submit_goal(self, goal_id: Hashable, position: float, now: float, measured: float) -> None:
        """From the action: a joint position in rad; the older goal ends as canceled. ValueError as check()."""
        self.check(position)
        if self._goal is not None:
            self._end(measured, canceled=True)
        self._goal, self.target, self._moved = goal_id, position, now

    def cancel(self, goal_id: Hashable, measured: float) -> bool:
        """Ends the active goal and holds the measured position; False where `goal_id` is not the active one."""
        if self._goal is None or self._goal != goal_id:
            return False
        self._end(measured, canceled=True)
        low, high = sorted((self.open_at, self.closed_at))
        self.target = min(max(measured, low), high)
        return True

    def update(self, now: float, position: float, velocity: float) -> None:
        """Judges the active goal by the measured joint, rad and rad/s."""
        if self._goal is None:
            return
        if abs(self.target - position) < GOAL_TOLERANCE:
            self._end(position, reached=True)
        elif abs(velocity) > STALL_VELOCITY:
            self._moved = now
        elif now - self._moved > STALL_TIMEOUT:
            self._end(position, stalled=True)

    def reset(self, position: float) -> None:
        """Opens; an active goal ends as canceled."""
        if self._goal is not None:
            self._end(position, canceled=True)
        self.target = self.open_at

    def take_outcomes(self) -> list[GripperOutcome]:
        """Goals that ended since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _end(self, position: float, *, reached: bool = False, stalled: bool = False, canceled: bool = False) -> None:
        self._outcomes.append(GripperOutcome(self._goal, position, reached, stalled, canceled))
        self._goal = None
