"""The simulated arm as a LeRobot robot: degrees and percent, as LeRobot's robots have them, and a front camera."""

import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.robots import Robot, RobotConfig
from slots import JOINTS, PICTURE, Slots

NAMES = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")
POSITIONS = (*(f"{name}.pos" for name in NAMES), "gripper.pos")  # degrees; gripper 0 open .. 100 closed
VELOCITIES = tuple(f"{name}.vel" for name in NAMES)  # degrees/s
CAMERA = "front"


@RobotConfig.register_subclass("simulated_ur5e")
@dataclass
class SimulatedUR5eConfig(RobotConfig):
    """`slots`: the file that arm.py shares."""

    slots: str = ""


class SimulatedUR5e(Robot):
    """Reads the newest state and frame, writes position targets; never waits."""

    config_class = SimulatedUR5eConfig
    name = "simulated_ur5e"

    def __init__(self, config: SimulatedUR5eConfig) -> None:
        super().__init__(config)
        self._path = Path(config.slots)
        self._slots: Slots | None = None
        self.seen = 0.0  # stamp of the frame in the newest observation
        self.sent = 0.0  # system time at which the newest action had arrived

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        return {**dict.fromkeys((*POSITIONS, *VELOCITIES), float), CAMERA: PICTURE}

    @cached_property
    def action_features(self) -> dict[str, type]:
        return dict.fromkeys(POSITIONS, float)

    @property
    def is_connected(self) -> bool:
        return self._slots is not None

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._slots = Slots(self._path)

    def calibrate(self) -> None:
        pass

    def configure(self) -> None:
        pass

    def get_observation(self) -> dict[str, Any]:
        assert self._slots is not None
        state = self._slots.state.read()
        self.seen, picture = self._slots.frame()
        positions = (*np.degrees(state[1 : 1 + JOINTS]).tolist(), 100.0 * float(state[1 + 2 * JOINTS]))
        velocities = np.degrees(state[1 + JOINTS : 1 + 2 * JOINTS]).tolist()
        return {**dict(zip(POSITIONS, positions, strict=True)), **dict(zip(VELOCITIES, velocities, strict=True)), CAMERA: picture}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        assert self._slots is not None
        values = np.array([action[name] for name in POSITIONS])
        self._slots.command.write(np.radians(values[:JOINTS]), values[JOINTS] / 100.0)
        self.sent = time.time()
        return action

    def disconnect(self) -> None:
        self._slots = None
