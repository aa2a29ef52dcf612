"""An episode in the plain loop's timing, for policies that are no model bundle."""

from collections import deque
from collections.abc import Callable

from act2goal_ros.control.chunk import ActionChunk, Array
from act2goal_ros.learning.evaluate import TICK
from act2goal_ros.learning.execution import Execution
from act2goal_ros.sim.arm import SimulatedArm

Act = Callable[[float, Array | None], ActionChunk]  # time, rows that are committed already → a chunk of this time


class Episode:
    """One episode of an arm that was reset: a chunk every `period` s at most, which takes effect `delay` s later."""

    def __init__(self, arm: SimulatedArm, execution: Execution, act: Act, period: float, delay: float) -> None:
        self._arm, self._execution, self._act, self._period, self._delay = arm, execution, act, period, delay
        self._waiting: deque[tuple[float, ActionChunk]] = deque()
        self._next = 0.0

    def run(self, until_success: bool) -> tuple[float | None, bool | None]:
        """When it succeeded, s, and whether it ended so, at rest and released; None: it did not, and is not known."""
        arm = self._arm
        while arm.time < arm.episode_limit - 1e-9:
            self._tick(arm.time)
            if until_success and arm.succeeded_at is not None:
                break
        return arm.succeeded_at, None if until_success else arm.at_rest_and_released()

    def _tick(self, now: float) -> None:
        while self._waiting and now >= self._waiting[0][0] - 1e-9:
            self._execution.adopt(self._waiting.popleft()[1], now)
        if now >= self._next - 1e-9 and not self._waiting:
            self._next += self._period
            self._waiting.append((now + self._delay, self._act(now, self._execution.prefix(now, self._delay))))
        set_points, gripper = self._execution.command(now + TICK)
        for q in set_points:
            self._arm.step(q, gripper)
