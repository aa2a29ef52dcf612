"""The emergency stop's topic, heard however its button publishes it: latched or not, reliable or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from std_msgs.msg import Bool

from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.base import ManagedNode


def listen(node: ManagedNode[Any], heard: Callable[[Bool], None]) -> None:
    """Calls `heard` with every message, once or more; of several buttons the last message counts."""
    silent = SubscriptionEventCallbacks(incompatible_qos=lambda _: None)  # each publisher matches at least the last of these
    for profile in (qos.EVENT, qos.LATCHED, qos.RECORDED):
        node.own(node.create_subscription(Bool, topics.E_STOP, heard, profile, event_callbacks=silent))
