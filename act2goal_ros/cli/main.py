"""The command line: finds its subcommands by the names of the files beside it and loads one only when it is called."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import click

import act2goal_ros.cli


class Subcommands(click.Group):
    """A click group whose commands are the modules of act2goal_ros.cli, loaded lazily."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands, sorted."""
        modules = pkgutil.iter_modules(act2goal_ros.cli.__path__)
        return sorted(module.name.replace("_", "-") for module in modules if module.name != "main")

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one subcommand, or None where there is no module of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"act2goal_ros.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Describe every subcommand by its module's docstring, so that help imports none of them."""
        folder = Path(__file__).parent
        names = self.list_commands(ctx)
        texts = [ast.get_docstring(ast.parse((folder / f"{name.replace('-', '_')}.py").read_text())) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl([(name, (text or "").partition("\n")[0]) for name, text in zip(names, texts, strict=True)])


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="act2goal_ros")
def main() -> None:
    """Show a robot arm a picture of the goal; it imagines the way and carries it out."""


if __name__ == "__main__":
    main()
