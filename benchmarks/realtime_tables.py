"""Tables of docs/results/realtime.json: cameras (`transport`), executors, and delays; the benchmarks print the same rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

TRANSPORT = [
    "| size | cameras | published | Hz | sent | received | loss | latency p50 / p99, ms | CPU a camera | CPU receiver |",
    "|---|---|---|---|---|---|---|---|---|---|",
]
EXECUTORS = [
    "| executor | CPU | ticks, Hz | late p50 / p99 / max, ms | images / joint states / controller states, Hz |",
    "|---|---|---|---|---|",
]
GPU = ["| size, network (parameters) | backend | inside | p50 / p99, ms | differs from eager float32 by |", "|---|---|---|---|---|"]


def transport_line(row: Mapping[str, Any]) -> str:
    """So many cameras of a size."""
    late = row["latency_ms"] or {"p50": float("nan"), "p99": float("nan")}
    return (
        f"| {row['size']} | {row['cameras']} | {row['published']} | {row['rate_hz']:.1f} | {row['sent']} | {row['received']} "
        f"| {row['loss']:.2%} | {late['p50']:.1f} / {late['p99']:.1f} | {row['cpu_of_a_camera']:.0%} | {row['cpu_of_the_receiver']:.0%} |"
    )


def executor_line(row: Mapping[str, Any]) -> str:
    """One executor under the policy's load."""
    late, received = row["late_ms"], " / ".join(f"{hz:.1f}" for hz in row["received_hz"].values())
    lates = f"{late['p50']:.2f} / {late['p99']:.2f} / {late['max']:.1f}"
    return f"| {row['executor']} | {row['cpu']:.1%} | {row['ticks_hz']:.2f} | {lates} | {received} |"


Cells = Mapping[str, Mapping[str, Mapping[str, Any]]]  # by method and delay in ms


def delay_table(cells: Cells, what: str, shown: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """A row a method, a column a delay; `what` is shown of each cell, and nothing where there is none."""
    delays: Sequence[str] = sorted({ms for by_ms in cells.values() for ms in by_ms}, key=int)
    lines = [f"| {what} | {' | '.join(f'{ms} ms' for ms in delays)} |", "|---|" + "---|" * len(delays)]
    for method, by_ms in cells.items():
        lines.append(f"| {method} | {' | '.join(shown(by_ms[ms]) if ms in by_ms else '' for ms in delays)} |")
    return lines


def sweep_table(sweep: Cells) -> list[str]:
    """Success in the loop, and how smooth it was."""
    return delay_table(
        sweep,
        "success (episodes); mean jerk, rad/s³; tracking error, mrad rms",
        lambda c: f"{100 * c['success_rate']:.0f} % ({c['episodes']}); {c['jerk_mean']:.0f}; {1000 * c['tracking_rms']:.0f}",
    )


def minus_table(minus: Cells) -> list[str]:
    """How many points of success ours has more, paired, with a 95 % interval and episodes."""

    def shown(cell: Mapping[str, Any]) -> str:
        difference, low, high = (100 * cell[key] for key in ("difference", "low", "high"))
        return f"{difference:+.0f} ({low:+.0f} – {high:+.0f}; {cell['episodes']})"

    return delay_table(minus, "ours minus … (95 %)", shown)


def recorded_table(found: Cells) -> list[str]:
    """What becomes of the same recorded chunks."""
    return delay_table(
        found,
        "mean jerk, rad/s³; border step, mrad; tracking error, mrad rms",
        lambda c: f"{c['jerk_mean']:.0f}; {1000 * c['border_step']:.2f}; {1000 * c['tracking_rms']:.0f}",
    )


def sections(result: Mapping[str, Any]) -> list[str]:
    """The page's sections of what was measured."""
    lines = []
    if sweep := result.get("delay_sweep"):
        about = ("Official tasks of cube-single in the plain loop, one inference at a time, the same resets for all "
                 "(benchmarks/delays.py). ours: without the node's `delay_budget` (0.3 s), beyond which it holds and says so. rtc: guided "
                 "flow of five steps, as in its paper, of the same network.")  # fmt: skip
        picture = "![Success and jerk under delay](pictures/delays.png)"
        lines += ["", "## Delay between a frame and its chunk", "", about, "", *sweep_table(sweep), "", picture]
        if lost := result.get("success_lost_at_200ms"):
            points = ", ".join(f"{100 * lost[key]:+.1f}" for key in ("difference", "low", "high"))
            lines += ["", f"Success lost at 200 ms, paired: {points} points (difference, 95 % interval) in {lost['episodes']} episodes; "
                      "asked: ≤ 3."]  # fmt: skip
        if minus := result.get("delay_ours_minus"):
            lines += ["", "Points of success, paired:", "", *minus_table(minus)]
    if found := result.get("recorded_chunks"):
        lines += ["", "The same recorded chunks given to every method, whatever it does with them (rtc changes how chunks are made and "
                  "is not among them):", "", *recorded_table(found)]  # fmt: skip
    if rows := result.get("transport"):
        lines += ["", "## Camera pictures", "", "Cameras and receiver in processes of their own, 30 pictures a second each "
                  "(benchmarks/transport.py).", "", *TRANSPORT, *map(transport_line, rows)]  # fmt: skip
    if rows := result.get("executors"):
        lines += ["", "## Executors", "", "Under the policy's subscriptions and a 50 Hz timer (benchmarks/executors.py).", "",
                  *EXECUTORS, *map(executor_line, rows)]  # fmt: skip
    if found := result.get("gpu"):
        lines += gpu_section(found)
    return [*lines, ""] if lines else []


def gpu_section(found: Mapping[str, Any]) -> list[str]:
    """Every backend of every network, what was left out and why, and torch.compile over TensorRT."""
    about = f"{found['device']}: one call at a time, from arrays on the host to arrays on the host, random weights (benchmarks/gpu.py)."
    ratios = [f"torch.compile over TensorRT, p50, {name}: {x:.1f} × (asked: ≥ 2)." for name, x in found["compile_over_tensorrt"].items()]
    return ["", "## On a GPU", "", about, "", *GPU, *map(gpu_line, found["rows"]), "", *ratios]


def gpu_line(row: Mapping[str, Any]) -> str:
    """One backend."""
    what = f"| {row['size']}, {row['network']} ({row['parameters'] / 1e6:.0f} M) | {row['backend']} | {row['precision']} | "
    return what + (row["left_out"] + " | |" if "left_out" in row else f"{row['p50']:.2f} / {row['p99']:.2f} | {row['difference']:.2g} |")
