"""The whole graph on stepped, simulated time. In a file of its own: no other graph runs beside it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from ros_tools import wait_for
from rosgraph_msgs.msg import Clock
from test_system import started

from act2goal_ros.control.stop import StopReason
from act2goal_ros.nodes import qos

pytestmark = pytest.mark.system


def test_a_clock_that_jumps_back_stops_the_arm_and_motion_resumes(tmp_path: Path) -> None:
    with started(tmp_path, "use_sim_time:=true", "record:=false") as system:
        clocks: list[Clock] = system.probe.listen(Clock, "/clock", qos.SENSOR)
        system.probe.advertise(Clock, "/clock", qos.SENSOR)
        system.set_off()
        wait_for(lambda: clocks[-1].clock.sec > 2, 20.0, "/clock")
        system.wait_moving()
        since, back = len(system.statuses), clocks[-1]
        back.clock.sec -= 2
        for _ in range(100):  # the simulated arm publishes its own time in between, a hundred times a second
            system.probe.publish("/clock", back)
            time.sleep(0.003)
        system.expect_stop(since, StopReason.CLOCK_JUMP, "back")
        system.wait_moving()
