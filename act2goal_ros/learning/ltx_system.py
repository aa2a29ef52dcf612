"""All networks of the `ltx` architecture together: LTX-Video's autoencoder is given, world model and action expert are trained."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from act2goal_ros.learning.batches import Batch, Episodes
from act2goal_ros.learning.keypoints import KeypointReaders
from act2goal_ros.learning.system import System
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.expert import ActionExpert
from act2goal_ros.model.ltx import LtxWorldModel
from act2goal_ros.model.ltx_autoencoder import LtxAutoencoder
from act2goal_ros.model.world_model import TemporalDistance

GIVEN = "autoencoder."


class LtxSystem(System):
    """Trained as `System` is. Its batches hold pictures where System's hold latents, since a latent is of a clip, not of a frame.

    The autoencoder moves with the others, but is no part of the state: it stays in its folder, and every run reads it there.
    """

    def __init__(self, config: ModelConfig, autoencoder: LtxAutoencoder | None = None) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.autoencoder: Any = autoencoder or LtxAutoencoder(config)
        self.world: Any = LtxWorldModel(config)
        self.distance = TemporalDistance(config)
        self.expert = ActionExpert(config)
        self.readers = KeypointReaders(config)
        self.register_state_dict_post_hook(_forget_given)
        self.register_load_state_dict_post_hook(_expect_nothing_given)

    def encoded(self, batch: Batch) -> Batch:
        """Pictures → latents: the dense frames are one clip, the distal ones another. A latent frame is seen, and has the
        time, of the last frame it stands for."""
        clips = batch.future.split([self.config.dense_frames, self.config.distal_frames], 1)
        times, mask = (torch.stack([frames[:, last] for _, last in self.config.latent_frames], 1)
                       for frames in (batch.frame_times, batch.frame_mask))  # fmt: skip
        return replace(
            batch,
            current=self.autoencoder.encode(batch.current),
            goal=self.autoencoder.encode(batch.goal),
            live=self.autoencoder.encode(batch.live),
            future=torch.cat([self.autoencoder.encode_clip(clip) for clip in clips], 1),
            frame_times=times,
            frame_mask=mask,
        )

    def decoded(self, latents: Tensor) -> Tensor:
        """A plan's latent frames (F, C, H, W) → pictures of all its frames."""
        dense, distal = latents.unsqueeze(0).tensor_split([self.config.dense_latents], 1)
        return torch.cat([self.autoencoder.decode_clip(clip)[0] for clip in (dense, distal)])


class Pictures:
    """The frames of an episode, read as its latents would be: (N, 3, H, W) float in 0 .. 1."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = frames

    def __getitem__(self, index: Any) -> np.ndarray:
        """Of an index or an array of them."""
        return np.moveaxis(self._frames[index], -1, -3).astype(np.float32) / 255.0


def show_pictures(episodes: Episodes) -> None:
    """Gives samplers pictures in place of latents."""
    episodes.latents = [Pictures(episode.frames) for episode in episodes.all]  # type: ignore[misc]


def _forget_given(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + GIVEN)]:
        del state[name]


def _expect_nothing_given(module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [name for name in incompatible.missing_keys if not name.startswith(GIVEN)]
