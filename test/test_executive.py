"""The executive on a clock of its own: what it sends, every cause to stop, and how motion resumes."""

from __future__ import annotations

import dataclasses
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from act2goal_ros.control import inference
from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.executive import WARM_UP, Decision, Executive, Settings, State
from act2goal_ros.control.inputs import LONGEST, Bounds, ControllerReport, Doubt
from act2goal_ros.control.planbook import Selected
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason as Reason

ROBOT = RobotConfig.load("ur5e_sim")
NAMES = list(ROBOT.joint_names)
START, TICK, SPEED = 1.76e9, 0.02, 0.5
FRAMES = 4


@dataclass
class World:
    """Inputs that are right unless told otherwise, and a policy that asks for a ramp."""

    executive: Executive = field(default_factory=lambda: Executive(ROBOT, Settings(bounds=Bounds(tracking_error=0.2))))
    now: float = START
    monotonic: float = 50.0
    missing: set[str] = field(default_factory=set)
    error: float = 0.0
    speed: float = 1.0
    offset: float = 0.0  # of the controller's reference from the command
    began: float = START
    sent: list[tuple[float, Decision]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.executive.inputs.goal("g", True)

    def feed(self) -> None:
        inputs, executive = self.executive.inputs, self.executive
        q, v = executive.commanded(self.now)
        q, v = (np.zeros(6), np.zeros(6)) if len(q) == 0 else (q + self.offset, v)
        if "joints" not in self.missing:
            inputs.joint_states(self.now, NAMES, q.tolist(), v.tolist(), self.now, self.monotonic)
        if "controller" not in self.missing:
            report = ControllerReport(self.now, q, v, self.error, "elbow_joint", self.speed)
            inputs.controller(report, self.monotonic)
        if "plan" not in self.missing:
            self.plan()
        if "image" not in self.missing and inputs.image(self.now, self.now, self.monotonic):
            self.infer()

    def plan(self, goal_id: str = "g") -> None:
        plans = self.executive.inputs.plans
        plans.add_plan("p", self.now, 0.4 * np.arange(1, FRAMES + 1))
        plans.add_features("p", np.zeros((1, FRAMES, 1, 1), np.float32))
        plans.select(Selected("p", goal_id, np.array([0, 3]), 0.0, self.now + 1.5))

    def infer(self, delay: float = 0.0, rows: np.ndarray | None = None) -> bool | None:
        """An inference that takes no time; None when none was asked for."""
        request = self.executive.request(self.now, self.now, self.monotonic)
        if request is None:
            return None
        if rows is None:
            rows = SPEED * (self.now - self.began + 0.05 * np.arange(1, 17))[:, None] * np.ones(6)
        return self.executive.chunk_made(request, ActionChunk(self.now, 0.05, rows, np.full(16, 0.7)), self.now + delay)

    def run(self, seconds: float, jump: float = 0.0) -> Decision:
        for _ in range(round(seconds / TICK)):
            self.feed()
            decision = self.executive.tick(self.now, self.monotonic)
            self.sent.append((self.now, decision))
            self.now, self.monotonic = self.now + TICK, self.monotonic + TICK
        return decision

    def moving(self) -> World:
        """In steady motion."""
        self.began = self.now + 0.1
        decision = self.run(1.0)
        assert decision.state == State.RUNNING, decision
        return self


def check_continuous(world: World) -> None:
    """Every trajectory starts in the state the one before has at that time, and ends at rest."""
    last = None
    for _, decision in world.sent:
        new = decision.trajectory
        if new is None:
            continue
        assert not new.velocities[-1].any()
        if last is not None:
            q, v, _ = last.sample(new.start)
            assert np.abs(q - new.positions[0]).max() < 1e-5 and np.abs(v - new.velocities[0]).max() < 1e-4
        last = new


def test_it_runs_when_everything_is_right() -> None:
    world = World().moving()
    decision = world.run(0.2)
    assert decision.reason == Reason.NONE and decision.gripper == pytest.approx(0.7)
    assert decision.trajectory is not None and decision.trajectory.start == pytest.approx(world.sent[-1][0] + 0.01, abs=0.0025)
    q, v = world.executive.commanded(world.now)
    assert v == pytest.approx(np.full(6, SPEED), abs=0.01)
    assert q == pytest.approx(np.full(6, SPEED * (world.now - world.began)), abs=0.005)
    check_continuous(world)


def test_it_begins_by_waiting_and_saying_for_what() -> None:
    world = World()
    world.executive.inputs.goal("", False, (Reason.NO_GOAL, "no goal"))
    world.missing = {"joints", "controller", "plan", "image"}
    assert (world.run(0.1).state, world.run(0.1).reason) == (State.IDLE, Reason.NO_GOAL)
    world.executive.inputs.goal("g", True)
    for missing, reason in ((3, Reason.STALE_JOINT_STATES), (2, Reason.CONTROLLER_LOST), (1, Reason.STALE_IMAGE)):
        assert world.run(0.7).reason == reason  # faults linger
        world.missing.discard({3: "joints", 2: "controller", 1: "image"}[missing])
    assert world.run(0.8).reason == Reason.NO_SELECTION
    world.missing.clear()
    world.began = world.now
    assert world.run(0.5).state == State.RUNNING


CAUSES = {
    "image": (Reason.STALE_IMAGE, 0.15),
    "joints": (Reason.STALE_JOINT_STATES, 0.1),
    "controller": (Reason.CONTROLLER_LOST, 0.25),
    "plan": (Reason.STALE_PLAN, 1.5),
}


@pytest.mark.parametrize("what", CAUSES)
def test_an_input_that_ceases_brakes_in_time(what) -> None:
    reason, bound = CAUSES[what]
    world = World().moving()
    ceased = world.now - TICK
    world.missing.add(what)
    world.run(bound + 1.5)
    at, first = next((t, d) for t, d in world.sent if d.state == State.BRAKING)
    assert first.reason == reason and "allowed" in first.detail
    assert bound - 0.001 <= at - ceased <= bound + 0.045, at - ceased
    assert first.trajectory is not None and first.trajectory.end - at < 0.25
    assert world.sent[-1][1].state == State.HOLDING and world.sent[-1][1].trajectory is None
    check_continuous(world)
    world.missing.clear()
    world.began = world.now - float(world.executive.commanded(world.now)[0][0]) / SPEED
    assert world.run(1.0).state == State.RUNNING
    check_continuous(world)


@pytest.mark.parametrize(
    ("provoke", "reason", "words"),
    [
        (lambda w: w.executive.inputs.stop_asked("supervisor", Reason.E_STOP, "pressed"), Reason.E_STOP, "pressed"),
        (lambda w: w.executive.inputs.peer_lost("supervisor: its process ended"), Reason.NODE_LOST, "ended"),
        (lambda w: w.executive.inputs.goal("", False, (Reason.GOAL_REACHED, "there")), Reason.GOAL_REACHED, "there"),
        (lambda w: w.executive.inputs.goal("h", True), Reason.NO_SELECTION, "the goal is 'h'"),
        (lambda w: w.executive.model_failed("boom"), Reason.MODEL_FAULT, "boom"),
        (lambda w: w.infer(rows=np.full((16, 6), np.nan)), Reason.BAD_CHUNK, "shoulder_pan_joint is not finite"),
        (lambda w: w.infer(delay=0.4), Reason.DELAY_OVER_BUDGET, "0.400 s after its image, allowed 0.3 s"),
        (lambda w: setattr(w, "error", 0.3), Reason.CONTROLLER_TRACKING_ERROR, "elbow_joint is 0.300 rad off"),
        (lambda w: w.executive.inputs.image(w.now + 1, w.now, w.monotonic), Reason.BAD_IMAGE, "1.000 s ahead"),
    ],
)
def test_a_cause_brakes_at_the_next_tick(provoke, reason, words) -> None:
    world = World().moving()
    world.feed()
    provoke(world)
    if reason == Reason.CONTROLLER_TRACKING_ERROR:
        world.feed()
    decision = world.executive.tick(world.now, world.monotonic)
    world.sent.append((world.now, decision))
    assert (decision.state, decision.reason) == (State.BRAKING, reason) and words in decision.detail
    assert decision.trajectory is not None and decision.trajectory.start - world.now <= 0.021
    check_continuous(world)


def test_a_fault_lingers_and_other_causes_do_not() -> None:
    world = World().moving()
    world.infer(rows=np.full((16, 6), np.nan))
    world.executive.tick(world.now, world.monotonic)
    assert world.run(0.4).reason == Reason.BAD_CHUNK
    world.began = world.now + 0.1 - float(world.executive.commanded(world.now)[0][0]) / SPEED
    assert world.run(0.3).state == State.RUNNING
    world.executive.inputs.stop_asked("e_stop", Reason.E_STOP, "pressed")
    assert world.run(0.5).state == State.HOLDING
    world.executive.inputs.stop_asked("e_stop", Reason.NONE)
    world.began = world.now - float(world.executive.commanded(world.now)[0][0]) / SPEED
    assert world.run(0.1).state == State.RUNNING
    check_continuous(world)


def test_a_chunk_of_a_run_that_was_stopped_is_dropped() -> None:
    world = World().moving()
    request = world.executive.request(world.now, world.now, world.monotonic)
    assert request is not None
    world.executive.inputs.stop_asked("e_stop", Reason.E_STOP, "pressed")
    world.executive.tick(world.now, world.monotonic)
    world.executive.inputs.stop_asked("e_stop", Reason.NONE)
    chunk = ActionChunk(world.now, 0.05, np.zeros((16, 6)), np.zeros(16))
    assert not world.executive.chunk_made(request, chunk, world.now)
    assert world.executive.inputs.drops["chunk_of_stopped_run"] == 1


def test_no_new_chunk_is_a_delay_over_budget() -> None:
    world = World().moving()
    world.infer = lambda *_: None  # type: ignore[method-assign]
    world.run(0.6)
    assert next(d for _, d in world.sent if d.state == State.BRAKING).reason == Reason.DELAY_OVER_BUDGET


@pytest.mark.parametrize(("jump", "way"), [(-100.0, "back"), (100.0, "ahead")])
def test_the_clock_may_jump(jump, way) -> None:
    world = World().moving()
    world.now += jump
    world.began += jump
    world.feed()
    decision = world.executive.tick(world.now, world.monotonic)
    assert (decision.state, decision.reason) == (State.BRAKING, Reason.CLOCK_JUMP)
    assert f"jumped {way} by 100." in decision.detail or f"jumped {way} by 99.9" in decision.detail
    assert decision.trajectory is not None and 0 < decision.trajectory.start - world.now < 0.03  # on the new clock
    world.now, world.monotonic = world.now + TICK, world.monotonic + TICK
    world.missing.add("plan")  # those there were went with the old clock: the fault is what is told
    world.run(0.4)
    assert (world.executive.decision.state, world.executive.decision.reason) == (State.HOLDING, Reason.CLOCK_JUMP)
    world.run(0.2)
    assert world.executive.decision.reason == Reason.NO_SELECTION
    world.missing.clear()
    world.began = world.now + 0.2 - float(world.executive.commanded(world.now)[0][0]) / SPEED
    assert world.run(0.8).state == State.RUNNING


def test_a_controller_that_does_not_follow_is_noticed_and_braked_where_it_is() -> None:
    world = World().moving()
    world.offset = -0.15
    world.feed()
    decision = world.executive.tick(world.now, world.monotonic)
    assert (decision.state, decision.reason) == (State.BRAKING, Reason.CONTROLLER_TRACKING_ERROR)
    assert "0.150 rad off the command, allowed 0.1 rad" in decision.detail
    report = world.executive.inputs.report
    assert report is not None and decision.trajectory is not None
    assert np.abs(decision.trajectory.positions[0] - report.q - 0.01 * report.qd).max() < 0.01


def test_it_starts_from_where_the_controller_stands() -> None:
    world = World()
    world.run(0.04)
    world.executive.inputs.goal("", False, (Reason.NO_GOAL, "no goal"))
    world.offset = 0.0
    world.missing = {"joints", "controller", "image"}
    elsewhere = ControllerReport(world.now, np.full(6, 0.3), np.zeros(6), 0.0, NAMES[0])
    for _ in range(3):
        world.executive.inputs.controller(elsewhere, world.monotonic)
        world.run(TICK)
    assert world.executive.commanded(world.now)[0] == pytest.approx(np.full(6, 0.3))


def test_a_paused_controller_is_a_pause_not_an_error() -> None:
    world = World().moving()
    world.speed = 0.0
    paused = world.run(1.0)
    assert paused.reason == Reason.NONE and paused.state in (State.BRAKING, State.HOLDING)
    assert sum(d.trajectory is not None for _, d in world.sent[-45:]) <= 1, "what was sent stays: sent anew it would tremble"
    q = world.executive.commanded(world.now)[0]
    world.run(0.5)
    assert world.executive.commanded(world.now)[0] == pytest.approx(q)
    world.speed = 1.0
    world.began = world.now + 0.2 - float(q[0]) / SPEED
    assert world.run(0.5).state == State.RUNNING
    assert not [d for _, d in world.sent if d.reason == Reason.CONTROLLER_TRACKING_ERROR]


def test_the_prefix_is_what_will_be_commanded() -> None:
    world = World().moving()
    world.feed()
    world.executive.tick(world.now, world.monotonic)
    request = world.executive.request(world.now - 0.03, world.now, world.monotonic)
    assert request is not None and request.prefix is not None
    assert request.prefix.shape == (1, 7)
    expected = world.executive.commanded(world.now + 0.02)[0]
    assert request.prefix[0, :6] == pytest.approx(expected) and request.prefix[0, 6] == pytest.approx(0.7)
    assert request.plan.mask.tolist() == [True, False, False, True]


def test_under_a_long_delay_the_prefix_goes_on_with_the_chunk_not_with_the_braking_tail() -> None:
    world = World().moving()
    for _ in range(100):
        world.executive.delays.add(0.28)
    request = world.executive.request(world.now, world.now, world.monotonic)
    assert request is not None and request.prefix is not None
    asked = SPEED * (world.now - world.began + 0.05 * np.arange(1, 7))
    assert request.prefix[:, 0] == pytest.approx(asked, abs=0.01)
    assert request.prefix[:, 6] == pytest.approx(0.7)
    assert world.executive.stream.state_at(world.now + 0.3)[0][0] < asked[-1] - 0.03  # where the arm would be, told nothing more


def test_with_every_chunk_over_budget_the_arm_holds_and_says_so_until_they_come_in_time() -> None:
    world = World().moving()
    in_time = world.infer
    world.infer = lambda *_: in_time(delay=0.4)
    world.run(0.5)
    stopped = world.executive.commanded(world.now)[0]
    count, dropped = len(world.sent), world.executive.inputs.drops["delay_over_budget"]
    world.run(2.0)
    assert {(d.state, d.reason) for _, d in world.sent[count:]} == {(State.HOLDING, Reason.DELAY_OVER_BUDGET)}
    assert all("0.400 s after its image, allowed 0.3 s" in d.detail for _, d in world.sent[count:])
    assert (world.executive.commanded(world.now)[0] == stopped).all()
    assert world.executive.inputs.drops["delay_over_budget"] >= dropped + 40
    check_continuous(world)
    world.infer = in_time
    world.began = world.now - float(stopped[0]) / SPEED
    assert world.run(1.0).state == State.RUNNING
    check_continuous(world)


def test_both_joins_give_a_prefix_and_average() -> None:
    world = World(Executive(ROBOT, Settings(bounds=Bounds(tracking_error=0.2)), join="both")).moving()
    request, newest = world.executive.request(world.now, world.now, world.monotonic), world.executive.chunk
    assert request is not None and request.prefix is not None and newest is not None
    assert world.infer(rows=newest.positions + 0.1)
    assert world.executive.tick(world.now, world.monotonic).state == State.RUNNING
    assert world.executive.chunk is not None
    assert 0.0 < (world.executive.chunk.positions - newest.positions)[0, 0] < 0.05


def test_at_a_limit_a_chunk_that_asks_for_slightly_more_is_followed_up_to_the_limit() -> None:
    world = World(Executive(ROBOT, Settings(bounds=Bounds(tracking_error=0.2)))).moving()
    infer = world.infer
    upper = float(ROBOT.limits.upper[NAMES.index("elbow_joint")])

    def beyond() -> bool | None:
        ramp = SPEED * (world.now - world.began + 0.05 * np.arange(1, 17))[:, None] * np.ones(6)
        return infer(rows=np.minimum(ramp, upper + 0.08))

    world.infer = beyond
    decision = world.run(7.0)
    assert decision.state == State.RUNNING, decision
    elbow = world.executive.commanded(world.now)[0][NAMES.index("elbow_joint")]
    assert upper - 0.02 < elbow <= upper
    check_continuous(world)


def test_with_an_ensemble_chunks_are_averaged_until_the_arm_stops() -> None:
    world = World(Executive(ROBOT, Settings(bounds=Bounds(tracking_error=0.2)), join="ensemble")).moving()
    request, newest = world.executive.request(world.now, world.now, world.monotonic), world.executive.chunk
    assert request is not None and request.prefix is None and newest is not None
    rows = newest.positions + 0.1
    assert world.infer(rows=rows)
    assert world.executive.tick(world.now, world.monotonic).state == State.RUNNING
    joined = world.executive.chunk
    assert joined is not None and (joined.positions[0] < rows[0]).all() and (joined.positions[0] > newest.positions[0]).all()
    world.executive.inputs.stop_asked("e_stop", Reason.E_STOP, "pressed")
    assert world.run(0.3).state == State.HOLDING
    assert world.executive.chunk is None
    world.executive.inputs.stop_asked("e_stop", Reason.NONE)
    rows, infer = np.repeat(world.executive.commanded(world.now)[0][None], 16, axis=0), world.infer
    world.infer = lambda: infer(rows=rows)  # type: ignore[method-assign]
    assert world.run(0.1).state == State.RUNNING
    assert world.executive.chunk is not None and world.executive.chunk.positions == pytest.approx(rows)


def test_commands_that_cover_now_start_now() -> None:
    world = World()
    world.executive.cover_now = True
    world.moving()
    at, decision = world.sent[-1]
    assert decision.trajectory is not None and -0.0125 <= decision.trajectory.start - at <= 0.0
    check_continuous(world)


def test_delays_leave_the_warm_up_out() -> None:
    world = World(missing={"image"})
    delays = world.executive.delays

    def step(delay: float, infers: bool = True) -> Decision:
        """A camera frame, and the tick that follows after `delay`, with the frame's chunk or without one."""
        world.feed()
        world.executive.inputs.image(world.now, world.now, world.monotonic)
        if infers:
            world.infer()
        world.now, world.monotonic = world.now + delay, world.monotonic + delay
        world.feed()
        return world.executive.tick(world.now, world.monotonic)

    for _ in range(2):
        for _ in range(50):
            step(TICK, infers=False)  # until nothing is the matter any more
        slow = [step(0.14) for _ in range(WARM_UP)]
        fast = [step(TICK) for _ in range(5)]
        assert {decision.state for decision in slow + fast} == {State.RUNNING}
        assert delays.last == pytest.approx(TICK, abs=1e-6) and delays.percentile(100) == pytest.approx(TICK, abs=1e-6)
        assert world.run(1.0).state == State.HOLDING, "no picture comes"


@pytest.mark.parametrize(
    ("age", "detail"),
    [(0.3, "came 0.300 s after their stamp, allowed 0.1 s"), (-0.2, "stamp is 0.200 s ahead of the clock, allowed 0.05 s")],
)
def test_joint_states_whose_stamps_cannot_be_right_stop_the_arm(age: float, detail: str) -> None:
    world = World().moving()
    world.missing.add("joints")
    world.executive.inputs.joint_states(world.now - age, NAMES, [0.0] * 6, [0.0] * 6, world.now, world.monotonic)
    decision = world.executive.tick(world.now, world.monotonic)
    assert (decision.reason, decision.detail) == (Reason.BAD_JOINT_STATES, f"joint_states: {detail}")
    assert world.executive.inputs.drops["bad_joint_states"] == 1


def test_a_joint_measured_a_little_outside_its_limit_goes_on() -> None:
    world = World().moving()
    world.missing.add("joints")
    q = [0.0, ROBOT.limits.upper[1] + 0.004, 0.0, 0.0, 0.0, 0.0]
    world.executive.inputs.joint_states(world.now, NAMES, q, [0.0] * 6, world.now, world.monotonic)
    assert world.executive.tick(world.now, world.monotonic).state == State.RUNNING


def test_measured_positions_outside_the_limits_stop_everything() -> None:
    world = World().moving()
    world.missing.add("joints")
    world.executive.inputs.joint_states(world.now, NAMES, [0.0, 7.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 6, world.now, world.monotonic)
    decision = world.executive.tick(world.now, world.monotonic)
    assert decision.reason == Reason.LIMIT_VIOLATION
    assert "shoulder_lift_joint is 7.0000 rad, outside [-6.2832" in decision.detail


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"positions": np.empty((0, 6)), "gripper": np.empty(0)}, Reason.BAD_CHUNK, "shape (0, 6), expected (P, 6) with P ≥ 1"),
        ({"positions": np.zeros((16, 5))}, Reason.BAD_CHUNK, "shape (16, 5), expected (P, 6)"),
        ({"gripper": np.zeros(3)}, Reason.BAD_CHUNK, "gripper of shape (3,), expected (16,)"),
        ({"gripper": np.full(16, np.nan)}, Reason.BAD_CHUNK, "gripper in row 0 is nan"),
        ({"dt": 0.0}, Reason.BAD_CHUNK, "dt 0.0 s, expected finite and > 0"),
        ({"dt": np.nan}, Reason.BAD_CHUNK, "dt nan s"),
        ({"stamp": np.nan}, Reason.BAD_CHUNK, "stamp nan s"),
        ({"stamp": START - 5.0}, Reason.DELAY_OVER_BUDGET, "after its image, allowed 0.3 s"),
        ({"stamp": START + 5.0}, Reason.BAD_CHUNK, "s ahead of the clock, allowed 0.05 s"),
        ({"stamp": START + 0.9, "dt": 0.001, "positions": np.zeros((16, 6))}, Reason.BAD_CHUNK, "s ago: all of it is in the past"),
    ],
    ids=["empty", "joints", "gripper rows", "NaN gripper", "no time", "NaN time", "NaN stamp", "late", "future", "past"],
)
def test_a_bad_chunk_is_dropped_whole_and_the_arm_brakes(changes, reason, words) -> None:
    world = World().moving()
    request = world.executive.request(world.now, world.now, world.monotonic)
    before = world.executive.chunk
    assert request is not None and before is not None
    chunk = dataclasses.replace(before, **changes)
    assert not world.executive.chunk_made(request, chunk, world.now)
    assert world.executive.chunk is before
    decision = world.executive.tick(world.now, world.monotonic)
    world.sent.append((world.now, decision))
    assert (decision.state, decision.reason) == (State.BRAKING, reason) and words in decision.detail
    assert world.executive.chunk is None
    world.missing.add("image")
    world.run(0.4)
    assert (world.executive.decision.state, world.executive.decision.reason) == (State.HOLDING, reason)
    check_continuous(world)


def test_a_chunk_that_was_overtaken_by_a_newer_one_is_left_out_and_nothing_stops() -> None:
    world = World().moving()
    request = world.executive.request(world.now, world.now, world.monotonic)
    newest = world.executive.chunk
    assert request is not None and newest is not None
    assert not world.executive.chunk_made(request, dataclasses.replace(newest, stamp=newest.stamp - 0.03), world.now)
    assert world.executive.chunk is newest and world.executive.inputs.drops["chunk_out_of_order"] == 1
    assert world.executive.tick(world.now, world.monotonic).state == State.RUNNING


def slow() -> World:
    """One that sends what says nothing new at most every 50 ms, as by the action."""
    return World(Executive(ROBOT, Settings(bounds=Bounds(tracking_error=0.2), command_period=0.05)))


def test_commands_that_say_nothing_new_wait_and_chunks_and_stops_do_not() -> None:
    world = slow().moving()
    chunks = sum(d.trajectory is not None for _, d in world.sent[-25:])
    assert chunks == 25  # each tick has a chunk of its own here
    world.infer = lambda *_: None  # type: ignore[method-assign]
    world.sent.clear()
    world.run(0.4)
    times = [at for at, d in world.sent if d.trajectory is not None]
    assert np.diff(times) == pytest.approx(np.full(len(times) - 1, 0.06), abs=1e-3)  # the first tick after 50 ms
    assert {d.state for _, d in world.sent} == {State.RUNNING}
    last = next(d.trajectory for _, d in reversed(world.sent) if d.trajectory is not None)
    assert last is not None and world.now - times[-1] < last.times[-1]
    world.executive.inputs.stop_asked("e_stop", Reason.E_STOP, "pressed")
    braking = world.run(TICK)
    assert braking.state == State.BRAKING and braking.trajectory is not None
    check_continuous(world)


def test_a_controller_that_halted_by_itself_is_not_moved_on() -> None:
    """After a violated tolerance it holds where it is, at rest; a braking tail from the command would pull it away."""
    world = World().moving()
    report = ControllerReport(world.now, world.executive.commanded(world.now)[0] - 0.05, np.zeros(6), 0.05, "elbow_joint")
    world.executive.inputs.controller(report, world.monotonic)
    world.executive.controller_failed(Reason.CONTROLLER_TRACKING_ERROR, "error -4", halted=True)
    decision = world.executive.tick(world.now, world.monotonic)
    assert (decision.state, decision.reason, decision.detail) == (State.HOLDING, Reason.CONTROLLER_TRACKING_ERROR, "error -4")
    assert decision.trajectory is None
    assert world.executive.commanded(world.now)[0] == pytest.approx(report.q)


def test_a_controller_that_moves_on_after_a_fault_is_braked() -> None:
    world = World().moving()
    world.feed()
    world.executive.controller_failed(Reason.CONTROLLER_LOST, "rejected a goal")
    decision = world.executive.tick(world.now, world.monotonic)
    assert (decision.state, decision.reason) == (State.BRAKING, Reason.CONTROLLER_LOST) and decision.trajectory is not None
    assert np.abs(decision.trajectory.velocities[0]).min() > 0.9 * SPEED


def test_a_controller_that_is_slowed_down_is_followed_more_slowly() -> None:
    """At half its speed a chunk takes twice its time, and nothing is wrong."""
    world = World().moving()
    world.infer = lambda *_: None  # type: ignore[method-assign]
    before = world.executive.commanded(world.now)[0]
    world.speed = 0.5
    world.run(0.2)
    assert {d.reason for _, d in world.sent} == {Reason.NONE} and world.sent[-1][1].state == State.RUNNING
    assert world.executive.commanded(world.now)[0] - before == pytest.approx(np.full(6, 0.5 * 0.2 * SPEED), abs=0.01)


def test_an_arm_that_somebody_else_moves_is_not_thrown_back() -> None:
    """Held, and moved by another client of the controller: a new goal waits until the controller stands still, and begins there."""
    world = World().moving()
    world.executive.inputs.goal("", False, (Reason.GOAL_REACHED, "there"))
    assert world.run(1.0).state == State.HOLDING
    before = world.executive.commanded(world.now)[0].copy()
    world.missing = {"controller"}
    world.executive.inputs.goal("g", True)
    world.sent.clear()
    for step in range(100):
        elsewhere = before + 0.3 + 0.5 * TICK * step
        world.executive.inputs.controller(ControllerReport(world.now, elsewhere, np.full(6, 0.5), 0.0, NAMES[0]), world.monotonic)
        world.began = world.now - float(elsewhere[0]) / SPEED
        assert world.run(TICK).state == State.HOLDING
    assert not [d for _, d in world.sent if d.trajectory is not None]
    for _ in range(3):
        report = ControllerReport(world.now, elsewhere, np.zeros(6), 0.0, NAMES[0])
        world.executive.inputs.controller(report, world.monotonic)
        world.began = world.now - float(elsewhere[0]) / SPEED
        world.run(TICK)
    first = next(d.trajectory for _, d in world.sent if d.trajectory is not None)
    assert first.positions[0] == pytest.approx(elsewhere, abs=0.01)


def test_a_fault_of_the_controller_is_told_although_an_image_is_late_too() -> None:
    world = World().moving()
    world.missing = {"image"}
    assert world.run(0.3).reason == Reason.STALE_IMAGE
    world.executive.controller_failed(Reason.CONTROLLER_LOST, "aborted: -4", halted=True)
    world.infer(delay=0.4)
    told = world.run(TICK)
    assert (told.reason, told.detail) == (Reason.CONTROLLER_LOST, "aborted: -4")
    world.missing = set()
    assert world.run(0.3).reason == Reason.CONTROLLER_LOST, "it lingers"


@pytest.mark.parametrize("speed", [float("nan"), float("inf"), -0.5, 100.0])
def test_a_speed_scaling_that_is_none_stops_the_arm_and_harms_nothing(speed) -> None:
    world = World().moving()
    world.speed = speed
    told = world.run(0.1)
    assert told.reason == Reason.CONTROLLER_LOST and f"speed scaling is {speed:g}, it must be 0 to 1" in told.detail
    world.speed = 1.0
    world.run(0.5)
    world.began = world.now + 0.1 - float(world.executive.commanded(world.now)[0][0]) / SPEED
    assert world.run(0.5).state == State.RUNNING
    check_continuous(world)


def test_a_stop_without_a_known_reason_is_a_stop() -> None:
    assert [Reason.of_stop(value) for value in (0, 8, 99)] == [Reason.INACTIVE, Reason.E_STOP, Reason.INACTIVE]


def report(q: float, stamp: float) -> ControllerReport:
    """One joint's reference, standing."""
    return ControllerReport(stamp, np.array([q]), np.zeros(1), 0.0, "j", 0.0)


def test_a_command_that_is_not_followed_is_tried_again_ever_more_rarely() -> None:
    doubt, now, tried = Doubt(0.25), 0.0, list[float]()
    while now < 300.0:
        if not doubt.paused(report(0.0, now), np.full(1, 0.02), now) and not doubt.waits:
            doubt.sent(np.zeros(1), now, now + 0.2)
            tried.append(now)
        elif doubt.waits and doubt.paused(report(0.0, now), np.full(1, 0.02), now):
            doubt.taken_back()
        now += 0.05
    pauses = np.diff(tried)
    assert pauses[0] < 2.0 and (np.diff(pauses) > -0.1).all() and pauses[-1] == pytest.approx(LONGEST + 0.5, abs=0.2)
    assert not doubt.settled


def test_a_command_that_asks_for_nothing_says_nothing() -> None:
    doubt = Doubt(0.25)
    assert not doubt.paused(report(0.0, 10.0), np.zeros(1), 10.0)
    doubt.sent(np.zeros(1), 10.0, 10.2)
    for now in (10.0, 10.1, 10.2, 10.3):
        assert doubt.waits and not doubt.paused(report(0.0, now), np.full(1, 5e-5), now)
    assert not doubt.waits and not doubt.settled


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_step_that_a_late_command_makes_a_paused_reference_take_is_no_following(goes_on: bool) -> None:
    doubt = Doubt(0.25)
    assert not doubt.paused(report(0.0, 10.0), np.zeros(1), 10.0)
    doubt.sent(np.zeros(1), 10.0, 10.2)
    for now, asked in ((10.0, 0.0), (10.05, 0.004), (10.06, 0.006), (10.1, 0.012)):
        followed = asked if goes_on else min(asked, 0.004)
        doubt.paused(report(followed, now), np.array([asked]), now)
    assert doubt.settled == goes_on


def test_a_worker_whose_inference_never_returns_is_left_behind_and_not_heard_of_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU that hangs; what a node does about it shows test_policy_node."""
    monkeypatch.setattr(inference, "PATIENCE", 0.2)
    begun, hang, told = threading.Event(), threading.Event(), list[Any]()

    def observe(_: object) -> SimpleNamespace:
        begun.set()
        hang.wait(30.0)
        return SimpleNamespace(latent=np.zeros((1, 2, 2), np.float32))

    worker = inference.InferenceWorker(SimpleNamespace(observe=observe), told.append, told.append, told.append)  # type: ignore[arg-type]
    worker.submit(inference.Job(0.0, np.zeros((4, 4, 3), np.uint8), None))
    assert begun.wait(5.0)
    before = time.monotonic()
    with pytest.raises(TimeoutError, match="an inference has not ended within 0.2 s"):
        worker.close()
    worker.close()
    assert 0.2 <= time.monotonic() - before < 5.0
    hang.set()
    worker._thread.join(5.0)
    assert not worker._thread.is_alive() and not told
