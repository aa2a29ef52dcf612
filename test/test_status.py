"""What the status display shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from rich.console import Console

from act2goal_ros.cli.status import blocks, render
from act2goal_ros.nodes.listener import NodeRow, Snapshot

RUNNING = Snapshot(
    supervised=True,
    goal_state="ACTIVE",
    goal_id="abc",
    goal_source="cup.png",
    elapsed=7.2,
    progress=0.43,
    time_to_goal=3.21,
    control="RUNNING",
    rates={"camera": 25.0, "imagination": 5.0, "policy": 24.6},
    latencies={"policy tick": (11.0, 19.5), "camera → command": (21.3, 44.4)},
    missed=2,
    ticks=500,
    backend="onnxruntime cpu",
    real_time_factor=0.998,
    success=False,
    nodes=(NodeRow("goal", "active", 0, "pursued", {}), NodeRow("policy", "active", 0, "running", {"stale_image": 3})),
)


def shown(snapshot: Snapshot) -> str:
    """The display as plain text."""
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(snapshot))
    return console.export_text()


def test_a_running_graph() -> None:
    text = shown(RUNNING)
    for part in (
        "RUNNING",
        "ACTIVE  cup.png  abc  for 7 s",
        "43 %",
        "time to goal 3.2 s",
        "camera 25 Hz  imagination 5 Hz  policy 25 Hz",
        "policy tick 11.0 / 19.5 ms  camera → command 21.3 / 44.4 ms",
        "missed ticks 2 of 500  policy: stale_image 3",
        "real-time factor 0.998  task not solved",
        "onnxruntime cpu",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"nodes": ()}, "no node of a graph is heard"),
        ({"stop": ("NODE_LOST", "policy ended (process 7)")}, "STOPPED  NODE_LOST: policy ended (process 7)"),
        ({"stop": ("INACTIVE", "msth is inactive")}, "NOT READY  INACTIVE: msth is inactive"),
        ({"control": "BRAKING", "control_reason": ("STALE_IMAGE", "0.4 s")}, "BRAKING  STALE_IMAGE: 0.4 s"),
        ({"control": "HOLDING", "control_reason": ("NO_GOAL", "")}, "HOLDING  NO_GOAL"),
        ({"goal_state": "NONE"}, "act2goal goal send --image FILE"),
        ({"goal_state": "REACHED", "elapsed": float("nan")}, "REACHED  cup.png  abc"),
        ({"progress": float("nan"), "time_to_goal": float("nan")}, "– time to goal –"),
        ({"control": "", "supervised": False}, "NO SUPERVISOR"),
        ({"nodes": (NodeRow("msth", "silent", 2, "no heartbeat for 3 s", {}),)}, "msth  silent  no heartbeat for 3 s"),
    ],
)
def test_other_states(change: dict[str, object], part: str) -> None:
    assert part in shown(dataclasses.replace(RUNNING, **change))  # type: ignore[arg-type]


def test_pictures_are_shown_side_by_side() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    assert "▀" not in shown(RUNNING)
    assert "▀" * 32 in shown(dataclasses.replace(RUNNING, live=picture, goal_image=picture))


def test_blocks_hold_the_colours_of_the_picture() -> None:
    rgb = np.zeros((8, 8, 3), np.uint8)
    rgb[:4] = (250, 10, 20)
    text = blocks(rgb, 4)
    assert text.plain == "▀▀▀▀\n▀▀▀▀\n"
    assert str(text.spans[0].style) == "rgb(250,10,20) on rgb(250,10,20)"
    assert str(text.spans[-1].style) == "rgb(0,0,0) on rgb(0,0,0)"
