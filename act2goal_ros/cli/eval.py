"""`act2goal eval`: success of a model on OGBench's official tasks, in the plain Python loop."""

import json
import multiprocessing
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from tqdm import tqdm

from act2goal_ros.sim.tasks import ENVIRONMENTS, official_tasks

if TYPE_CHECKING:
    from act2goal_ros.learning.evaluate import Loop

FIRST_SEED = 1000  # of the official resets; training uses free tasks, other seeds and other positions
REACHED_SECONDS = (0.3, 0.5, 0.8, 1.2, 1.6, 2.0, 2.5)
TASKS = tuple(official_tasks("cube-single"))


@click.command()
@click.argument("model", default="models/act2goal-tiny")
@click.option("--env", "environment", default="cube-single", show_default=True, type=click.Choice(ENVIRONMENTS), help="OGBench's.")
@click.option("--episodes", default=50, show_default=True, help="Resets of each task.")
@click.option("--variant", default="normal", show_default=True, help="normal, other_goal, shuffled, masked or none.")
@click.option("--chunk-every", default=1, show_default=True, help="Camera frames between chunks.")
@click.option("--plan-period", default=0.2, show_default=True, help="s between plans.")
@click.option("--delay", default=0.04, show_default=True, help="s from camera frame to command.")
@click.option("--join", default="prefix", show_default=True, help="Of chunks: prefix, ensemble, both or none.")
@click.option("--workers", default=2, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON with every episode.")
def command(model: str, environment: str, episodes: int, workers: int, output: Path | None, **options: Any) -> None:
    """Run MODEL on the five official tasks of an environment, as long as OGBench lets them run; print the success rates."""
    from act2goal_ros.learning.statistics import summary

    jobs = [(model, options, task, FIRST_SEED + i) for i in range(episodes) for task in official_tasks(environment)]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(workers) as pool, tqdm(total=len(jobs), unit="episode") as bar:
        for row in pool.imap_unordered(_run, jobs):
            rows.append(row)
            bar.update()
            bar.set_postfix(success=f"{sum(r['success'] for r in rows) / len(rows):.3f}")
    rows.sort(key=lambda row: (row["task"], row["seed"]))
    result = summary(rows) | {"reached_detector": _detector([row.pop("samples") for row in rows])}
    click.echo(json.dumps({key: value for key, value in result.items() if key != "seeds"}, indent=2))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"model": model, "options": options, "summary": result, "rows": rows}, indent=1) + "\n")


def _run(job: tuple[str, dict[str, Any], str, int]) -> dict[str, Any]:
    model, options, task, seed = job
    result = _loop(model, tuple(sorted(options.items()))).run(task, seed)
    row = {"task": task, "seed": seed, "success": result.success, "success_time": result.success_time}
    return row | {"at_rest": result.at_rest, "distance": result.distance, "samples": [asdict(sample) for sample in result.samples]}


def _detector(episodes: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """How often a reached detector would have been right, for several limits of the time to goal in s."""
    from act2goal_ros.control.progress import ReachedLimits, ReachedSample, score_detector

    samples = [[ReachedSample(**sample) for sample in episode] for episode in episodes]
    scores = {seconds: score_detector(samples, ReachedLimits(time_to_goal=seconds)) for seconds in REACHED_SECONDS}
    return [
        {"time_to_goal": seconds, "right": score.true_positive, "wrong": score.false_positive, "missed": score.false_negative,
         "silent": score.true_negative, "seconds_after_success": round(float(np.median(score.latency)), 2) if score.latency else 0.0}
        for seconds, score in scores.items()
    ]  # fmt: skip


@cache
def _loop(model: str, options: tuple[tuple[str, Any], ...]) -> "Loop":
    from act2goal_ros.learning.evaluate import Loop, LoopSettings
    from act2goal_ros.serving.bundle import ModelBundle

    return Loop(ModelBundle.load(model), LoopSettings(**dict(options)))
