"""Published weights of LTX-Video or Genie Envisioner, from a local folder in diffusers' layout; nothing is downloaded.

<folder>/transformer/  config.json and *.safetensors, in one file or sharded with their index
<folder>/vae/          likewise
<folder>/empty_prompt.safetensors   optional: `embedding` (1, 4096), the text encoder's of the empty prompt
"""

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.models.embeddings import PixArtAlphaTextProjection
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import linear

from act2goal_ros.model.config import ModelConfig
from act2goal_ros.model.ltx import LtxWorldModel, transformer_layout

WEIGHTS = "diffusion_pytorch_model.safetensors"
EMPTY_PROMPT = "empty_prompt.safetensors"
TEXT = re.compile(r"caption_projection\.|transformer_blocks\.\d+\.attn2\.")
OURS = ("view_embed", "view_ada.")  # parts of a published transformer that are not in diffusers' class


class PretrainedError(ValueError):
    """Published weights that cannot be used; the message names the file, the tensor or field, what it is and what is needed."""


@dataclass(frozen=True)
class Loaded:
    """What was found in a folder: parameters loaded, tensors of ours that were missing, tensors there that are not ours."""

    parameters: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    text: str  # what became of the text input

    def __str__(self) -> str:
        lines = [f"{self.parameters:,} parameters of the world model loaded; text: {self.text}"]
        for name, tensors in ("missing, stay as they are", self.missing), ("not used", self.unexpected):
            lines += [f"{name}: {', '.join(_families(tensors))}"] if tensors else []
        return "\n".join(lines)


class Weights:
    """Tensors by name in the safetensors files of a folder, read one by one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        for path in _files(folder):
            try:
                file = stack.enter_context(safe_open(path, "pt"))
                self._files |= dict.fromkeys(file.keys(), file)
            except (OSError, SafetensorError) as error:
                raise PretrainedError(f"{path} cannot be read: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._files:
            raise PretrainedError(f"{self.folder} lacks tensor {name}")
        return self._files[name].get_tensor(name)

    def names(self) -> list[str]:
        return sorted(self._files)

    def shape(self, name: str) -> list[int]:
        return list(self._files[name].get_slice(name).get_shape())


def load_world(world: LtxWorldModel, folder: Path) -> Loaded:
    """Copies what matches into `world`; PretrainedError, and nothing is changed, if layout or shape of any tensor differ."""
    part = folder / "transformer"
    _check_layout(part, LTXVideoTransformer3DModel, transformer_layout(world.config))
    own = {_published(name): value for name, value in world.state_dict().items() if not name.endswith("attn2.value")}
    with ExitStack() as stack, torch.no_grad():
        there = Weights(part, stack)
        found = [name for name in own if name in there]
        _check_shapes(there, {name: own[name] for name in found})
        if not found:
            raise PretrainedError(f"{part} has {len(there.names())} tensors, none of them is a world model's")
        text = _text(world, there, folder)
        for name in found:
            own[name].copy_(there[name])
        unexpected = tuple(name for name in there.names() if name not in own and not TEXT.match(name))
    missing = tuple(name for name in own if name not in found)
    return Loaded(sum(own[name].numel() for name in found), missing, unexpected, text)


def load_autoencoder(config: ModelConfig, folder: Path) -> AutoencoderKLLTXVideo:
    """The autoencoder of any LTX-Video whose latents fit; PretrainedError."""
    part = folder / "vae"
    _check_layout(part, AutoencoderKLLTXVideo, {"latent_channels": config.latent_channels})
    try:
        found = AutoencoderKLLTXVideo.from_pretrained(
            part, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except Exception as error:  # diffusers raises what it meets
        raise PretrainedError(f"{part} cannot be loaded: {error}") from error
    vae, info = found
    if info["missing_keys"]:
        raise PretrainedError(f"{part} lacks {', '.join(_families(info['missing_keys']))}")
    needed = {"spatial": config.image_size // config.latent_size, "temporal": config.temporal_compression}
    for name, ratio in needed.items():
        if (there := getattr(vae, f"{name}_compression_ratio")) != ratio:
            raise PretrainedError(f"{part}: {name} compression is {there}, the preset's is {ratio}")
    return vae


def _published(name: str) -> str:
    """A tensor's name in a published file."""
    return name if name.startswith(OURS) else name.removeprefix("transformer.")


def _files(folder: Path) -> list[Path]:
    """The one file of weights, or those the index lists."""
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        if not (folder / WEIGHTS).is_file():
            raise PretrainedError(f"no {WEIGHTS} in {folder}, nor an index of its shards")
        return [folder / WEIGHTS]
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise PretrainedError(f"{index} is no index of shards: {error!r}") from error
    paths = [folder / Path(name).name for name in names]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise PretrainedError(f"{index} lists {', '.join(absent)}, which is not there")
    return paths


def _check_layout(folder: Path, kind: type[Any], needed: Mapping[str, object]) -> None:
    if not (folder / "config.json").is_file():
        raise PretrainedError(f"no config.json of a {kind.__name__} in {folder}")
    try:
        there = kind.load_config(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise PretrainedError(f"{folder / 'config.json'} cannot be read: {error}") from error
    layout = {name: value.default for name, value in inspect.signature(kind.__init__).parameters.items()} | there
    wrong = [f"{name} {layout.get(name)!r}, the preset has {value!r}" for name, value in needed.items() if layout.get(name) != value]
    if wrong:
        raise PretrainedError(f"{folder / 'config.json'}: {'; '.join(wrong)}")


def _check_shapes(there: Weights, own: Mapping[str, Tensor]) -> None:
    wrong = [f"{name} {there.shape(name)} there, {list(value.shape)} here" for name, value in own.items()
             if there.shape(name) != list(value.shape)]  # fmt: skip
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise PretrainedError(f"{there.folder}: shapes differ: {'; '.join(wrong[:3])}{more}")


def _text(world: LtxWorldModel, there: Weights, folder: Path) -> str:
    """Sets what stands for the text: exactly what cross-attention makes of the empty prompt, or nothing."""
    values = [block.attn2.value for block in world.transformer.transformer_blocks]
    path = folder / EMPTY_PROMPT
    if not path.is_file():
        for value in values:
            value.zero_()
        return f"none (no {path})"
    try:
        with safe_open(path, "pt") as file:
            embedding = file.get_tensor("embedding").float().reshape(1, -1)
    except (OSError, SafetensorError) as error:
        raise PretrainedError(f"{path} cannot be read: {error}") from error
    token = _caption(there, embedding, world.config.world_width)
    for index, value in enumerate(values):
        name = f"transformer_blocks.{index}.attn2"
        inner = _linear(there, f"{name}.to_v", token)
        value.copy_(_linear(there, f"{name}.to_out.0", inner)[0])
    return f"the empty prompt's of {path}"


def _caption(there: Weights, embedding: Tensor, width: int) -> Tensor:
    """(1, W) from the text encoder's (1, 4096)."""
    inputs = there["caption_projection.linear_1.weight"].shape[1]
    if embedding.shape[1] != inputs:
        raise PretrainedError(f"{EMPTY_PROMPT}: embedding has {embedding.shape[1]} values, {inputs} are needed")
    projection: nn.Module = PixArtAlphaTextProjection(inputs, width)
    projection.load_state_dict({name: there[f"caption_projection.{name}"] for name in projection.state_dict()})
    return projection(embedding)


def _linear(there: Weights, name: str, x: Tensor) -> Tensor:
    bias = there[f"{name}.bias"].float() if f"{name}.bias" in there else None
    return linear(x, there[f"{name}.weight"].float(), bias)


def _families(names: Iterable[str]) -> list[str]:
    """Names with their numbers as *, each once."""
    return list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
