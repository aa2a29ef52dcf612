"""The policy node with the fake model, whose inference never returns once the file named by FAKE_MODE says hang: a GPU that does so."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import fake_policy

from act2goal_ros import paths
from act2goal_ros.nodes import base, policy


class HangingPolicy(fake_policy.FakePolicy):
    """Waits for what never comes."""

    def observe(self, image: Any) -> Any:
        if fake_policy._mode() == "hang":
            threading.Event().wait()
        return super().observe(image)


class Bundle(fake_policy.FakeBundle):
    """With such a policy."""

    def policy(self, *_: object, **__: object) -> HangingPolicy:
        return HangingPolicy()


if __name__ == "__main__":
    paths.model = Path
    base.run(lambda: policy.PolicyNode(load=lambda *_, **__: Bundle()))
