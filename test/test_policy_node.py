"""The policy node in a process of its own, between a fake world and a fake model: motion, every stop and its cause."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from act2goal_msgs.msg import Adapter, ControlStatus, Goal, NodeStatus, Stop, StopReason
from fake_policy import HASH, SPEED, FakeBundle
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from policy_bench import LEAST_STOP, ROBOT, SLACK, Bench, bench, check_speed_scaling, check_stop, inject, shared_benches
from ros_tools import Probe, new_domain, running, wait_for
from safetensors.numpy import save_file
from std_msgs.msg import Bool, String

from act2goal_ros import paths
from act2goal_ros.control.inference import PATIENCE
from act2goal_ros.control.stop import StopReason as Reason
from act2goal_ros.nodes import policy_messages as messages
from act2goal_ros.nodes import topics
from act2goal_ros.nodes.parameters import build, read_yaml
from act2goal_ros.nodes.policy import PolicyParameters
from act2goal_ros.serving import adapter
from act2goal_ros.serving.bundle import FORMAT, NETWORKS, ModelError, file_hash
from act2goal_ros.serving.reference import FILE as REFERENCE


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Bench]]:
    with shared_benches(tmp_path_factory.mktemp("policy")) as get:
        yield get


@pytest.fixture
def shared(benches: Callable[[], Bench]) -> Bench:
    return benches()


FAULTS = [
    # fault, reason, words of the detail, s until it can be known
    ("no_image", Reason.STALE_IMAGE, ("camera frame", "allowed 0.15 s"), 0.15),
    ("wrong_size", Reason.BAD_IMAGE, ("32 × 24", "32 × 32"), 0.04),
    ("wrong_encoding", Reason.BAD_IMAGE, ("yuv422", "rgb8"), 0.04),
    ("truncated_image", Reason.BAD_IMAGE, ("100 bytes", "3072"), 0.04),
    ("no_joint_states", Reason.STALE_JOINT_STATES, ("joint state", "allowed 0.1 s"), 0.1),
    ("nan_joints", Reason.BAD_JOINT_STATES, ("wrist_1_joint", "nan"), 0.008),
    ("infinite_joints", Reason.BAD_JOINT_STATES, ("shoulder_pan_joint", "inf"), 0.008),
    ("missing_joint", Reason.BAD_JOINT_STATES, ("shoulder_pan_joint missing",), 0.008),
    ("wrong_names", Reason.STALE_JOINT_STATES, ("left_elbow_joint",), 0.1),
    ("no_controller", Reason.CONTROLLER_LOST, ("controller state", "0.25"), 0.25),
    ("tracking", Reason.CONTROLLER_TRACKING_ERROR, ("1.500 rad", "allowed 1 rad"), 0.004),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "reason", "words", "known"), FAULTS, ids=[f[0] for f in FAULTS])
def test_a_fault_brakes_in_time_and_motion_resumes(shared, fault, reason, words, known) -> None:
    def provoke() -> float:
        at = inject(shared, fault)
        shared.expect(reason, *words)
        return at + known

    def clear() -> None:
        shared.probe.publish("fault", String(data=""))

    if fault == "no_controller":  # whose state is what braking is measured by
        provoke()
        clear()
        shared.wait_running()
    else:
        check_stop(shared, provoke, clear)


def test_joint_states_in_another_order_simply_work(shared) -> None:
    inject(shared, "shuffled")
    before = len(shared.status)
    time.sleep(0.8)
    after = list(shared.status)[before:]
    shared.probe.publish("fault", String(data=""))
    assert not [s for s in after if s.stop_reason.value == Reason.BAD_JOINT_STATES]
    assert [s for s in after if s.state == ControlStatus.RUNNING]


@pytest.mark.parametrize(
    ("mode", "reason", "words"),
    [
        ("nan", Reason.BAD_CHUNK, ("elbow_joint", "not finite")),
        ("far", Reason.BAD_CHUNK, ("shoulder_lift_joint", "40.0000", "6.2832")),
        ("empty", Reason.BAD_CHUNK, ("(0, 6)", "expected (P, 6) with P ≥ 1")),
        ("five", Reason.BAD_CHUNK, ("(16, 5)", "expected (P, 6)")),
        ("raise", Reason.MODEL_FAULT, ("the fake fails",)),
        ("slow", Reason.DELAY_OVER_BUDGET, ("allowed",)),
    ],
)
def test_a_bad_policy_brakes(shared, mode, reason, words) -> None:
    def provoke() -> float:
        at = shared.mark()
        shared.mode_file.write_text(mode)
        shared.expect(reason, *words)
        return at

    # Besides braking: until the next frame, and the computation.
    late = 0.45 + 0.25 if mode == "slow" else 0.1 + 0.05
    check_stop(shared, provoke, lambda: shared.mode_file.write_text(""), late)


def test_a_controller_that_is_paused_or_slowed_down_is_waited_for(shared) -> None:
    check_speed_scaling(shared)


def test_plans_that_cease_stop_the_arm(shared) -> None:
    inject(shared, "no_plan")
    try:
        shared.expect(Reason.STALE_PLAN, "past its time")
    finally:
        shared.probe.publish("fault", String(data=""))
    shared.wait_running()


LOST = Stop(active=True, reason=StopReason(value=Reason.NODE_LOST), detail="camera ended")


@pytest.mark.parametrize(
    ("topic", "on", "off", "reason"),
    [(topics.STOP, LOST, Stop(), Reason.NODE_LOST), (topics.E_STOP, Bool(data=True), Bool(data=False), Reason.E_STOP)],
)
def test_stop_and_e_stop(shared, topic, on, off, reason) -> None:
    def provoke() -> float:
        at = shared.mark()
        shared.probe.publish(topic, on)
        shared.expect(reason)
        return at

    check_stop(shared, provoke, lambda: shared.probe.publish(topic, off))


@pytest.mark.parametrize(("state", "reason"), [(Goal.REACHED, Reason.GOAL_REACHED), (Goal.CANCELED, Reason.CANCELED)])
def test_the_arm_stays_put_without_an_active_goal(shared, state, reason) -> None:
    shared.wait_running()
    shared.mark()
    shared.goal("g1", state)
    shared.expect(reason)
    shared.stop_after(time.time() - 0.2)
    q = np.array(shared.states[-1].reference.positions)
    time.sleep(0.4)
    assert np.abs(np.array(shared.states[-1].reference.positions) - q).max() < 1e-4
    assert shared.last.state == ControlStatus.HOLDING and shared.last.at_rest
    shared.goal("g1")
    shared.wait_running()


def test_a_new_goal_needs_a_plan_of_its_own(shared) -> None:
    inject(shared, "no_plan")
    try:
        shared.goal("g2")
        shared.expect(Reason.NO_SELECTION, "g2")
    finally:
        shared.probe.publish("fault", String(data=""))
    wait_for(lambda: shared.last.goal_id == "g2" and shared.last.state == ControlStatus.RUNNING, 5.0, "the new goal")


def test_motion_is_smooth_and_tight(shared) -> None:
    shared.wait_running()
    time.sleep(2.0)
    commands = list(shared.commands)[-100:]
    for command in commands:
        assert command.joint_names == list(ROBOT.joint_names)
        assert not np.any(command.points[-1].velocities)
        assert len(command.points) < 40
    # Death of the sender: what the last message says brakes within 100 ms of its sending.
    status = shared.last
    print(f"tick {status.tick_hz:.1f} Hz, command {status.command_hz:.1f} Hz, inference p99 {status.tick_ms_p99:.1f} ms")
    print(f"delay p50 {status.delay_ms_p50:.1f} p99 {status.delay_ms_p99:.1f} ms, {[(d.key, d.value) for d in status.drops]}")
    assert status.tick_hz > 15 and status.command_hz > 30
    assert shared.chunks[-1].prefix_steps >= 1 and shared.chunks[-1].plan_id.startswith("p")
    assert shared.latents[-1].shape.tolist() == [2, 4, 4]
    assert shared.grips[-1].data == pytest.approx(0.5)


def test_the_status_tells_of_every_part_of_control(shared) -> None:
    b = shared
    b.wait_running()
    time.sleep(1.0)
    first, last = list(b.status)[-5], b.last
    assert (last.backend, last.adapter_id, last.goal_id, last.stop_detail) == ("fake", "", b.chunks[-1].goal_id, "")
    assert last.plan_id.startswith("p") and 0.0 <= last.plan_age < 1.5
    assert 0.0 <= last.chunk_age < 0.5 and last.chunk_age + last.queue_s == pytest.approx(16 * 0.05, abs=0.01)
    assert 0.0 < last.tick_ms_p50 <= last.tick_ms_p99 and 0.0 < last.delay_ms_p50 <= last.delay_ms_p99 < 300.0
    assert 0.0 < last.delay_ms < 300.0 and last.scaling >= 1.0 and not last.at_rest
    assert first.ticks < last.ticks and first.commands < last.commands and first.chunk_id < last.chunk_id <= b.chunks[-1].chunk_id
    assert len(last.commanded_positions) == len(last.commanded_velocities) == 6 and last.commanded_gripper == pytest.approx(0.5)


def test_commands_go_on_while_an_inference_takes_long_and_frames_that_it_missed_are_counted(shared) -> None:
    """0.2 s are within the delay budget: the last chunk is followed meanwhile."""
    b = shared

    def replaced(status: ControlStatus) -> int:
        return next((int(drop.value) for drop in status.drops if drop.key == "frame_replaced"), 0)

    b.wait_running()
    before = b.last
    b.mark()
    b.mode_file.write_text("late")
    try:
        time.sleep(2.0)
        during = b.last
    finally:
        b.mode_file.write_text("")
    assert {s.state for s in list(b.status)[b.marked :]} == {ControlStatus.RUNNING}
    assert during.tick_hz < 8.0 and during.command_hz > 40.0
    assert during.missed_ticks > before.missed_ticks + 5 and replaced(during) > replaced(before) + 5
    assert 180.0 < during.delay_ms < 300.0
    b.wait_running()


def test_an_adapter_comes_into_force_while_the_arm_moves_and_a_foreign_one_does_not(shared, tmp_path) -> None:
    b, layer = shared, "base_model.model.blocks.0.out"
    values = {f"{layer}.lora_A.weight": np.zeros((2, 4), np.float32), f"{layer}.lora_B.weight": np.zeros((4, 2), np.float32)}
    save_file(values, tmp_path / adapter.WEIGHTS, {adapter.BASE_HASH: HASH})
    (tmp_path / adapter.SETTINGS).write_text(json.dumps({"r": 2, "lora_alpha": 2}))
    b.probe.wait_for_subscribers(topics.ADAPTER)
    b.wait_running()
    b.mark()

    def offer(identity: str, digest: str) -> None:
        b.probe.publish(topics.ADAPTER, Adapter(adapter_id=identity, path=str(tmp_path), sha256=digest))

    offer("first", file_hash(tmp_path / adapter.WEIGHTS))
    wait_for(lambda: b.last.adapter_id == "first" and b.chunks[-1].adapter_id == "first", 5.0, "the adapter in force")
    offer("second", "0" * 64)
    wait_for(lambda: any(d.key == "adapter_refused" for d in b.last.drops), 5.0, "the refusal")
    assert b.last.adapter_id == "first"
    offer("", "")
    wait_for(lambda: b.last.adapter_id == "" and b.chunks[-1].adapter_id == "", 5.0, "the weights as trained")
    assert {s.state for s in list(b.status)[b.marked :]} == {ControlStatus.RUNNING}


def test_the_parameter_join_decides_what_becomes_of_chunks_that_differ(tmp_path) -> None:
    """Every other chunk lies 30 mrad ahead of the one before: followed one by one the arm goes to and fro, their mean goes straight on."""
    unsteady = {}
    for join in ("prefix", "ensemble"):
        with bench(tmp_path, join=join) as b:
            b.goal("g1")
            inject(b, "undecided")
            time.sleep(0.3)
            b.mark()
            time.sleep(0.7)
            speeds = np.array([s.reference.velocities[0] for s in list(b.states)[-80:]])
            assert {s.state for s in list(b.status)[b.marked :]} == {ControlStatus.RUNNING}
            assert (b.chunks[-1].prefix_steps > 0) == (join == "prefix")
        unsteady[join] = float(np.abs(speeds - np.median(speeds)).mean())
    assert unsteady["prefix"] > 4.0 * unsteady["ensemble"], unsteady


def test_an_inference_that_never_returns_holds_up_neither_the_arm_nor_the_node(tmp_path) -> None:
    domain, mode_file = new_domain(), tmp_path / "mode"
    environment = {"FAKE_MODE": str(mode_file)}
    with (
        running("nodes_under_test.world", domain, tmp_path / "world.log", {}, environment) as world,
        running("nodes_under_test.hanging", domain, tmp_path / "policy.log", {}, environment) as node,
    ):
        b = Bench(domain, mode_file, world, node)

        def change(transition: int) -> float:
            """Asks for it; returns how long it took, s."""
            client = b.probe.node.create_client(ChangeState, topics.change_state("policy"))
            assert client.wait_for_service(10.0)
            before = time.monotonic()
            future = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
            wait_for(future.done, 20.0, f"transition {transition}")
            assert future.result().success
            return time.monotonic() - before

        try:
            b.wait_ready()
            b.goal("g1")
            b.wait_running()
            b.mark()
            mode_file.write_text("hang")
            b.expect(Reason.DELAY_OVER_BUDGET)
            change(Transition.TRANSITION_DEACTIVATE)
            assert change(Transition.TRANSITION_CLEANUP) < PATIENCE + 3.0
            assert f"an inference has not ended within {PATIENCE:g} s" in (tmp_path / "policy.log").read_text()
            mode_file.write_text("")
            change(Transition.TRANSITION_CONFIGURE)
            change(Transition.TRANSITION_ACTIVATE)
            b.wait_running()
            mode_file.write_text("hang")
            b.expect(Reason.DELAY_OVER_BUDGET)
            node.send_signal(signal.SIGINT)
            assert node.wait(PATIENCE + 5.0) == 0
        finally:
            b.probe.close()


@pytest.mark.parametrize("mode", ["splice", "measured_state"])
def test_other_controllers_move_and_are_warned_of(tmp_path, mode) -> None:
    with bench(tmp_path, mode) as b:
        b.goal("g1")
        wait_for(lambda: b.last.state == ControlStatus.RUNNING and b.speed() > 0.3 * SPEED, 12.0, "motion")
        log = (tmp_path / "policy.log").read_text()
        wanted = {
            "splice": "allow_trajectory_replacement: false",
            "measured_state": "interpolate_from_desired_state: true",
        }
        assert wanted[mode] in log, log


def test_a_silent_process_is_no_danger(tmp_path) -> None:
    for _ in range(3):
        with bench(tmp_path) as b:
            b.goal("g1")
            b.wait_running()
            at = time.time()
            b.policy.kill()
            began, lasted = b.stop_after(at)
        if began < 0.13 and lasted < LEAST_STOP + SLACK:  # 100 ms after its last message, sent up to a tick before
            return
    raise AssertionError(f"braking began {began:.3f} s after the death and lasted {lasted:.3f} s")


@pytest.mark.parametrize("interface", ["topic", "action"])
def test_a_clock_that_jumps_back_brakes_and_motion_resumes(tmp_path, interface) -> None:
    with bench(tmp_path, clock=True, command_interface=interface) as b:

        def moves() -> bool:
            return b.last.state == ControlStatus.RUNNING and b.speed() > 0.3 * SPEED

        b.goal("g1")
        wait_for(moves, 15.0, "motion")
        before = len(b.states)
        b.mark()
        b.probe.publish("fault", String(data="clock_back"))
        b.expect(Reason.CLOCK_JUMP, "jumped back by", "allowed 0.05 s")
        stopped = len(b.status)
        wait_for(lambda: any(s.state == ControlStatus.HOLDING for s in list(b.status)[stopped:]), 5.0, "standing still")
        moved = np.diff([s.reference.positions[0] for s in list(b.states)[before:]])
        assert np.abs(moved).max() < 0.3  # no leap: that would be 3 rad
        wait_for(moves, 15.0, "motion again")


def heartbeat_of_a_policy_that_cannot_be_configured(tmp_path: Path, module: str = "act2goal_ros.nodes.policy", **parameters: Any) -> str:
    domain = new_domain()
    with running(module, domain, tmp_path / "policy.log", parameters, {"FAKE_MODE": str(tmp_path / "mode")}):
        probe = Probe(domain)
        try:
            status = wait_for(lambda: (s := probe.status("policy")) and s.level == NodeStatus.ERROR and s, 30.0, "an error")
        finally:
            probe.close()
    return str(status.message)


def hollow_model(folder: Path) -> Path:
    """A model's folder in which everything is vouched for, and nothing would run."""
    folder.mkdir()
    names = [*(f"{network}.onnx" for network in NETWORKS), REFERENCE]
    for name in names:
        (folder / name).write_bytes(name.encode())
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    manifest = {"format": FORMAT, "name": "hollow", "robots": ["ur5e"], "files": files, "config": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_model_that_was_tampered_with_is_refused(tmp_path) -> None:
    model = hollow_model(tmp_path / "model")
    (model / "tick.onnx").write_bytes(b"something else")
    said = heartbeat_of_a_policy_that_cannot_be_configured(tmp_path, model=str(model))
    assert "tick.onnx: SHA-256 is" in said and "the manifest says" in said, said


def test_a_model_for_another_robot_is_refused(tmp_path) -> None:
    model = hollow_model(tmp_path / "model")
    said = heartbeat_of_a_policy_that_cannot_be_configured(tmp_path, model=str(model))
    assert "is for ur5e, not for robot 'ur5e_sim'" in said, said


def test_a_model_that_fails_when_it_is_warmed_up_never_becomes_active(tmp_path) -> None:
    (tmp_path / "mode").write_text("raise")
    said = heartbeat_of_a_policy_that_cannot_be_configured(tmp_path, "fake_policy")
    assert said == "cannot be configured: RuntimeError: the fake fails"


def test_a_model_for_other_joints_is_refused() -> None:
    bundle = FakeBundle()
    messages.check_joints(bundle, ROBOT)
    bundle.joint_names = (*reversed(ROBOT.joint_names),)
    with pytest.raises(ModelError, match="model fake is for joints wrist_3_joint, .*; robot ur5e_sim has shoulder_pan_joint, "):
        messages.check_joints(bundle, ROBOT)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"command_rate": 1000.0}, "command_rate = 1000.0 Hz is above the highest allowed 250"),
     ({"lead": 0.05}, "lead + horizon is 0.13 s, at most 0.1 s"),
     ({"command_interface": "action", "action_rate": 12.0}, "goals are up to 0.103333 s apart, and brake after 0.09 s"),
     ({"command_interface": "service"}, "command_interface = 'service' is none of topic | action")],
)  # fmt: skip
def test_parameters_out_of_range_are_named(tmp_path, parameters, words) -> None:
    assert words in heartbeat_of_a_policy_that_cannot_be_configured(tmp_path, **parameters)


def test_the_parameter_file_fits_the_schema() -> None:
    found = read_yaml(paths.share() / "config" / "policy.yaml")
    assert build(PolicyParameters, found["policy"]) == PolicyParameters()


def test_the_callback_of_a_camera_frame_does_little_beside_an_inference(tmp_path) -> None:
    """The thread's time in it against an inference of the shipped model in the same run, medians. Where chunks take long, nearly all of it
    goes into foreseeing what is committed until they come, a piece of the stream each 0.08 s.
    """
    environment = {"OMP_NUM_THREADS": "1"}
    with running("nodes_under_test.frames", new_domain(), tmp_path / "frames.log", {"autostart": False, "nice": 0}, environment) as process:
        assert process.wait(60.0) == 0, (tmp_path / "frames.log").read_text()
    found = json.loads((tmp_path / "frames.log").read_text().strip().splitlines()[-1])
    usual, late, inference = (float(np.median(found[key])) for key in ("callback", "late", "inference"))
    print(f"usual {1e3 * usual:.2f} ms, late {1e3 * late:.2f} ms, inference {1e3 * inference:.2f} ms")
    assert min(len(found["callback"]), len(found["late"])) > found["counted"] / 2, found["stops"]
    assert usual < inference / 6 and late < inference
