"""imagination and msth, each in a process of its own, with a model whose world is one number."""

import array
import contextlib
import json
import shutil
import time

import numpy as np
import pytest
import rclpy
from act2goal_msgs.msg import (
    FrameSelection,
    Goal,
    LiveLatent,
    NodeStatus,
    Plan,
    PlanFeatures,
    Progress,
    Replan,
    StopReason,
)
from fake_bundle import HASH, SPEED, FakeBundle, FakeImagination, latent, picture
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from ros_tools import Probe, new_domain, require_pace, running, wait_for
from sensor_msgs.msg import Image

from act2goal_ros import paths
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import values_of
from act2goal_ros.nodes.imagination import ImaginationNode
from act2goal_ros.serving.bundle import MANIFEST, REFERENCE, ModelBundle, file_hash


class Robot:
    """Camera and goal of a robot whose world is the brightness of its picture; also stands in for the policy's live latents."""

    def __init__(self, domain: int) -> None:
        self.probe = Probe(domain)
        self.brightness, self.speed = 0.1, 0.0
        for kind, topic, profile in (
            (Goal, topics.GOAL, qos.LATCHED),
            (Image, topics.IMAGE, qos.SENSOR),
            (Replan, topics.REPLAN, qos.EVENT),
            (Plan, topics.PLAN, qos.LATCHED),
            (LiveLatent, topics.LIVE_LATENT, qos.SENSOR),
        ):
            self.probe.advertise(kind, topic, profile)
        self.plans = self.probe.listen(Plan, topics.PLAN, qos.LATCHED)
        self.features = self.probe.listen(PlanFeatures, topics.PLAN_FEATURES, qos.LATCHED)
        self.selections = self.probe.listen(FrameSelection, topics.SELECTION, qos.LATCHED)
        self.progress = self.probe.listen(Progress, topics.PROGRESS, qos.SENSOR)
        self.replans = self.probe.listen(Replan, topics.REPLAN, qos.EVENT)

    def show(self, goal_id: str, brightness: float, state: int = Goal.ACTIVE) -> None:
        message = Goal(goal_id=goal_id, state=state, image=images.to_message(picture(brightness)))
        message.header.stamp = self.probe.stamp()
        self.probe.publish(topics.GOAL, message)

    def live(self, model_hash: str = HASH, shape=(2, 4, 4), shift: float = 0.0) -> None:
        message = LiveLatent(model_hash=model_hash, shape=list(shape))
        message.header.stamp = self.stamp(shift)
        count = int(np.prod(shape))
        message.data = array.array("f", [self.brightness] * count)
        self.probe.publish(topics.LIVE_LATENT, message)

    def stamp(self, shift: float = 0.0):
        from rclpy.duration import Duration

        return (self.probe.node.get_clock().now() + Duration(nanoseconds=int(shift * 1e9))).to_msg()

    def run(self, seconds: float, rate: float = 25.0, latents: bool = False, images_too: bool = True) -> int:
        """Publishes camera frames (and live latents) at a rate while the brightness moves; returns how many."""
        count, begin = 0, time.monotonic()
        while time.monotonic() < begin + seconds:
            if images_too:
                message = images.to_message(picture(self.brightness))
                message.header.stamp = self.probe.stamp()
                self.probe.publish(topics.IMAGE, message)
            if latents:
                self.live()
            count += 1
            time.sleep(max(0.0, begin + count / rate - time.monotonic()))
            self.brightness += self.speed / rate
        return count

    def run_until(self, condition, seconds: float = 20.0, what: str = "", **kinds: bool):
        """Goes on until the condition is true and returns its value."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            self.run(0.08, **kinds)
        return value

    def says(self, node: str, text: str, level: int | None = None, **kinds: bool):
        """Goes on until the node's status has the text (and level)."""

        def heard():
            status = self.probe.status(node)
            return status and text in status.message and (level is None or status.level == level) and status

        return self.run_until(heard, 20.0, f"'{text}' from {node}; {self.probe.status(node)}", **kinds)


LATENTS = {"latents": True, "images_too": False}


@contextlib.contextmanager
def node(which: str, tmp_path, environment=None, **parameters):
    """imagination or msth with the fake model, and the robot it hears."""
    domain = new_domain()
    robot = Robot(domain)
    extra = {"nice": 0} if which == "imagination" else {}  # the tests' machine may be loaded
    try:
        with running(f"fake_bundle {which}", domain, tmp_path / which, parameters | extra, environment):
            robot.probe.wait_active(which)
            ears = (topics.GOAL, topics.IMAGE) if which == "imagination" else (topics.GOAL, topics.LIVE_LATENT)
            robot.probe.wait_for_subscribers(*ears)
            yield robot
    finally:
        robot.probe.close()


def seconds(stamp) -> float:
    return stamp.sec + 1e-9 * stamp.nanosec


def test_plans_come_at_their_rate_with_features_and_previews(tmp_path):
    with node("imagination", tmp_path, rate=5.0, preview_rate=1.0) as robot:
        robot.run(0.3)
        assert robot.plans == [], "a plan without a goal"
        robot.show("g1", 0.7)
        require_pace(robot.run(3.0), 75)
        values = robot.probe.values("imagination")
    first: dict[str, Plan] = {}
    for plan in robot.plans:
        first.setdefault(plan.plan_id, plan)
    assert 13 <= len(first) <= 17
    assert [f.plan_id for f in robot.features] == list(first)
    plan, features = robot.plans[0], robot.features[0]
    assert plan.goal_id == "g1" and plan.model_hash == features.model_hash == HASH and plan.dense_frames == 3
    assert plan.header == features.header
    assert plan.time_to_goal == pytest.approx(0.6 / SPEED, abs=0.05)
    assert list(plan.latent_shape) == [6, 2, 4, 4] and len(plan.latents) == 6 * 32
    assert list(features.shape) == [2, 6, 4, 8] and len(features.data) == 2 * 6 * 4 * 8
    with_pictures = [p for p in robot.plans if p.previews]
    assert 2 <= len(with_pictures) <= 4 and all(len(p.previews) == 6 for p in with_pictures)
    assert all(first[p.plan_id].latents == p.latents for p in with_pictures)
    assert images.to_rgb(with_pictures[0].previews[-1]).mean() == pytest.approx(0.7 * 255, abs=2)
    assert float(values["imagination_hz"]) == pytest.approx(5.0, abs=0.6)
    assert all(p.duration_ms >= 20.0 for p in robot.plans)


def test_a_new_goal_and_a_request_are_answered_at_once(tmp_path):
    with node("imagination", tmp_path, rate=0.5) as robot:
        robot.run(0.3)
        for what in ("g1", "g2", "replan"):
            count = len({p.plan_id for p in robot.plans})
            asked = time.monotonic()
            if what == "replan":
                robot.probe.publish(topics.REPLAN, Replan(plan_id="x", reason="test"))
            else:
                robot.show(what, 0.6 if what == "g1" else 0.9)
            while len({p.plan_id for p in robot.plans}) == count:
                robot.run(0.04)
                assert time.monotonic() - asked < 3.0, f"{what}: {robot.probe.status('imagination')}"
            assert time.monotonic() - asked < 1.0, f"{what} took {time.monotonic() - asked:.2f} s"
        assert robot.plans[-1].goal_id == "g2" and robot.plans[0].goal_id == "g1"


def test_no_plans_once_the_goal_is_reached(tmp_path):
    with node("imagination", tmp_path) as robot:
        robot.show("g1", 0.7)
        robot.run_until(lambda: robot.plans)
        robot.show("g1", 0.7, Goal.REACHED)
        robot.says("imagination", "no active goal")
        count = len(robot.plans)
        robot.run(0.8)
        assert len(robot.plans) == count


def test_old_and_broken_frames_make_no_plan_and_are_named(tmp_path):
    with node("imagination", tmp_path, image_timeout=0.3) as robot:

        def heard(text: str):
            return robot.says("imagination", text, images_too=False)

        robot.show("g1", 0.7)
        time.sleep(0.5)
        message = images.to_message(picture(0.1))
        message.header.stamp = robot.stamp(-5.0)
        robot.probe.publish(topics.IMAGE, message)

        assert heard("s old, must be within ±0.30 s").level == NodeStatus.WARN
        message.header.stamp = robot.probe.stamp()
        message.encoding = "yuv422"
        robot.probe.publish(topics.IMAGE, message)
        heard("camera picture: encoding 'yuv422' is none of")
        time.sleep(0.3)  # a frame that makes no plan takes its turn all the same
        message.encoding, message.step = "rgb8", 7
        message.header.stamp = robot.probe.stamp()
        robot.probe.publish(topics.IMAGE, message)
        heard("step 7 bytes is less than width 32")
        assert robot.plans == []
        assert int(robot.probe.values("imagination")["drops.bad_image"]) == 2
        robot.run_until(lambda: robot.plans)
        robot.says("imagination", "imagining", NodeStatus.OK)


def test_a_goal_that_is_no_picture_is_named_and_the_next_one_works(tmp_path):
    with node("imagination", tmp_path) as robot:
        bad = Goal(goal_id="bad", state=Goal.ACTIVE, image=Image(encoding="rgb8", width=64, height=64, step=192))
        robot.probe.publish(topics.GOAL, bad)
        robot.says("imagination", "goal picture: 0 bytes of data")
        assert robot.plans == []
        robot.show("good", 0.7)
        assert robot.run_until(lambda: robot.plans)[0].goal_id == "good"


def test_a_model_that_fails_asks_for_a_stop_and_recovers(tmp_path):
    faults = {"FAKE_FAULTS": ",".join(f"{seed}:{'raise' if seed % 2 else 'nan'}" for seed in range(3, 8))}
    with node("imagination", tmp_path, faults, seed=1) as robot:
        robot.show("g1", 0.7)
        robot.run_until(lambda: robot.plans)
        robot.says("imagination", "imagining", NodeStatus.OK)
        levels = [(s.level, s.stop_reason.value) for s in robot.probe.heard[topics.STATUS] if s.node == "imagination"]
        assert (NodeStatus.ERROR, StopReason.MODEL_FAULT) in levels and levels[-1] == (NodeStatus.OK, StopReason.NONE)
        assert int(robot.probe.values("imagination")["drops.model_fault"]) == 5
        assert robot.plans[0].seed == 8
    assert "fake fault at seed 3" in (tmp_path / "imagination").read_text()


@pytest.mark.parametrize("variant", ["shuffled", "masked", "none", "other_goal"])
def test_variants_for_studies_change_what_reaches_the_policy_only(tmp_path, variant):
    import cv2

    (tmp_path / "goals").mkdir()
    cv2.imwrite(str(tmp_path / "goals" / "other.png"), picture(0.0))
    with node("imagination", tmp_path, variant=variant, other_goals=tmp_path / "goals") as robot:
        robot.show("g1", 0.7)
        if variant == "none":
            robot.run_until(lambda: float(robot.probe.values("imagination").get("imagination_hz", 0)) > 0)
        else:
            robot.run_until(lambda: robot.features and robot.plans)
    if variant == "none":
        assert robot.plans == robot.features == []
        return
    assert robot.plans[-1].goal_latent == pytest.approx(latent(0.7).ravel(), abs=2e-3)
    features = np.array(robot.features[-1].data).reshape(2, 6, 4, 8)[0, :, 0, 0]
    if variant == "masked":
        assert not features.any()
    elif variant == "shuffled":
        assert np.any(np.diff(features) < 0) and features.max() == pytest.approx(0.7, abs=0.01)
    else:
        assert features.max() <= 0.1 and robot.plans[-1].latents[-1] == pytest.approx(0.0, abs=2e-3)


def refusal(tmp_path, name: str, module: str, environment=None, **parameters) -> str:
    """What a node says that cannot be configured, nor ever is."""
    domain = new_domain()
    probe = Probe(domain)
    try:
        with running(module, domain, tmp_path / "log", parameters, environment):
            status = wait_for(lambda: (s := probe.status(name)) and s.level == s.ERROR and s, 60, "an error")
            wait_for(lambda: sum(s.level == s.ERROR for s in probe.heard[topics.STATUS]) > 25, 20, "another attempt")  # every 2 s
        assert {values_of(s)["state"] for s in probe.heard[topics.STATUS]} <= {"unconfigured", "configuring"}
        return status.message
    finally:
        probe.close()


def test_an_unknown_variant_is_refused_with_the_choices(tmp_path):
    told = refusal(tmp_path, "imagination", "fake_bundle imagination", variant="upside_down")
    assert "variant = 'upside_down' is none of normal | other_goal" in told


@pytest.mark.parametrize(
    ("fault", "told"), [("raise", "RuntimeError: fake fault at seed 1"), ("nan", "the world model's output is not finite (seed 1)")]
)
def test_a_model_that_fails_when_it_is_warmed_up_never_becomes_active(tmp_path, fault, told):
    faults = {"FAKE_FAULTS": f"1:{fault}"}  # the first plan's, and again the first's of the next attempt
    assert refusal(tmp_path, "imagination", "fake_bundle imagination", faults, seed=0, nice=0) == f"cannot be configured: {told}"


def test_every_network_has_run_before_the_node_is_active(domain, monkeypatch):
    model, runs = FakeImagination(), []
    monkeypatch.setattr(ModelBundle, "load", classmethod(lambda cls, *_: FakeBundle()))
    monkeypatch.setattr(FakeBundle, "imagination", lambda *_: model)
    rclpy.init(domain_id=domain, signal_handler_options=SignalHandlerOptions.NO)
    node = ImaginationNode()
    node.set_parameters([Parameter("nice", value=0)])  # this process's

    def noting(name):
        run = getattr(model, name)

        def noted(*arguments):
            runs.append((name, node.is_active))
            return run(*arguments)

        monkeypatch.setattr(model, name, noted)

    for name in ("encode", "imagine", "decode"):
        noting(name)
    try:
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert runs == [("encode", False), ("encode", False), ("imagine", False), ("decode", False)] and not node.is_active
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS and node.is_active
        assert len(runs) == 4
    finally:
        node.close()
        rclpy.shutdown()


# msth


def test_msth_does_not_start_with_a_network_that_computes_something_else(tmp_path):
    folder = shutil.copytree(paths.model("act2goal-tiny"), tmp_path / "model")
    with np.load(folder / REFERENCE) as file:
        arrays = dict(file)
    arrays["distance/out/log_steps"] = arrays["distance/out/log_steps"] + np.float32(0.1)
    np.savez(folder / REFERENCE, **arrays)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][REFERENCE] = file_hash(folder / REFERENCE)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    told = refusal(tmp_path, "msth", "act2goal_ros.nodes.msth", model=str(folder))
    assert "cannot be configured: BackendError: backend 'onnxruntime' cannot serve model: distance differs from torch float32" in told


def plan_for(robot: Robot, plan_id: str, goal: float = 0.9, goal_id: str = "g1", model_hash: str = HASH) -> Plan:
    offsets = np.array([0.4, 0.8, 1.2, 2.0, 3.0, 4.0])
    values = np.minimum(robot.brightness + SPEED * offsets, goal)
    plan = Plan(plan_id=plan_id, goal_id=goal_id, model_hash=model_hash, frame_offsets=offsets.tolist(), dense_frames=3)
    plan.header.stamp = robot.probe.stamp()
    plan.latent_shape = [6, 2, 4, 4]
    plan.latents = array.array("f", np.repeat(values, 32).astype(np.float32).tolist())
    plan.goal_latent = array.array("f", [goal] * 32)
    plan.start_latent = array.array("f", [robot.brightness] * 32)
    return plan


@pytest.mark.parametrize("mode", ["latent", "clock"])
def test_frames_are_selected_anew_when_progress_crosses_them(tmp_path, mode):
    with node("msth", tmp_path, progress=mode) as robot:
        robot.show("g1", 0.9)
        plan = plan_for(robot, "p1")
        start = seconds(plan.header.stamp)
        robot.probe.publish(topics.PLAN, plan)
        robot.speed = SPEED
        require_pace(robot.run(1.0, **LATENTS), 25)
        assert robot.selections[0].frame_indices.tolist() == [0, 1, 3, 4, 5]
        assert list(robot.selections[0].proximal) == [True, True, False, False, False]
        assert seconds(robot.selections[0].frame_times[0]) == pytest.approx(start + 0.4, abs=1e-6)
        assert seconds(robot.selections[0].valid_until) == pytest.approx(start + 1.5, abs=1e-6)
        sets = [s.frame_indices.tolist() for s in robot.selections]
        assert [k for i, k in enumerate(sets) if i == 0 or sets[i - 1] != k] == [
            [0, 1, 3, 4, 5],
            [1, 2, 3, 4, 5],
            [2, 3, 4, 5],
        ]
        crossed = next(s for s in robot.selections if s.frame_indices[0] == 1)
        assert seconds(crossed.header.stamp) - start == pytest.approx(0.4, abs=0.12)
        assert len(robot.progress) >= 12
        last = robot.progress[-1]
        assert last.goal_id == "g1" and last.plan_id == "p1" and last.plan_age == pytest.approx(1.0, abs=0.15)
        assert last.time_to_goal == pytest.approx((0.9 - robot.brightness) / SPEED, abs=0.3)
        assert last.progress == pytest.approx(1.0 / 4.0, abs=0.07) and last.plan_distance < 0.02
        assert any("s old, at most 0.75 s" in r.reason for r in robot.replans)


def test_a_robot_held_back_is_given_later_times_and_another_plan_is_asked_for(tmp_path):
    with node("msth", tmp_path, progress="latent", lag=0.1, replan_age=20.0) as robot:
        robot.show("g1", 0.9)
        robot.probe.publish(topics.PLAN, plan_for(robot, "p1"))
        require_pace(robot.run(1.0, **LATENTS), 25)
        last = robot.selections[-1]
        assert last.frame_indices.tolist() == [0, 1, 3, 4, 5] and last.shift > 0.6
        wait = seconds(last.frame_times[0]) - seconds(last.header.stamp)
        assert wait == pytest.approx(0.4, abs=0.2)
        assert [r.plan_id for r in robot.replans] == ["p1"] and "off its clock" in robot.replans[0].reason


def test_a_robot_off_the_way_asks_for_another_plan_only_while_the_goal_is_active(tmp_path):
    with node("msth", tmp_path, max_distance=0.2, replan_age=20.0, max_shift=20.0) as robot:

        def leave_the_way(plan_id: str) -> None:
            robot.brightness = 0.1
            robot.probe.publish(topics.PLAN, plan_for(robot, plan_id))
            robot.run_until(lambda: robot.progress and robot.progress[-1].plan_id == plan_id, **LATENTS)
            robot.brightness = -0.6
            robot.run_until(lambda: robot.progress[-1].plan_distance > 0.5, **LATENTS)
            robot.run(0.4, **LATENTS)

        robot.show("g1", 0.9, Goal.REACHED)
        time.sleep(0.5)
        leave_the_way("p1")
        assert robot.replans == []
        robot.show("g1", 0.9)
        time.sleep(0.5)
        leave_the_way("p2")
        robot.run_until(lambda: robot.replans, **LATENTS)
        assert [r.plan_id for r in robot.replans] == ["p2"] and "RMS from the imagined way" in robot.replans[0].reason


def test_the_masked_variant_selects_no_frame_but_keeps_plan_and_progress(tmp_path):
    with node("msth", tmp_path, variant="masked") as robot:
        robot.probe.publish(topics.PLAN, plan_for(robot, "p1"))
        robot.run_until(lambda: robot.selections and robot.progress, **LATENTS)
        assert robot.progress[-1].plan_id == "p1"
        for selection in robot.selections:
            assert selection.plan_id == "p1" and len(selection.frame_indices) == len(selection.frame_times) == 0


def test_the_second_message_of_a_plan_changes_nothing(tmp_path):
    with node("msth", tmp_path) as robot:
        plan = plan_for(robot, "p1")
        robot.probe.publish(topics.PLAN, plan)
        wait_for(lambda: robot.selections, 20, "a selection")
        plan.previews = [images.to_message(picture(0.1))]
        robot.probe.publish(topics.PLAN, plan)
        time.sleep(0.3)
        assert len(robot.selections) == 1


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        ("wrong_model", "live latent of model 0badcafe"),
        ("bad_latent", "live latent has 12 elements, must be 32"),
        ("bad_plan", "192 numbers do not have shape (6, 2, 4, 5)"),
        ("clock_jump", "older than the plan's, at most 0.50 s: clock jumped back"),
    ],
)
def test_what_does_not_fit_is_named_and_counted_and_the_next_plan_works(tmp_path, cause, text):
    with node("msth", tmp_path) as robot:
        plan = plan_for(robot, "p1")
        if cause == "bad_plan":
            plan.latent_shape = [6, 2, 4, 5]
        robot.probe.publish(topics.PLAN, plan)
        if cause != "bad_plan":
            wait_for(lambda: robot.selections, 20, "a selection")
        if cause == "wrong_model":
            robot.live(model_hash="0badcafe" * 8)
        elif cause == "bad_latent":
            robot.live(shape=(2, 2, 3))
        elif cause == "clock_jump":
            robot.live(shift=-3.0)
        robot.says("msth", text, images_too=False)
        assert int(robot.probe.values("msth")[f"drops.{cause}"]) == 1
        robot.probe.publish(topics.PLAN, plan_for(robot, "p2"))
        robot.run_until(lambda: robot.progress and robot.progress[-1].plan_id == "p2", **LATENTS)
        robot.says("msth", "following plan p2", NodeStatus.OK, **LATENTS)
