"""Goal-conditioned world model: a latent video transformer trained by flow matching."""

import torch
from torch import Tensor, nn

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.layers import Mlp, Modulation, TimeEmbedding, attention, fourier, join_heads, split_heads
from act2goal_ros.model.live import of_what_is_there

FINELY, LARGEST = 20.0, 4.0  # of distances in the picture, −1 .. 1: a third is a pixel of 128, and what counts as far


class WorldBlock(nn.Module):
    """Self-attention over all tokens of all frames, then an MLP, modulated by the noise level."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = Mlp(width, 3 * width, width)
        self.modulation = Modulation(width, 6)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        y = self.norm1(x) * (1 + scale1) + shift1
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(y).chunk(3, -1))
        x = x + (1 + gate1) * self.out(join_heads(attention(query, key, value)))
        y = self.norm2(x) * (1 + scale2) + shift2
        return x + (1 + gate2) * self.mlp(y)


class WorldModel(nn.Module):
    """v_θ(z⁽ⁿ⁾, z_t, z_g): velocity of the imagined latents, and the hidden states the action expert reads.

    Latents (B, C, H, W), of several views one above the other; imagined ones (B, F, C, H, W); offsets (B, F) in steps; noise
    level σ (B,) from 1 (pure noise) to 0.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.world_width
        patch_values = config.latent_channels * config.patch**2
        self.embed = nn.Linear(patch_values, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, 1, config.tokens // config.views, width))
        self.role = nn.Parameter(0.02 * torch.randn(3, width))  # current, goal, imagined
        self.view = nn.Parameter(0.02 * torch.randn(config.views, 1, width)) if config.views > 1 else None
        self.time = TimeEmbedding(width, extra=1)
        self.level = Mlp(32, width, width)
        self.blocks = nn.ModuleList(WorldBlock(width, config.world_heads) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, patch_values)

    def forward(self, noisy: Tensor, current: Tensor, goal: Tensor, offsets: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (B, F, C, H, W) and features (B, L, F, T, W) of the imagined frames' tokens, block by block."""
        frames = torch.cat([current.unsqueeze(1), goal.unsqueeze(1), noisy], 1)
        x = self.embed(self._patches(frames)) + (self.position if self.view is None else self._places(self.view))
        time = self.time(offsets, offsets / offsets[:, -1:])
        imagined = self.role[2] + time
        known = self.role[:2].unsqueeze(0).expand(len(noisy), 2, -1)
        x = (x + torch.cat([known, imagined], 1).unsqueeze(2)).flatten(1, 2)
        condition = self.level(fourier(level, longest=2.0))
        features = []
        for block in self.blocks:
            x = block(x, condition)
            features.append(x[:, 2 * self.config.tokens :])
        stacked = torch.stack(features, 1).unflatten(2, (noisy.shape[1], self.config.tokens))
        velocity = self.head(self.norm(features[-1])).unflatten(1, (noisy.shape[1], self.config.tokens))
        return self._pictures(velocity), stacked

    def _places(self, view: Tensor) -> Tensor:
        """(1, 1, T, W): where in its view a token is, and which view (V, 1, W) that is."""
        return (self.position + view).flatten(1, 2).unsqueeze(1)

    def _patches(self, latents: Tensor) -> Tensor:
        """(B, F, C, H, W) → (B, F, T, C · p · p)."""
        b, f, c, h, w = latents.shape
        p = self.config.patch
        x = latents.reshape(b, f, c, h // p, p, w // p, p).permute(0, 1, 3, 5, 2, 4, 6)
        return x.reshape(b, f, (h // p) * (w // p), c * p * p)

    def _pictures(self, patches: Tensor) -> Tensor:
        """(B, F, T, C · p · p) → (B, F, C, H, W)."""
        b, f, _, _ = patches.shape
        p, (c, height, width) = self.config.patch, self.config.latent_shape
        x = patches.reshape(b, f, height // p, width // p, c, p, p).permute(0, 1, 4, 2, 5, 3, 6)
        return x.reshape(b, f, c, height, width)


class TemporalDistance(nn.Module):
    """log(1 + steps) from the current latent to the goal's, and from where things are to where they are to be: latents alone take a
    shadow that lies elsewhere for something left to do."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c = config.latent_channels
        self.body = nn.Sequential(
            nn.Conv2d(3 * c, 64, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(64 * config.views * (config.latent_size // 2) ** 2, 128),
            nn.SiLU(),
            nn.Linear(128, 1),
        )
        self.placed = nn.Sequential(nn.Linear(9 * config.keypoints, 128), nn.SiLU(), nn.Linear(128, 128))
        for parameter in self.placed[2].parameters():  # weights of before are as good as before
            nn.init.zeros_(parameter)

    def forward(self, current: Tensor, goal: Tensor, places: Tensor, goal_places: Tensor) -> Tensor:
        """Latents (B, C, H, W) twice, and where things are in both pictures, (B, 3 K) as of LiveEncoder.located → (B,)."""
        seen = self.body[:-2](torch.cat([current, goal, current - goal], 1))
        here, there = (of_what_is_there(part) for part in (places, goal_places))
        apart = (FINELY * (here - there)).clamp(-LARGEST, LARGEST)
        return self.body[-2:](seen + self.placed(torch.cat([here, there, apart], 1))).squeeze(-1)
