"""Layers shared by world model and action expert."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALL_START = 0.1  # of weights of what the part `acting` has no input for: so that its coming changes little
LONG = 512  # keys, from which on the matrix of all queries and keys is not made


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """(…, Q, D) from (…, Q, D), (…, K, D), (…, K, D); `mask` (…, 1, K) adds to the logits.

    Written out where short: the fused kernel is slow backwards on a CPU, and this exports to plain ONNX.
    """
    if int(key.shape[-2]) > LONG:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        logits = logits + mask
    return logits.softmax(-1) @ value


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, W) → (B, heads, N, W / heads)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, heads, N, D) → (B, N, heads · D)."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def split_views(x: Tensor, views: int) -> Tensor:
    """(B, C, views · H, W) → (B · views, C, H, W); the first view is on top."""
    if views == 1:
        return x
    return x.unflatten(2, (views, -1)).transpose(1, 2).flatten(0, 1)


def join_views(x: Tensor, views: int) -> Tensor:
    """(B · views, C, H, W) → (B, C, views · H, W)."""
    if views == 1:
        return x
    return x.unflatten(0, (-1, views)).transpose(1, 2).flatten(2, 3)


def fourier(x: Tensor, count: int = 16, longest: float = 64.0) -> Tensor:
    """(…,) → (…, 2 · count): sines and cosines of periods from `longest` down to about 1/16."""
    frequencies = 2 * math.pi / longest * torch.exp(torch.linspace(0.0, math.log(longest * 16), count, device=x.device))
    angles = x.unsqueeze(-1) * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


class Mlp(nn.Sequential):
    """Two layers with a GELU between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, outputs))


class TimeEmbedding(nn.Module):
    """Embeds steps from now (log-compressed, signed) and any further scalar features."""

    def __init__(self, width: int, extra: int = 0) -> None:
        super().__init__()
        self.mlp = Mlp(32 + 1 + extra, width, width)

    def forward(self, steps: Tensor, *extra: Tensor) -> Tensor:
        """(…,) steps and scalars → (…, width)."""
        compressed = torch.sign(steps) * torch.log1p(steps.abs())
        features = [fourier(compressed, longest=16.0), steps.unsqueeze(-1) / 32, *(e.unsqueeze(-1) for e in extra)]
        return self.mlp(torch.cat(features, -1))


class Modulation(nn.Module):
    """Shift, scale and gate of a block from a condition, zero at first (adaptive layer norm)."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """(B, W) → `parts` tensors (B, 1, W)."""
        return self.linear(condition).unsqueeze(1).chunk(self.parts, -1)


class ResidualConv(nn.Module):
    """Two 3×3 convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(max(1, width // 16), width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def start_small(layer: nn.Module, inputs: slice | None = None) -> None:
    """Makes a layer's weights, or those of some of its inputs, small."""
    with torch.no_grad():
        cast(nn.Linear, layer).weight[:, inputs or slice(None)] *= SMALL_START
