"""The networks of a model as they are served, in torch: what the ONNX files are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from act2goal_ros.learning.system import System
from act2goal_ros.model import lora
from act2goal_ros.model.config import ConfigError, ModelConfig
from act2goal_ros.model.live import of_what_is_there
from act2goal_ros.serving.adapter import lora_inputs


@dataclass(frozen=True)
class Network:
    """A network with the names of its inputs and outputs, and tensors it takes; `open`: extents that may be any, by tensor and axis."""

    module: nn.Module
    inputs: Sequence[str]
    outputs: Sequence[str]
    example: tuple[Tensor, ...]
    open: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


class _Part(nn.Module):
    """One network of the system, with the inputs and outputs it is served with."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    def plain(self, latents: Tensor) -> Tensor:
        """The autoencoder's part of latents (…, C + 1, H, W)."""
        return latents[..., :-1, :, :]

    def with_places(self, latents: Tensor, places: Tensor) -> Tensor:
        """Latents (…, C, H, W) and where things are (…, 3 K) → (…, C + 1, H, W)."""
        height, width = latents.shape[-2:]
        plane = functional.pad(places, (0, height * width - places.shape[-1])).unflatten(-1, (1, height, width))
        return torch.cat([latents, plane], -3)

    def places(self, latents: Tensor) -> Tensor:
        """(…, C + 1, H, W) → (…, 3 K)."""
        return latents[..., -1, :, :].flatten(-2)[..., : 3 * self.system.config.keypoints]


class _Encode(_Part):
    def forward(self, pictures: Tensor) -> Tensor:
        config = self.system.config
        small = functional.avg_pool2d(pictures, config.camera_size // config.image_size)
        return self.with_places(self.system.autoencoder.encode(small), of_what_is_there(self.system.expert.live.located(pictures)))


class _Decode(_Part):
    def forward(self, latents: Tensor) -> Tensor:
        return self.system.autoencoder.decode(self.plain(latents))


class _Distance(_Part):
    def forward(self, current: Tensor, goal: Tensor) -> Tensor:
        return self.system.distance(self.plain(current), self.plain(goal), self.places(current), self.places(goal))


class _ImagineLevel(_Part):
    def forward(self, noisy: Tensor, current: Tensor, goal: Tensor, offsets: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity of the last plane is the one that leads to where things are in the frames."""
        velocity, features = self.system.world(self.plain(noisy), self.plain(current), self.plain(goal), offsets, level)
        known = torch.stack([self.places(current), self.places(goal)], 1)
        features = self.system.expert.foresee(features, known)
        places = features[:, -1].flatten(2)[..., : known.shape[-1]]
        clean = self.with_places(self.plain(noisy), places)[..., -1:, :, :]
        return features, torch.cat([velocity, (clean - noisy[..., -1:, :, :]) / level.view(-1, 1, 1, 1, 1)], -3)


class _Imagine(_ImagineLevel):
    def forward(self, noise: Tensor, current: Tensor, goal: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        features, velocity = super().forward(noise, current, goal, offsets, torch.ones_like(offsets[:, 0]))
        return features, noise + velocity


class _PlanKeys(_Part):
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.system.expert.plan_keys(features)


class _Tick(nn.Module):
    """A live picture in, a chunk out; the flow starts from zero, so that the same input gives the same chunk."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.expert = lora.adapted(system.expert)

    def forward(
        self,
        pictures: Tensor,
        keys: Tensor,
        values: Tensor,
        frame_mask: Tensor,
        frame_times: Tensor,
        joints: Tensor,
        velocities: Tensor,
        gripper: Tensor,
        given: Tensor,
        given_mask: Tensor,
        row_times: Tensor,
        *matrices: Tensor,
        level: Tensor | None = None,
    ) -> Tensor:
        expert = self.expert
        lora.insert(expert, dict(zip(lora_inputs(expert.config), matrices, strict=True)))
        live = expert.observe(pictures)
        context = expert.context((keys, values), frame_mask, frame_times, live, joints, velocities, gripper)
        known = expert.normalise(given, joints)
        zero = torch.zeros(known.shape, device=known.device)  # constants, so that what follows from them alone is one too
        level = torch.ones(1, device=known.device) if level is None else level
        return expert.denormalise(expert.sample(context, zero, known, given_mask, row_times, level), joints)


class _TickLevel(_Tick):
    """The same with the noise level of the plan's features as its last input."""

    def forward(self, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(*inputs[:-1], level=inputs[-1])


def networks(system: System, levels: bool = False) -> dict[str, Network]:
    """By name, with random examples. ConfigError for what no node serves.

    With `levels` also world model and tick with the noise level as an input (learning/levels.py), which ablations need.
    """
    c = served_config(system)
    latent = torch.randn(1, *c.served_latent)
    frames = torch.randn(1, c.frames, *latent.shape[1:])
    offsets = torch.linspace(8, 80, c.frames).unsqueeze(0)
    features = torch.randn(1, *c.served_features)
    tick, picture = _tick_example(system, features, offsets), torch.rand(1, 3, c.encoded_size, c.encoded_size)
    found = {
        "encode": Network(_Encode(system), ["pictures"], ["latents"], (picture,)),
        "decode": Network(_Decode(system), ["latents"], ["pictures"], (latent.expand(2, -1, -1, -1),),
                          {"latents": {0: "frames"}, "pictures": {0: "frames"}}),
        "distance": Network(_Distance(system), ["current", "goal"], ["log_steps"], (latent, latent.flip(1))),
        "imagine": Network(_Imagine(system), ["noise", "current", "goal", "offsets"], ["features", "latents"],
                           (frames, latent, latent.flip(1), offsets)),
        "plan_keys": Network(_PlanKeys(system), ["features"], ["keys", "values"], (features,)),
        "tick": Network(_Tick(system), list(tick), ["actions"], tuple(tick.values())),
    }  # fmt: skip
    if levels:
        level = torch.full((1,), 0.5)
        found["imagine_level"] = Network(_ImagineLevel(system), ["noisy", "current", "goal", "offsets", "level"],
                                         ["features", "velocity"], (frames, latent, latent.flip(1), offsets, level))  # fmt: skip
        found["tick_level"] = Network(_TickLevel(system), [*tick, "level"], ["actions"], (*tick.values(), level))
    return found


def _tick_example(system: System, features: Tensor, offsets: Tensor) -> dict[str, Tensor]:
    c = system.config
    rows = c.chunk_steps + c.distal_frames
    with torch.no_grad():
        keys, values = system.expert.plan_keys(features)
    return {
        "pictures": torch.rand(1, 3, c.camera_size, c.camera_size),
        "keys": keys,
        "values": values,
        "frame_mask": torch.ones(1, c.frames),
        "frame_times": offsets,
        "joints": torch.randn(1, c.joints),
        "velocities": torch.randn(1, c.joints),
        "gripper": torch.rand(1, 1),
        "given": torch.randn(1, rows, c.action_size),
        "given_mask": (torch.arange(rows) < 2).float().unsqueeze(0),
        "row_times": torch.arange(1.0, rows + 1).unsqueeze(0),
    } | {name: 0.1 * torch.randn(shape) for name, shape in lora_inputs(c).items()}


def served_config(system: System) -> ModelConfig:
    """ConfigError for what no node serves."""
    c = replace(system.config, located=True)
    if c.architecture != "compact" or c.views > 1:
        raise ConfigError(f"served are networks of architecture 'compact' and of one view, not '{c.architecture}' of {c.views}")
    if 3 * c.keypoints > c.latent_size**2:
        raise ConfigError(f"keypoints {c.keypoints} are more than a latent has room for, {c.latent_size**2 // 3}")
    if c.camera_size % c.image_size:
        raise ConfigError(f"camera_size {c.camera_size} is not a multiple of image_size {c.image_size}")
    return c
