"""What the supervisor decides, without ROS."""

from __future__ import annotations

import numpy as np
import pytest

from act2goal_ros.control.brake import Brake
from act2goal_ros.control.inputs import SpeedSeen
from act2goal_ros.control.limits import JointLimits
from act2goal_ros.control.oversight import ACTIVATE, CONFIGURE, FAULTY, Oversight, OversightLimits, Report
from act2goal_ros.control.stop import StopReason

NAMES = ("arm", "goal", "policy")
PERIOD = 0.05


def report(node: str, state: str = "active", instance: str = "", **more: object) -> Report:
    """A heartbeat of a healthy node."""
    return Report(node=node, instance=instance or f"{node}-1", pid=7, machine="m", since=1.0, state=state, **more)  # type: ignore[arg-type]


class Graph:
    """An oversight with a clock, all of whose nodes beat unless told otherwise."""

    def __init__(self) -> None:
        self.oversight = Oversight(NAMES, OversightLimits())
        self.now = 100.0
        self.offset = 1e9
        self.silent: set[str] = set()
        self.reports = {name: report(name) for name in NAMES}
        self.error = 0.0
        self.controller = True

    def run(self, seconds: float) -> None:
        """Lets time pass in ticks."""
        for _ in range(round(seconds / PERIOD)):
            self.now += PERIOD
            for name, beat in self.reports.items():
                if name not in self.silent:
                    self.oversight.heard(beat, self.now)
            if self.controller:
                self.oversight.controller({"elbow": self.error}, self.now)
            self.oversight.tick(self.now, self.now + self.offset, PERIOD)
            self.oversight.verdict(self.now)

    @property
    def verdict(self) -> tuple[bool, StopReason, str]:
        """The verdict now."""
        verdict = self.oversight.verdict(self.now)
        return verdict.active, verdict.reason, verdict.detail


@pytest.fixture
def graph() -> Graph:
    """A graph in which all is well."""
    graph = Graph()
    graph.run(1.0)
    assert graph.verdict == (False, StopReason.NONE, "")
    return graph


def test_nothing_moves_before_all_nodes_are_active() -> None:
    oversight = Oversight(NAMES)
    assert oversight.verdict(0.0).detail == "arm is not seen"
    oversight.heard(report("arm"), 0.0)
    oversight.heard(report("goal", "inactive"), 0.0)
    assert oversight.verdict(0.0).detail == "goal is inactive"
    oversight.heard(report("goal", "unconfigured", level=FAULTY, message="no model file x"), 0.1)
    assert oversight.verdict(0.1).detail == "goal is unconfigured: no model file x"


def test_configures_all_at_once_and_activates_in_order() -> None:
    oversight = Oversight(NAMES)
    for name in NAMES:
        oversight.heard(report(name, "unconfigured"), 0.0)
    assert oversight.transitions(0.0) == [(name, CONFIGURE) for name in NAMES]
    assert oversight.transitions(0.1) == []
    for name in reversed(NAMES):
        oversight.transition_done(name, True, 0.2)
    order = []
    for step in range(3):
        (name, what), *rest = oversight.transitions(0.3 + step)
        assert what == ACTIVATE and not rest
        order.append(name)
        oversight.transition_done(name, True, 0.3 + step)
    assert tuple(order) == NAMES


def test_a_failed_transition_is_tried_again_later() -> None:
    oversight = Oversight(("goal",))
    oversight.heard(report("goal", "unconfigured"), 0.0)
    assert oversight.transitions(0.0)
    oversight.transition_done("goal", False, 1.0)
    assert oversight.transitions(2.9) == []
    assert oversight.transitions(3.0) == [("goal", CONFIGURE)]


def test_a_node_is_not_lost_while_it_configures() -> None:
    oversight = Oversight(("goal",))
    oversight.heard(report("goal", "unconfigured"), 0.0)
    oversight.transitions(0.0)
    for k in range(200):
        oversight.tick(0.05 * k, 0.05 * k, PERIOD)
    assert oversight.nodes["goal"].lost == ""


def test_death_stops_at_once_and_the_successor_recovers(graph: Graph) -> None:
    assert graph.oversight.ended("policy-1") == "policy"
    assert graph.verdict == (True, StopReason.NODE_LOST, "policy ended (process 7)")
    graph.run(0.2)  # heartbeats of the dead process, still on their way
    assert graph.verdict[1] == StopReason.NODE_LOST
    graph.reports["policy"] = report("policy", "unconfigured", "policy-2")
    graph.run(PERIOD)
    assert graph.verdict == (True, StopReason.INACTIVE, "policy is unconfigured")
    assert graph.oversight.transitions(graph.now) == [("policy", CONFIGURE)]
    graph.reports["policy"] = report("policy", "active", "policy-2")
    graph.run(0.4)
    assert graph.verdict[0], "a stop lasts recovery_time beyond its cause"
    graph.run(0.3)
    assert not graph.verdict[0]


def test_a_silent_node_is_lost_and_comes_back(graph: Graph) -> None:
    graph.silent.add("goal")
    graph.run(0.45)
    assert not graph.verdict[0]
    graph.run(0.15)
    assert graph.verdict == (True, StopReason.NODE_LOST, "goal hangs or is cut off: no heartbeat for 0.5 s")
    graph.silent.clear()
    graph.run(1.0)
    assert not graph.verdict[0]


def test_being_held_up_itself_is_nobody_elses_silence(graph: Graph) -> None:
    graph.now += 3.0
    graph.oversight.tick(graph.now, graph.now + graph.offset, PERIOD)
    assert not graph.verdict[0]


def test_two_nodes_of_one_name_are_told(graph: Graph) -> None:
    for _ in range(20):
        graph.run(PERIOD)
        graph.oversight.heard(report("policy", instance="policy-2"), graph.now)
    assert graph.verdict[:2] == (True, StopReason.NODE_LOST)
    assert "two nodes named policy" in graph.verdict[2]
    graph.run(2.0)
    assert not graph.verdict[0]


def test_e_stop_goes_before_everything(graph: Graph) -> None:
    graph.oversight.ended("goal-1")
    graph.oversight.e_stop(True)
    assert graph.verdict[1] == StopReason.E_STOP
    graph.oversight.e_stop(False)
    assert graph.verdict[1] == StopReason.NODE_LOST


def test_tracking_error_names_joint_value_and_bound(graph: Graph) -> None:
    graph.error = -0.25
    graph.run(PERIOD)
    assert graph.verdict == (
        True,
        StopReason.CONTROLLER_TRACKING_ERROR,
        "elbow is 0.250 rad off its reference, allowed 0.2 rad",
    )
    graph.error = 0.15  # between the bound and its half: the stop stays
    graph.run(2.0)
    assert graph.verdict[0]
    graph.error = 0.05
    graph.run(1.0)
    assert not graph.verdict[0]


def test_a_controller_that_falls_silent_is_lost(graph: Graph) -> None:
    graph.controller = False
    graph.run(0.6)
    assert graph.verdict[:2] == (True, StopReason.CONTROLLER_LOST)


@pytest.mark.parametrize("jump", [-0.2, -1000.0, 0.2])
def test_a_jump_of_the_clock_stops_and_passes(graph: Graph, jump: float) -> None:
    graph.offset += jump
    graph.run(PERIOD)
    active, reason, detail = graph.verdict
    assert active and reason == StopReason.CLOCK_JUMP
    assert f"{abs(jump):.3f} s" in detail and "0.05 s" in detail
    graph.run(2.0)
    assert not graph.verdict[0]


def test_simulated_time_may_stand_and_leap_ahead_but_not_go_back() -> None:
    oversight = Oversight(("goal",))
    now = 0.0
    for clock, reason in ((50.0, "NONE"), (50.0, "NONE"), (58.0, "NONE"), (57.9, "CLOCK_JUMP")):
        now += PERIOD
        oversight.heard(report("goal"), now)
        oversight.controller({"elbow": 0.0}, now)
        oversight.tick(now, clock, PERIOD, stepped=True)
        assert oversight.verdict(now).reason.name == reason


def test_a_fault_of_a_node_stops_but_the_policys_own_reasons_do_not(graph: Graph) -> None:
    fault = {"level": FAULTY, "stop_reason": StopReason.MODEL_FAULT, "message": "NaN"}
    graph.reports["policy"] = report("policy", **fault)
    graph.run(0.2)
    assert not graph.verdict[0]
    graph.reports["goal"] = report("goal", **fault)
    graph.run(0.2)
    assert graph.verdict == (True, StopReason.MODEL_FAULT, "goal: NaN")


def test_a_node_deactivated_by_hand_is_left_alone(graph: Graph) -> None:
    graph.reports["goal"] = report("goal", "inactive")
    graph.run(1.0)
    assert graph.oversight.transitions(graph.now) == []
    assert graph.verdict == (True, StopReason.INACTIVE, "goal is inactive")


def test_the_detail_of_a_lasting_cause_does_not_change(graph: Graph) -> None:
    graph.error = 0.3
    graph.run(PERIOD)
    first = graph.verdict
    graph.error = 0.5
    graph.run(1.0)
    assert graph.verdict == first


def test_diagnostics_have_a_row_for_the_whole_and_every_node(graph: Graph) -> None:
    graph.oversight.ended("goal-1")
    rows = graph.oversight.summary(graph.oversight.verdict(graph.now))
    assert [row[0] for row in rows] == ["arm", *NAMES]
    assert rows[0][1:3] == (1, "NODE_LOST: goal ended (process 7)")
    assert rows[2][1] == FAULTY and rows[1][1] == 0


def test_a_tracking_error_that_is_not_a_number_hides_no_other(graph: Graph) -> None:
    graph.oversight.controller({"pan": float("nan"), "elbow": 3.0}, graph.now)
    assert graph.verdict[:2] == (True, StopReason.CONTROLLER_TRACKING_ERROR)
    assert "pan is nan" in graph.verdict[2]


@pytest.mark.parametrize(
    ("told", "moves", "brakes"),
    [(1.0, True, True), (0.0, True, True), (0.0, False, False)],
    ids=["speed told", "speed never set", "paused from the start, in the middle of a motion"],
)
def test_what_moves_is_braked_though_its_speed_scaling_is_never_set_and_what_is_paused_is_not(told, moves, brakes) -> None:
    one = np.ones(1)
    brake, seen = Brake(JointLimits(("j",), -100 * one, 100 * one, 2 * one, 5 * one, 50 * one)), SpeedSeen()
    for k in range(3):
        q = 0.01 * k * moves * one
        brake.reference(50.0 + 0.01 * k, q, one, 0 * one, seen.update(told, q))
    assert (brake.trajectory(50.03) is not None) == brakes


def test_a_speed_scaling_of_0_is_a_pause_once_it_has_been_above() -> None:
    seen, moving = SpeedSeen(), iter(np.arange(10.0)[:, None])
    told = (0.0, 0.0, 0.5, 0.0)
    assert [seen.update(speed, next(moving)) for speed in told] == [0.0, 1.0, 0.5, 0.0]
