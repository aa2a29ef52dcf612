"""Records every rollout, from a goal becoming ACTIVE to its end, as a rosbag2 MCAP directory.

subscribes: all topics of the graph, serialized (see RECORDED); nothing but the goal is decoded while recording.
writes: <directory>/rollout_<UTC time>_<goal id>/{metadata.yaml, *.mcap}; the outcome stands in metadata.yaml under custom_data.
Rollouts whose recorder was killed are repaired at the next start, and named in the log. A fault of the disk stops the recording, is
reported, and leaves the graph alone; the next goal tries again.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from act2goal_msgs.msg import (
    Adapter,
    Chunk,
    ControlStatus,
    FrameSelection,
    Goal,
    LiveLatent,
    NodeStatus,
    Plan,
    PlanFeatures,
    Progress,
    Replan,
    SimState,
    Stop,
)
from control_msgs.msg import JointTrajectoryControllerState
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import Bool, Float64
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.data.bag import Topic
from act2goal_ros.data.recording import MB, Recorder, RecorderLimits
from act2goal_ros.data.rollout import OUTCOME, default_root, new_name
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.parameters import NodeParameters, niceness, param

REPORT_PERIOD = 1.0  # s
OUTCOMES = {Goal.NONE: "withdrawn", Goal.REACHED: "reached", Goal.CANCELED: "canceled", Goal.FAILED: "failed"}
LATCHED = {topics.GOAL, topics.PLAN, topics.PLAN_FEATURES, topics.SELECTION, topics.STOP, topics.ADAPTER}
STANDING = (topics.STOP, topics.ADAPTER, topics.E_STOP, topics.CAMERA_INFO)  # as they stood when the goal began
LAST = {topics.SIM_STATE: SimState, topics.PROGRESS: Progress}  # whose last message enters the facts


@dataclass(frozen=True, kw_only=True)
class RolloutsParameters(NodeParameters):
    """Parameters of the rollouts node."""

    enabled: bool = param(True, "", "record; false leaves the node up and the disk alone", runtime=True)
    directory: str = param("", "", "where rollouts are kept; empty: $ACT2GOAL_ROLLOUTS or ~/act2goal/rollouts")
    robot: str = param("ur5e_sim", "", "name or path of a file in config/robots, for the topics of its controller")
    max_gb: float = param(10.0, "GB", "all rollouts together; the oldest are removed for room", low=0.001, high=1e6)
    min_free_gb: float = param(0.5, "GB", "left free on the disk; recording stops before", low=0.0, high=1e6)
    tail: float = param(0.5, "s", "recorded after the goal's end, to see the arm come to rest", low=0.0, high=30.0)
    flush_period: float = param(0.2, "s", "what a killed recorder loses at most", low=0.02, high=10.0)
    compression: str = param("lz4", "", "of the chunks in the file", choices=("none", "lz4", "zstd"))
    image_every: int = param(1, "", "record every n-th camera frame", low=1, high=1000, runtime=True)
    leave_out: tuple[str, ...] = param(
        (topics.PLAN_FEATURES, topics.LIVE_LATENT),
        "",
        "topics not recorded; seed and model hash regenerate plan_features",
    )
    nice: int = niceness(5)


class RolloutsNode(ManagedNode[RolloutsParameters]):
    """Starts and ends rollouts with the goal and feeds what arrives to a Recorder."""

    def __init__(self) -> None:
        super().__init__("rollouts", RolloutsParameters)
        self._recorder: Recorder | None = None

    def setup(self) -> None:
        robot = RobotConfig.load(self.p.robot)
        self._goal_id = self._ended = ""
        self._began = 0.0
        self._frames = 0
        self._standing: dict[str, bytes] = {}
        self._last: dict[str, bytes] = {}
        self._names = {name: self.resolve_topic_name(name) for name in recorded(robot) if name not in self.p.leave_out}
        kinds = {name: kind for name, kind in recorded(robot).items() if name in self._names}
        self._recorder = Recorder(
            Path(self.p.directory).expanduser() if self.p.directory else default_root(),
            [_topic(self._names[name], name, kind) for name, kind in kinds.items()],
            RecorderLimits(
                max_bytes=round(self.p.max_gb * 1000 * MB),
                min_free_bytes=round(self.p.min_free_gb * 1000 * MB),
                flush_period=self.p.flush_period,
                compression=self.p.compression,
            ),
            lambda text: self.get_logger().warning(text),
        )
        for name, kind in kinds.items():
            profile = qos.RECORDED_LATCHED if name in LATCHED else qos.RECORDED
            self.own(self.create_subscription(kind, name, functools.partial(self._on_message, name), profile, raw=True))
        if topics.E_STOP in kinds:  # pressed before this node came up, on a button that latches
            stands = functools.partial(self._standing.__setitem__, topics.E_STOP)
            silent = SubscriptionEventCallbacks(incompatible_qos=lambda _: None)
            self.own(self.create_subscription(Bool, topics.E_STOP, stands, qos.RECORDED_LATCHED, raw=True, event_callbacks=silent))

    def start(self) -> None:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._finish = self.own(self.create_timer(max(self.p.tail, 0.001), self._end, clock=steady))
        self._finish.cancel()
        self.own(self.create_timer(REPORT_PERIOD, self._report_state, clock=steady))
        if topics.GOAL in self._standing:
            self._on_goal(self._standing[topics.GOAL])

    def halt(self) -> None:
        self._ended = self._ended or "shutdown"
        self._end()

    def teardown(self) -> None:
        if self._recorder is not None:
            self._recorder.close({OUTCOME: "shutdown"})
            self._recorder = None

    # callbacks

    def _on_message(self, name: str, data: bytes) -> None:
        if name == topics.GOAL:
            self._standing[name] = data
            if self.is_active:
                self._on_goal(data)
            return
        if name in STANDING:
            self._standing[name] = data
        if not self._goal_id:
            return
        if name == topics.IMAGE:
            self._frames += 1
            if self._frames % self.p.image_every:
                return
        if name in LAST and not self._ended:  # what comes after the goal's end may belong to another episode already
            self._last[name] = data
        self._write(name, data)

    def _on_goal(self, data: bytes) -> None:
        goal = deserialize_message(data, Goal)
        if goal.state == Goal.ACTIVE and goal.goal_id != self._goal_id:
            if self._goal_id:
                self._ended = self._ended or "preempted"
                self._end()
            self._begin(goal)
        if not self._goal_id:
            return
        self._write(topics.GOAL, data)
        if goal.state != Goal.ACTIVE and not self._ended:
            self._ended = OUTCOMES.get(goal.state, f"state {goal.state}")
            self._finish.reset()

    def _begin(self, goal: Goal) -> None:
        if not self.p.enabled or self._recorder is None:
            return
        self._goal_id, self._ended, self._began, self._frames = goal.goal_id, "", self.now(), 0
        self._last.clear()
        name = new_name(self._recorder.root, self._began, goal.goal_id)
        self._recorder.begin(name, {
            "goal_id": goal.goal_id,
            "goal_source": goal.source,
            "robot": self.p.robot,
            "namespace": self.get_namespace(),
            "began": datetime.fromtimestamp(self._began, timezone.utc).isoformat(),
        })  # fmt: skip
        for standing in STANDING:
            if standing in self._standing:
                self._write(standing, self._standing[standing])

    def _end(self) -> None:
        if hasattr(self, "_finish"):
            self._finish.cancel()
        if self._goal_id and self._recorder is not None:
            self._recorder.end(self._facts())
        self._goal_id = ""

    def _facts(self) -> dict[str, str]:
        """What is known at the end of a rollout."""
        facts = {OUTCOME: self._ended or "unknown", "duration_s": f"{self.now() - self._began:.2f}"}
        decoded = {name: deserialize_message(data, LAST[name]) for name, data in self._last.items()}
        if topics.SIM_STATE in decoded:
            sim = decoded[topics.SIM_STATE]
            facts |= {"task": sim.task, "sim_success": str(sim.success), "sim_success_once": str(sim.success_once)}
            facts["sim_at_rest_and_released"] = str(sim.at_rest_and_released)
        if topics.PROGRESS in decoded:
            last = decoded[topics.PROGRESS]
            facts |= {"progress": f"{last.progress:.3f}", "time_to_goal_s": f"{last.time_to_goal:.2f}"}
        return facts

    def _write(self, name: str, data: bytes) -> None:
        if self._recorder is not None and name in self._names:
            self._recorder.write(self._names[name], self.get_clock().now().nanoseconds, data)

    def _report_state(self) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        values: dict[str, Any] = {"recorded_mb": f"{recorder.bytes / MB:.1f}"}
        values |= {f"drops.{cause}": number for cause, number in recorder.dropped.items()}
        if recorder.fault:
            self.report(NodeStatus.WARN, f"not recording: {recorder.fault}", **values)
        elif not self.p.enabled:
            self.report(NodeStatus.OK, "switched off", **values)
        elif self._goal_id:
            directory = recorder.directory.name if recorder.directory else ""
            self.report(NodeStatus.OK, f"recording {directory}", **values)
        else:
            self.report(NodeStatus.OK, "waiting for a goal", **values)


def recorded(robot: RobotConfig) -> dict[str, Any]:
    """Every topic that can be recorded, with its message class."""
    return {
        topics.GOAL: Goal, topics.PLAN: Plan, topics.PLAN_FEATURES: PlanFeatures, topics.REPLAN: Replan,
        topics.LIVE_LATENT: LiveLatent, topics.SELECTION: FrameSelection, topics.PROGRESS: Progress, topics.CHUNK: Chunk,
        topics.CONTROL_STATUS: ControlStatus, topics.ADAPTER: Adapter, topics.STOP: Stop, topics.E_STOP: Bool,
        topics.IMAGE: Image, topics.CAMERA_INFO: CameraInfo, topics.JOINT_STATES: JointState,
        robot.controller.joint_trajectory_topic: JointTrajectory, topics.COMMANDED: JointTrajectory,
        robot.controller.state_topic: JointTrajectoryControllerState,
        topics.GRIPPER_COMMAND: Float64, topics.STATUS: NodeStatus, topics.SIM_STATE: SimState, topics.DIAGNOSTICS: DiagnosticArray,
    }  # fmt: skip


def _topic(resolved: str, name: str, kind: Any) -> Topic:
    package, _, _ = kind.__module__.split(".")[:3]
    latched = name in LATCHED
    best_effort = name in (topics.IMAGE, topics.JOINT_STATES, topics.LIVE_LATENT) or kind is JointTrajectoryControllerState
    return Topic(resolved, f"{package}/msg/{kind.__name__}", 1 if latched else 10, not best_effort, latched)


def main() -> None:
    """Runs the node."""
    run(RolloutsNode)


if __name__ == "__main__":
    main()
