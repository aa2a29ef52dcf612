"""Side by side with LeRobot 0.4.4's asynchronous inference: the same network, tasks, seeds, simulated arm and machine.

What is compared, and by which definitions, says figures.py; how LeRobot's side is installed and run, theirs.py:

    python benchmarks/lerobot/compare.py --lerobot /somewhere/lerobot/bin/python --episodes 5

Merges both sides' rows and the ratios, theirs over ours, into docs/results/realtime.json under `lerobot`; `python benchmarks/report.py`
then brings docs/benchmarks.md up to date. Wants a machine that does nothing else.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from figures import ratios, summary

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from lerobot_table import table  # noqa: E402
from results import ROOT, load, merge, origin  # noqa: E402

from act2goal_ros.cli.eval import FIRST_SEED, TASKS  # noqa: E402

VERSION = "0.4.4"


def run_ours(folder: Path, jobs: str, seconds: float) -> None:
    """The graph, in this environment."""
    arguments = ["--output", str(folder), "--jobs", jobs, "--seconds", str(seconds)]
    subprocess.run([sys.executable, str(HERE / "ours.py"), *arguments], check=True, cwd=ROOT)


def run_theirs(folder: Path, jobs: str, seconds: float, python: Path, settings: list[str]) -> None:
    """LeRobot, in its environment; it writes its logs and settings into `folder`."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    arguments = ["--output", str(folder), "--jobs", jobs, "--seconds", str(seconds)]
    arguments += ["--model", str(ROOT / "models" / "act2goal-tiny"), "--arm-python", sys.executable]
    command = [str(python.absolute()), str(HERE / "theirs.py"), *arguments, *settings]
    with (folder / "client.log").open("w") as log:
        subprocess.run(command, check=True, cwd=folder, env=environment, stderr=log)


def figures_of(folder: Path) -> dict[str, Any]:
    """What the raw records in `folder` say of both sides."""
    raw = {side: json.loads((folder / f"{side}.json").read_text()) for side in ("theirs", "ours")}
    found = {}
    for side, record in raw.items():
        trace = np.load(folder / f"{side}.npz")
        found[side] = summary(record, trace["setpoints"], trace["frames"], raw["theirs"]["period"]) | {"settings": record["settings"]}
    return {**ratios(found["theirs"], found["ours"]), **found, "version": VERSION}


@click.command()
@click.option("--lerobot", type=click.Path(exists=True, path_type=Path), help="Interpreter of LeRobot's environment.")
@click.option("--episodes", default=5, show_default=True, help="Resets of each task.")
@click.option("--task", "tasks", multiple=True, type=click.Choice(TASKS), default=TASKS, help="All five by default.")
@click.option("--seconds", default=10.0, show_default=True, help="Of an episode.")
@click.option("--fps", default=30, show_default=True, help="LeRobot's control rate.")
@click.option("--actions", default=16, show_default=True, help="LeRobot's actions per chunk.")
@click.option("--threshold", default=0.5, show_default=True, help="LeRobot's chunk size threshold.")
@click.option("--aggregate", default="weighted_average", show_default=True, help="LeRobot's aggregate function.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "outputs" / "lerobot", help="Folder of raw records and logs.")
@click.option("--publish/--no-publish", default=True, show_default=True, help="Merge into docs/results/realtime.json.")
def main(
    lerobot: Path | None, episodes: int, tasks: tuple[str, ...], seconds: float, fps: int, actions: int, threshold: float, aggregate: str,
    output: Path, publish: bool,
) -> None:  # fmt: skip
    """Run both sides one after the other and compare them; without --lerobot, compare what is in --output already."""
    folder = output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if lerobot is not None:
        jobs = ",".join(f"{task}:{FIRST_SEED + i}" for i in range(episodes) for task in tasks)
        settings = ["--fps", str(fps), "--actions", str(actions), "--threshold", str(threshold), "--aggregate", aggregate]
        run_ours(folder, jobs, seconds)
        run_theirs(folder, jobs, seconds, lerobot, settings)
    found = figures_of(folder)
    click.echo("\n".join(table(found)))
    if publish:
        measured = origin() | {"command": _command(lerobot)} if lerobot is not None else {}
        kept = load("realtime").get("lerobot") or {}
        merge("realtime", {"lerobot": kept | found | measured, "idle_ticks": found["ours"]["idle_ticks"]})


def _command(lerobot: Path) -> str:
    """As it was given, without this machine's path."""
    arguments = ["LEROBOT/bin/python" if argument == str(lerobot) else argument for argument in sys.argv[1:]]
    return " ".join(["python benchmarks/lerobot/compare.py", *arguments])


if __name__ == "__main__":
    main()
