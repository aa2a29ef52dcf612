"""Success of a policy of train.py on the official tasks, in the plain loop, into docs/results/learning.json under `baselines`.

    python benchmarks/cloning/evaluate.py gcbc runs/gcbc --env cube-single

Chunks every frame, averaged as ACT averages its own (temporal ensembling), through the same stream, limits and delay as this project's.
"""

import hashlib
import json
import sys
from functools import cache
from pathlib import Path

import click
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from learning import EPISODES, episodes_option, store, workers_option  # noqa: E402
from plain import Episode  # noqa: E402

from act2goal_ros.control.chunk import ActionChunk, Array  # noqa: E402
from act2goal_ros.control.robot import RobotConfig  # noqa: E402
from act2goal_ros.learning.evaluate import LoopSettings  # noqa: E402
from act2goal_ros.learning.execution import StreamExecution  # noqa: E402
from act2goal_ros.learning.jobs import Job, resets, run_jobs  # noqa: E402
from act2goal_ros.learning.rowlog import CRITERION, Row, RowLog  # noqa: E402
from act2goal_ros.learning.statistics import summary  # noqa: E402
from act2goal_ros.serving.backends import make_runner  # noqa: E402
from act2goal_ros.serving.imagination import picture_input  # noqa: E402
from act2goal_ros.sim.arm import SimulatedArm  # noqa: E402
from act2goal_ros.sim.tasks import ENVIRONMENTS, official_tasks  # noqa: E402

SETTINGS = LoopSettings(join="ensemble")
STEP = 0.05  # s between rows


class Cloned:
    """A policy on ONNX Runtime, one thread, and an arm it moves."""

    def __init__(self, path: Path) -> None:
        self._network = make_runner(path)
        self._arm, self._limits = SimulatedArm(), RobotConfig.load("ur5e_sim").limits

    def run(self, job: Job) -> Row:
        """An episode."""
        arm = self._arm
        picture = arm.reset(job.task, job.seed)
        goal = picture_input(picture, len(picture))

        def act(now: float, prefix: Array | None) -> ActionChunk:
            state = np.concatenate([arm.joint_positions, arm.joint_velocities, [arm.gripper_position]])
            live = picture_input(arm.render(), len(picture))
            out = self._network({"live": live, "goal": goal, "state": state[None].astype(np.float32)})
            rows = np.asarray(out["actions"], np.float64)[0]
            return ActionChunk(now, STEP, rows[:, :-1], np.clip(rows[:, -1], 0.0, 1.0))

        execution = StreamExecution(self._limits, arm.joint_positions, STEP, SETTINGS.join)
        episode = Episode(arm, execution, act, SETTINGS.frame_period, SETTINGS.delay)
        time, at_rest = episode.run(job.settings.until_success)
        return job.row | {"success": time is not None, "success_time": time, "at_rest": at_rest}


@cache
def _cloned(path: str) -> Cloned:
    return Cloned(Path(path))


def run_cloned(job: Job) -> Row:
    """In a worker."""
    return _cloned(job.model).run(job)


@click.command()
@click.argument("name")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--env", "environment", default="cube-single", show_default=True, type=click.Choice(ENVIRONMENTS))
@click.option("--seeds", default=3, show_default=True, help="Evaluation seeds.")
@episodes_option
@workers_option
def main(name: str, run: Path, environment: str, seeds: int, episodes: int, workers: int) -> None:
    """Run the official tasks with the policy of RUN."""
    path = run / "policy.onnx"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = resets(official_tasks(environment), episodes, range(seeds))
    jobs = [Job(name, str(path), SETTINGS, task, seed, evaluation, digest) for evaluation, task, seed in wanted]
    with RowLog(EPISODES / f"baseline_{name}.jsonl", {"baseline": name, "environment": environment} | CRITERION) as log:
        rows = run_jobs(log, jobs, workers, run_cloned)
    about = json.loads((run / "about.json").read_text())
    store("baselines", {name: summary(rows) | {"environment": environment, "about": about, "model": digest[:12]} | CRITERION}, name)


if __name__ == "__main__":
    main()
