"""Pacing, and the live arm's two threads around an arm that is none."""

import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from act2goal_ros.control.acceptance import TrajectoryCommand
from act2goal_ros.control.controller import ControllerConfig, JointTrajectoryController
from act2goal_ros.control.gripper import GripperController
from act2goal_ros.sim import realtime
from act2goal_ros.sim.realtime import MOST_BEHIND, STEP, LiveArm, Pacer, Rates
from act2goal_ros.sim.trace import Trace

JOINTS = ("a", "b")


# -- pacing --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.0, MOST_BEHIND), min_size=1, max_size=200))
def test_short_delays_are_made_up_for_to_the_step(delays):
    pacer, now, steps = Pacer(0.0), 0.0, 0
    for delay in delays:
        now += delay
        steps += pacer.due(now)
        assert pacer.next > now - 1e-9
        assert steps == pytest.approx(now / STEP, abs=1.001)
    assert pacer.lost == 0.0


def test_a_long_delay_is_given_up_and_told():
    pacer = Pacer(0.0)
    assert pacer.due(2.0) == round(MOST_BEHIND / STEP) + 1
    assert pacer.lost == pytest.approx(2.0 - MOST_BEHIND, abs=2 * STEP)
    assert pacer.due(2.0 + 5 * STEP + 1e-9) == 5


def test_the_factor_tells_what_was_lost():
    pacer, now = Pacer(0.0), 0.0
    for _ in range(4):
        now += 0.4
        pacer.due(now)
    assert pacer.factor == pytest.approx(0.25, rel=0.05)
    for _ in range(500):
        now += 0.005
        pacer.due(now)
    assert pacer.factor == pytest.approx(1.0, rel=0.01)


def test_a_pause_does_not_count():
    pacer = Pacer(0.0)
    pacer.due(0.5)
    pacer.restart(10.0)
    assert pacer.due(10.1) == pytest.approx(50, abs=1)
    lost = pacer.lost
    pacer.due(10.2)
    assert pacer.lost == lost


def test_twice_the_speed_gives_twice_the_steps():
    pacer = Pacer(0.0, speed=2.0)
    assert sum(pacer.due(0.01 * k) for k in range(101)) == pytest.approx(1000, abs=2)
    assert pacer.factor == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(("rate", "steps"), [(125.0, 4), (25.0, 20), (30.0, 17), (500.0, 1), (10000.0, 1)])
def test_rates_become_whole_steps(rate, steps):
    assert Rates(camera=rate).every("camera") == steps


# -- the live arm --------------------------------------------------------------------------------------------


class Still:
    """Follows commands at once and remembers which thread did what."""

    tasks = ("one", "two")
    model = None
    task = "one"
    object_positions = target_positions = np.zeros((1, 3))

    def __init__(self, render_time=0.001):
        self.threads = {"build": threading.get_ident()}
        self.render_time = render_time
        self.data = self
        self.joint_positions, self.joint_velocities, self.gripper_position = np.zeros(2), np.zeros(2), 0.0
        self.steps = 0
        self.succeeded_at = None
        self.fail_at = None

    def prepare(self, task):
        self.threads["prepare"] = threading.get_ident()
        if task not in self.tasks:
            raise ValueError(f"unknown task '{task}'")

    def reset(self, task, seed):
        self.threads["reset"] = threading.get_ident()
        self.task, self.joint_positions, self.succeeded_at = task, np.full(2, float(seed)), None
        return np.full((4, 4, 3), seed, np.uint8)

    def step(self, target, gripper):
        self.threads["step"] = threading.get_ident()
        self.steps += 1
        if self.steps == self.fail_at:
            raise RuntimeError("the arm broke")
        self.succeeded_at = self.succeeded_at or (0.05 if self.steps >= 25 else None)
        self.joint_velocities = (target - self.joint_positions) / STEP
        self.joint_positions, self.gripper_position = np.array(target), gripper

    def render(self, data):
        self.threads["render"] = threading.get_ident()
        time.sleep(self.render_time)
        return np.full((4, 4, 3), round(data.position * 100) % 256, np.uint8)

    def close(self):
        self.threads["close"] = threading.get_ident()

    def success(self):
        return True

    def at_rest_and_released(self):
        return False


class Snapshot:
    def __init__(self, model):
        self.position = 0.0


def copy(target, model, source):
    target.position = float(source.joint_positions[0])


class Ears:
    """Keeps what it is told."""

    def __init__(self):
        self.heard = {name: [] for name in ("clock", "joints", "controller", "scene", "image", "failed")}
        for name in ("clock", "joints", "controller", "scene", "failed"):
            setattr(self, name, self.heard[name].append)

    def image(self, time, picture):
        self.heard["image"].append((time, picture))


@pytest.fixture
def live(monkeypatch):
    made = []

    def make(arm=None, clock=time.time, **options):
        import mujoco

        monkeypatch.setattr(mujoco, "MjData", Snapshot)
        monkeypatch.setattr(mujoco, "mj_copyData", copy)
        holder = arm or Still
        controller = JointTrajectoryController(ControllerConfig(joint_names=JOINTS))
        ears = Ears()
        made.append(LiveArm(holder, controller, GripperController(0.0, 0.8), ears, clock, **options))
        made[-1].ears = ears
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_it_runs_in_real_time_and_tells_at_the_rates(live):
    arm = live()
    arm.start()
    time.sleep(1.0)
    arm.stop()
    heard = arm.ears.heard
    steps = arm._arm.steps
    assert steps * STEP == pytest.approx(1.0, abs=MOST_BEHIND)
    for name, every in (("joints", 4), ("controller", 10), ("scene", 25)):
        assert len(heard[name]) == pytest.approx(steps / every, abs=1)
    stamps = np.array([joints.time for joints in heard["joints"]])
    assert np.diff(stamps) == pytest.approx(4 * STEP, abs=1e-4)
    assert heard["clock"] == []
    assert heard["scene"][-1].success_once


def test_building_resetting_and_rendering_share_a_thread_that_physics_does_not_wait_for(live):
    arm = live(lambda: Still(render_time=0.2))
    arm.start()
    time.sleep(0.1)
    arm.reset("two", 7).result()
    time.sleep(0.9)
    arm.stop()
    threads = arm._arm.threads
    assert threads["build"] == threads["prepare"] == threads["reset"] == threads["render"] != threads["step"]
    assert arm._arm.steps * STEP > 0.6
    assert 2 <= len(arm.ears.heard["image"]) <= 6
    assert arm.skipped_frames > 10


def test_a_frame_shows_the_state_at_its_stamp(live):
    arm = live(lambda: Still(render_time=0.03))
    arm.start()
    command = TrajectoryCommand(joint_names=JOINTS, times=[0.0, 1.0], positions=[[0, 0], [2, 2]])
    with arm.lock:
        arm.controller.submit(command, arm.time)
    time.sleep(0.8)
    arm.stop()
    where = {joints.time: joints.positions[0] for joints in arm.ears.heard["joints"]}
    frames = arm.ears.heard["image"]
    for stamp, picture in frames:
        assert picture[0, 0, 0] == round(where[stamp] * 100)
    assert frames[-1][1][0, 0, 0] > 50


def test_a_trace_has_every_setpoint_and_when_frames_were_ready(live, tmp_path):
    arm = live(lambda: Still(render_time=0.03), trace=Trace(tmp_path / "trace.npz", len(JOINTS)))
    arm.start()
    command = TrajectoryCommand(joint_names=JOINTS, times=[0.2], positions=[[2, 2]])
    with arm.lock:
        arm.controller.submit(command, arm.time)
    time.sleep(0.5)
    arm.close()
    with np.load(tmp_path / "trace.npz") as found:
        setpoints, frames = found["setpoints"], found["frames"]
    assert len(setpoints) == arm._arm.steps
    assert np.diff(setpoints[:, 0]) == pytest.approx(STEP, abs=1e-4)
    assert setpoints[-1, 1:] == pytest.approx([2.0, 2.0])
    assert 0.0 < setpoints[len(setpoints) // 5, 1] < 2.0
    assert frames[:, 0] == pytest.approx([stamp for stamp, _ in arm.ears.heard["image"]])
    assert (frames[:, 1] - frames[:, 0] > 0.029).all()


def test_updates_made_up_for_do_not_know_what_arrived_after_their_time(live, monkeypatch):
    now, known_at = [50.0], []
    monkeypatch.setattr(realtime, "time", SimpleNamespace(monotonic=lambda: now[0]))
    arm = live(clock=lambda: 1000.0 + now[0])
    arm.pacer.restart(now[0])
    now[0] = 50.0411
    arm.before_update(lambda: known_at.append(arm.time))
    now[0] = 50.0805
    arm._catch_up(now[0])
    assert arm.time == pytest.approx(1050.08, abs=1e-6)
    assert known_at == pytest.approx([1050.042], abs=1e-6)


def test_what_arrived_before_a_reset_moves_nothing_after_it(live):
    arm = live(stepped=True, speed=0.01)
    arm.start()
    command = TrajectoryCommand(joint_names=JOINTS, times=[0.1], positions=[[2, 2]])
    arm.before_update(lambda: arm.controller.submit(command, arm.time))
    arm.reset("two", 3).result()
    time.sleep(0.5)
    arm.stop()
    assert arm.controller.state.output == pytest.approx(3.0)


def test_reset_begins_an_episode_at_rest(live):
    arm = live()
    arm.start()
    picture = arm.reset("two", 3).result()
    time.sleep(0.2)
    arm.stop()
    assert picture[0, 0, 0] == 3
    assert arm.episode == 2
    assert arm.controller.state.output == pytest.approx(3.0)
    assert arm.ears.heard["scene"][-1].task == "two"
    assert arm.ears.heard["scene"][-1].episode_time < 0.3


def test_an_unknown_task_is_refused_and_physics_goes_on(live):
    arm = live()
    arm.start()
    with pytest.raises(ValueError, match="unknown task 'three'"):
        arm.reset("three", 0).result()
    steps = arm._arm.steps
    time.sleep(0.1)
    assert arm._arm.steps > steps
    assert arm.episode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may lower a niceness")
def test_only_the_physics_thread_takes_the_niceness(live):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    arm = live(niceness=own - 1)
    arm.start()
    time.sleep(0.1)
    threads = {thread.name: thread.native_id for thread in threading.enumerate()}
    assert os.getpriority(os.PRIO_PROCESS, threads["physics"]) == max(own - 1, -20)
    assert os.getpriority(os.PRIO_PROCESS, threads["camera_0"]) == own


def test_an_arm_that_breaks_is_told(live):
    def breaking():
        arm = Still()
        arm.fail_at = 20
        return arm

    arm = live(breaking)
    arm.start()
    time.sleep(0.3)
    assert str(arm.ears.heard["failed"][0]) == "the arm broke"
    assert not arm.running


def test_stepped_it_tells_a_clock_of_its_own(live):
    arm = live(stepped=True, speed=4.0)
    arm.start()
    time.sleep(0.5)
    arm.stop()
    clocks = np.array(arm.ears.heard["clock"])
    assert np.diff(clocks) == pytest.approx(0.01)
    assert clocks[0] == pytest.approx(realtime.STEPPED_START + 0.01)
    assert clocks[-1] - clocks[0] == pytest.approx(2.0, rel=0.25)


def test_a_clock_that_jumps_is_followed_without_an_extra_step(live):
    offset = [0.0]
    arm = live(clock=lambda: time.monotonic() + offset[0])
    arm.start()
    time.sleep(0.2)
    offset[0] = -3600.0
    time.sleep(0.2)
    arm.stop()
    stamps = np.array([joints.time for joints in arm.ears.heard["joints"]])
    jumps = np.diff(stamps)
    assert (jumps < -3599.0).sum() == 1
    assert arm._arm.steps * STEP == pytest.approx(0.4, abs=0.1)
