"""The rollouts node in a process of its own: what it records, kills, faults."""

import array
import contextlib
import signal
import time

from act2goal_msgs.msg import Chunk, FrameSelection, Goal, Plan, PlanFeatures, SimState
from ros_tools import Probe, new_domain, running, wait_for
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool

from act2goal_ros.data import rollout
from act2goal_ros.nodes import qos, topics

MODULE = "act2goal_ros.nodes.rollouts"


class Graph:
    """Publishes what a graph publishes during a rollout."""

    def __init__(self, domain: int) -> None:
        self.probe = Probe(domain)
        for kind, topic, profile in (
            (Goal, topics.GOAL, qos.LATCHED),
            (Plan, topics.PLAN, qos.LATCHED),
            (PlanFeatures, topics.PLAN_FEATURES, qos.LATCHED),
            (FrameSelection, topics.SELECTION, qos.LATCHED),
            (Image, topics.IMAGE, qos.SENSOR),
            (JointState, topics.JOINT_STATES, qos.SENSOR),
            (Chunk, topics.CHUNK, qos.COMMAND),
            (Bool, topics.E_STOP, qos.EVENT),
            (SimState, topics.SIM_STATE, qos.SENSOR),
        ):
            self.probe.advertise(kind, topic, profile)

    def goal(self, goal_id: str, state: int) -> None:
        message = Goal(goal_id=goal_id, state=state, source="test", image=image(8))
        message.header.stamp = self.probe.stamp()
        self.probe.publish(topics.GOAL, message)

    def plan(self) -> None:
        self.probe.publish(topics.PLAN, Plan(plan_id="p1", goal_id="g1", frame_offsets=[0.4], dense_frames=1))
        self.probe.publish(topics.PLAN_FEATURES, PlanFeatures(plan_id="p1", data=array.array("f", [0.0] * 1000)))
        self.probe.publish(topics.SELECTION, FrameSelection(plan_id="p1", frame_indices=[0], proximal=[True]))

    def move(self, seconds: float, rate: float = 100.0) -> int:
        """Joint states at `rate`, camera frames at a quarter of it; returns the number of joint states."""
        count = round(seconds * rate)
        for k in range(count):
            state = JointState(name=["a"], position=[0.01 * k])
            state.header.stamp = self.probe.stamp()
            self.probe.publish(topics.JOINT_STATES, state)
            if k % 4 == 0:
                self.probe.publish(topics.IMAGE, image(64))
            time.sleep(1.0 / rate)
        self.probe.publish(topics.SIM_STATE, SimState(task="cube-single-1", success=True, success_once=True))
        time.sleep(0.05)
        return count


def image(side: int) -> Image:
    return Image(height=side, width=side, step=3 * side, encoding="rgb8", data=array.array("B", bytes(3 * side * side)))


@contextlib.contextmanager
def recording(tmp_path, **parameters):
    """A running recorder and a graph that it hears."""
    domain = new_domain()
    graph = Graph(domain)
    settings = {"directory": tmp_path / "rollouts", "min_free_gb": 0.0, "tail": 0.2, "flush_period": 0.1, "nice": 0, **parameters}
    try:
        with running(MODULE, domain, tmp_path / "log", settings) as process:
            graph.probe.wait_active("rollouts")
            graph.probe.wait_for_subscribers(topics.GOAL, topics.IMAGE, topics.JOINT_STATES, topics.PLAN)
            yield graph, process
    finally:
        graph.probe.close()


def finished(tmp_path, count: int) -> list[rollout.Rollout]:
    root = tmp_path / "rollouts"
    wait_for(lambda: sum(rollout.is_complete(d) for d in rollout.directories(root)) == count, 10, f"{count} rollouts")
    return [rollout.describe(d) for d in rollout.directories(root)]


def test_a_rollout_is_recorded_from_active_to_its_end(tmp_path):
    with recording(tmp_path) as (graph, _):
        graph.move(0.1)  # before the goal: not recorded, but how the emergency stop stands
        graph.probe.publish(topics.E_STOP, Bool(data=False))
        time.sleep(0.1)
        graph.goal("g1", Goal.ACTIVE)
        graph.plan()
        graph.probe.publish(topics.E_STOP, Bool(data=True))
        time.sleep(0.1)
        sent = graph.move(1.0)
        graph.goal("g1", Goal.REACHED)
        tail = graph.move(0.1)
        (found,) = finished(tmp_path, 1)
    assert found.outcome == "reached" and found.facts["goal_id"] == "g1" and found.facts["goal_source"] == "test"
    assert found.facts["task"] == "cube-single-1" and found.facts["sim_success"] == "True"
    counts: dict[str, int] = {}
    for received in rollout.read(found.directory):
        counts[received.topic] = counts.get(received.topic, 0) + 1
    assert counts["/goal"] == 2 and counts["/plan"] == 1 and counts["/selection"] == 1 and counts["/sim/state"] >= 1
    assert 0.97 * sent <= counts["/joint_states"] <= sent + tail
    assert counts["/image_raw"] >= 0.9 * sent / 4
    assert "/plan_features" not in counts and counts["/status"] >= 8
    goals = [r.message.state for r in rollout.read(found.directory, ["goal"])]
    assert goals == [Goal.ACTIVE, Goal.REACHED]
    assert [r.message.data for r in rollout.read(found.directory, ["e_stop"])] == [False, True]
    times = [r.time for r in rollout.read(found.directory)]
    assert times == sorted(times)


def test_a_new_goal_preempts_and_features_are_recorded_on_request(tmp_path):
    with recording(tmp_path, leave_out="[live_latent]") as (graph, _):
        graph.goal("g1", Goal.ACTIVE)
        graph.move(0.2)
        graph.goal("g2", Goal.ACTIVE)
        graph.plan()
        graph.move(0.2)
        graph.goal("g2", Goal.CANCELED)
        first, second = finished(tmp_path, 2)
    assert (first.outcome, second.outcome) == ("preempted", "canceled")
    assert {r.topic for r in rollout.read(second.directory, ["plan_features"])} == {"plan_features"}


def test_sigint_ends_the_rollout_and_the_process_cleanly(tmp_path):
    with recording(tmp_path) as (graph, process):
        graph.goal("g1", Goal.ACTIVE)
        graph.move(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0, (tmp_path / "log").read_text()
    (found,) = finished(tmp_path, 1)
    assert found.outcome == "shutdown" and found.messages > 30


def test_a_recorder_killed_while_recording_goes_on_after_a_restart_and_names_what_it_repaired(tmp_path):
    with recording(tmp_path) as (graph, process):
        graph.goal("g1", Goal.ACTIVE)
        sent = graph.move(1.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with running(MODULE, graph.probe.node.context.get_domain_id(), tmp_path / "log", {
            "directory": tmp_path / "rollouts", "min_free_gb": 0.0, "tail": 0.2,
        }):  # fmt: skip
            broken = finished(tmp_path, 1)[0]
            wait_for(lambda: len(rollout.directories(tmp_path / "rollouts")) == 2, 10, "the rest of the rollout")
            graph.move(0.3)
            graph.goal("g1", Goal.REACHED)
            first, second = finished(tmp_path, 2)
    assert first == broken and first.outcome == "interrupted" and second.outcome == "reached"
    kept = sum(1 for _ in rollout.read(first.directory, ["joint_states"]))
    assert kept >= sent - 0.35 * 100, f"{kept} of {sent} joint states kept"
    assert f"repaired {first.directory}" in (tmp_path / "log").read_text()


def test_a_disk_without_room_is_reported_and_the_node_stays_up(tmp_path):
    with recording(tmp_path, min_free_gb=1e6) as (graph, process):
        graph.goal("g1", Goal.ACTIVE)
        graph.move(0.3)
        status = wait_for(lambda: (s := graph.probe.status("rollouts")) and s.level == s.WARN and s, 5, "a warning")
        assert "free on the disk" in status.message and "1000000000 MB" in status.message
        assert process.poll() is None
        assert int(graph.probe.values("rollouts")["drops.not_recording"]) > 0


def test_a_parameter_out_of_range_is_named_with_its_bound(tmp_path):
    domain = new_domain()
    probe = Probe(domain)
    try:
        with running(MODULE, domain, tmp_path / "log", {"max_gb": 0.0, "directory": tmp_path}):
            status = wait_for(lambda: (s := probe.status("rollouts")) and s.level == s.ERROR and s, 15, "an error")
        assert "max_gb = 0.0 GB" in status.message and "0.001 GB" in status.message
    finally:
        probe.close()
