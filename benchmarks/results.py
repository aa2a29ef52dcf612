"""Where the figures of the benchmarks go: docs/results/*.json, a part's figures replacing its older ones."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import click
import psutil

from act2goal_ros.serving.bundle import ModelBundle

ROOT = Path(__file__).resolve().parent.parent
WIDE = {"avx512f": "AVX-512", "amx_bf16": "AMX"}  # what decides how fast small networks are on a CPU
RESULTS = ROOT / "docs" / "results"


def hardware() -> str:
    """Processor, cores, wide instructions, memory, GPU."""
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    found = {name.strip(): value.strip() for name, value in reversed(lines)}
    wide = [text for flag, text in WIDE.items() if flag in found.get("flags", "").split()]
    of = " with ".join([found.get("model name", "?"), *([" and ".join(wide)] if wide else [])])
    return f"{os.cpu_count()} cores of {of}, {psutil.virtual_memory().total / 2**30:.0f} GiB, {gpu()}"


def gpu() -> str:
    """The first NVIDIA GPU's name, or that there is none."""
    try:
        found = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True).stdout
    except OSError:
        found = ""
    return found.splitlines()[0] if found.strip() else "no GPU"


def origin() -> dict[str, str]:
    """Hardware, commit and date of what is measured now."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    return {"hardware": hardware(), "commit": commit, "date": date.today().isoformat()}


@cache
def shipped() -> str:
    """The first digits of the shipped weights' hash."""
    return ModelBundle.load(ROOT / "models" / "act2goal-tiny").hash[:12]


def former(entry: Mapping[str, Any]) -> bool:
    """Whether a part's figures are of other weights than those that are shipped."""
    return entry.get("model") != shipped()


def says_former(entry: Mapping[str, Any] | None) -> bool:
    """Whether an entry itself says of which weights it is, and they are not the shipped ones."""
    return bool(entry) and "model" in entry and former(entry)


def load(name: str) -> dict[str, Any]:
    """docs/results/<name>.json; empty where there is none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def merge(name: str, values: dict[str, Any]) -> None:
    """Into docs/results/<name>.json; other keys stay."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(load(name) | values, indent=2) + "\n")


def command(part: str) -> dict[str, Any]:
    """The command that runs this part and where that was done, by the keys they are kept under; no folder of this machine in it."""
    arguments = " ".join(map(_without_folder, sys.argv[1:]))
    return {f"command.{part}": f"python {_script()} {arguments}", f"origin.{part}": origin()}


def commands(result: dict[str, Any]) -> list[str]:
    """A line for each part: its command, and where and when it was run."""
    lines = []
    for key in sorted(key for key in result if key.startswith("command.")):
        found = result.get(key.replace("command.", "origin.", 1), {})
        lines.append(f"- `{result[key]}`: {', '.join(str(found[name]) for name in ('hardware', 'commit', 'date') if name in found)}")
    return lines


def _script() -> str:
    path = Path(sys.argv[0]).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else f"benchmarks/{path.name}"


def _without_folder(argument: str) -> str:
    start, equals, value = argument.rpartition("=")
    return start + equals + (Path(value).name if value.startswith("/") else value)


def write(name: str, keys: Iterable[str], values: dict[str, Any]) -> None:
    """Merges into docs/results/<name>.json and shows it; of `keys`, what was never measured is null."""
    merge(name, dict.fromkeys(keys) | load(name) | values | origin())
    click.echo(json.dumps(values, indent=2))
