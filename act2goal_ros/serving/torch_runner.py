"""Networks in torch: the reference the other backends are held to, and what they are timed against."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from act2goal_ros.learning import released
from act2goal_ros.learning.checkpoint import CheckpointError
from act2goal_ros.learning.system import System
from act2goal_ros.model.config import ModelConfig
from act2goal_ros.serving.networks import Network, networks
from act2goal_ros.serving.runner import BackendError, check_inputs

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MULTIPLIED = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def runner(path: Path, threads: int) -> "TorchRunner":
    """The network whose ONNX file `path` is, made of the weights beside it, in float32 on the CPU. BackendError without weights.

    Sets the number of threads of the whole process.
    """
    try:
        found = released.load(path.parent)
    except CheckpointError as error:
        raise BackendError(str(error)) from error
    torch.set_num_threads(threads)
    system = System(ModelConfig.from_dict(found["config"]))
    system.load_state_dict(found["average"])
    with torch.random.fork_rng(devices=[]):
        return TorchRunner(networks(system, levels=True)[path.stem])


class TorchRunner:
    """One network on a CPU or a GPU, whose module it takes over. `compiled`: by torch.compile, at the first call.

    `precision` is that of matrix products, by autocast, and of the weights that are multiplied.
    """

    backend = "torch"

    def __init__(self, network: Network, device: str = "cpu", precision: str = "float32", compiled: bool = False) -> None:
        self.precision, self._device, self._inputs, self._outputs = precision, device, network.inputs, network.outputs
        module = network.module.to(device).eval().requires_grad_(False)
        for part in module.modules():
            if isinstance(part, MULTIPLIED):
                part.to(TYPES[precision])
        self._call = torch.compile(module, mode="reduce-overhead") if compiled else module
        self._shapes = {name: tuple(network.open.get(name, {}).get(axis, extent) for axis, extent in enumerate(value.shape))
                        for name, value in zip(network.inputs, network.example, strict=True)}  # fmt: skip
        self._given: dict[str, np.ndarray] = {}
        self._held: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        fresh = [name for name in self._inputs if name not in inputs or inputs[name] is not self._given.get(name)]
        check_inputs({name: self._shapes[name] for name in fresh}, inputs)
        for name in fresh:
            self._held[name] = torch.tensor(inputs[name], dtype=torch.float32, device=self._device)
            self._given[name] = inputs[name]
        with torch.autocast(self._device, TYPES[self.precision], enabled=self.precision != "float32"):
            found = self._call(*(self._held[name] for name in self._inputs))
        values = found if isinstance(found, tuple) else (found,)
        return {name: value.float().cpu().numpy() for name, value in zip(self._outputs, values, strict=True)}
