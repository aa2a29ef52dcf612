"""A client of the goal node, for the command line and for scripts; it is no part of the graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from act2goal_msgs.action import ReachGoal
from rclpy.action import ActionClient
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from act2goal_ros.nodes import images, topics

STEP = 0.1  # s between looks at what has arrived


class NoGoalNode(RuntimeError):
    """Nobody answers to reach_goal or goal/cancel; the message says where it was looked for."""


class GoalClient:
    """Sends goals and waits for them; use it in a `with`."""

    def __init__(self, namespace: str = "") -> None:
        self._context = Context()
        self._context.init()
        self._node = Node("goal_client", namespace=namespace, context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._client: Any = ActionClient(self._node, ReachGoal, topics.REACH_GOAL)

    def __enter__(self) -> GoalClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.destroy()
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        self._context.try_shutdown()

    def reach(
        self,
        image: str = "",
        timeout: float = 0.0,
        on_feedback: Callable[[ReachGoal.Feedback], None] = lambda _: None,
        interrupted: Callable[[], bool] = lambda: False,
        patience: float = 10.0,
    ) -> ReachGoal.Result:
        """Sends a picture file, or the live frame when `image` is empty, and waits for the end.

        timeout: s, 0: the goal node's own. interrupted: says when to cancel; the result is then CANCELED. patience: s
        to find the goal node. Raises ImageError for a bad file, NoGoalNode.
        """
        goal = ReachGoal.Goal(timeout=timeout, use_live_frame=not image)
        if image:
            goal.image = images.to_message(images.shrink(images.load(image), 640))
        self._wait(self._client.server_is_ready, patience, topics.REACH_GOAL)
        sent = self._client.send_goal_async(goal, feedback_callback=lambda m: on_feedback(m.feedback))
        self._wait(sent.done, patience, topics.REACH_GOAL)
        handle = sent.result()
        if handle is None or not handle.accepted:
            raise NoGoalNode("the goal node is not active and takes no goal yet")
        result = handle.get_result_async()
        canceling = False
        while not result.done():
            self._executor.spin_once(timeout_sec=STEP)
            if interrupted() and not canceling:
                canceling = True
                handle.cancel_goal_async()
        answer: Any = result.result()
        reached: ReachGoal.Result = answer.result
        return reached

    def cancel(self, patience: float = 5.0) -> tuple[bool, str]:
        """Cancels whatever goal is pursued; returns whether there was one, and a message. Raises NoGoalNode."""
        client: Any = self._node.create_client(Trigger, topics.CANCEL_GOAL)
        self._wait(client.service_is_ready, patience, topics.CANCEL_GOAL)
        answer = client.call_async(Trigger.Request())
        self._wait(answer.done, patience, topics.CANCEL_GOAL)
        response: Any = answer.result()
        return response.success, response.message

    def _wait(self, condition: Callable[[], bool], seconds: float, name: str) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                where = Path("/", self._node.get_namespace().strip("/"), name)
                raise NoGoalNode(f"nobody answers to {where} within {seconds:g} s: is the graph running?")
            self._executor.spin_once(timeout_sec=STEP)
