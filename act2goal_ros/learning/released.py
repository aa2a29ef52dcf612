"""A served model's weights as tensors, beside its networks: what a training can start from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as packed
from torch import nn

from act2goal_ros.learning import checkpoint
from act2goal_ros.learning.checkpoint import CheckpointError
from act2goal_ros.serving.bundle import WEIGHTS

DIGEST = "sha256"  # of all tensors
LARGE = 4096  # values, from which on a tensor is kept in half precision


def save(folder: Path, module: nn.Module, config: dict[str, Any]) -> None:
    """Writes folder/weights.safetensors, large tensors in float16."""
    tensors = {name: _short(value.detach().cpu()).contiguous() for name, value in module.state_dict().items()}
    about = {"config": json.dumps(config), DIGEST: _digest(tensors)}
    (folder / WEIGHTS).write_bytes(packed(tensors, about))  # with the usual rights; save_file's are the owner's


def load(folder: Path) -> dict[str, Any]:
    """As a checkpoint's `average` and `config`. Raises CheckpointError where there are none, none that can be read, or others than were
    written; files of earlier versions do not say which were."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"no weights {path}: models exported by earlier versions have none, start from a checkpoint")
    try:
        with safe_open(path, "pt") as file:
            tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 (no mapping)
        config = json.loads(about["config"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"weights {path} ({path.stat().st_size} bytes) cannot be read: {error}") from error
    if (found := _digest(tensors)) != (written := about.get(DIGEST, found)):
        raise CheckpointError(f"weights {path} are damaged: SHA-256 {found[:12]}, written were {written[:12]}")
    return {"average": {name: _long(tensor) for name, tensor in tensors.items()}, "config": config}


def weights_of(path: Path, *needed: str) -> dict[str, Any]:
    """`average` and what else is needed of a checkpoint, or of the folder of an exported model. Raises CheckpointError."""
    return load(path) if path.is_dir() else checkpoint.load(path, "average", *needed)


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of names, types, shapes and contents."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _short(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.dtype == torch.float32 and value.numel() >= LARGE else value


def _long(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.dtype == torch.float16 else value
