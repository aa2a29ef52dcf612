"""The bring-up benchmark: success through the graph and in the plain loop, whether the plan matters, and timing.

Writes docs/results/bringup.json; `act2goal docs` makes docs/benchmarks.md of it. Parts can be run one by one: a part's
figures replace the older ones, the rest stays.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import results
from graph_client import GraphClient, Reference
from results import ROOT
from tqdm import tqdm

from act2goal_ros.cli.eval import FIRST_SEED, TASKS
from act2goal_ros.control.jerkpath import stop
from act2goal_ros.control.robot import RobotConfig
from act2goal_ros.learning.statistics import paired_difference, summary

BRAKING_BY, STOPPED_BY, LONGEST_GAP, STILL = 0.1, 0.9, 0.06, 1e-3  # s after a kill; s; rad/s
KILL_PERIOD = 15.0  # s; the launcher gives up on a node that ends 5 times within 60 s
DURATION = 10.0  # s: OGBench's 200 steps of 0.05 s
KEYS = (
    "graph", "loop", "plan_of_another_episode", "plan_shuffled", "plan_masked", "no_plan", "graph_minus_loop", "tick_hz",
    "missed_tick_fraction", "imagination_hz", "camera_to_command_ms", "real_time_factor", "start_to_motion_s", "install_s", "memory_gb",
)  # fmt: skip
VARIANTS = {"plan_of_another_episode": "other_goal", "plan_shuffled": "shuffled", "plan_masked": "masked", "no_plan": "none"}


@contextmanager
def graph(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The whole graph on the simulated arm, in a ROS domain of its own, ended afterwards."""
    os.environ["ROS_DOMAIN_ID"] = str(60 + os.getpid() % 40)
    log = (ROOT / ".cache" / "benchmark.log").open("ab")
    command = [sys.executable, "-m", "act2goal_ros.cli.main", "up", "--no-display", *arguments]
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], GraphClient]]:
    """The graph without a goal yet, and a client it is ready for."""
    with graph("goal_image:=none", *arguments) as process:
        client = GraphClient()
        client.ready(60.0)
        yield process, client
        client.close()


def memory_gb(process: subprocess.Popen[bytes]) -> float:
    """Proportional set size of all processes of the graph together."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return float(sum(p.memory_full_info().pss for p in family if p.is_running()) / 1e9)


def run_episodes(client: GraphClient, episodes: int, log: Path) -> list[dict[str, Any]]:
    """The official tasks, `episodes` resets each; rows are kept in `log` as they come, and taken up again."""
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["task"], row["seed"]) for row in rows}
    jobs = [(task, FIRST_SEED + i) for i in range(episodes) for task in TASKS if (task, FIRST_SEED + i) not in done]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file, tqdm(jobs, unit="episode") as bar:
        for task, seed in bar:
            rows.append(client.episode(task, seed, DURATION))
            print(json.dumps(rows[-1]), file=file, flush=True)
            bar.set_postfix(success=f"{np.mean([row['success'] for row in rows]):.3f}")
    return rows


@contextmanager
def timed(client: GraphClient) -> Iterator[dict[str, Any]]:
    """Rates and delays of the graph while it works; the dictionary is filled at the end."""
    client.clear()
    figures: dict[str, Any] = {}
    started, first = time.monotonic(), client.status
    yield figures
    last, seen = client.status, client.watched
    assert first is not None and last is not None
    running = [s for s in seen.statuses if s.state == s.RUNNING]
    if not running:
        return
    gaps = np.diff(seen.plans)
    delays = [*{s.chunk_id: s.delay_ms for s in running}.values()]
    ticks, missed = last.ticks - first.ticks, last.missed_ticks - first.missed_ticks
    figures |= {
        "timed_s": time.monotonic() - started,
        "tick_hz": float(np.median([s.tick_hz for s in running])),
        "command_hz": float(np.median([s.command_hz for s in running])),
        "missed_tick_fraction": missed / max(ticks + missed, 1),
        "ticks": ticks,
        "imagination_hz": float(1 / np.median(gaps[gaps < 1.0])),
        "camera_to_command_ms": {
            "p50": float(np.percentile(delays, 50)),
            "p99": float(np.percentile(delays, 99)),
        },
        "real_time_factor": float(np.nanmean(seen.factors)),
    }


def work(client: GraphClient, seconds: float) -> None:
    """One episode after another."""
    started, seed = time.monotonic(), 5000
    while time.monotonic() - started < seconds:
        client.episode(TASKS[seed % 5], seed, DURATION)
        seed += 1


def kills(process: subprocess.Popen[bytes], client: GraphClient, node: str, count: int) -> dict[str, Any]:
    """SIGKILL to a node in fast motion: when the reference stood, against a stop that begins BRAKING_BY s later and takes
    the least time the limits allow. By the stamps of controller_state; what of it is lost while Fast DDS recovers is counted."""
    taken, beyond, unseen = [], [], 0
    for k in tqdm(range(count), desc=node, unit="kill"):
        started = time.monotonic()
        client.set_off(TASKS[k % 5], 7000 + k)
        victim = next(p for p in psutil.Process(process.pid).children(recursive=True) if node in map(os.path.basename, p.cmdline()[:3]))
        killed = time.time()
        victim.kill()
        client.wait_for("the stop", lambda at=killed: client.references[-1].stamp > at + STOPPED_BY, 20.0)
        seen = [r for r in client.references if killed < r.stamp < killed + STOPPED_BY]
        if max(np.diff([killed, *(r.stamp for r in seen), killed + STOPPED_BY])) > LONGEST_GAP:
            unseen += 1
        else:
            rest, late = _stop(seen, killed)
            taken.append(rest)
            beyond.append(1000 * late)
        client.wait_recovered()
        client.call_off()
        time.sleep(max(0.0, KILL_PERIOD - (time.monotonic() - started)))
    late_ms = {"p50": float(np.median(beyond)), "max": float(max(beyond))} if beyond else None
    return {"kills": count, "measured": len(taken), "unseen": unseen, "to_rest_s": taken, "beyond_ms": late_ms}


def _stop(seen: list[Reference], killed: float) -> tuple[float, float]:
    """From the kill to rest, and from the end of the quickest stop that begins BRAKING_BY after the kill to rest, s."""
    limits = RobotConfig.load("ur5e_sim").limits
    rest = min(after.stamp for after, before in zip(seen[1:], seen, strict=False)
               if np.abs(before.velocities).max() > STILL >= np.abs(after.velocities).max())  # fmt: skip
    then = min(seen, key=lambda r: abs(r.stamp - killed - BRAKING_BY))
    least = stop(then.stamp, (np.zeros(len(limits)), then.velocities, then.accelerations), limits)
    return rest - killed, rest - least.end


def start_to_motion() -> float:
    """Seconds from the command to the first commanded motion."""
    started = time.monotonic()
    with graph():
        client = GraphClient()

        def moving() -> bool:
            return client.status is not None and np.abs(client.status.commanded_velocities).max(initial=0) > 0.01

        client.wait_for("motion", moving, 60)
        seconds = time.monotonic() - started
        client.close()
    return seconds


@click.command()
@click.argument("part", type=click.Choice(["graph", "loop", "plan", "timing", "kills", "start", "install"]))
@click.option("--episodes", default=50, show_default=True, help="Resets of each of the five tasks.")
@click.option("--variant", type=click.Choice(list(VARIANTS)), default="plan_of_another_episode", show_default=True)
@click.option("--chunk-every", default=1, show_default=True, help="Camera frames between chunks, in the loop.")
@click.option("--seconds", default=300.0, show_default=True, help="Of the timing part.")
@click.option("--install-log", type=click.Path(exists=True, path_type=Path), help="Log of the first ./act2goal in a fresh clone.")
def main(part: str, episodes: int, variant: str, chunk_every: int, seconds: float, install_log: Path | None) -> None:
    """Measure one part of the bring-up and merge it into docs/results/bringup.json."""
    command = results.command(part if part != "plan" else variant)
    rows_folder = ROOT / "outputs" / "bringup"
    if part == "graph":
        model = results.shipped()
        with served() as (process, client):
            with timed(client) as figures:
                rows = run_episodes(client, episodes, graph_log(rows_folder, model))
            found = summary(rows) | {"model": model}
            results.write("bringup", KEYS, {"graph": found, "memory_gb": memory_gb(process), **figures, **command})
    elif part in ("loop", "plan"):
        name, value = ("loop", "normal") if part == "loop" else (variant, VARIANTS[variant])
        output = rows_folder / f"{name}.json"
        subprocess.run([sys.executable, "-m", "act2goal_ros.cli.main", "eval", "--episodes", str(episodes), "--variant", value,
                        "--chunk-every", str(chunk_every), "--output", str(output)], check=True, cwd=ROOT)
        values = {name: json.loads(output.read_text())["summary"], **command}
        if part == "loop" and (graph_rows := graph_log(rows_folder, results.shipped())).exists():
            values["graph_minus_loop"] = compare(graph_rows, output)
        results.write("bringup", KEYS, values)
    elif part == "timing":
        with served() as (process, client):
            with timed(client) as figures:
                work(client, seconds)
            results.write("bringup", KEYS, {"memory_gb": memory_gb(process), **figures, **command})
    elif part == "kills":
        with served("record:=false") as (process, client):
            found = {node: kills(process, client, node, episodes // 5) for node in ("policy", "supervisor")}
            results.write("bringup", KEYS, {"kills": found, **command})
    elif part == "start":
        results.write("bringup", KEYS, {"start_to_motion_s": start_to_motion(), **command})
    elif install_log is not None:
        installed = [line for line in install_log.read_text().splitlines() if "installed in" in line]
        results.write("bringup", KEYS, {"install_s": float(installed[-1].split("installed in")[1].split("s")[0]), **command})


def graph_log(folder: Path, model: str) -> Path:
    """Where rows through the graph are kept; those of other weights are in other files."""
    return folder / f"graph-{model}.jsonl"


def compare(graph_rows: Path, loop_output: Path) -> dict[str, float]:
    """Graph minus loop over the same resets."""
    through_graph = {(r["task"], r["seed"]): r["success"] for r in map(json.loads, graph_rows.read_text().splitlines())}
    in_loop = {(r["task"], r["seed"]): r["success"] for r in json.loads(loop_output.read_text())["rows"]}
    keys = sorted(set(through_graph) & set(in_loop))
    return paired_difference([through_graph[k] for k in keys], [in_loop[k] for k in keys])


if __name__ == "__main__":
    main()
