"""Makes docs/benchmarks.md from docs/results/*.json, so that no figure is typed by hand."""

import sys
from pathlib import Path
from statistics import median
from typing import Any

from lerobot_table import table as lerobot_table
from realtime_tables import sections
from results import commands, former, load

ROOT = Path(__file__).resolve().parent.parent
SUCCESS_ROWS = {
    "graph": "through the ROS graph, real time",
    "loop": "plain Python loop, same resets",
    "plan_of_another_episode": "plan made for another episode's goal (loop)",
    "plan_shuffled": "right goal, imagined frames shuffled (loop)",
    "plan_masked": "right goal, all imagined frames masked (loop)",
    "no_plan": "no plan at all (loop)",
}
TASKS = [f"cube-single-{i}" for i in range(1, 6)]


def percent(value: float | None) -> str:
    """A rate in percent, or what to print where none was measured."""
    return "not measured" if value is None else f"{100 * value:.1f} %"


def success_table(result: dict[str, Any]) -> list[str]:
    """One row a variant."""
    lines = ["| | success | 95 % interval | episodes | at rest, released | " + " | ".join(t[-1] for t in TASKS) + " |",
             "|---|---|---|---|---|" + "---|" * len(TASKS)]
    for key, title in SUCCESS_ROWS.items():
        row = result.get(key)
        if row is None:
            lines.append(f"| {title} | not measured | | | |" + " |" * len(TASKS))
            continue
        if former(row):
            title += ", former weights"
        low, high = row["interval"]
        tasks = " | ".join(percent(row["per_task"].get(task)) for task in TASKS)
        lines.append(f"| {title} | {percent(row['success_rate'])} | {100 * low:.1f} – {100 * high:.1f} % | {row['episodes']} "
                     f"| {percent(row['at_rest_rate'])} | {tasks} |")
    return lines


def figure(value: Any, unit: str, digits: int = 2) -> str:
    """A number with its unit, or `not measured`."""
    return "not measured" if value is None else f"{value:.{digits}f} {unit}".strip()


def reached_table(result: dict[str, Any]) -> list[str]:
    """The detector on the loop's episodes, which go on after it would have fired."""
    rows = (result.get("loop") or {}).get("reached_detector")
    if not rows:
        return ["Reached detector: not measured.", ""]
    lines = [f"| ≤ {row['time_to_goal']} s | {row['right']} | {row['wrong']} | {row['missed']} | {row['silent']} "
             f"| {row['seconds_after_success']} s |" for row in rows]
    return [
        "Reached detector (estimated time to goal within the limit and all joints below 0.05 rad/s, both for 0.5 s) on the loop's "
        "episodes of 10 s; right: the cube is at its target then.", "",
        "| time to goal | right | wrong | missed (at its target at the end) | rightly silent | after success (median) |",
        "|---|---|---|---|---|---|", *lines, "",
    ]  # fmt: skip


def bringup(result: dict[str, Any]) -> str:
    """The page's section on docs/results/bringup.json."""
    delay = result.get("camera_to_command_ms") or {}
    models = {(result.get(key) or {}).get("model") for key in ("graph", "loop")}
    difference = result.get("graph_minus_loop") if len(models) == 1 else None
    rows = [
        ("policy ticks (chunks)", figure(result.get("tick_hz"), "Hz"), "≥ 20 Hz"),
        ("missed ticks", percent(result.get("missed_tick_fraction")), "≤ 1 %"),
        ("imagination", figure(result.get("imagination_hz"), "Hz"), "≥ 4 Hz"),
        ("camera stamp → command published, p50", figure(delay.get("p50"), "ms", 1), "≤ 30 ms"),
        ("camera stamp → command published, p99", figure(delay.get("p99"), "ms", 1), "≤ 80 ms"),
        ("real-time factor of the simulated arm", figure(result.get("real_time_factor"), "", 3), "≥ 0.98"),
        ("start to first motion", figure(result.get("start_to_motion_s"), "s", 1), "≤ 20 s"),
        ("fresh install", figure(result.get("install_s"), "s", 0), "≤ 360 s"),
        ("memory of all processes together (PSS)", figure(result.get("memory_gb"), "GB"), "≤ 4 GB"),
    ]
    for node, kill in (result.get("kills") or {}).items():
        if late := kill["beyond_ms"]:
            what = f"{node} killed in fast motion: rest later than by the quickest stop from 100 ms on, p50 / max of {kill['measured']}"
            what += f" ({kill['unseen']} more were not seen)" if kill["unseen"] else ""
            rows.append((what, f"{late['p50']:.0f} / {late['max']:.0f} ms (at rest {median(kill['to_rest_s']):.2f} s after)", "0 ms"))
    pair = "not measured" if difference is None else (
        f"{100 * difference['difference']:+.1f} points, 95 % interval {100 * difference['low']:+.1f} to "
        f"{100 * difference['high']:+.1f}, {difference['episodes']} paired episodes")
    return "\n".join([
        "## Bring-up", "",
        "Success by OGBench's criterion on its five official `visual-cube-single` tasks (official camera, 200 steps of 0.05 s):", "",
        *success_table(result), "",
        "With another episode's plan success must fall to chance, or the policy would know the goal past the plan.", "",
        f"Graph minus loop, paired: {pair}.", "",
        "| | measured | asked for |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows), "",
        *reached_table(result),
        "Commands, and where and when each was run last:", "", *commands(result), "",
    ])


def spread(values: dict[str, float] | None) -> str:
    """p50 / p99 / max of a figure in ms."""
    return "not measured" if not values else " / ".join(f"{values[key]:.1f}" for key in ("p50", "p99", "max")) + " ms"


def _missed(ticks: dict[str, Any]) -> str:
    """Missed ticks of the policy and of a bare timer beside it, as published and as they arrived in the listener's process."""
    counts = (f"{ticks['missed'][name]} of {ticks['periods'][name]}" for name in ("policy", "bare_timer"))
    arrived = (f"{100 * ticks['by_arrival'][name]:.2f} %" for name in ("policy", "bare_timer"))
    return f"{', '.join(counts)} at publishing; {', '.join(arrived)} by arrival in a listener (both at {ticks['scheduling']['policy']})"


def _swapped(swap: dict[str, Any], missed: str, of: str) -> str:
    """What was missed with adapters that come and go, and without."""
    during, without = swap["with"], swap["without"]
    return f"{during[missed]} of {during[of]} in {swap['swaps']} swaps (without: {without[missed]} of {without[of]})"


def _servo(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of the limits, what the servos were told at most."""
    what = "velocity, acceleration (2 ms), jerk (10 ms) at the servo in the graph, of the robot's limits"
    when = {"alone": "alone", "busy": "beside a training at nice 0"} if found else {}
    shares = {key: ", ".join(f"{100 * found[key][name]:.1f} %" for name in ("velocity", "acceleration", "jerk")) for key in when}
    return [(f"{what}; {title}", shares[key], "≤ 100 %") for key, title in when.items()]


def realtime(result: dict[str, Any]) -> str:
    """The page's section on docs/results/realtime.json; nothing where there is none."""
    if not result:
        return ""
    parts, swap = result.get("overhead_parts_ms") or {}, result.get("hot_swap")
    missed = result.get("missed_tick_fraction_50hz")
    rows = [
        ("tick (live picture in, chunk out) on one core, p50 / p99 / max", spread(result.get("tick_ms")), "≤ 3 / 5 ms"),
        ("imagination (one pass) on one core", spread(result.get("imagination_ms")), "≤ 20 ms"),
        ("graph's cost: frame published → command published, less the network", spread(result.get("graph_overhead_ms")), "≤ 3 / 8 ms"),
        ("… of it transport of the frame", spread(parts.get("transport")), ""),
        ("… of it the rest: hand-overs, joining, limits, messages", spread(parts.get("rest")), ""),
        ("the same from the frame's stamp on: with the time the camera takes, here rendering",
         spread(result.get("stamp_to_command_less_inference_ms")), ""),
        ("in the same run: stamp → frame published (the simulated camera renders)", spread(parts.get("camera")), ""),
        ("in the same run: the network", spread(parts.get("inference")), ""),
        ("in the same run: stamp → command", spread(parts.get("camera_to_command")), ""),
        *_servo(result.get("servo") or {}),
        ("ticks missed at 50 Hz beside a training, and by a bare timer in the same run",
         "not measured" if missed is None else _missed(result["ticks"]), "≤ 0.1 % beyond the bare timer"),
        ("frames without a chunk while adapters are swapped", "not measured" if not swap else _swapped(swap, "missed", "ticks"), "0"),
        ("periods at 50 Hz without a command meanwhile", "not measured" if "commands_missed" not in (swap or {}).get("with", {}) else
         _swapped(swap, "commands_missed", "commands"), "0"),
        ("on a GPU", "see below" if result.get("gpu") else "not measured: none was at hand (`python benchmarks/gpu.py --publish`)",
         "TensorRT ≥ 2 × torch.compile"),
    ]  # fmt: skip
    return "\n".join([
        "", "## Real time", "",
        "| | measured | asked for |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows), "",
        "Commands, and where and when each was run last:", "", *commands(result), "",
    ])  # fmt: skip


def lerobot(result: dict[str, Any]) -> str:
    """The page's section on the key `lerobot` of docs/results/realtime.json; nothing where it was not measured."""
    if not result:
        return ""
    return "\n".join([
        "", "## Beside LeRobot's asynchronous inference", "",
        f"{result.get('hardware', 'hardware not recorded')}; commit {result.get('commit')}, {result.get('date')}.", "",
        "LeRobot's PolicyServer and RobotClient over loopback with the same network, tasks, seeds and simulated arm; from the "
        "first command to success, or to the end. Three numbers are p50 / p99 / max. The definitions, the same for both: "
        "benchmarks/lerobot/figures.py.",
        "", *lerobot_table(result), "", "Command:", "", f"- `{result.get('command')}`", "",
    ])  # fmt: skip


def page() -> str:
    """docs/benchmarks.md."""
    result, other = load("bringup"), load("realtime")
    head = "# Benchmarks\n\nMade by `python benchmarks/report.py` from docs/results/. A figure that was not measured says so. "
    head += "Former weights are those of a row's date: until 2026-11-25 of single cubes and six flow steps. Timings do not depend on "
    head += "weights, but on flow steps.\n\n"
    return head + bringup(result) + realtime(other) + "\n".join(sections(other)) + lerobot(other.get("lerobot") or {})


def main() -> None:
    """Writes the page; with --check only says whether it is up to date."""
    target = ROOT / "docs" / "benchmarks.md"
    if "--check" in sys.argv:
        sys.exit(0 if target.exists() and target.read_text() == page() else f"{target} is not what docs/results gives")
    target.write_text(page())


if __name__ == "__main__":
    main()
