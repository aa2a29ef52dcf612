"""The world model in LTX-Video's layout: diffusers' transformer with the goal picture in place of text, views as in Genie Envisioner."""

from typing import Any, cast

import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from act2goal_ros.model.config import ConfigError, ModelConfig

TIMESTEPS = 1000.0  # LTX-Video's noise levels are σ · 1000
JOINT_EVERY = 3  # blocks; in the first of so many, tokens see those of the other views too (Genie Envisioner)


class NoText(nn.Module):
    """In place of a block's cross-attention to text: a vector that is learnt.

    Of one text token alone cross-attention is just that: the softmax over one key is 1, so the token's value comes out,
    whatever the query. Zero: no text at all.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(width))

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        return self.value


def transformer_layout(config: ModelConfig) -> dict[str, int]:
    """What a published transformer's config.json must say to fit."""
    return {
        "in_channels": config.latent_channels,
        "out_channels": config.latent_channels,
        "patch_size": config.patch,
        "patch_size_t": 1,
        "num_layers": config.blocks,
        "num_attention_heads": config.world_heads,
        "attention_head_dim": config.world_width // config.world_heads,
    }


class LtxWorldModel(nn.Module):
    """As WorldModel: velocity of the imagined latents, and the hidden states the action expert reads.

    Current frame and goal are tokens of noise level 0, the imagined frames' are of level σ; a token's rotary coordinates are
    the time of its latent's first frame in seconds, as MSTH says, and its place in its view in pixels, as LTX-Video's
    pipelines give them. Blocks are computed again backwards: of each, only its input is kept.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.patch != 1:
            raise ConfigError(f"patch is {config.patch}, architecture 'ltx' has 1")
        self.config = config
        self.recompute = True
        self.transformer = LTXVideoTransformer3DModel(
            **transformer_layout(config), cross_attention_dim=config.world_width, caption_channels=8
        )
        width = config.world_width
        del self.transformer.caption_projection
        for block in self.transformer.transformer_blocks:
            block.attn2 = NoText(width)
        self.view_embed: nn.Parameter | None = None
        if config.views > 1:  # names as in Genie Envisioner's checkpoints; zero: weights without views are as they were
            self.view_embed = nn.Parameter(torch.zeros(config.views, width))
            self.view_ada = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
            nn.init.zeros_(cast(nn.Linear, self.view_ada[1]).weight)
            nn.init.zeros_(cast(nn.Linear, self.view_ada[1]).bias)

    def forward(self, noisy: Tensor, current: Tensor, goal: Tensor, offsets: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (B, F, C, H, W) and features (B, L, F, T, W) of the F imagined latent frames' tokens, block by block.

        noisy (B, F, C, H, W); current, goal (B, C, H, W); offsets (B, frames) steps of the plan's frames; σ (B,), 1 = pure noise.
        """
        frames = torch.cat([current.unsqueeze(1), goal.unsqueeze(1), noisy], 1)
        x = self.transformer.proj_in(self._tokens(frames))
        modulation, embedded = self._levels(level, frames.shape[1])
        rotary = self._rotary(offsets, x)
        features = []
        for index, block in enumerate(self.transformer.transformer_blocks):
            x = self._block(block, index % JOINT_EVERY == 0, x, modulation, rotary)
            features.append(self._imagined(x))
        shift, scale = (self.transformer.scale_shift_table + embedded.unsqueeze(-2)).unbind(-2)
        x = self.transformer.proj_out(self.transformer.norm_out(x) * (1 + scale) + shift)
        velocity = self._imagined(x).unflatten(2, (-1, self.config.latent_size)).permute(0, 1, 4, 2, 3)
        return -velocity, torch.stack(features, 1)  # LTX-Video's velocity leads to the noise

    def _tokens(self, frames: Tensor) -> Tensor:
        """(B, F, C, V · H, W) → (B, V, F · H · W, C)."""
        return frames.unflatten(3, (self.config.views, -1)).permute(0, 3, 1, 4, 5, 2).flatten(2, 4)

    def _imagined(self, x: Tensor) -> Tensor:
        """(B, V, (2 + F) · H · W, D) → (B, F, V · H · W, D)."""
        tokens = self.config.latent_size**2
        return x[:, :, 2 * tokens :].unflatten(2, (-1, tokens)).transpose(1, 2).flatten(2, 3)

    def _levels(self, level: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Modulation (B, V, N, 6 W) of all blocks, and (B, V, N, W) of what comes out, for each token's noise level and view."""
        levels = torch.stack([torch.zeros_like(level), level], 1)
        both = self.transformer.time_embed(TIMESTEPS * levels.flatten(), hidden_dtype=level.dtype)
        tokens = self.config.latent_size**2
        modulation, embedded = (
            torch.cat([known.expand(-1, 2 * tokens, -1), new.expand(-1, (frames - 2) * tokens, -1)], 1).unsqueeze(1)
            for known, new in (part.unflatten(0, (-1, 2)).split(1, 1) for part in both)
        )
        if self.view_embed is None:
            return modulation, embedded
        return modulation + self.view_ada(self.view_embed).unsqueeze(1), embedded + self.view_embed.unsqueeze(1)

    def _rotary(self, offsets: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (B, V, N, W)."""
        c = self.config
        starts = torch.stack([offsets[:, first] for first, _ in c.latent_frames], 1)
        seconds = c.step * torch.cat([torch.zeros_like(starts[:, :1]), offsets[:, -1:], starts], 1)
        pixels = c.image_size // c.latent_size * torch.arange(c.latent_size, device=offsets.device, dtype=offsets.dtype)
        shape = (*seconds.shape, c.latent_size, c.latent_size)
        places = seconds[:, :, None, None], pixels[:, None], pixels
        coordinates = torch.stack([place.expand(shape).flatten(1) for place in places], 1)
        cosines, sines = self.transformer.rope(x[:, 0], video_coords=coordinates)
        return cosines.unsqueeze(1).expand_as(x), sines.unsqueeze(1).expand_as(x)

    def _block(self, block: nn.Module, joint: bool, x: Tensor, modulation: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, V, N, W); every view's tokens see each other, if `joint` those of all views do."""
        dims = (1, 2) if joint else (0, 1)
        modulation = modulation.expand(-1, x.shape[1], -1, -1)
        inputs = (x.flatten(*dims), None, modulation.flatten(*dims), tuple(part.flatten(*dims) for part in rotary), None)
        if self.recompute and torch.is_grad_enabled():
            y = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            y = block(*inputs)
        return cast(Tensor, y).reshape(x.shape)
