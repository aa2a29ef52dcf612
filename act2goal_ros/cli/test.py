"""`act2goal test`: linters, type checks, all tests with Kilted and NumPy 2, and those of the nodes with Jazzy and NumPy 1.26."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

import click

from act2goal_ros.paths import CHECKOUT

NAMES = ("ruff", "mypy", "pytest", "jazzy")


@dataclass(frozen=True)
class Step:
    """One thing to run in the checkout; environment is what differs from this process's."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self) -> bool:
        """Run it, say how it went, and return whether it passed."""
        click.secho(f"── {self.name}", bold=True)
        started = time.monotonic()
        code = subprocess.run(self.command, cwd=CHECKOUT, env=os.environ | self.environment, check=False).returncode
        outcome = f"failed with exit code {code}" if code else "passed"
        click.echo(f"{self.name}: {outcome} in {time.monotonic() - started:.0f} s")
        return code == 0


def steps(arguments: tuple[str, ...]) -> list[Step]:
    """Return all steps; the arguments go to pytest.

    Jazzy runs in an environment of its own, as a robot has it (no torch), and leaves out the tests of the whole system.
    """
    python = sys.executable
    here = str(CHECKOUT / "act2goal")
    return [
        Step("ruff", [python, "-m", "ruff", "check", "."]),
        Step("mypy", [python, "-m", "mypy"]),
        Step("pytest", [python, "-m", "pytest", "-p", "no:cacheprovider", *arguments]),
        Step(
            "jazzy",
            [here, "test", "--only", "pytest", "--", "-m", "not system", *arguments],
            {"ACT2GOAL_ROS": "jazzy"},
        ),
    ]


@click.command(short_help="Run all tests.", context_settings={"ignore_unknown_options": True})
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Only these; default: all. jazzy builds a second environment.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def command(only: tuple[str, ...], pytest_arguments: tuple[str, ...]) -> None:
    """Run linters, type checks and all tests of the checkout this is installed from; arguments go to pytest."""
    if not (CHECKOUT / "test" / "conftest.py").is_file():
        raise click.ClickException(f"{CHECKOUT} is no checkout: it has no test/conftest.py")
    chosen = [step for step in steps(pytest_arguments) if step.name in (only or NAMES)]
    failed = [step.name for step in chosen if not step.run()]
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")
