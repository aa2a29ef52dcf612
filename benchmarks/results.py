"""Where the figures of the benchmarks go: docs/results/*.json, a part's figures replacing its older ones."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import click
import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"


def hardware() -> str:
    """Processor, cores, memory, GPU."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return f"{os.cpu_count()} cores of {model}, {psutil.virtual_memory().total / 2**30:.0f} GiB, no GPU"


def origin() -> dict[str, str]:
    """Hardware, commit and date of what is measured now."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    return {"hardware": hardware(), "commit": commit, "date": date.today().isoformat()}


def load(name: str) -> dict[str, Any]:
    """docs/results/<name>.json; empty where there is none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def merge(name: str, values: dict[str, Any]) -> None:
    """Into docs/results/<name>.json; other keys stay."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(load(name) | values, indent=2) + "\n")


def command(part: str) -> dict[str, str]:
    """The command that runs this part, by the key it is kept under; no folder of this machine in it."""
    arguments = " ".join(map(_without_folder, sys.argv[1:]))
    return {f"command.{part}": f"python benchmarks/{Path(sys.argv[0]).name} {arguments}"}


def _without_folder(argument: str) -> str:
    start, equals, value = argument.rpartition("=")
    return start + equals + (Path(value).name if value.startswith("/") else value)


def write(name: str, keys: Iterable[str], values: dict[str, Any]) -> None:
    """Merges into docs/results/<name>.json and shows it; of `keys`, what was never measured is null."""
    merge(name, dict.fromkeys(keys) | load(name) | values | origin())
    click.echo(json.dumps(values, indent=2))
