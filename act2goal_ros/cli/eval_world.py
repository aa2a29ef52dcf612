"""`act2goal eval-world`: how well a model imagines recorded episodes it was not trained on."""

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("model", default="act2goal-tiny")
@click.option("--share", default=0.03, show_default=True, type=click.FloatRange(0, 1, min_open=True),
              help="The last of the episodes of each environment, which training leaves out; 1: all, of data that was not trained on.")
@click.option("--each", default=6, show_default=True, type=click.IntRange(1), help="Plans of each episode.")
@click.option("--denoising-steps", default=0, show_default=True, help="Measure plans denoised in so many steps too (export --levels).")
@click.option("--localiser", "known", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Other data to fit the cube's localiser on; by default the rest of DATA.")
@click.option("--output", type=click.Path(path_type=Path), help="JSON; the pictures go beside it.")
def command(data: Path, model: str, share: float, each: int, denoising_steps: int, known: Path | None, output: Path | None) -> None:
    """Compare what MODEL imagines, in one pass and told the true time to goal, with what came in DATA's held-out episodes.

    PSNR (of all pixels, and of those that moved) beside the autoencoder's own and that of a copy of the live frame; the Fréchet
    distance between normal distributions fitted to the latents of imagined and true frames after a fixed random projection (no
    FVD, no LPIPS: nothing is downloaded; to be compared among these models only); the cube's place in mm across the line of
    sight, by its colour, beside the localiser's own error on true frames; the error of the time to goal.
    """
    from act2goal_ros import paths
    from act2goal_ros.learning import world_measures
    from act2goal_ros.learning.dataset import DatasetError
    from act2goal_ros.serving.bundle import ModelBundle, ModelError

    try:
        bundle = ModelBundle.load(paths.model(model))
        others, held = world_measures.held_out(data, share, bundle.config)
        others = [*others, *(world_measures.held_out(known, 1.0, bundle.config)[1] if known else [])]
        makers = _makers(bundle, denoising_steps)
    except (DatasetError, FileNotFoundError, ModelError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    imagination, found = next(iter(makers.values()))[0], {}
    localiser = world_measures.fit_localiser(others, bundle.config.image_size)
    for name, (_, make) in makers.items():
        made = world_measures.plans(imagination, make, held, each, bundle.step)
        found[name] = world_measures.measure(made, localiser)
        if output is not None:
            _save_picture(output.with_name(f"{output.stem}-{name}.png"), world_measures.pictures(made))
    result = {"model": bundle.name, "model_hash": bundle.hash, "episodes": len(held), **found}
    click.echo(json.dumps(result, indent=1))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=1) + "\n")


def _makers(bundle: Any, steps: int) -> dict[str, Any]:
    """Name → imagination and how it makes a plan."""
    from act2goal_ros.learning.levels import Denoiser
    from act2goal_ros.learning.plans import Denoised

    imagination = bundle.imagination()
    makers = {"one_pass": (imagination, lambda live, goal, seed, seconds: imagination.imagine(live, goal, seed, seconds=seconds))}
    if steps:
        denoiser = Denoiser.load(bundle.folder)
        if denoiser is None:
            raise ValueError(f"{bundle.folder} has no imagine_level.onnx: export it with --levels")
        makers[f"denoised_{steps}"] = (imagination, Denoised(imagination, denoiser, steps).plan)
    return makers


def _save_picture(path: Path, picture: Any) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1])
