"""`act2goal goal`: shows the robot a picture to reach, and waits for it; cancels."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from act2goal_msgs.action import ReachGoal

EXIT_CODES = {"REACHED": 0, "CANCELED": 3, "PREEMPTED": 3, "TIMED_OUT": 1, "BAD_GOAL": 2, "STOPPED": 1}
NOBODY = 4


@click.group(short_help="Show the robot a picture to reach; cancel.")
@click.option("--namespace", default="", help="Of the graph.")
@click.option("--discovery", default="localhost", type=click.Choice(["localhost", "subnet"]), show_default=True)
@click.pass_context
def command(ctx: click.Context, namespace: str, discovery: str) -> None:
    """Show the robot a picture to reach, and wait until it is there; Ctrl-C cancels.

    Exit codes: 0 reached (or canceled, for `cancel`), 1 timed out or stopped, 2 bad goal, 3 canceled or preempted,
    4 nobody answers.
    """
    from act2goal_ros import graph

    os.environ.update(graph.environment(graph.Settings.parse({"discovery": discovery})))
    ctx.obj = namespace


@command.command()
@click.option("--image", required=True, help="Picture file.")
@click.option("--timeout", default=0.0, help="Seconds; 0: the goal node's own.")
@click.pass_obj
def send(namespace: str, image: str, timeout: float) -> None:
    """Reach the state shown in a picture file."""
    _reach(namespace, image, timeout)


@command.command()
@click.option("--timeout", default=0.0, help="Seconds; 0: the goal node's own.")
@click.pass_obj
def live(namespace: str, timeout: float) -> None:
    """Make what the camera sees now the goal."""
    _reach(namespace, "", timeout)


@command.command()
@click.pass_obj
def cancel(namespace: str) -> None:
    """Cancel the goal that is pursued: the arm brakes and holds."""
    from act2goal_ros.nodes.goal_client import GoalClient, NoGoalNode

    with GoalClient(namespace) as client:
        try:
            _, message = client.cancel()
        except NoGoalNode as error:
            _end(str(error), NOBODY)
    click.echo(message)


def _reach(namespace: str, image: str, timeout: float) -> None:
    from act2goal_msgs.action import ReachGoal

    from act2goal_ros.data.pictures import ImageError
    from act2goal_ros.nodes.goal_client import GoalClient, NoGoalNode

    outcomes = {getattr(ReachGoal.Result, name): name for name in EXIT_CODES}
    feedback, interrupted = _Feedback(), threading.Event()

    def interrupt(number: int, _frame: object) -> None:
        interrupted.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, interrupt)
    with GoalClient(namespace) as client:
        try:
            result = client.reach(image, timeout, feedback.show, interrupted.is_set)
        except ImageError as error:
            _end(f"bad goal: {error}", EXIT_CODES["BAD_GOAL"])
        except NoGoalNode as error:
            _end(str(error), NOBODY)
    feedback.end()
    outcome = outcomes[result.outcome]
    words = outcome.lower().replace("_", " ")
    click.echo(f"{words} after {result.duration:.1f} s: {result.message}", err=outcome != "REACHED")
    sys.exit(EXIT_CODES[outcome])


class _Feedback:
    """One line that renews itself on a terminal; elsewhere a line a second."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._next = 0.0

    def show(self, feedback: ReachGoal.Feedback) -> None:
        """Prints what the goal node says."""
        from act2goal_ros.control.stop import StopReason

        if not self._terminal and feedback.elapsed < self._next:
            return
        self._next = feedback.elapsed + 1.0
        left = "" if math.isnan(feedback.time_to_goal) else f"  time to goal {feedback.time_to_goal:4.1f} s"
        line = f"{feedback.elapsed:6.1f} s  {feedback.progress:4.0%}{left}"
        if feedback.stop_reason.value:
            line += f"  {StopReason(feedback.stop_reason.value).name}: {feedback.stop_detail}"
        click.echo(f"\r\033[K{line[:110]}" if self._terminal else line, nl=not self._terminal)

    def end(self) -> None:
        """Leaves the line behind."""
        if self._terminal:
            click.echo()


def _end(message: str, code: int) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(code)
