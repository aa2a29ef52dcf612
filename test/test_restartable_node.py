"""A timer that is restarted while the executor already holds an expiry of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.experimental import EventsExecutor

from act2goal_ros.nodes.restartable import RestartableTimer

PERIOD = 0.2  # s


class Bench:
    """A timer in an executor of this thread."""

    def __init__(self, domain: int) -> None:
        self.calls: list[float] = []
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("restarts", context=self.context)
        self.executor = EventsExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.timer = RestartableTimer(self.node, PERIOD, lambda: self.calls.append(time.monotonic()))

    def run(self, duration: float) -> None:
        end = time.monotonic() + duration
        while time.monotonic() < end:
            self.executor.spin_once(0.02)

    def with_an_expiry_held(self, action: Callable[[], None]) -> float:
        """Runs the action once the executor has taken up an expiry and before it serves it; returns when."""
        done: list[float] = []

        def act() -> None:
            action()
            done.append(time.monotonic())

        def busy() -> None:
            time.sleep(1.5 * PERIOD)
            self.executor.create_task(act)

        self.executor.create_task(busy)
        self.run(4.2 * PERIOD)
        return done[0]

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def bench(domain: int) -> Iterator[Bench]:
    found = Bench(domain)
    yield found
    found.close()


def test_the_next_call_is_a_period_after_a_restart_although_the_timer_had_expired(bench: Bench) -> None:
    bench.run(2 * PERIOD)
    assert not bench.calls, "it is started by restart() only"
    bench.timer.restart()
    restarted = bench.with_an_expiry_held(bench.timer.restart)
    first, second = bench.calls[:2]
    assert first - restarted == pytest.approx(PERIOD, abs=0.3 * PERIOD)
    assert second - first == pytest.approx(PERIOD, abs=0.3 * PERIOD)


def test_nothing_is_called_any_more_although_the_timer_had_expired(bench: Bench) -> None:
    bench.timer.restart()
    bench.with_an_expiry_held(lambda: (bench.timer.restart(), bench.timer.cancel())[0])
    assert not bench.calls
