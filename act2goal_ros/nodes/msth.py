"""Multi-scale temporal hashing at run time: selects frames of the plan for the policy, and measures progress.

subscribes: plan, live_latent, goal.
publishes: selection (on every plan, and when progress crosses a frame or shifts the plan's clock), progress (for every
live latent), replan (once a plan and cause: too far from the plan, too old, too far off its clock).
No timer takes part: the selection carries absolute times, which the policy turns into times from now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from act2goal_msgs.msg import FrameSelection, Goal, LiveLatent, NodeStatus, Plan, Progress, Replan
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType

from act2goal_ros import paths
from act2goal_ros.control.planner import Meter
from act2goal_ros.control.progress import Floats, GoalProgress, ProgressError, ProgressTracker, rms_distance
from act2goal_ros.control.rehash import Hashed, KnownPlan, Rehasher, RehashLimits
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.parameters import NodeParameters, param
from act2goal_ros.serving.bundle import ModelBundle

REPORT_PERIOD = 0.5  # s
CLOCK_JUMP = 0.5  # s a live frame may be older than the plan's before the clock is taken to have jumped


@dataclass(frozen=True, kw_only=True)
class MsthParameters(NodeParameters):
    """Parameters of the msth node."""

    model: str = param("act2goal-tiny", "", "name in models/ or path of a model's folder")
    progress: str = param("latent", "", "what moves a plan on: the live latent or the clock", choices=("latent", "clock"))
    distal: int = param(0, "", "distal frames selected; 0: as many as the model was trained with", low=0, high=64)
    max_age: float = param(1.5, "s", "after this a plan must not be used", low=0.1, high=30.0)
    replan_age: float = param(0.75, "s", "after this another plan is asked for", low=0.05, high=30.0)
    max_distance: float = param(1.0, "RMS", "of the live latent to the imagined way; more asks for another plan", low=0.0, high=1e3)
    max_shift: float = param(0.5, "s", "behind or ahead of the plan's clock; more asks for another plan", low=0.01, high=30.0)
    patience: int = param(3, "", "frames in a row too far from the plan before another is asked for", low=1, high=100)
    shift_step: float = param(0.05, "s", "change of shift that renews the selection", low=0.001, high=1.0)
    max_rate: float = param(2.0, "s/s", "progress along a plan, at most", low=1.0, high=10.0)
    variant: str = param("normal", "", "for studies: masked selects no frame", choices=("normal", "masked"))
    lag: float = param(0.3, "s", "the clock's pull: how far progress runs ahead of a robot that stands still", low=0.001, high=5.0)


class MsthNode(ManagedNode[MsthParameters]):
    """Hands plans and live latents to a Rehasher."""

    def __init__(self) -> None:
        super().__init__("msth", MsthParameters)

    def setup(self) -> None:
        self._bundle = ModelBundle.load(paths.model(self.p.model))
        self._time_to_goal = self._bundle.time_to_goal  # here, so that a network that does not compute as it should fails now
        horizon = self._bundle.chunk_steps * self._bundle.step
        self._rehasher = Rehasher(
            RehashLimits(
                horizon=horizon,
                distal=self.p.distal or self._bundle.distal_frames,
                max_age=self.p.max_age,
                replan_age=self.p.replan_age,
                max_distance=self.p.max_distance,
                max_shift=self.p.max_shift,
                patience=self.p.patience,
                shift_step=self.p.shift_step,
            ),
            ProgressTracker(_mode(self.p.progress), max_rate=self.p.max_rate, lag=self.p.lag),
        )
        self._goal_progress, self._meter = GoalProgress(), Meter()
        self._active_goal = self._fault = ""
        self._seen: Progress | None = None
        self._shift = 0.0
        self._selection = self.own(self.create_publisher(FrameSelection, topics.SELECTION, qos.LATCHED))
        self._progress = self.own(self.create_publisher(Progress, topics.PROGRESS, qos.SENSOR))
        self._replan = self.own(self.create_publisher(Replan, topics.REPLAN, qos.EVENT))
        self.own(self.create_subscription(Goal, topics.GOAL, self._on_goal, qos.LATCHED))
        self.own(self.create_subscription(Plan, topics.PLAN, self._on_plan, qos.LATCHED))
        self.own(self.create_subscription(LiveLatent, topics.LIVE_LATENT, self._on_latent, qos.SENSOR))

    def start(self) -> None:
        self.own(self.create_timer(REPORT_PERIOD, self._report_state, clock=Clock(clock_type=ClockType.STEADY_TIME)))

    def halt(self) -> None:
        self._rehasher.clear()

    # callbacks

    def _on_goal(self, goal: Goal) -> None:
        self._active_goal = goal.goal_id if goal.state == Goal.ACTIVE else ""

    def _on_plan(self, message: Plan) -> None:
        old = self._rehasher.plan
        if not self.is_active or (old is not None and old.plan_id == message.plan_id):
            return  # the second message of a plan differs in its previews only
        if not self._same_model(message.model_hash, "plan"):
            return
        try:
            plan = _known(message)
            hashed = self._rehasher.set_plan(plan)
        except (ProgressError, ValueError) as error:
            self._drop("bad_plan", f"plan {message.plan_id}: {error}")
            self._rehasher.clear()
            return
        self._fault = ""
        if old is None or old.goal_id != plan.goal_id:
            self._goal_progress.reset()
        self._select(hashed, message.header.stamp)

    def _on_latent(self, message: LiveLatent) -> None:
        plan = self._rehasher.plan
        if not self.is_active or plan is None or not self._same_model(message.model_hash, "live latent"):
            return
        now = _seconds(message.header.stamp)
        if now < plan.start:
            self._too_early(plan.start - now)
            return
        try:
            live = _latent(message.data, message.shape)
            at, hashed = self._rehasher.update(now, live)
            seconds = self._time_to_goal(live, plan.goal_latent)
        except ValueError as error:
            self._drop("bad_latent", f"live latent: {error}")
            return
        self._fault, self._shift = "", at.shift
        if hashed is not None:
            self._select(hashed, message.header.stamp)
        progress = self._goal_progress.update(now, seconds)
        self._seen = Progress(
            header=message.header,
            goal_id=plan.goal_id,
            plan_id=plan.plan_id,
            progress=progress,
            time_to_goal=self._goal_progress.time_to_goal,
            plan_age=at.age,
            plan_distance=at.distance,
            goal_distance=rms_distance(live, plan.goal_latent),
        )
        self._progress.publish(self._seen)
        self._meter.tick(now)
        reason = self._rehasher.complaint(at)
        if reason and plan.goal_id == self._active_goal:
            self._replan.publish(Replan(header=message.header, plan_id=plan.plan_id, reason=reason))

    # private helpers

    def _select(self, hashed: Hashed, stamp: Time) -> None:
        message = FrameSelection(
            plan_id=hashed.plan_id,
            goal_id=hashed.goal_id,
            frame_indices=hashed.indices.tolist(),
            frame_times=[_time(seconds) for seconds in hashed.times],
            proximal=hashed.proximal.tolist(),
            valid_until=_time(hashed.valid_until),
            shift=hashed.shift,
        )
        message.header.stamp = stamp
        if self.p.variant == "masked":
            message.frame_indices, message.frame_times, message.proximal = [], [], []
        self._selection.publish(message)

    def _too_early(self, seconds: float) -> None:
        """A frame older than the plan's: on its way when the plan overtook it, or the clock jumped back."""
        self.count("older_than_plan")
        if seconds > CLOCK_JUMP:
            self._drop(
                "clock_jump",
                f"live frame is {seconds:.2f} s older than the plan's, at most {CLOCK_JUMP:.2f} s: clock jumped back",
            )
            self._rehasher.clear()

    def _same_model(self, found: str, what: str) -> bool:
        if found == self._bundle.hash:
            return True
        self._drop("wrong_model", f"{what} of model {found[:12] or 'without hash'}, this node has {self._bundle.hash[:12]}")
        return False

    def _drop(self, cause: str, message: str) -> None:
        self.count(cause)
        if message != self._fault:
            self.get_logger().warning(message)
        self._fault = message
        self._report_state()

    def _report_state(self) -> None:
        if not self.is_active:
            return
        values: dict[str, Any] = {"progress_hz": f"{self._meter.rate(self.now()):.1f}", "mode": self._rehasher.mode}
        if self._seen is not None:
            seen = self._seen
            values |= {
                "progress": f"{seen.progress:.2f}",
                "plan_age_s": f"{seen.plan_age:.2f}",
                "shift_s": f"{self._shift:+.2f}",
            }
            values |= {"plan_distance": f"{seen.plan_distance:.3f}", "goal_distance": f"{seen.goal_distance:.3f}"}
        if self._fault:
            self.report(NodeStatus.WARN, self._fault, **values)
        elif self._rehasher.plan is None:
            self.report(NodeStatus.OK, "waiting for a plan", **values)
        else:
            self.report(NodeStatus.OK, f"following plan {self._rehasher.plan.plan_id}", **values)


def _mode(name: str) -> Any:
    return name


def _known(message: Plan) -> KnownPlan:
    """Raises ValueError naming the shape that does not fit."""
    return KnownPlan(
        plan_id=message.plan_id,
        goal_id=message.goal_id,
        start=_seconds(message.header.stamp),
        offsets=np.array(message.frame_offsets),
        dense=message.dense_frames,
        latents=_latent(message.latents, message.latent_shape),
        start_latent=_latent(message.start_latent, message.latent_shape[1:]),
        goal_latent=_latent(message.goal_latent, message.latent_shape[1:]),
    )


def _latent(data: Any, shape: Any) -> Floats:
    """Floats of a message in their shape; raises ValueError naming both where they do not fit."""
    values = np.frombuffer(data, np.float32)
    if values.size != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{values.size} numbers do not have shape {tuple(int(n) for n in shape)}")
    return values.reshape(tuple(shape))


def _seconds(stamp: Time) -> float:
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)


def _time(seconds: float) -> Time:
    whole = int(seconds // 1)
    return Time(sec=whole, nanosec=min(999_999_999, round((seconds - whole) * 1e9)))


def main() -> None:
    """Runs the node."""
    run(MsthNode)


if __name__ == "__main__":
    main()
