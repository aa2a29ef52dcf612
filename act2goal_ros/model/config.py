"""Typed configuration of the models. No torch here: serving reads it too."""

from dataclasses import asdict, dataclass, field
from typing import Any

from act2goal_ros.model.msth import SPACINGS

# Layers of each block of the action expert that an adapter may change; plan keys stay as they are, so a swap recomputes nothing.
LORA_LAYERS = ("qkv", "out", "query", "cross_out", "mlp.0", "mlp.2")

ARCHITECTURES = ("compact", "ltx")


class ConfigError(ValueError):
    """A configuration that cannot be; the message names the field, its value and the bound."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and time grid of autoencoder, world model and action expert. Steps are of `step` seconds.

    Several views of one moment are one tall picture or latent, (C, views · height, width), the first view on top.
    """

    architecture: str = "compact"  # compact: model/world_model.py; ltx: LTX-Video's (model/ltx.py)
    # time grid
    step: float = 0.05
    chunk_steps: int = 16  # P, proximal actions
    vision_stride: int = 8  # r
    dense_frames: int = 3  # frames at k * r: P / r of them and what the plan's age needs
    distal_frames: int = 3  # M
    spacing: str = "paper"
    # pictures
    views: int = 1  # cameras
    temporal_compression: int = 1  # frames in a latent, after the first of each clip: the dense frames are one, the distal ones too
    camera_size: int = 128
    image_size: int = 64  # of the autoencoder
    latent_channels: int = 8
    latent_size: int = 8
    autoencoder_width: int = 32
    # world model
    blocks: int = 4
    world_width: int = 192
    world_heads: int = 6
    patch: int = 2
    # action expert
    expert_width: int = 128
    expert_heads: int = 4
    spotter_layers: int = 2
    live_width: int = 24
    keypoints: int = 10  # kinds of things that the live encoder is taught to find, where there are labels
    flow_steps: int = 1
    located: bool = False  # of a served model: latents have one plane more, and plans' features a layer, of where things are
    prefix_steps: int = 4  # at most so many actions are given in training
    lora_rank: int = 8  # of the adapters that the exported policy takes
    joints: int = 6
    joint_names: tuple[str, ...] = field(
        default=(
            "shoulder_pan_joint",
            "shoulder_lift_joint",
            "elbow_joint",
            "wrist_1_joint",
            "wrist_2_joint",
            "wrist_3_joint",
        )
    )

    def __post_init__(self) -> None:
        if self.chunk_steps % self.vision_stride:
            raise ConfigError(f"chunk_steps {self.chunk_steps} is not a multiple of vision_stride {self.vision_stride}")
        if self.dense_frames * self.vision_stride < self.chunk_steps:
            raise ConfigError(f"dense_frames {self.dense_frames} do not cover chunk_steps {self.chunk_steps}")
        if self.spacing not in SPACINGS:
            raise ConfigError(f"spacing '{self.spacing}' is not one of {', '.join(SPACINGS)}")
        for name in ("dense_frames", "distal_frames"):
            if (getattr(self, name) - 1) % self.temporal_compression:
                raise ConfigError(f"{name} {getattr(self, name)} is not 1 more than a multiple of "
                                  f"temporal_compression {self.temporal_compression}")  # fmt: skip
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(f"architecture '{self.architecture}' is not one of {', '.join(ARCHITECTURES)}")
        if self.views < 1:
            raise ConfigError(f"views is {self.views}, at least 1 is needed")
        if 3 * self.keypoints > (room := self.tokens * self.expert_width):
            raise ConfigError(f"keypoints {self.keypoints} are more than a plan's frame has room for, {room // 3}")
        if len(self.joint_names) != self.joints:
            raise ConfigError(f"{len(self.joint_names)} joint_names for {self.joints} joints")

    @property
    def frames(self) -> int:
        """Imagined frames of a plan."""
        return self.dense_frames + self.distal_frames

    @property
    def latent_frames(self) -> tuple[tuple[int, int], ...]:
        """The first and the last of the plan's frames that each latent frame stands for."""
        step, clips = self.temporal_compression, ((0, self.dense_frames), (self.dense_frames, self.frames))
        return tuple(span for first, end in clips
                     for span in ((first, first), *((at, at + step - 1) for at in range(first + 1, end, step))))  # fmt: skip

    @property
    def dense_latents(self) -> int:
        """Latent frames of the dense frames; the others are of the distal ones."""
        return 1 + (self.dense_frames - 1) // self.temporal_compression

    @property
    def picture_shape(self) -> tuple[int, int]:
        """(height, width) of what the cameras see at one moment."""
        return self.views * self.camera_size, self.camera_size

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, height, width) of one latent frame."""
        return self.latent_channels, self.views * self.latent_size, self.latent_size

    @property
    def encoded_size(self) -> int:
        """Height and width of the pictures that a served model encodes."""
        return self.camera_size if self.located else self.image_size

    @property
    def served_latent(self) -> tuple[int, int, int]:
        """(C, height, width) of a served model's latents."""
        channels, height, width = self.latent_shape
        return channels + self.located, height, width

    @property
    def served_features(self) -> tuple[int, int, int, int]:
        """(L, F, T, W) of a served model's plans."""
        return self.blocks + self.located, self.frames, self.tokens, self.world_width

    @property
    def tokens(self) -> int:
        """Tokens of one latent frame."""
        return self.views * (self.latent_size // self.patch) ** 2

    @property
    def action_size(self) -> int:
        return self.joints + 1

    @property
    def dense_steps(self) -> int:
        """Steps from the plan's start to its last dense frame."""
        return self.dense_frames * self.vision_stride

    @property
    def lora_layers(self) -> dict[str, tuple[int, int]]:
        """(in, out) of the action expert's layers that an adapter may change, by name."""
        width = self.expert_width
        wider = {"qkv": (width, 3 * width), "mlp.0": (width, 3 * width), "mlp.2": (3 * width, width)}
        return {f"blocks.{i}.{name}": wider.get(name, (width, width)) for i in range(self.blocks) for name in LORA_LAYERS}

    @property
    def most_given(self) -> int:
        """Actions that may be given at run time. Beyond those of the training still better than to contradict what is committed."""
        return min(2 * self.prefix_steps, self.chunk_steps)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ConfigError(f"unknown configuration fields {sorted(unknown)}")
        return cls(**{**values, "joint_names": tuple(values["joint_names"])} if "joint_names" in values else values)


PRESETS = {
    "tiny": ModelConfig(latent_channels=16),
    "base": ModelConfig(
        camera_size=224,
        image_size=224,
        latent_channels=16,
        latent_size=28,
        autoencoder_width=96,
        blocks=16,
        world_width=1024,
        world_heads=16,
        expert_width=384,
        expert_heads=6,
        live_width=48,
    ),
    # Act2Goal's numbers on Genie Envisioner's layout (AgibotTech/Genie-Envisioner, configs/ltx_model/policy_model.yaml)
    "paper": ModelConfig(
        architecture="ltx",
        chunk_steps=54,
        vision_stride=6,
        dense_frames=9,
        distal_frames=9,
        views=3,
        temporal_compression=8,
        camera_size=256,
        image_size=256,
        latent_channels=128,
        latent_size=8,
        patch=1,
        blocks=28,
        world_width=2048,
        world_heads=32,
        expert_width=512,
        expert_heads=16,
        live_width=64,
    ),
}
