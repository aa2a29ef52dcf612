"""Results of benchmarks on disk: docs/results/<name>.json, each part merged into what is there, with hardware, commit and date."""

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


def command(part: str) -> dict[str, str]:
    """The command that runs this part, by the key it is kept under; no folder of this machine in it."""
    arguments = " ".join(Path(argument).name if argument.startswith("/") else argument for argument in sys.argv[1:])
    return {f"command.{part}": f"python benchmarks/{Path(sys.argv[0]).name} {arguments}"}


def write(name: str, keys: Iterable[str], values: dict[str, Any]) -> None:
    """Merges into docs/results/<name>.json; what was not measured yet is null."""
    path = RESULTS / f"{name}.json"
    result = dict.fromkeys(keys) | (json.loads(path.read_text()) if path.exists() else {})
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    result |= values | {"hardware": hardware(), "commit": commit, "date": date.today().isoformat()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    click.echo(json.dumps(values, indent=2))
