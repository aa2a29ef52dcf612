"""Draws a rollout as one picture: what was seen, imagined, looked at and commanded."""

from __future__ import annotations

from pathlib import Path

import click

from act2goal_ros.data.bag import BagError
from act2goal_ros.data.rollout import default_root, find


@click.command()
@click.argument("rollout", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write; default: picture.png in the rollout.",
)
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=default_root, help="Where rollouts are kept.")
@click.option("--frames", default=7, show_default=True, type=click.IntRange(1, 20), help="Live frames shown.")
@click.option("--plans", default=3, show_default=True, type=click.IntRange(1, 12), help="Imagined ways shown.")
def command(rollout: str | None, output: Path | None, root: Path, frames: int, plans: int) -> None:
    """Draw ROLLOUT (a path, a name or a part of one; default: the newest) as one picture."""
    from act2goal_ros.data.drawing import draw
    from act2goal_ros.data.story import tell
    from act2goal_ros.nodes import images

    try:
        found = find(root, rollout)
        story = tell(found, images.to_rgb, frames, plans)
    except (BagError, images.ImageError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(draw(story, output or found.directory / "picture.png"))
