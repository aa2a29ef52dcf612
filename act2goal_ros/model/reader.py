"""Where things are in the imagined frames, read from the world model's features and from the two pictures that it imagines between."""

from typing import cast

import torch
from torch import Tensor, nn

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.layers import Mlp

ABSENT, PRESENT = 0.15, 0.25  # of a token's certainty, and how much more is full: between four tokens each is half certain
LEAST = 1e-3  # of the certainty that a picture shows a thing
WIDTH = 64


class PlanReader(nn.Module):
    """A thing that rests is where the live picture or the goal's shows it, which the live encoder tells to a pixel; imagined frames
    tell which of the two, and where it is while it moves.

    From the features of each token a linear map gives, for each of K kinds of things, a logit of being here, how far away it is, and
    a hint which picture to believe.
    """

    middles: Tensor
    kinds_apart: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kinds = config.keypoints
        self.map = nn.Linear(config.world_width, 4 * config.keypoints)
        self.believe = Mlp(13 + config.keypoints, WIDTH, 3)
        nn.init.zeros_(cast(nn.Linear, self.believe[-1]).weight)
        columns = config.latent_size // config.patch
        rows = config.tokens // columns
        self.size = (float(columns), float(rows))
        self.live_size = tuple(float(side // 8) for side in reversed(config.picture_shape))  # places of the live encoder
        across, down = torch.arange(columns) + 0.5, torch.arange(rows) + 0.5
        middles = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).reshape(-1, 1, 2)
        self.register_buffer("middles", middles, persistent=False)
        self.register_buffer("kinds_apart", torch.eye(config.keypoints), persistent=False)

    def forward(self, features: Tensor, known: Tensor) -> Tensor:
        """Features (B, F, T, W) of the last block; known (B, 2, 3 K), of the live picture and the goal's: u of each kind, v of each, as
        the live encoder's key points, and 1 where it is there. Returns the same of each frame, (B, F, 3 K)."""
        logits, far, hint = self.map(features).split([self.kinds, 2 * self.kinds, self.kinds], -1)
        away = far.unflatten(-1, (2, self.kinds)).transpose(-1, -2)
        weights = logits.softmax(-2)
        read = self._live((weights.unsqueeze(-1) * (self.middles + away)).sum(-3))  # (B, F, K, 2)
        there = ((logits.amax(-2).sigmoid() - ABSENT) / PRESENT).clamp(0.0, 1.0)
        at, sure = self._known(known, read.shape[1])
        sources = torch.cat([read.unsqueeze(-2), at], -2)  # (B, F, K, 3, 2)
        trust = torch.cat([torch.ones_like(there).unsqueeze(-1), sure], -1)
        away = 4 * (read.unsqueeze(-2) - at) * sure.unsqueeze(-1)
        apart = 4 * (at[..., 0, :] - at[..., 1, :]) * sure.prod(-1, keepdim=True)
        told = [away.flatten(-2), away.norm(dim=-1), apart, apart.norm(dim=-1, keepdim=True), sure, there.unsqueeze(-1)]
        kind = self.kinds_apart.expand(*read.shape[:2], -1, -1)
        moved = (weights * hint).sum(-2).unsqueeze(-1)
        choice = self.believe(torch.cat([*told, moved, kind], -1)) + (trust + LEAST).log()
        points = (choice.softmax(-1).unsqueeze(-1) * sources).sum(-2)
        return torch.cat([points.transpose(-1, -2).flatten(-2), there], -1)

    def _live(self, places: Tensor) -> Tensor:
        """From tokens to the live encoder's units."""
        scale = places.new_tensor([live / size for live, size in zip(self.live_size, self.size, strict=True)])
        ends = places.new_tensor([live - 1 for live in self.live_size])
        return 2 * (places * scale - 0.5) / ends - 1

    def _known(self, known: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """(B, 2, 3 K) → where live picture and goal show each thing (B, F, K, 2, 2), and how sure that is (B, F, K, 2)."""
        u, v, sure = known.chunk(3, -1)
        sure = sure.clamp(0.0, 1.0)
        at = torch.stack([u, v], -1).transpose(1, 2).unsqueeze(1)
        return at.expand(-1, frames, -1, -1, -1), sure.transpose(1, 2).unsqueeze(1).expand(-1, frames, -1, -1)
