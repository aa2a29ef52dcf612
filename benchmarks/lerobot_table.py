"""The table of docs/results/realtime.json's key `lerobot`."""

from typing import Any


def _spread(values: dict[str, float] | None, scale: float = 1.0, digits: int = 1) -> str:
    if values is None:
        return "not measured"
    return " / ".join(f"{scale * values[key]:.{digits}f}" for key in ("p50", "p99", "max"))


def _small(value: float) -> str:
    return f"{value:.2g}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} ×" if value >= 100 else f"{value:.1f} ×"


def table(result: dict[str, Any]) -> list[str]:
    """Rows of both sides, and theirs over ours."""
    theirs, ours = result["theirs"], result["ours"]
    sides = (theirs, ours)
    rows = [
        ("success within 10 s", [f"{s['successes']} of {s['episodes']}" for s in sides], None),
        ("observation → action, p50 / p99 / max, ms", [_spread(s["delay_ms"]) for s in sides], result["delay_ratio"]),
        ("observation → set-point in force, ms", [_spread(s["in_force_ms"]) for s in sides], result["in_force_ratio"]),
        ("of it the network, ms", [_spread(s["network_ms"]) for s in sides], None),
        ("of it rendering, ms", [_spread(s["render_ms"]) for s in sides], None),
        ("what is left: overhead, ms", [_spread(s["overhead_ms"]) for s in sides], result["delay_overhead_ratio"]),
        ("commands, chunks a second", [f"{s['control_hz']:.1f}, {s['chunk_hz']:.1f}" for s in sides], None),
        ("idle control ticks", [f"{s['idle_ticks']} of {s['ticks'] + s['idle_ticks']}" for s in sides], None),
        ("step at a chunk border, mrad", [_spread(s["border_step_rad"], 1e3, 4) for s in sides], result["border_step_ratio"]),
        ("largest step at the servo, mrad", [f"{1e3 * s['setpoint_step_rad']:.1f}" for s in sides], result["setpoint_step_ratio"]),
        ("largest jerk at 500 Hz, rad/s³", [_small(s["jerk_at_servo"]) for s in sides], result["jerk_at_servo_ratio"]),
        ("largest jerk at LeRobot's control rate, rad/s³", [_small(s["jerk_at_control_rate"]) for s in sides],
         result["jerk_at_control_rate_ratio"]),
    ]  # fmt: skip
    head = f"| | LeRobot {result['version']} | act2goal_ros | LeRobot over act2goal_ros |"
    return [head, "|---|---|---|---|", *(f"| {name} | {' | '.join(values)} | {_ratio(ratio)} |" for name, values, ratio in rows)]
