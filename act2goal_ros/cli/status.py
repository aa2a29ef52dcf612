"""`act2goal status`: what the graph is doing, in the terminal, until Ctrl-C."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from act2goal_ros.data.pictures import Rgb
    from act2goal_ros.nodes.listener import NodeRow, Snapshot

REFRESH = 0.25  # s
LEVELS = ("green", "yellow", "red", "cyan")
GOALS = {"ACTIVE": "bold cyan", "REACHED": "bold green", "CANCELED": "yellow", "FAILED": "bold red", "NONE": "dim"}
PREVIEW = 32  # columns


@click.command(short_help="Show what the graph is doing.")
@click.option("--namespace", default="", help="Of the graph.")
@click.option("--discovery", default="localhost", type=click.Choice(["localhost", "subnet"]), show_default=True)
@click.option("--once", is_flag=True, help="Listen for a few seconds, print once, and end.")
@click.option("--preview", is_flag=True, help="Show the live frame and the goal as well.")
def command(namespace: str, discovery: str, once: bool, preview: bool) -> None:
    """Show state, goal, progress, rates, latencies, drops and the reason of any stop, until Ctrl-C."""
    from act2goal_ros import graph

    os.environ.update(graph.environment(graph.Settings.parse({"discovery": discovery})))
    from act2goal_ros.nodes.listener import Listener

    listener = Listener(namespace, preview)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        if once:
            listener.spin(3.0)
            Console().print(render(listener.snapshot()))
            sys.exit(not listener.snapshot().nodes)
        with Live(render(listener.snapshot()), auto_refresh=False, transient=False) as display:
            while not ended.is_set():
                listener.spin(REFRESH)
                display.update(render(listener.snapshot()), refresh=True)
    finally:
        listener.close()


def render(snapshot: Snapshot) -> RenderableType:
    """The whole display."""
    parts: list[RenderableType] = [_headline(snapshot), _goal(snapshot), _figures(snapshot), _nodes(snapshot.nodes)]
    if snapshot.live is not None or snapshot.goal_image is not None:
        parts.insert(2, _pictures(snapshot))
    return Group(*parts)


def _headline(s: Snapshot) -> RenderableType:
    if not s.nodes:
        return Panel(Text("no node of a graph is heard: is it running, in this domain and namespace?", "yellow"))
    if s.stop is not None:
        starting = s.stop[0] == "INACTIVE"
        text = Text("NOT READY  " if starting else "STOPPED  ", "bold yellow" if starting else "bold red")
        text.append(f"{s.stop[0]}: {s.stop[1]}", "default")
    elif s.control_reason is not None:
        text = Text(f"{s.control or 'IDLE'}  ", "bold yellow").append(
            ": ".join(filter(None, s.control_reason)), "default"
        )
    else:
        text = Text(
            s.control or ("READY" if s.supervised else "NO SUPERVISOR"), "bold green" if s.supervised else "yellow"
        )
    return Panel(text, title="arm", title_align="left")


def _goal(s: Snapshot) -> RenderableType:
    words = Text(s.goal_state, GOALS.get(s.goal_state, "default"))
    if s.goal_state == "NONE":
        return Panel(
            words.append("  show one: act2goal goal send --image FILE", "dim"), title="goal", title_align="left"
        )
    words.append(f"  {s.goal_source}", "default").append(f"  {s.goal_id}", "dim")
    if not math.isnan(s.elapsed):
        words.append(f"  for {s.elapsed:.0f} s", "default")
    bar = Table.grid(padding=(0, 1))
    done = 0.0 if math.isnan(s.progress) else 100.0 * s.progress
    bar.add_row(
        ProgressBar(total=100.0, completed=done, width=40),
        _number(done if not math.isnan(s.progress) else s.progress, "%", 0),
        Text("time to goal", "dim"),
        _number(s.time_to_goal, "s", 1),
    )
    return Panel(Group(words, bar), title="goal", title_align="left")


def _figures(s: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    rates = [f"{name} {value:.0f} Hz" for name, value in s.rates.items()]
    table.add_row(Text("rates", "dim"), "  ".join(rates))
    delays = [f"{name} {p50:.1f} / {p99:.1f} ms" for name, (p50, p99) in s.latencies.items()]
    table.add_row(Text("p50 / p99", "dim"), "  ".join(delays) or "–")
    drops = [f"{row.name}: {cause} {number}" for row in s.nodes for cause, number in row.drops.items() if number]
    missed = f"missed ticks {s.missed} of {s.ticks}" if s.ticks else ""
    table.add_row(Text("dropped", "dim"), "  ".join(filter(None, [missed, *drops])) or "nothing")
    if not math.isnan(s.real_time_factor):
        verdict = "" if s.success is None else ("  task solved" if s.success else "  task not solved")
        table.add_row(Text("simulation", "dim"), f"real-time factor {s.real_time_factor:.3f}{verdict}")
    if s.backend:
        table.add_row(Text("backend", "dim"), s.backend)
    return Panel(table, title="figures", title_align="left")


def _nodes(rows: tuple[NodeRow, ...]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(
            row.name, Text(row.state, LEVELS[row.level]), Text(row.message, overflow="ellipsis", no_wrap=True)
        )
    return Panel(table, title="nodes", title_align="left")


def _pictures(s: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    named = [(name, rgb) for name, rgb in (("live", s.live), ("goal", s.goal_image)) if rgb is not None]
    table.add_row(*(Text(name, "dim") for name, _ in named))
    table.add_row(*(blocks(rgb, PREVIEW) for _, rgb in named))
    return table


def blocks(rgb: Rgb, columns: int) -> Text:
    """A picture as coloured half blocks, two rows of pixels to a line."""
    import numpy as np

    height, width = rgb.shape[:2]
    lines = max(1, round(columns * height / width / 2))
    rows = (np.arange(2 * lines) + 0.5) * height / (2 * lines)
    across = (np.arange(columns) + 0.5) * width / columns
    small = rgb[rows.astype(int)][:, across.astype(int)]
    text = Text()
    for top, bottom in zip(small[0::2], small[1::2], strict=True):
        for a, b in zip(top, bottom, strict=True):
            text.append("▀", f"rgb({a[0]},{a[1]},{a[2]}) on rgb({b[0]},{b[1]},{b[2]})")
        text.append("\n")
    return text


def _number(value: float, unit: str, digits: int) -> Text:
    return Text("–" if math.isnan(value) else f"{value:.{digits}f} {unit}")
