"""Success of an action expert that is told where things are: within minutes, without pictures and without a world model.

CHECKPOINT is acting.pt, acting-training.pt or stage1.pt of a training, or a model folder. What it is told is as wrong as networks are.
As it acts without a plan, this says what the expert can do at best, not what the policy does: `act2goal eval` says that.
"""

from pathlib import Path

import click
import numpy as np
from plain import Episode
from tqdm import tqdm

from act2goal_ros.control.chunk import ActionChunk, Array
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.learning.acting import ToldPolicy
from act2goal_ros.learning.dataset import KEYPOINTS
from act2goal_ros.learning.execution import StreamExecution
from act2goal_ros.learning.jobs import resets
from act2goal_ros.learning.simulate import somewhat_wrong
from act2goal_ros.learning.statistics import wilson
from act2goal_ros.serving.policy import Proprio
from act2goal_ros.sim.arm import SimulatedArm
from act2goal_ros.sim.tasks import ENVIRONMENTS, official_tasks

TOLD_ERROR = 0.003  # of the picture's width, standard deviation: 0.4 pixels of 128
STEPS_TO_GOAL = 80.0  # what it is told of the time, whatever that is
CHUNK_PERIOD, DELAY, STEP = 0.08, 0.04, 0.05  # s


class BlindArm(SimulatedArm):
    """Renders nothing, which is most of an episode's time."""

    def render(self, data: object = None) -> np.ndarray:
        """One black pixel."""
        return np.zeros((1, 1, 3), np.uint8)


def run(arm: SimulatedArm, policy: ToldPolicy, robot: RobotConfig, task: str, seed: int, until_success: bool) -> tuple[bool, bool]:
    """An episode with the plain loop's timing, but a chunk at every second frame: whether it succeeded, and whether it ended so, at rest
    and released; the latter is false if it was ended at success."""
    arm.reset(task, seed)
    random = np.random.default_rng(seed)

    def told(keypoints: np.ndarray) -> np.ndarray:
        return somewhat_wrong(keypoints, random, TOLD_ERROR)

    goal = told(arm.goal_keypoints(KEYPOINTS))

    def act(now: float, prefix: Array | None) -> ActionChunk:
        proprio = Proprio(arm.joint_positions, arm.joint_velocities, arm.gripper_position)
        rows = policy.chunk(told(arm.keypoints(KEYPOINTS)), goal, proprio, STEPS_TO_GOAL, prefix)
        return ActionChunk(now, STEP, rows[:, :-1], np.clip(rows[:, -1], 0.0, 1.0))

    time, at_rest = Episode(arm, StreamExecution(robot.limits, arm.joint_positions, STEP), act, CHUNK_PERIOD, DELAY).run(until_success)
    return time is not None, bool(at_rest)


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--env", "environments", default=ENVIRONMENTS, show_default=True, multiple=True, type=click.Choice(ENVIRONMENTS))
@click.option("--episodes", default=10, show_default=True, help="Resets of each task.")
@click.option("--until-success", is_flag=True, help="End episodes at success; rest at the end is then not known.")
def main(checkpoint: Path, environments: tuple[str, ...], episodes: int, until_success: bool) -> None:
    """Run the official tasks."""
    policy, arm, robot = ToldPolicy(checkpoint), BlindArm(), RobotConfig.load("ur5e_sim")
    for environment in environments:
        tasks, rested = official_tasks(environment), 0
        won = dict.fromkeys(tasks, 0)
        for _, task, seed in tqdm(resets(tasks, episodes, range(1)), desc=environment, leave=False):
            success, at_rest = run(arm, policy, robot, task, seed, until_success)
            won[task] += success
            rested += at_rest
        count, total = len(tasks) * episodes, sum(won.values())
        low, high = wilson(total, count)
        rest = "" if until_success else f", at rest and released {rested}"
        each = ", ".join(map(str, won.values()))
        click.echo(f"{environment}: {total} of {count} ({100 * low:.0f} – {100 * high:.0f} %), by task {each} of {episodes}{rest}")


if __name__ == "__main__":
    main()
