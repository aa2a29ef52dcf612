"""`act2goal train`: trains the models on recorded episodes."""

from dataclasses import replace
from pathlib import Path

import click

from act2goal_ros.model.msth import SPACINGS


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--part", type=click.Choice(["autoencoder", "stage1", "stage2", "distilled", "all"]), default="all", show_default=True,
              help="distilled: the actions of --start-from in fewer flow steps.")
@click.option("--autoencoder-minutes", default=10.0, show_default=True)
@click.option("--stage1-minutes", default=60.0, show_default=True, help="World model and expert together.")
@click.option("--stage2-minutes", default=15.0, show_default=True, help="The action loss alone, end to end.")
@click.option("--distilled-minutes", default=30.0, show_default=True)
@click.option("--flow-steps", default=1, show_default=True, help="Of the distilled part.")
@click.option("--teacher-steps", default=6, show_default=True, help="Flow steps whose result it learns.")
@click.option("--batch", default=12, show_default=True, help="Plans a step; each is seen from six live frames.")
@click.option("--start-from", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Checkpoint whose weights to start from.")
@click.option("--spacing", default="paper", show_default=True, type=click.Choice(SPACINGS), help="Of the imagined frames (MSTH).")
@click.option("--threads", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
def command(
    data: Path,
    run: Path,
    part: str,
    autoencoder_minutes: float,
    stage1_minutes: float,
    stage2_minutes: float,
    distilled_minutes: float,
    flow_steps: int,
    teacher_steps: int,
    batch: int,
    start_from: Path | None,
    spacing: str,
    threads: int,
    seed: int,
) -> None:
    """Train on the episodes in DATA, with checkpoints in RUN; started again, it goes on where it was."""
    import torch

    from act2goal_ros.learning import train
    from act2goal_ros.learning.batches import Episodes
    from act2goal_ros.learning.distill import Student
    from act2goal_ros.learning.system import System, load
    from act2goal_ros.model.config import PRESETS

    if part == "distilled" and start_from is None:
        raise click.UsageError("--part distilled needs --start-from, the checkpoint it learns from")
    torch.set_num_threads(threads)
    config, episodes = replace(PRESETS["tiny"], spacing=spacing), Episodes(data)
    system = System(config)
    if not (run / "autoencoder.pt").exists():
        schedule = train.Schedule(minutes=autoencoder_minutes, learning_rate=2e-3, batch=32, seed=seed)
        train.train_autoencoder(episodes, config, run, schedule)
    if part == "autoencoder":
        return
    system.autoencoder.load_state_dict(load(run / "autoencoder.pt")["model"])
    train.encode_all(episodes, system.autoencoder, config, run.name)
    train.prepare(system, episodes)
    if start_from:
        missing = system.load_state_dict(load(start_from)["average"], strict=False).missing_keys
        click.echo(f"starts from {start_from}; new there: {', '.join(missing) or 'nothing'}")
    if part == "distilled":
        schedule = train.Schedule(minutes=distilled_minutes, batch=batch, seed=seed, learning_rate=4e-4)
        system.expert.config = replace(config, flow_steps=teacher_steps)
        train.train_system(episodes, Student(system, flow_steps), run, schedule, {"action": 1.0}, part)
        return
    stages = {
        "stage1": (train.Schedule(minutes=stage1_minutes, batch=batch, seed=seed), {"video": 0.5, "action": 1.0}),
        "stage2": (train.Schedule(minutes=stage2_minutes, batch=batch, seed=seed, learning_rate=2e-4), {"video": 0.0, "action": 1.0}),
    }
    for name, (schedule, weights) in stages.items():
        if part in (name, "all"):
            extra = {"distance": 0.5, "cube": 0.3, "target": 0.3}
            train.train_system(episodes, system, run, schedule, weights | extra, name)
            train.sample_pictures(system, episodes, run / f"{name}.png")
