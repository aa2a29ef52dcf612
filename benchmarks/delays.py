"""Success and smoothness under delay: this package's way to join chunks beside those of others, in the plain loop.

The delay is simulated time from a camera frame to the arrival of the chunk made of it; one chunk is made at a time, so
with 400 ms a chunk follows every 400 ms (--pipelined: a chunk of every frame, as if the delay were a transport's). Rows are
kept in outputs/delays/<method>.jsonl as they come and taken up again. The summary is printed as JSON; --publish merges it into
docs/results/realtime.json. With --recorded the same recorded chunks are replayed to every method instead: no networks, no success.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import results
from baselines import Ensembled, Guided, Naive, Newest, Queued
from motion import figures, together
from tqdm import tqdm

from act2goal_ros.cli.eval import FIRST_SEED, TASKS
from act2goal_ros.learning.evaluate import Loop, LoopSettings
from act2goal_ros.learning.execution import MakeExecution, StreamExecution
from act2goal_ros.learning.statistics import paired_difference, summary
from act2goal_ros.learning.workers import results_of
from act2goal_ros.serving.bundle import WEIGHTS, ModelBundle

if TYPE_CHECKING:
    from act2goal_ros.serving.policy import GoalPolicy

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ROOT / "outputs" / "delays"
LOST_AT = 200  # ms


@dataclass(frozen=True)
class Method:
    """A way to make set-points of chunks; `serial`: made for one inference at a time; `guided`: needs torch and weights."""

    about: str
    make: MakeExecution
    serial: bool = False
    guided: bool = False


METHODS = {
    "ours": Method("prefix conditioning, absolute times, command stream", StreamExecution),
    "ours_ensemble": Method("ours, and the mean of all chunks that speak of a time", partial(StreamExecution, join="both")),
    "stream": Method("absolute times, command stream, no prefix", partial(StreamExecution, join="none")),
    "ensemble_stream": Method("temporal ensembling, then the command stream", partial(StreamExecution, join="ensemble")),
    "newest": Method("the newest chunk in absolute time", Newest),
    "ensemble": Method("temporal ensembling (ACT)", Ensembled),
    "naive": Method("chunks open loop, followed from their first row", Naive, serial=True),
    "lerobot": Method("LeRobot's action queue, 0.3 old + 0.7 new", Queued, serial=True),
    "rtc": Method("real-time chunking: guided flow", Guided, serial=True, guided=True),
}


@dataclass(frozen=True)
class Job:
    """One episode."""

    method: str
    ms: int
    task: str
    seed: int


@dataclass(frozen=True)
class Setup:
    """What all episodes have in common."""

    model: str
    pipelined: bool


def run(setup: Setup, job: Job) -> dict[str, Any]:
    """The episode's row."""
    method = METHODS[job.method]
    loop, served = _loop(setup.model)
    loop.execution, loop.policy = method.make, served
    loop.settings = replace(loop.settings, delay=job.ms / 1000, serial=method.serial or not setup.pipelined)
    if method.guided:
        from guidance import guided

        frozen = -(-job.ms // round(1000 * loop.bundle.step))
        loop.policy = guided(served, _expert(setup.model), frozen)
    result = loop.run(job.task, job.seed)
    outcome = {name: getattr(result, name) for name in ("success", "success_time", "at_rest")}
    return job.__dict__ | outcome | {"chunks": len(result.trace.chunks)} | figures(result.trace)


@cache
def _loop(model: str) -> tuple[Loop, GoalPolicy]:
    loop = Loop(ModelBundle.load(model), LoopSettings())
    return loop, loop.policy


@cache
def _expert(model: str) -> Any:
    import torch
    from guidance import load_expert

    torch.set_num_threads(1)
    loop, served = _loop(model)
    return load_expert(Path(model), loop.bundle, served)


class Log:
    """Rows on disk, a file a method; only those of this model and way of inference are taken up."""

    def __init__(self, setup: Setup) -> None:
        self._own = {"model": ModelBundle.load(setup.model).hash[:12], "pipelined": setup.pipelined}
        self.rows = [row for path in sorted(OUTPUTS.glob("*.jsonl")) for row in map(json.loads, path.read_text().splitlines())
                     if row.items() >= self._own.items()]  # fmt: skip
        OUTPUTS.mkdir(parents=True, exist_ok=True)

    def missing(self, jobs: Iterable[Job]) -> list[Job]:
        """Those without a row."""
        done = {Job(row["method"], row["ms"], row["task"], row["seed"]) for row in self.rows}
        return [job for job in jobs if job not in done]

    def add(self, row: dict[str, Any]) -> None:
        """Keeps the row."""
        self.rows.append(self._own | row)
        with (OUTPUTS / f"{row['method']}.jsonl").open("a") as file:
            print(json.dumps(self.rows[-1]), file=file)


def sweep(setup: Setup, jobs: list[Job], workers: int) -> list[dict[str, Any]]:
    """Rows of all jobs' methods and delays, those of earlier runs' other resets among them."""
    log = Log(setup)
    missing = log.missing(jobs)
    if missing:
        with tqdm(total=len(missing), unit="episode") as bar:
            for row in results_of(partial(run, setup), missing, workers):
                log.add(row)
                bar.update()
                bar.set_postfix_str(f"{row['method']} at {row['ms']} ms")
    wanted = {(job.method, job.ms) for job in jobs}
    return [row for row in log.rows if (row["method"], row["ms"]) in wanted]


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`delay_sweep` by method and ms, ours minus the others at each delay, and what each loses at LOST_AT ms."""
    cells: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        cells.setdefault(row["method"], {}).setdefault(row["ms"], []).append(row)
    table = {method: {str(ms): _cell(cell) for ms, cell in sorted(by_ms.items())} for method, by_ms in cells.items()}
    ours = cells.get("ours", {})
    minus = {method: {str(ms): _difference(ours[ms], cell) for ms, cell in sorted(by_ms.items()) if ms in ours}
             for method, by_ms in cells.items() if method != "ours"}  # fmt: skip
    lost = {method: _difference(by_ms[min(by_ms)], by_ms[LOST_AT]) | {"against_ms": min(by_ms)}
            for method, by_ms in cells.items() if LOST_AT in by_ms and min(by_ms) < LOST_AT}  # fmt: skip
    return {"delay_sweep": table, "ours_minus": minus, "success_lost_at_200ms": lost.get("ours"), "lost_at_200ms": lost}


def _cell(rows: list[dict[str, Any]]) -> dict[str, Any]:
    names = ("success_rate", "interval", "episodes", "at_rest_rate")
    rates = summary(rows)
    return {name: rates[name] for name in names} | together(rows)


def _difference(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, float]:
    """Success of first − second over the resets both have seen."""
    one, two = ({(row["task"], row["seed"]): row["success"] for row in rows} for rows in (first, second))
    both = sorted(one.keys() & two.keys())
    return paired_difference([one[key] for key in both], [two[key] for key in both])


def plot(result: dict[str, Any], path: Path) -> None:
    """Success and mean jerk over the delay, a line a method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for method, by_ms in result["delay_sweep"].items():
        delays, width = [int(ms) for ms in by_ms], 2.8 if method == "ours" else 1.4
        left.errorbar(delays, [100 * cell["success_rate"] for cell in by_ms.values()], lw=width, marker="o", ms=4, label=method)
        right.plot(delays, [cell["jerk_mean"] for cell in by_ms.values()], lw=width, marker="o", ms=4, label=method)
    left.set(xlabel="delay, ms", ylabel="success, %", ylim=(-3, 103))
    right.set(xlabel="delay, ms", ylabel="mean jerk of set-points, rad/s³", yscale="log")
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


@click.command()
@click.option("--delays", default="0,100,200,300,400", show_default=True, help="ms, with commas between.")
@click.option("--methods", default=",".join(METHODS), show_default=True)
@click.option("--episodes", default=50, show_default=True, help="Resets of each of the five tasks.")
@click.option("--workers", default=2, show_default=True)
@click.option("--model", default=str(ROOT / "models" / "act2goal-tiny"), help="Model folder.")
@click.option("--pipelined", is_flag=True, help="A chunk of every frame, however long each takes; naive, lerobot and rtc stay serial.")
@click.option(
    "--recorded",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Replay these chunks (.npz); recorded first if there is no such file.",
)
@click.option("--publish", is_flag=True, help="Into docs/results/realtime.json; other methods' and delays' stay there.")
@click.option("--plot", "picture", is_flag=True, help="Draw docs/pictures/delays.png.")
def main(delays: str, methods: str, episodes: int, workers: int, model: str, pipelined: bool, recorded: Path | None,
         publish: bool, picture: bool) -> dict[str, Any]:  # fmt: skip
    """Measure METHODS at DELAYS and print the summary as JSON."""
    names, left_out = _chosen(methods.split(","), _has_weights(Path(model)), recorded is not None)
    times = [int(ms) for ms in delays.split(",")]
    if recorded is not None:
        from replay import compare, read, record

        if not recorded.exists():
            record(_loop(model)[0], recorded)
        result = {"recorded_chunks": compare(read(recorded), {name: METHODS[name] for name in names}, times, pipelined)}
    else:
        jobs = [Job(name, ms, task, FIRST_SEED + i) for i in range(episodes) for ms in times for name in names for task in TASKS]
        result = summarise(sweep(Setup(model, pipelined), jobs, workers))
    result |= {"left_out": left_out}
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    (OUTPUTS / ("recorded.json" if recorded else "summary.json")).write_text(json.dumps(result, indent=2) + "\n")
    click.echo(json.dumps(result, indent=2))
    if publish:
        _publish(result)
    if picture and recorded is None:
        plot(results.load("realtime") if publish else result, ROOT / "docs" / "pictures" / "delays.png")
    return result


def _publish(result: dict[str, Any]) -> None:
    """A part run alone replaces its own cells."""
    before, values = results.load("realtime"), dict[str, Any]()
    for key, name in (("delay_sweep", "delay_sweep"), ("ours_minus", "delay_ours_minus"), ("recorded_chunks", "recorded_chunks")):
        if found := result.get(key):
            old = before.get(name) or {}
            values[name] = {method: _by_delay(old.get(method, {}) | found.get(method, {})) for method in {**old, **found}}
    if lost := result.get("success_lost_at_200ms"):
        values["success_lost_at_200ms"] = lost
    results.merge("realtime", values | results.command("recorded" if "recorded_chunks" in result else "delays"))


def _by_delay(cells: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(cells.items(), key=lambda cell: int(cell[0])))


def _has_weights(folder: Path) -> bool:
    return find_spec("torch") is not None and (folder / WEIGHTS).is_file()


def _chosen(names: list[str], weights: bool, recorded: bool) -> tuple[list[str], dict[str, str]]:
    """The methods that can be run, and why the others cannot."""
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        raise click.UsageError(f"methods {', '.join(unknown)} are not among {', '.join(METHODS)}")
    if recorded:
        reasons = {"rtc": "recorded chunks cannot be guided", "stream": "without a policy to give a prefix to the same as ours"}
    else:
        reasons = {} if weights else {"rtc": f"needs torch and the model's {WEIGHTS}"}
    left_out = {name: reasons[name] for name in names if name in reasons}
    for name, why in left_out.items():
        click.echo(f"{name} is left out: {why}", err=True)
    return [name for name in names if name not in left_out], left_out


if __name__ == "__main__":
    main()
