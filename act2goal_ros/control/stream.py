"""What the arm is told, from chunk to chunk: C² motion inside all limits, every piece of it ending at rest."""

from __future__ import annotations

import atexit
import gc
import math
from collections import deque

import numpy as np
import ruckig  # type: ignore[import-not-found, unused-ignore]
from numpy.typing import NDArray

from act2goal_ros.control.chunk import ActionChunk
from act2goal_ros.control.jerkpath import GRID, JerkPath, State, integrate, rest, stop, stop_jerks
from act2goal_ros.control.limits import JointLimits
from act2goal_ros.control.trajectory import Trajectory

Array = NDArray[np.float64]
MARGIN = 0.98  # of velocity, acceleration and jerk limits, for motion towards a chunk
STOP_MARGIN = 0.998  # the same for braking
# s in which a joint may meet the chunk; the first that keeps the limits is taken
WINDOWS = (0.1, 0.15, 0.22, 0.33, 0.5)
PREVIEW = 0.4  # s of the chunk that count for the next piece
MEETINGS = (0.02, 0.64, 6)  # s, s, halvings: where the time at which a far joint meets the chunk is searched
HISTORY = 1.5  # s of what was commanded that stays known
atexit.register(gc.unfreeze)  # Ruckig's binding complains at the process's end of whatever a frozen collector keeps alive


class CommandStream:
    """Follows action chunks in absolute time.

    `advance` continues from what is already committed at now + lead: `horizon` s towards the chunk, in steps of
    constant jerk, then a braking tail. A controller that hears nothing more brakes lead + horizon after the last
    message. Deterministic; times are absolute seconds on one clock; lead is rounded down to multiples of GRID.
    """

    def __init__(self, limits: JointLimits, step: float = 0.02, horizon: float = 0.08) -> None:
        if not (step >= GRID and horizon >= step and abs(step / GRID - round(step / GRID)) < 1e-9):
            raise ValueError(f"stream: step {step} s must be a multiple of {GRID} s and ≤ horizon {horizon} s")
        self.limits = limits
        self.step = step
        self.steps = round(horizon / step)
        self.horizon = self.steps * step
        self.scaling = 1.0  # how many times longer than WINDOWS[0] the slowest joint takes to meet the chunk
        self.stretched = 0  # how often a joint could not meet the chunk within the longest window
        self.refused = 0  # how often following had to give way to braking
        self._follow = limits.scaled(MARGIN, MARGIN, MARGIN)
        self._braking = limits.scaled(1.0, STOP_MARGIN, STOP_MARGIN)
        self._filter = _Filter(step, self.steps)
        self._joiner = _Joiner(self._follow)
        bound = self._follow
        self._piece_bounds = np.stack([bound.jerk, bound.acceleration, bound.velocity])[:, None, :]
        self._reach_gain = 0.5 / bound.jerk
        self._joints = np.arange(len(limits))
        self._durations = np.full(self.steps, self.step)
        self._knots: Array = self.step * np.arange(self.steps + 1, dtype=np.float64)
        self._chunk: ActionChunk | None = None
        self._paths: deque[JerkPath] = deque()
        self._follow_until = -math.inf
        self._now = -math.inf

    def reset(self, q: Array, now: float = -math.inf) -> None:
        """At rest at q (J,), rad, since ever; forgets the chunk. Raises ValueError when q is outside the limits."""
        q = np.array(q, np.float64)
        if q.shape != (len(self.limits),):
            raise ValueError(f"stream: position has shape {q.shape}, expected ({len(self.limits)},)")
        problem = self.limits.outside(q)
        if problem is not None:
            raise ValueError(f"stream: {problem}")
        self._paths.clear()
        self._paths.append(rest(0.0, q))
        self._chunk, self._now, self._follow_until, self.scaling = (None, now, -math.inf, 1.0)

    def take_over(self, q: Array, v: Array, time: float) -> None:
        """What moves is elsewhere: at q (J,) with velocities v (J,) at an absolute time. Commits a stop from there."""
        bound = self.limits.velocity
        state = (np.clip(q, self.limits.lower, self.limits.upper), np.clip(v, -bound, bound), np.zeros(len(bound)))
        self._paths.clear()
        self._paths.append(stop(time, state, self._braking))
        self._follow_until = -math.inf

    @property
    def chunk(self) -> ActionChunk | None:
        """The chunk that is followed."""
        return self._chunk

    @property
    def at_rest(self) -> bool:
        """Whether the commanded state at the latest `now` is at rest and stays so."""
        return self._now >= self.rest_time

    @property
    def rest_time(self) -> float:
        """Absolute time at which the commanded motion ends, if nothing more is committed."""
        path = self._paths[-1]
        return path.end if len(path.jerk) else -math.inf

    @property
    def follow_until(self) -> float:
        """Absolute time up to which commitments follow a chunk; later ones are braking tail."""
        return self._follow_until

    def state_at(self, time: float) -> State:
        """Commanded position, velocity, acceleration (J,) at an absolute time of the last HISTORY s, or later."""
        for path in reversed(self._paths):
            if time >= path.start:
                break
        return path.state_at(time)

    def foresee(self, times: Array) -> Array:
        """Positions (N, J) that will have been commanded at absolute times (N,), should no other chunk come.

        What is committed as far as it follows the chunk, then the chunk; the braking tail only when nothing is followed.
        """
        chunk, ahead = self._chunk, list[JerkPath]()
        if chunk is not None and math.isfinite(self._follow_until):
            begin, counted = max(self._follow_until, self._now), (self.scaling, self.stretched)
            state = self.state_at(begin)
            while begin < times.max(initial=begin):
                jerk, end = self._follow_chunk(begin, state, chunk)
                ahead.append(integrate(begin, state, self._durations, jerk))
                begin, state = begin + self.horizon, end
            self.scaling, self.stretched = counted
        return np.array([next((path for path in reversed(ahead) if path.start <= t), self).state_at(t)[0] for t in times.tolist()])

    def adopt(self, chunk: ActionChunk) -> None:
        """The chunk to follow from now on; validated by the caller."""
        self._chunk = chunk

    def advance(self, now: float, lead: float) -> Trajectory:
        """Commits the next piece, from the committed state at now + lead towards the chunk, and returns it."""
        start = self._splice_time(now, lead)
        state = self.state_at(start)
        if self._chunk is None:
            return self._brake(start, state)
        jerk, end = self._follow_chunk(start, state, self._chunk)
        path = self._with_tail(start, state, jerk, end)
        bad = self._violations(path)
        if bad.any():
            path = self._with_tail(start, state, *self._replace(state, jerk, bad, self._braking_knots(state)))
            if self._violations(path).any():
                self.refused += 1
                return self._brake(start, state)
        self._commit(path, start + self.horizon)
        return path.trajectory(start)

    def brake(self, now: float, lead: float) -> Trajectory:
        """Commits the quickest stop within limits from the committed state at now + lead, and returns it."""
        start = self._splice_time(now, lead)
        return self._brake(start, self.state_at(start))

    def resend(self, now: float, lead: float) -> Trajectory:
        """What is committed from now + lead on, unchanged."""
        return self.committed(self._splice_time(now, lead))

    def committed(self, time: float) -> Trajectory:
        """All that is committed from an absolute time on, as one trajectory that starts there."""
        begun = [k for k, path in enumerate(self._paths) if path.start <= time]
        pieces = list(self._paths)[begun[-1] if begun else 0 :]
        last = pieces[-1].trajectory(max(time, pieces[-1].start))
        for path, following in zip(reversed(pieces[:-1]), reversed(pieces[1:]), strict=True):
            begin = max(time, path.start)
            last = _prepend(path.trajectory(begin), following.start, last)
        return last

    def _brake(self, start: float, state: State) -> Trajectory:
        path = stop(start, state, self._braking)
        if self._violations(path).any():
            # What is committed is known to end at rest inside the limits; a quicker stop may not.
            return self.committed(start)
        self._commit(path, -math.inf)
        return path.trajectory(start)

    def _splice_time(self, now: float, lead: float) -> float:
        self._now = now
        return math.floor((now + lead) / GRID + 1e-6) * GRID

    def _commit(self, path: JerkPath, follow_until: float) -> None:
        while self._paths and self._paths[-1].start >= path.start:
            self._paths.pop()
        self._paths.append(path)
        while len(self._paths) > 1 and self._paths[1].start < self._now - HISTORY:
            self._paths.popleft()
        self._follow_until = follow_until

    def _follow_chunk(self, start: float, state: State, chunk: ActionChunk) -> tuple[Array, State]:
        """Jerks (steps, J) of the next piece and the state after it: each joint in the tightest window it can."""
        q, qd = chunk.sample_many(start + self._filter.offsets)
        np.minimum(np.maximum(qd, -self._follow.velocity, out=qd), self._follow.velocity, out=qd)
        pieces = self._filter.pieces(state, q, qd)
        ok = self._feasible(pieces)
        level = np.where(ok.any(axis=0), ok.argmax(axis=0), len(WINDOWS))
        nearest = np.minimum(level, len(WINDOWS) - 1)
        self.scaling = WINDOWS[int(nearest.max())] / WINDOWS[0]
        jerk, a, v, q = pieces[nearest, :, :, self._joints].transpose(1, 2, 0)
        end = (state[0] + q[-1], v[-1], a[-1])
        far = level == len(WINDOWS)
        if not far.any():
            return jerk, end
        self.stretched += 1
        return self._replace(state, jerk, far, self._joining_knots(start, state, chunk))

    def _feasible(self, pieces: Array) -> NDArray[np.bool_]:
        """(levels, J): whether a piece keeps the limits, and can be stopped within them from each of its knots."""
        size = np.abs(pieces[:, :3])
        ok = (size <= self._piece_bounds).all(axis=(1, 2))
        # The velocity still to come while the acceleration is led to zero.
        reach = np.abs(pieces[:, 2] + pieces[:, 1] * size[:, 1] * self._reach_gain).max(axis=1)
        return np.asarray(ok & (reach <= self._follow.velocity))

    def _joining_knots(self, start: float, state: State, chunk: ActionChunk) -> Array:
        """Accelerations (steps + 1, J) at the steps of the quickest way to meet the chunk."""
        found = self._joiner.accelerations(state, start, chunk, self._knots)
        if found is None:
            return self._braking_knots(state)
        self.scaling = max(self.scaling, self._joiner.duration / WINDOWS[0])
        return found

    def _braking_knots(self, state: State) -> Array:
        """Accelerations (steps + 1, J) at the steps of the quickest stop."""
        braked = stop(0.0, state, self._braking)
        return np.array([braked.state_at(t)[2] for t in self._knots.tolist()])

    def _replace(self, state: State, jerk: Array, joints: NDArray[np.bool_], knots: Array) -> tuple[Array, State]:
        """The jerks with those of `joints` leading from knot to knot of accelerations instead, and the state after."""
        jerk = np.where(joints, np.diff(knots, axis=0) / self.step, jerk)
        path = integrate(0.0, state, self._durations, jerk)
        return jerk, (path.q[-1], path.v[-1], path.a[-1])

    def _with_tail(self, start: float, state: State, jerk: Array, end: State) -> JerkPath:
        """The path under jerks (steps, J), which lead to the state `end`, then the quickest stop."""
        durations, braking = stop_jerks(end, self._braking)
        path = integrate(start, state, np.concatenate([self._durations, durations]), np.concatenate([jerk, braking]))
        path.v[-1], path.a[-1] = 0.0, 0.0  # rounding
        return path

    def _violations(self, path: JerkPath) -> NDArray[np.bool_]:
        """(J,): which joints leave position, velocity or acceleration limits anywhere on the path."""
        if path.clearly_inside(self.limits) and (np.abs(path.a) <= self.limits.acceleration).all():
            return np.zeros(len(self.limits), np.bool_)
        low, high, speed = path.extremes()
        bad = (low < self.limits.lower) | (high > self.limits.upper) | ~(speed <= self.limits.velocity)
        return np.asarray(bad | (np.abs(path.a) > self.limits.acceleration).any(axis=0))


class _Filter:
    """Least-squares tracking: jerks that trade the distance to a reference against their own size.

    For each window w it minimises Σ |q − r|² + (w/4)² |v − ṙ|² + (w³/60)² |jerk|² over n steps of constant jerk; only
    the first jerks and the states they lead to are wanted, so the solution is one matrix, computed once.
    """

    def __init__(self, step: float, wanted: int) -> None:
        n = max(round(PREVIEW / step), wanted)
        self.offsets: Array = step * np.arange(1, n + 1, dtype=np.float64)
        since = np.maximum(np.subtract.outer(np.arange(1, n + 1), np.arange(n)), 0) * step  # start of each jerk
        after = np.maximum(since - step, 0.0)
        by_jerk = [np.eye(n), since - after, (since**2 - after**2) / 2, (since**3 - after**3) / 6]
        t, zero = self.offsets, np.zeros(n)
        by_state = [np.stack(columns, axis=1) for columns in ((zero, zero), (zero, zero + 1), (zero + 1, t), (t, t * t / 2))]
        to_v, to_q = by_jerk[2], by_jerk[3]
        levels = []
        for window in WINDOWS:
            wv, wj = (window / 4) ** 2, (window**3 / 60) ** 2
            lhs = to_q.T @ to_q + wv * to_v.T @ to_v + wj * np.eye(n)
            free = to_q.T @ by_state[3] + wv * to_v.T @ by_state[2]
            gain = np.linalg.solve(lhs, np.hstack([to_q.T, wv * to_v.T, -free]))
            outputs = [forced @ gain for forced in by_jerk]
            for output, own in zip(outputs, by_state, strict=True):
                output[:, -2:] += own
            levels.append(np.concatenate([output[:wanted] for output in outputs]))
        self._gains = np.array(levels)

    def pieces(self, state: State, q: Array, qd: Array) -> Array:
        """(levels, 4, wanted, J): jerk of each step, then acceleration, velocity, change of position at its end.

        From a state to follow the reference q, qd (n, J) at `offsets` after it.
        """
        known = np.concatenate([q - state[0], qd, state[1][None], state[2][None]])
        found = self._gains @ known
        return np.asarray(found.reshape(len(WINDOWS), 4, -1, q.shape[1]), np.float64)


class _Joiner:
    """Time-optimal joins by Ruckig, for joints that are far from the chunk."""

    def __init__(self, limits: JointLimits) -> None:
        self._limits = limits
        self._otg = ruckig.Ruckig(len(limits))
        self._request = request = ruckig.InputParameter(len(limits))
        request.synchronization = ruckig.Synchronization.No
        request.current_position = [0.0] * len(limits)  # targets are relative: large positions cost no precision
        request.max_velocity, request.max_acceleration = limits.velocity.tolist(), limits.acceleration.tolist()
        request.max_jerk = limits.jerk.tolist()
        self.duration = 0.0  # s, of the last join's slowest joint

    def accelerations(self, state: State, start: float, chunk: ActionChunk, times: Array) -> Array | None:
        """Accelerations (N, J) at times (N,) from `start` on the way to meet the chunk; None when there is no way.

        Each joint meets the chunk by itself at the earliest time it can: where the time-optimal duration to the
        chunk's state at some time is that time. A later meeting would recede with every new call.
        """
        early, late = (np.full(len(self._limits), bound) for bound in MEETINGS[:2])
        for _ in range(MEETINGS[2]):
            meet: Array = np.asarray((early + late) / 2, np.float64)
            trajectory = self._solve(state, start, chunk, meet)
            if trajectory is None:
                return None
            in_time = np.array(trajectory.independent_min_durations) <= meet
            early, late = np.where(in_time, early, meet), np.where(in_time, meet, late)
        trajectory = self._solve(state, start, chunk, late)
        if trajectory is None:
            return None
        meet = np.maximum(late, trajectory.independent_min_durations)
        self.duration = float(meet.max())
        found = np.array([trajectory.at_time(t)[2] for t in times.tolist()])
        return found if np.isfinite(found).all() else None

    def _solve(self, state: State, start: float, chunk: ActionChunk, meet: Array) -> ruckig.Trajectory | None:
        """Each joint by itself to where the chunk is at start + meet (J,)."""
        limits, request = self._limits, self._request
        q, qd = (np.diagonal(values) for values in chunk.sample_many(start + meet))
        request.current_velocity, request.current_acceleration = state[1].tolist(), state[2].tolist()
        request.target_position = (q - state[0]).tolist()
        bound = 0.99 * limits.velocity
        request.target_velocity = np.minimum(np.maximum(qd, -bound), bound).tolist()
        trajectory = ruckig.Trajectory(len(limits))
        try:
            result = self._otg.calculate(request, trajectory)
        except ruckig.RuckigError:
            return None
        return trajectory if result in (ruckig.Result.Working, ruckig.Result.Finished) else None


def _prepend(first: Trajectory, until: float, then: Trajectory) -> Trajectory:
    """The points of `first` before the absolute time `until`, followed by `then`, which starts there."""
    keep = first.times < until - first.start - 1e-4
    assert first.velocities is not None and first.accelerations is not None
    assert then.velocities is not None and then.accelerations is not None
    return Trajectory(
        first.start,
        np.concatenate([first.times[keep], then.start - first.start + then.times]),
        np.concatenate([first.positions[keep], then.positions]),
        np.concatenate([first.velocities[keep], then.velocities]),
        np.concatenate([first.accelerations[keep], then.accelerations]),
    )
