"""A timer that can be started anew from other callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType


class RestartableTimer:
    """Calls back every `period` s of steady time once restart() was called, and always a whole period after restart().

    An expiry that the executor holds when a timer of rclpy is reset is served nevertheless, and puts the next one off by a period:
    a call too early, then a gap of two periods. Here such an expiry only starts the timer anew. Hand it to own(); not for
    several threads.
    """

    def __init__(self, node: Any, period: float, callback: Callable[[], None]) -> None:
        self._node, self._callback, self._late = node, callback, 0.5 * period
        self._restarted = 0.0
        self._timer = node.create_timer(period, self._expired, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._timer.cancel()

    def restart(self) -> None:
        """Starts, or starts anew: the next call is a period from now."""
        self._restarted = time.monotonic()
        self._timer.reset()

    def cancel(self) -> None:
        """No more calls until the next restart()."""
        self._timer.cancel()

    def destroy(self) -> None:
        """Takes the timer off its node."""
        self._node.destroy_timer(self._timer)

    def _expired(self) -> None:
        if self._timer.is_canceled():
            return
        if time.monotonic() - self._restarted < self._late:
            self._timer.reset()
        else:
            self._callback()
