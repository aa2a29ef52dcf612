"""`act2goal export`: from a training run to a model folder."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--part", default="stage2", show_default=True, help="Checkpoint to export: stage1, stage2, distilled or distance.")
@click.option("--name", default="act2goal-tiny", show_default=True)
@click.option("--robot", "robots", multiple=True, default=("ur5e_sim",), show_default=True,
              help="Robots that may load it: those whose recordings it was trained on. Others are refused.")
@click.option("--flow-steps", type=click.IntRange(1, 32), help="Of the actions' flow; default: as configured in the run.")
@click.option("--about", type=click.Path(exists=True, path_type=Path), help="JSON merged into the manifest: data, training, results.")
@click.option("--average", "others", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Another run that went on from the same weights: the mean of its weights and RUN's. May be given several times.")
@click.option("--levels", is_flag=True, help="Also networks with the noise level as an input, which `act2goal ablate plan` needs.")
def command(
    run: Path,
    folder: Path,
    part: str,
    name: str,
    robots: tuple[str, ...],
    flow_steps: int | None,
    about: Path | None,
    others: tuple[Path, ...],
    levels: bool,
) -> None:
    """Write the networks of RUN to FOLDER as ONNX, each checked against torch, with a manifest.

    RUN may also be a folder with weights.safetensors, as exports have.
    """
    from act2goal_ros.learning import released
    from act2goal_ros.learning.checkpoint import CheckpointError, load_weights, mean
    from act2goal_ros.learning.presets import build_system
    from act2goal_ros.model.config import ConfigError, ModelConfig
    from act2goal_ros.serving.bundle import WEIGHTS
    from act2goal_ros.serving.export import export
    from act2goal_ros.serving.runner import BackendError

    try:
        runs = [run, *others]
        paths = [each if (each / WEIGHTS).exists() else each / f"{part}.pt" for each in runs]
        states = [released.weights_of(path, "config") for path in paths]
        state = states[0]
        system = build_system(ModelConfig.from_dict(state["config"] | ({"flow_steps": flow_steps} if flow_steps else {})))
        for each, found in zip(runs, states, strict=True):
            if missing := load_weights(system, found["average"], found["config"], each):
                raise CheckpointError(f"checkpoint of {each} lacks {', '.join(missing[:5])}: the part {part} alone is no whole model")
        system.load_state_dict(mean([found["average"] for found in states]))
    except (CheckpointError, ConfigError) as error:
        raise click.ClickException(str(error)) from error
    training: dict[str, Any] = {"from": run.name}
    if "steps" in state:
        training = {"part": part, "steps": state["steps"], "minutes": round(state["elapsed"] / 60, 1)}
    if others:
        training["averaged_with"] = [each.name for each in others]
    description = {"name": name, "robots": list(robots), "training": training}
    if about is not None:
        description |= _told(about)
    try:
        differences = export(system, folder, description, levels)
    except (ConfigError, BackendError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for network, difference in differences.items():
        click.echo(f"{network}: differs from torch by {difference:.1e} of its range")


def _told(about: Path) -> dict[str, Any]:
    """What a JSON file tells of a model."""
    try:
        told = json.loads(about.read_text())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"--about {about} is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise click.ClickException(f"--about {about} holds a {type(told).__name__}, must be a JSON object")
    return told
