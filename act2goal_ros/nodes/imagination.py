"""Imagines the way from the live frame to the goal, asynchronously.

subscribes: goal, image_raw, replan.
publishes: plan (metadata and latents) and plan_features under the same plan_id; on some plans a second `plan` of the same plan_id
follows, equal but for its previews (decoded pictures of the imagined frames), so that decoding delays no plan.
A plan is made at once on a new goal and on a replan request, else at `rate`, from the newest frame, only while the goal is ACTIVE.
"""

from __future__ import annotations

import array
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from act2goal_msgs.msg import Goal, NodeStatus, Plan, PlanFeatures, Replan, StopReason
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image

from act2goal_ros import paths
from act2goal_ros.control.planner import VARIANTS, MadePlan, Meter, Planner, PlanSchedule, Worker
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.parameters import NodeParameters, niceness, param
from act2goal_ros.serving import BACKENDS, PRECISION, PRECISIONS
from act2goal_ros.serving.bundle import ModelBundle

REPORT_PERIOD = 0.5  # s
PICTURES = ("*.png", "*.jpg", "*.jpeg")


@dataclass(frozen=True, kw_only=True)
class ImaginationParameters(NodeParameters):
    """Parameters of the imagination node."""

    model: str = param("act2goal-tiny", "", "name in models/ or path of a model's folder")
    backend: str = param("auto", "", "what runs the networks; auto: the best that works", choices=BACKENDS)
    precision: str = param(PRECISION, "", "inside TensorRT's engines; the other backends compute in float32", choices=PRECISIONS)
    threads: int = param(1, "", "threads of one network run", low=1, high=64)
    rate: float = param(5.0, "Hz", "plans a second while a goal is active", low=0.1, high=100.0, runtime=True)
    preview_rate: float = param(1.0, "Hz", "plans a second that carry pictures; 0: none", low=0.0, high=30.0, runtime=True)
    image_timeout: float = param(0.5, "s", "a frame older than this makes no plan", low=0.02, high=10.0, runtime=True)
    seed: int = param(-1, "", "of the first plan's noise, counted up from there; -1: drawn", low=-1, high=2**31 - 1)
    variant: str = param("normal", "", "for studies: what of the plan reaches the policy", choices=VARIANTS)
    other_goals: str = param("", "", "folder of other episodes' goal pictures, for variant other_goal")
    nice: int = niceness(5)


class ImaginationNode(ManagedNode[ImaginationParameters]):
    """Feeds frames and goals to a Planner on a worker thread and publishes what it makes."""

    def __init__(self) -> None:
        super().__init__("imagination", ImaginationParameters)
        self._worker: Worker | None = None

    def setup(self) -> None:
        self._bundle = ModelBundle.load(paths.model(self.p.model))
        imagination = self._bundle.imagination(self.p.backend, self.p.threads, self.p.precision)
        self.get_logger().info(str(imagination.served))
        self._planner = Planner(imagination, variant=self.p.variant, other_goals=_pictures(self.p.other_goals), seed=self.p.seed)
        _warm_up(self._planner, self._bundle.image_size)
        self._schedule, self._meter = PlanSchedule(self.p.rate), Meter()
        self._lock = threading.Lock()
        self._goal: Goal | None = None
        self._frame: Image | None = None
        self._previewed = -float("inf")
        self._last: MadePlan | None = None
        self._fault: tuple[int, str] | None = None
        self._plan = self.own(self.create_publisher(Plan, topics.PLAN, qos.LATCHED))
        self._features = self.own(self.create_publisher(PlanFeatures, topics.PLAN_FEATURES, qos.LATCHED))
        self.own(self.create_subscription(Goal, topics.GOAL, self._on_goal, qos.LATCHED))
        self.own(self.create_subscription(Image, topics.IMAGE, self._on_image, qos.SENSOR))
        self.own(self.create_subscription(Replan, topics.REPLAN, self._on_replan, qos.EVENT))

    def start(self) -> None:
        self._worker = Worker(self._work, self._model_failed, "imagination")
        self.own(self.create_timer(REPORT_PERIOD, self._report_state, clock=Clock(clock_type=ClockType.STEADY_TIME)))
        self._schedule.hurry()

    def halt(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def teardown(self) -> None:
        self.halt()

    def changed(self, names: set[str]) -> None:
        self._schedule.rate = self.p.rate

    # callbacks

    def _on_goal(self, goal: Goal) -> None:
        with self._lock:
            news = self._goal is None or self._goal.goal_id != goal.goal_id
            self._goal = goal if goal.state == Goal.ACTIVE else None
        if self._goal is not None and news:
            self._hurry()

    def _on_image(self, frame: Image) -> None:
        self._frame = frame
        if self._goal is not None and self._worker is not None and self._schedule.due(self.now()):
            self._worker.ask()

    def _on_replan(self, request: Replan) -> None:
        if self._goal is not None:
            self.get_logger().info(f"plan {request.plan_id} is given up: {request.reason}")
            self._hurry()

    # the worker's side

    def _work(self) -> None:
        with self._lock:
            goal, frame = self._goal, self._frame
        if goal is None or frame is None:
            return
        age = self.now() - _seconds(frame.header.stamp)
        if not -self.p.image_timeout <= age <= self.p.image_timeout:
            self._drop(
                "stale_image",
                f"frame is {age:.2f} s old, must be within ±{self.p.image_timeout:.2f} s",
                StopReason.NONE,
            )
            return
        self._schedule.made(self.now())
        try:
            if goal.goal_id != self._planner.goal_id:
                shown = images.to_rgb(goal.image)
                images.check_aspect(shown, self._bundle.image_size, "the model")
                self._planner.set_goal(goal.goal_id, shown)
            picture = images.to_rgb(frame)
            images.check_for_model(picture, self._bundle.image_size)
        except images.ImageError as error:
            which = "goal" if goal.goal_id != self._planner.goal_id else "camera"
            self._drop("bad_image", f"{which} picture: {error}", StopReason.NONE)
            return
        plan = self._planner.plan(picture, _seconds(frame.header.stamp))
        self._fault = None
        self._meter.tick(self.now())
        if self._goal is None or self._goal.goal_id != goal.goal_id:
            self.count("superseded")
        elif plan is not None:
            self._publish(plan, frame)

    def _publish(self, plan: MadePlan, frame: Image) -> None:
        features = PlanFeatures(plan_id=plan.plan_id, model_hash=self._bundle.hash, shape=list(plan.features.shape))
        features.header = frame.header
        features.data = _floats(plan.features)
        self._features.publish(features)
        message = self._message(plan, frame)
        self._plan.publish(message)
        self._last = plan
        if self.p.preview_rate > 0.0 and self.now() - self._previewed >= 0.99 / self.p.preview_rate:
            self._previewed = self.now()
            message.previews = [images.to_message(rgb, frame.header) for rgb in self._planner.previews(plan)]
            self._plan.publish(message)

    def _message(self, plan: MadePlan, frame: Image) -> Plan:
        message = Plan(
            plan_id=plan.plan_id,
            goal_id=plan.goal_id,
            model_hash=self._bundle.hash,
            seed=plan.seed,
            frame_offsets=plan.offsets.tolist(),
            dense_frames=plan.dense,
            time_to_goal=plan.time_to_goal,
            duration_ms=plan.duration_ms,
            latent_shape=list(plan.latents.shape),
        )
        message.header = frame.header
        message.latents = _floats(plan.latents)
        message.goal_latent = _floats(plan.goal_latent)
        message.start_latent = _floats(plan.start_latent)
        return message

    def _model_failed(self, error: Exception) -> None:
        self._drop("model_fault", f"{type(error).__name__}: {error}", StopReason.MODEL_FAULT)

    # private helpers

    def _hurry(self) -> None:
        self._schedule.hurry()
        if self._worker is not None and self._frame is not None:
            self._worker.ask()

    def _drop(self, cause: str, message: str, stop_reason: int) -> None:
        """No plan this time: counts it and says why until one is made."""
        self.count(cause)
        if self._fault is None or self._fault[1] != message:
            self.get_logger().warning(message)
        self._fault = (stop_reason, message)
        self._report_state()

    def _report_state(self) -> None:
        if not self.is_active:
            return
        values: dict[str, Any] = {"imagination_hz": f"{self._meter.rate(self.now()):.2f}", "variant": self.p.variant}
        if self._last is not None:
            values |= {"duration_ms": f"{self._last.duration_ms:.1f}", "plan_id": self._last.plan_id}
        if self._goal is None:
            self.report(NodeStatus.OK, "no active goal", **values)
        elif self._fault is not None:
            stop_reason, message = self._fault
            level = NodeStatus.ERROR if stop_reason != StopReason.NONE else NodeStatus.WARN
            self.report(level, f"no plan: {message}", stop_reason, **values)
        elif self._frame is None:
            self.report(NodeStatus.WARN, f"no plan: no camera frame on {self.resolve_topic_name(topics.IMAGE)} yet", **values)
        else:
            self.report(NodeStatus.OK, "imagining", **values)


def _warm_up(planner: Planner, size: tuple[int, int]) -> None:
    """One plan of a grey picture: the first run of a network is slow, and a model that cannot run fails now."""
    grey = np.full((*size, 3), 128, np.uint8)
    planner.set_goal("", grey)
    plan = planner.plan(grey, 0.0)
    if plan is not None:
        planner.previews(plan)


def _pictures(folder: str) -> list[images.Rgb]:
    """All pictures of a folder; none without a folder."""
    if not folder:
        return []
    found = sorted(path for pattern in PICTURES for path in Path(folder).expanduser().glob(pattern))
    return [images.load(path) for path in found]


def _seconds(stamp: Time) -> float:
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def _floats(values: Any) -> array.array[float]:
    data = array.array("f")
    data.frombytes(memoryview(np.ascontiguousarray(values, np.float32)).cast("B"))
    return data


def main() -> None:
    """Runs the node."""
    run(ImaginationNode)


if __name__ == "__main__":
    main()
