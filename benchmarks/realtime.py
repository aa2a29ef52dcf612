"""The real-time benchmark: the policy's tick alone, what the graph adds to it, and swaps of adapters while it runs.

Writes docs/results/realtime.json, part by part; benchmarks/report.py makes docs/benchmarks.md of it.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import results
from bringup import DURATION, served
from graph_client import GraphClient
from speed import spread, tick
from tqdm import tqdm

from act2goal_ros.cli.eval import TASKS

KEYS = (
    "tick_ms", "graph_overhead_ms", "missed_tick_fraction_50hz", "idle_ticks", "lerobot", "delay_sweep", "success_lost_at_200ms",
    "hot_swap_missed_ticks", "gpu",
)  # fmt: skip
SWAP_PERIOD = 0.5  # s
MODEL = "act2goal-tiny"


def work(client: GraphClient, seconds: float, what: str) -> None:
    """Episodes one after another for about so long."""
    started, seed = time.monotonic(), 6000
    with tqdm(total=round(seconds), unit="s", desc=what) as bar:
        while time.monotonic() - started < seconds:
            client.episode(TASKS[seed % len(TASKS)], seed, DURATION)
            seed += 1
            bar.n = round(time.monotonic() - started)
            bar.refresh()


def overhead(seconds: float) -> dict[str, Any]:
    """Where the time from a camera frame's stamp to its first command goes, frame by frame; ms.

    stamp → published: the simulated camera renders (a real one exposes and reads out); → arrived at the policy: transport;
    inference; the rest: hand-overs between threads, joining, limits, messages. graph: all but the camera and inference.
    """
    with served() as (_, client):
        client.watch_frames()
        work(client, seconds, "overhead")
        seen = [(client.frames[stamp], c) for stamp, c in client.chunks if c.command_ms > 0 and stamp in client.frames]
    rows = [(published, c.arrival_ms, c.inference_ms, c.command_ms) for published, c in seen]
    camera, arrival, inference, command = np.array(rows).T
    return {
        "graph_overhead_ms": spread(command - camera - inference),
        "stamp_to_command_less_inference_ms": spread(command - inference),
        "overhead_parts_ms": {
            "camera": spread(camera), "transport": spread(arrival - camera), "inference": spread(inference),
            "rest": spread(command - arrival - inference), "camera_to_command": spread(command),
        },
        "overhead_frames": len(rows),
    }  # fmt: skip


def hot_swap(seconds: float) -> dict[str, Any]:
    """Half the time as it is, half with adapters that come and go every SWAP_PERIOD: camera frames that got no chunk of their own, and
    periods of commands in which none was published."""
    with tempfile.TemporaryDirectory() as folder, served() as (_, client):
        offers = [_random_adapter(Path(folder) / str(k), k) for k in range(2)]
        client.watch_frames()
        without = _missed(client, seconds / 2, "as it is")
        with client.repeating(SWAP_PERIOD, lambda k: client.offer(*offers[k % 2])) as swaps:
            swapping = _missed(client, seconds / 2, "swapping")
        used = [c.adapter_id for _, c in client.chunks]
    chunks = {name or "none": used.count(name) for name in sorted(set(used))}
    detail = {"swaps": len(swaps), "with": swapping, "without": without, "chunks_by_adapter": chunks}
    return {"hot_swap_missed_ticks": swapping["missed"], "hot_swap": detail}


def _missed(client: GraphClient, seconds: float, what: str) -> dict[str, int]:
    first = client.status
    work(client, seconds, what)
    last = client.status
    assert first is not None and last is not None
    commands, before = ({drop.key: int(drop.value) for drop in status.drops}["command_missed"] for status in (last, first))
    return {"missed": last.missed_ticks - first.missed_ticks, "ticks": last.ticks - first.ticks,
            "commands_missed": commands - before, "commands": last.commands - first.commands}  # fmt: skip


def _random_adapter(folder: Path, seed: int) -> tuple[str, Path]:
    """Small enough that the arm still gets there."""
    from safetensors.numpy import save_file

    from act2goal_ros import paths
    from act2goal_ros.serving import adapter
    from act2goal_ros.serving.bundle import ModelBundle

    bundle, random = ModelBundle.load(paths.model(MODEL)), np.random.default_rng(seed)
    stored = {}
    for layer, (inputs, outputs) in bundle.config.lora_layers.items():
        stored[f"base_model.model.{layer}.lora_A.weight"] = random.normal(0, 0.01, (4, inputs)).astype(np.float32)
        stored[f"base_model.model.{layer}.lora_B.weight"] = random.normal(0, 0.01, (outputs, 4)).astype(np.float32)
    folder.mkdir()
    save_file(stored, folder / adapter.WEIGHTS, {adapter.BASE_HASH: bundle.hash})
    (folder / adapter.SETTINGS).write_text(json.dumps({"r": 4, "lora_alpha": 4}))
    return f"random-{seed}", folder


@click.command()
@click.argument("part", type=click.Choice(["tick", "overhead", "hot_swap"]))
@click.option("--runs", default=3000, show_default=True, help="Of the tick part.")
@click.option("--core", default=0, show_default=True, help="Of the tick part.")
@click.option("--seconds", default=300.0, show_default=True, help="Of the parts that run the graph.")
def main(part: str, runs: int, core: int, seconds: float) -> None:
    """Measure one part and merge it into docs/results/realtime.json."""
    values = {"tick": lambda: tick(runs, core, MODEL), "overhead": lambda: overhead(seconds), "hot_swap": lambda: hot_swap(seconds)}[part]()
    results.write("realtime", KEYS, values | results.command(part))


if __name__ == "__main__":
    main()
