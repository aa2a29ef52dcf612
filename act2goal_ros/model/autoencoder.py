"""Picture ↔ latent."""

import torch
from torch import Tensor, nn

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.layers import ResidualConv, join_views, split_views


class Autoencoder(nn.Module):
    """(B, 3, 64, 64) in 0 .. 1 ↔ (B, 8, 8, 8) with about unit variance; sizes are those of `tiny`. Each view by itself."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        w, c = config.autoencoder_width, config.latent_channels
        self.views = config.views
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 2 * w, 3, 1, 1),
            ResidualConv(2 * w),
            nn.SiLU(),
            nn.Conv2d(2 * w, 3 * w, 4, 2, 1),
            ResidualConv(3 * w),
            nn.SiLU(),
            nn.Conv2d(3 * w, c, 3, 1, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(c, 3 * w, 3, 1, 1),
            ResidualConv(3 * w),
            ResidualConv(3 * w),
            nn.SiLU(),
            nn.Conv2d(3 * w, 8 * w, 3, 1, 1),
            nn.PixelShuffle(2),
            ResidualConv(2 * w),
            ResidualConv(2 * w),
            nn.SiLU(),
            nn.Conv2d(2 * w, 48, 3, 1, 1),
            nn.PixelShuffle(4),
        )
        self.register_buffer("mean", torch.zeros(1, c, 1, 1))
        self.register_buffer("deviation", torch.ones(1, c, 1, 1))

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, 64, 64) in 0 .. 1 → normalised latents."""
        latents = (self.raw(pictures) - self.mean) / self.deviation
        return join_views(latents, self.views)

    def raw(self, pictures: Tensor) -> Tensor:
        """Pictures → latents as the encoder gives them, a row for each view."""
        return self.encoder(split_views(pictures, self.views) - 0.5)

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents → (B, 3, 64, 64), about 0 .. 1."""
        pictures = self.decoder(split_views(latents, self.views) * self.deviation + self.mean) + 0.5
        return join_views(pictures, self.views)

    def forward(self, pictures: Tensor, noise: float = 0.0) -> Tensor:
        """Reconstruction; latent noise in units of the deviation makes the latent space smooth."""
        latents = self.encode(pictures)
        return self.decode(latents + noise * torch.randn_like(latents))

    @torch.no_grad()
    def normalise(self, pictures: Tensor) -> None:
        """Sets mean and deviation so that latents of `pictures` have zero mean and unit variance."""
        raw = self.raw(pictures)
        self.mean.copy_(raw.mean((0, 2, 3), keepdim=True))
        self.deviation.copy_(raw.std((0, 2, 3), keepdim=True))
