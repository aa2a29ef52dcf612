"""Trains a policy that sees the goal's picture itself on this project's data, and writes it as ONNX, to be compared with it.

    python benchmarks/cloning/train.py data/single runs/gcbc --policy gcbc --minutes 60
    PYTHONPATH=. LEROBOT/bin/python benchmarks/cloning/train.py data/single runs/act --policy act --minutes 60 --batch 8

LEROBOT: an environment as benchmarks/lerobot/requirements.txt says. Goes on from RUN/cloned.pt where there is one.
"""

import json
from pathlib import Path

import click
import numpy as np
import torch
from policies import POLICIES, Policy
from samples import Clones, statistics

from act2goal_ros.learning.batches import Episodes
from act2goal_ros.learning.devices import PRECISIONS, make_fabric
from act2goal_ros.learning.fit import Cadence, Job, fit
from act2goal_ros.learning.schedule import Schedule
from act2goal_ros.model.config import PRESETS

HELD_OUT, SHOWN = 64, 4


def job(policy: Policy, clones: Clones, held_out: Clones) -> Job:
    """What is to be trained; the check is the loss of samples of held-out episodes, its picture some of them beside their goals."""

    def check() -> tuple[dict[str, float], np.ndarray]:
        samples = held_out.draw(HELD_OUT, np.random.default_rng(0))
        policy.eval()
        with torch.no_grad():
            error = (policy(samples.live, samples.goal, samples.state) - samples.actions).abs().mean(-1)
        policy.train()
        pairs = torch.cat([samples.live[:SHOWN], samples.goal[:SHOWN]], 3)
        picture = (255 * pairs.permute(0, 2, 3, 1)).flatten(0, 1).to(torch.uint8).numpy()
        return {"error": float((error * samples.weights).sum() / samples.weights.sum())}, picture

    return Job(name="cloned", module=policy, batch=lambda generator, count: clones.draw(count, generator), weights={"action": 1.0},
               groups=[{"params": list(policy.parameters())}], check=check)  # fmt: skip


def export(policy: Policy, path: Path) -> None:
    """As ONNX: live, goal (1, 3, H, W), state (1, S) → actions (1, R, A)."""
    pictures = torch.rand(2, 1, 3, *policy.config.picture_shape)
    example = (pictures[0], pictures[1], policy.state_mean[None])
    torch.onnx.export(policy.eval(), example, str(path), input_names=["live", "goal", "state"], output_names=["actions"],
                      opset_version=17, dynamo=False)  # fmt: skip


@click.command()
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.option("--policy", "name", required=True, type=click.Choice(list(POLICIES)))
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--steps", type=click.IntRange(1), help="Instead of minutes.")
@click.option("--batch", default=64, show_default=True, type=click.IntRange(1))
@click.option("--learning-rate", default=3e-4, show_default=True)
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(list(PRECISIONS)))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
def main(
    data: Path, run: Path, name: str, minutes: float, steps: int | None, batch: int, learning_rate: float, precision: str, threads: int
) -> None:
    """Train a policy on DATA in RUN; RUN/policy.onnx and RUN/about.json are written at the end."""
    torch.manual_seed(0)
    config, fabric = PRESETS["tiny"], make_fabric(precision=precision, threads=threads)
    episodes = Episodes(data, None, config)
    clones, held_out = (Clones(episodes, part, config, 0) for part in episodes.split())
    policy = POLICIES[name](config, statistics(clones))
    schedule = Schedule(minutes=minutes, steps=steps, batch=batch, learning_rate=learning_rate)
    run.mkdir(parents=True, exist_ok=True)
    done = fit(job(policy, clones, held_out), schedule, run, fabric, Cadence())
    export(policy, run / "policy.onnx")
    parameters = sum(parameter.numel() for parameter in policy.parameters())
    about = {"policy": name, "data": data.name, "episodes": len(episodes.all), "minutes": None if steps else minutes, "steps": done}
    about |= {"batch": batch, "learning_rate": learning_rate, "precision": precision, "threads": threads, "parameters": parameters}
    (run / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    click.echo(f"{run / 'policy.onnx'}: {name}, {parameters} parameters, {done} steps of {batch}")


if __name__ == "__main__":
    main()
