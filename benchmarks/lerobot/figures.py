"""What is compared with LeRobot's asynchronous inference, and how: the same definitions for both sides.

An episode counts from its first command until OGBench's success, or to its end. All stamps are system time in s, all joints
in rad. Set-points are those the servos got, one every physics step (2 ms), recorded in the arm by the same code on both sides.

- delay: from the instant of the simulated state that a frame shows until the first command made from it has arrived at the
  arm. `in_force`: until the servos get the first set-point of it (what is new in our commands lies `lead` = 10 ms ahead).
- overhead: delay − network − rendering. Network: the seconds that the networks took for this chunk, measured around their
  calls where they run; on LeRobot's side with the plan where one was due, as it is made there. Rendering: until the frame was
  there, measured in the arm.
- control rate: commands a second. Idle tick: a control period without a command, with half a period of tolerance.
- border step: at the instant a new chunk takes over, how far the set-point is from what would have been commanded for the
  same instant without it (LeRobot: what the queue held for that time step, else what was held; ours: the trajectory sent
  before, at every splice, of a new chunk or not). Motion that would have taken place anyway does not count.
- set-point step: the largest change of a set-point from one servo period to the next, wherever it is.
- jerk: third difference of set-points over the third power of the period; once of what the servos got, once at LeRobot's
  control rate: its actions taken as exactly one period apart (neither jitter nor waiting counts), ours sampled at that rate.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
STEP = 0.002  # s of physics
SETTLED = 2 * STEP  # s after the first command: the way from holding to it is no step of a motion
SAME = 1e-4  # s within which two stamps are one


def percentiles(values: Sequence[float] | Array, scale: float = 1.0) -> dict[str, float] | None:
    """p50, p99 and largest of the values times `scale`; None of nothing."""
    if len(values) == 0:
        return None
    found = scale * np.asarray(values, float)
    return {"p50": float(np.percentile(found, 50)), "p99": float(np.percentile(found, 99)), "max": float(found.max())}


def idle_ticks(times: Sequence[float] | Array, period: float) -> int:
    """Periods between consecutive commands in which none came."""
    gaps = np.diff(np.asarray(times, float))
    return int(np.maximum(np.rint(gaps / period) - 1, 0).sum())


def largest_step(setpoints: Array) -> float:
    """Of set-points (N, J): the largest change from one to the next; 0 of fewer than two."""
    return float(np.abs(np.diff(setpoints, axis=0)).max(initial=0.0))


def largest_jerk(setpoints: Array, period: float) -> float:
    """Of set-points (N, J) that are `period` s apart, in rad/s³; 0 of fewer than four."""
    if len(setpoints) < 4:
        return 0.0
    return float(np.abs(np.diff(setpoints, n=3, axis=0)).max() / period**3)


def resampled(times: Array, setpoints: Array, period: float) -> Array:
    """Set-points (N, J) at `times` (N,), joined linearly, taken every `period` s."""
    if len(times) == 0:
        return np.empty((0, setpoints.shape[1]))
    grid = np.arange(times[0], times[-1] + 1e-9, period)
    return np.stack([np.interp(grid, times, column) for column in setpoints.T], axis=1)


def displacement(executed: Array, before: Array | None, held: Array) -> float:
    """Border step of a first action (J,) of a chunk: `before` is what the queue held for its time step, `held` the action before it."""
    return float(np.abs(executed - (held if before is None else before)).max())


def splice_steps(commands: Sequence[tuple[float, Any]], trace: Array, lead: float = 0.0) -> list[float]:
    """Border steps of trajectories that replace each other: |set-point − what the former one says|, largest of two instants.

    Those are the first servo periods after the latter has replaced the former, and after what is new in it, `lead` s later.
    `commands` are (arrival, Trajectory) in order, `trace` (N, 1 + J) times and set-points.
    """
    found = []
    for (_, former), (arrival, latter) in zip(commands, commands[1:], strict=False):
        instants = (max(arrival, latter.start), max(arrival, latter.start + lead))
        rows = trace[[row for row in np.searchsorted(trace[:, 0], instants) + 1 if row < len(trace)]]
        if len(rows):
            found.append(max(float(np.abs(row[1:] - former.sample(float(row[0]))[0]).max()) for row in rows))
    return found


def window(trace: Array, begin: float, end: float) -> Array:
    """Rows of a trace (N, 1 + J) in begin .. end."""
    first, last = np.searchsorted(trace[:, 0], [begin, end])
    return trace[first:last]


def render_times(stamps: Array, frames: Array) -> Array:
    """s that the frames of these stamps took, from `frames` (M, 2) of stamp and ready; NaN where a stamp is not among them."""
    if len(frames) == 0 or len(stamps) == 0:
        return np.full(len(stamps), np.nan)
    nearest = np.abs(frames[None, :, 0] - stamps[:, None]).argmin(axis=1)
    took = frames[nearest, 1] - frames[nearest, 0]
    return np.where(np.abs(frames[nearest, 0] - stamps) < SAME, took, np.nan)


def delays(observations: Sequence[Mapping[str, float]], frames: Array) -> dict[str, Any]:
    """In ms, of observations with `stamp`, `command`, `in_force` (system time) and `network_s`."""
    columns = {key: np.array([o[key] for o in observations], float) for key in ("stamp", "command", "in_force", "network_s")}
    render = render_times(columns["stamp"], frames)
    known = ~np.isnan(render)
    delay = (columns["command"] - columns["stamp"])[known]
    network, render = columns["network_s"][known], render[known]
    return {
        "delay_ms": percentiles(delay, 1e3),
        "in_force_ms": percentiles((columns["in_force"] - columns["stamp"])[known], 1e3),
        "network_ms": percentiles(network, 1e3),
        "render_ms": percentiles(render, 1e3),
        "overhead_ms": percentiles(delay - network - render, 1e3),
        "observations": int(known.sum()),
    }


def summary(raw: Mapping[str, Any], trace: Array, frames: Array, period: float) -> dict[str, Any]:
    """One side's rows. `raw` has `period` (s, its own control period) and `episodes`; `period` is LeRobot's.

    An episode has `task`, `seed`, `success`, `begin`, `end`, `commands` (when they were sent), `chunks` (how many),
    `observations`, `border_steps` and, where the servos hold what they are told, `actions` (K, J).
    """
    episodes = [e for e in raw["episodes"] if e["commands"]]
    parts = [window(trace, e["begin"] + SETTLED, e["end"]) for e in episodes]
    sent = [np.array([t for t in e["commands"] if e["begin"] <= t <= e["end"]]) for e in episodes]
    seconds = sum(e["end"] - e["begin"] for e in episodes)
    slow = [_at_control_rate(e, part, period) for e, part in zip(episodes, parts, strict=True)]
    return {
        "episodes": len(raw["episodes"]),
        "successes": sum(bool(e["success"]) for e in raw["episodes"]),
        "seconds": seconds,
        "control_hz": sum(len(s) - 1 for s in sent) / max(seconds, 1e-9),
        "chunk_hz": sum(e["chunks"] for e in episodes) / max(seconds, 1e-9),
        "idle_ticks": sum(idle_ticks(s, raw["period"]) for s in sent),
        "ticks": sum(len(s) for s in sent),
        "border_step_rad": percentiles([step for e in episodes for step in e["border_steps"]]),
        "setpoint_step_rad": max((largest_step(p[:, 1:]) for p in parts), default=0.0),
        "jerk_at_servo": max((largest_jerk(p[:, 1:], STEP) for p in parts), default=0.0),
        "jerk_at_control_rate": max((largest_jerk(s, period) for s in slow), default=0.0),
        "real_time_factor": sum(len(p) for p in parts) * STEP / max(sum(p[-1, 0] - p[0, 0] + STEP for p in parts if len(p)), 1e-9),
        **delays([o for e in episodes for o in e["observations"]], frames),
    }


def _at_control_rate(episode: Mapping[str, Any], part: Array, period: float) -> Array:
    return np.array(episode["actions"]) if "actions" in episode else resampled(part[:, 0], part[:, 1:], period)


def ratios(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float | None]:
    """Theirs over ours: medians of the overhead, largest steps and jerks; None where a side has none."""

    def over(key: str, part: str = "") -> float | None:
        a, b = (side[key] if not part else (side[key] or {}).get(part) for side in (theirs, ours))
        return None if a is None or not b else float(a) / float(b)

    return {
        "delay_overhead_ratio": over("overhead_ms", "p50"),
        "delay_ratio": over("delay_ms", "p50"),
        "in_force_ratio": over("in_force_ms", "p50"),
        "border_step_ratio": over("border_step_rad", "max"),
        "setpoint_step_ratio": over("setpoint_step_rad"),
        "jerk_at_servo_ratio": over("jerk_at_servo"),
        "jerk_at_control_rate_ratio": over("jerk_at_control_rate"),
    }
