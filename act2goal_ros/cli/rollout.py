"""Lists recorded rollouts, shows one, and measures how often "reached" was right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import click
import numpy as np

from act2goal_ros.control.progress import ReachedLimits, ReachedSample, score_detector
from act2goal_ros.data.bag import BagError
from act2goal_ros.data.rollout import Rollout, default_root, describe, directories, find, read

MB = 1e6
ROOT = click.option("--root", type=click.Path(file_okay=False, path_type=Path), default=default_root, help="Where rollouts are kept.")


@click.group(name="rollout")
def command() -> None:
    """List recorded rollouts, show one, and measure how often "reached" was right."""


@command.command(name="list")
@ROOT
def list_rollouts(root: Path) -> None:
    """List all rollouts, oldest first."""
    found = list(_describe_all(root))
    for rollout in found:
        began = datetime.fromtimestamp(rollout.start).strftime("%Y-%m-%d %H:%M:%S") if rollout.start else "-" * 19
        success = {"True": "success", "False": "no success"}.get(rollout.facts.get("sim_success", ""), "")
        click.echo(f"{began}  {rollout.duration:6.1f} s  {rollout.bytes / MB:8.1f} MB  {rollout.outcome:<12} {success:<10}  {rollout.name}")
    total = sum(r.bytes for r in found) / MB
    click.echo(f"{len(found)} rollouts, {total:.1f} MB, in {root}")


@command.command()
@click.argument("rollout", required=False)
@ROOT
def show(rollout: str | None, root: Path) -> None:
    """Show what is known of ROLLOUT (a path, a name or a part of one; default: the newest)."""
    try:
        found = find(root, rollout)
        counts = _counts(found) if found.complete else Counter[str]()
    except BagError as error:
        raise click.ClickException(str(error)) from error
    click.echo(found.directory)
    facts = {"outcome": found.outcome, **found.facts, "messages": found.messages, "size_mb": f"{found.bytes / MB:.1f}"}
    for key, value in facts.items():
        click.echo(f"  {key:<26} {value}")
    for topic, count in sorted(counts.items()):
        rate = count / found.duration if found.duration > 0 else 0.0
        click.echo(f"  {topic:<52} {count:6d}  {rate:6.1f} Hz")


@command.command()
@ROOT
@click.option("--time-to-goal", multiple=True, type=float, default=(1.2,), show_default=True, help="s, at most; several: a row each.")
@click.option("--progress", default=0.0, show_default=True, help="0 .. 1, at least.")
@click.option("--goal-distance", default=float("inf"), show_default=True, help="RMS of the latents, at most.")
@click.option("--speed", default=0.05, show_default=True, help="rad/s of the fastest joint, at most.")
@click.option("--hold", default=0.5, show_default=True, help="s all of it must hold.")
def reached(root: Path, time_to_goal: tuple[float, ...], progress: float, goal_distance: float, speed: float, hold: float) -> None:
    """Count how often the reached detector would have been right on the recorded rollouts of the simulated arm.

    Rollouts that ended because a goal counted as reached show nothing of what would have followed: for stricter limits than theirs,
    record with a detector that never fires (goal: reached_time_to_goal 0).
    """
    rollouts = [samples for r in _describe_all(root) if r.complete and (samples := reached_samples(r))]
    others = f"progress ≥ {progress:g}, goal distance ≤ {goal_distance:g}, speed ≤ {speed:g} rad/s, hold {hold:g} s"
    click.echo(f"{len(rollouts)} rollouts in {root}; {others}")
    click.echo("time to goal ≤   right  wrong (of detections)  missed (of reached)  silent   detected after success p50 / p95")
    for seconds in time_to_goal:
        limits = ReachedLimits(time_to_goal=seconds, progress=progress, goal_distance=goal_distance, speed=speed, hold=hold)
        score = score_detector(rollouts, limits)
        p50, p95 = np.percentile(score.latency, [50, 95]) if score.latency else (float("nan"), float("nan"))
        click.echo(
            f"{seconds:12.2f} s {score.true_positive:7d} {score.false_positive:6d} ({100 * score.false_positive_rate:5.1f} %)"
            f" {score.false_negative:14d} ({100 * score.false_negative_rate:5.1f} %) {score.true_negative:8d}"
            f"   {p50:.2f} s / {p95:.2f} s"
        )


def reached_samples(rollout: Rollout) -> list[ReachedSample]:
    """What a detector would have seen of a rollout, with the simulator's success as the truth; empty without sim/state.

    Joints whose names do not appear in the commands (the gripper's) do not count.
    """
    speed, truth, known, arm = float("nan"), False, False, list[str]()
    samples: list[ReachedSample] = []
    for received in read(rollout.directory, ["joint_states", "sim/state", "progress", "joint_trajectory"]):
        message = received.message
        if received.topic == "joint_trajectory":
            arm = arm or [str(name) for name in message.joint_names]
        elif received.topic == "joint_states":
            pairs = zip(message.name, message.velocity, strict=False)
            speed = max((abs(float(v)) for name, v in pairs if not arm or name in arm), default=float("nan"))
        elif received.topic == "sim/state":
            truth, known = bool(message.success), True
        elif known:
            values = (message.time_to_goal, message.progress, message.goal_distance)
            samples.append(ReachedSample(
                time=received.time, time_to_goal=values[0], progress=values[1], goal_distance=values[2], speed=speed, truth=truth,
            ))  # fmt: skip
    return samples


def _describe_all(root: Path) -> Iterator[Rollout]:
    for directory in directories(root):
        try:
            yield describe(directory)
        except BagError as error:
            click.echo(f"{error}", err=True)


def _counts(rollout: Rollout) -> Counter[str]:
    """Messages by topic, without decoding any."""
    counts: Counter[str] = Counter()

    def note(topic: str, _: float) -> bool:
        counts[topic] += 1
        return False

    for _ in read(rollout.directory, None, note):
        pass
    return counts
