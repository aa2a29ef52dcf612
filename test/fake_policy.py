"""A model bundle whose policy sweeps the joints to and fro by the stamp it finds in the picture, and the policy node with it.

`python fake_policy.py --ros-args …`. The file named by FAKE_MODE says what the policy does:
sweep (nothing said), nan, far, empty, five (joints), slow, late (but in time), raise.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SPEED = 0.6  # rad/s of every joint while it sweeps
SPAN = 3.0  # rad from one turn to the other
HASH = "a" * 64
FRAMES = 6
JOINTS = (
    "shoulder_pan_joint",
    "shoulder_lift_joint",
    "elbow_joint",
    "wrist_1_joint",
    "wrist_2_joint",
    "wrist_3_joint",
)


def sweep(times: np.ndarray) -> np.ndarray:
    """Positions (N, 6): a triangle in time."""
    phase = (times * SPEED) % (2 * SPAN)
    return np.repeat((np.minimum(phase, 2 * SPAN - phase) - SPAN / 2)[:, None], len(JOINTS), axis=1)


class FakePolicy:
    """Sweeps; follows the prefix it is given in its first rows."""

    backend = "fake"
    served = "backend fake"
    adapter_id = ""

    def set_adapter(self, changed):
        self.adapter_id = changed.identity if changed else ""

    def set_plan(self, features):
        return features

    def observe(self, image):
        stamp = float(np.frombuffer(image.tobytes()[:8], np.float64)[0])  # written there by the world
        return SimpleNamespace(latent=np.full((2, 4, 4), float(image.mean()), np.float32), stamp=stamp)

    def act(self, plan, frame, proprio, mask, frame_times, prefix=None):
        mode = _mode()
        if mode in ("slow", "late"):
            time.sleep({"slow": 0.45, "late": 0.2}[mode])
        if mode == "raise":
            raise RuntimeError("the fake fails")
        positions = sweep(frame.stamp + 0.05 * np.arange(1, 17))
        if mode == "nan":
            positions[5, 2] = np.nan
        if mode == "far":
            positions[7, 1] = 40.0
        if mode == "five":
            positions = positions[:, :5]
        if mode == "empty":
            positions = positions[:0]
        gripper = np.full(len(positions), 0.5)
        return SimpleNamespace(positions=positions, gripper=gripper, distal=np.zeros((3, 7)), adapter_id=self.adapter_id)


class FakeBundle:
    """The part of a ModelBundle that the policy node uses."""

    name, hash, image_size, step, joint_names = "fake", HASH, (32, 32), 0.05, JOINTS
    config = SimpleNamespace(prefix_steps=4, most_given=8, frames=FRAMES, served_features=(1, FRAMES, 4, 4), joints=6,
                             lora_rank=2, lora_layers={"blocks.0.out": (4, 4)})  # fmt: skip

    def policy(self, backend="auto", threads=1, precision="float16"):
        return FakePolicy()


def _mode() -> str:
    path = Path(os.environ.get("FAKE_MODE", "/nonexistent"))
    return path.read_text() if path.exists() else ""


def main() -> None:
    """Runs the policy node with the fake."""
    from act2goal_ros import paths
    from act2goal_ros.nodes import base, policy

    paths.model = Path
    base.run(lambda: policy.PolicyNode(load=lambda *_, **__: FakeBundle()))


if __name__ == "__main__":
    main()
