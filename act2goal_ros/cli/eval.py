"""`act2goal eval`: success of a model on OGBench's official tasks, in the plain Python loop."""

import json
import multiprocessing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from act2goal_ros.learning.evaluate import Loop

FIRST_SEED = 1000  # of the official resets; training uses free tasks, other seeds and other positions
TASKS = tuple(f"cube-single-{i}" for i in range(1, 6))


@click.command()
@click.argument("model", default="models/act2goal-tiny")
@click.option("--episodes", default=50, show_default=True, help="Resets of each task.")
@click.option("--variant", default="normal", show_default=True, help="normal, other_goal, shuffled, masked or none.")
@click.option("--chunk-every", default=1, show_default=True, help="Camera frames between chunks.")
@click.option("--plan-period", default=0.2, show_default=True, help="s between plans.")
@click.option("--delay", default=0.02, show_default=True, help="s from camera frame to command.")
@click.option("--prefix/--no-prefix", default=True, show_default=True)
@click.option("--workers", default=2, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON with every episode.")
def command(model: str, episodes: int, workers: int, output: Path | None, **options: Any) -> None:
    """Run MODEL on the five cube-single tasks and print the success rates."""
    from act2goal_ros.learning.statistics import summary

    jobs = [(model, options, task, FIRST_SEED + i) for i in range(episodes) for task in TASKS]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(workers) as pool, tqdm(total=len(jobs), unit="episode") as bar:
        for row in pool.imap_unordered(_run, jobs):
            rows.append(row)
            bar.update()
            bar.set_postfix(success=f"{sum(r['success'] for r in rows) / len(rows):.3f}")
    rows.sort(key=lambda row: (row["task"], row["seed"]))
    result = summary(rows)
    click.echo(json.dumps({key: value for key, value in result.items() if key != "seeds"}, indent=2))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"model": model, "options": options, "summary": result, "rows": rows}, indent=1) + "\n")


def _run(job: tuple[str, dict[str, Any], str, int]) -> dict[str, Any]:
    model, options, task, seed = job
    result = _loop(model, tuple(sorted(options.items()))).run(task, seed)
    row = {"task": task, "seed": seed, "success": result.success, "success_time": result.success_time}
    return row | {"at_rest": result.at_rest, "distance": result.distance}


@cache
def _loop(model: str, options: tuple[tuple[str, Any], ...]) -> "Loop":
    from act2goal_ros.learning.evaluate import Loop, LoopSettings
    from act2goal_ros.serving.bundle import ModelBundle

    return Loop(ModelBundle.load(model), LoopSettings(**dict(options)))
