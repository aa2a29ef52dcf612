"""A scripted expert that moves the simulated arm through its topics, as the policy does: no model needed.

subscribes: joint_states, sim/state, controller_state. publishes: joint_trajectory and the gripper's command at 20 Hz.
calls: sim/reset. It knows the cube from sim/state, which nothing else in the graph may read. Each message leads to rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import rclpy
from act2goal_msgs.msg import SimState
from act2goal_msgs.srv import ResetSim
from control_msgs.msg import JointTrajectoryControllerState
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.trajectories import to_message
from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.remote import RemoteExpert, Way

PERIOD = 0.05  # s between commands
LEAD, BACK = 0.01, 0.02  # s: a new way begins so far ahead, a message reaches so far back that no controller leads in
STALE = 2.0  # s without joint states
LOST = 0.8  # rad between what was told and what is measured, above which the way begins anew: the controller holds
AFTER = 1.0  # s that the scene is watched after the expert is done


class DriveError(RuntimeError):
    """The arm cannot be driven; the message says why."""


@dataclass(frozen=True)
class Drive:
    """How one episode went; s, rad."""

    task: str
    seed: int
    success: bool
    at_rest: bool
    duration: float
    largest_error: float
    real_time_factor: float


@contextlib.contextmanager
def ros() -> Iterator[None]:
    """ROS while the block runs; Ctrl-C stays the caller's."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()


class ExpertDriver(Node):
    """Drives one episode after the other; call from one thread."""

    def __init__(self, robot: RobotConfig, namespace: str = "") -> None:
        super().__init__("expert", namespace=namespace)
        self._robot = robot
        self._twin = SimulatedArm(image_size=32)
        self._expert: RemoteExpert | None = None
        self._way: Way | None = None
        self._joints: JointState | None = None
        self._heard = 0.0
        self._scene: SimState | None = None
        self._errors: list[float] = []
        controller = robot.controller
        self._trajectories = self.create_publisher(JointTrajectory, controller.joint_trajectory_topic, qos.COMMAND)
        self._gripper = self.create_publisher(Float64, robot.gripper.command_topic, qos.COMMAND)
        self.create_subscription(JointState, robot.joint_states_topic, self._see_joints, qos.SENSOR)
        self.create_subscription(SimState, topics.SIM_STATE, self._see_scene, qos.SENSOR)
        self.create_subscription(JointTrajectoryControllerState, controller.state_topic, self._see_state, qos.COMMAND)
        self._reset = self.create_client(ResetSim, topics.RESET_SIM)
        self.create_timer(PERIOD, self._tick)
        self._executor = EventsExecutor()
        self._executor.add_node(self)

    def close(self) -> None:
        """Leaves the graph."""
        self._expert = self._way = None
        self._executor.remove_node(self)
        self.destroy_node()

    def wait_for_arm(self, seconds: float) -> bool:
        """Whether an arm answers within so many seconds."""
        return self._spin(self._ready, seconds)

    def drive(self, task: str, seed: int, timeout: float) -> Drive:
        """One episode of a single cube from a reset to rest, or to the timeout in s. Raises DriveError."""
        if not task.startswith("cube-single-"):
            raise DriveError(f"task '{task}': the expert drives cube-single tasks only, sim/state does not tell what else it needs")
        self._expert = None
        self._start(task, seed)
        begin = time.monotonic()
        finished = self._spin(lambda: self._expert is not None and self._expert.done, timeout)
        duration = time.monotonic() - begin
        if finished:
            self._spin(lambda: False, AFTER)
        self._expert, scene = None, self._scene
        assert scene is not None
        done = (scene.success, scene.at_rest_and_released, duration)
        return Drive(task, seed, *done, max(self._errors, default=0.0), scene.real_time_factor)

    # callbacks

    def _see_joints(self, message: JointState) -> None:
        self._joints, self._heard = message, time.monotonic()

    def _see_scene(self, message: SimState) -> None:
        self._scene = message

    def _see_state(self, message: JointTrajectoryControllerState) -> None:
        self._errors.append(float(np.abs(message.error.positions).max()))

    def _tick(self) -> None:
        if self._expert is None or self._way is None:
            return
        if time.monotonic() - self._heard > STALE:
            raise DriveError(f"no joint states for {STALE} s")
        assert self._scene is not None
        positions, velocities, gripper = self._measured()
        self._expert.see(positions, velocities, gripper, np.array(self._scene.object_positions[:3]))
        target, grip = self._expert.act()
        now = self.get_clock().now().nanoseconds * 1e-9
        if np.abs(self._way.positions_at(now) - positions).max() > LOST:
            self._way = Way(positions)
        self._way.turn(now + LEAD, target)
        self._trajectories.publish(to_message(self._way.trajectory(now - BACK), self._robot.joint_names))
        self._gripper.publish(Float64(data=float(grip)))

    # private helpers

    def _measured(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Arm positions, velocities (6,) and the gripper 0 .. 1 of the last joint states."""
        assert self._joints is not None
        places = [self._joints.name.index(name) for name in self._robot.joint_names]
        gripper = self._joints.position[self._joints.name.index(self._robot.gripper.joint)]
        positions, velocities = np.array(self._joints.position), np.array(self._joints.velocity)
        return positions[places], velocities[places], self._robot.gripper.to_fraction(gripper)

    def _start(self, task: str, seed: int) -> None:
        answer: Future[ResetSim.Response] = self._reset.call_async(ResetSim.Request(task=task, seed=seed))
        if not self._spin(answer.done, 30.0):
            raise DriveError("the simulated arm does not answer sim/reset within 30 s")
        response = answer.result()
        if response is None or not response.success:
            raise DriveError(f"no reset: {response.message if response else 'no answer'}")
        self._joints, self._scene = None, None
        episode = response.episode
        if not self._spin(lambda: self._joints and self._scene and self._scene.episode == episode, 10.0):
            raise DriveError("no joint states or no sim/state within 10 s of the reset")
        expert = RemoteExpert(self._twin, task, seed)
        self._errors.clear()
        self._way, self._heard = Way(self._measured()[0]), time.monotonic()
        self._expert = expert

    def _ready(self) -> bool:
        return self._reset.service_is_ready() and self._trajectories.get_subscription_count() > 0

    def _spin(self, until: Callable[[], object], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while rclpy.ok() and time.monotonic() < end:
            if until():
                return True
            self._executor.spin_once(timeout_sec=0.05)
        return bool(until())
