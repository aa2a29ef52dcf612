"""`act2goal eval`: success of a model on OGBench's official tasks, in the plain Python loop."""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np

from act2goal_ros.learning.jobs import FIRST_SEED, Job, resets, run_jobs
from act2goal_ros.learning.rowlog import CRITERION, Row, RowLog
from act2goal_ros.sim.tasks import ENVIRONMENTS, beyond_task, free_task, official_tasks

__all__ = ["FIRST_SEED", "TASKS", "UNTIL_SUCCESS", "command"]
REACHED_SECONDS = (0.3, 0.5, 0.8, 1.2, 1.6, 2.0, 2.5)
UNTIL_SUCCESS = click.option("--until-success", is_flag=True,
                             help="End episodes at success, in half the time; rest at the end is then not known.")  # fmt: skip
TASKS = tuple(official_tasks("cube-single"))


@click.command()
@click.argument("model", default="act2goal-tiny")
@click.option("--env", "environments", default=("cube-single",), show_default=True, type=click.Choice(ENVIRONMENTS), multiple=True,
              help="OGBench's; may be given several times.")
@click.option("--tasks", "kind", default="official", show_default=True, type=click.Choice(["official", "random"]),
              help="random: starts and goals anywhere in OGBench's area.")
@click.option("--episodes", default=50, show_default=True, help="Resets of each task and seed; of a random task 5 times as many.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Evaluation seeds, each with resets of its own.")
@click.option("--look", default="fast", show_default=True,
              help="fast, stock (OGBench's own renderer), randomised, or unseen: with cube_colours, light, camera, distractor or region.")
@click.option("--variant", default="normal", show_default=True, help="What becomes of the plan: see learning/plans.py.")
@click.option("--chunk-every", default=1, show_default=True, help="Camera frames between chunks.")
@click.option("--plan-period", default=0.2, show_default=True, help="s between plans.")
@click.option("--delay", default=0.04, show_default=True, help="s from camera frame to command.")
@click.option("--join", default="prefix", show_default=True, help="Of chunks: prefix, ensemble, both or none.")
@UNTIL_SUCCESS
@click.option("--workers", default=2, show_default=True, help="Processes; 0: this one.")
@click.option("--films", type=click.Path(path_type=Path), help="Folder for films of successes and failures, and a contact sheet.")
@click.option("--films-each", default=2, show_default=True, help="Films of each task and outcome.")
@click.option("--output", type=click.Path(path_type=Path),
              help="JSON with every episode, at the end; until then they are in --rows, and an interrupted evaluation goes on.")
@click.option("--rows", "rows_file", type=click.Path(dir_okay=False, path_type=Path),
              help="JSON lines, an episode each, as they come; default: beside --output.")
@click.option("--detector/--no-detector", default=True, help="Score the reached detector too, which makes rows twenty times as long.")
def command(
    model: str, environments: tuple[str, ...], kind: str, episodes: int, seeds: int, workers: int, films: Path | None, films_each: int,
    output: Path | None, rows_file: Path | None, detector: bool, **options: Any,
) -> None:  # fmt: skip
    """Run MODEL on the five official tasks of each environment, as long as OGBench lets them run.

    Intervals are Wilson's (95 %), over all episodes of a row.
    """
    from act2goal_ros import paths
    from act2goal_ros.learning.evaluate import LoopSettings
    from act2goal_ros.learning.workers import WorkerDiedError
    from act2goal_ros.serving.bundle import ModelBundle, ModelError

    try:
        folder = paths.model(model)
        bundle, settings = ModelBundle.load(folder), LoopSettings(**options)
        wanted = resets([task for env in environments for task in _tasks(env, kind, options["look"])], episodes, range(seeds))
        if kind == "random" or options["look"] == "unseen:region":
            wanted = resets(sorted({task for _, task, _ in wanted}), len(TASKS) * episodes, range(seeds))
    except (FileNotFoundError, ModelError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    kept = (str(films), films_each) if films else None
    jobs = [Job("eval", str(folder), settings, task, seed, e, bundle.hash, kept, samples=detector) for e, task, seed in wanted]
    header = {"options": options} | CRITERION
    try:
        with tempfile.TemporaryDirectory() as nowhere, RowLog(rows_file or _rows_file(output, Path(nowhere)), header) as log:
            rows = run_jobs(log, jobs, workers)
    except (ValueError, WorkerDiedError) as error:  # LogError too
        raise click.ClickException(str(error)) from error
    _report(rows, environments, {"model": bundle.name, "model_hash": bundle.hash, **header}, output)
    if films:
        from act2goal_ros.learning.films import contact_sheet

        click.echo(f"films in {films}, all at a glance in {contact_sheet(films)}")


def _tasks(environment: str, kind: str, look: str) -> list[str]:
    if look == "unseen:region":
        if environment != "cube-single":
            raise ValueError(f"there is no unseen region for {environment}, only for cube-single")
        return [beyond_task()]
    return official_tasks(environment) if kind == "official" else [free_task(environment)]


def _rows_file(output: Path | None, otherwise: Path) -> Path:
    return output.with_suffix(".jsonl") if output else otherwise / "rows.jsonl"


def _report(rows: list[Row], environments: tuple[str, ...], about: dict[str, Any], output: Path | None) -> None:
    """Shows the table and writes the file."""
    from act2goal_ros.learning.statistics import summary
    from act2goal_ros.learning.tables import success_table
    from act2goal_ros.sim.tasks import environment_of

    summaries = {}
    for environment in environments:
        own = [row for row in rows if environment_of(row["task"]) == environment]
        click.echo(success_table(environment, own))
        summaries[environment] = summary(own) | _detector([row["samples"] for row in own if "samples" in row])
    if output is not None:
        single = {"summary": next(iter(summaries.values()))} if len(summaries) == 1 else {}
        plain = [{key: value for key, value in row.items() if key != "samples"} for row in rows]
        _write_whole(output, about | single | {"summaries": summaries, "rows": plain})


def _write_whole(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    temporary.replace(path)


def _detector(episodes: list[list[dict[str, Any]]]) -> dict[str, list[dict[str, float]]]:
    """How often a reached detector would have been right, for several limits of the time to goal in s; nothing without samples."""
    from act2goal_ros.control.progress import ReachedLimits, ReachedSample, score_detector

    if not episodes:
        return {}
    samples = [[ReachedSample(**sample) for sample in episode] for episode in episodes]
    scores = {seconds: score_detector(samples, ReachedLimits(time_to_goal=seconds)) for seconds in REACHED_SECONDS}
    found = [
        {"time_to_goal": seconds, "right": score.true_positive, "wrong": score.false_positive, "missed": score.false_negative,
         "silent": score.true_negative, "seconds_after_success": round(float(np.median(score.latency)), 2) if score.latency else 0.0}
        for seconds, score in scores.items()
    ]  # fmt: skip
    return {"reached_detector": found}
