"""Takes goal pictures, decides when a goal is reached, and answers whoever asked for it.

topics in: goal/image (a picture becomes the goal), image_raw (for "take the live frame"), progress, joint_states, stop,
control_status
topics out: goal (latched: picture, id, state)
services: goal/set (a file or a picture), goal/take_live_frame, goal/cancel
action: reach_goal (feedback: progress, time to goal, why the arm stands still; cancel, preemption, time-out)
parameters: see GoalParameters
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import numpy as np
from act2goal_msgs.action import ReachGoal
from act2goal_msgs.msg import ControlStatus, Goal, NodeStatus, Progress, Stop
from act2goal_msgs.msg import StopReason as StopReasonMsg
from act2goal_msgs.srv import SetGoalImage
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import Image, JointState
from std_srvs.srv import Trigger

from act2goal_ros.control import presence
from act2goal_ros.control.goals import Ended, GoalState, Outcome, Pursuit
from act2goal_ros.control.joints import JointReader
from act2goal_ros.control.progress import ReachedLimits
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.control.stop import StopReason
from act2goal_ros.nodes import images, qos, topics
from act2goal_ros.nodes.base import ManagedNode, run
from act2goal_ros.nodes.latest import Latest
from act2goal_ros.nodes.parameters import NodeParameters, param
from act2goal_ros.nodes.trajectories import seconds

ENDED = (StopReason.NO_GOAL, StopReason.GOAL_REACHED, StopReason.CANCELED)  # the policy has not heard of the new goal yet
LIVE_AGE = 1.0  # s a frame or joint state may be old to count as live


@dataclass(frozen=True, kw_only=True)
class GoalParameters(NodeParameters):
    """Parameters of the goal node."""

    robot: str = param("ur5e_sim", "", "robot: a file, or a name in config/robots")
    goal_image: str = param(
        "", "", "picture file that becomes the goal at the launch (not after a crash or an activation), and when it changes", runtime=True
    )
    timeout: float = param(60.0, "s", "a goal not reached by then has failed; 0: never", low=0.0, runtime=True)
    stop_patience: float = param(10.0, "s", "a stop that lasts longer, of the graph or of the policy, ends the goal", low=0.0, high=3600.0)
    rate: float = param(5.0, "Hz", "feedback and checks of time", low=1.0, high=50.0)
    crop: bool = param(False, "", "of goal pictures of other proportions, take the middle in those of the camera")
    largest_side: int = param(640, "px", "larger goal pictures are shrunk to this", low=64, high=4096)
    reached_time_to_goal: float = param(1.2, "s", "reached: estimated time to goal, at most", low=0.0, high=10.0)
    reached_progress: float = param(0.0, "", "reached: progress, at least", low=0.0, high=1.0)
    reached_distance: float = param(1e9, "RMS", "reached: distance of live and goal latent, at most", low=0.0)
    reached_speed: float = param(0.05, "rad/s", "reached: the fastest joint, at most", low=0.001, high=3.0)
    reached_hold: float = param(0.5, "s", "reached: how long all of it must hold", low=0.0, high=10.0)

    def limits(self) -> ReachedLimits:
        """When a goal counts as reached."""
        return ReachedLimits(
            time_to_goal=self.reached_time_to_goal,
            progress=self.reached_progress,
            goal_distance=self.reached_distance,
            speed=self.reached_speed,
            hold=self.reached_hold,
        )


class GoalNode(ManagedNode[GoalParameters]):
    """The goal node."""

    def __init__(self) -> None:
        super().__init__("goal", GoalParameters)
        self._shown_before = False  # goal_image, by this process

    def setup(self) -> None:
        robot = RobotConfig.load(self.p.robot)
        self._pursuit = Pursuit(self.p.limits(), self.p.stop_patience)
        self._joints = JointReader(robot)
        self._goal = Goal()
        self._open = False  # to goals
        self._waiting: ServerGoalHandle | None = None
        self._goal_publisher = self.own(self.create_publisher(Goal, topics.GOAL, qos.LATCHED))
        self._frame = self.own(Latest(self, Image, robot.camera.topic, qos.SENSOR))
        self._joint_state = self.own(Latest(self, JointState, robot.joint_states_topic, qos.SENSOR))
        self._control = self.own(Latest(self, ControlStatus, topics.CONTROL_STATUS, qos.COMMAND))
        self.own(self.create_subscription(Progress, topics.PROGRESS, self._progress, qos.SENSOR))
        self.own(self.create_subscription(Stop, topics.STOP, self._stop, qos.LATCHED))
        self.own(self.create_subscription(Image, topics.GOAL_IMAGE, self._image, qos.EVENT))
        self.own(self.create_service(Trigger, topics.TAKE_LIVE_FRAME, self._take_live_frame))
        self.own(self.create_service(Trigger, topics.CANCEL_GOAL, self._cancel))
        self.own(self.create_service(SetGoalImage, topics.SET_GOAL, self._set))
        server = ActionServer(
            self,
            ReachGoal,
            topics.REACH_GOAL,
            execute_callback=lambda _: ReachGoal.Result(),  # each handle is executed with a callback of its own
            goal_callback=lambda _: GoalResponse.ACCEPT if self.is_active else GoalResponse.REJECT,
            cancel_callback=self._cancel_asked,
            handle_accepted_callback=self._accepted,
        )
        self.own(server)
        self.own(self.create_timer(1.0 / self.p.rate, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)))

    def start(self) -> None:
        self._open = True
        self._publish(GoalState.NONE)
        self.report(NodeStatus.OK, "no goal")
        if self.p.goal_image and not self._shown_before and presence.first_of_launch("goal_shown"):
            self.changed({"goal_image"})
        elif self.p.goal_image:  # reached or cancelled since, for all that is known
            self.get_logger().warning(f"{self.p.goal_image} is not shown again: it was the goal when all this was launched")
        self._shown_before = True

    def halt(self) -> None:
        self._open = False
        self._ended(self._pursuit.abandon(self._time(), "the goal node was deactivated"))

    def changed(self, names: set[str]) -> None:
        if "goal_image" in names and self.p.goal_image:
            try:
                self._begin(images.load(self.p.goal_image), self.p.goal_image, self.p.timeout)
            except images.ImageError as error:
                self._refuse(f"parameter image: {error}")

    # callbacks

    def _image(self, message: Image) -> None:
        try:
            self._begin(images.to_rgb(message), topics.GOAL_IMAGE, self.p.timeout)
        except images.ImageError as error:
            self._refuse(f"{topics.GOAL_IMAGE}: {error}")

    def _take_live_frame(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message = self._begin(self._live_frame(), "live frame", self.p.timeout)
            response.success = True
        except images.ImageError as error:
            response.message = self._refuse(str(error))
        return response

    def _set(self, request: SetGoalImage.Request, response: SetGoalImage.Response) -> SetGoalImage.Response:
        try:
            rgb = images.load(request.path) if request.path else images.to_rgb(request.image)
            response.goal_id = self._begin(rgb, request.path or topics.SET_GOAL, self.p.timeout)
            response.success = True
        except images.ImageError as error:
            response.message = self._refuse(str(error))
        return response

    def _cancel(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._pursuit.is_active
        response.message = f"goal {self._pursuit.goal_id} canceled" if response.success else "no goal is pursued"
        self._ended(self._pursuit.cancel(self._time()))
        return response

    def _cancel_asked(self, _: ServerGoalHandle) -> CancelResponse:
        self.soon(self._tick)  # after the handle has become one whose cancellation is asked for
        return CancelResponse.ACCEPT

    def _accepted(self, handle: ServerGoalHandle) -> None:
        """Begins what is asked for. The handle is executed when it has ended: until then nothing has to be awaited, which
        would keep the executor turning."""
        request = handle.request
        try:
            rgb = self._live_frame() if request.use_live_frame else None
            if rgb is None:
                rgb = images.load(request.image_path) if request.image_path else images.to_rgb(request.image)
            self._begin(rgb, request.image_path or "action", request.timeout or self.p.timeout)
        except images.ImageError as error:
            refused = Ended("", Outcome.BAD_GOAL, self._refuse(str(error)), 0.0, 0.0, 0.0)
            handle.execute(functools.partial(_finish, refused))
        else:
            self._waiting = handle

    def _progress(self, message: Progress) -> None:
        if self._pursuit.is_active:
            stamp = seconds(message.header.stamp)
            measured = (message.progress, message.time_to_goal, message.goal_distance, self._speed())
            self._ended(self._pursuit.measured(message.goal_id, stamp, *measured, self._time()))

    def _stop(self, message: Stop) -> None:
        self._ended(self._pursuit.stopped(message.active, message.reason.value, message.detail, self._time()))

    def _tick(self) -> None:
        if not self._pursuit.is_active:
            return
        if self._waiting is not None and self._waiting.is_cancel_requested:
            self._ended(self._pursuit.cancel(self._time()))
        else:
            self._hear_policy()
            self._ended(self._pursuit.tick(self._time()))
        if self._pursuit.is_active:
            self.report(NodeStatus.OK, f"pursued: {self._pursuit.missing}", progress=f"{self._pursuit.progress:.3f}")
            self._give_feedback()

    # private helpers

    def _time(self) -> float:
        return self.now() if self.get_parameter("use_sim_time").value else time.monotonic()

    def _begin(self, rgb: images.Rgb, source: str, timeout: float) -> str:
        """Makes the picture the goal and returns its id. Raises ImageError when it cannot be."""
        rgb = self._checked(rgb)
        goal_id, before = self._pursuit.begin(self._time(), timeout)
        self._answer(before)
        self._goal = Goal(
            goal_id=goal_id, source=source, image=images.to_message(images.shrink(rgb, self.p.largest_side))
        )
        self._goal.header.stamp = self._goal.image.header.stamp = self.get_clock().now().to_msg()
        self._publish(GoalState.ACTIVE)
        self.get_logger().info(f"goal {goal_id} from {source}")
        self.report(NodeStatus.OK, f"pursued: {source}")
        return goal_id

    def _checked(self, rgb: images.Rgb) -> images.Rgb:
        """The picture in the camera's proportions."""
        if not self._open:
            raise images.ImageError("the goal node is not active")
        if refusal := self._pursuit.refusal():
            raise images.ImageError(refusal)
        images.check_size(rgb.shape[1], rgb.shape[0])
        live = self._frame.get(LIVE_AGE)
        if live is None or not live.height or not live.width:
            return rgb
        size = (live.height, live.width)
        if self.p.crop:
            rgb = images.middle(rgb, size)
        try:
            images.check_aspect(rgb, size, "the camera")
        except images.ImageError as error:
            raise images.ImageError(f"{error}; crop:=true takes the middle") from None
        return rgb

    def _refuse(self, why: str) -> str:
        self.count("bad_goal")
        self.get_logger().error(f"bad goal: {why}")
        if not self._pursuit.is_active:
            self.report(NodeStatus.WARN, f"bad goal: {why}")
        return why

    def _live_frame(self) -> images.Rgb:
        live = self._frame.get(LIVE_AGE)
        if live is None:
            raise images.ImageError(f"no camera frame on {self._frame.topic} within the last {LIVE_AGE:g} s")
        return images.to_rgb(live)

    def _speed(self) -> float:
        """The fastest joint of the arm, rad/s; NaN when it is not known."""
        state = self._joint_state.get(LIVE_AGE)
        if state is None or not self._joints.read(
            seconds(state.header.stamp), state.name, state.position, state.velocity
        ):
            return float("nan")
        reading = self._joints.newest
        return float("nan") if reading is None else float(np.abs(reading.qd).max())

    def _ended(self, ended: Ended | None) -> None:
        if ended is None:
            return
        self._publish(self._pursuit.state)
        level = NodeStatus.OK if ended.outcome in (Outcome.REACHED, Outcome.CANCELED) else NodeStatus.WARN
        self.report(level, f"{ended.outcome.name.lower()} after {ended.duration:.1f} s: {ended.message}")
        self.get_logger().info(
            f"goal {ended.goal_id}: {ended.outcome.name} after {ended.duration:.1f} s: {ended.message}"
        )
        self._answer(ended)

    def _answer(self, ended: Ended | None) -> None:
        if ended is not None and self._waiting is not None:
            self._waiting.execute(functools.partial(_finish, ended))
            self._waiting = None

    def _publish(self, state: GoalState) -> None:
        self._goal.state = int(state)
        self._goal_publisher.publish(self._goal)

    def _hear_policy(self) -> None:
        control = self._control.get(LIVE_AGE)
        if control is None:
            return  # a policy that is gone is the supervisor's to tell
        if control.state == ControlStatus.RUNNING:
            self._pursuit.moved()
        else:
            reason = control.stop_reason.value
            self._pursuit.held(StopReason.NONE if reason in ENDED else reason, control.stop_detail, self._time())

    def _give_feedback(self) -> None:
        if self._waiting is None:
            return
        pursuit = self._pursuit
        reason, detail = pursuit.stop
        feedback = ReachGoal.Feedback(goal_id=pursuit.goal_id, progress=pursuit.progress, stop_detail=detail)
        feedback.time_to_goal, feedback.elapsed = pursuit.time_to_goal, pursuit.elapsed(self._time())
        feedback.stop_reason = StopReasonMsg(value=int(reason))
        self._waiting.publish_feedback(feedback)


def _finish(ended: Ended, handle: ServerGoalHandle) -> ReachGoal.Result:
    if ended.outcome == Outcome.REACHED:
        handle.succeed()
    elif ended.outcome == Outcome.CANCELED and handle.is_cancel_requested:
        handle.canceled()
    else:
        handle.abort()
    return ReachGoal.Result(**vars(ended))


def main() -> None:
    run(GoalNode)


if __name__ == "__main__":
    main()
