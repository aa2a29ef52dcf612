"""`act2goal drive`: a scripted expert moves the simulated arm through its topics, without any model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from act2goal_ros.nodes.expert import Drive


@click.command(short_help="A scripted expert drives the simulated arm.")
@click.option("--task", default="cube-single-1", show_default=True, help="Task of the simulated arm.")
@click.option("--episodes", default=1, show_default=True, type=click.IntRange(1, 10000))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**31 - 1), help="Of the first episode.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds an episode may take.")
@click.option("--namespace", default="", help="Of the simulated arm.")
@click.option("--start/--no-start", default=True, show_default=True, help="Start the simulated arm where none answers.")
def command(task: str, episodes: int, seed: int, timeout: float, namespace: str, start: bool) -> None:
    """Drive the simulated arm with a scripted expert, through the topics the policy uses.

    Shows that arm, controller and camera work, without any model. Ends with 1 unless every episode succeeded.
    """
    from act2goal_ros import graph

    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it for what they start in the background
    os.environ.update(graph.environment(graph.Settings.parse({})))
    from act2goal_ros.control.robot import RobotConfig
    from act2goal_ros.nodes.expert import DriveError, ExpertDriver, ros

    drives: list[Drive] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(ros())
        driver = stack.enter_context(contextlib.closing(ExpertDriver(RobotConfig.load("ur5e_sim"), namespace)))
        if not driver.wait_for_arm(2.0) and start:
            click.echo("no simulated arm answers: starting one")
            stack.enter_context(_arm(namespace))
        try:
            if not driver.wait_for_arm(60.0 if start else 5.0):
                raise DriveError("no simulated arm answers; start one: act2goal drive --start")
            for k in range(episodes):
                drives.append(driver.drive(task, seed + k, timeout))
                click.echo(_line(drives[-1]))
        except DriveError as error:
            raise click.ClickException(str(error)) from error
    succeeded = sum(drive.success for drive in drives)
    click.echo(f"{succeeded} of {len(drives)} episodes succeeded")
    sys.exit(succeeded < len(drives))


def _line(drive: Drive) -> str:
    outcome = "success" if drive.success else "FAILED"
    rest = "at rest and released" if drive.at_rest else "not at rest or not released"
    return (
        f"{drive.task} seed {drive.seed}: {outcome}, {rest}, {drive.duration:.1f} s, largest tracking error "
        f"{drive.largest_error:.3f} rad, real-time factor {drive.real_time_factor:.3f}"
    )


@contextlib.contextmanager
def _arm(namespace: str) -> Iterator[None]:
    """A simulated arm that ends with this command."""
    from act2goal_ros.launcher import executable

    remap = ["-r", f"__ns:=/{namespace.strip('/')}"] if namespace else []
    process = subprocess.Popen([executable("simulated_arm"), "--ros-args", "-p", "autostart:=true", *remap])
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
