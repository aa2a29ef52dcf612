"""Episodes by the hundred: in parallel processes, kept as they come, taken up again after an interruption."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from act2goal_ros.learning.rowlog import Row, RowLog
from act2goal_ros.learning.workers import results_of

if TYPE_CHECKING:
    from act2goal_ros.learning.evaluate import Loop, LoopSettings
    from act2goal_ros.sim.arm import SimulatedArm

FIRST_SEED = 1000  # of the official resets; training uses free tasks, other seeds and other positions
SEED_STEP = 10_000  # between evaluation seeds, so that their resets are all different


@dataclass(frozen=True)
class Job:
    """An episode of what is called `name`, with a model folder and LoopSettings.

    `digest`: of the model; `films`: where films go, and how many of each kind; `samples`: keep what a reached detector sees.
    """

    name: str
    model: str
    settings: "LoopSettings"
    task: str
    seed: int
    evaluation: int = 0
    digest: str = ""
    films: tuple[str, int] | None = None
    samples: bool = False

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from others of an evaluation."""
        return self.name, self.digest, self.task, self.seed

    @property
    def row(self) -> Row:
        """What its row begins with."""
        return {"name": self.name, "model": self.digest, "task": self.task, "seed": self.seed, "evaluation": self.evaluation}


def resets(tasks: Sequence[str], episodes: int, evaluations: Sequence[int]) -> list[tuple[int, str, int]]:
    """(evaluation seed, task, reset seed), the evaluation seeds one after the other, their tasks in turn."""
    if not 0 < episodes <= SEED_STEP:
        raise ValueError(f"{episodes} episodes a task and seed, 1 to {SEED_STEP} are possible")
    return [(e, task, FIRST_SEED + SEED_STEP * e + i) for e in evaluations for i in range(episodes) for task in tasks]


def run_jobs(log: RowLog, jobs: Sequence[Job], workers: int, run: Callable[[Job], Row] | None = None) -> list[Row]:
    """Rows of all jobs, those of earlier runs among them, in the jobs' order. 0 workers: in this process."""
    missing = log.missing(list(jobs), lambda job: job.key, _row_key)
    run = run or run_job
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), unit="episode", disable=not missing) as bar:
        if workers == 0:
            for job in missing:
                _keep(log, run(job), bar)
        elif missing:
            for row in results_of(run, missing, workers):
                _keep(log, row, bar)
    rows = {_row_key(row): row for row in log.rows}
    return [rows[job.key] for job in jobs]


def run_job(job: Job) -> Row:
    """One episode of the plain loop: what became of it."""
    loop = _loop(job.model)
    if loop.settings != job.settings:
        loop.configure(job.settings)
    result = loop.run(job.task, job.seed, keep_pictures=job.films is not None)
    if job.films is not None:
        from act2goal_ros.learning.films import film, wanted

        folder, most = Path(job.films[0]), job.films[1]
        if wanted(folder, result, most):
            film(folder, result, loop.imagination.decode)
    row = job.row | {"success": result.success, "success_time": result.success_time if result.success else None}
    row |= {"at_rest": result.at_rest, "distance": result.distance}
    if result.replaced_plans:
        row["replaced_plans"] = result.replaced_plans
    return row | ({"samples": [asdict(sample) for sample in result.samples]} if job.samples else {})


def _row_key(row: Row) -> tuple[str, str, str, int]:
    return row["name"], row["model"], row["task"], row["seed"]


def _keep(log: RowLog, row: Row, bar: Any) -> None:
    log.add(row)
    bar.update()
    of_name = [other["success"] for other in log.rows if (other["name"], other["model"]) == (row["name"], row["model"])]
    bar.set_postfix({row["name"]: f"{sum(of_name) / len(of_name):.3f} of {len(of_name)}"})


@cache
def _loop(model: str) -> "Loop":
    """This worker's loop with a model: building scene and networks takes seconds."""
    from act2goal_ros.learning.evaluate import Loop, LoopSettings
    from act2goal_ros.serving.bundle import ModelBundle

    return Loop(ModelBundle.load(model), LoopSettings(), arms=_arms())


@cache
def _arms() -> "dict[bool, SimulatedArm]":
    """Shared by this worker's loops."""
    return {}
