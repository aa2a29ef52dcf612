"""What the action expert sees of the live frame."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.layers import ResidualConv, start_small

POINTS = 32  # key points of the live frame
LARGEST_SHIFT = 0.3  # of the picture's half width: 3° and 2 cm of a camera about a metre away make half of it
UNSURE_SHIFT = 0.04


class LiveTokens(NamedTuple):
    """What the expert sees of the live frame: tokens (B, N, W); key points (B, 2 · POINTS) in −1 .. 1, of which the first K may be
    taught; what is there, (B, K, C); the logits of where each of the K is, the last of it being nowhere, (B, K, places + 1); and how sure
    it is that each is somewhere, (B, K) 0 .. 1."""

    tokens: Tensor
    points: Tensor
    things: Tensor
    maps: Tensor
    sure: Tensor

    @property
    def taught(self) -> Tensor:
        """(B, K, 2): the key points that may be taught."""
        return self.points.unflatten(1, (-1, 2))[:, : self.sure.shape[1]]

    def located(self) -> Tensor:
        """(B, 3 K), as of LiveEncoder.located."""
        return torch.cat([self.taught.transpose(1, 2).flatten(1), self.sure], -1)


class LiveEncoder(nn.Module):
    """Camera picture (B, 3, 128, 128) in 0 .. 1 → tokens of a 4×4 grid and spatial-softmax key points (Finn et al. 2016)."""

    grid: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        w = config.live_width
        self.stem = nn.Sequential(nn.Conv2d(3, w, 7, 4, 3), nn.SiLU(), nn.Conv2d(w, 2 * w, 3, 2, 1))
        self.middle = nn.Sequential(ResidualConv(2 * w), nn.SiLU())
        self.keypoints = config.keypoints
        self.points = nn.Conv2d(2 * w, POINTS, 1)
        self.nowhere = nn.Parameter(torch.zeros(1, config.keypoints, 1))
        self.deep = nn.Sequential(nn.Conv2d(2 * w, 4 * w, 3, 2, 1), ResidualConv(4 * w), nn.SiLU())
        self.out = nn.Conv2d(4 * w, config.expert_width, 2, 2)
        start_small(self.out)
        down, across = (torch.linspace(-1, 1, size // 8) for size in config.picture_shape)
        self.register_buffer("grid", torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).reshape(-1, 2))
        self.position = nn.Parameter(0.02 * torch.randn(1, config.views * (config.camera_size // 32) ** 2, config.expert_width))

    def forward(self, pictures: Tensor) -> LiveTokens:
        middle = self.middle(self.stem(pictures - 0.5))
        maps = self.points(middle).flatten(2)
        weights = maps.softmax(-1)
        things = weights[:, : self.keypoints] @ middle.flatten(2).transpose(1, 2)
        tokens = self.out(self.deep(middle)).flatten(2).transpose(1, 2) + self.position
        taught, sure = self._presence(maps[:, : self.keypoints])
        return LiveTokens(tokens, (weights @ self.grid).flatten(1), things, taught, sure)

    def located(self, pictures: Tensor) -> Tensor:
        """Pictures (B, 3, 128, 128) → (B, 3 K): u of each kind of thing, v of each in −1 .. 1, and 1 where it is there."""
        maps = self.points(self.middle(self.stem(pictures - 0.5)))[:, : self.keypoints].flatten(2)
        return torch.cat([(maps.softmax(-1) @ self.grid).transpose(1, 2).flatten(1), self._presence(maps)[1]], -1)

    def _presence(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, K, places) → the same with that of being nowhere, and the share of the others, (B, K)."""
        maps = torch.cat([maps, self.nowhere.expand(len(maps), -1, -1)], -1)
        return maps, 1.0 - maps.softmax(-1)[..., -1]


def of_what_is_there(places: Tensor) -> Tensor:
    """(B, 3 K), as of LiveEncoder.located, with zeros for what is not in the picture."""
    u, v, sure = places.chunk(3, -1)
    there = (sure > 0.5).to(sure.dtype)
    return torch.cat([u * there, v * there, sure * there], -1)


def believed_shift(shift: Tensor) -> Tensor:
    """Of a shift (B, 2) that was seen: a small one is the key point's own error."""
    shift = shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    size = shift.square().sum(-1, keepdim=True)
    return size / (size + UNSURE_SHIFT**2) * shift
