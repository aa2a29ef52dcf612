"""LTX-Video's causal 3-D autoencoder: clips ↔ latents, 8 times fewer frames after the first, 32 times smaller."""

from typing import cast

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import Tensor, nn

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.layers import join_views, split_views


class LtxAutoencoder(nn.Module):
    """Pictures in 0 .. 1 ↔ latents with about unit variance; each view by itself. It is given, not trained: no gradients."""

    def __init__(self, config: ModelConfig, vae: AutoencoderKLLTXVideo | None = None) -> None:
        super().__init__()
        self.views = config.views
        self.vae = (vae or AutoencoderKLLTXVideo(latent_channels=config.latent_channels)).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "LtxAutoencoder":
        return super().train(False)

    @torch.no_grad()
    def encode_clip(self, clip: Tensor) -> Tensor:
        """(B, 1 + 8 n, 3, V · 32 h, 32 w) → (B, 1 + n, C, V · h, w)."""
        frames = clip.shape[1]
        video = split_views(clip.flatten(0, 1), self.views).unflatten(0, (-1, frames, self.views))
        moments = self.vae.encode(2 * video.transpose(1, 2).flatten(0, 1).transpose(1, 2) - 1).latent_dist.mode()
        latents = (moments.float() - self._mean) * self.vae.config.scaling_factor / self._deviation
        return self._by_clip(latents)

    @torch.no_grad()
    def decode_clip(self, latents: Tensor) -> Tensor:
        """(B, 1 + n, C, V · h, w) → (B, 1 + 8 n, 3, V · 32 h, 32 w), about 0 .. 1."""
        frames = latents.shape[1]
        video = split_views(latents.flatten(0, 1), self.views).unflatten(0, (-1, frames, self.views))
        video = video.transpose(1, 2).flatten(0, 1).transpose(1, 2)
        video = video * self._deviation / self.vae.config.scaling_factor + self._mean
        level = torch.zeros_like(video[:, 0, 0, 0, 0]) if self.vae.config.timestep_conditioning else None
        return self._by_clip(self.vae.decode(video, level).sample.float() / 2 + 0.5)

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, V · 32 h, 32 w), each a clip of one frame → (B, C, V · h, w)."""
        return self.encode_clip(pictures.unsqueeze(1)).squeeze(1)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, V · h, w), each the first of a clip → (B, 3, V · 32 h, 32 w), about 0 .. 1."""
        return self.decode_clip(latents.unsqueeze(1)).squeeze(1)

    def _by_clip(self, video: Tensor) -> Tensor:
        """(B · V, C, F, H, W) → (B, F, C, V · H, W)."""
        frames = video.shape[2]
        tall = join_views(video.transpose(1, 2).unflatten(0, (-1, self.views)).transpose(1, 2).flatten(0, 2), self.views)
        return tall.unflatten(0, (-1, frames))

    @property
    def _mean(self) -> Tensor:
        return cast(Tensor, self.vae.latents_mean).view(1, -1, 1, 1, 1)

    @property
    def _deviation(self) -> Tensor:
        return cast(Tensor, self.vae.latents_std).view(1, -1, 1, 1, 1)
