"""`act2goal ablate`: what of the plan, of replanning and of MSTH matters, on paired episodes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from act2goal_ros.cli.eval import UNTIL_SUCCESS
from act2goal_ros.sim.tasks import ENVIRONMENTS

ABLATIONS = ("plan", "replan", "msth")


@click.command()
@click.argument("name", type=click.Choice(ABLATIONS))
@click.option("--model", default="act2goal-tiny", show_default=True)
@click.option("--trained", multiple=True, metavar="SPACING=MODEL", help="msth: the model trained for a spacing of the imagined frames.")
@click.option("--same-weights", is_flag=True, help="msth: where none was trained, run --model with its frames at other times.")
@click.option("--env", "environments", type=click.Choice(ENVIRONMENTS), multiple=True,
              help="Default: cube-single; all four for msth.")
@click.option("--variant", "chosen", multiple=True, help="Only these; the first of all is always run, to compare with.")
@click.option("--episodes", default=50, show_default=True, help="Resets of each task and seed.")
@UNTIL_SUCCESS
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(1), help="Evaluation seeds.")
@click.option("--workers", default=2, show_default=True, help="Processes; 0: this one.")
@click.option("--output", type=click.Path(path_type=Path),
              help="JSON; default outputs/ablations/NAME.json.")
@click.option("--rows", "rows_file", type=click.Path(dir_okay=False, path_type=Path),
              help="JSON lines, an episode each, as they come, so that an interrupted run goes on; default: beside --output.")
def command(
    name: str, model: str, trained: tuple[str, ...], same_weights: bool, environments: tuple[str, ...], chosen: tuple[str, ...],
    episodes: int, until_success: bool, seeds: int, workers: int, output: Path | None,
    rows_file: Path | None,
) -> None:  # fmt: skip
    """Run an ablation: plan (right, another episode's, shuffled, permuted times, goal frame, parts withheld, masked, none, true future,
    denoised), replan (a chunk every 1 to 16 frames, with and without prefix conditioning), or msth (spacings of the imagined frames).

    Every variant runs the same resets. Intervals: Wilson's for rates, Newcombe's for differences of pairs (95 %).
    """
    from act2goal_ros.learning import ablations
    from act2goal_ros.learning.jobs import run_jobs
    from act2goal_ros.learning.rowlog import CRITERION, LogError, RowLog
    from act2goal_ros.learning.workers import WorkerDiedError

    output = output or Path("outputs/ablations") / f"{name}.json"
    where = environments or (ENVIRONMENTS if name == "msth" else ("cube-single",))
    try:
        variants = _variants(name, model, dict(_pair(text) for text in trained), same_weights, chosen)
        variants = ablations.until_success(variants) if until_success else variants
        jobs = ablations.jobs_for(variants, where, episodes, seeds, by_model=name == "msth")
        with RowLog(rows_file or output.with_suffix(".jsonl"), {"ablation": name, "until_success": until_success} | CRITERION) as log:
            rows = run_jobs(log, jobs, workers)
    except (LogError, WorkerDiedError, FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    about = CRITERION | {"ablation": name, "models": {job.name: job.digest for job in jobs}}
    _report(name, rows, [variant.name for variant in variants], about, output)


def _pair(text: str) -> tuple[str, str]:
    spacing, equals, model = text.partition("=")
    if not equals:
        raise ValueError(f"'{text}' is not SPACING=MODEL")
    return spacing, model


def _variants(name: str, model: str, trained: dict[str, str], same_weights: bool, chosen: Sequence[str]) -> list[Any]:
    from act2goal_ros import paths
    from act2goal_ros.learning import ablations, levels

    folder = paths.model(model)
    if name == "plan":
        found = ablations.plan_variants(str(folder), (folder / f"{levels.WORLD}.onnx").exists())
    elif name == "replan":
        found = ablations.replan_variants(str(folder))
    else:
        models = {spacing: str(paths.model(path)) for spacing, path in trained.items()}
        found = ablations.msth_variants(models, str(folder) if same_weights else None)
        if not found:
            raise ValueError("no model to run: give --trained SPACING=MODEL, or --same-weights")
    unknown = sorted(set(chosen) - {variant.name for variant in found})
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is none of {', '.join(v.name for v in found)}; true_future and denoised need a model "
                         "exported with --levels")  # fmt: skip
    return [variant for i, variant in enumerate(found) if not chosen or i == 0 or variant.name in chosen]


def _report(name: str, rows: list[dict[str, Any]], names: list[str], about: dict[str, Any], output: Path) -> None:
    """Shows the tables and writes the file."""
    from act2goal_ros.learning import ablations
    from act2goal_ros.learning.tables import variant_table

    found = ablations.figures(name, rows, names)
    click.echo(variant_table(name, found["variants"], found["less_than_first"]))
    if name == "msth":
        for horizon in ablations.HORIZONS:
            own = {variant: found["by_horizon"][variant][horizon] for variant in names if horizon in found["by_horizon"][variant]}
            if own:
                click.echo(variant_table(horizon, own, {}))
    temporary = output.with_suffix(".tmp")
    temporary.write_text(json.dumps(about | found | {"rows": rows}, indent=1) + "\n")
    temporary.replace(output)
