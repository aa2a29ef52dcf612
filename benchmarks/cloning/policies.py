"""Policies that see the goal's picture itself, without a plan: from frame, goal and joints to the commands of the next steps.

gcbc: as OGBench's GCBC on pictures: frame and goal as six channels, its small IMPALA encoder, three layers of 512; here for a chunk of
actions, as of LeRobot's, relative to the joints. act: LeRobot's ACT, the goal's picture being a second camera; needs `lerobot`.
"""

from typing import Any, cast

import torch
from samples import Samples
from torch import Tensor, nn
from torch.nn import functional

from act2goal_ros.model.config import ModelConfig

PICTURES = ("observation.images.live", "observation.images.goal")
JOINTS_RANGE = 0.1  # rad, about what a chunk moves
WIDTHS, HIDDEN = (16, 32, 32), 512


class Policy(nn.Module):
    """Knows the data's statistics: mean and deviation of states (S,) and of actions (A,)."""

    state_mean: Tensor
    state_deviation: Tensor
    action_mean: Tensor
    action_deviation: Tensor

    def __init__(self, config: ModelConfig, statistics: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        super().__init__()
        self.config = config
        for name, value in zip(("state_mean", "state_deviation", "action_mean", "action_deviation"), statistics, strict=True):
            self.register_buffer(name, value)

    def normal(self, state: Tensor) -> Tensor:
        """States of mean 0 and deviation 1."""
        return (state - self.state_mean) / self.state_deviation

    def losses(self, samples: Samples) -> dict[str, Tensor]:
        """`action`, a scalar."""
        raise NotImplementedError

    def forward(self, live: Tensor, goal: Tensor, state: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) 0 .. 1 and states (B, S) → actions (B, R, A), absolute."""
        raise NotImplementedError


class Residual(nn.Module):
    """A convolution, half the size, and a residual block."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.begin = nn.Conv2d(inputs, width, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, width, H / 2, W / 2)."""
        y = functional.max_pool2d(self.begin(x), 3, 2, 1)
        return cast(Tensor, y + self.block(y))


class Gcbc(Policy):
    """Goal-conditioned behaviour cloning."""

    def __init__(self, config: ModelConfig, statistics: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        super().__init__(config, statistics)
        self.encoder = nn.Sequential(*(Residual(i, o) for i, o in zip((6, *WIDTHS), WIDTHS, strict=False)), nn.ReLU(), nn.Flatten())
        height, width = config.picture_shape
        encoded = WIDTHS[-1] * (height // 8) * (width // 8)
        self.read = nn.Sequential(nn.Linear(encoded, HIDDEN), nn.LayerNorm(HIDDEN), nn.GELU())
        layers = [HIDDEN + len(statistics[0]), HIDDEN, HIDDEN, HIDDEN]
        hidden = [part for i, o in zip(layers, layers[1:], strict=False) for part in (nn.Linear(i, o), nn.LayerNorm(o), nn.GELU())]
        self.act = nn.Sequential(*hidden, nn.Linear(HIDDEN, config.chunk_steps * config.action_size))

    def forward(self, live: Tensor, goal: Tensor, state: Tensor) -> Tensor:
        seen = self.read(self.encoder(torch.cat([live, goal], 1) - 0.5))
        found = self.act(torch.cat([seen, self.normal(state)], 1)).unflatten(1, (-1, self.config.action_size))
        joints = state[:, None, : self.config.joints] + JOINTS_RANGE * found[..., :-1]
        return torch.cat([joints, 0.5 + found[..., -1:]], -1)

    def losses(self, samples: Samples) -> dict[str, Tensor]:
        error = (self(samples.live, samples.goal, samples.state) - samples.actions).abs()
        error = torch.cat([error[..., :-1] / JOINTS_RANGE, error[..., -1:]], -1).mean(-1)
        return {"action": (error * samples.weights).sum() / samples.weights.sum().clamp(min=1)}


class Act(Policy):
    """LeRobot's ACT in half its width, which learns more in a short time; its backbone begins with random weights."""

    def __init__(self, config: ModelConfig, statistics: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        super().__init__(config, statistics)
        from lerobot.configs.types import FeatureType, PolicyFeature  # type: ignore[import-not-found, unused-ignore]
        from lerobot.policies.act.configuration_act import ACTConfig  # type: ignore[import-not-found, unused-ignore]
        from lerobot.policies.act.modeling_act import ACTPolicy  # type: ignore[import-not-found, unused-ignore]

        picture = PolicyFeature(type=FeatureType.VISUAL, shape=(3, *config.picture_shape))
        state = PolicyFeature(type=FeatureType.STATE, shape=(len(statistics[0]),))
        action = PolicyFeature(type=FeatureType.ACTION, shape=(config.action_size,))
        self.policy = ACTPolicy(ACTConfig(
            input_features=dict.fromkeys(PICTURES, picture) | {"observation.state": state}, output_features={"action": action},
            chunk_size=config.chunk_steps, n_action_steps=config.chunk_steps, pretrained_backbone_weights=None,
            dim_model=256, dim_feedforward=1024, device="cpu", push_to_hub=False,
        ))  # fmt: skip

    def forward(self, live: Tensor, goal: Tensor, state: Tensor) -> Tensor:
        batch = self._inputs(live, goal, state)
        found: Tensor = self.policy.model(batch | {"observation.images": [batch[name] for name in PICTURES]})[0]
        return found * self.action_deviation + self.action_mean

    def losses(self, samples: Samples) -> dict[str, Tensor]:
        actions = (samples.actions - self.action_mean) / self.action_deviation
        batch = self._inputs(samples.live, samples.goal, samples.state)
        loss, _ = self.policy.forward(batch | {"action": actions, "action_is_pad": samples.weights == 0})
        return {"action": loss}

    def _inputs(self, live: Tensor, goal: Tensor, state: Tensor) -> dict[str, Any]:
        return {PICTURES[0]: 2 * live - 1, PICTURES[1]: 2 * goal - 1, "observation.state": self.normal(state)}


POLICIES = {"gcbc": Gcbc, "act": Act}
