"""Makes plans: remembers the goal, imagines the way to it, and alters plans for studies. No ROS, no torch.

Pictures are (H, W, 3) uint8 RGB; latents (C, h, w) float32; times are seconds.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Rgb = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

VARIANTS = ("normal", "other_goal", "shuffled", "masked", "none")


class ImaginedWay(Protocol):
    """What a world model's pass returns; see act2goal_ros.serving."""

    offsets: npt.NDArray[np.float64]
    dense: int
    features: Floats
    latents: Floats
    time_to_goal: float
    duration_ms: float


class Imagination(Protocol):
    """The part of a model bundle that imagines; see act2goal_ros.serving."""

    def encode(self, image: Rgb) -> Floats: ...

    def imagine(self, live: Floats, goal: Floats, seed: int) -> Any: ...

    def decode(self, latents: Floats) -> Rgb: ...


class PlannerError(ValueError):
    """A plan that cannot be made; the message names the value and what was expected."""


@dataclass(frozen=True, kw_only=True)
class MadePlan:
    """A plan and what it was made from. stamp: s, of the picture; offsets (F,) s; features (L, F, T, W); latents (F, C, h, w)."""

    plan_id: str
    goal_id: str
    stamp: float
    seed: int
    offsets: npt.NDArray[np.float64]
    dense: int
    features: Floats
    latents: Floats
    start_latent: Floats
    goal_latent: Floats
    time_to_goal: float
    duration_ms: float


class Planner:
    """Plans for one goal at a time.

    variant: what reaches the policy, for studies of whether it matters.
    - `other_goal`: the way to another episode's goal, drawn once a goal from `other_goals`
    - `shuffled`: the right frames' features in another order, drawn anew every plan
    - `masked`: features all zero
    - `none`: no plan at all
    The goal latent stays that of the shown goal, so that progress and the reached detector judge the real goal.
    seed: of the noise; negative draws one.
    """

    def __init__(self, imagination: Imagination, *, variant: str = "normal", other_goals: Sequence[Rgb] = (), seed: int = -1) -> None:
        if variant not in VARIANTS:
            raise PlannerError(f"variant is {variant!r}, must be one of {', '.join(VARIANTS)}")
        if variant == "other_goal" and not other_goals:
            raise PlannerError("variant other_goal needs at least one picture of another episode's goal, there are 0")
        self._imagination, self._variant = imagination, variant
        self._base = seed if seed >= 0 else secrets.randbits(31)
        self._random = np.random.default_rng(self._base)
        self._others = [imagination.encode(rgb) for rgb in other_goals] if variant == "other_goal" else []
        self._run, self._count = secrets.token_hex(3), 0
        self.goal_id = ""
        self._goal: Floats | None = None
        self._aim: Floats | None = None

    def set_goal(self, goal_id: str, picture: Rgb) -> None:
        """The goal from now on."""
        self._goal = self._imagination.encode(picture)
        self._aim = self._others[int(self._random.integers(len(self._others)))] if self._others else self._goal
        self.goal_id = goal_id

    def plan(self, picture: Rgb, stamp: float) -> MadePlan | None:
        """A plan from the picture taken at `stamp`; None for the variant `none`. Raises PlannerError without a goal or when the
        model's output is not finite."""
        if self._goal is None or self._aim is None:
            raise PlannerError("no goal: call set_goal first")
        began = time.perf_counter()
        self._count += 1
        seed = (self._base + self._count) % 2**31
        live = self._imagination.encode(picture)
        way: ImaginedWay = self._imagination.imagine(live, self._aim, seed)
        if not (np.all(np.isfinite(way.latents)) and np.all(np.isfinite(way.features))):
            raise PlannerError(f"the world model's output is not finite (seed {seed})")
        if self._variant == "none":
            return None
        return MadePlan(
            plan_id=f"{self._run}-{self._count}",
            goal_id=self.goal_id,
            stamp=stamp,
            seed=seed,
            offsets=np.asarray(way.offsets, np.float64),
            dense=int(way.dense),
            features=self._altered(way.features),
            latents=way.latents,
            start_latent=live,
            goal_latent=self._goal,
            time_to_goal=float(way.time_to_goal),
            duration_ms=1e3 * (time.perf_counter() - began),
        )

    def _altered(self, features: Floats) -> Floats:
        if self._variant == "masked":
            return np.zeros_like(features)
        if self._variant == "shuffled":
            return np.ascontiguousarray(features[:, derangement(features.shape[1], self._random)])
        return features

    def previews(self, plan: MadePlan) -> Rgb:
        """The plan's imagined frames as pictures (F, H, W, 3)."""
        return self._imagination.decode(plan.latents)


def derangement(count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """A random order of 0 .. count-1 in which nothing stays in its place (as far as count > 1 allows)."""
    order = np.arange(count)
    while count > 1 and np.any(order == np.arange(count)):
        order = random.permutation(count)
    return order


class PlanSchedule:
    """When a plan is wanted: at once on a new goal or a request, else at a rate. Times in s on the caller's clock."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._last: float | None = None

    def due(self, now: float) -> bool:
        """Whether a frame arriving at `now` should become a plan. A clock that jumped back counts as due."""
        return self._last is None or not 0.0 <= now - self._last < 0.9 / self.rate

    def made(self, now: float) -> None:
        """A plan is begun at `now`."""
        self._last = now

    def hurry(self) -> None:
        """The next frame is due whatever the time."""
        self._last = None


class Meter:
    """Rate over the last `span` seconds of events at times given in s."""

    def __init__(self, span: float = 5.0) -> None:
        self._span = span
        self._times: deque[float] = deque()

    def tick(self, now: float) -> None:
        """An event happened."""
        self._times.append(now)
        self._trim(now)

    def rate(self, now: float) -> float:
        """Events a second; 0 with fewer than two in the span."""
        self._trim(now)
        return (len(self._times) - 1) / (self._times[-1] - self._times[0]) if len(self._times) > 1 else 0.0

    def _trim(self, now: float) -> None:
        while self._times and not now - self._span <= self._times[0] <= now:
            self._times.popleft()


class Worker:
    """A thread that runs `work` once whenever it was asked to since it last began; asking again meanwhile is one more run.

    An exception of `work` goes to `failed` and ends nothing.
    """

    def __init__(self, work: Callable[[], None], failed: Callable[[Exception], None], name: str = "worker") -> None:
        self._work, self._failed = work, failed
        self._asked, self._stopped = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self) -> None:
        """Asks for a run; returns at once."""
        self._asked.set()

    def close(self) -> None:
        """Ends the thread after the run in progress."""
        self._stopped = True
        self._asked.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopped:
                return
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 - the thread must outlive whatever a model raises
                self._failed(error)
