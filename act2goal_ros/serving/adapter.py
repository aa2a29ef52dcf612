"""LoRA adapters at run time: files as peft writes them, checked, and made into inputs of the policy's network."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act2goal_ros.model.config import ModelConfig

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"  # peft's names
KEY = re.compile(r"base_model\.model\.(?P<layer>blocks\.\d+\.[\w.]+)\.lora_(?P<matrix>[AB])\.weight")
BASE_HASH = "act2goal_base_hash"  # in the safetensors file's metadata: hash of the model the adapter was trained on


class AdapterError(ValueError):
    """An adapter that must not be used; the message names the file, the value and the bound."""


@dataclass(frozen=True)
class Adapter:
    """Inputs of the policy's network by name, float32; `identity` is empty for the one that changes nothing."""

    identity: str
    inputs: Mapping[str, np.ndarray] = field(repr=False)


def lora_inputs(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Shapes of the inputs that carry an adapter: <layer>.a (r, in), <layer>.b (out, r)."""
    sizes = {name: ((config.lora_rank, inputs), (outputs, config.lora_rank)) for name, (inputs, outputs) in config.lora_layers.items()}
    return {f"{name}.{matrix}": shape for name, pair in sizes.items() for matrix, shape in zip("ab", pair, strict=True)}


def none(config: ModelConfig) -> Adapter:
    """The adapter that changes nothing."""
    return Adapter("", {name: np.zeros(shape, np.float32) for name, shape in lora_inputs(config).items()})


def load(folder: Path, config: ModelConfig, base_hash: str, identity: str) -> Adapter:
    """Reads peft's files in `folder`. AdapterError unless they fit the model with that configuration and hash.

    A lower rank than the network takes is filled up with zeros; peft's factor alpha / r is put into B.
    """
    import json

    from safetensors import SafetensorError, safe_open

    try:
        settings = json.loads((folder / SETTINGS).read_text())
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}
            made_for = (file.metadata() or {}).get(BASE_HASH, "")
    except (OSError, ValueError, SafetensorError) as error:
        raise AdapterError(f"no adapter in {folder}: {error}") from error
    if made_for != base_hash:
        raise AdapterError(f"{folder / WEIGHTS} was trained on model {made_for[:12] or 'unknown'}, here runs {base_hash[:12]}")
    rank, factor = _rank_and_factor(folder / SETTINGS, settings, config)
    inputs = dict(none(config).inputs)
    for name, value in stored.items():
        _insert(inputs, name, value, rank, factor, folder / WEIGHTS)
    return Adapter(identity, inputs)


def _rank_and_factor(path: Path, settings: dict[str, Any], config: ModelConfig) -> tuple[int, float]:
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if not isinstance(rank, int) or not 1 <= rank <= config.lora_rank:
        raise AdapterError(f"{path}: rank {rank}, the model takes 1 to {config.lora_rank}")
    if not isinstance(alpha, int | float) or not np.isfinite(alpha):
        raise AdapterError(f"{path}: lora_alpha is {alpha}, a finite number is needed")
    return rank, float(alpha) / (np.sqrt(rank) if settings.get("use_rslora") else rank)


def _insert(inputs: dict[str, np.ndarray], name: str, value: np.ndarray, rank: int, factor: float, path: Path) -> None:
    match = KEY.fullmatch(name)
    target = f"{match['layer']}.{match['matrix'].lower()}" if match else ""
    if target not in inputs:
        raise AdapterError(f"{path}: {name} is none of the layers that the model lets an adapter change")
    whole = np.zeros_like(inputs[target])
    part = whole[:rank] if target.endswith(".a") else whole[:, :rank]
    if value.shape != part.shape:
        raise AdapterError(f"{path}: {name} has shape {value.shape}, expected {part.shape}")
    if not np.isfinite(value).all():
        raise AdapterError(f"{path}: {name} holds a value that is not finite")
    part[:] = value.astype(np.float32) * (1.0 if target.endswith(".a") else factor)
    inputs[target] = whole
