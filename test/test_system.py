"""The whole graph on the simulated arm with the released weights, one day of it: bad input, deaths, goals, and what was recorded."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from act2goal_msgs.msg import ControlStatus, SimState, Stop
from act2goal_msgs.srv import ResetSim, SetGoalImage
from PIL import Image as Picture
from ros_tools import Probe, new_domain, wait_for
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros import paths
from act2goal_ros.control.stop import StopReason
from act2goal_ros.data import rollout
from act2goal_ros.nodes import qos, topics

pytestmark = pytest.mark.system

ACT2GOAL = str(Path(sys.executable).with_name("act2goal"))
TASK = "cube-single-2"
NAMES = [f"{name}_joint" for name in ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")]
MOVING = 0.1  # rad/s
RUNNING = ControlStatus.RUNNING


class System:
    """The running graph, a probe that listens and interferes."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        os.environ["ROS_DOMAIN_ID"] = str(new_domain())
        os.environ["ROS_LOG_DIR"] = str(folder)
        os.environ["ACT2GOAL_ROLLOUTS"] = str(folder / "rollouts")
        self.process = subprocess.Popen([ACT2GOAL, "up", "--no-display", "goal_image:=none", *arguments], stdout=subprocess.DEVNULL)
        self.probe = Probe(int(os.environ["ROS_DOMAIN_ID"]))
        listen = self.probe.listen
        self.statuses: list[ControlStatus] = listen(ControlStatus, topics.CONTROL_STATUS, qos.COMMAND)
        self.joints: list[JointState] = listen(JointState, topics.JOINT_STATES, qos.SENSOR)
        self.sim: list[SimState] = listen(SimState, topics.SIM_STATE, qos.SENSOR)
        self.stops: list[Stop] = listen(Stop, topics.STOP, qos.LATCHED)
        self.probe.advertise(JointState, topics.JOINT_STATES, qos.SENSOR)
        self.probe.advertise(Image, topics.IMAGE, qos.SENSOR)

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("act2goal-*.log"))

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.probe.node.create_client(kind, name)
        assert client.wait_for_service(60.0), name
        future = client.call_async(request)
        wait_for(future.done, 20.0, name)
        self.probe.node.destroy_client(client)
        return future.result()

    def speed(self) -> float:
        """The fastest joint, rad/s, as measured."""
        return max(map(abs, self.joints[-1].velocity[:6]), default=0.0) if self.joints else 0.0

    def wait_up(self) -> None:
        wait_for(lambda: self.stops and not self.stops[-1].active, 90.0, lambda: f"all is well:\n{self.log[-2000:]}")

    def set_off(self, seed: int = 0, task: str = TASK) -> Image:
        """A new episode with its goal; returns the goal when the arm moves."""
        self.wait_up()
        answer = self.call(ResetSim, topics.RESET_SIM, ResetSim.Request(task=task, seed=seed))
        assert answer.success, answer.message
        self.probe.wait_for_subscribers(topics.IMAGE, topics.JOINT_STATES)
        shown = self.call(SetGoalImage, topics.SET_GOAL, SetGoalImage.Request(image=answer.goal_image))
        assert shown.success, shown.message
        wait_for(lambda: self.statuses and self.statuses[-1].goal_id == shown.goal_id, 10.0, "the goal")
        self.wait_moving()
        return answer.goal_image

    def wait_moving(self) -> None:
        def moving() -> bool:
            return bool(self.statuses) and self.statuses[-1].state == RUNNING and self.speed() > MOVING

        wait_for(moving, 40.0, lambda: f"motion; {self.statuses[-1:]} {self.log[-1000:]}")

    def wait_rest(self, seconds: float = 3.0) -> None:
        wait_for(lambda: self.speed() < 0.02, seconds, lambda: f"rest, {self.speed():.3f} rad/s")

    def expect_stop(self, since: int, reason: StopReason, *words: str) -> None:
        """Waits for a status after the first `since` ones that gives this reason."""
        def told() -> bool:
            return any(s.stop_reason.value == reason and all(w in s.stop_detail for w in words) for s in self.statuses[since:])

        wait_for(told, 5.0, lambda: f"{reason.name} {words}: {[(s.state, s.stop_detail) for s in self.statuses[since:]][-5:]}")

    def process_of(self, node: str) -> psutil.Process:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return next(p for p in family if any(Path(word).name == node for word in p.cmdline()[:3]))

    def close(self) -> None:
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(30.0) == 0
        finally:
            for process in (self.process, *family):
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    process.kill()
            self.probe.close()


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[System]:
    """The graph, up and ready, in an environment of its own."""
    before = dict(os.environ)
    system = System(folder, *arguments)
    try:
        system.wait_up()
        yield system
    finally:
        os.environ.clear()
        os.environ.update(before)
        system.close()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with started(tmp_path_factory.mktemp("system")) as system:
        yield system


def frame(shape: tuple[int, int] = (128, 128), encoding: str = "rgb8", cut: int = 0) -> Callable[[System], None]:
    """Publishes a camera frame of now."""
    def publish(system: System) -> None:
        message = Image(height=shape[0], width=shape[1], encoding=encoding, step=3 * shape[1])
        message.header.stamp = system.probe.stamp()
        message.data = bytes(3 * shape[0] * shape[1] - cut)
        system.probe.publish(topics.IMAGE, message)

    return publish


def joints(change: Callable[[JointState], None]) -> Callable[[System], None]:
    """Publishes the arm's newest joint state, changed."""
    def publish(system: System) -> None:
        newest = system.joints[-1]
        message = JointState(name=list(newest.name), position=list(newest.position), velocity=list(newest.velocity))
        message.header.stamp = system.probe.stamp()
        change(message)
        system.probe.publish(topics.JOINT_STATES, message)

    return publish


def _set(message: JointState, value: float) -> None:
    message.position[2] = value


def _drop(message: JointState) -> None:
    del message.name[1], message.position[1], message.velocity[1]


def _reverse(message: JointState) -> None:
    message.name, message.position, message.velocity = ([*reversed(v)] for v in (message.name, message.position, message.velocity))


BAD = [
    (frame((96, 128)), StopReason.BAD_IMAGE, ("128 × 96", "128 × 128")),
    (frame(encoding="mono16"), StopReason.BAD_IMAGE, ("mono16", "rgb8")),
    (frame(cut=100), StopReason.BAD_IMAGE, ("49052 bytes", "49152")),
    (joints(lambda m: _set(m, float("nan"))), StopReason.BAD_JOINT_STATES, ("nan",)),
    (joints(lambda m: _set(m, float("inf"))), StopReason.BAD_JOINT_STATES, ("inf",)),
    (joints(_drop), StopReason.BAD_JOINT_STATES, ("missing",)),
]


@pytest.mark.parametrize(("interfere", "reason", "words"), BAD, ids=["size", "encoding", "cut", "nan", "infinite", "missing"])
def test_bad_input_brakes_is_named_and_the_graph_goes_on(system: System, interfere: Any, reason: StopReason, words: Any) -> None:
    system.set_off()
    since = len(system.statuses)
    for _ in range(20):
        interfere(system)
        time.sleep(0.02)
    system.expect_stop(since, reason, *words)
    system.wait_moving()


def test_joint_states_in_another_order_simply_work(system: System) -> None:
    system.set_off()
    since = len(system.statuses)
    for _ in range(20):
        joints(_reverse)(system)
        time.sleep(0.02)
    assert not any(s.stop_reason.value == StopReason.BAD_JOINT_STATES for s in system.statuses[since:])


def test_an_arm_that_falls_silent_is_not_commanded_on(system: System) -> None:
    system.set_off()
    since, process = len(system.statuses), system.process_of("simulated_arm")
    process.suspend()
    try:
        system.expect_stop(since, StopReason.STALE_JOINT_STATES, "joint state")
    finally:
        process.resume()
    system.wait_moving()


@pytest.mark.parametrize("name", ["text.png", "truncated.png", "missing.png"])
def test_a_goal_that_is_no_picture_is_refused_and_the_arm_goes_on(system: System, name: str) -> None:
    system.set_off()
    goal, path = system.statuses[-1].goal_id, system.folder / name
    if name == "text.png":
        path.write_text("no picture")
    elif name == "truncated.png":
        Picture.fromarray(np.zeros((200, 200, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:80])
    refused = system.call(SetGoalImage, topics.SET_GOAL, SetGoalImage.Request(path=str(path)))
    assert not refused.success and ("image" in refused.message)
    assert system.statuses[-1].goal_id == goal
    system.wait_moving()


@pytest.mark.parametrize("node", ["policy", "supervisor", "imagination", "msth", "goal", "rollouts", "simulated_arm"])
def test_when_a_node_is_killed_in_motion_the_arm_stops_and_all_comes_back(system: System, node: str) -> None:
    system.set_off()
    stops = len(system.stops)
    system.process_of(node).kill()
    if node == "simulated_arm":
        wait_for(lambda: any(s.active for s in system.stops[stops:]), 5.0, "a stop")
    else:
        system.wait_rest()
        assert node == "supervisor" or any(s.active and node in s.detail for s in system.stops[stops:])
    before = len(system.sim)
    wait_for(lambda: len(system.stops) > stops and not system.stops[-1].active, 60.0, lambda: f"recovery:\n{system.log[-2000:]}")
    wait_for(lambda: len(system.sim) > before + 5, 20.0, "the simulated arm")
    system.set_off(1)


def test_a_second_launch_is_refused(system: System) -> None:
    second = subprocess.run([ACT2GOAL, "up", "--no-display"], capture_output=True, text=True, timeout=30)
    assert second.returncode == 1 and "launch runs already in ROS domain" in second.stderr


def test_goals_are_reached_and_the_arm_stays_put(system: System) -> None:
    reached = 0
    for task in ("cube-single-1", "cube-single-3", "cube-single-5"):
        goal = system.set_off(7, task)
        path = system.folder / f"{task}.png"
        Picture.fromarray(np.frombuffer(goal.data, np.uint8).reshape(goal.height, goal.width, 3)).save(path)
        done = subprocess.run(
            [ACT2GOAL, "goal", "send", "--image", str(path), "--timeout", "30"], capture_output=True, text=True, timeout=90
        )
        print(done.stdout[-300:], done.stderr[-300:], system.sim[-1].success_once)
        if done.returncode == 0 and system.sim[-1].success_once:
            reached += 1
            where = np.array(system.joints[-1].position[:6])
            time.sleep(1.0)
            assert np.abs(np.array(system.joints[-1].position[:6]) - where).max() < 0.01
    assert reached >= 2


def test_all_recordings_can_be_read(system: System) -> None:
    time.sleep(1.0)  # the last one is closed
    found = [rollout.describe(folder) for folder in rollout.directories(system.folder / "rollouts")]
    complete = [r for r in found if r.complete]
    assert len(complete) >= 10 and len(found) - len(complete) <= 1
    assert sum(r.outcome == "reached" for r in complete) >= 2
    for name in (topics.PLAN, topics.SELECTION, topics.CONTROL_STATUS):
        kept = next(r for r in complete if r.outcome == "reached")
        assert any(message for _, message in zip(range(3), rollout.read(kept.directory, [name]), strict=False)), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["params:=bad.yaml"], "parameter command_rate = 5000.0 Hz is above the highest allowed"),
        (["model:=broken"], "SHA-256"),
        (["model:=stranger"], "not for robot"),
    ],
    ids=["parameter", "hash", "robot"],
)
def test_what_cannot_be_launched_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(new_domain()))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    _bad_launch(tmp_path)
    name, value = arguments[0].split(":=")
    command = [ACT2GOAL, "up", "--no-display", "goal_image:=none", f"{name}:={tmp_path / value}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said: list[str] = []
    try:
        def told() -> bool:
            log = "".join(path.read_text() for path in tmp_path.glob("act2goal-*.log"))
            if process.poll() is not None and not said:
                assert process.stdout is not None
                said.append(process.stdout.read())
            return words in log + "".join(said)

        wait_for(told, 40.0, lambda: f"{words}: {said} {[p.read_text()[-1500:] for p in tmp_path.glob('act2goal-*.log')]}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            assert process.wait(30.0) in (0, 1)


def _bad_launch(folder: Path) -> None:
    """A parameter file out of range, a model with a changed file, a model for another robot."""
    (folder / "bad.yaml").write_text("policy:\n  ros__parameters:\n    command_rate: 5000.0\n")
    for name in ("broken", "stranger"):
        shutil.copytree(paths.model("act2goal-tiny"), folder / name)
    with (folder / "broken" / "tick.onnx").open("ab") as file:
        file.write(b"x")
    manifest = folder / "stranger" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"robots": ["another_arm"]}))


def test_by_the_controllers_action_the_arm_moves_and_stops(tmp_path: Path) -> None:
    with started(tmp_path, "command_interface:=action") as system:
        probe = system.probe
        goals = probe.listen(JointTrajectory, topics.COMMANDED, qos.COMMAND)
        commands = probe.listen(JointTrajectory, topics.joint_trajectory("scaled_joint_trajectory_controller"), qos.COMMAND)
        probe.advertise(Bool, topics.E_STOP, qos.EVENT)
        system.set_off()
        since = len(system.statuses)
        assert goals and not commands
        probe.wait_for_subscribers(topics.E_STOP)
        probe.publish(topics.E_STOP, Bool(data=True))
        system.expect_stop(since, StopReason.E_STOP)
        system.wait_rest()
        assert not commands, "the supervisor sees that the policy brakes, and does not brake over it"
        probe.publish(topics.E_STOP, Bool(data=False))
        system.set_off(seed=1)
        wait_for(lambda: int(probe.values("policy")["goals.accepted"]) > 10, 10.0, lambda: str(probe.values("policy")))
        assert "goals.rejected" not in probe.values("policy")
