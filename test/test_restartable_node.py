"""A timer that is restarted while the executor already holds an expiry of it."""

from __future__ import annotations

import time

import pytest
import rclpy
from rclpy.experimental import EventsExecutor

from act2goal_ros.nodes.restartable import RestartableTimer

PERIOD = 0.2  # s


def test_the_next_call_is_a_period_after_a_restart_although_the_timer_had_expired(domain: int) -> None:
    calls: list[float] = []
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("restarts", context=context)
    executor = EventsExecutor(context=context)
    executor.add_node(node)
    timer = RestartableTimer(node, PERIOD, lambda: calls.append(time.monotonic()))
    restarted: list[float] = []

    def busy() -> None:
        time.sleep(1.5 * PERIOD)
        executor.create_task(restart)  # served after the executor has taken up the expiry, before the expiry itself

    def restart() -> None:
        timer.restart()
        restarted.append(time.monotonic())

    def run(duration: float) -> None:
        end = time.monotonic() + duration
        while time.monotonic() < end:
            executor.spin_once(0.02)

    try:
        run(2 * PERIOD)
        assert not calls, "it is started by restart() only"
        timer.restart()
        executor.create_task(busy)
        run(4.2 * PERIOD)
        first, second = calls[:2]
        assert first - restarted[0] == pytest.approx(PERIOD, abs=0.3 * PERIOD)
        assert second - first == pytest.approx(PERIOD, abs=0.3 * PERIOD)
        timer.cancel()
        seen = len(calls)
        run(2 * PERIOD)
        assert len(calls) == seen
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
