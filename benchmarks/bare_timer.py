"""A node with nothing to do but publish at a fixed rate: what the machine and the middleware miss by themselves.

publishes tick (std_msgs/Float64: its monotonic clock, s); its heartbeat carries command_periods and command_missed, as
the policy's does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from act2goal_msgs.msg import NodeStatus
from rclpy.clock import Clock, ClockType
from std_msgs.msg import Float64

from act2goal_ros.control.watchdog import Periods
from act2goal_ros.nodes import qos
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.parameters import NodeParameters, param


@dataclass(frozen=True, kw_only=True)
class BareTimerParameters(NodeParameters):
    """Parameters of the bare timer."""

    rate: float = param(50.0, "Hz", "ticks a second", low=1.0, high=1000.0)


class BareTimer(ManagedNode[BareTimerParameters]):
    """A timer like the policy's, and its count."""

    def __init__(self) -> None:
        super().__init__("bare_timer", BareTimerParameters)

    def setup(self) -> None:
        self._out = self.own(self.create_publisher(Float64, "tick", qos.COMMAND))
        self._periods = Periods(1.0 / self.p.rate)

    def start(self) -> None:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.own(self.create_timer(1.0 / self.p.rate, self._tick, clock=steady))

    def _tick(self) -> None:
        now = time.monotonic()
        self._out.publish(Float64(data=now))
        self._periods.published(now)
        counted = {"command_periods": self._periods.count, "command_missed": self._periods.missed}
        self.report(NodeStatus.OK, "ticking", **counted)


if __name__ == "__main__":
    run(BareTimer)
