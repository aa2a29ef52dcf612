"""The policy at run time: plan features, a live frame and proprioception in, a chunk of actions out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.msth import select
from act2goal_ros.serving import adapter
from act2goal_ros.serving.backends import Served
from act2goal_ros.serving.imagination import Imagined, picture_input


@dataclass(frozen=True)
class PlanKeys:
    """Keys and values of a plan's features, (1, L, F, T, E) each; computed once per plan."""

    keys: np.ndarray
    values: np.ndarray


class LiveFrame:
    """A camera frame. `picture` (1, 3, s, s) is the policy's input; `latent` (C, h, w) the autoencoder's, computed when first asked for."""

    def __init__(self, picture: np.ndarray, encode: Callable[[], np.ndarray]) -> None:
        self.picture, self._encode = picture, encode

    @cached_property
    def latent(self) -> np.ndarray:
        """(C, h, w) float32."""
        return self._encode()


@dataclass(frozen=True)
class Proprio:
    """Joints (J,) rad, velocities (J,) rad/s, gripper 0 open .. 1 closed."""

    joints: np.ndarray
    velocities: np.ndarray
    gripper: float


@dataclass(frozen=True)
class PolicyOutput:
    """positions (P, J) rad and gripper (P,) 0 .. 1, row k at (k + 1) steps from now; distal (M, J + 1), guidance only;
    the adapter it was made with."""

    positions: np.ndarray
    gripper: np.ndarray
    distal: np.ndarray
    adapter_id: str = ""


class GoalPolicy:
    """The action expert. Its flow starts from zero instead of noise, so that the same input gives the same chunk."""

    def __init__(self, config: ModelConfig, served: Served) -> None:
        self.config, self.served, self._runners = config, served, served.runners
        self.backend = served.backend
        self.adapter = adapter.none(config)

    def set_adapter(self, changed: adapter.Adapter | None) -> None:
        """The adapter of all further calls of `act`; None: as trained. An exchange of pointers."""
        self.adapter = changed or adapter.none(self.config)

    @property
    def adapter_id(self) -> str:
        """Of the adapter in force; empty: as trained."""
        return self.adapter.identity

    def set_plan(self, features: np.ndarray) -> PlanKeys:
        """Features (L, F, T, W) → keys and values."""
        out = self._runners["plan_keys"]({"features": features[None]})
        return PlanKeys(out["keys"], out["values"])

    def observe(self, image: np.ndarray) -> LiveFrame:
        """(H, W, 3) uint8 RGB."""
        def encode() -> np.ndarray:
            return self._runners["encode"]({"pictures": picture_input(image, self.config.encoded_size)})["latents"][0]

        return LiveFrame(picture_input(image, self.config.camera_size), encode)

    def mask(self, plan: Imagined, age: float) -> np.ndarray:
        """(F,) bool: the frames that MSTH selects of a plan that is `age` s old."""
        c = self.config
        return select(plan.offsets, plan.dense, age, c.chunk_steps * c.step, c.distal_frames).mask(len(plan.offsets))

    def act(
        self,
        plan: PlanKeys,
        frame: LiveFrame,
        proprio: Proprio,
        mask: np.ndarray,
        frame_times: np.ndarray,
        prefix: np.ndarray | None = None,
    ) -> PolicyOutput:
        """mask (F,) bool: selected frames; frame_times (F,) s from now; prefix (d, J + 1): actions already committed.

        Of more than the configuration's `most_given` actions the first ones are taken.
        """
        c, rows = self.config, self.config.chunk_steps + self.config.distal_frames
        steps = (np.asarray(frame_times) / c.step).astype(np.float32)
        given, given_mask = np.zeros((1, rows, c.action_size), np.float32), np.zeros((1, rows), np.float32)
        if prefix is not None and len(prefix):
            count = min(len(prefix), c.most_given)
            given[0, :count], given_mask[0, :count] = prefix[:count], 1.0
        row_times = np.concatenate([np.arange(1, c.chunk_steps + 1), steps[c.dense_frames :]])
        used = self.adapter
        out = self._runners["tick"](
            {
                **used.inputs,
                "pictures": frame.picture,
                "keys": plan.keys,
                "values": plan.values,
                "frame_mask": np.asarray(mask, np.float32)[None],
                "frame_times": steps[None],
                "joints": np.asarray(proprio.joints, np.float32)[None],
                "velocities": np.asarray(proprio.velocities, np.float32)[None],
                "gripper": np.array([[proprio.gripper]], np.float32),
                "given": given,
                "given_mask": given_mask,
                "row_times": row_times[None].astype(np.float32),
            }
        )["actions"][0].astype(float)
        return PolicyOutput(out[: c.chunk_steps, :-1], out[: c.chunk_steps, -1], out[c.chunk_steps :], used.identity)
