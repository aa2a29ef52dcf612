"""The goal node in a process of its own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from act2goal_msgs.action import ReachGoal
from act2goal_msgs.msg import ControlStatus, Goal, Progress, Stop, StopReason
from act2goal_msgs.srv import SetGoalImage
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from PIL import Image as Picture
from rclpy.action import ActionClient
from ros_tools import Probe, new_domain, running, wait_for
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from act2goal_ros.control import presence
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.nodes import images, qos, topics

RGB = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
RATE = 25.0


class Bench:
    """A goal node, and a probe that plays camera, arm, msth and supervisor."""

    def __init__(self, probe: Probe, process: subprocess.Popen[str], folder: Path) -> None:
        self.probe, self.process, self.folder = probe, process, folder
        self.goals: list[Goal] = probe.listen(Goal, topics.GOAL, qos.LATCHED)
        for kind, topic, profile in (
            (Image, topics.IMAGE, qos.SENSOR),
            (Image, topics.GOAL_IMAGE, qos.EVENT),
            (JointState, topics.JOINT_STATES, qos.SENSOR),
            (Progress, topics.PROGRESS, qos.SENSOR),
            (Stop, topics.STOP, qos.LATCHED),
            (ControlStatus, topics.CONTROL_STATUS, qos.COMMAND),
        ):
            probe.advertise(kind, topic, profile)
        self.action = ActionClient(probe.node, ReachGoal, topics.REACH_GOAL)
        self.feedback: list[ReachGoal.Feedback] = []
        assert self.action.wait_for_server(15.0)
        probe.wait_for_subscribers(topics.IMAGE, topics.PROGRESS, topics.STOP, topics.GOAL_IMAGE, topics.JOINT_STATES)

    @property
    def goal(self) -> Goal:
        """The newest goal."""
        return self.goals[-1] if self.goals else Goal()

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Calls a service of the node."""
        client = self.probe.node.create_client(kind, name)
        assert client.wait_for_service(10.0)
        future = client.call_async(request)
        wait_for(future.done, 10.0, name)
        return future.result()

    def send(self, **goal: Any) -> Any:
        """Sends an action goal; returns the accepted handle."""
        request = ReachGoal.Goal(**goal)
        future = self.action.send_goal_async(request, feedback_callback=lambda m: self.feedback.append(m.feedback))
        wait_for(future.done, 10.0, "acceptance")
        assert future.result().accepted
        return future.result()

    def result(self, handle: Any, seconds: float = 10.0) -> ReachGoal.Result:
        """Waits for an action's result."""
        future = handle.get_result_async()
        wait_for(future.done, seconds, "result")
        return future.result().result

    def wait_state(self, state: int) -> Goal:
        """Waits until the goal is in a state."""
        wait_for(lambda: self.goal.state == state and self.goals, 10.0, f"goal state {state}, is {self.goal.state}")
        return self.goal

    def arrive(self, speed: float, seconds: float) -> None:
        """Plays an arm that is at the goal."""
        names = list(reversed(RobotConfig.load("ur5e_sim").joint_names))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            header = Header(stamp=self.probe.stamp())
            state = JointState(header=header, name=names, position=[0.0] * 6, velocity=[0.0] * 5 + [speed])
            self.probe.publish(topics.JOINT_STATES, state)
            progress = Progress(header=header, goal_id=self.goal.goal_id, progress=0.97, time_to_goal=0.1)
            self.probe.publish(topics.PROGRESS, progress)
            time.sleep(1.0 / RATE)

    def file(self, name: str, rgb: Any = RGB) -> str:
        """Writes a picture file."""
        path = self.folder / name
        Picture.fromarray(rgb).save(path)
        return str(path)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One node for all tests of this file."""
    folder = tmp_path_factory.mktemp("goal")
    domain = new_domain()
    probe = Probe(domain)
    settings = {"timeout": 30.0, "stop_patience": 2.0}
    with running("act2goal_ros.nodes.goal", domain, folder / "log", settings) as process:
        probe.wait_active("goal", 40.0)
        yield Bench(probe, process, folder)
    assert process.returncode == 0
    probe.close()


@pytest.fixture(autouse=True)
def fresh(bench: Bench) -> None:
    """No goal and no stop at a test's start."""
    bench.probe.publish(topics.STOP, Stop(active=False))
    bench.call(Trigger, topics.CANCEL_GOAL, Trigger.Request())
    bench.feedback.clear()


def test_a_file_becomes_the_goal_and_is_reached_at_rest(bench: Bench) -> None:
    path = bench.file("a.png")
    handle = bench.send(image_path=path)
    goal = bench.wait_state(Goal.ACTIVE)
    assert goal.source == path and np.array_equal(images.to_rgb(goal.image), RGB)
    bench.arrive(speed=0.5, seconds=1.2)
    assert bench.goal.state == Goal.ACTIVE, "the arm still moves"
    bench.arrive(speed=0.0, seconds=1.2)
    result = bench.result(handle)
    assert (result.outcome, result.message) == (ReachGoal.Result.REACHED, "reached")
    assert result.goal_id == goal.goal_id and result.progress == pytest.approx(0.97) and result.duration > 1.5
    assert bench.wait_state(Goal.REACHED).goal_id == goal.goal_id
    assert bench.feedback and bench.feedback[-1].goal_id == goal.goal_id
    assert bench.feedback[-1].time_to_goal == pytest.approx(0.1)


def test_cancel(bench: Bench) -> None:
    handle = bench.send(image=images.to_message(RGB))
    bench.wait_state(Goal.ACTIVE)
    began = time.monotonic()
    future = handle.cancel_goal_async()
    result = bench.result(handle)
    assert result.outcome == ReachGoal.Result.CANCELED and future.done()
    assert bench.wait_state(Goal.CANCELED)
    assert time.monotonic() - began < 2.0


def test_a_new_goal_preempts_whoever_sets_it(bench: Bench) -> None:
    first = bench.send(image=images.to_message(RGB))
    second = bench.send(image=images.to_message(RGB))
    assert bench.result(first).outcome == ReachGoal.Result.PREEMPTED
    answer = bench.call(SetGoalImage, topics.SET_GOAL, SetGoalImage.Request(path=bench.file("b.jpg")))
    assert answer.success and bench.result(second).outcome == ReachGoal.Result.PREEMPTED
    wait_for(lambda: bench.goal.goal_id == answer.goal_id, what="third goal")
    assert bench.goal.state == Goal.ACTIVE


def test_times_out(bench: Bench) -> None:
    result = bench.result(bench.send(image=images.to_message(RGB), timeout=0.6))
    assert result.outcome == ReachGoal.Result.TIMED_OUT and "0.6 s" in result.message
    assert bench.wait_state(Goal.FAILED)


def test_a_lasting_stop_ends_the_goal_and_feedback_says_why_it_stands(bench: Bench) -> None:
    handle = bench.send(image=images.to_message(RGB))
    reason = StopReason(value=StopReason.NODE_LOST)
    bench.probe.publish(topics.STOP, Stop(active=True, reason=reason, detail="policy ended"))
    result = bench.result(handle)
    assert result.outcome == ReachGoal.Result.STOPPED and "policy ended" in result.message
    assert bench.feedback[-1].stop_reason.value == StopReason.NODE_LOST
    assert bench.feedback[-1].stop_detail == "policy ended"


def test_an_arm_that_the_policy_holds_for_long_ends_the_goal(bench: Bench) -> None:
    handle = bench.send(image=images.to_message(RGB))
    running, stale = StopReason(value=StopReason.NONE), StopReason(value=StopReason.STALE_IMAGE)
    said = [ControlStatus(state=ControlStatus.RUNNING, stop_reason=running)] * 10
    said += [ControlStatus(state=ControlStatus.HOLDING, stop_reason=stale, stop_detail="camera frame is old")] * 40
    for status in said:
        bench.probe.publish(topics.CONTROL_STATUS, status)
        time.sleep(0.1)
    result = bench.result(handle)
    assert result.outcome == ReachGoal.Result.STOPPED and "for 2 s: STALE_IMAGE: camera frame is old" in result.message
    assert bench.feedback[-1].stop_reason.value == StopReason.STALE_IMAGE


def test_the_emergency_stop_ends_the_goal_and_none_can_be_set(bench: Bench) -> None:
    handle = bench.send(image=images.to_message(RGB))
    reason = StopReason(value=StopReason.E_STOP)
    bench.probe.publish(topics.STOP, Stop(active=True, reason=reason, detail="pressed"))
    assert bench.result(handle).outcome == ReachGoal.Result.STOPPED
    result = bench.result(bench.send(image=images.to_message(RGB)))
    assert result.outcome == ReachGoal.Result.BAD_GOAL and "emergency stop" in result.message


def _bad_files(folder: Path) -> dict[str, str]:
    good = folder / "good.png"
    Picture.fromarray(RGB).save(good)
    (folder / "truncated.png").write_bytes(good.read_bytes()[:2000])
    (folder / "text.png").write_text("I am no picture")
    Picture.fromarray(RGB[:8, :8]).save(folder / "tiny.png")
    return {
        "missing.png": "no image file",
        "truncated.png": "truncated or damaged image of 2000 bytes",
        "text.png": "no image: 15 bytes",
        "tiny.png": "8 × 8 pixels, each side must be 16 …",
        "": "encoding '' is none of rgb8",
    }


@pytest.mark.parametrize("name", ["missing.png", "truncated.png", "text.png", "tiny.png", ""])
def test_bad_files_are_refused_by_action_and_service(bench: Bench, name: str) -> None:
    expected = _bad_files(bench.folder)[name]
    path = str(bench.folder / name) if name else ""
    result = bench.result(bench.send(image_path=path))
    assert result.outcome == ReachGoal.Result.BAD_GOAL and expected in result.message
    answer = bench.call(SetGoalImage, topics.SET_GOAL, SetGoalImage.Request(path=path))
    assert not answer.success and expected in answer.message
    assert bench.goal.state != Goal.ACTIVE


def test_a_picture_on_the_topic_is_the_goal_a_bad_one_is_counted(bench: Bench) -> None:
    heard = len(bench.probe.heard[topics.STATUS])
    wait_for(lambda: len(bench.probe.heard[topics.STATUS]) > heard + 2, what="a heartbeat that counts all so far")
    before = int(bench.probe.values("goal").get("drops.bad_goal", 0))
    bad = images.to_message(RGB)
    bad.encoding = "bayer_rggb8"
    bench.probe.publish(topics.GOAL_IMAGE, bad)
    wait_for(lambda: int(bench.probe.values("goal").get("drops.bad_goal", 0)) == before + 1, what="count")
    assert bench.goal.state != Goal.ACTIVE
    bench.probe.publish(topics.GOAL_IMAGE, images.to_message(RGB))
    assert bench.wait_state(Goal.ACTIVE).source == topics.GOAL_IMAGE


def test_the_live_frame_and_proportions(bench: Bench) -> None:
    time.sleep(1.2)  # frames of earlier tests are no longer live
    answer = bench.call(Trigger, topics.TAKE_LIVE_FRAME, Trigger.Request())
    assert not answer.success and "no camera frame on image_raw" in answer.message

    def see(rgb: Any) -> Trigger.Response:
        bench.probe.publish(topics.IMAGE, images.to_message(rgb))
        time.sleep(0.2)
        return bench.call(Trigger, topics.TAKE_LIVE_FRAME, Trigger.Request())

    answer = wait_for(lambda: (a := see(RGB)).success and a, 10.0, "a live frame")
    goal = wait_for(lambda: bench.goal.goal_id == answer.message and bench.goal, what="goal")
    assert goal.source == "live frame" and np.array_equal(images.to_rgb(goal.image), RGB)
    bench.probe.publish(topics.IMAGE, images.to_message(RGB))
    time.sleep(0.2)
    result = bench.result(bench.send(image=images.to_message(RGB[:64])))
    assert result.outcome == ReachGoal.Result.BAD_GOAL
    assert "image of 128 × 64 pixels, the camera has 128 × 128: proportions may differ by 2%; crop:=true" in result.message


def test_with_crop_the_middle_of_a_wide_picture_is_the_goal(tmp_path: Path) -> None:
    wide = np.pad(RGB, ((0, 0), (20, 20), (0, 0)), constant_values=255)
    probe = Probe(domain := new_domain())
    goals = probe.listen(Goal, topics.GOAL, qos.LATCHED)
    for kind, topic, profile in ((Image, topics.IMAGE, qos.SENSOR), (Image, topics.GOAL_IMAGE, qos.EVENT)):
        probe.advertise(kind, topic, profile)
    with running("act2goal_ros.nodes.goal", domain, tmp_path / "log", {"crop": True}):
        probe.wait_active("goal", 40.0)
        probe.wait_for_subscribers(topics.IMAGE, topics.GOAL_IMAGE)

        def shown() -> Goal | None:
            probe.publish(topics.IMAGE, images.to_message(RGB))
            time.sleep(0.1)
            probe.publish(topics.GOAL_IMAGE, images.to_message(wide))
            active = [goal for goal in goals if goal.state == Goal.ACTIVE]
            return active[-1] if active and active[-1].image.width == 128 else None

        goal = wait_for(shown, 10.0, "the goal")
        assert np.array_equal(images.to_rgb(goal.image), RGB)
    probe.close()


@pytest.mark.parametrize("state", [Goal.ACTIVE, Goal.NONE], ids=["launched", "respawned"])
def test_the_launch_s_goal_is_not_shown_again_after_a_crash(tmp_path: Path, state: int) -> None:
    """Nor when the node is activated again: that goal was reached or cancelled, and nobody asks for it any more."""
    Picture.fromarray(RGB).save(tmp_path / "goal.png")
    domain = new_domain()
    probe = Probe(domain)
    goals = probe.listen(Goal, topics.GOAL, qos.LATCHED)
    launched = {presence.LAUNCH: str(tmp_path)}
    if state == Goal.NONE:
        assert presence.first_of_launch("goal_shown", launched), "by the one that crashed"
    with running("act2goal_ros.nodes.goal", domain, tmp_path / "log", {"goal_image": str(tmp_path / "goal.png")}, launched):
        probe.wait_active("goal", 40.0)
        wait_for(lambda: goals and goals[-1].state == state, 10.0, f"goal state {state}")
        client = probe.node.create_client(ChangeState, topics.change_state("goal"))
        assert client.wait_for_service(10.0)
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            goals.clear()
            future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            wait_for(future.done, 10.0, "change_state")
        wait_for(lambda: goals and goals[-1].state == Goal.NONE, 10.0, "no goal")
        assert "goal.png is not shown again" in (tmp_path / "log").read_text()
    probe.close()
