"""How much memory a training needs, found without allocating any of it, and how much there is."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from act2goal_ros.learning.acting import Acting
from act2goal_ros.learning.batches import AGES, Batch
from act2goal_ros.learning.presets import build_system
from act2goal_ros.learning.system import System
from act2goal_ros.learning.train import TOLD_SHARE
from act2goal_ros.model.config import PRESETS, ModelConfig

GIB = 1 << 30
MARGIN = 1.15  # allocator, workspaces, and what lives for a moment only
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


class TooLittleMemoryError(RuntimeError):
    """A training that does not fit; the message names what it needs, for what, and what there is."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes. activations: of the plans at a time, or, if more, of the copy of the weights kept while their average is checked."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def total(self) -> int:
        return round(MARGIN * sum(getattr(self, field.name) for field in fields(self)))

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name) / GIB:.1f}" for field in fields(self))


def training_need(config: ModelConfig, plans: int, bf16: bool = False, told: bool = False) -> Need:
    """Of a training with AdamW and an average of the weights, all in float32, `plans` at a time; bf16: under autocast; told: with samples
    without pictures beside.

    The networks are built and run with tensors that have a shape and no memory.
    """
    with FakeTensorMode():
        system = build_system(config).train()
        trained = sum(p.nbytes for name, p in system.named_parameters() if not name.startswith("autoencoder."))
        everything = sum(x.nbytes for x in (*system.parameters(), *system.buffers()))
        average = sum(x.nbytes for x in system.state_dict().values())
        if told:
            system.told = Acting(system).losses
        one, two = (_saved(system, count, bf16) + _recomputed(config, count, bf16) for count in (1, 2))
    activations = max(one + (plans - 1) * (two - one), average)
    return Need(weights=everything, gradients=trained, optimizer=2 * trained, average=average, activations=activations)


def check_memory(
    config: ModelConfig, plans: int, device: torch.device, bf16: bool = False, processes: int = 1, told: bool = False
) -> None:
    """Raises TooLittleMemoryError if training `plans` at a time does not fit on the device, or the weights not into this machine, of all
    `processes` that share it: on a CPU everything, beside GPUs of their own the weights."""
    need, free = training_need(config, plans, bf16, told), available(device)
    share = processes if device.type == "cpu" else 1
    name = next((name for name, preset in PRESETS.items() if replace(preset, views=config.views) == config), "this configuration")
    if share * need.total > free:
        least = f"; 1 plan at a time needs {share * training_need(config, 1, bf16, told).total / GIB:.1f}" if plans > 1 else ""
        each = f", in each of {share} processes" if share > 1 else ""
        raise TooLittleMemoryError(
            f"to train {name}, {plans} plans at a time{each}, needs {share * need.total / GIB:.1f} GiB on {device} ({need}), "
            f"{free / GIB:.1f} are free{least}"
        )
    built, free = round(processes * MARGIN * need.weights), available(torch.device("cpu"))
    if built > free:
        raise TooLittleMemoryError(f"to build the networks of {name} needs {built / GIB:.1f} GiB of main memory, {free / GIB:.1f} are free")


def available(device: torch.device) -> int:
    """Bytes free on a GPU; or in this machine, within the limit of this process's group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, int(limit) - int(used))


def _saved(system: System, plans: int, bf16: bool) -> int:
    """Bytes that the losses keep for their gradients, each storage once, the weights left out; latents are made without gradients."""
    system.encoded = lambda batch: batch  # type: ignore[method-assign]
    own = {x.untyped_storage()._cdata for x in (*system.parameters(), *system.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other gets its address

    nothing: Callable[[None], Tensor] = lambda _: torch.empty(0)  # noqa: E731
    with saved_tensors_hooks(keep, nothing), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        batch = _batch(system.config, plans)
        losses = system.losses(batch if system.told is None else (batch, _batch(system.config, TOLD_SHARE * plans)))
        size = sum(storage.nbytes() for address, storage in kept.items() if address not in own)
    del losses
    return size


def _recomputed(config: ModelConfig, plans: int, bf16: bool) -> int:
    """Beside that, where blocks are computed again backwards: the inputs of all of them, and all that one keeps meanwhile."""
    if config.architecture != "ltx":
        return 0
    tokens = plans * (2 + len(config.latent_frames)) * config.tokens
    inputs = 4 * tokens * config.world_width * (config.blocks + 8)  # 8: modulation and rotary coordinates, the same for all
    system = build_system(replace(config, blocks=1)).train()
    once, world = _saved(system, plans, bf16), cast(Any, system.world)
    world.recompute = False
    return inputs + _saved(system, plans, bf16) - once


def _batch(config: ModelConfig, plans: int) -> Batch:
    """As a sampler's, with latents, of zeros."""
    seen, known, frames = (3, *config.picture_shape), config.latent_shape, len(config.latent_frames)
    live, rows = plans * len(AGES), config.chunk_steps + config.distal_frames
    shapes = {
        "current": (plans, *known),
        "goal": (plans, *known),
        "future": (plans, frames, *known),
        "offsets": (plans, config.frames),
        "arrival": (plans,),
        "shown": (plans, 2, *seen),
        "pictures": (live, *seen),
        "live": (live, *known),
        "live_arrival": (live,),
        "frame_times": (live, frames),
        "frame_mask": (live, frames),
        "joints": (live, config.joints),
        "velocities": (live, config.joints),
        "gripper": (live, 1),
        "actions": (live, rows, config.action_size),
        "weights": (live, rows),
        "row_times": (live, rows),
        "given_mask": (live, rows),
        "cube": (live, 3),
        "target": (live, 3),
        "keypoints": (plans, config.frames, config.keypoints, 3),
        "live_keypoints": (live, config.keypoints, 3),
    }
    return Batch(**{name: torch.zeros(shape) for name, shape in shapes.items()})
