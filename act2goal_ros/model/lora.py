"""Low-rank adapters whose matrices are inputs of the exported network, so that another one is swapped in between two ticks."""

import copy
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from act2goal_ros.model.config import LORA_LAYERS
from act2goal_ros.model.expert import ActionExpert


class Adapted(nn.Module):
    """y = W x + b + B A x (LoRA, arXiv 2106.09685), with A (r, in) and B (out, r) given from outside; None: only W x + b."""

    a: Tensor | None = None
    b: Tensor | None = None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y if self.a is None or self.b is None else y + (x @ self.a.T) @ self.b.T


def layers(expert: ActionExpert) -> dict[str, nn.Module]:
    """LORA_LAYERS of every block by their names in the expert, as in blocks.0.qkv."""
    names = [f"blocks.{index}.{name}" for index in range(len(expert.blocks)) for name in LORA_LAYERS]
    return {name: expert.get_submodule(name) for name in names}


def adapted(expert: ActionExpert) -> ActionExpert:
    """A copy of the expert with its LoRA layers `Adapted`."""
    expert = copy.deepcopy(expert)
    for name, layer in layers(expert).items():
        parent, _, leaf = name.rpartition(".")
        setattr(expert.get_submodule(parent), leaf, Adapted(cast(nn.Linear, layer)))
    return expert


def insert(expert: ActionExpert, matrices: Mapping[str, Tensor]) -> None:
    """Hands an `adapted` expert its matrices: <layer>.a (r, in) and <layer>.b (out, r)."""
    for name, layer in layers(expert).items():
        cast(Adapted, layer).a, cast(Adapted, layer).b = matrices[f"{name}.a"], matrices[f"{name}.b"]
