"""How far the robot is along a plan and towards its goal, and when the goal is reached.

NumPy only. Times are seconds; latents are float arrays of shape (C, h, w) or (F, C, h, w); distances are RMS over the
elements of a latent, so they do not depend on its size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
ProgressMode = Literal["latent", "clock"]


class ProgressError(ValueError):
    """A latent, a plan or a parameter that cannot be used; the message names value and bound."""


def rms_distance(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Root mean square difference of two latents of the same shape."""
    x, y = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if x.shape != y.shape:
        raise ProgressError(f"latents of shapes {x.shape} and {y.shape} cannot be compared")
    return float(np.sqrt(np.mean(np.square(x - y))))


@dataclass(frozen=True)
class PlanPosition:
    """Where the robot is along a plan.

    position: s along the plan's time; age: s since the plan's first frame; shift = age - position: s the robot is behind
    (+) or ahead (-) of the plan's clock; distance: RMS of the live latent to the imagined way at that position (to its
    nearest point in clock mode).
    """

    position: float
    age: float
    shift: float
    distance: float


class ProgressTracker:
    """Follows the live latent along the way a plan imagined: start latent, then the imagined frames, joined linearly.

    The position only grows (monotonic), by at most `max_rate` times the elapsed time dt (windowed), and minimises
    d(s)^2 + v^2 * lag/dt * (s - s_clock)^2:  the visual distance against a random walk around the clock, v being the way's
    median speed in latent space. Where the plan shows no motion the clock decides; for a robot that stands still the
    position runs ahead by `lag`.

    mode: "clock" takes the elapsed time instead. max_rate: plan seconds a second. lag: s. min_speed: RMS/s, below which the
    way is taken to show no motion.
    """

    def __init__(self, mode: ProgressMode = "latent", *, max_rate: float = 2.0, lag: float = 0.3, min_speed: float = 0.02) -> None:
        if mode not in ("latent", "clock"):
            raise ProgressError(f"mode is {mode!r}, must be 'latent' or 'clock'")
        for name, value in (("max_rate", max_rate), ("lag", lag), ("min_speed", min_speed)):
            if not value > 0.0:
                raise ProgressError(f"{name} is {value}, must be > 0")
        self.mode: ProgressMode = mode
        self.max_rate, self.lag, self.min_speed = max_rate, lag, min_speed
        self._knots: npt.NDArray[np.float64] | None = None
        self._way = np.zeros((0, 0), np.float32)
        self._speed = min_speed
        self._start = self._last = self._position = 0.0

    @property
    def has_plan(self) -> bool:
        """True between set_plan and clear."""
        return self._knots is not None

    def clear(self) -> None:
        """Forgets the plan."""
        self._knots = None

    def set_plan(self, start: float, offsets: npt.ArrayLike, latents: npt.ArrayLike, start_latent: npt.ArrayLike) -> None:
        """Takes a plan: start (s, absolute), offsets (F,) s > 0 ascending, latents (F, C, h, w), start_latent (C, h, w)."""
        times = np.asarray(offsets, np.float64)
        frames, first = np.asarray(latents, np.float32), np.asarray(start_latent, np.float32)
        if times.ndim != 1 or times.size == 0 or not np.all(np.isfinite(times)):
            raise ProgressError(f"frame offsets have shape {times.shape}, need (F,) with F >= 1, all finite")
        if times[0] <= 0.0 or np.any(np.diff(times) < 0.0):
            raise ProgressError(f"frame offsets {np.round(times, 3).tolist()} s must be > 0 and ascending")
        if frames.shape != (times.size, *first.shape):
            raise ProgressError(f"latents have shape {frames.shape}, must be {(times.size, *first.shape)}")
        distinct = np.append(np.diff(times) > 0.0, True)  # near the goal several frames may fall on one step: the last counts
        times, frames = times[distinct], frames[distinct]
        way = np.concatenate([first.reshape(1, -1), frames.reshape(times.size, -1)])
        if not np.all(np.isfinite(way)):
            raise ProgressError("the plan's latents are not finite")
        steps = np.sqrt(np.mean(np.square(np.diff(way, axis=0)), axis=1))
        self._knots, self._way = np.concatenate([[0.0], times]), way
        self._speed = max(float(np.median(steps / np.diff(self._knots))), self.min_speed)
        self._start = self._last = float(start)
        self._position = 0.0

    def update(self, now: float, live: npt.ArrayLike) -> PlanPosition:
        """Position at `now` (s, absolute; the live frame's stamp) of the live latent (C, h, w).

        A stamp before the last one moves nothing; raises ProgressError without a plan or for a latent of another shape.
        """
        if self._knots is None:
            raise ProgressError("no plan: call set_plan first")
        z = np.asarray(live, np.float32).reshape(-1)
        if z.size != self._way.shape[1] or not np.all(np.isfinite(z)):
            raise ProgressError(f"live latent has {z.size} elements, must be {self._way.shape[1]}, all finite")
        dt = max(0.0, now - self._last)
        self._last = max(self._last, now)
        age = now - self._start
        if self.mode == "clock":
            self._position = max(self._position, age)
            _, squared = self._best(z, 0.0, float(self._knots[-1]), clock=0.0, weight=0.0)
        else:
            end = float(self._knots[-1])
            low, clock = min(self._position, end), min(self._position + dt, end)
            high = min(self._position + self.max_rate * dt, end)
            weight = self._speed**2 * self.lag / max(dt, 1e-6)
            self._position, squared = self._best(z, low, high, clock, weight)
        return PlanPosition(self._position, age, age - self._position, float(np.sqrt(squared)))

    def _best(self, z: Floats, low: float, high: float, clock: float, weight: float) -> tuple[float, float]:
        """Position in [low, high] minimising d(s)^2 + weight (s - clock)^2, and d(s)^2 there (mean square).

        On every segment of the way the cost is a parabola in s: its vertex, kept inside segment and window, is the minimum.
        """
        assert self._knots is not None
        starts, span = self._knots[:-1], np.diff(self._knots)
        inside = (starts <= high) & (self._knots[1:] >= low)
        starts, span = starts[inside], span[inside]
        first, way = self._way[:-1][inside], np.diff(self._way, axis=0)[inside]
        lengths = np.mean(np.square(way), axis=1, dtype=np.float64)
        along = np.mean((z - first) * way, axis=1, dtype=np.float64)
        u = (along + weight * span * (clock - starts)) / np.maximum(lengths + weight * span**2, 1e-12)
        u = np.clip(np.clip(u, (low - starts) / span, (high - starts) / span), 0.0, 1.0)
        miss = z - first - u[:, None].astype(np.float32) * way
        squared = np.einsum("ij,ij->i", miss, miss, dtype=np.float64) / z.size
        positions = starts + u * span
        best = int(np.argmin(squared + weight * np.square(positions - clock)))
        return float(np.clip(positions[best], low, high)), float(squared[best])


class GoalProgress:
    """Progress of a goal, 0 at its start .. 1 at the goal: 1 - (time to goal now) / (time to goal at its start).

    Both are medians over `window` estimates, so that one bad frame moves nothing. The start's is the largest median within
    the first `settle` seconds. Progress falls again when the robot loses ground; it is 0 until the first estimate.
    """

    def __init__(self, *, window: int = 5, settle: float = 0.5) -> None:
        if window < 1:
            raise ProgressError(f"window is {window}, must be >= 1")
        self.settle = settle
        self._recent: deque[float] = deque(maxlen=window)
        self._began: float | None = None
        self._reference = 0.0

    def reset(self) -> None:
        """Forgets the goal; the next update starts a new one."""
        self._recent.clear()
        self._began, self._reference = None, 0.0

    @property
    def time_to_goal(self) -> float:
        """Median of the recent estimates, s; infinite before the first."""
        return float(np.median(self._recent)) if self._recent else float("inf")

    def update(self, now: float, time_to_goal: float) -> float:
        """Takes an estimate (s) of the frame at `now` (s); returns the progress. An estimate that is not finite is ignored."""
        if np.isfinite(time_to_goal):
            self._recent.append(max(0.0, float(time_to_goal)))
            self._began = now if self._began is None else self._began
            if now - self._began <= self.settle:
                self._reference = max(self._reference, self.time_to_goal)
        if not self._recent:
            return 0.0
        if self._reference <= 1e-6:
            return 1.0
        return float(np.clip(1.0 - self.time_to_goal / self._reference, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class ReachedLimits:
    """When a goal counts as reached. All conditions must hold together for `hold` seconds.

    time_to_goal: s, at most; progress: 0..1, at least; goal_distance: RMS of live and goal latent, at most; speed: rad/s, the
    fastest joint, at most; hold: s; max_gap: s between two updates, more starts the hold again.
    """

    time_to_goal: float = 1.2
    progress: float = 0.0
    goal_distance: float = float("inf")
    speed: float = 0.05
    hold: float = 0.5
    max_gap: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if np.isnan(value) or value < 0.0:
                raise ProgressError(f"reached limit {field.name} is {value}, must be >= 0")


class ReachedDetector:
    """Says when a goal is reached: all of ReachedLimits at once, without a break, for the hold time."""

    def __init__(self, limits: ReachedLimits | None = None) -> None:
        self.limits = limits or ReachedLimits()
        self.reset()

    def reset(self) -> None:
        """Starts again, for a new goal."""
        self._since: float | None = None
        self._last: float | None = None
        self.missing = "no progress seen yet"

    def update(self, now: float, *, time_to_goal: float, progress: float, goal_distance: float, speed: float) -> bool:
        """True when reached. now: s; time_to_goal: s; progress: 0..1; goal_distance: RMS; speed: max |joint velocity|, rad/s.

        `missing` then says what is not yet met, with value and bound. NaN meets no condition; a jump of the clock or a gap
        starts the hold again.
        """
        if self._last is not None and not 0.0 <= now - self._last <= self.limits.max_gap:
            self._since = None
        self._last = now
        self.missing = self._unmet(time_to_goal, progress, goal_distance, speed)
        if self.missing:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        held = now - self._since
        if held < self.limits.hold - 1e-9:
            self.missing = f"held for {held:.2f} s of {self.limits.hold:.2f} s"
            return False
        return True

    def _unmet(self, time_to_goal: float, progress: float, goal_distance: float, speed: float) -> str:
        """The first condition that does not hold, or an empty string."""
        limits = self.limits
        if not time_to_goal <= limits.time_to_goal:
            return f"time to goal {time_to_goal:.2f} s > {limits.time_to_goal:.2f} s"
        if not progress >= limits.progress:
            return f"progress {progress:.2f} < {limits.progress:.2f}"
        if not goal_distance <= limits.goal_distance:
            return f"goal distance {goal_distance:.3f} > {limits.goal_distance:.3f}"
        if not speed <= limits.speed:
            return f"fastest joint {speed:.3f} rad/s > {limits.speed:.3f} rad/s"
        return ""


@dataclass(frozen=True, kw_only=True)
class ReachedSample:
    """What a detector sees at one moment (units as in ReachedDetector.update), and the truth: is the goal reached now?"""

    time: float
    time_to_goal: float
    progress: float
    goal_distance: float
    speed: float
    truth: bool


@dataclass(frozen=True)
class ReachedScore:
    """Detections over rollouts. latency: s from the truth's first moment to the detection, one per true positive."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    latency: tuple[float, ...]

    @property
    def false_positive_rate(self) -> float:
        """Share of detections that were wrong; NaN without detections."""
        found = self.true_positive + self.false_positive
        return self.false_positive / found if found else float("nan")

    @property
    def false_negative_rate(self) -> float:
        """Share of reached goals that were not detected; NaN when no goal was reached."""
        reached = self.true_positive + self.false_negative
        return self.false_negative / reached if reached else float("nan")


def score_detector(rollouts: Sequence[Sequence[ReachedSample]], limits: ReachedLimits) -> ReachedScore:
    """Runs a detector over recorded rollouts. A detection is right when the truth holds at its moment.

    A rollout without detection is a false negative when the truth holds at its end, else a true negative.
    """
    counts = {"tp": 0, "fp": 0, "tn": 0, "fn": 0}
    latency: list[float] = []
    for samples in rollouts:
        found = first_detection(samples, limits)
        if found is None:
            counts["fn" if samples and samples[-1].truth else "tn"] += 1
        elif found.truth:
            counts["tp"] += 1
            latency.append(found.time - next(s.time for s in samples if s.truth))
        else:
            counts["fp"] += 1
    return ReachedScore(counts["tp"], counts["fp"], counts["tn"], counts["fn"], tuple(latency))


def first_detection(samples: Sequence[ReachedSample], limits: ReachedLimits) -> ReachedSample | None:
    """The sample at which a detector with these limits first says reached."""
    detector = ReachedDetector(limits)
    for s in samples:
        if detector.update(s.time, time_to_goal=s.time_to_goal, progress=s.progress, goal_distance=s.goal_distance, speed=s.speed):
            return s
    return None
