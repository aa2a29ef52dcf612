"""Which object is to be handled now, where it is, and where it is to be."""

from typing import cast

import torch
from torch import Tensor, nn

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.layers import Mlp, attention, join_heads, split_heads

POINTERS = 4  # places in the live picture that each question looks at
POINTER_WIDTH = 32


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
    """Two questions, of the object and of its target, put to plan and present, then to the live picture's places."""

    def __init__(self, config: ModelConfig, features: int, grid: Tensor) -> None:
        super().__init__()
        width, places = config.expert_width, len(grid)
        self.questions = nn.Parameter(0.5 * torch.randn(1, 2, width))
        self.layers = nn.ModuleList(SpotterLayer(config) for _ in range(config.spotter_layers))
        self.pointer_query = nn.Linear(width, POINTERS * POINTER_WIDTH)
        self.pointer_key = nn.Linear(features, POINTERS * POINTER_WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(1, places, POINTERS * POINTER_WIDTH))
        self.answer = Mlp(width + POINTERS * (2 + features), 2 * width, width)
        self.position = nn.Linear(width, 3)
        nn.init.zeros_(self.position.weight)
        nn.init.zeros_(self.position.bias)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, keys: Tensor, values: Tensor, mask: Tensor, known: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The plan's keys and values (B, S, F T, W); mask (B, 1, 1, F T + N); known (B, N, W); picture (B, places, features).

        Returns answers (B, 2, W) and corrections of where object and target are, (B, 2, 3) in units of OBJECT_SCALE.
        """
        x = self.questions.expand(len(known), -1, -1)
        for i, layer in enumerate(self.layers):
            x = layer(x, keys[:, i], values[:, i], mask, known)
        places = split_heads(self.pointer_key(picture) + self.place, POINTERS)
        there = torch.cat([cast(Tensor, self.grid).expand(len(picture), -1, -1), picture], -1).unsqueeze(1)
        looked = join_heads(attention(split_heads(self.pointer_query(x), POINTERS), places, there))
        answers = x + self.answer(torch.cat([x, looked], -1))
        return answers, self.position(answers)
