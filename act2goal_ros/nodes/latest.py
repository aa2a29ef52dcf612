"""The newest message of a topic, unpacked only when somebody asks: most messages at rate are never looked at."""

from __future__ import annotations

import time
from typing import Any, Generic, TypeVar

from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message

M = TypeVar("M")


class Latest(Generic[M]):
    """Subscribes and keeps the newest message as received; hand it to own()."""

    def __init__(self, node: Node, kind: type[M], topic: str, profile: QoSProfile) -> None:
        self._node, self._kind = node, kind
        self.topic = topic
        self._raw, self._received = b"", float("-inf")
        self._subscription: Any = node.create_subscription(kind, topic, self._keep, profile, raw=True)

    def get(self, max_age: float = float("inf")) -> M | None:
        """The newest message if one arrived within the last max_age s."""
        if not self._raw or time.monotonic() - self._received > max_age:
            return None
        message: M = deserialize_message(self._raw, self._kind)
        return message

    def destroy(self) -> None:
        """Ends the subscription."""
        self._node.destroy_subscription(self._subscription)

    def _keep(self, raw: bytes) -> None:
        self._raw, self._received = raw, time.monotonic()
