"""Which object is to be handled now, where it is, and where it is to be."""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.layers import Mlp, attention, join_heads, split_heads

OBJECT_SCALE = 0.1  # m
WAY_SCALE = 4.0  # of what is told of places in the picture, −1 .. 1
SHARPNESS = 20.0  # of the choice of an object
TABLE = 0.02  # m above the base's foot, of a thing that nothing is known of: a cube's middle


class Spotted(NamedTuple):
    """answers (B, 2, W) of object and target; where the camera of the training shows them, points (B, 2, 2) in −1 .. 1, and how high
    they are, heights (B, 2) m; what to add to the places that follow from this, offsets (B, 2, 3) in units of OBJECT_SCALE; and
    choice (B, K), logits of which kind of thing the object is."""

    answers: Tensor
    points: Tensor
    heights: Tensor
    offsets: Tensor
    choice: Tensor


class SpotterLayer(nn.Module):
    """Questions attend to the plan's tokens and to what is known of the present."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.expert_width
        self.heads = config.expert_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.known_key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.mlp = Mlp(width, 2 * width, width)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, known: Tensor) -> Tensor:
        """x (B, 2, W); the plan's keys and values (B, F T, W); mask (B, 1, 1, F T + N) adds to the logits; known (B, N, W)."""
        pairs = zip((keys, values), self.known_key_value(known).chunk(2, -1), strict=True)
        key, value = (split_heads(torch.cat(pair, 1), self.heads) for pair in pairs)
        x = x + self.out(join_heads(attention(split_heads(self.query(self.norm1(x)), self.heads), key, value, mask)))
        return x + self.mlp(self.norm2(x))


class Spotter(nn.Module):
    """Two questions, of the object and of its target, put to plan and present."""

    thing_offsets: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.questions = nn.Parameter(0.5 * torch.randn(1, 2, config.expert_width))
        self.layers = nn.ModuleList(SpotterLayer(config) for _ in range(config.spotter_layers))
        self.choice = nn.Linear(config.expert_width, config.keypoints)
        self.register_buffer("thing_offsets", torch.tensor([[0.0, 0.0, TABLE]]).repeat(config.keypoints, 1))  # learning/camera.py
        self.settle = Mlp(2 * config.expert_width + 4, 2 * config.expert_width, config.expert_width)
        nn.init.zeros_(cast(nn.Linear, self.settle[-1]).weight)
        self.offset = nn.Linear(config.expert_width, 4)  # a place's and a height's
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(
        self, keys: Tensor, values: Tensor, mask: Tensor, known: Tensor, things: Tensor, ways: Tensor, chosen: Tensor | None
    ) -> Spotted:
        """The plan's keys and values (B, S, F T, W); mask (B, 1, 1, F T + N); known (B, N, W), of which things (B, K, W) are a part;
        ways (B, K, 4): where in the picture each is now, and at the plan's end; chosen (B, K): 1 for the thing that is handled, where
        a teacher says it. Else it is the likeliest, never a mean of several: object and target are where its course begins and ends.
        """
        x = self.questions.expand(len(known), -1, -1)
        for i, layer in enumerate(self.layers):
            x = layer(x, keys[:, i], values[:, i], mask, known)
        logits = self.choice(x[:, 0])
        weights = (SHARPNESS * logits).softmax(-1)
        if chosen is not None:
            weights = torch.where(chosen.sum(-1, keepdim=True) > 0, chosen, weights)
        handled = weights.unsqueeze(1) @ torch.cat([things, ways], -1)
        x = x + self.settle(torch.cat([x, handled.expand(-1, 2, -1)], -1))
        offsets, higher = self.offset(x).split([3, 1], -1)
        beside = (weights @ self.thing_offsets).unsqueeze(1)
        heights = beside[..., 2] + OBJECT_SCALE * higher.squeeze(-1)
        offsets = offsets + functional.pad(beside[..., :2], (0, 1)) / OBJECT_SCALE
        points = handled[:, 0, -ways.shape[-1] :].unflatten(-1, (2, 2)) / WAY_SCALE
        return Spotted(x, points, heights, offsets, logits)
