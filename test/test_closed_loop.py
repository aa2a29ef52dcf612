"""Executive and controller in one loop on a clock of its own: all kinds of controllers, by topic and by action, with speed
scaling, clocks that jump, and controllers that go silent. Messages take 2 – 6 ms, a chunk 16 ms."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from act2goal_ros.control.acceptance import Rejection, TrajectoryCommand
from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.controller import ControllerConfig, JointTrajectoryController
from act2goal_ros.control.executive import Executive, Settings, State
from act2goal_ros.control.goals_in_flight import GoalsInFlight
from act2goal_ros.control.inputs import Bounds, ControllerReport
from act2goal_ros.control.join import AVERAGED, JOINS
from act2goal_ros.control.planbook import Selected
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason as Reason
from act2goal_ros.control.trajectory import Trajectory

ROBOT = RobotConfig.load("ur5e_sim")
NAMES = list(ROBOT.joint_names)
PERIOD, TICK, FRAME, INFERENCE = 0.004, 0.02, 0.032, 0.016  # s
SPEED = 0.4  # rad/s, in the arm's own time
NOW = 1.76e9
MODES = ("splice", "desired_state", "measured_state")
EACH = pytest.mark.parametrize(("mode", "action"), [(mode, action) for mode in MODES for action in (False, True)])


@dataclass
class Loop:
    """A policy that asks for steady motion from wherever the arm is, before a controller under a perfect arm."""

    mode: str
    action: bool
    join: str = "prefix"
    t: float = 0.0  # s since the beginning; never jumps
    jump: float = 0.0  # s of the clock
    latency: tuple[float, float] = (0.002, 0.006)  # s of messages to the controller, from and to
    way: float = 0.0  # s since the beginning, when the last message arrives
    unset: bool = False  # the controller leaves its speed scaling at 0 in what it says
    deaf: bool = False  # the controller takes nothing and answers nothing, but says what it does
    queue: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    q: Any = field(default_factory=lambda: np.full(6, -1.5))
    seen: list[tuple[float, float, float]] = field(default_factory=list)  # t, position and speed of the first joint
    told: list[tuple[State, Reason, str]] = field(default_factory=list)
    sent: list[tuple[float, Trajectory]] = field(default_factory=list)
    gripped: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        none = (0.0,) * 6
        config = ControllerConfig(joint_names=tuple(NAMES), update_period=PERIOD, path_tolerance=none, goal_tolerance=none)
        self.controller = JointTrajectoryController(config.in_mode(self.mode))
        self.controller.activate(self.now, self.q)
        rate = 0.05 if self.action else 0.0
        settings = Settings(bounds=Bounds(tracking_error=0.2), command_period=rate, recovery_time=0.2)
        self.executive = Executive(ROBOT, settings, join=self.join)
        self.executive.cover_now = self.mode != "splice"  # as the policy node does
        self.executive.lead = 0.01 if self.executive.cover_now else 0.02
        self.executive.inputs.goal("g", True)
        self.goals, self.number, self.random = GoalsInFlight("follow", 0.25), 0, np.random.default_rng(0)
        self.v = np.zeros(6)

    @property
    def now(self) -> float:
        return NOW + self.t + self.jump

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.queue.append((self.t + seconds, what))

    def run(self, seconds: float) -> Loop:
        for _ in range(round(seconds / PERIOD)):
            due = [entry for entry in self.queue if entry[0] <= self.t]
            self.queue = [entry for entry in self.queue if entry[0] > self.t]
            for _, what in sorted(due, key=lambda entry: entry[0]):
                what()
            k = round(self.t / PERIOD)
            here = self.q, self.v
            self.move()
            if k % 2 == 0:
                self.report(*here)
            if k % 100 == 0:
                self.plan()
            if k % round(FRAME / PERIOD) == 0:
                self.frame()
            if k % round(TICK / PERIOD) == 0:
                self.tick()
            self.t += PERIOD
        return self

    def move(self) -> None:
        moved = self.controller.update(self.now, self.q, self.v)
        self.v, self.q = (moved - self.q) / PERIOD, moved
        self.seen.append((self.t, float(moved[0]), float(self.v[0])))
        for end in self.controller.take_outcomes():
            cause = self.goals.ended(int(str(end.goal_id)), end.status, end.code, end.text, self.now)
            if cause[0]:
                self.executive.controller_failed(*cause, halted=True)

    def report(self, q: Any, v: Any) -> None:
        state, inputs = self.controller.state, self.executive.inputs
        inputs.joint_states(self.now, NAMES, q.tolist(), v.tolist(), self.now, self.t)
        desired = state.desired
        assert desired.velocities is not None
        speed = 0.0 if self.unset else state.speed_scaling
        inputs.controller(ControllerReport(self.now, desired.positions, desired.velocities, 0.0, NAMES[0], speed), self.t)

    def plan(self) -> None:
        plans = self.executive.inputs.plans
        plans.add_plan("p", self.now, 0.4 * np.arange(1, 5))
        plans.add_features("p", np.zeros((1, 4, 1, 1), np.float32))
        plans.select(Selected("p", "g", np.array([0, 3]), 0.0, self.now + 1.5))

    def frame(self) -> None:
        stamp = self.now
        if not self.executive.inputs.image(stamp, stamp, self.t):
            return
        request = self.executive.request(stamp, stamp, self.t)
        if request is not None:
            rows = request.reading.q + SPEED * 0.05 * np.arange(1, 17)[:, None]
            chunk = ActionChunk(stamp, 0.05, rows, np.linspace(0.0, 1.0, 16))
            self.later(INFERENCE, lambda: self.executive.chunk_made(request, chunk, self.now) and self.tick())

    def tick(self) -> None:
        silence = self.goals.silence(self.t)
        if silence[0]:
            self.executive.controller_failed(*silence)
        decision = self.executive.tick(self.now, self.t)
        self.told.append((decision.state, decision.reason, decision.detail))
        trajectory = decision.trajectory
        if trajectory is None:
            return
        self.sent.append((self.t, trajectory))
        self.gripped.append(decision.gripper)
        number, self.number = self.number, self.number + 1
        if self.action:
            self.goals.sent(number, trajectory.end, self.t, decision.state != State.RUNNING)
        self.way = max(self.way, self.t + self.random.uniform(*self.latency))  # none overtakes another
        self.later(self.way - self.t, lambda: self.arrive(number, trajectory))

    def arrive(self, number: int, t: Trajectory) -> None:
        assert t.velocities is not None and t.accelerations is not None
        if self.deaf:
            return
        times = [round(x, 9) for x in t.times.tolist()]
        rows = (t.positions.tolist(), t.velocities.tolist(), t.accelerations.tolist())
        command = TrajectoryCommand(joint_names=NAMES, times=times, positions=rows[0], velocities=rows[1],
                                    accelerations=rows[2], stamp=t.start)  # fmt: skip
        if not self.action:
            self.controller.submit(command, self.now)
            return
        try:
            self.controller.submit_goal(number, command, self.now)
            cause = self.goals.answered(number, True)
        except Rejection:
            cause = self.goals.answered(number, False)
        if cause[0]:
            self.executive.controller_failed(*cause)

    def since(self, begin: float) -> tuple[np.ndarray, np.ndarray]:
        """Positions and speeds of the first joint from a time on."""
        rows = np.array([row for row in self.seen if row[0] >= begin])
        return rows[:, 1], rows[:, 2]

    def reasons(self, begin: int = 0) -> set[Reason]:
        return {reason for _, reason, _ in self.told[begin:]}

    def steady(self, seconds: float, speed: float, wobble: float) -> bool:
        """Whether the first joint has moved at a speed for so long, within ± wobble rad.

        A controller that is slowed down is a part of a message's delay ahead, and the policy goes on from where it sees the arm.
        """
        ratio = 0.02 if speed in (0.0, SPEED) and self.mode != "splice" else 0.1
        q, _ = self.since(self.t - seconds)
        slope, offset = np.polyfit(times := PERIOD * np.arange(len(q)), q, 1)
        off = float(np.abs(q - offset - slope * times).max())
        wanted = pytest.approx(speed, rel=ratio, abs=1e-6)
        assert slope == wanted and off < wobble, f"± {1e3 * off:.2f} mrad"
        return True

    def moving(self) -> Loop:
        self.run(2.0)
        assert self.told[-1][:2] == (State.RUNNING, Reason.NONE), self.told[-1]
        assert self.steady(0.5, SPEED, self.wobble)
        return self

    @property
    def wobble(self) -> float:
        """rad; a splice is led in to from one period ahead, and the mean of chunks says when each of them was late."""
        return 0.004 if self.mode == "splice" else 0.0002 if self.join in AVERAGED else 0.0001


@EACH
def test_every_kind_of_controller_moves_steadily(mode, action) -> None:
    loop = Loop(mode, action).moving()
    begin = next(k for k, told in enumerate(loop.told) if told[0] == State.RUNNING)
    assert loop.reasons(begin) == {Reason.NONE}
    if mode != "splice":
        assert np.abs(np.diff(loop.since(0.0)[1])).max() / PERIOD < 10.0, "rad/s²"
    assert not any(t.velocities[-1].any() for _, t in loop.sent if t.velocities is not None), "each ends at rest"
    if action:
        assert loop.goals.counts["preempted"] > 30
        assert not loop.goals.counts["failed"] and not loop.goals.counts["rejected"]


@pytest.mark.parametrize("action", [False, True], ids=["topic", "action"])
@pytest.mark.parametrize(("lead", "leaps"), [(0.02, True), (0.04, False)])
def test_a_splice_makes_no_leap_where_its_lead_is_longer_than_its_way(lead, leaps, action) -> None:
    """Messages take 10 – 30 ms. One that arrives after its stamp begins late, with all that follows: the reference steps back."""
    loop = Loop("splice", action, latency=(0.01, 0.03))
    loop.executive.lead = lead
    loop.run(3.0)
    assert loop.told[-1][:2] == (State.RUNNING, Reason.NONE), loop.told[-1]
    _, speeds = loop.since(1.5)
    assert speeds.mean() == pytest.approx(SPEED, rel=0.1)
    assert (speeds.min() < -SPEED) == leaps and (speeds.max() > 3 * SPEED) == leaps, (speeds.min(), speeds.max())


@EACH
@pytest.mark.parametrize("join", JOINS)
def test_speed_scaling_slows_the_arm_down_and_zero_is_a_pause(mode, action, join) -> None:
    """While scaled down, each message makes the reference tremble by what it came later or earlier than the one before."""
    loop = Loop(mode, action, join).moving()
    begin = len(loop.told)
    for speed in (0.5, 0.0, 0.3, 1.0):
        loop.controller.speed_scaling = speed
        before, sent = loop.q.copy(), len(loop.sent)
        loop.run(1.0)
        assert speed or (loop.q == before).all(), "a pause holds at once"
        assert speed or len(loop.sent) <= sent + 2, "nothing is sent once the pause is known"
        loop.run(1.0)
        assert loop.steady(1.0, speed * SPEED, max(loop.wobble, 0.0 if speed in (0.0, 1.0) else 0.003))
    assert loop.reasons(begin) == {Reason.NONE}, {told for told in loop.told[begin:] if told[1]}


@EACH
def test_a_controller_that_never_sets_its_speed_scaling_moves_as_any_other(mode, action) -> None:
    """Its first command shows that it follows."""
    usual, loop = (Loop(mode, action, unset=unset).moving() for unset in (False, True))
    begin, first = (next(k for k, told in enumerate(each.told) if told[0] == State.RUNNING) for each in (usual, loop))
    assert loop.reasons(begin) == {Reason.NONE} and State.BRAKING not in {state for state, _, _ in loop.told}
    assert first == begin and abs(usual.q[0] - loop.q[0]) < 0.02, "it is not held up"


@EACH
def test_a_controller_that_never_sets_its_speed_scaling_and_misses_the_first_command_moves_later(mode, action) -> None:
    loop = Loop(mode, action, unset=True, deaf=not action)  # an action that does not answer is a fault by itself
    while not loop.sent:
        loop.run(PERIOD)
    loop.run(0.1)
    loop.deaf = False
    loop.run(3.0)
    assert loop.told[-1][:2] == (State.RUNNING, Reason.NONE) and loop.steady(0.5, SPEED, loop.wobble)
    assert action or any("paused" in detail for _, _, detail in loop.told)


@EACH
@pytest.mark.parametrize("slow", [False, True], ids=["usual messages", "slow messages"])
def test_a_controller_that_is_paused_from_the_start_is_not_moved_and_not_lost(mode, action, slow) -> None:
    """It says the same as one that never sets its speed scaling; each message moves it on by what it came late."""
    loop = Loop(mode, action, latency=(0.03, 0.05) if slow else (0.002, 0.006))
    loop.executive.lead += 0.04 if slow and mode == "splice" else 0.0  # it has to be longer than messages take
    loop.controller.speed_scaling = 0.0
    begin = loop.q.copy()
    loop.run(10.0)
    assert loop.reasons(25) == {Reason.NONE}, {told for told in loop.told[25:] if told[1]}
    assert (loop.told[-1][0], "paused" in loop.told[-1][2]) == (State.HOLDING, True)
    assert np.abs(loop.q - begin).max() < (0.005 if slow else 2e-4)
    assert len(loop.sent) < 12
    at, before = loop.t, loop.q.copy()
    loop.controller.speed_scaling = 1.0
    loop.run(1.5)
    assert loop.steady(0.5, SPEED, loop.wobble)
    moved = np.diff(np.concatenate([before[:1], loop.since(at)[0]]))
    assert np.abs(moved).max() < 3.0 * SPEED * PERIOD, "no leap"


@EACH
def test_nothing_is_left_to_be_carried_out_when_a_pause_from_the_start_ends(mode, action) -> None:
    """Though nobody wants the arm to move any more."""
    loop = Loop(mode, action)
    loop.controller.speed_scaling = 0.0
    loop.run(4.0)
    loop.executive.inputs.goal("", False, (Reason.CANCELED, "canceled"))
    loop.run(0.5)
    before = loop.q.copy()
    loop.controller.speed_scaling = 1.0
    loop.run(1.0)
    assert np.abs(loop.q - before).max() < 1e-4


@EACH
def test_a_stop_that_comes_before_the_first_command_is_known_to_be_followed_stops(mode, action) -> None:
    for paused in (False, True):
        loop = Loop(mode, action, unset=True)
        loop.controller.speed_scaling = 1.0 - paused
        while not loop.sent:
            loop.run(PERIOD)
        loop.run(0.04)
        loop.executive.inputs.stop_asked("e_stop", Reason.E_STOP, "pressed")
        loop.run(0.3)
        at = loop.q.copy()
        loop.controller.speed_scaling = 1.0
        loop.run(0.5)
        assert loop.told[-1][:2] == (State.HOLDING, Reason.E_STOP) and np.abs(loop.q - at).max() < 1e-4


def test_a_slowed_arm_s_gripper_is_as_far_as_the_arm(monkeypatch) -> None:
    """Each chunk closes it steadily; of an older chunk more has been done, at half speed half as much."""
    monkeypatch.setattr(sys.modules[__name__], "INFERENCE", 0.2)
    loop = Loop("desired_state", False).run(2.0)
    full = np.mean(loop.gripped[-20:])
    loop.controller.speed_scaling = 0.5
    half = np.mean(loop.run(2.0).gripped[-20:])
    assert full > 0.2 and half < 0.6 * full


@EACH
def test_a_stop_in_a_pause_holds_when_the_pause_ends(mode, action) -> None:
    loop = Loop(mode, action).moving()
    loop.controller.speed_scaling = 0.0
    loop.run(0.5)
    loop.executive.inputs.stop_asked("e_stop", Reason.E_STOP, "pressed")
    loop.run(0.3)
    at = loop.q[0]
    loop.controller.speed_scaling = 1.0
    loop.run(1.0)
    assert (loop.told[-1][0], loop.told[-1][1]) == (State.HOLDING, Reason.E_STOP)
    assert 0.0 <= loop.q[0] - at < 0.05, "no further than braking takes"


@EACH
@pytest.mark.parametrize("jump", [-5.0, 5.0])
def test_a_clock_that_jumps_brakes_and_motion_resumes(mode, action, jump) -> None:
    loop = Loop(mode, action).moving()
    begin, at = len(loop.told), loop.t
    loop.jump = jump
    loop.run(1.0)
    way = "ahead" if jump > 0 else "back"
    assert any(reason == Reason.CLOCK_JUMP and f"jumped {way} by" in detail for _, reason, detail in loop.told[begin:])
    q, v = loop.since(at)
    assert np.abs(v).min() < 1e-6, "it stood"
    assert np.abs(np.diff(q)).max() < 3.0 * SPEED * PERIOD, "no leap"
    loop.run(2.5)
    assert loop.told[-1][:2] == (State.RUNNING, Reason.NONE)
    assert loop.steady(0.5, SPEED, loop.wobble)


@EACH
def test_a_controller_that_stops_taking_commands_is_at_rest_and_told(mode, action) -> None:
    """Though it still says where it is. Once it listens again there is no leap, and motion resumes."""
    loop = Loop(mode, action).moving()
    begin, at = len(loop.told), loop.t
    loop.deaf = True
    loop.run(0.5)
    assert np.abs(loop.since(at + 0.35)[1]).max() < 1e-3, "the last message ended at rest"
    assert Reason.CONTROLLER_LOST in loop.reasons(begin) and loop.told[-1][0] != State.RUNNING
    words = "has not answered a goal for" if action else "takes no commands: its reference of"
    assert any(words in detail for _, _, detail in loop.told[begin:])
    loop.deaf = False
    at = loop.t
    loop.run(3.0)
    assert loop.told[-1][:2] == (State.RUNNING, Reason.NONE)
    assert loop.steady(0.3, SPEED, loop.wobble)
    assert np.abs(np.diff(loop.since(at)[0])).max() < 3.0 * SPEED * PERIOD, "no leap"
