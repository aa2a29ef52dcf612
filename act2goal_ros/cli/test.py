"""`act2goal test`: linters, type checks, unit tests, then tests of nodes in real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS: tuple[tuple[str, list[str]], ...] = (
    ("ruff", ["-m", "ruff", "check", "."]),
    ("mypy", ["-m", "mypy"]),
    ("pytest", ["-m", "pytest", "-p", "no:cacheprovider"]),
)


@click.command(short_help="Run all tests.")
@click.argument("pytest_arguments", nargs=-1, type=click.UNPROCESSED)
def command(pytest_arguments: tuple[str, ...]) -> None:
    """Run linters, type checks and all tests of the checkout this is installed from; arguments go to pytest."""
    failed = []
    for name, arguments in STEPS:
        click.secho(f"── {name}", bold=True)
        started = time.monotonic()
        extra = list(pytest_arguments) if name == "pytest" else []
        code = subprocess.run([sys.executable, *arguments, *extra], cwd=ROOT, check=False).returncode
        click.echo(f"{name}: {'passed' if code == 0 else f'failed with exit code {code}'} in {time.monotonic() - started:.0f} s")
        if code:
            failed.append(name)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")
