"""Watching inputs and time: how old a value is, what was dropped, whether the clock jumped. Times in seconds."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Freshness:
    """Age of an input on a monotonic clock; `problem` names it, its age and the bound."""

    def __init__(self, name: str, bound: float) -> None:
        self.name, self.bound = name, bound
        self._seen: float | None = None
        self._began: float | None = None

    def seen(self, now: float) -> None:
        """The input arrived."""
        self._seen = now

    def forget(self) -> None:
        """As if it had never arrived."""
        self._seen = None

    def problem(self, now: float) -> str | None:
        """None while the input is fresh; else why it is not."""
        if self._seen is None:
            return f"no {self.name} yet"
        age = now - self._seen
        return None if age <= self.bound else f"{self.name} is {age:.3f} s old, allowed {self.bound:g} s"


class Latest(Generic[T]):
    """Hands the newest value from one thread to another; what was not taken in time is dropped and counted."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._value: T | None = None
        self._closed = False
        self.dropped = 0

    def put(self, value: T) -> bool:
        """Offers a value; False when it replaced one that nobody took."""
        with self._condition:
            replaced = self._value is not None
            self.dropped += replaced
            self._value = value
            self._condition.notify()
        return not replaced

    def offer(self, value: T) -> bool:
        """As put, but gives way to a value that waits already; False when it did."""
        with self._condition:
            if self._value is not None:
                return False
            self._value = value
            self._condition.notify()
        return True

    def take(self, timeout: float | None = None) -> T | None:
        """Waits for a value; None when closed or after `timeout` s."""
        with self._condition:
            self._condition.wait_for(lambda: self._value is not None or self._closed, timeout)
            value, self._value = self._value, None
            return None if self._closed else value

    def close(self) -> None:
        """Wakes the taker for good."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed


class Durations:
    """The last `size` durations, s, and their percentiles; kept in order, because percentiles are asked for in every tick."""

    def __init__(self, size: int = 500) -> None:
        self._size = size
        self._values: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Takes one more."""
        if len(self._values) == self._size:
            del self._sorted[bisect_left(self._sorted, self._values.popleft())]
        self._values.append(value)
        insort(self._sorted, value)

    def clear(self) -> None:
        """Forgets all."""
        self._values.clear()
        self._sorted.clear()

    def percentile(self, share: float) -> float:
        """The `share`-th percentile, linear between two durations; 0 when there are none."""
        if not self._sorted:
            return 0.0
        at = share / 100.0 * (len(self._sorted) - 1)
        low, high = self._sorted[math.floor(at)], self._sorted[math.ceil(at)]
        return low + (at - math.floor(at)) * (high - low)

    @property
    def last(self) -> float:
        """The newest; 0 when there is none."""
        return self._values[-1] if self._values else 0.0


class Rate:
    """Events a second over the last `window` s."""

    def __init__(self, window: float = 2.0) -> None:
        self._window = window
        self._times: deque[float] = deque()

    def event(self, now: float) -> None:
        """One more event."""
        self._times.append(now)
        self._trim(now)

    def hz(self, now: float) -> float:
        """The rate now; 0 with fewer than two events in the window."""
        self._trim(now)
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)

    def _trim(self, now: float) -> None:
        while self._times and now - self._times[0] > self._window:
            self._times.popleft()


class Periods:
    """Counts periods in which nothing was published; `now` is the publisher's own monotonic time, s.

    What comes before it is due begins its period early; what comes a whole period or more after it was due has missed
    as many periods as have ended empty. A timer that is late by less misses none.
    """

    def __init__(self, period: float) -> None:
        self.period, self.missed, self.covered = period, 0, 0.0  # s; covered: s of publishing so far
        self._due = self._last = float("nan")

    @property
    def count(self) -> int:
        """Periods so far, missed ones among them."""
        return round(self.covered / self.period)

    def published(self, now: float) -> None:
        """Something was published."""
        if math.isnan(self._due) or now < self._due:
            due = now
        else:
            empty = math.floor((now - self._due) / self.period)
            self.missed += empty
            due = self._due + empty * self.period
        self.covered += 0.0 if math.isnan(self._due) else now - self._last
        self._due, self._last = due + self.period, now

    def pause(self) -> None:
        """There is nothing to publish: time until the next publication does not count."""
        self._due = float("nan")


def read_together(clock: Callable[[], float], within: float = 0.002) -> tuple[float, float]:
    """The time of a clock and of the monotonic one, s, read within 2 ms of each other unless that fails five times.

    A process that is held up between the two readings would take it for a jump of the clock.
    """
    for _ in range(5):
        before = time.monotonic()
        now = clock()
        after = time.monotonic()
        if after - before < within:
            break
    return now, after


LAGS = 64  # readings of the clock, some 0.8 s
SLOWEST = 0.1  # at which speed scaling what lies ahead is looked for; a controller slower than that may not stay so


class StreamClock:
    """The command stream's clock: the node's clock without its jumps, advancing with the controller's speed.

    While a controller scales its speed down it runs through trajectories more slowly; at speed 0 it stands still.
    stepped: the node's clock is simulated time, unrelated to the monotonic one; only a jump back counts.
    """

    def __init__(self, jump_bound: float, stepped: bool = False) -> None:
        self._bound, self._stepped = jump_bound, stepped
        self._lag, self._speed = 0.0, 1.0
        self._last: tuple[float, float] | None = None
        self._lags: deque[tuple[float, float]] = deque(maxlen=LAGS)  # node's time and lag, since the last jump

    def update(self, now: float, monotonic: float, speed: float = 1.0) -> str | None:
        """Advances to `now`; returns what happened when the node's clock jumped by more than the bound."""
        last, self._last = self._last, (now, monotonic)
        self._speed = max(speed, SLOWEST)
        if last is None:
            self._lags.append((now, self._lag))
            return None
        by_node, elapsed = now - last[0], monotonic - last[1]
        jump = min(by_node, 0.0) if self._stepped else by_node - elapsed
        jumped = abs(jump) > self._bound
        if jumped:
            self._lag += jump
            self._lags.clear()
        self._lag += (1.0 - speed) * (max(by_node, 0.0) if self._stepped else elapsed)
        self._lags.append((now, self._lag))
        if not jumped:
            return None
        way = "back" if jump < 0 else "ahead"
        return f"the clock jumped {way} by {abs(jump):.3f} s, allowed {self._bound:g} s"

    def to_stream(self, time: float) -> float:
        """A time of the node's clock, not long ago or near now, on the stream's clock."""
        after = (math.inf, self._lag)
        for mark in reversed(self._lags):
            if time >= mark[0]:
                share = (time - mark[0]) / (after[0] - mark[0])
                return time - mark[1] - share * (after[1] - mark[1])
            after = mark
        return time - after[1]

    def to_node(self, time: float) -> float:
        """A time of the stream's clock, near now, on the node's clock, should the speed stay as it is."""
        now = -math.inf if self._last is None else self._last[0]
        ahead = time + self._lag - now
        return time + self._lag if ahead <= 0 else now + ahead / self._speed
