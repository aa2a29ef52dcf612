"""Evaluations on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from act2goal_ros.learning.statistics import wilson

WIDTH = 100


def success_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Success and rest of each task and of all, with Wilson intervals (95 %)."""
    table = Table("task", title=title, title_justify="left")
    for heading in ("episodes", "success", "95 %", "at rest, released", "95 %"):
        table.add_column(heading, justify="right")
    tasks = sorted({row["task"] for row in rows})
    for task in tasks:
        table.add_row(task, *_cells([row for row in rows if row["task"] == task]))
    if len(tasks) > 1:
        table.add_section()
        table.add_row("all", *_cells(rows))
    return _text(table)


def variant_table(title: str, summaries: Mapping[str, Mapping[str, Any]], differences: Mapping[str, Mapping[str, float]]) -> str:
    """A row a variant; `differences`: each one's paired difference in success from the first, in points."""
    table = Table("variant", title=title, title_justify="left")
    for heading in ("episodes", "success", "95 %", "at rest, released", "less than the first, paired"):
        table.add_column(heading, justify="right")
    for name, found in summaries.items():
        lost = differences.get(name)
        points = "" if lost is None else f"{100 * lost['difference']:+.1f} ({100 * lost['low']:+.1f} to {100 * lost['high']:+.1f})"
        rest = "" if found["at_rest_rate"] is None else f"{100 * found['at_rest_rate']:.1f} %"
        table.add_row(name, str(found["episodes"]), f"{100 * found['success_rate']:.1f} %", _interval(found["interval"]), rest, points)
    return _text(table)


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = [str(len(rows))]
    for name in ("success", "at_rest"):
        if any(row[name] is None for row in rows):  # ended at success
            cells += ["", ""]
            continue
        count = sum(bool(row[name]) for row in rows)
        cells += [f"{100 * count / len(rows):.1f} %", _interval(wilson(count, len(rows)))]
    return cells


def _interval(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"


def _text(table: Table) -> str:
    console = Console(width=WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip()
