"""From trained networks to a model folder: ONNX files checked against torch, what torch computes, and a manifest."""

import copy
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from act2goal_ros.learning import released
from act2goal_ros.learning.system import System
from act2goal_ros.serving import reference
from act2goal_ros.serving.bundle import FORMAT, MANIFEST, file_hash
from act2goal_ros.serving.networks import Network, networks, served_config
from act2goal_ros.serving.runner import OnnxRunner

OPSET = 20  # the first with GELU as one operator
SEED = 0  # of the inputs every backend is checked with
DRAWS, JITTER = 8, 2.0**-10  # of such inputs, and by how much rounding changes them and weights


def export(system: System, folder: Path, description: dict[str, Any], levels: bool = False) -> dict[str, float]:
    """Writes the ONNX files, their reference, the manifest and the weights; returns each network's difference from torch.

    With `levels` also world model and tick with the noise level as an input (learning/levels.py), which ablations need.
    The difference is a share of the outputs' range; BackendError when it is more than `reference.TOLERANCE`, ConfigError
    for what no node serves.
    """
    config = served_config(system)
    folder.mkdir(parents=True, exist_ok=True)
    system.eval()
    samples = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        draws, shaken = [networks(system, levels) for _ in range(DRAWS)], [_shaken(system) for _ in range(3)]
        for name, network in draws[0].items():
            to_onnx(network, folder / f"{name}.onnx")
            module = network.module
            unsteadiness = partial(_unsteadiness, module, [type(module)(other) for other in shaken])
            samples[name] = _sample(network, min((draw[name].example for draw in draws), key=unsteadiness))
    reference.save(folder, samples)
    expected = reference.Reference(folder)
    differences = {name: expected.check(name, OnnxRunner(folder / f"{name}.onnx")) for name in samples}
    for former in folder.glob("*.onnx"):
        if former.stem not in samples:  # of another export, which networks that are optional would be taken from
            former.unlink()
    files = {path.name: file_hash(path) for path in sorted([*folder.glob("*.onnx"), folder / reference.FILE])}
    manifest = {"format": FORMAT, **description, "config": config.to_dict(), "export_difference": differences, "files": files}
    released.save(folder, system, system.config.to_dict())
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return differences


def to_onnx(network: Network, path: Path) -> None:
    """Writes the ONNX file; the module is left in evaluation mode."""
    axes = {name: dict(extents) for name, extents in network.open.items()}
    torch.onnx.export(network.module.eval(), network.example, str(path), input_names=list(network.inputs),
                      output_names=list(network.outputs), dynamic_axes=axes, opset_version=OPSET, dynamo=False)  # fmt: skip


def _shaken(module: nn.Module) -> nn.Module:
    """A copy whose weights are a little off, as if rounded."""
    copied = copy.deepcopy(module)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(1 + JITTER * torch.randn_like(weight))
    return copied


def _unsteadiness(module: nn.Module, shaken: Sequence[nn.Module], example: tuple[Tensor, ...]) -> float:
    """How much outputs change with inputs and weights that are a little off: near the edge of a decision, rounding looks like an error."""
    with torch.no_grad():
        exact = _each(module(*example))
        changed = [_each(other(*(x * (1 + JITTER * torch.randn_like(x)) for x in example))) for other in shaken]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1.0)) for change in changed for a, b in zip(change, exact, strict=True))


def _each(computed: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return computed if isinstance(computed, tuple) else (computed,)


def _sample(network: Network, example: tuple[Tensor, ...]) -> tuple[reference.Arrays, reference.Arrays]:
    """Inputs and outputs by name."""
    with torch.no_grad():
        computed = _each(network.module(*example))
    given, found = ({name: value.numpy() for name, value in zip(names, values, strict=True)}
                    for names, values in ((network.inputs, example), (network.outputs, computed)))  # fmt: skip
    return given, found
