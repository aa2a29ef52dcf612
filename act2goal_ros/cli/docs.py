"""`act2goal docs`: writes the tables of parameters, interfaces and commands in docs/ from the code, or checks them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from act2goal_ros import paths

if TYPE_CHECKING:
    from act2goal_ros.nodes.interfaces import Interface
    from act2goal_ros.nodes.parameters import Spec

NODES = ("camera", "goal", "imagination", "msth", "policy", "rollouts", "supervisor", "simulated_arm")
PARAMETERS, INTERFACES, COMMANDS = "parameters.md", "topics.md", "cli.md"
COLUMNS = ("parameter", "type", "default", "unit", "allowed", "live", "meaning")
NOTE = "<!-- Written by `act2goal docs`; do not edit. -->\n"


@click.command(short_help="Write or check the generated tables in docs/.")
@click.option("--check", is_flag=True, help="Change nothing; end with 1 where a file is not up to date.")
def command(check: bool) -> None:
    """Write docs/parameters.md, docs/topics.md and docs/cli.md from the parameter schemas, the list of interfaces and the commands."""
    folder = paths.share() / "docs"
    stale = [name for name, text in pages().items() if not _is(folder / name, text)]
    for name in stale:
        if check:
            click.echo(f"{folder / name} is not up to date: run `act2goal docs`", err=True)
        else:
            (folder / name).write_text(pages()[name], encoding="utf-8")
            click.echo(f"wrote {folder / name}")
    sys.exit(bool(stale) and check)


def pages() -> dict[str, str]:
    """The generated files by name."""
    return {PARAMETERS: parameters_page(), INTERFACES: interfaces_page(), COMMANDS: commands_page()}


def schema_of(node: str) -> type[Any]:
    """The parameter schema of a node: the class in its module whose name ends in Parameters."""
    module = importlib.import_module(f"act2goal_ros.nodes.{node}")
    found = [
        value
        for name, value in vars(module).items()
        if name.endswith("Parameters") and getattr(value, "__module__", "") == module.__name__
    ]
    if len(found) != 1:
        raise LookupError(f"{module.__name__} has {len(found)} classes named …Parameters, expected 1")
    schema: type[Any] = found[0]
    return schema


def parameters_page() -> str:
    """docs/parameters.md."""
    from act2goal_ros.nodes.parameters import NodeParameters, specs

    text = f"{NOTE}# Parameters\n\n"
    text += "*Live* parameters may change while the node runs, the others while it is unconfigured.\n"
    text += "\n## every node\n\n"
    text += "Also `autostart` (bool): come up without a supervisor; and ROS's own `use_sim_time`. Priorities: [realtime](realtime.md).\n\n"
    shared = specs(NodeParameters)
    text += _table(COLUMNS, [_parameter(spec) for spec in shared.values()])
    for node in NODES:
        own = [spec for spec in specs(schema_of(node)).values() if shared.get(spec.name) != spec]
        text += f"\n## {node}\n\n" + _table(COLUMNS, [_parameter(spec) for spec in own])
    return text


def _parameter(spec: Spec) -> tuple[str, ...]:
    allowed, live = spec.bounds.replace("|", "\\|"), "yes" if spec.runtime else ""
    return (f"`{spec.name}`", spec.type_name, _default(spec.default), spec.unit, allowed, live, spec.description)


def interfaces_page() -> str:
    """docs/topics.md."""
    from act2goal_ros.nodes import interfaces

    text = (
        f"{NOTE}# Topics, services, actions\n\n"
        "Names are relative to the graph's namespace. QoS names are those of `act2goal_ros/nodes/qos.py`.\n"
        "`<controller>` comes from the robot's file in config/robots/; with a real arm its driver stands where\n"
        "`simulated_arm` does. "
        "`display` is `act2goal status`.\n"
    )
    for title, rows, first, second in (
        ("Topics", interfaces.TOPICS, "from", "to"),
        ("Services", interfaces.SERVICES, "server", "clients"),
        ("Actions", interfaces.ACTIONS, "server", "clients"),
    ):
        with_qos = title == "Topics"
        head = ("name", "type", *(["QoS"] if with_qos else []), first, second, "meaning")
        text += f"\n## {title}\n\n" + _table(head, [_row(row, with_qos) for row in rows])
    return text


def commands_page() -> str:
    """docs/cli.md."""
    from act2goal_ros.cli.main import main

    text = f"{NOTE}# Commands\n\n`./act2goal …` in a checkout, `act2goal …` where the package is installed. Every command has `--help`.\n"
    with click.Context(main, info_name="act2goal") as context:
        return text + "".join(_commands(main, context))


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=context) as inner:
            if isinstance(command, click.Group):
                if command.params:
                    yield _command(command, inner)
                yield from _commands(command, inner)
            else:
                yield _command(command, inner)


def _command(command: click.Command, context: click.Context) -> str:
    """A section: usage, what it does, its options."""
    pieces = " ".join(command.collect_usage_pieces(context))
    text = f"\n## {context.command_path}\n\n`{context.command_path} {pieces}`\n\n{inspect.cleandoc(command.help or '')}\n"
    records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
    rows = [(f"`{names}`".replace("|", "\\|"), said.replace("|", "\\|")) for names, said in records if said and names != "-h, --help"]
    return text + ("\n" + _table(("option", "meaning"), rows) if rows else "")


def _row(interface: Interface, with_qos: bool) -> tuple[str, ...]:
    offered, used = (", ".join(names).replace("*", "all nodes") for names in (interface.offered_by, interface.used_by))
    qos = (interface.qos,) if with_qos else ()
    return (f"`{interface.name}`", interface.type, *qos, offered, used, interface.meaning)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else (str(value) or '""')


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
