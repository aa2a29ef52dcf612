"""models/act2goal-tiny as a LeRobot policy: the same ONNX networks on ONNX Runtime, one thread.

`task` of an observation names the file of the goal picture. A plan is imagined inside predict_action_chunk when the last one is
PLAN_PERIOD old (5 Hz, as in the graph). The rows the network gives every 0.05 s are sampled at the client's control period: row
i is for i periods after the observation, as PolicyServer stamps it. LeRobot tells a policy nothing of the actions that are
committed already, so the network runs without them (`prefix`).
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lerobot.configs.policies import PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import DeviceProcessorStep, PolicyProcessorPipeline, RenameObservationsProcessorStep
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE
from sim_robot import CAMERA, POSITIONS, VELOCITIES
from slots import JOINTS, PICTURE

from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.serving.bundle import ModelBundle
from act2goal_ros.serving.imagination import Imagined
from act2goal_ros.serving.policy import PlanKeys, Proprio

PLAN_PERIOD = 0.2  # s
IMAGE = f"{OBS_IMAGES}.{CAMERA}"


@PreTrainedConfig.register_subclass("act2goal")
@dataclass
class OnnxConfig(PreTrainedConfig):
    """LeRobot finds OnnxPolicy by this name. `bundle`: folder of the model; `period`: s between rows; `log`: file with a line a chunk."""

    bundle: str = ""
    period: float = 1 / 30
    rows: int = 16
    log: str = ""

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> Any:
        raise NotImplementedError("this policy is not trained here")

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        pass


class OnnxPolicy(PreTrainedPolicy):
    """Has no torch parameters; the networks are in the bundle."""

    config_class = OnnxConfig
    name = "act2goal"

    def __init__(self, config: OnnxConfig, **_: Any) -> None:
        super().__init__(config)
        bundle = ModelBundle.load(config.bundle)
        self._policy = bundle.policy("onnxruntime", 1)
        self._imagination = bundle.imagination("onnxruntime", 1)
        self._step = bundle.step
        self.reset()

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        return model

    def reset(self) -> None:
        self._goal_file, self._goal = "", np.empty(0)
        self._plan: tuple[float, Imagined, PlanKeys] | None = None

    def predict_action_chunk(self, batch: dict[str, Any], **_: Any) -> torch.Tensor:
        """(1, rows, 7): degrees and percent."""
        picture = (batch[IMAGE][0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        state = batch[OBS_STATE][0].numpy().astype(float)
        self._show_goal(batch["task"])
        began, planned = time.time(), self._plan
        chunk = self._chunk(np.ascontiguousarray(picture), state, began)
        self._note(began, time.time(), self._plan is not planned)
        return torch.from_numpy(self._rows(chunk))[None]

    def _show_goal(self, file: str) -> None:
        if file == self._goal_file:
            return
        self._goal = self._imagination.encode(cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2RGB))
        self._goal_file, self._plan = file, None

    def _chunk(self, picture: np.ndarray, state: np.ndarray, now: float) -> ActionChunk:
        frame = self._policy.observe(picture)
        if self._plan is None or now - self._plan[0] >= PLAN_PERIOD:
            plan = self._imagination.imagine(frame.latent, self._goal, int(1000 * now) % 2**31)
            self._plan = now, plan, self._policy.set_plan(plan.features)
        planned, plan, keys = self._plan
        q, qd = np.radians(state[:JOINTS]), np.radians(state[JOINTS + 1 :])
        proprio, age = Proprio(q, qd, float(state[JOINTS]) / 100.0), now - planned
        out = self._policy.act(keys, frame, proprio, self._policy.mask(plan, age), plan.offsets - age)
        return ActionChunk(0.0, self._step, out.positions, np.clip(out.gripper, 0.0, 1.0))

    def _rows(self, chunk: ActionChunk) -> np.ndarray:
        config: Any = self.config
        times = config.period * np.arange(config.rows)
        gripper = np.array([chunk.gripper_at(t) for t in times.tolist()])
        return np.column_stack([np.degrees(chunk.sample_many(times)[0]), 100.0 * gripper])

    def _note(self, began: float, ended: float, planned: bool) -> None:
        with Path(self.config.log).open("a") as file:
            print(json.dumps({"began": began, "ended": ended, "planned": planned}), file=file)

    def select_action(self, batch: dict[str, Any], **_: Any) -> torch.Tensor:
        return self.predict_action_chunk(batch)[:, 0]

    def forward(self, batch: dict[str, Any]) -> Any:
        raise NotImplementedError("this policy is not trained here")

    def get_optim_params(self) -> dict[str, Any]:
        return {}


def save(folder: Path, bundle: Path, period: float, rows: int, log: Path) -> None:
    """Writes what `from_pretrained` and LeRobot's processors load: settings, and pipelines that change nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    state = len(POSITIONS) + len(VELOCITIES)
    config = OnnxConfig(bundle=str(bundle), period=period, rows=rows, log=str(log), device="cpu", push_to_hub=False)
    height, width, channels = PICTURE
    config.input_features = {
        OBS_STATE: PolicyFeature(type=FeatureType.STATE, shape=(state,)),
        IMAGE: PolicyFeature(type=FeatureType.VISUAL, shape=(channels, height, width)),
    }
    config.output_features = {ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(len(POSITIONS),))}
    config._save_pretrained(folder)
    before = [RenameObservationsProcessorStep(rename_map={}), DeviceProcessorStep(device="cpu")]
    for name, steps in (("policy_preprocessor", before), ("policy_postprocessor", [DeviceProcessorStep(device="cpu")])):
        PolicyProcessorPipeline(steps=steps, name=name).save_pretrained(folder)
