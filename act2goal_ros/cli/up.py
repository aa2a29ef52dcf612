"""`act2goal up`: starts the whole graph and shows its status until Ctrl-C."""

from __future__ import annotations

import sys

import click

from act2goal_ros import graph
from act2goal_ros.control.presence import NameTaken


def _print_arguments(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        for argument in graph.ARGUMENTS:
            click.echo(f"{argument.name}:={argument.default or chr(39) * 2}\n    {argument.explained}")
        ctx.exit()


def parse(words: tuple[str, ...]) -> dict[str, str]:
    """Return name → value from words of the form name:=value; raise graph.GraphError for any other."""
    for word in words:
        if ":=" not in word:
            raise graph.GraphError(f"'{word}' is not of the form name:=value")
    return dict(word.split(":=", 1) for word in words)


@click.command(short_help="Start the whole graph and show its status.")
@click.argument("arguments", nargs=-1, metavar="[NAME:=VALUE]...")
@click.option("--show-args", is_flag=True, is_eager=True, expose_value=False, callback=_print_arguments,
              help="List the launch arguments and end.")
@click.option("--display/--no-display", default=None, help="Status display, or the log; by default the display on a terminal.")
def command(arguments: tuple[str, ...], display: bool | None) -> None:
    """Start the whole graph, on the simulated arm unless told otherwise, and show its status until Ctrl-C.

    The launch arguments are those of `ros2 launch act2goal_ros bringup.launch.py`.
    """
    from act2goal_ros import launcher

    display = sys.stdout.isatty() if display is None else display
    try:
        settings = graph.Settings.parse(parse(arguments))
        log = launcher.Log(launcher.log_path(), echo=not display)
        click.echo(f"log: {log.path}")
        running = launcher.Launcher(settings, log)
    except (graph.GraphError, NameTaken) as error:
        raise click.ClickException(str(error)) from error
    if display:
        namespace = ["--namespace", settings.namespace] if settings.namespace else []
        running.add("status", [launcher.executable("act2goal"), "status", *namespace])
    code = running.run()
    if code:
        click.echo(f"ended because of a failed node; see {log.path}", err=True)
    sys.exit(code)
