"""Watches one other node of the graph: its process through the kernel, its loop through its heartbeat."""

from __future__ import annotations

from collections.abc import Callable

from act2goal_msgs.msg import NodeStatus
from rclpy.clock import Clock, ClockType
from rclpy.serialization import deserialize_message

from act2goal_ros.control.presence import ProcessWatch
from act2goal_ros.nodes import qos, topics
from act2goal_ros.nodes.base import ManagedNode, values_of


class Peer:
    """Calls on_lost(detail) in the executor's thread when the peer's process ends or its heartbeat is late.

    A peer never heard is not lost; `heard` says whether it ever was, `lost` holds the detail until it is heard again. One that is not
    active does nothing for this node: it counts as lost.
    Hand it to own(). timeout: s without a heartbeat while the own loop turned.
    """

    def __init__(
        self, node: ManagedNode[object], name: str, on_lost: Callable[[str], None], timeout: float = 0.5
    ) -> None:
        self._node, self._name, self._on_lost, self._timeout = node, name, on_lost, timeout
        self._key = name.encode() + b"\0"
        self._instance = self._gone = ""
        self._ticks_silent = 0
        self.heard = False
        self.lost = ""
        self._watch = ProcessWatch(self._ended)
        self._subscription = node.create_subscription(NodeStatus, topics.STATUS, self._status, qos.STATUS, raw=True)
        self._timer = node.create_timer(timeout / 5, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def destroy(self) -> None:
        """Stops watching."""
        self._node.destroy_timer(self._timer)
        self._node.destroy_subscription(self._subscription)
        self._watch.close()

    def _status(self, raw: bytes) -> None:
        if self._key not in raw:  # spares unpacking the heartbeats of all the others
            return
        status = deserialize_message(raw, NodeStatus)
        if status.node != self._name:
            return
        values = values_of(status)
        if values["instance"] == self._gone:  # still queued when the process ended
            return
        if values["instance"] != self._instance:
            self._instance = values["instance"]
            self._watch.watch(self._instance, int(values["pid"]), values["machine"])
        if values["state"] == "active":
            self.heard, self.lost, self._ticks_silent = True, "", 0
        elif self.heard:
            self._lose(f"{self._name}: {values['state']}")

    def _ended(self, instance: str) -> None:
        def tell() -> None:
            self._gone = instance
            if instance == self._instance:
                self._lose(f"{self._name}: its process ended")

        self._node.soon(tell)

    def _tick(self) -> None:
        """Counts own ticks instead of time: while this process is held up, its peer's heartbeats wait in the queue."""
        self._ticks_silent += 1
        if self.heard and self._ticks_silent > 5:
            self._lose(f"{self._name}: no heartbeat for {self._timeout:g} s")

    def _lose(self, detail: str) -> None:
        if not self.lost:
            self.lost = detail
            self._on_lost(detail)
