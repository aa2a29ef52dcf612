"""From a preset's name to its networks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from act2goal_ros.learning.system import System
from act2goal_ros.model.config import PRESETS, ConfigError, ModelConfig


def configuration(preset: str, views: int | None = None, spacing: str | None = None) -> ModelConfig:
    """Of a preset, for so many cameras and with that spacing of imagined frames if given. Raises ConfigError."""
    if preset not in PRESETS:
        raise ConfigError(f"preset '{preset}' is not one of {', '.join(PRESETS)}")
    config = PRESETS[preset]
    return replace(config, views=views or config.views, spacing=spacing or config.spacing)


def open_preset(
    preset: str,
    part: str,
    plans: int,
    pretrained: Path | None = None,
    views: int | None = None,
    device: str = "cpu",
    bf16: bool = False,
    say: Callable[[str], object] = print,
    spacing: str | None = None,
    processes: int = 1,
    told: bool = False,
) -> System:
    """The networks of a preset, on the CPU, to train a part of them on `device`, so many plans at a time, if they fit there; told: with
    samples without pictures beside.

    Raises ConfigError, PretrainedError, TooLittleMemoryError, before memory is allocated.
    """
    from act2goal_ros.learning.memory import check_memory  # which builds systems too

    config = configuration(preset, views, spacing)
    if config.architecture == "ltx" and pretrained is None:
        raise ConfigError(f"preset '{preset}' needs --pretrained, a folder with published weights: its autoencoder is not trained here")
    if config.architecture == "ltx" and part in ("autoencoder", "distilled", "distance"):
        raise ConfigError(f"part '{part}' is not for preset '{preset}'")
    check_memory(config, plans, torch.device(device), bf16, processes, told)
    return build_system(config, pretrained, say)


def build_system(config: ModelConfig, pretrained: Path | None = None, say: Callable[[str], object] = print) -> System:
    """All networks, untrained; of architecture `ltx` with the published weights in the folder `pretrained`, if given.

    `say` is told what was loaded and what was not. Raises ConfigError, PretrainedError.
    """
    if config.architecture != "ltx":
        if pretrained is not None:
            raise ConfigError(f"published weights are for architecture 'ltx', this configuration's is '{config.architecture}'")
        return System(config)
    try:
        from act2goal_ros.learning.ltx_system import LtxSystem
        from act2goal_ros.model.ltx_autoencoder import LtxAutoencoder
        from act2goal_ros.model.pretrained import load_autoencoder, load_world
    except ImportError as error:
        raise ConfigError(f"architecture 'ltx' needs diffusers (requirements/paper.txt): {error}") from error
    if pretrained is None:
        return LtxSystem(config)
    system = LtxSystem(config, LtxAutoencoder(config, load_autoencoder(config, pretrained)))
    say(str(load_world(system.world, pretrained)))
    return system
