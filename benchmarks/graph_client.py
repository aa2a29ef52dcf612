"""A client of the running graph: resets the simulated arm, shows goals, and watches what the graph publishes."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from act2goal_msgs.action import ReachGoal
from act2goal_msgs.msg import Adapter, Chunk, ControlStatus, Plan, SimState
from act2goal_msgs.srv import ResetSim
from control_msgs.msg import JointTrajectoryControllerState
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.trajectories import seconds
from act2goal_ros.serving import adapter
from act2goal_ros.serving.bundle import file_hash

SERVICE_TIMEOUT = 30.0  # s


@dataclass
class Watched:
    """What was seen since the last clear()."""

    statuses: list[ControlStatus] = field(default_factory=list)
    plans: list[float] = field(default_factory=list)  # arrival, s
    factors: list[float] = field(default_factory=list)  # real-time factors


@dataclass(frozen=True)
class Reference:
    """The controller's reference: time s, velocities (J,) rad/s, accelerations (J,) rad/s²."""

    stamp: float
    velocities: np.ndarray
    accelerations: np.ndarray


class GraphClient(Node):
    """Blocking calls from one thread; callbacks run in another."""

    def __init__(self) -> None:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C ends the benchmark
        super().__init__("benchmark")
        self.watched = Watched()
        self.sim: SimState | None = None
        self.status: ControlStatus | None = None
        self._handle: Any = None
        self.references: deque[Reference] = deque(maxlen=1000)
        self.create_subscription(SimState, topics.SIM_STATE, self._on_sim, qos.SENSOR)
        self.create_subscription(ControlStatus, topics.CONTROL_STATUS, self._on_status, qos.COMMAND)
        self.create_subscription(Plan, topics.PLAN, self._on_plan, qos.LATCHED)
        controller = RobotConfig.load("ur5e_sim").controller
        self.create_subscription(JointTrajectoryControllerState, controller.state_topic, self._on_reference, qos.COMMAND)
        self.frames: dict[int, float] = {}
        self.chunks: list[tuple[int, Chunk]] = []
        self._adapters = self.create_publisher(Adapter, topics.ADAPTER, qos.LATCHED)
        self._reset = self.create_client(ResetSim, topics.RESET_SIM)
        self._reach = ActionClient(self, ReachGoal, topics.REACH_GOAL)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def _on_sim(self, message: SimState) -> None:
        self.sim = message
        self.watched.factors.append(message.real_time_factor)

    def _on_status(self, message: ControlStatus) -> None:
        self.status = message
        self.watched.statuses.append(message)

    def _on_plan(self, _: Plan) -> None:
        self.watched.plans.append(time.monotonic())

    def _on_reference(self, message: JointTrajectoryControllerState) -> None:
        reference = message.reference
        stamp = seconds(message.header.stamp)
        self.references.append(Reference(stamp, np.array(reference.velocities), np.array(reference.accelerations)))

    def watch_frames(self) -> None:
        """Keeps `frames`: ms from each camera frame's stamp (ns) to its publishing; `chunks`: those stamps and their chunks."""
        camera = RobotConfig.load("ur5e_sim").camera.topic
        self.create_subscription(Image, camera, self._on_frame, qos.SENSOR)
        self.create_subscription(Chunk, topics.CHUNK, lambda message: self.chunks.append((_nanoseconds(message), message)), qos.COMMAND)

    def _on_frame(self, message: Image, info: dict[str, Any]) -> None:
        stamp = _nanoseconds(message)
        self.frames[stamp] = 1e-6 * (info["source_timestamp"] - stamp)

    def offer(self, identity: str, folder: Path) -> None:
        """Offers the policy an adapter."""
        digest = file_hash(folder / adapter.WEIGHTS)
        self._adapters.publish(Adapter(adapter_id=identity, path=str(folder), sha256=digest))

    @contextmanager
    def repeating(self, period: float, action: Callable[[int], None]) -> Iterator[list[int]]:
        """Calls action(k) every `period` s in a thread meanwhile; yields the list of those k done."""
        ended, done = threading.Event(), list[int]()

        def repeat() -> None:
            while not ended.wait(period):
                action(len(done))
                done.append(len(done))

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield done
        finally:
            ended.set()
            thread.join()

    def clear(self) -> None:
        """Forgets what was watched."""
        self.watched = Watched()

    def wait_for(self, what: str, condition: Any, timeout: float) -> None:
        """Waits until condition() holds; raises TimeoutError naming `what`."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {timeout:g} s")
            time.sleep(0.005)

    def _result(self, future: Any, what: str, timeout: float) -> Any:
        self.wait_for(what, future.done, timeout)
        return future.result()

    def _send(self, picture: Image) -> Any:
        """The goal's handle. Sent by the executor's thread: rclpy (Kilted) loses an answer that another thread takes too early."""
        sent = self._executor.create_task(self._reach.send_goal_async, ReachGoal.Goal(image=picture))
        self.wait_for("reach_goal to be sent", sent.done, SERVICE_TIMEOUT)
        return self._result(sent.result(), "reach_goal", SERVICE_TIMEOUT)

    def ready(self, timeout: float) -> None:
        """Waits for the graph to be up."""
        self.wait_for("service sim/reset", lambda: self._reset.service_is_ready(), timeout)
        self.wait_for("action reach_goal", lambda: self._reach.server_is_ready(), timeout)
        self.wait_for("control status", lambda: self.status is not None, timeout)

    def reset(self, task: str, seed: int) -> Image:
        """Starts an episode; returns its goal picture."""
        answer = self._result(self._reset.call_async(ResetSim.Request(task=task, seed=seed)), "sim/reset", SERVICE_TIMEOUT)
        if not answer.success:
            raise RuntimeError(f"reset of {task}, seed {seed}: {answer.message}")
        self.wait_for("the new episode", lambda: self.sim is not None and self.sim.episode == answer.episode, 10.0)
        return answer.goal_image

    def set_off(self, task: str, seed: int) -> None:
        """Starts an episode and its goal; returns once the arm moves fast."""
        image = self.reset(task, seed)
        self.wait_for("rest", lambda: self.speeds().max() == 0.0, 5.0)
        self._handle = self._send(image)
        if not self._handle.accepted:
            raise RuntimeError("reach_goal was rejected")
        self.wait_for("fast motion", lambda: self.speeds().max() > 0.6, 30.0)

    def call_off(self) -> None:
        """Cancels the goal of `set_off`."""
        self._result(self._handle.cancel_goal_async(), "cancel", SERVICE_TIMEOUT)

    def wait_recovered(self) -> None:
        """Waits until the policy drives the arm again."""
        self.status = None
        self.wait_for("motion", lambda: self.status is not None and self.status.state == ControlStatus.RUNNING, 60.0)

    def speeds(self) -> np.ndarray:
        """The newest reference's speeds (J,) in rad/s."""
        return np.abs(self.references[-1].velocities) if self.references else np.zeros(1)

    def episode(self, task: str, seed: int, duration: float, goal: Image | None = None) -> dict[str, Any]:
        """Shows the goal and lets the graph work for `duration` s of simulated time, or until it says it is there."""
        own_goal = self.reset(task, seed)
        assert self.sim is not None
        shown = own_goal if goal is None else goal
        handle = self._send(shown)
        if not handle.accepted:
            raise RuntimeError("reach_goal was rejected")
        started, outcome = self.sim.episode_time, handle.get_result_async()
        success_time = float("nan")
        while self.sim.episode_time - started < duration and not outcome.done():
            if self.sim.success_once and np.isnan(success_time):
                success_time = self.sim.episode_time
            time.sleep(0.01)
        end_state = self._settled() if outcome.done() else self.sim
        row = {
            "task": task,
            "seed": seed,
            "success": bool(end_state.success_once),
            "success_time": success_time,
            "at_rest": bool(end_state.at_rest_and_released),
            "outcome": int(outcome.result().result.outcome) if outcome.done() else None,
            "duration": self.sim.episode_time - started,
            "stop": self.status.stop_detail if self.status else "",
        }
        if not outcome.done():
            self._result(handle.cancel_goal_async(), "cancel", SERVICE_TIMEOUT)
        self.wait_for("the arm at rest", lambda: self.status is not None and self.status.at_rest, 10.0)
        return row

    def _settled(self) -> SimState:
        time.sleep(0.3)
        assert self.sim is not None
        return self.sim

    def close(self) -> None:
        """Ends the callbacks' thread."""
        self._executor.shutdown()
        self._thread.join(2.0)
        self.destroy_node()
        rclpy.try_shutdown()


def _nanoseconds(message: Any) -> int:
    """The stamp of a message."""
    stamp = message.header.stamp
    return int(stamp.sec * 10**9 + stamp.nanosec)
