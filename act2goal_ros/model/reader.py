"""Where things are in the imagined frames, read from the plan's features."""

import torch
from torch import Tensor, nn

from act2goal_ros.model.config import ModelConfig

ABSENT, PRESENT = 0.15, 0.25  # of a token's certainty, and how much more is full: between four tokens each is half certain


class PlanReader(nn.Module):
    """A linear map gives, for each token and each of K kinds of things, a logit of being here and how far away it is."""

    middles: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kinds = config.keypoints
        self.map = nn.Linear(config.world_width, 3 * config.keypoints)
        columns = config.latent_size // config.patch
        rows = config.tokens // columns
        self.size = (float(columns), float(rows))
        self.live_size = tuple(float(side // 8) for side in reversed(config.picture_shape))  # places of the live encoder
        across, down = torch.arange(columns) + 0.5, torch.arange(rows) + 0.5
        middles = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).reshape(-1, 1, 2)
        self.register_buffer("middles", middles, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F, T, W) → (B, F, 3 K): u of each kind, v of each, as the live encoder's key points, and 1 where it is there."""
        logits, far = self.map(features).split([self.kinds, 2 * self.kinds], -1)
        away = far.unflatten(-1, (2, self.kinds)).transpose(-1, -2)
        places = (logits.softmax(-2).unsqueeze(-1) * (self.middles + away)).sum(-3)  # (B, F, K, 2)
        scale = places.new_tensor([live / size for live, size in zip(self.live_size, self.size, strict=True)])
        ends = places.new_tensor([live - 1 for live in self.live_size])
        points = 2 * (places * scale - 0.5) / ends - 1
        return torch.cat([points.transpose(-1, -2).flatten(-2), ((logits.amax(-2).sigmoid() - ABSENT) / PRESENT).clamp(0.0, 1.0)], -1)
