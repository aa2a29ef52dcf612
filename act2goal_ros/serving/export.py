"""From trained networks to a model folder: ONNX files checked against torch, what torch computes, and a manifest."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from act2goal_ros.learning.system import System
from act2goal_ros.model import lora
from act2goal_ros.model.config import ConfigError
from act2goal_ros.serving import reference
from act2goal_ros.serving.adapter import lora_inputs
from act2goal_ros.serving.bundle import FORMAT, MANIFEST, file_hash
from act2goal_ros.serving.runner import OnnxRunner

OPSET = 20  # the first with GELU as one operator
SEED = 0  # of the inputs every backend is checked with


class _Part(nn.Module):
    """One network of the system, with the inputs and outputs it is served with."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system


class _Encode(_Part):
    def forward(self, pictures: Tensor) -> Tensor:
        return self.system.autoencoder.encode(pictures)


class _Decode(_Part):
    def forward(self, latents: Tensor) -> Tensor:
        return self.system.autoencoder.decode(latents)


class _Distance(_Part):
    def forward(self, current: Tensor, goal: Tensor) -> Tensor:
        return self.system.distance(current, goal)


class _Imagine(_Part):
    def forward(self, noise: Tensor, current: Tensor, goal: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        velocity, features = self.system.world(noise, current, goal, offsets, torch.ones_like(offsets[:, 0]))
        return features, noise + velocity


class _ImagineLevel(_Part):
    def forward(self, noisy: Tensor, current: Tensor, goal: Tensor, offsets: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        velocity, features = self.system.world(noisy, current, goal, offsets, level)
        return features, velocity


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
        zero = torch.zeros(known.shape)  # constants, so that what follows from them alone is one too
        level = torch.ones(1) if level is None else level
        return expert.denormalise(expert.sample(context, zero, known, given_mask, row_times, level), joints)


class _TickLevel(_Tick):
    """The same with the noise level of the plan's features as its last input."""

    def forward(self, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(*inputs[:-1], level=inputs[-1])


def _networks(system: System, levels: bool = False) -> dict[str, tuple[nn.Module, Sequence[str], Sequence[str], tuple[Tensor, ...]]]:
    """Name → module, input names, output names, example inputs."""
    c = system.config
    latent = torch.randn(1, c.latent_channels, c.latent_size, c.latent_size)
    frames = torch.randn(1, c.frames, *latent.shape[1:])
    offsets = torch.linspace(8, 80, c.frames).unsqueeze(0)
    rows = c.chunk_steps + c.distal_frames
    features = torch.randn(1, c.blocks, c.frames, c.tokens, c.world_width)
    with torch.no_grad():
        keys, values = system.expert.plan_keys(features)
    tick = {
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
    }
    tick |= {name: 0.1 * torch.randn(shape) for name, shape in lora_inputs(c).items()}
    picture = torch.rand(1, 3, c.image_size, c.image_size)
    networks: dict[str, tuple[nn.Module, Sequence[str], Sequence[str], tuple[Tensor, ...]]] = {
        "encode": (_Encode(system), ["pictures"], ["latents"], (picture,)),
        "decode": (_Decode(system), ["latents"], ["pictures"], (latent.expand(2, -1, -1, -1),)),
        "distance": (_Distance(system), ["current", "goal"], ["log_steps"], (latent, latent.flip(1))),
        "imagine": (_Imagine(system), ["noise", "current", "goal", "offsets"], ["features", "latents"],
                    (frames, latent, latent.flip(1), offsets)),
        "plan_keys": (_PlanKeys(system), ["features"], ["keys", "values"], (features,)),
        "tick": (_Tick(system), list(tick), ["actions"], tuple(tick.values())),
    }
    if levels:
        level = torch.full((1,), 0.5)
        networks["imagine_level"] = (_ImagineLevel(system), ["noisy", "current", "goal", "offsets", "level"], ["features", "velocity"],
                                     (frames, latent, latent.flip(1), offsets, level))
        networks["tick_level"] = (_TickLevel(system), [*tick, "level"], ["actions"], (*tick.values(), level))
    return networks


def export(system: System, folder: Path, description: dict[str, Any], levels: bool = False) -> dict[str, float]:
    """Writes the ONNX files, their reference and the manifest; returns each network's difference from torch.

    With `levels` also world model and tick with the noise level as an input (learning/levels.py), which ablations need.
    The difference is a share of the outputs' range; BackendError when it is more than `reference.TOLERANCE`, ConfigError
    for what no node serves.
    """
    if system.config.architecture != "compact" or system.config.views > 1:
        raise ConfigError(f"served are networks of architecture 'compact' and of one view, not '{system.config.architecture}' "
                          f"of {system.config.views}")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    system.eval()
    samples = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for name, (module, inputs, outputs, example) in _networks(system, levels).items():
            axes = {"latents": {0: "frames"}, "pictures": {0: "frames"}} if name == "decode" else None
            torch.onnx.export(module.eval(), example, str(folder / f"{name}.onnx"), input_names=list(inputs),
                              output_names=list(outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False)  # fmt: skip
            samples[name] = _sample(module, inputs, outputs, example)
    reference.save(folder, samples)
    expected = reference.Reference(folder)
    differences = {name: expected.check(name, OnnxRunner(folder / f"{name}.onnx")) for name in samples}
    files = {path.name: file_hash(path) for path in sorted([*folder.glob("*.onnx"), folder / reference.FILE])}
    manifest = {"format": FORMAT, **description, "config": system.config.to_dict(), "export_difference": differences, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return differences


def _sample(
    module: nn.Module, inputs: Sequence[str], outputs: Sequence[str], example: tuple[Tensor, ...]
) -> tuple[reference.Arrays, reference.Arrays]:
    """Inputs and outputs by name."""
    with torch.no_grad():
        computed = module(*example)
    computed = computed if isinstance(computed, tuple) else (computed,)
    given, found = ({name: value.numpy() for name, value in zip(names, values, strict=True)}
                    for names, values in ((inputs, example), (outputs, computed)))  # fmt: skip
    return given, found
