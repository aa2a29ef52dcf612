"""The policy node with the shipped model, its callbacks called by hand: an arm that follows perfectly, a camera at 30 Hz, a plan.

Prints as JSON, s a frame on which the arm moves: `callback`, the thread's time in the camera's callback; `late`, the same where
chunks are known to take LATE s, so that most is foreseen; `inference`, from the picture to the chunk; and `counted`, the frames of
each kind, moving or not; `stops`, why it did not. Parameters as usual, after --ros-args.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from act2goal_ros.control.executive import Decision, State
from act2goal_ros.control.inputs import ControllerReport
from act2goal_ros.control.planbook import Selected
from act2goal_ros.nodes import images
from act2goal_ros.nodes.policy import PolicyNode
from act2goal_ros.serving.bundle import ModelBundle

PERIOD, WARM_UP, COUNTED = 1 / 30, 20, 90  # s, frames
SIDE, LATE = 128, 0.28  # pixels, s


class Driven(PolicyNode):
    """Counts what the camera's callback costs."""

    def __init__(self) -> None:
        super().__init__(load=self.take)
        self.callback, self.inference = list[float](), list[float]()

    def take(self, *args: Any, **named: Any) -> ModelBundle:
        self.features = np.zeros((bundle := ModelBundle.load(*args, **named)).config.served_features, np.float32)
        return bundle

    def _on_image(self, message: Image) -> None:
        before = time.thread_time()
        super()._on_image(message)
        self.callback.append(time.thread_time() - before)

    def _adopt(self, result: Any, chunk: Any) -> None:
        self.inference.append(result.seconds)
        super()._adopt(result, chunk)

    def hear(self) -> None:
        """All but the picture."""
        now, monotonic, inputs = self.now(), time.monotonic(), self._executive.inputs
        names = list(self._robot.joint_names)
        q, v = self._executive.commanded(now)
        q, v = (q, v) if len(q) else (np.full(len(names), -1.0), np.zeros(len(names)))
        inputs.joint_states(now, names, q.tolist(), v.tolist(), now, monotonic)
        inputs.controller(ControllerReport(now, q, v, 0.0, names[0], 1.0), monotonic)
        inputs.plans.add_plan("p", now, 0.4 * np.arange(1, self.features.shape[1] + 1))
        inputs.plans.add_features("p", self.features)
        inputs.plans.select(Selected("p", "g", np.array([0]), 0.0, now + 1.5))

    def see(self, picture: Image) -> None:
        picture.header.stamp = self.get_clock().now().to_msg()
        self._on_image(picture)


def main() -> None:
    """Drives the node until enough frames are counted."""
    rclpy.init(args=sys.argv)
    node, executor = Driven(), SingleThreadedExecutor()
    executor.add_node(node)
    node.trigger_configure()
    node.trigger_activate()
    node._mode_known("desired_state", "", False)
    node._executive.inputs.goal("g", True)
    picture = images.to_message(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    due, decisions = time.monotonic(), list[Decision]()
    while len(decisions) < WARM_UP + 2 * COUNTED:
        node.hear()
        if time.monotonic() >= due:
            due = time.monotonic() + PERIOD
            node.see(picture)
            decisions.append(node._executive.decision)
            for _ in range(500 * (len(decisions) == WARM_UP + COUNTED)):
                node._executive.delays.add(LATE)
        executor.spin_once(timeout_sec=0.002)
    moving = [decision.state == State.RUNNING for decision in decisions]
    seconds = [s if moves else None for s, moves in zip(node.callback, moving, strict=True)][WARM_UP:]
    usual, late = ([s for s in part if s is not None] for part in (seconds[:COUNTED], seconds[COUNTED:]))
    stops = sorted({f"{d.reason.name}: {d.detail}" for d, moves in zip(decisions, moving, strict=True) if not moves})
    found = {"callback": usual, "late": late, "inference": node.inference[WARM_UP:], "counted": COUNTED, "stops": stops}
    print(json.dumps(found))
    node.close()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
