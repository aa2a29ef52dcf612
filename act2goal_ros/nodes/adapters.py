"""Adapters offered to the policy: checked and read in a thread of its own, in force from the policy's next call on.

subscribes: adapter. An empty adapter_id asks for the weights as trained. What is refused is logged and counted
(drops.adapter_refused), and the one in force stays.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from act2goal_msgs.msg import Adapter

from act2goal_ros.nodes import qos, topics
from act2goal_ros.serving import adapter as adapters
from act2goal_ros.serving.bundle import file_hash


class AdapterInlet:
    """Hands a policy its adapters; the newest offer counts."""

    def __init__(self, node: Any, policy: Any, bundle: Any) -> None:
        self._node, self._policy, self._bundle = node, policy, bundle
        self._newest, self._lock = 0, threading.Lock()
        node.own(node.create_subscription(Adapter, topics.ADAPTER, self._on_adapter, qos.LATCHED))

    def _on_adapter(self, message: Adapter) -> None:
        self._newest += 1
        threading.Thread(target=self._take, args=(message, self._newest), name="adapter", daemon=True).start()

    def _take(self, message: Adapter, number: int) -> None:
        try:
            changed = self._read(message) if message.adapter_id else None
        except (adapters.AdapterError, OSError) as error:
            self._node.count("adapter_refused")
            self._node.get_logger().error(f"adapter '{message.adapter_id}' is refused: {error}")
            return
        with self._lock:
            if number == self._newest:
                self._policy.set_adapter(changed)
                self._node.get_logger().info(f"adapter in force: {message.adapter_id or 'none'}")

    def _read(self, message: Adapter) -> adapters.Adapter:
        folder, bundle = Path(message.path), self._bundle
        found = file_hash(folder / adapters.WEIGHTS)
        if found != message.sha256:
            raise adapters.AdapterError(f"{folder / adapters.WEIGHTS}: SHA-256 is {found}, the offer says {message.sha256}")
        return adapters.load(folder, bundle.config, bundle.hash, message.adapter_id)
